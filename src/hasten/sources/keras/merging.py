"""Merge layers: inputs of fewer dimensions gain some after the batch, then the layer's own arithmetic applies."""

from __future__ import annotations

from hasten.sources.keras.build import Tensor
from hasten.sources.keras.scope import Call, Converter, Scope

__all__ = ["LAYERS"]


def _merge(g: Scope, call: Call) -> Tensor:
    tensors: list[Tensor] = list(call.first)
    rank = max(t.rank for t in tensors)
    alike = [t if t.rank == rank else g.unsqueeze(t, list(range(1, 1 + rank - t.rank))) for t in tensors]
    merged: Tensor = g.inline(call.layer._merge_function, (alike,))
    return merged


LAYERS: dict[str, Converter] = dict.fromkeys(
    ("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract"), _merge
)
