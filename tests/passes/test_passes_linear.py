"""Arithmetic, bias and padding that join the layer beside them, where they may and where they must not."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graph_text import applies, given, stays

from hasten.passes import Pass
from hasten.passes.fold_affine import fold_affine_after, fold_affine_before
from hasten.passes.fuse_linear import fuse_bias
from hasten.passes.fuse_padding import fuse_padding

F, Q = np.float32, np.int64

# name → (model, passes, operators after)
APPLIES: dict[str, tuple[ir.Model, tuple[Pass, ...], dict[str, int]]] = {
    "batch norm after a grouped convolution": (
        given(
            """(float[1,4,5,5] x) => (y) { c = Conv <group = 2> (x, w, b) y = BatchNormalization (c, g, o, m,
            v) }""",
            w=(6, 2, 3, 3),
            b=(6,),
            g=(6,),
            o=(6,),
            m=(6,),
            v=(6,),
        ),
        (fold_affine_after,),
        {"Conv": 1},
    ),
    "batch norm after a grouped transposed convolution": (
        given(
            """(float[1,4,5,5] x) => (y) { c = ConvTranspose <group = 2, strides = [2,2]> (x, w) y =
            BatchNormalization (c, g, o, m, v) }""",
            w=(4, 3, 3, 3),
            g=(6,),
            o=(6,),
            m=(6,),
            v=(6,),
        ),
        (fold_affine_after,),
        {"ConvTranspose": 1},
    ),
    "scale, shift and difference after a dense layer": (
        given(
            """(float[2,4] x) => (y) { a = Gemm <transB = 1, beta = 0.5> (x, w, b) c = Mul (s, a) d = Sub (t,
            c) y = Div (d, s) }""",
            w=(3, 4),
            b=(3,),
            s=(3,),
            t=(1, 3),
        ),
        (fold_affine_after,),
        {"Gemm": 1},
    ),
    "scale after a plain product": (
        given("(float[2,5,4] x) => (y) { a = MatMul (x, w) y = Mul (a, s) }", w=(4, 3), s=(3,)),
        (fold_affine_after,),
        {"MatMul": 1},
    ),
    "batch norm before an unpadded convolution": (
        given(
            """(float[1,4,5,5] x) => (y) { c = BatchNormalization (x, g, o, m, v) y = Conv <group = 2> (c, w) }""",
            w=(6, 2, 3, 3),
            g=(4,),
            o=(4,),
            m=(4,),
            v=(4,),
        ),
        (fold_affine_before,),
        {"Conv": 1},
    ),
    "scale without shift before a padded convolution": (
        given(
            "(float[1,4,5,5] x) => (y) { c = Mul (x, s) y = Conv <pads = [1,1,1,1]> (c, w) }",
            w=(6, 4, 3, 3),
            s=(4, 1, 1),
        ),
        (fold_affine_before,),
        {"Conv": 1},
    ),
    "normalised input before a dense layer": (
        given(
            """(float[2,4] x) => (y) { a = Sub (x, m) c = Div (a, s) y = Gemm <transB = 1, alpha = 2.0> (c, w,
            b) }""",
            w=(3, 4),
            b=(3,),
            m=(4,),
            s=(4,),
        ),
        (fold_affine_before,),
        {"Gemm": 1},
    ),
    "product and bias": (
        given("(float[N,4] x) => (y) { a = MatMul (x, w) y = Add (b, a) }", w=(4, 3), b=(1, 3)),
        (fuse_bias,),
        {"Gemm": 1},
    ),
    "padding before a convolution": (
        given(
            "(float[1,2,5,5] x) => (y) { p = Pad (x, n, z) y = Conv <pads = [0,1,0,0]> (p, w) }",
            n=Q([0, 0, 1, 0, 0, 0, 2, 1]),
            z=F(0),
            w=(3, 2, 3, 3),
        ),
        (fuse_padding,),
        {"Conv": 1},
    ),
    "padding before a convolution, as TensorFlow's one-dimensional ones are written": (
        given(
            """(float[1,5,2] x) => (y) { p = Pad (x, n) u = Unsqueeze (p, one) t = Transpose <perm = [0,3,1,2]> (u)
            y = Conv <dilations = [1,2]> (t, w) }""",
            n=Q([0, 4, 0, 0, 1, 0]),
            one=Q([1]),
            w=(3, 2, 1, 3),
        ),
        (fuse_padding,),
        {"Reshape": 1, "Transpose": 1, "Conv": 1},
    ),
    "padding before an average that counts it": (
        given(
            "(float[1,2,5,5] x) => (y) { p = Pad (x, n) y = AveragePool <kernel_shape = [3,3]> (p) }",
            n=Q([0, 0, 1, 1, 0, 0, 1, 1]),
        ),
        (fuse_padding,),
        {"AveragePool": 1},
    ),
    "zeros around positive numbers before a maximum": (
        given(
            """(float[1,2,5,5] x) => (y) { r = Relu (x) p = Pad (r, n) y = MaxPool <kernel_shape = [3,3]> (p) }""",
            n=Q([0, 0, 1, 1, 0, 0, 1, 1]),
        ),
        (fuse_padding,),
        {"Relu": 1, "MaxPool": 1},
    ),
}

# name → (model, passes): nothing may change but, possibly, constants
STAYS: dict[str, tuple[ir.Model, tuple[Pass, ...]]] = {
    "padding that a reshape spreads": (
        given(
            "(float[1,1,3,2] x) => (y) { p = Pad (x, n) r = Reshape (p, s) y = Conv (r, w) }",
            n=Q([0, 0, 1, 0, 0, 0, 0, 0]),
            s=Q([1, 1, 2, 4]),
            w=(3, 1, 2, 2),
        ),
        (fuse_padding,),
    ),
    "padding of channels, seen through a transpose": (
        given(
            "(float[1,3,3,2] x) => (y) { p = Pad (x, n) t = Transpose <perm = [0,3,1,2]> (p) y = Conv (t, w) }",
            n=Q([0, 0, 0, 1, 0, 0, 0, 0]),
            w=(3, 3, 2, 2),
        ),
        (fuse_padding,),
    ),
    "batch norm after a convolution that others read": (
        given(
            """(float[1,4,5,5] x) => (y, z) { c = Conv (x, w) y = BatchNormalization (c, g, o, m, v) z = Relu
            (c) }""",
            w=(4, 4, 1, 1),
            g=(4,),
            o=(4,),
            m=(4,),
            v=(4,),
        ),
        (fold_affine_after,),
    ),
    "shift before a padded convolution": (
        given(
            "(float[1,4,5,5] x) => (y) { c = Add (x, s) y = Conv <pads = [1,1,1,1]> (c, w) }",
            w=(6, 4, 3, 3),
            s=(4, 1, 1),
        ),
        (fold_affine_before,),
    ),
    "shift before a convolution padded automatically": (
        given(
            '(float[1,4,5,5] x) => (y) { c = Add (x, s) y = Conv <auto_pad = "SAME_UPPER"> (c, w) }',
            w=(6, 4, 3, 3),
            s=(4, 1, 1),
        ),
        (fold_affine_before,),
    ),
    "a large shift, which would cancel digits": (
        given("(float[2,4] x) => (y) { a = Sub (x, m) y = Gemm (a, w) }", w=(4, 3), m=F([1000, 1000, 1000, 1000])),
        (fold_affine_before,),
    ),
    "a scale along the width": (
        given("(float[1,4,5,5] x) => (y) { c = Conv (x, w) y = Mul (c, s) }", w=(6, 4, 1, 1), s=(5,)),
        (fold_affine_after,),
    ),
    "a division by the layer": (
        given("(float[2,4] x) => (y) { a = Gemm (x, w) y = Div (s, a) }", w=(4, 3), s=(3,)),
        (fold_affine_after,),
    ),
    "a bias for each row": (
        given("(float[2,4] x) => (y) { a = MatMul (x, w) y = Add (a, b) }", w=(4, 3), b=(2, 3)),
        (fuse_bias,),
    ),
    "padding before an average that leaves it out": (
        given(
            """(float[1,2,5,5] x) => (y) { p = Pad (x, n) y = AveragePool <kernel_shape = [3,3], pads =
            [1,1,1,1]> (p) }""",
            n=Q([0, 0, 1, 1, 0, 0, 1, 1]),
        ),
        (fuse_padding,),
    ),
    "zeros around any numbers before a maximum": (
        given(
            "(float[1,2,5,5] x) => (y) { p = Pad (x, n) y = MaxPool <kernel_shape = [3,3]> (p) }",
            n=Q([0, 0, 1, 1, 0, 0, 1, 1]),
        ),
        (fuse_padding,),
    ),
    "padding with ones, reflection, or of channels": (
        given(
            """(float[1,2,5,5] x) => (y) { p = Pad (x, n, one) a = Conv (p, w) r = Pad <mode = "reflect"> (a,
            n) b = Conv (r, w) c = Pad (b, m) y = Conv (c, v) }""",
            n=Q([0, 0, 1, 1, 0, 0, 1, 1]),
            m=Q([0, 1, 0, 0, 0, 0, 0, 0]),
            one=F(1),
            w=(2, 2, 3, 3),
            v=(2, 3, 3, 3),
        ),
        (fuse_padding,),
    ),
}


@pytest.mark.parametrize("name", APPLIES)
def test_applies(name: str) -> None:
    applies(*APPLIES[name])


@pytest.mark.parametrize("name", STAYS)
def test_stays(name: str) -> None:
    stays(*STAYS[name])
