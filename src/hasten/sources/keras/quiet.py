"""Imports a framework without the lines that it writes to the terminal before it can be told to be quiet."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

from hasten.quiet import quiet_start

__all__ = ["converter_unlogged", "import_quietly"]


def import_quietly(name: str) -> Any:
    """The module. A user who asks to see all (``TF_CPP_MIN_LOG_LEVEL=0``) sees all.

    Raises:  ModuleNotFoundError: it is not installed
    """
    if name in sys.modules or os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0":
        return importlib.import_module(name)
    with quiet_start():
        return importlib.import_module(name)


@contextlib.contextmanager
def converter_unlogged() -> Iterator[None]:
    """tf2onnx logs a traceback of every operator that it cannot convert; what comes of it is in our own message."""
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
