"""Imports a framework without the lines that it writes to the terminal before it can be told to be quiet."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["import_quietly"]


def import_quietly(name: str) -> Any:
    """The module. Where the user chose a level (``TF_CPP_MIN_LOG_LEVEL``), everything is shown as they chose.

    Raises:  ModuleNotFoundError: it is not installed
    """
    if name in sys.modules or "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return importlib.import_module(name)
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with _stderr_aside():
        return importlib.import_module(name)


@contextlib.contextmanager
def _stderr_aside() -> Iterator[None]:
    """What C++ writes to file descriptor 2 goes nowhere: TensorFlow logs there before its level is read."""
    try:
        kept = os.dup(2)
    except OSError:  # no stderr at all
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        sys.stderr.flush()
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
