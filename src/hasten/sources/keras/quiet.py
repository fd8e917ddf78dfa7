"""Imports a framework without the lines that it writes to the terminal before it can be told to be quiet."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from hasten.quiet import quiet_start

__all__ = ["import_quietly"]


def import_quietly(name: str) -> Any:
    """The module. Where the user chose a level (``TF_CPP_MIN_LOG_LEVEL``), everything is shown as they chose.

    Raises:  ModuleNotFoundError: it is not installed
    """
    if name in sys.modules or "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return importlib.import_module(name)
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with quiet_start():
        return importlib.import_module(name)
