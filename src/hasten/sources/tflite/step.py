"""Emitters of the operators that exist to remember: SVDF and the single-step RNN and LSTM, with state as ports.

Values come in the order of the operator's inputs, its states among them; outputs are the operator's own, then the next
value of each state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.sources.tflite.convert import Emitter, Fused
from hasten.sources.tflite.lstm import read_lstm, step
from hasten.sources.tflite.writer import Writer
from hasten.types import Array

__all__ = ["STEPS"]

_FULL = {"weights": 1, "recurrent": 5, "peephole": 9, "bias": 12, "projection": 16, "norm": 20}


def _svdf(fused: Fused, values: Sequence[ir.Value], tape: Any) -> list[ir.Value]:
    """A bank of filters, each the product of a feature filter and a filter over the last frames.

    Shapes:  x (N, in), state (N, filters · memory) · returns (N, filters / rank), the next state
    Source:  tensorflow/lite/kernels/internal/reference/svdf.h
    """
    w, x, state = Writer(tape), values[0], values[1]
    features, times = _stored(fused, 1), _stored(fused, 2)
    filters, memory = times.shape
    rank = int(fused.options.rank)
    newest = w.op("Unsqueeze", w.linear(x, features), w.ints(2))
    frames = w.op("Reshape", state, w.ints(-1, filters, memory))
    older = w.op("Slice", frames, w.ints(1), w.ints(memory), w.ints(2))
    frames = w.op("Concat", older, newest, axis=2)
    sums = w.op("ReduceSum", w.op("Mul", frames, w.const(times)), w.ints(2), keepdims=0)
    if rank > 1:
        grouped = w.op("Reshape", sums, w.ints(-1, filters // rank, rank))
        sums = w.op("ReduceSum", grouped, w.ints(2), keepdims=0)
    answer = w.activate(w.add(sums, fused.constants.get(3)), int(fused.options.fusedActivationFunction))
    return [_final(w, answer), w.op("Reshape", frames, w.ints(-1, filters * memory))]


def _rnn(fused: Fused, values: Sequence[ir.Value], tape: Any) -> list[ir.Value]:
    """Shapes:  x (N, in), h (N, units) · returns h', h'."""
    w, x, h = Writer(tape), values[0], values[1]
    sums = w.op("Add", w.linear(x, _stored(fused, 1)), w.linear(h, _stored(fused, 2)))
    answer = w.activate(w.add(sums, fused.constants.get(3)), int(fused.options.fusedActivationFunction))
    return [_final(w, answer), w.op("Identity", answer)]


def _lstm(fused: Fused, values: Sequence[ir.Value], tape: Any) -> list[ir.Value]:
    """Shapes:  x (N, in), h (N, out), c (N, units) · returns h', h', c'."""
    if len(values) != 3:
        raise UnsupportedOpError("basic LSTM kernel has no importer")
    w = Writer(tape)
    h, c = step(w, read_lstm(fused.constants, _FULL, fused.options), *values)
    return [h, w.op("Identity", h), c]


def _final(w: Writer, value: ir.Value) -> ir.Value:
    # An operator's output must be a node's own, even where nothing is left to do to a value that arrived.
    return value if value.producer() is not None else w.op("Identity", value)


def _stored(fused: Fused, position: int) -> Array:
    if position not in fused.constants:
        raise UnsupportedOpError(f"{fused.name} with computed weights has no importer")
    return np.asarray(fused.constants[position], np.float32)


STEPS: dict[str, Emitter] = {"SVDF": _svdf, "RNN": _rnn, "LSTM": _lstm}
"""TFLite operator → emitter."""
