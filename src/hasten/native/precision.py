"""A program in float32 enters; the same with its weights stored narrower leaves. Activations and sums stay float32.

Weights are widened while they are loaded, so that a product that waits for its weights takes half or a quarter of the
time. int8 weights carry one scale an output channel, applied to the sum.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hasten.errors import SettingsError
from hasten.native.expr import ACC, Expr, call, load, substitute
from hasten.native.kernels.dense import Dense
from hasten.native.kernels.recurrent import Recurrent
from hasten.native.program import Program, Step, Tensor, View
from hasten.types import Array

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["STORED", "reduce_weights"]

_F16_LARGEST = 65504.0


def _dense(step: Dense, storage: str) -> Step:
    """Weights in ``storage``; bias and scale in float32, added to and applied to the sum."""
    weight, scale = step.weight.astype(np.float32), None
    if storage == "float16" and np.abs(weight).max(initial=0) > _F16_LARGEST:
        return step
    if storage == "int8":
        largest = np.abs(weight).max(axis=0, initial=0)
        scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
        weight = np.rint(weight / scale)
    total: Expr = ACC
    if scale is not None:
        total = call("mul", total, _column(scale, step.y, "scale"))
    if step.bias.any():
        total = call("add", total, _column(step.bias.astype(np.float32), step.y, "bias"))
    swap = {id(e): total for e in _accumulators(step.epilogue)}
    bias = np.zeros_like(step.bias)
    return replace(step, weight=weight, bias=bias, storage=storage, epilogue=substitute(step.epilogue, swap))


def _recurrent(step: Recurrent, storage: str) -> Step:
    """The weights of the state. A scale a unit would have to be applied gate by gate: int8 leaves them as they are."""
    if storage == "int8" or (storage == "float16" and np.abs(step.hidden).max(initial=0) > _F16_LARGEST):
        return step
    return replace(step, storage=storage)


def _column(values: Array, y: View, name: str) -> Expr:
    tensor = Tensor(name, values.size, "float32", "constant", data=values)
    return load(View(tensor, y.shape, (0, 1)))


def _accumulators(expr: Expr) -> list[Expr]:
    found = [expr] if expr.op == "acc" else []
    for e in expr.args:
        found += _accumulators(e)
    return found


STORED: Mapping[str, str] = {"bfloat16": "bfloat16", "float16": "float16", "int8-weights": "int8"}
"""Precision → how weights are stored."""


def reduce_weights(program: Program, precision: str) -> Program:
    """The program with the weights of its products stored in that precision; "float32": as it is.

    Raises:  SettingsError: no such precision
    """
    if precision == "float32":
        return program
    if precision not in STORED:
        raise SettingsError(f"native: unknown precision '{precision}': expected float32, {', '.join(STORED)}")
    storage = STORED[precision]

    def reduced(step: Step) -> Step:
        if type(step) is Dense:
            return _dense(step, storage)
        return _recurrent(step, storage) if type(step) is Recurrent else step

    return replace(program, steps=[reduced(s) for s in program.steps])
