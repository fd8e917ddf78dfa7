"""Keeps what libraries say of themselves at start-up off the terminal; everything else that they say gets there."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections.abc import Iterator

__all__ = ["quiet_start", "unlogged"]

# TensorFlow, absl and LiteRT write these from C++ to file descriptor 2, whatever their settings say.
_CHATTER = re.compile(
    rb"INFO: |WARNING: All log messages before absl::InitializeLog|[IW]\d{4} |E\d{4} .*(Unable to register|cuInit)"
)
# Descriptor 2 belongs to the whole process: one thread at a time may lead it elsewhere, or it would stay there.
_ALONE = threading.RLock()


@contextlib.contextmanager
def quiet_start() -> Iterator[None]:
    """What is written to descriptor 2 inside comes out at the end, but for greetings. ``HASTEN_DEBUG`` shows all."""
    with _ALONE, contextlib.ExitStack() as stack:
        if not os.environ.get("HASTEN_DEBUG"):
            stack.enter_context(_sifted())
        yield


@contextlib.contextmanager
def _sifted() -> Iterator[None]:
    import tempfile  # noqa: PLC0415  (a plain load of a bundle has no use for it)

    try:
        kept = os.dup(2)
    except OSError:  # no stderr at all
        yield
        return
    with tempfile.TemporaryFile() as heard:
        _flush()
        os.dup2(heard.fileno(), 2)
        try:
            yield
        finally:
            _flush()
            os.dup2(kept, 2)
            os.close(kept)
            heard.seek(0)
            told = b"".join(line for line in heard if not _CHATTER.match(line))
            if told:
                os.write(2, told)


@contextlib.contextmanager
def unlogged(*names: str) -> Iterator[None]:
    """The loggers of these names tell nothing inside but what ends a program."""
    import logging  # noqa: PLC0415  (loading a bundle has no use for it)

    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _flush() -> None:
    with contextlib.suppress(AttributeError, OSError, ValueError):  # none, or a closed one
        sys.stderr.flush()
