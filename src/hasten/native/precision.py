"""A program in float32 enters; the same with its weights stored narrower leaves, wherever that is quicker.

Weights of 16 bits are widened while they are loaded, so that a product that waits for its weights takes half the time.
int8 weights carry one scale an output channel, applied to the sum; widening them costs more than it saves, so where
they are many they meet activations of 16 bits, whose rounding theirs hides. Where weights *are* narrower, as in files
that were shrunk, ``as_they_are`` keeps them so and loses nothing; ``in_words`` also rounds the activations they meet.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hasten.errors import SettingsError
from hasten.native.exact import Int8, blocks_of, half_of, int8_of, nearest_int8
from hasten.native.expr import ACC, Expr, call, load, substitute
from hasten.native.kernels.block_dense import BlockDense
from hasten.native.kernels.conv import Conv
from hasten.native.kernels.dense import Dense
from hasten.native.kernels.recurrent import Recurrent
from hasten.native.kernels.rounded_dense import RoundedDense
from hasten.native.kernels.spatial import channels_last
from hasten.native.kernels.word_conv import largest_word, word_conv
from hasten.native.kernels.word_product import DEEPEST, UNIT, WordProduct, sums
from hasten.native.program import Program, Step, Tensor, View
from hasten.types import Array

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hasten.native.isa import Isa

__all__ = ["STORED", "as_they_are", "in_words", "reduce_weights"]

_F16_LARGEST = 65504.0
_LEAST_WORDS = 24  # rows and columns of a matrix; fewer do not repay the rounding of what they meet
_LEAST_WAITING = 1 << 12  # weights that a single row waits for rather than for its sums
_ROUNDING, _CLEARLY_LESS = 8, 0.8  # turns of the arithmetic unit to round a vector
_LEAST_STATE = 16_000  # weights of a state that a near cache does not hold as float32
_LEAST_FAR = 1 << 17  # float16 and int8 are slow to widen: worth it for weights in the last cache or memory


def _dense(step: Dense, storage: str) -> Step:
    """Weights in ``storage``; bias and scale in float32, added to and applied to the sum."""
    weight, scale = step.weight.astype(np.float32), None
    if storage == "float16" and np.abs(weight).max(initial=0) > _F16_LARGEST:
        return step
    if storage == "int8":
        found = nearest_int8(weight)
        weight, scale = found.values.astype(np.float32), found.scale
    epilogue = _scaled(step, scale)
    return replace(step, weight=weight, bias=np.zeros_like(step.bias), storage=storage, epilogue=epilogue)


def _scaled(step: Dense | Conv, scale: Array | None) -> Expr:
    """The step's epilogue, with the scale of its sums and its bias before it."""
    total: Expr = ACC
    if scale is not None:
        total = call("mul", total, _column(scale, step.y, "scale"))
    if step.bias.any():
        total = call("add", total, _column(step.bias.astype(np.float32), step.y, "bias"))
    return substitute(step.epilogue, {id(e): total for e in _accumulators(step.epilogue)})


def _recurrent(step: Recurrent, storage: str, isa: Isa) -> Step:
    """The weights of a state, where they are so many that widening them costs less than reading them whole."""
    if step.resets_before or step.hidden.size < _LEAST_STATE:
        return step
    if storage == "float16" and ("vbmi2" in isa.features or np.abs(step.hidden).max() > _F16_LARGEST):
        return step  # there 24 bits are widened in less time, and lose less
    return replace(step, storage=storage)


def _rounded(step: Step, isa: Isa, threads: int, *, far: bool) -> Step:
    """int8 weights, in words where those are quick; what would only lose by them stays as it is."""
    fast = "vnni" in isa.features
    if type(step) is Recurrent and fast:
        state = replace(step, hidden=_near(step.hidden.reshape(len(step.hidden), -1)).reshape(step.hidden.shape))
        return _or_else(_state_as_it_is(state), state, step)
    if type(step) is Conv and fast:
        taps = _near(step.weight.reshape(len(step.weight), -1).T).T
        filtered = replace(step, weight=taps.reshape(step.weight.shape))
        return _or_else(_word(filtered, isa, threads), filtered, step)
    if type(step) is not Dense or not np.isfinite(step.weight).all():
        return step
    near = replace(step, weight=_near(step.weight))
    found = _in_words(near) if fast or step.rows == 1 else near
    return _or_else(found, near, _dense(step, "int8") if far else step)


