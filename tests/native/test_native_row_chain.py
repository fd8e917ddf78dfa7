"""Steps that a team walks through row by row: every part alone, and the same bits as one thread."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from int8_cases import Graph
from native_cases import HERE, RUNNABLE, graph
from onnx import helper
from spatial_cases import build, call

from hasten.graph.reference import run
from hasten.native import compile as compiling
from hasten.native import emit
from hasten.native.isa import isa
from hasten.native.kernels.row_chain import RowChain

TEAMS = [name for name in RUNNABLE if isa(name).arch != "any"]
pytestmark = pytest.mark.skipif(HERE.arch == "any", reason="plain C has no team")


class Net:
    """Nodes with weights of their own, one after the other."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[object] = []
        self.weights: dict[str, np.ndarray] = {}

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = (self.rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(np.float32)
        return name

    def whole(self, *numbers: int) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = np.array(numbers)
        return name

    def __call__(self, op: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        made = [f"v{len(self.nodes)}_{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), made, **attributes))
        return made[0] if outputs == 1 else " ".join(made)

    def product(self, x: str, depth: int, columns: int) -> str:
        return self("Add", self("MatMul", x, self.weight(depth, columns)), self.weight(columns))

    def model(self, y: str, x: tuple[int, ...], shape: tuple[int, ...]) -> ir.Model:
        self.nodes.append(helper.make_node("Identity", [y], ["y"]))
        return graph(self.nodes, {"x": x}, {"y": shape}, self.weights)


def transformer(rows: int, heads: int, depth: int, layers: int = 2) -> ir.Model:
    """Normalised rows that attend to each other, and two products, with what was before added."""
    net, x, width = Net(), "x", heads * depth
    for _ in range(layers):
        h = net("LayerNormalization", x, net.weight(width), net.weight(width))
        h = net("Reshape", net.product(h, width, 3 * width), net.whole(rows, 3, heads, depth))
        q, k, v = net("Split", h, outputs=3, axis=1, num_outputs=3).split()
        q, k, v = (net("Reshape", part, net.whole(rows, heads, depth)) for part in (q, k, v))
        q, v = (net("Transpose", part, perm=[1, 0, 2]) for part in (q, v))
        scores = net("Softmax", net("MatMul", q, net("Transpose", k, perm=[1, 2, 0])), axis=-1)
        h = net("Transpose", net("MatMul", scores, v), perm=[1, 0, 2])
        x = net("Add", x, net.product(net("Reshape", h, net.whole(rows, width)), width, width))
        h = net("LayerNormalization", x, net.weight(width), net.weight(width))
        x = net("Add", x, net.product(net("Gelu", net.product(h, width, 2 * width)), 2 * width, width))
    return net.model(x, (rows, width), (rows, width))


def gated(length: int, channels: int) -> ir.Model:
    """Dilated windows, then a gate, a product of every position and what was before."""
    net, x = Net(), "x"
    for dilation in (1, 2, 4):
        wide = net("Conv", x, net.weight(2 * channels, channels, 2), pads=[dilation, 0], dilations=[dilation])
        a, b = net("Split", wide, outputs=2, axis=1, num_outputs=2).split()
        h = net("Mul", net("Tanh", a), net("Sigmoid", b))
        x = net("Add", x, net("Conv", h, net.weight(channels, channels, 1)))
    return net.model(x, (1, channels, length), (1, channels, length))


def separable(height: int, width: int, stride: int) -> ir.Model:
    """Windows of every channel apart, then products of every position, twice; outside channels lie last."""
    net, channels = Net(), 24
    x = net("Transpose", "x", perm=[0, 3, 1, 2])
    for strides, pads in ((stride, [1, 1, 1, 1]), (1, [2, 0, 0, 2])):
        x = net("Conv", x, net.weight(channels, 1, 3, 3), group=channels, strides=[strides] * 2, pads=pads)
        x = net("Relu", net("Conv", net("Relu", x), net.weight(40, channels, 1, 1), net.weight(40)))
        x = net("Conv", x, net.weight(channels, 40, 1, 1))
    sizes = [(n - 1) // stride + 1 for n in (height, width)]
    return net.model(net("Transpose", x, perm=[0, 2, 3, 1]), (1, height, width, channels), (1, *sizes, channels))


def beside() -> ir.Model:
    """A step before the chain has written half of every row that it reads."""
    net = Net()
    half = net("Tanh", "x")
    mixed = net("MatMul", net("MatMul", "x", net("Transpose", "x", perm=[1, 0])), "x")
    return net.model(net("Sigmoid", net.product(net("Concat", half, mixed, axis=1), 24, 10)), (40, 12), (40, 10))


def on_bytes(height: int, width: int, channels: int) -> ir.Model:
    """Bytes: windows of every channel apart, products of every position, a sum, a table, then numbers again."""
    g = Graph(4)
    x = g.rounded("x")
    for pads, strides in (([1, 1, 1, 1], [1, 1]), ([0, 1, 2, 1], [2, 1])):
        apart = g.filters(channels, 1, 3, 3)
        h = g.rounded(g.node("Conv", x, apart, group=channels, pads=pads, strides=strides), 0.03)
        wide = g.rounded(g.node("Relu", g.node("Conv", h, g.filters(40, channels, 1, 1))), 0.02, -128)
        h = g.rounded(g.node("Conv", wide, g.filters(channels, 40, 1, 1)), 0.03)
        x = g.rounded(g.node("Add", h, x), 0.05) if strides == [1, 1] else h
        x = g.rounded(g.node("Sigmoid", x), 1 / 256, -128)
    return ir.from_proto(g.model([x], {"x": (1, channels, height, width)}))


def joined() -> ir.Model:
    """Copies alone: two halves of the rows that a window then slides over."""
    net = Net()
    x = net("Transpose", "x", perm=[0, 3, 1, 2])
    a, b = (net("Conv", x, net.weight(8, 8, 3, 3), pads=[1, 1, 1, 1]) for _ in range(2))
    x = net("Conv", net("Concat", a, net("Tanh", b), axis=1), net.weight(8, 16, 3, 3), pads=[1, 1, 1, 1])
    return net.model(net("Transpose", x, perm=[0, 2, 3, 1]), (1, 14, 9, 8), (1, 14, 9, 8))


def heads(count: int, rows: int) -> ir.Model:
    """Scores kept whole, which no fused attention makes: products of one head after the other."""
    net, depth = Net(), 6
    h = net("Transpose", net("Reshape", "x", net.whole(rows, count, depth)), perm=[1, 0, 2])
    scores = net("Softmax", net("MatMul", h, net("Transpose", h, perm=[0, 2, 1])), axis=-1)
    both = net("Add", net("MatMul", scores, h), net("ReduceMax", scores, net.whole(2)))
    whole = net("Reshape", net("Transpose", both, perm=[1, 0, 2]), net.whole(rows, count * depth))
    return net.model(whole, (rows, count * depth), (rows, count * depth))


MODELS: dict[str, tuple[Callable[[], ir.Model], list[int]]] = {
    "transformer": (lambda: transformer(24, 3, 8), [2, 7, 5]),
    "transformer, odd": (lambda: transformer(53, 2, 12, layers=1), [2, 5]),
    "gates": (lambda: gated(64, 16), [1, 3, 2, 3, 2, 3, 1]),
    "gates, odd": (lambda: gated(51, 7), [3, 1, 3, 1, 3, 1]),
    "separable": (lambda: separable(18, 9, 1), [3, 3]),
    "separable, odd": (lambda: separable(23, 8, 1), [3, 3]),
    "separable, stride": (lambda: separable(41, 9, 2), [3, 3]),
    "bytes": (lambda: on_bytes(18, 9, 24), [1, 5, 4, 1]),
    "bytes, odd": (lambda: on_bytes(23, 7, 7), [1, 5, 4, 1]),
    "bytes, a vector of channels": (lambda: on_bytes(12, 6, 64), [1, 5, 4, 1]),
    "copies": (joined, [4]),
    "heads": (lambda: heads(4, 40), [1, 3, 1]),
    "heads, odd": (lambda: heads(3, 17), [1, 1, 1]),
    "half written before": (beside, [2, 4]),
}


@pytest.fixture
def no_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (emit, compiling):
        monkeypatch.setattr(module, "SPLIT_MACS", 1)


@pytest.mark.parametrize("name", MODELS)
def test_parts_walk_through_their_own_rows(name: str, no_limits: None) -> None:
    made, lengths = MODELS[name]
    model = made()
    shape = model.graph.inputs[0].shape
    assert shape is not None
    x = np.random.default_rng(1).standard_normal(shape.numpy()).astype(np.float32)
    expected = run(model, [x])[0]
    for target in TEAMS:
        for threads in (2, 3):
            team = build(model, target, threads=threads)
            if threads == 2 and target == HERE.name:
                assert [len(s.steps) for s in team.program.steps if isinstance(s, RowChain)] == lengths
            alone = call(team, x)[0]
            # Bytes of float32 arithmetic may end a step beside those of float64.
            np.testing.assert_allclose(alone, expected, rtol=1e-4, atol=1.01 / 256 if "bytes" in name else 2e-5)
            if "bytes" in name:
                np.testing.assert_array_equal(alone, call(build(model, target), x)[0])
            for parts in (2, 3, 5):
                np.testing.assert_array_equal(call(team, x, parts=parts)[0], alone)
