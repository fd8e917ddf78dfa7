"""Quantised graphs under construction, and their results on every instruction set against ONNX Runtime's."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
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
        self.scale_of: dict[str, float] = {}
        self.zero_of: dict[str, int] = {}

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
        found = self.node("DequantizeLinear", self.node("QuantizeLinear", x, *args), *args)
        self.scale_of[found], self.zero_of[found] = scale, zero
        return found

    def filters(self, *shape: int, per_channel: bool = True) -> str:
        data = self.constant(self.rng.integers(-127, 128, shape).astype(np.int8))
        count = shape[0] if per_channel else 1
        scale = (self.rng.uniform(0.5, 1.5, count) / (40 * np.sqrt(np.prod(shape[1:])))).astype(np.float32)
        if not per_channel:
            return self.node("DequantizeLinear", data, self.constant(scale[0]))
        return self.node("DequantizeLinear", data, self.constant(scale), axis=0)

    def wide_filters(self, *shape: int) -> str:
        """uint8 filters that need nine bits without their zero points."""
        data = self.constant(self.rng.integers(0, 256, shape).astype(np.uint8))
        scale = (self.rng.uniform(0.5, 1.5, shape[0]) / (80 * np.sqrt(np.prod(shape[1:])))).astype(np.float32)
        zero = self.rng.integers(0, 256, shape[0]).astype(np.uint8)
        return self.node("DequantizeLinear", data, self.constant(scale), self.constant(zero), axis=0)

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


def layers(dtype: str, seed: int = 0) -> onnx.ModelProto:
    """Every kind of layer on bytes, with few, odd and many channels; one output each."""
    g = Graph(seed, dtype)
    inputs = {f"x{c}": (1, c, 9, 7) for c in (3, 16, 24, 40, 64, 70, 130)} | {"line": (2, 24, 31)}
    x = {name: g.rounded(name) for name in inputs}

    def conv(name: str, count: int, kernel: tuple[int, ...], wide: bool = False, **options: object) -> str:
        channels = inputs[name][1]
        filters = g.wide_filters if wide else g.filters
        weight = filters(count, channels // int(options.get("group", 1)), *kernel)
        return g.rounded(g.node("Conv", x[name], weight, **options), scale=0.03)

    def apart(name: str, kernel: tuple[int, ...], **options: object) -> str:
        return conv(name, inputs[name][1], kernel, group=inputs[name][1], **options)

    def pooled(op: str, name: str, **options: object) -> str:
        return g.rounded(g.node(op, x[name], **options), g.scale_of[x[name]], g.zero_of[x[name]])

    same = {"pads": [1, 1, 1, 1]}
    mean = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}
    outputs = [
        conv("x3", 16, (3, 3), **same), conv("x16", 32, (3, 3), strides=[2, 1], pads=[1, 0, 0, 1]),
        conv("x24", 64, (1, 1)), conv("x40", 100, (1, 1)), conv("x70", 5, (2, 3), dilations=[2, 2], **same),
        conv("line", 16, (5,), pads=[4, 0]), conv("x16", 19, (3, 3), wide=True),
        apart("x3", (3, 3), **same), apart("x16", (3, 3), strides=[2, 2], **same), apart("x24", (2, 2)),
        apart("x24", (5, 3), pads=[2, 1, 2, 1]), apart("x40", (3, 3), strides=[3, 2], **same),
        apart("x64", (3, 3), **same),
        apart("x64", (3, 3), strides=[2, 2], pads=[0, 0, 1, 1]), apart("x70", (3, 3), **same),
        apart("x130", (3, 3), dilations=[2, 1], pads=[2, 1, 2, 1]), apart("line", (4,), pads=[3, 0]),
        apart("x64", (1, 5), wide=True, pads=[0, 2, 0, 2]),
        pooled("MaxPool", "x3", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        pooled("MaxPool", "x70", kernel_shape=[2, 2], strides=[2, 2]),
        pooled("MaxPool", "line", kernel_shape=[3], strides=[2]), pooled("GlobalMaxPool", "x40"),
        g.rounded(g.node("GlobalAveragePool", x["x70"]), scale=0.01),
        g.rounded(g.node("AveragePool", x["x64"], kernel_shape=[3, 2], strides=[2, 2]), scale=0.0193),
        g.rounded(g.node("AveragePool", x["x24"], **mean), scale=0.0193),
        g.rounded(g.node("Sigmoid", x["x16"]), scale=1 / 256), g.rounded(g.node("HardSwish", x["x40"]), scale=0.04),
        g.rounded(g.node("Mul", x["x24"], g.node("Tanh", x["x24"])), scale=0.03),
        g.rounded(g.node("Relu", g.node("Add", x["x40"], g.rounded(x["x40"], 0.0713))), 0.0791),
        g.rounded(g.node("Sub", x["line"], g.rounded(x["line"], 0.0417)), 0.0293),
    ]  # fmt: skip
    return g.model(outputs, inputs)


def numbers(model: onnx.ModelProto, seed: int = 0) -> list[np.ndarray]:
    """Values for every input, over most of the range of bytes at the scale of the cases."""
    rng = np.random.default_rng(seed)
    shapes = ([d.dim_value for d in i.type.tensor_type.shape.dim] for i in model.graph.input)
    return [(rng.standard_normal(shape) * 2.5).astype(np.float32) for shape in shapes]


def raw_layers(dtype: str, channels: int) -> onnx.ModelProto:
    """Layers whose inputs are a caller's own bytes and whose outputs are bytes, of sizes that fill no vector."""
    g = Graph(channels, dtype)
    args = g.constant(np.float32(0.05)), g.constant(np.array(3, dtype))
    x, shape = g.node("DequantizeLinear", "x", *args), (1, channels, 5, 7)
    same = {"pads": [1, 1, 1, 1], "group": channels}
    made = [
        g.node("Conv", x, g.filters(7, channels, 3, 3)), g.node("Conv", x, g.filters(channels, 1, 3, 3), **same),
        g.node("Conv", x, g.filters(channels, 1, 3, 3), strides=[2, 2], **same), g.node("GlobalAveragePool", x),
        g.node("MaxPool", x, kernel_shape=[2, 2], pads=[1, 1, 0, 0]), g.node("Tanh", x),
        g.node("Add", x, x),
    ]  # fmt: skip
    outputs = [g.node("QuantizeLinear", y, *args) for y in made]
    outputs.append(g.node("MaxPool", "x", kernel_shape=[3, 2], strides=[2, 1]))
    return g.model(outputs, {"x": shape}, {"x": dtype})


