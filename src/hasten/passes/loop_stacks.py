"""Tensors that a Loop carries through all its turns, and of which each turn writes one row.

ONNX's Loop gathers in scan outputs what its turns leave. TensorFlow's and TFLite's carry the whole tensor along, and
write to it in many spellings (an update of a slice, a scatter, or the row itself where there is but one). So they are
not matched but tried: a turn is run on random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from hasten.passes.recurrent_cell import answers
from hasten.passes.surgery import Dim, static_dims
from hasten.types import Array

__all__ = ["Stack", "State", "is_view", "rows_of"]


@dataclass(frozen=True)
class Stack:
    """Shapes:  (turns, ...) where each turn writes its own row, (1, ...) where all write the same"""

    taken: ir.Value
    """In the body, as a turn finds it."""
    left: ir.Value
    """In the body, as a turn leaves it."""
    final: ir.Value
    """The loop's output."""


@dataclass(frozen=True)
class State:
    """What a turn leaves of one state, and what else its body reads."""

    value: ir.Value
    shape: tuple[int, int]
    counters: Sequence[ir.Value] = ()
    """The number of the turn, as often as the body is given it."""
    known: Mapping[ir.Value, Array] = field(default_factory=dict)


def is_view(model: ir.Model, value: ir.Value, state: State) -> bool:
    """True where ``value``, in the body and of a fixed shape, holds the state's elements in their order."""
    if not _fits(static_dims(value), state):
        return False
    drawn = _drawn(state.shape)
    found = answers(model, [value], [state.value], [drawn], state.known)
    return found is not None and np.array_equal(found[0].reshape(-1), drawn.reshape(-1))


def rows_of(model: ir.Model, stack: Stack, state: State, turns: Dim) -> int | None:
    """How many rows of it the turns fill with the state, each its own or all the same; None where they do not."""
    shape = static_dims(stack.taken)
    if not shape or not isinstance(turns, int) or shape[0] not in (1, turns) or not _fits(shape[1:], state):
        return None
    before, drawn = _drawn(shape), _drawn(state.shape)
    for turn in sorted({0, turns // 2, turns - 1}):
        given = [np.asarray(turn, (c.dtype or ir.DataType.INT64).numpy()) for c in state.counters]
        inputs = [state.value, stack.taken, *state.counters]
        found = answers(model, [stack.left], inputs, [drawn, before, *given], state.known)
        expected = before.copy()
        expected[turn if shape[0] == turns else 0] = drawn.reshape(shape[1:])
        if found is None or not np.array_equal(found[0], expected):
            return None
    return shape[0]


def _fits(shape: tuple[int, ...] | None, state: State) -> bool:
    return shape is not None and math.prod(shape) == math.prod(state.shape)


def _drawn(shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(7).normal(size=shape).astype(np.float32)
