"""Emitters of the fused sequence operators: UNIDIRECTIONAL and BIDIRECTIONAL SEQUENCE LSTM and RNN.

Each starts from zero state, which is what the layer that was converted does; LiteRT itself would carry its state
variables from one call to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.sources.tflite.convert import Emitter, Fused
from hasten.sources.tflite.lstm import Lstm, read_lstm, scan_lstm, write_lstm
from hasten.sources.tflite.writer import ACTIVATIONS, Writer
from hasten.types import Array

__all__ = ["SEQUENCES", "SEQUENCES_EXACT"]

_UNI = {"weights": 1, "recurrent": 5, "peephole": 9, "bias": 12, "projection": 16, "norm": 20}
_FORWARD = {"weights": 1, "recurrent": 5, "peephole": 9, "bias": 12, "projection": 16}
_BACKWARD = {"weights": 18, "recurrent": 22, "peephole": 26, "bias": 29, "projection": 33}
_AUXILIARY = 39
_RNN_ACTIVATIONS = {"TANH": "Tanh", "RELU": "Relu", "NONE": "Affine"}


def _unidirectional_lstm(fused: Fused, values: Sequence[ir.Value], tape: Any, *, exact: bool) -> list[ir.Value]:
    w = Writer(tape)
    x = _time_major(w, values[0], fused.options)
    answers = _run(w, read_lstm(fused.constants, _UNI, fused.options), x, _Way(_steps(fused), exact, False))
    return [_as_before(w, answers, fused.options)]


def _bidirectional_lstm(fused: Fused, values: Sequence[ir.Value], tape: Any, *, exact: bool) -> list[ir.Value]:
    w = Writer(tape)
    given = dict(zip(fused.inputs, values, strict=True))
    xs = [_time_major(w, given[0], fused.options)] * 2
    layers = [read_lstm(fused.constants, at, fused.options) for at in (_FORWARD, _BACKWARD)]
    if _AUXILIARY in given:
        auxiliary = _time_major(w, given[_AUXILIARY], fused.options)
        firsts = (40, 44)
        if any(first + 1 in fused.constants for first in firsts):
            layers = [_widened(fused, lstm, first) for lstm, first in zip(layers, firsts, strict=True)]
            xs = [w.op("Concat", xs[0], auxiliary, axis=2)] * 2
        else:
            xs = [xs[0], auxiliary]
    ways = [_Way(_steps(fused), exact, reverse) for reverse in (False, True)]
    pairs = zip(layers, xs, ways, strict=True)
    return _merged(w, [_run(w, lstm, x, way) for lstm, x, way in pairs], fused.options)


@dataclass(frozen=True)
class _Way:
    steps: int | None
    exact: bool
    reverse: bool


def _run(w: Writer, lstm: Lstm, x: ir.Value, way: _Way) -> ir.Value:
    judged = lstm if way.exact else replace(lstm, cell_clip=0.0)
    write = write_lstm if judged.is_single_node(way.steps) else scan_lstm
    return write(w, lstm, x, reverse=way.reverse)


def _widened(fused: Fused, lstm: Lstm, first: int) -> Lstm:
    """The layer with its auxiliary input's weights beside the input's own."""
    extra = {g: fused.constants[first + i] for i, g in enumerate("ifco") if first + i in fused.constants}
    return replace(lstm, weights={g: np.concatenate([m, extra[g]], axis=1) for g, m in lstm.weights.items()})


def _unidirectional_rnn(fused: Fused, values: Sequence[ir.Value], tape: Any) -> list[ir.Value]:
    w = Writer(tape)
    x = _time_major(w, values[0], fused.options)
    parts = [_constant(fused, 1), _constant(fused, 2), fused.constants.get(3)]
    return [_as_before(w, _rnn(w, parts, x, fused.options, reverse=False), fused.options)]


def _bidirectional_rnn(fused: Fused, values: Sequence[ir.Value], tape: Any) -> list[ir.Value]:
    w = Writer(tape)
    given = dict(zip(fused.inputs, values, strict=True))
    xs = [_time_major(w, given[0], fused.options)] * 2
    sides = [[_constant(fused, i), _constant(fused, i + 1), fused.constants.get(i + 2)] for i in (1, 5)]
    if 9 in given and 10 in fused.constants:
        for side, position in zip(sides, (10, 11), strict=True):
            side[0] = np.concatenate([np.asarray(side[0]), _constant(fused, position)], axis=1)
        xs = [w.op("Concat", xs[0], _time_major(w, given[9], fused.options), axis=2)] * 2
    elif 9 in given and fused.options.timeMajor:
        xs = [xs[0], given[9]]  # LiteRT's batch-major kernel feeds the input to both directions instead
    answers = [_rnn(w, s, x, fused.options, reverse=r) for s, x, r in zip(sides, xs, (False, True), strict=True)]
    return _merged(w, answers, fused.options)


def _rnn(w: Writer, parts: Sequence[Array | None], x: ir.Value, options: Any, *, reverse: bool) -> ir.Value:
    weights, recurrent, bias = parts
    assert weights is not None and recurrent is not None
    name = ACTIVATIONS.get(int(options.fusedActivationFunction), "?")
    if name not in _RNN_ACTIVATIONS:
        raise UnsupportedOpError(f"RNN with fused activation {name} has no importer")
    units = len(weights)
    whole = np.concatenate([np.zeros(units, np.float32) if bias is None else bias, np.zeros(units, np.float32)])
    extra = {"activation_alpha": [1.0], "activation_beta": [0.0]} if name == "NONE" else {}
    answers = w.op(
        "RNN",
        x,
        w.const(weights[None]),
        w.const(recurrent[None]),
        w.const(whole[None]),
        hidden_size=units,
        direction="reverse" if reverse else "forward",
        activations=[_RNN_ACTIVATIONS[name]],
        **extra,
    )
    return w.op("Squeeze", answers, w.ints(1))


def _constant(fused: Fused, position: int) -> Array:
    if position not in fused.constants:
        raise UnsupportedOpError(f"{fused.name} with computed weights has no importer")
    return fused.constants[position]


def _steps(fused: Fused) -> int | None:
    shape = fused.input_shapes.get(0, ())
    steps = shape[0 if fused.options.timeMajor else 1] if len(shape) == 3 else -1
    return int(steps) if steps > 0 else None


def _time_major(w: Writer, x: ir.Value, options: Any) -> ir.Value:
    return x if options.timeMajor else w.op("Transpose", x, perm=[1, 0, 2])


def _as_before(w: Writer, x: ir.Value, options: Any) -> ir.Value:
    return w.op("Identity", x) if options.timeMajor else w.op("Transpose", x, perm=[1, 0, 2])


def _merged(w: Writer, answers: Sequence[ir.Value], options: Any) -> list[ir.Value]:
    if options.mergeOutputs:
        return [_as_before(w, w.op("Concat", *answers, axis=2), options)]
    return [_as_before(w, answer, options) for answer in answers]


def _table(*, exact: bool) -> dict[str, Emitter]:
    return {
        "UNIDIRECTIONAL_SEQUENCE_LSTM": lambda f, v, t: _unidirectional_lstm(f, v, t, exact=exact),
        "BIDIRECTIONAL_SEQUENCE_LSTM": lambda f, v, t: _bidirectional_lstm(f, v, t, exact=exact),
        "UNIDIRECTIONAL_SEQUENCE_RNN": _unidirectional_rnn,
        "BIDIRECTIONAL_SEQUENCE_RNN": _bidirectional_rnn,
    }


SEQUENCES = _table(exact=False)
"""TFLite operator → emitter; a cell clip is left to the caller to judge, so that the layer stays one LSTM node."""
SEQUENCES_EXACT = _table(exact=True)
"""As ``SEQUENCES``, with every clip in place: a Scan wherever one could act."""
