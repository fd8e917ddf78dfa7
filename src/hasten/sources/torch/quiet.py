"""Keeps what torch's exporters say of their own work off the terminal, whoever calls them."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator

from hasten.quiet import quiet_start, unlogged

__all__ = ["exporting_quietly", "voiceless"]


@contextlib.contextmanager
def exporting_quietly() -> Iterator[None]:
    """torch's exporters print progress and warn of what they do by themselves; failures still raise."""
    with (
        unlogged("torch.onnx", "torch.export", "torch.fx", "torch._dynamo"),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def voiceless() -> Iterator[None]:
    """What the exporter for TorchScript writes from C++ (its warnings, a graph that it gives up on) goes nowhere."""
    import torch  # noqa: PLC0415 - heavy and optional

    if os.environ.get("HASTEN_DEBUG"):
        yield
        return
    with quiet_start(), contextlib.ExitStack() as stack:
        # Its log goes to stdout and stays on whatever it is told; stderr has no buffer to outlive this.
        torch._C._jit_set_onnx_log_output_stream("stderr")
        stack.callback(torch._C._jit_set_onnx_log_output_stream, "stdout")
        with contextlib.suppress(OSError):  # no stderr at all
            kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
            stack.callback(os.close, kept)
            stack.callback(os.close, nowhere)
            stack.callback(os.dup2, kept, 2)
            os.dup2(nowhere, 2)
        yield