def small_net() -> onnx.ModelProto:
    """float32 in and out, bytes from layer to layer: what LiteRT makes of a small image network."""
    g = Graph(5)
    x = g.rounded("x")
    x = g.rounded(g.node("Relu", g.node("Conv", x, g.filters(24, 3, 3, 3), pads=[1] * 4)), 0.05, -128)
    x = g.rounded(g.node("Conv", x, g.filters(24, 1, 3, 3), pads=[1] * 4, group=24, strides=[2, 2]), 0.05, -3)
    x = g.rounded(g.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), 0.05, -3)
    x = g.rounded(g.node("Sigmoid", g.rounded(g.node("Conv", x, g.wide_filters(40, 24, 1, 1)), 0.04)), 1 / 256, -128)
    x = g.rounded(g.node("GlobalAveragePool", x), 0.0041, -128)
    y = g.rounded(g.node("Conv", x, g.filters(9, 40, 1, 1)), 0.0107, 4)
    return g.model([y], {"x": (1, 3, 12, 10)})


def dynamic_layers() -> onnx.ModelProto:
    """What a dynamic quantiser makes of convolutions: zero points of x known at run time, weights with their own."""
    g, shapes, outputs = Graph(0, "uint8"), {"a": (1, 5, 8, 7), "b": (1, 64, 6, 5)}, []
    for x, shape, options in (
        ("a", (9, 5, 3, 3), {"pads": [1, 1, 1, 1]}), ("a", (64, 5, 3, 3), {"strides": [2, 2]}),
        ("b", (19, 64, 1, 1), {}),
    ):  # fmt: skip
        made = [g.name() for _ in range(3)]
        g.nodes.append(helper.make_node("DynamicQuantizeLinear", [x], made))
        for dtype in ("int8", "uint8"):
            info = np.iinfo(dtype)
            weight = g.constant(g.rng.integers(info.min, info.max + 1, shape).astype(dtype))
            zero = g.constant(np.array(g.rng.integers(info.min, info.max + 1), dtype))
            sums = g.node("ConvInteger", made[0], weight, made[2], zero, **options)
            outputs.append(g.node("Mul", g.node("Cast", sums, to=TensorProto.FLOAT), made[1]))
    return g.model(outputs, shapes)