def _rounded_dense(step: Step) -> Step:
    """Weights of 11 bits where a single row waits for them; a weight of zero would have to stay zero."""
    if type(step) is not Dense or step.rows != 1 or step.weight.size < _LEAST_WAITING:
        return step
    if not (np.isfinite(step.weight).all() and step.weight.all()):
        return step
    return RoundedDense(step.x, step.y, step.weight, step.bias, step.epilogue, nodes=step.nodes)


def _or_else(found: Step, near: Step, other: Step) -> Step:
    return other if found is near else found


def _near(weight: Array) -> Array:
    """Every column as int8 times a scale; what is not finite stays."""
    if not np.isfinite(weight).all():
        return weight
    found = nearest_int8(weight.astype(np.float32))
    return np.asarray(found.values * found.scale)


def _column(values: Array, y: View, name: str) -> Expr:
    tensor = Tensor(name, values.size, "float32", "constant", data=values)
    return load(View(tensor, y.shape, tuple(int(axis == 1) for axis in range(y.rank))))


def _accumulators(expr: Expr) -> list[Expr]:
    found = [expr] if expr.op == "acc" else []
    for e in expr.args:
        found += _accumulators(e)
    return found


STORED: Mapping[str, str] = {
    "bfloat16": "bfloat16",
    "float16": "float16",
    "int11-weights": "int11",
    "int8-weights": "int8",
}
"""Precision → how weights are stored."""


def reduce_weights(program: Program, precision: str, isa: Isa, threads: int = 1) -> Program:
    """The program with the weights of its products stored in that precision; "float32": as it is.

    Raises:  SettingsError: no such precision
    """
    if precision == "float32":
        return program
    if precision not in STORED:
        raise SettingsError(f"native: unknown precision '{precision}': expected float32, {', '.join(STORED)}")
    storage = STORED[precision]
    # Several rows wait for the arithmetic unless the weights come from memory; float16 does where 24 bits are at hand.
    far = program.weight_bytes > max(isa.second_bytes, isa.last_bytes)
    slow = storage == "float16" and "vbmi2" in isa.features

    def reduced(step: Step) -> Step:
        if storage == "int8":
            return _rounded(step, isa, threads, far=far)
        if storage == "int11":
            return _rounded_dense(step)
        if type(step) is Dense:
            return _dense(step, storage) if far or (step.rows == 1 and not slow) else step
        return _recurrent(step, storage, isa) if type(step) is Recurrent else step

    return replace(program, steps=[reduced(s) for s in program.steps])


def as_they_are(program: Program, isa: Isa) -> Program:
    """The program with the weights of single rows kept as the narrow numbers that they are, where that is faster."""
    if isa.arch != "x86_64" or "fma" not in isa.features:
        return program

    def kept(step: Step) -> Step:
        if type(step) is Dense:
            return _as_it_is(step, isa)
        return _state_as_it_is(step) if type(step) is Recurrent and "vnni" in isa.features else step

    return replace(program, steps=[kept(s) for s in program.steps])


def _state_as_it_is(step: Recurrent) -> Step:
    as_float = step.storage == "float32" and step.scale is None
    if not as_float or step.resets_before or step.hidden.size < _LEAST_STATE:
        return step
    found = int8_of(step.hidden.reshape(len(step.hidden), -1))
    if found is None or sums(found.values) > 1:
        return step
    hidden = found.values.reshape(step.hidden.shape).astype(np.float32)
    return replace(step, hidden=hidden, scale=found.scale.reshape(step.hidden.shape[1:]))


