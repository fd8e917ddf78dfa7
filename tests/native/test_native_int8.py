"""int8 graphs against ONNX Runtime's evaluation of QuantizeLinear and DequantizeLinear, on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from int8_cases import Graph, compare
from native_cases import HERE
from onnx import helper
from test_native_ops import model

from hasten.errors import UnsupportedOpError
from hasten.native.compile import program_of


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@settings(max_examples=2, deadline=None)
@given(
    st.sampled_from(["Conv", "depthwise"]), st.sampled_from([1, 3, 5, 8, 16, 19, 40]), st.integers(1, 12),
    st.integers(1, 3), st.integers(1, 2), st.integers(0, 1), st.booleans(), st.integers(0, 1000),
)  # fmt: skip
def test_convolutions_of_bytes(dtype, kind, channels, size, kernel, stride, pad, relu, seed):
    g = Graph(seed, dtype)
    x, height = g.rounded("x"), size + kernel
    apart = kind == "depthwise"
    count = channels if apart else int(g.rng.integers(1, 40))
    weight = g.filters(count, 1 if apart else channels, kernel, kernel, per_channel=seed % 2 == 0)
    bias = g.constant(g.rng.standard_normal(count).astype(np.float32))
    options = {"strides": [stride, stride], "pads": [pad] * 4, "group": channels if apart else 1}
    y = g.node("Conv", x, weight, bias, **options)
    y = g.node("Relu", y) if relu else y
    y = g.rounded(y, scale=0.02)
    second = g.rounded(g.node("Conv", y, g.filters(7, count, 1, 1)), scale=0.03)
    model = g.model([second], {"x": (1, channels, height, size + 3)})
    data = g.rng.standard_normal((1, channels, height, size + 3)).astype(np.float32) * 3
    compare(model, data, step=0.03)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "GlobalAveragePool", "Add", "Concat", "Sigmoid", "Gemm"])
def test_between_bytes(op, dtype):
    for channels in (1, 7, 16, 33):
        g = Graph(channels, dtype)
        x = g.rounded("x")
        if op in ("MaxPool", "AveragePool"):
            y = g.node(op, x, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 1, 1, 0])
        elif op == "Add":
            other = g.node("Conv", x, g.filters(channels, channels, 1, 1))
            y = g.node("Relu", g.node("Add", g.rounded(other, scale=0.0713), x))
        elif op == "Concat":
            y = g.node("Concat", g.rounded(x, 0.0411, 3), g.rounded(g.node("Relu", x), 0.0307, 1), axis=1)
        elif op == "Gemm":
            flat = g.node("Flatten", x)
            y = g.rounded(g.node("Gemm", flat, g.filters(10, channels * 54), transB=1))
            y = g.node("Softmax", y)
        else:
            y = g.node(op, x)
        y = g.rounded(y, scale=0.0293)
        data = g.rng.standard_normal((1, channels, 9, 6)).astype(np.float32) * 3
        compare(g.model([y], {"x": (1, channels, 9, 6)}), data, step=0.03)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("places", ["half_pixel", "asymmetric"])
def test_bytes_are_resized(dtype, mode, places):
    """As quantisers leave it that write operators of integers: Resize itself has none."""
    info = np.iinfo(dtype)
    x = np.random.default_rng(0).integers(info.min, info.max + 1, (1, 5, 6, 7)).astype(dtype)
    for scales in ([1, 1, 2, 2], [1, 1, 4, 0.5]):  # thirds would be whole numbers, or a rounding below them
        g = Graph(0, dtype)
        options = {"mode": mode, "coordinate_transformation_mode": places}
        y = g.node("Resize", "x", "", g.constant(np.float32(scales)), **options)
        compare(g.model([y], {"x": x.shape}, {"x": dtype}), x)


def test_a_bias_of_run_time_is_refused_and_not_left_out():
    """Of QLinearConv, whose other inputs are weights."""
    arrays = {
        "x": np.ones((1, 2, 4, 4), np.uint8), "xs": np.float32(0.1), "xz": np.uint8(3),
        "w": np.ones((3, 2, 1, 1), np.int8), "ws": np.float32(0.1), "wz": np.int8(0),
        "ys": np.float32(0.1), "yz": np.uint8(0), "b": np.array([9, 0, -9], np.int32),
    }  # fmt: skip
    node = helper.make_node("QLinearConv", list(arrays), ["y"])
    given = {n: arrays[n] for n in ("x", "b")}
    made = model([node], given, ["y"], {n: a for n, a in arrays.items() if n not in given})
    with pytest.raises(UnsupportedOpError, match=r"op QLinearConv .* needs a constant bias"):
        program_of(made, "case", HERE)
