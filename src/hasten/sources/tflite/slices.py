"""Emitter of DYNAMIC_UPDATE_SLICE, which tf2onnx lacks and lowered tensor lists need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.sources.tflite.convert import Emitter, Fused
from hasten.sources.tflite.writer import Writer

__all__ = ["SLICES"]


def _dynamic_update_slice(fused: Fused, values: Sequence[ir.Value], tape: Any) -> list[ir.Value]:
    """Shapes:  operand (…), update (…) of the same rank, starts (rank,), clamped so that the update fits inside."""
    w = Writer(tape)
    whole, part = fused.input_shapes[0], fused.input_shapes[1]
    if any(d < 0 for d in (*whole, *part)):
        raise UnsupportedOpError("DYNAMIC_UPDATE_SLICE of free shape has no importer")
    given = dict(zip(fused.inputs, values, strict=True))
    operand, update = (given[i] if i in given else w.const(fused.constants[i]) for i in (0, 1))
    starts = w.op("Cast", given[2], to=7) if 2 in given else w.const(fused.constants[2], "int64")
    room = np.array(whole, np.int64) - np.array(part, np.int64)
    starts = w.op("Max", w.op("Min", starts, w.const(room, "int64")), w.const(np.zeros_like(room), "int64"))
    grid = np.stack(np.meshgrid(*(np.arange(d) for d in part), indexing="ij"), axis=-1)
    # Dimensions that the update fills whole need no index: one row of the grid stands for all of them.
    split = max((axis + 1 for axis, (a, b) in enumerate(zip(whole, part, strict=True)) if a != b), default=1)
    grid = grid.reshape(*part[:split], -1, len(part))[..., 0, :split]
    places = w.op("Add", w.const(grid, "int64"), w.op("Slice", starts, w.ints(0), w.ints(split), w.ints(0)))
    return [w.op("ScatterND", operand, places, update)]


SLICES: dict[str, Emitter] = {"DYNAMIC_UPDATE_SLICE": _dynamic_update_slice}
"""TFLite operator → emitter."""
