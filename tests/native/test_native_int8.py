"""int8 graphs against ONNX Runtime's evaluation of QuantizeLinear and DequantizeLinear, on every instruction set."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_cases import RUNNABLE, Built
from onnx import TensorProto, helper, numpy_helper, shape_inference

from hasten.native.isa import isa

TARGETS = [*RUNNABLE, *(["x86-64-v4-base"] if "zen4" in RUNNABLE else [])]
TYPES = {"int8": TensorProto.INT8, "uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT, "int32": TensorProto.INT32}
TYPES |= {"int16": TensorProto.INT16, "uint16": TensorProto.UINT16}


class Graph:
    """A graph under construction whose layers are quantised on the way in and on the way out."""

    def __init__(self, seed: int, dtype: str = "int8") -> None:
        self.rng, self.dtype = np.random.default_rng(seed), dtype
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.count = 0

    def name(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def constant(self, array: np.ndarray) -> str:
        name = self.name()
        self.weights[name] = array
        return name

    def node(self, op: str, *inputs: str, **attributes) -> str:
        name = self.name()
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def rounded(self, x: str, scale: float = 0.05, zero: int | None = None) -> str:
        """x through bytes and back."""
        info = np.iinfo(self.dtype)
        zero = int(self.rng.integers(info.min, info.max)) // 4 if zero is None else zero
        args = self.constant(np.float32(scale)), self.constant(np.array(zero, self.dtype))
        return self.node("DequantizeLinear", self.node("QuantizeLinear", x, *args), *args)

    def filters(self, *shape: int, per_channel: bool = True) -> str:
        data = self.constant(self.rng.integers(-127, 128, shape).astype(np.int8))
        count = shape[0] if per_channel else 1
        scale = (self.rng.uniform(0.5, 1.5, count) / (40 * np.sqrt(np.prod(shape[1:])))).astype(np.float32)
        if not per_channel:
            return self.node("DequantizeLinear", data, self.constant(scale[0]))
        return self.node("DequantizeLinear", data, self.constant(scale), axis=0)

    def model(
        self, outputs: list[str], inputs: dict[str, tuple], dtypes: dict[str, str] | None = None
    ) -> onnx.ModelProto:
        dtypes = dtypes or {}
        made = helper.make_graph(
            self.nodes, "case",
            [helper.make_tensor_value_info(n, TYPES[dtypes.get(n, "float32")], s) for n, s in inputs.items()],
            [helper.make_empty_tensor_value_info(n) for n in outputs],
            [numpy_helper.from_array(np.asarray(v), n) for n, v in self.weights.items()],
        )  # fmt: skip
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        return shape_inference.infer_shapes(model, data_prop=True)


def expected(model: onnx.ModelProto, *arrays: np.ndarray) -> list[np.ndarray]:
    """What ONNX Runtime says, node by node as the graph stands."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: a for i, a in zip(session.get_inputs(), arrays, strict=True)})


def compare(model: onnx.ModelProto, *arrays: np.ndarray, step: float = 1.0, targets=TARGETS, threads: int = 1) -> None:
    """Every target's results within one step, and all but a few of them equal."""
    wanted = expected(model, *arrays)
    for name in targets:
        built = Built(ir.from_proto(model), isa(name), threads=threads)
        found, again = built(*arrays), built(*arrays)
        for f, a, w in zip(found, again, wanted, strict=True):
            assert f.dtype == w.dtype and np.array_equal(f, a)
            gap = np.abs(f.astype(np.float64) - w.astype(np.float64))
            assert gap.max(initial=0) <= step * 1.001, (name, gap.max())
            assert (gap > step * 0.01).mean() < 0.02 + 1.5 / gap.size, (name, (gap > step * 0.01).mean())


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@settings(max_examples=4, deadline=None)
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
