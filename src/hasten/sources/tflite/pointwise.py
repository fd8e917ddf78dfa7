"""Emitters of element-wise operators that tf2onnx lacks: GELU and the narrow clips."""

from __future__ import annotations

from collections.abc import Sequence
from math import pi, sqrt
from typing import Any

import numpy as np
import onnx_ir as ir

from hasten.sources.tflite.convert import Emitter, Fused
from hasten.sources.tflite.writer import Writer

__all__ = ["POINTWISE"]


def _gelu(fused: Fused, values: Sequence[ir.Value], tape: Any) -> list[ir.Value]:
    """Spelt out as frameworks do; the passes know it again."""
    w, x = Writer(tape), values[0]
    if fused.options.approximate:
        cube = w.op("Mul", w.op("Mul", x, x), x)
        inner = w.op("Add", x, w.op("Mul", cube, w.const(np.float32(0.044715))))
        bent = w.op("Tanh", w.op("Mul", inner, w.const(np.float32(sqrt(2 / pi)))))
    else:
        bent = w.op("Erf", w.op("Mul", x, w.const(np.float32(sqrt(0.5)))))
    half = w.op("Mul", x, w.const(np.float32(0.5)))
    return [w.op("Mul", half, w.op("Add", bent, w.const(np.float32(1))))]


def _between(low: float, high: float) -> Emitter:
    def emit(fused: Fused, values: Sequence[ir.Value], tape: Any) -> list[ir.Value]:
        w = Writer(tape)
        return [w.op("Clip", values[0], w.const(np.float32(low)), w.const(np.float32(high)))]

    return emit


POINTWISE: dict[str, Emitter] = {"GELU": _gelu, "RELU_0_TO_1": _between(0, 1), "RELU_N1_TO_1": _between(-1, 1)}
"""TFLite operator → emitter."""
