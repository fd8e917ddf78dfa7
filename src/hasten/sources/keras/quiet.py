"""Imports a framework without the lines that it writes to the terminal before it can be told to be quiet."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from hasten.quiet import quiet_start

__all__ = ["import_quietly"]


def import_quietly(name: str) -> Any:
    """The module. A user who asks to see all (``TF_CPP_MIN_LOG_LEVEL=0``) sees all.

    Raises:  ModuleNotFoundError: it is not installed
    """
    if name in sys.modules or os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0":
        return importlib.import_module(name)
    with quiet_start():
        return importlib.import_module(name)
