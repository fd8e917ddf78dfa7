"""Random small graphs: every answer stays, no transpose is added, nothing a pass promises to remove is left."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from graph_text import lines, ops, optimise, probe_of, same_answers
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from hasten.graph.shapes import infer
from hasten.passes.fix_shapes import fix_shapes

QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@dataclass
class Builder:
    """A graph under construction; every weight is drawn from one seeded generator."""

    rng: np.random.Generator
    nodes: list[ir.Node] = field(default_factory=list)
    weights: list[ir.Value] = field(default_factory=list)

    def weight(self, array: np.ndarray) -> ir.Value:
        tensor = ir.tensor(array)
        name = f"w{len(self.weights)}"
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.weights.append(value)
        return value

    def floats(self, *shape: int, positive: bool = False) -> ir.Value:
        numbers = self.rng.uniform(0.5, 1.5, shape) if positive else self.rng.normal(0, 0.7, shape)
        return self.weight(np.asarray(numbers, np.float32))

    def ints(self, *numbers: int) -> ir.Value:
        return self.weight(np.asarray(numbers, np.int64))

    def add(self, op: str, *inputs: ir.Value | None, outputs: int = 1, **attributes: object) -> ir.Value:
        node = ir.node(op, list(inputs), attributes, num_outputs=outputs)
        for i, value in enumerate(node.outputs):
            value.name = f"v{len(self.nodes)}_{i}"
        self.nodes.append(node)
        return node.outputs[0]

    def model(self, inputs: list[ir.Value], outputs: list[ir.Value]) -> ir.Model:
        for value in outputs:
            value.dtype = value.dtype or ir.DataType.FLOAT
        graph = ir.Graph(
            inputs, outputs, nodes=self.nodes, initializers=self.weights, opset_imports={"": 18}, name="random"
        )
        model = ir.Model(graph, ir_version=10)
        infer(model)
        return model


def an_input(name: str, *shape: int | str) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))


TO_FIRST, TO_LAST = [0, 3, 1, 2], [0, 2, 3, 1]


@st.composite
def channels_last_nets(draw: st.DrawFn) -> ir.Model:
    """What an exporter makes of a channels-last network: transposes around every spatial layer."""
    b = Builder(np.random.default_rng(draw(st.integers(0, 2**16))))
    channels = draw(st.sampled_from([1, 2, 3]))
    size = draw(st.sampled_from([5, 6]))
    source = an_input("x", draw(st.sampled_from([1, 2, "N"])), size, size, channels)
    x, kept = source, [(source, channels, size)]
    for _ in range(draw(st.integers(1, 7))):
        kind = draw(st.sampled_from(LAYERS))
        if kind == "conv":
            out = draw(st.sampled_from([2, 3]))
            pads = draw(st.sampled_from([[0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1]]))
            if size + pads[0] + pads[2] < 3:
                continue
            bias = b.floats(out) if draw(st.booleans()) else None
            y = b.add("Conv", b.add("Transpose", x, perm=TO_FIRST), b.floats(out, channels, 3, 3), bias, pads=pads)
            x, channels, size = b.add("Transpose", y, perm=TO_LAST), out, size + pads[0] + pads[2] - 2
        elif kind == "depthwise":
            y = b.add("Conv", b.add("Transpose", x, perm=TO_FIRST), b.floats(channels, 1, 1, 1), group=channels)
            x = b.add("Transpose", y, perm=TO_LAST)
        elif kind == "transposed conv":
            y = b.add("ConvTranspose", b.add("Transpose", x, perm=TO_FIRST), b.floats(channels, 2, 2, 2))
            x, channels, size = b.add("Transpose", y, perm=TO_LAST), 2, size + 1
        elif kind == "norm":
            y = b.add(
                "BatchNormalization", b.add("Transpose", x, perm=TO_FIRST), b.floats(channels), b.floats(channels),
                b.floats(channels), b.floats(channels, positive=True), epsilon=1e-3,
            )  # fmt: skip
            x = b.add("Transpose", y, perm=TO_LAST)
        elif kind == "pool" and size >= 4:
            y = b.add("MaxPool", b.add("Transpose", x, perm=TO_FIRST), kernel_shape=[2, 2], strides=[2, 2])
            x, size = b.add("Transpose", y, perm=TO_LAST), size // 2
        elif kind == "scale":
            x = b.add("Mul", x, b.floats(channels, positive=True))
        elif kind == "shift":
            x = b.add("Add", x, b.floats(*draw(st.sampled_from([(), (channels,), (1, 1, channels), (size, 1, 1)]))))
        elif kind == "activation":
            x = b.add(draw(st.sampled_from(["Relu", "Tanh", "Sigmoid", "Elu", "Softplus"])), x)
        elif kind == "gate":
            x = b.add("Mul", x, b.add("Sigmoid", x))
        elif kind == "squeeze and excite":
            pooled = b.add("ReduceMean", x, b.ints(1, 2), keepdims=1)
            x = b.add("Mul", x, b.add("Sigmoid", pooled))
        elif kind == "softmax":
            x = b.add("Softmax", x, axis=draw(st.sampled_from([-1, 1, 2])))
        elif kind == "pad":
            x, size = b.add("Pad", x, b.ints(0, 1, 0, 0, 0, 1, 2, 0), b.weight(np.float32(0))), size + 2
            x = b.add("Slice", x, b.ints(0), b.ints(size), b.ints(2))
        elif kind == "split" and channels >= 2:
            y = b.add("Split", x, b.ints(1, channels - 1), axis=3, outputs=2)
            x = b.add("Concat", y.producer().outputs[1], y, axis=-1)
        elif kind == "join":
            other = draw(st.sampled_from(kept))
            if other[2] == size:
                x, channels = b.add("Concat", x, other[0], axis=3), channels + other[1]
        elif kind == "residual":
            other = draw(st.sampled_from(kept))
            if other[1:] == (channels, size):
                x = b.add("Add", x, other[0])
        kept.append((x, channels, size))
        if channels > 6:
            break
    end = draw(st.sampled_from(["as it is", "mean", "dense", "two"]))
    outputs = [b.add("Identity", x)]
    if end == "mean":
        outputs = [b.add("ReduceMean", x, b.ints(1, 2), keepdims=0)]
    elif end == "dense":
        flat = b.add("Reshape", x, b.ints(-1, size * size * channels))
        outputs = [b.add("Add", b.add("MatMul", flat, b.floats(size * size * channels, 3)), b.floats(3))]
    elif end == "two":
        outputs += [b.add("ArgMax", x, axis=3, keepdims=0)]
        outputs[1].dtype = ir.DataType.INT64
    return b.model([source], outputs)


LAYERS = [
    "conv", "conv", "depthwise", "transposed conv", "norm", "pool", "scale", "shift", "activation", "gate",
    "squeeze and excite", "softmax", "pad", "split", "join", "residual",
]  # fmt: skip


@QUICK
@given(channels_last_nets())
def test_channels_last_networks_keep_their_answers_and_gain_no_transposes(model: ir.Model) -> None:
    note("\n".join(lines(model)))
    before = ir.Model.clone(model)
    result = optimise(model)
    note("\n".join(lines(result)))
    assert lines(before) == lines(model), "the input model was changed"
    same_answers(model, result, probe_of(model, 7), 2e-5)
    assert ops(result)["Transpose"] <= ops(model)["Transpose"]
    fixed = optimise(model, fix_shapes({"N": 2}))
    same_answers(model, fixed, probe_of(model, 8), 2e-5)


def _lane(b: Builder, x: ir.Value, kind: str, weights: dict[str, ir.Value]) -> ir.Value:
    if kind == "matmul":
        return b.add("MatMul", x, weights["square"])
    if kind == "gemm":
        return b.add("Gemm", x, weights["square"], weights["row"], alpha=0.5)
    if kind in ("bias", "scale"):
        return b.add("Add" if kind == "bias" else "Mul", weights["row"], x)
    if kind == "softmax":
        return b.add("Softmax", x, axis=-1)
    if kind == "mean":
        return b.add("Sub", x, b.add("ReduceMean", x, weights["last"], keepdims=1))
    if kind == "norm":
        return b.add("LayerNormalization", x, weights["row"], weights["other"], axis=-1)
    if kind == "swish":
        return b.add("Mul", x, b.add("Sigmoid", x))
    if kind == "fold":
        flat = b.add("Reshape", x, weights["wide"])
        return b.add("Reshape", b.add("Transpose", flat, perm=[0, 2, 1]), weights["narrow"])
    return b.add(kind, x)


LANE_KINDS = ["matmul", "gemm", "bias", "scale", "softmax", "mean", "norm", "swish", "fold", "Relu", "Tanh", "Neg"]


@st.composite
def unrolled_loops(draw: st.DrawFn) -> tuple[ir.Model, list[str], int]:
    """The same layers on each slice of a tensor, joined again."""
    b = Builder(np.random.default_rng(draw(st.integers(0, 2**16))))
    steps, axis = draw(st.integers(3, 6)), draw(st.sampled_from([0, 1]))
    batch = draw(st.sampled_from([1, 2, "N"]))
    width = 4
    source = an_input("x", *((steps, batch, width) if axis == 0 else (batch, steps, width)))
    kinds = draw(st.lists(st.sampled_from(LANE_KINDS), min_size=1, max_size=5))
    order = draw(st.permutations(range(steps))) if draw(st.booleans()) else list(range(steps))
    shared = {
        "square": b.floats(width, width), "row": b.floats(width), "other": b.floats(width), "last": b.ints(-1),
        "wide": b.ints(-1, 2, 2), "narrow": b.ints(-1, 4), "axis": b.ints(axis),
    }  # fmt: skip
    cut = draw(st.sampled_from(["gather", "slice", "split"]))
    parts = None
    if cut == "split":
        parts = b.add("Split", source, b.ints(*[1] * steps), axis=axis, outputs=steps).producer().outputs
    lanes = []
    for step in order:
        if cut == "gather":
            lane = b.add("Gather", source, b.weight(np.asarray(step, np.int64)), axis=axis)
        else:
            whole = parts[step] if parts else b.add("Slice", source, b.ints(step), b.ints(step + 1), shared["axis"])
            lane = b.add("Squeeze", whole, shared["axis"])
        for kind in kinds:
            lane = _lane(b, lane, kind, shared)
        lanes.append(lane)
    if draw(st.booleans()):
        joined = b.add("Concat", *lanes, axis=draw(st.sampled_from([0, 1, -1])))
    else:
        axes = b.ints(draw(st.sampled_from([0, 1, 2])))
        joined = b.add(
            "Concat", *[b.add("Unsqueeze", lane, axes) for lane in lanes], axis=int(axes.const_value.numpy()[0])
        )
    return b.model([source], [joined]), kinds, steps


@QUICK
@given(unrolled_loops())
def test_unrolled_loops_are_rolled_up(case: tuple[ir.Model, list[str], int]) -> None:
    model, kinds, steps = case
    note("\n".join(lines(model)))
    result = optimise(model)
    note("\n".join(lines(result)))
    same_answers(model, result, probe_of(model, 7), 2e-5)
    heavy = kinds.count("matmul") + kinds.count("gemm")
    found = ops(result)
    assert found["MatMul"] + found["Gemm"] <= heavy, f"{steps} steps were left unrolled"
    assert found["Concat"] == 0


@st.composite
def expressions(draw: st.DrawFn) -> ir.Model:
    """Elementwise expressions with constants and repeated parts."""
    b = Builder(np.random.default_rng(draw(st.integers(0, 2**16))))
    source = an_input("x", 2, 3)
    pool: list[ir.Value] = [source, b.floats(2, 3), b.floats(3), b.floats(), b.weight(np.ones((1, 3), np.float32))]
    shapes = [(2, 3), (2, 3), (3,), (), (1, 3)]
    for _ in range(draw(st.integers(2, 14))):
        kind = draw(st.sampled_from(["Add", "Mul", "Sub", "Max", "Tanh", "Sigmoid", "Identity", "Neg", "Transpose"]))
        first = draw(st.integers(0, len(pool) - 1))
        if kind in ("Add", "Mul", "Sub", "Max"):
            second = draw(st.integers(0, len(pool) - 1))
            pool.append(b.add(kind, pool[first], pool[second]))
            shapes.append(np.broadcast_shapes(shapes[first], shapes[second]))
        elif kind == "Transpose" and len(shapes[first]) == 2:
            twice = b.add("Transpose", b.add("Transpose", pool[first], perm=[1, 0]), perm=[1, 0])
            pool.append(twice)
            shapes.append(shapes[first])
        elif kind != "Transpose":
            pool.append(b.add(kind, pool[first]))
            shapes.append(shapes[first])
    return b.model([source], [b.add("Add", source, pool[-1]), b.add("Sub", pool[-1], source)])


@QUICK
@given(expressions())
def test_expressions_keep_their_answers_and_repeat_nothing(model: ir.Model) -> None:
    note("\n".join(lines(model)))
    result = optimise(model)
    note("\n".join(lines(result)))
    same_answers(model, result, probe_of(model, 7))
    computed = [
        (node.op_type, tuple(id(value) for value in node.inputs), str(sorted(node.attributes.items())))
        for node in result.graph
    ]
    assert len(computed) == len(set(computed)), "the same expression twice"
    assert not any(
        node.inputs and all(value is not None and value.const_value is not None for value in node.inputs)
        for node in result.graph
        if not node.outputs[0].is_graph_output()
    ), "a constant expression was left"


@st.composite
def view_chains(draw: st.DrawFn) -> ir.Model:
    """Reshapes and transposes in a row."""
    b = Builder(np.random.default_rng(0))
    shape = draw(st.sampled_from([(2, 3, 4), (1, 6, 4), (2, 2, 2, 3), (4, 1, 3, 2), (1, 1, 5), (12,)]))
    source = an_input("x", *shape)
    x, outputs = b.add("Relu", source), []
    for _ in range(draw(st.integers(1, 7))):
        kind = draw(st.sampled_from(["Transpose", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Neg", "output"]))
        if kind == "Transpose":
            perm = draw(st.permutations(range(len(shape))))
            x, shape = b.add("Transpose", x, perm=list(perm)), tuple(shape[a] for a in perm)
        elif kind == "Reshape":
            shape = draw(st.sampled_from(_shapes(int(np.prod(shape)))))
            x = b.add("Reshape", x, b.ints(*shape))
        elif kind == "Squeeze" and 1 in shape:
            axis = shape.index(1)
            x, shape = b.add("Squeeze", x, b.ints(axis)), shape[:axis] + shape[axis + 1 :]
        elif kind == "Unsqueeze" and len(shape) < 5:
            axis = draw(st.integers(0, len(shape)))
            x, shape = b.add("Unsqueeze", x, b.ints(axis)), (*shape[:axis], 1, *shape[axis:])
        elif kind == "Neg":
            x = b.add("Neg", x)
        elif kind == "output":
            outputs.append(b.add("Neg", x))
    return b.model([source], [*outputs, b.add("Abs", x)])


def _shapes(count: int) -> list[tuple[int, ...]]:
    found = [(count,), (1, count)]
    for a in range(2, count):
        if count % a == 0:
            found += [(a, count // a), (a, 1, count // a)]
            found += [(a, c, count // a // c) for c in range(2, count // a) if count // a % c == 0]
    return found


@QUICK
@given(view_chains())
def test_chains_of_views_keep_their_answers(model: ir.Model) -> None:
    note("\n".join(lines(model)))
    result = optimise(model)
    note("\n".join(lines(result)))
    same_answers(model, result, probe_of(model, 7), 0)
    assert ops(result)["Transpose"] <= ops(model)["Transpose"]


@settings(QUICK, max_examples=15)
@given(channels_last_nets())
def test_the_phases_reach_a_fixed_point(model: ir.Model) -> None:
    once = optimise(model)
    note("\n".join(lines(once)))
    assert ops(optimise(once)) == ops(once)
