"""Reshapes and transposes that sink, merge and cancel, where they may and where they must not."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graph_text import applies, given, stays

from hasten.passes import Pass
from hasten.passes.drop_noops import drop_noops
from hasten.passes.fold_constants import fold_constants
from hasten.passes.fuse_padding import fuse_padding
from hasten.passes.quantised import views_as_integers
from hasten.passes.quantised_moves import moves_of_integers
from hasten.passes.sink_views import sink_views
from hasten.passes.transposes import cancel_transposes
from hasten.passes.views import merge_views
from hasten.passes.views_into_weights import views_into_weights

F, Q = np.float32, np.int64

# name → (model, passes, operators after)
APPLIES: dict[str, tuple[ir.Model, tuple[Pass, ...], dict[str, int]]] = {
    "activation between reshapes": (
        given(
            """(float[1,2,1,5] x) => (y) { c = Conv (x, w) q = Squeeze (c, a) r = Relu (q) u = Unsqueeze (r, a)
            y = Conv (u, w) }""",
            w=(2, 2, 1, 1),
            a=Q([2]),
        ),
        (sink_views, merge_views, drop_noops),
        {"Conv": 2, "Relu": 1},
    ),
    "residual between reshapes": (
        given(
            """(float[1,2,1,5] x) => (y) { c = Conv (x, w) d = Neg (x) q = Squeeze (c, a) p = Squeeze (d, a) r
            = Add (q, p) u = Unsqueeze (r, a) y = Conv (u, w) }""",
            w=(2, 2, 1, 1),
            a=Q([2]),
        ),
        (sink_views, merge_views, drop_noops),
        {"Conv": 2, "Neg": 1, "Add": 1},
    ),
    "columns of a dense layer before a transpose": (
        given(
            """(float[N,4] x) => (y) { a = Gemm (x, w, b) r = Relu (a) s = Reshape (r, k) t = Transpose
            <perm=[0,3,1,2]> (s) y = Neg (t) }""",
            w=(4, 24),
            b=(24,),
            k=Q([-1, 2, 3, 4]),
        ),
        (merge_views, views_into_weights),
        {"Gemm": 1, "Relu": 1, "Reshape": 1, "Neg": 1},
    ),
    "per-channel weights transposed after dequantising": (
        given(
            """(uint8[1,4] x) => (y) { d = DequantizeLinear (x, s, u) e = DequantizeLinear <axis = 0> (w, t, z)
            f = Transpose (e) y = MatMul (d, f) }""",
            s=F(0.1),
            u=np.uint8(7),
            w=np.arange(12, dtype=np.int8).reshape(3, 4),
            t=F([0.1, 0.2, 0.3]),
            z=np.zeros(3, np.int8),
        ),
        (views_as_integers, fold_constants),
        {"DequantizeLinear": 2, "MatMul": 1},
    ),
    "a border and a residual beside it, in integers": (
        given(
            """(int8[1,2,6] x) => (y, r) { d = DequantizeLinear (x, s, z) p = Pad (d, around) q = QuantizeLinear (p, s,
            z) e = DequantizeLinear (q, s, z) y = Conv (e, w) r = Relu (d) }""",
            s=F(0.1),
            z=np.int8(3),
            around=Q([0, 0, 2, 0, 0, 0]),
            w=(3, 2, 3),
        ),
        (moves_of_integers, drop_noops, fuse_padding),
        {"DequantizeLinear": 2, "Conv": 1, "Relu": 1},
    ),
    "a border before a convolution of integers": (
        given(
            """(uint8[1,2,6,5] x) => (y) { p = Pad (x, around, z) y = QLinearConv (p, s, z, w, s, n, t, z) }""",
            s=F(0.1),
            t=F(9.0),
            z=np.uint8(7),
            n=np.int8(0),
            around=Q([0, 0, 2, 0, 0, 0, 1, 0]),
            w=np.arange(-18, 18, dtype=np.int8).reshape(2, 2, 3, 3),
        ),
        (fuse_padding,),
        {"QLinearConv": 1},
    ),
    "slices and pieces between integers": (
        given(
            """(int8[2,6] x) => (y, u, v) { d = DequantizeLinear (x, s, z) a = Slice (d, zero, two, one) y =
            QuantizeLinear (a, s, z) b, c = Split <axis = 1> (d, three) u = QuantizeLinear (b, s, z) v = QuantizeLinear
            (c, t, z) }""",
            s=F(0.1),
            t=F(0.2),
            z=np.int8(3),
            zero=Q([1]),
            two=Q([3]),
            one=Q([1]),
            three=Q([3, 3]),
        ),
        (moves_of_integers, drop_noops),
        {"Slice": 1, "Split": 1, "DequantizeLinear": 1, "QuantizeLinear": 1},
    ),
    "repeated pixels between integers": (
        given(
            """(uint8[1,2,3,3] x) => (y) { d = DequantizeLinear (x, s, z) r = Resize <mode = "nearest",
            coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (d, region, twice) y =
            QuantizeLinear (r, s, z) }""",
            s=F(0.1),
            z=np.uint8(3),
            region=F([]),
            twice=F([1, 1, 2, 2]),
        ),
        (moves_of_integers, drop_noops),
        {"Resize": 1},
    ),
    "a transpose through reductions": (
        given(
            """(float[2,4,4,3] x) => (y) { t = Transpose <perm=[0,3,1,2]> (x) r = Relu (t) y = ReduceMean
            <keepdims = 0> (r, a) }""",
            a=Q([2, 3]),
        ),
        (cancel_transposes,),
        {"Relu": 1, "ReduceMean": 1},
    ),
    "transposes through quantisation per channel": (
        given(
            """(float[2,4,4,3] x) => (y) { t = Transpose <perm=[0,3,1,2]> (x) q = QuantizeLinear <axis = 1> (t,
            s, z) d = DequantizeLinear <axis = 1> (q, s, z) y = Transpose <perm=[0,2,3,1]> (d) }""",
            s=F([0.1, 0.2, 0.3]),
            z=np.zeros(3, np.int8),
        ),
        (cancel_transposes,),
        {"QuantizeLinear": 1, "DequantizeLinear": 1},
    ),
}

# name → (model, passes): nothing may change but, possibly, constants
STAYS: dict[str, tuple[ir.Model, tuple[Pass, ...]]] = {
    "a transpose that a border needs": (
        given(
            """(float[1,4,4,3] x) => (y) { t = Transpose <perm=[0,3,1,2]> (x) c = Conv (t, w) y = Relu (c) }""",
            w=(2, 3, 3, 3),
        ),
        (cancel_transposes, merge_views),
    ),
    "borders that no integer stands for, and numbers that others read": (
        given(
            """(int8[1,2,6] x) => (y, r, o) { d = DequantizeLinear (x, s, z) p = Pad (d, around, edge) y =
            QuantizeLinear (p, s, z) u = Pad (d, around) r = Exp (u) o = Neg (d) }""",
            s=F(0.1),
            z=np.int8(3),
            around=Q([0, 0, 2, 0, 0, 0]),
            edge=F(0.55),
        ),
        (moves_of_integers, drop_noops),
    ),
    "pixels between which values are taken, or beyond which there are none": (
        given(
            """(uint8[1,2,3,3] x) => (y, u) { d = DequantizeLinear (x, s, z) r = Resize <mode = "linear"> (d, region,
            twice) y = QuantizeLinear (r, s, z) e = DequantizeLinear (x, t, z) c = Resize <mode = "nearest",
            coordinate_transformation_mode = "tf_crop_and_resize"> (e, part, twice) u = QuantizeLinear (c, t, z) }""",
            s=F(0.1),
            t=F(0.2),
            z=np.uint8(3),
            region=F([]),
            part=F([0, 0, 0, 0, 1, 1, 1.5, 1.5]),
            twice=F([1, 1, 2, 2]),
        ),
        (moves_of_integers, drop_noops),
    ),
    "a border of another integer than the convolution's zero": (
        given(
            """(uint8[1,2,6,5] x) => (y) { p = Pad (x, around) y = QLinearConv (p, s, z, w, s, n, t, z) }""",
            s=F(0.1),
            t=F(9.0),
            z=np.uint8(7),
            n=np.int8(0),
            around=Q([0, 0, 2, 0, 0, 0, 1, 0]),
            w=np.arange(-18, 18, dtype=np.int8).reshape(2, 2, 3, 3),
        ),
        (fuse_padding,),
    ),
    "a transpose where its only use is wanted both ways": (
        given("(float[2,3] x) => (y, z) { t = Transpose (x) y = Relu (t) z = Relu (x) }"),
        (cancel_transposes, merge_views),
    ),
}


@pytest.mark.parametrize("name", APPLIES)
def test_applies(name: str) -> None:
    applies(*APPLIES[name])


@pytest.mark.parametrize("name", STAYS)
def test_stays(name: str) -> None:
    stays(*STAYS[name])