def _as_it_is(step: Dense, isa: Isa) -> Step:
    if step.rows != 1 or step.storage != "float32" or step.weight.size < _LEAST_WAITING:
        return step
    found = int8_of(step.weight)
    if found is None:
        half = half_of(step.weight)
        if half == "bfloat16" or (half and step.weight.size >= _LEAST_FAR):
            return _dense(step, half)
        blocks = blocks_of(step.weight) if step.weight.size >= _LEAST_FAR else None
        return step if blocks is None else _in_blocks(step, blocks)
    if "vnni" in isa.features and len(step.weight) <= DEEPEST:
        return _words(step, step.x, found, 2)
    # bfloat16 holds all int8, and is quicker to widen.
    kept = replace(step, weight=found.values.astype(np.float32), bias=np.zeros_like(step.bias), storage="bfloat16")
    return replace(kept, epilogue=_scaled(step, found.scale))


def _in_blocks(step: Dense, found: Int8) -> BlockDense:
    return BlockDense(
        step.x, step.y, found.values.astype(np.float32), np.zeros_like(step.bias), _scaled(step, None), "int8",
        scale=found.scale, nodes=step.nodes,
    )  # fmt: skip


def in_words(program: Program, isa: Isa, threads: int = 1) -> Program:
    """The program with activations rounded to 16 bits wherever they meet many weights that are exactly int8."""

    return replace(program, steps=[_word(step, isa, threads) for step in program.steps])


def _word(step: Step, isa: Isa, threads: int) -> Step:
    found = _in_words(step) if isinstance(step, (Dense, Conv)) else step
    return _sliding(step, isa, threads) if found is step and isinstance(step, Conv) else found


def _sliding(step: Conv, isa: Isa, threads: int) -> Step:
    """A convolution whose windows overlap, or lie apart; as it is where float32 needs no more arithmetic."""
    order = channels_last(step.x.rank)
    plain = step.groups == 1 and step.x.rank <= 4 and step.x.is_contiguous(order) and step.y.is_contiguous(order)
    if not plain or step.x.dtype != "float32" or step.y.dtype != "float32" or not step.y.size:
        return step
    shapes = len(step.weight), int(np.prod(step.weight.shape[1:]))
    direct = step.y.size // shapes[0] * shapes[1] * isa.turns(shapes[0])  # turns of the arithmetic unit
    filtered = direct * step.preferred(isa).products() / step.macs()
    if direct / 2 + _ROUNDING * step.x.size / isa.lanes > _CLEARLY_LESS * filtered:
        return step
    found = int8_of(step.weight.reshape(shapes).T)
    if found is None or not largest_word(found.values):
        return step
    weight = found.values.T.reshape(step.weight.shape)
    return word_conv(step, weight, _scaled(step, found.scale / np.float32(UNIT)), threads)


def _in_words(step: Dense | Conv) -> Step:
    x = _rows(step)
    if x is None or x.shape[1] > DEEPEST or step.y.size == 0:
        return step
    matrix = step.weight if isinstance(step, Dense) else step.weight.reshape(len(step.weight), -1).T
    enough = min(matrix.shape) >= _LEAST_WORDS if x.shape[0] > 1 else matrix.size >= _LEAST_WAITING
    found = int8_of(matrix) if enough else None
    return step if found is None else _words(step, x, found, 1)


def _words(step: Dense | Conv, x: View, found: Int8, words: int) -> WordProduct:
    scale = found.scale / np.float32(UNIT)
    return WordProduct(x, step.y, found.values, words, _scaled(step, scale), nodes=step.nodes)


def _rows(step: Dense | Conv) -> View | None:
    """What the weights meet as rows of a matrix; None where the step is no such product."""
    if isinstance(step, Dense):
        return step.x if step.storage == "float32" and type(step) is Dense else None
    order = channels_last(step.y.rank)
    if step.groups != 1 or step.y.dtype != "float32" or not step.y.is_contiguous(order):
        return None
    if step.x.shape[2:] != step.y.shape[2:] or any(k != 1 for k in step.window.kernel):
        return None
    x = step.x.transpose(order).reshape((step.x.size // step.x.shape[1], step.x.shape[1]))
    return x if x is not None and x.strides[1] == 1 else None
