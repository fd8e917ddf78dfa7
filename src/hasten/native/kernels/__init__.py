"""One kernel family a file. To add an operator: its family's ``LOWER`` table and one case in the shared suite."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["FAMILIES", "families"]

FAMILIES = (
    "arithmetic", "matmul", "conv", "conv_transpose", "pool", "pool_places", "movement", "rows", "reduce", "order",
    "norm", "gather", "sample", "regions", "resize", "attention", "control", "turns", "recurrent", "quantised",
    "losses", "causal", "fourier", "determinant",
)  # fmt: skip


def families() -> Iterator[Mapping[str, Any]]:
    """The ``LOWER`` table of every family."""
    for name in FAMILIES:
        yield importlib.import_module(f"hasten.native.kernels.{name}").LOWER
