"""ONNX Runtime on graphs that it needs to be helped with."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import hasten
from hasten.engines.onnxruntime import _ON_BYTES
from hasten.graph.reference import _ZEROS


def test_weights_of_bytes_may_share_a_zero_point() -> None:
    """Without VNNI the library turns such weights unsigned, which it can do but once for each zero point."""
    rng = np.random.default_rng(0)
    weights = [rng.integers(-127, 128, (16, 16)).astype(np.int8) for _ in range(3)]
    held = {"s": np.float32(0.01), "z": np.int8(0)} | {f"w{k}": w for k, w in enumerate(weights)}
    nodes, last = [], "x"
    for k in range(3):
        nodes += [
            helper.make_node("QuantizeLinear", [last, "s", "z"], [f"q{k}"]),
            helper.make_node("DequantizeLinear", [f"q{k}", "s", "z"], [f"d{k}"]),
            helper.make_node("DequantizeLinear", [f"w{k}", "s", "z"], [f"v{k}"]),
            helper.make_node("MatMul", [f"d{k}", f"v{k}"], [last := f"y{k}"]),
        ]
    nodes += [
        helper.make_node("QuantizeLinear", [last, "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16]) for name in "xy"]
    initial = [numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()]
    graph = helper.make_graph(nodes, "bytes", ends[:1], ends[1:], initial)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def rounded(x: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(x / np.float32(0.01)), -128, 127) * np.float32(0.01)

    x = rng.standard_normal((1, 16)).astype(np.float32) / 2
    expected = x
    for w in weights:
        expected = (rounded(expected) @ (w.astype(np.float32) * np.float32(0.01))).astype(np.float32)
    found = hasten.compile(made, engine="onnxruntime")(x)
    np.testing.assert_allclose(found, rounded(expected), atol=0.011)


def test_so_may_those_of_operators_on_bytes() -> None:
    rng = np.random.default_rng(0)
    weights = [rng.integers(-127, 128, (16, 16)).astype(np.int8) for _ in range(3)]
    held = {"s": np.float32(0.02), "z": np.uint8(128), "wz": np.int8(0)} | {f"w{k}": w for k, w in enumerate(weights)}
    nodes, last = [], "x"
    for k in range(3):
        given = [last, "s", "z", f"w{k}", "s", "wz", "s", "z"]
        nodes.append(helper.make_node("QLinearMatMul", given, [last := f"y{k}"]))
    ends = [helper.make_tensor_value_info(name, TensorProto.UINT8, [1, 16]) for name in ("x", last)]
    initial = [numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()]
    graph = helper.make_graph(nodes, "bytes", ends[:1], ends[1:], initial)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = rng.integers(0, 256, (1, 16)).astype(np.uint8)
    expected = x.astype(np.int64)
    for w in weights:
        expected = np.clip(np.rint((expected - 128) @ w.astype(np.int64) * np.float64(0.02)) + 128, 0, 255)
    assert np.abs(hasten.compile(made, engine="onnxruntime")(x).astype(int) - expected).max() <= 1


def test_every_operator_on_bytes_is_looked_for() -> None:
    assert [op for op in _ZEROS if not any(mark in op.encode() for mark in _ON_BYTES)] == []
