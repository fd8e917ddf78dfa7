"""Which graphs are known to keep rows apart without a run; each that is known is run all the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import parser

from hasten.graph.reference import runner
from hasten.sources import SourceRequest, mixing
from hasten.sources.dims import rows_independent
from hasten.sources.rows import rows_apart
from hasten.types import TensorSpec


def graph(body: str, ends: str = "(float[batch,4,6] x) => (float[batch,m,n] y)", given: str = "") -> ir.Model:
    text = f'<ir_version: 10, opset_import: ["": 20]> g {ends} <{given}> {{ {body} }}'
    return ir.from_proto(parser.parse_model(text))


APART = {
    "one after another": graph("a = Relu(x) b = Tanh(a) y = Mul(a, b)"),
    "broadcast": graph("y = Add(k, x)", given="float[1,1,1] k = {2}"),
    "lower rank": graph("y = Sub(x, k)", given="float[6] k = {1,2,3,4,5,6}"),
    "product": graph("y = MatMul(x, k)", given="float[6,1] k = {1,2,3,4,5,6}"),
    "softmax": graph("y = Softmax(x)"),
    "softmax inside": graph("y = Softmax<axis=1>(x)"),
    "reduced": graph("y = ReduceMean(x, k)", given="int64[1] k = {-1}"),
    "transposed": graph("y = Transpose<perm=[0,2,1]>(x)"),
    "joined": graph("a = Neg(x) y = Concat<axis=-1>(x, a)"),
    "reshaped": graph("y = Reshape(x, k)", given="int64[3] k = {0,3,-1}"),
    "padded": graph("y = Pad(x, k)", given="int64[6] k = {0,1,0,0,0,2}"),
    "sliced": graph("y = Slice(x, s, e, a)", given="int64[1] s = {1}, int64[1] e = {3}, int64[1] a = {1}"),
    "window": graph("y = MaxPool<kernel_shape=[2]>(x)"),
    "convolution": graph("y = Conv(x, k)", given="float[1,4,1] k = {1,2,3,4}"),
}

UNKNOWN = {
    "softmax over rows": graph("y = Softmax<axis=0>(x)"),
    "softmax over rows from behind": graph("y = Softmax<axis=-3>(x)"),
    "mean of rows": graph("m = ReduceMean(x, k) y = Sub(x, m)", given="int64[1] k = {0}"),
    "mean of all": graph("m = ReduceMean(x) y = Sub(x, m)"),
    "rows elsewhere": graph("y = Transpose<perm=[1,0,2]>(x)"),
    "reversed": graph("y = Transpose(x)"),
    "joined along rows": graph("y = Concat<axis=0>(x, x)"),
    "joined with a constant": graph("y = Concat<axis=1>(x, k)", given="float[1,1,6] k = {1,2,3,4,5,6}"),
    "cut otherwise": graph("y = Reshape(x, k)", given="int64[3] k = {-1,2,6}"),
    "padded rows": graph("y = Pad(x, k)", given="int64[6] k = {0,0,0,1,0,0}"),
    "sliced rows": graph("y = Slice(x, s, e, a)", given="int64[1] s = {1}, int64[1] e = {3}, int64[1] a = {-3}"),
    "a constant of rows": graph("y = Add(x, k)", given="float[3,1,1] k = {1,2,3}"),
    "a constant that adds an axis": graph("y = Add(x, k)", given="float[2,1,1,1] k = {1,2}"),
    "another rank": graph("a = ReduceMean<keepdims=0>(x, k) y = Add(x, a)", given="int64[1] k = {1}"),
    "rows by columns": graph("t = Transpose<perm=[0,2,1]>(x) y = MatMul(x, t)"),
    "rows as weights": graph("y = MatMul(k, x)", given="float[2,4] k = {1,2,3,4,5,6,7,8}"),
    "statistics": graph("y = BatchNormalization<training_mode=1>(x, k, k, k, k)", given="float[4] k = {1,1,1,1}"),
    "filters made of rows": graph("y = Conv(x, x)"),
    "weights for each row": graph("y = MatMul(x, k)", given="float[2,6,1] k = {1,2,3,4,5,6,1,2,3,4,5,6}"),
    "indices": graph("y, i = MaxPool<kernel_shape=[2]>(x)"),
    "summed along rows": graph("y = CumSum(x, k)", given="int64 k = {0}"),
    "an input for all rows": graph(
        "y = Add(x, z)", ends="(float[batch,4,6] x, float[3,1,1] z) => (float[batch,4,6] y)"
    ),
    "made of nothing": graph("s = Shape(x) k = Cast<to=1>(s) m = ReduceMax(k) y = Add(x, m)"),
    "another operator's name": graph("y = other.Relu(x)"),
}


@pytest.mark.parametrize("name", APART)
def test_known_to_keep_rows_apart(name: str) -> None:
    assert rows_apart(APART[name])
    rows = np.random.default_rng(0).standard_normal((3, 4, 6)).astype(np.float32)
    assert rows_independent(runner(APART[name]), [rows])


@pytest.mark.parametrize("name", UNKNOWN)
def test_not_known_to_keep_rows_apart(name: str) -> None:
    assert not rows_apart(UNKNOWN[name])


def test_what_is_known_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: Any) -> Any:
        raise AssertionError("it was run")

    monkeypatch.setattr(mixing, "runner", refused)
    x, y = TensorSpec("x", "float32", ("batch", 4, 6)), TensorSpec("y", "float32", ("batch", 4, 6))
    ends = mixing.settle_rows(APART["softmax"], [x], [y], SourceRequest())
    assert ends.inputs == (x,)
    assert not ends.rows_mix
    with pytest.raises(AssertionError, match="it was run"):
        mixing.settle_rows(UNKNOWN["mean of rows"], [x], [y], SourceRequest())
