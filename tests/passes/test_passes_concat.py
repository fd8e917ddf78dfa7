"""What follows a concatenation of layers goes into its parts, and what must stay behind it stays."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graph_text import applies, given, stays

from hasten.passes import Pass
from hasten.passes.fold_affine import fold_affine_after
from hasten.passes.spread_over_concat import spread_over_concat

F, Q = np.float32, np.int64

# name → (model, passes, operators after)
APPLIES: dict[str, tuple[ir.Model, tuple[Pass, ...], dict[str, int]]] = {
    "an Inception block": (
        given(
            """(float[1,4,9] x) => (y) { a = Conv (x, u) b = Conv <pads = [1,1]> (x, w) c = Concat <axis = 1> (a, b)
            n = BatchNormalization (c, g, o, m, v) y = Relu (n) }""",
            u=(3, 4, 1),
            w=(5, 4, 3),
            g=(8,),
            o=(8,),
            m=(8,),
            v=(8,),
        ),
        (spread_over_concat, fold_affine_after),
        {"Conv": 2, "Relu": 2, "Concat": 1},
    ),
    "three dense layers, from the back": (
        given(
            """(float[2,5,4] x) => (y) { a = MatMul (x, u) b = MatMul (x, v) c = MatMul (x, w) t = Tanh (b)
            j = Concat <axis = -1> (a, t, c) s = Mul (k, j) d = Sub (s, h) y = Clip (d, low, high) }""",
            u=(4, 3),
            v=(4, 1),
            w=(4, 2),
            k=(6,),
            h=(1,),
            low=F(-0.5),
            high=F(0.5),
        ),
        (spread_over_concat,),
        {"MatMul": 3, "Tanh": 1, "Mul": 3, "Sub": 3, "Clip": 3, "Concat": 1},
    ),
    "along another axis than the scale": (
        given(
            """(float[1,4,3,5] x) => (y) { a = Conv (x, u) b = Conv (x, w) j = Concat <axis = 3> (a, b)
            y = Div (j, s) }""",
            u=(6, 4, 1, 1),
            w=(6, 4, 1, 3),
            s=(6, 1, 1),
        ),
        (spread_over_concat, fold_affine_after),
        {"Conv": 2, "Concat": 1},
    ),
    "a scale of both, for each row": (
        given(
            """(float[1,4,3,5] x) => (y) { a = Conv (x, u) b = Conv (x, w) j = Concat <axis = 2> (a, b)
            y = Add (j, s) }""",
            u=(6, 4, 1, 1),
            w=(6, 4, 3, 1),
            s=(6, 4, 5),
        ),
        (spread_over_concat,),
        {"Conv": 2, "Concat": 1, "Add": 2},
    ),
}

STAYS: dict[str, tuple[ir.Model, tuple[Pass, ...]]] = {
    "a part that is no layer": (
        given(
            """(float[1,4,9] x) => (y) { a = Conv (x, u) b = MaxPool <kernel_shape = [1]> (x)
            c = Concat <axis = 1> (a, b)
            y = Relu (c) }""",
            u=(3, 4, 1),
        ),
        (spread_over_concat,),
    ),
    "a part that others read": (
        given(
            """(float[1,4,9] x) => (y, z) { a = Conv (x, u) b = Conv (x, w) c = Concat <axis = 1> (a, b)
            y = Relu (c) z = Neg (b) }""",
            u=(3, 4, 1),
            w=(5, 4, 1),
        ),
        (spread_over_concat,),
    ),
    "a sum that others read": (
        given(
            """(float[1,4,9] x) => (y, c) { a = Conv (x, u) b = Conv (x, w) c = Concat <axis = 1> (a, b)
            y = Relu (c) }""",
            u=(3, 4, 1),
            w=(5, 4, 1),
        ),
        (spread_over_concat,),
    ),
    "what comes at run time": (
        given(
            """(float[1,4,9] x, float[8,1] s) => (y) { a = Conv (x, u) b = Conv (x, w) c = Concat <axis = 1> (a, b)
            y = Mul (c, s) }""",
            u=(3, 4, 1),
            w=(5, 4, 1),
        ),
        (spread_over_concat,),
    ),
    "a normalisation of channels over parts of rows": (
        given(
            """(float[1,4,9] x) => (y) { a = Conv (x, u) b = Conv (x, w) c = Concat <axis = 2> (a, b)
            y = BatchNormalization (c, g, o, m, v) }""",
            u=(3, 4, 1),
            w=(3, 4, 3),
            g=(3,),
            o=(3,),
            m=(3,),
            v=(3,),
        ),
        (spread_over_concat,),
    ),
    "a scale that makes more rows": (
        given(
            """(float[1,4,9] x) => (y) { a = Conv (x, u) b = Conv (x, w) c = Concat <axis = 1> (a, b)
            y = Mul (c, s) }""",
            u=(3, 4, 1),
            w=(5, 4, 1),
            s=(2, 8, 9),
        ),
        (spread_over_concat,),
    ),
}


@pytest.mark.parametrize("name", APPLIES)
def test_applies(name: str) -> None:
    applies(*APPLIES[name])


@pytest.mark.parametrize("name", STAYS)
def test_stays(name: str) -> None:
    stays(*STAYS[name])
