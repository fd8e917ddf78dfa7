"""Portable rewrites of the graph, one a file. ``phases.py`` lists them in order; ``run_phase`` checks around each.

An ``onnx_ir.Model`` enters, an equal and simpler one leaves, with a ``Rewrite`` record of what each pass did.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

__all__ = ["Pass", "Rewrite"]


@dataclass(frozen=True)
class Pass:
    """A named rewrite. ``apply`` changes the model in place and returns how many places it changed."""

    name: str
    apply: Callable[[ir.Model], int]
    requires: str = ""
    """What must hold before (in words, for the report and the reader)."""
    ensures: str = ""
    """What holds after."""


@dataclass(frozen=True)
class Rewrite:
    """What one pass did to one graph, for the report.

    Units:   macs_saved: multiply-adds of one call; *_bytes_saved: bytes. Below zero: it takes more; zero too where
             shapes do not tell
    """

    name: str
    changes: int
    nodes_before: int
    nodes_after: int
    """Those before it, less what this pass alone took away, in all rounds."""
    detail: str = ""
    macs_saved: int = 0
    weight_bytes_saved: int = 0
    written_bytes_saved: int = 0
    """Of what nodes write and others read."""
