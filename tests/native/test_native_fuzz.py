"""Random graphs of supported operators against ONNX Runtime: shapes, views, fusing and layouts in any combination."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_cases import HERE, RUNNABLE, Built
from onnx import NodeProto, TensorProto, helper, numpy_helper, shape_inference
from onnx_ir import from_proto

from hasten.errors import UnsupportedOpError
from hasten.graph import reference
from hasten.native.isa import isa

UNARY = [
    "Relu",
    "Sigmoid",
    "Tanh",
    "Abs",
    "Neg",
    "Floor",
    "Erf",
    "Softsign",
    "Sin",
    "HardSigmoid",
    "LeakyRelu",
    "Elu",
    "Mish",
]
BINARY = ["Add", "Sub", "Mul", "Max", "Min"]
REDUCE = ["ReduceSum", "ReduceMax", "ReduceMin", "ReduceMean", "ReduceL1", "ReduceSumSquare"]


@dataclass
class Graph:
    """A graph that grows node by node; every value's shape is known, since numpy follows along."""

    rng: np.random.Generator
    nodes: list[NodeProto] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def add(self, op: str, inputs: list[str], shape: tuple[int, ...], **attributes) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        self.shapes[name] = tuple(int(n) for n in shape)
        return name

    def weight(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = array
        return name

    def pick(self) -> str:
        names = list(self.shapes)
        return names[-1 - min(int(self.rng.geometric(0.5)) - 1, len(names) - 1)]

    def grow(self) -> None:
        """One more node of a random kind."""
        kinds = [
            self._unary,
            self._binary,
            self._reduce,
            self._move,
            self._slice,
            self._join,
            self._rows,
            self._product,
            self._choose,
        ]
        kinds[int(self.rng.integers(len(kinds)))](self.pick())

    def _unary(self, x: str) -> None:
        self.add(str(self.rng.choice(UNARY)), [x], self.shapes[x])

    def _binary(self, x: str) -> None:
        shape = self.shapes[x]
        same = [n for n, s in self.shapes.items() if s == shape]
        kind = self.rng.integers(3)
        if kind == 0:
            other = str(self.rng.choice(same))
        else:
            small = tuple(n if self.rng.integers(2) else 1 for n in shape)
            other = self.weight(self.rng.standard_normal(small if kind == 1 else shape[-1:]).astype(np.float32))
        self.add(str(self.rng.choice(BINARY)), [x, other], shape)

    def _reduce(self, x: str) -> None:
        shape = self.shapes[x]
        axes = np.flatnonzero(self.rng.integers(0, 2, len(shape)))
        if not len(axes) or not shape:
            return
        keep = int(self.rng.integers(2))
        result = [1 if d in axes else n for d, n in enumerate(shape) if keep or d not in axes]
        if not result:
            return
        self.add(str(self.rng.choice(REDUCE)), [x, self.weight(axes.astype(np.int64))], tuple(result), keepdims=keep)

    def _move(self, x: str) -> None:
        shape = self.shapes[x]
        kind = self.rng.integers(4)
        if kind == 0:
            perm = [int(p) for p in self.rng.permutation(len(shape))]
            self.add("Transpose", [x], tuple(shape[p] for p in perm), perm=perm)
        elif kind == 1:
            size = int(np.prod(shape))
            factor = int(self.rng.choice([d for d in range(1, size + 1) if size % d == 0]))
            target = (factor, size // factor) if self.rng.integers(2) else (1, size // factor, factor)
            self.add("Reshape", [x, self.weight(np.array(target, np.int64))], target)
        elif kind == 2:
            pads = self.rng.integers(0, 2, 2 * len(shape))
            result = tuple(n + int(pads[d]) + int(pads[d + len(shape)]) for d, n in enumerate(shape))
            mode = "edge" if self.rng.integers(2) else "constant"
            self.add("Pad", [x, self.weight(pads.astype(np.int64))], result, mode=mode)
        else:
            repeats = self.rng.integers(1, 3, len(shape))
            if np.prod(shape) * np.prod(repeats) < 5000:
                self.add("Tile", [x, self.weight(repeats.astype(np.int64))], tuple(shape * repeats))

    def _slice(self, x: str) -> None:
        shape = self.shapes[x]
        axis = int(self.rng.integers(len(shape)))
        step = int(self.rng.choice([-2, -1, 1, 2]))
        start, end = (0, shape[axis]) if step > 0 else (shape[axis] - 1, -shape[axis] - 1)
        count = len(range(shape[axis])[::step])
        given = [self.weight(np.array([v], np.int64)) for v in (start, end, axis, step)]
        self.add("Slice", [x, *given], tuple(count if d == axis else n for d, n in enumerate(shape)))

    def _join(self, x: str) -> None:
        shape = self.shapes[x]
        axis = int(self.rng.integers(len(shape)))
        same = [n for n, s in self.shapes.items() if s == shape]
        parts = [x, *(str(self.rng.choice(same)) for _ in range(int(self.rng.integers(1, 3))))]
        if np.prod(shape) * len(parts) < 5000:
            self.add("Concat", parts, tuple(n * len(parts) if d == axis else n for d, n in enumerate(shape)), axis=axis)

    def _rows(self, x: str) -> None:
        shape = self.shapes[x]
        axis = int(self.rng.integers(len(shape)))
        if self.rng.integers(2):
            self.add("Softmax", [x], shape, axis=axis)
        else:
            scale = self.weight(self.rng.standard_normal(shape[axis:]).astype(np.float32))
            self.add("LayerNormalization", [x, scale], shape, axis=axis, epsilon=0.01)

    def _product(self, x: str) -> None:
        shape = self.shapes[x]
        if len(shape) < 2:
            return
        if self.rng.integers(2):
            columns = int(self.rng.integers(1, 20))
            weight = self.rng.standard_normal((shape[-1], columns)).astype(np.float32) / np.float32(np.sqrt(shape[-1]))
            self.add("MatMul", [x, self.weight(weight)], (*shape[:-1], columns))
        else:
            perm = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
            turned = self.add("Transpose", [x], tuple(shape[p] for p in perm), perm=perm)
            if shape[-2] ** 2 * np.prod(shape[:-2]) < 5000:
                self.add("MatMul", [x, turned], (*shape[:-1], shape[-2]))

    def _choose(self, x: str) -> None:
        shape = self.shapes[x]
        limit = self.weight(np.float32(self.rng.standard_normal()))
        test = self.add(str(self.rng.choice(["Greater", "LessOrEqual"])), [x, limit], shape)
        self.shapes.pop(test)  # truths stay out of arithmetic
        other = self.weight(np.float32(self.rng.standard_normal()))
        self.add("Where", [test, x, other], shape)


def random_model(seed: int, size: int, kind: type[Graph] = Graph):
    """A model of about ``size`` nodes with one to three results, and an input for it."""
    rng = np.random.default_rng(seed)
    graph = kind(rng)
    shape = tuple(int(n) for n in rng.integers(1, 9, int(rng.integers(1, 5))))
    graph.shapes["x"] = shape
    for _ in range(size):
        graph.grow()
    made = [n for n in graph.shapes if n != "x"] or [graph.add("Identity", ["x"], shape)]
    chosen = sorted({made[-1], *(str(n) for n in rng.choice(made, int(rng.integers(0, 3))))})
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, graph.shapes[n]) for n in chosen]
    proto = helper.make_model(
        helper.make_graph(
            graph.nodes, "fuzz", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)], outputs,
            [numpy_helper.from_array(a, n) for n, a in graph.weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 20)], ir_version=10,
    )  # fmt: skip
    x = rng.standard_normal(shape).astype(np.float32)
    return from_proto(shape_inference.infer_shapes(proto, data_prop=True)), x


def agree(seed: int, size: int, target: str, kind: type[Graph] = Graph) -> None:
    model, x = random_model(seed, size, kind)
    expected = reference.run(model, [x])
    try:
        found = Built(model, isa(target), extra=("-O1",))(x)
    except UnsupportedOpError as error:
        pytest.fail(f"every operator here is supported: {error}")
    for f, e in zip(found, expected, strict=True):
        scale = max(1.0, float(np.abs(e[np.isfinite(e)]).max(initial=0)))
        np.testing.assert_allclose(f, e, rtol=1e-4, atol=1e-4 * scale, err_msg=f"seed {seed}, size {size}, {target}")


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**31), size=st.integers(1, 14))
def test_random_graphs_agree_with_onnxruntime(seed, size):
    agree(seed, size, HERE.name)


@pytest.mark.parametrize("target", [n for n in RUNNABLE if n != HERE.name])
def test_random_graphs_on_every_instruction_set(target):
    for seed in range(6):
        agree(1000 + seed, 10, target)
