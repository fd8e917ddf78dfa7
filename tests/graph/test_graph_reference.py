"""The reference run is exact where ONNX Runtime's fastest kernels are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from hasten.engines import BuildRequest, engine
from hasten.graph import parted, read, reference, specs
from hasten.records import Candidate
from hasten.sessions import open_session
from hasten.sources.onnx import session_reference

RNG = np.random.default_rng(0)
X = RNG.integers(200, 256, (1, 36), dtype=np.uint8)
W = RNG.choice(np.array([-127, 127], np.int8), (36, 8))
SUMS = X.astype(np.int64) @ W.astype(np.int64)


def _constants(**values: np.generic) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]


def _integer_product() -> onnx.GraphProto:
    return helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", T.UINT8, X.shape)],
        [helper.make_tensor_value_info("y", T.INT32, SUMS.shape)],
        _constants(w=W),
    )


def _convolution() -> onnx.GraphProto:
    names = ["x", "one", "zero", "w", "one", "none", "step", "zero"]
    zeros = {"zero": np.uint8(128), "none": np.int8(0)}
    return helper.make_graph(
        [
            helper.make_node("Reshape", ["flat", "shape"], ["x"]),
            helper.make_node("QLinearConv", names, ["image"]),
            helper.make_node("Flatten", ["image"], ["y"]),
        ],
        "convolution",
        [helper.make_tensor_value_info("flat", T.UINT8, X.shape)],
        [helper.make_tensor_value_info("y", T.UINT8, SUMS.shape)],
        _constants(
            w=W.T.reshape(8, 4, 3, 3), one=np.float32(1), step=np.float32(4000), shape=np.array([1, 4, 3, 3]), **zeros
        ),
    )


BLOCK = 16
STEPS = 2.0 ** RNG.integers(-3, 3, (3, 8))
FEW_BITS = RNG.choice(np.array([-7, 7]), W.shape)


def _few_bits() -> onnx.GraphProto:
    """Rounded to eight bits, x would lose its last one."""
    weight = helper.make_tensor("w", T.INT4, W.shape, FEW_BITS.ravel().tolist())
    return helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["float"], to=T.FLOAT),
            helper.make_node("DequantizeLinear", ["w", "steps"], ["wide"], axis=0, block_size=BLOCK),
            helper.make_node("MatMul", ["float", "wide"], ["y"]),
        ],
        "few_bits",
        [helper.make_tensor_value_info("x", T.UINT8, X.shape)],
        [helper.make_tensor_value_info("y", T.FLOAT, SUMS.shape)],
        [weight, *_constants(steps=STEPS.astype(np.float32))],
    )


SIGNED = RNG.integers(-1, 2, W.shape).astype(np.int8)


def _signed() -> onnx.GraphProto:
    """int8 times int8, which ONNX Runtime has no kernel for once it has made one side unsigned."""
    names = ["rounded", "two", "none", "w", "two", "none", "step", "none"]
    return helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["float"], to=T.FLOAT),
            helper.make_node("QuantizeLinear", ["float", "two", "none"], ["rounded"]),
            helper.make_node("QLinearMatMul", names, ["y"]),
        ],
        "signed",
        [helper.make_tensor_value_info("x", T.UINT8, X.shape)],
        [helper.make_tensor_value_info("y", T.INT8, SUMS.shape)],
        _constants(w=SIGNED, two=np.float32(2), none=np.int8(0), step=np.float32(64)),
    )


CASES = {
    "weights of four bits": (_few_bits, X @ (FEW_BITS * STEPS.repeat(BLOCK, 0)[: len(W)])),
    "MatMulInteger": (_integer_product, SUMS),
    "int8 on both sides": (_signed, np.rint(np.clip(np.rint(X / 2), -128, 127) @ SIGNED / 16)),
    "QLinearConv": (_convolution, np.clip(np.rint((SUMS - 128 * W.astype(np.int64).sum(0)) / 4000) + 128, 0, 255)),
}


@pytest.mark.parametrize("name", CASES)
def test_products_of_bytes_do_not_overflow(name: str, tmp_path: Path) -> None:
    make, wanted = CASES[name]
    path = tmp_path / "given.onnx"
    onnx.save(helper.make_model(make(), opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    model = read(path)
    inputs, outputs = specs(model)
    request = BuildRequest(Candidate("onnxruntime"), path, path, "onnx", inputs, outputs, tmp_path)
    session = open_session(engine("onnxruntime").build(request))
    shipped = session.call(X)
    session.close()
    for got in (reference.run(model, [X])[0], session_reference(path, model)([X])[0], shipped):
        np.testing.assert_array_equal(got, wanted)


def test_large_weights_stay_where_they_lie(tmp_path: Path) -> None:
    weights = RNG.standard_normal((64, 64)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Reshape", ["z", "shape"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", T.FLOAT, (1, 64))],
        [helper.make_tensor_value_info("y", T.FLOAT, (64,))],
        _constants(w=weights, shape=np.array([-1])),
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "m.onnx")
    model = read(tmp_path / "m.onnx")
    held = {name: value.const_value for name, value in model.graph.initializers.items()}

    data, apart = parted(model)
    assert len(data) < weights.nbytes
    np.testing.assert_array_equal(apart.pop("w"), weights)
    assert not apart  # shapes are read while the graph is opened
    assert all(value.const_value is held[name] for name, value in model.graph.initializers.items())

    x = RNG.standard_normal((1, 64)).astype(np.float32)
    np.testing.assert_allclose(reference.run(model, [x])[0], (x @ weights)[0], rtol=1e-5, atol=1e-5)
