"""Every kernel that a team shares out gives the same bits whether one thread does all parts or each does its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from native_cases import HERE, attention, graph, mlp, recurrent
from onnx import helper
from spatial_cases import build, call

from hasten.graph.reference import run
from hasten.native.compile import program_of
from hasten.native.isa import isa
from hasten.native.kernels.dense_chain import DenseChain
from hasten.native.kernels.depthwise import Depthwise
from hasten.native.kernels.winograd_transforms import TILES, block_tiles

pytestmark = pytest.mark.skipif(HERE.arch == "any", reason="plain C has no team")


def conv(shape: tuple[int, ...], *weight: int, **attributes: object) -> ir.Model:
    """One convolution, of equal size."""
    w = np.random.default_rng(1).standard_normal(weight).astype(np.float32) / 10
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1], **attributes)
    return graph([node], {"x": shape}, {"y": (shape[0], weight[0], *shape[2:])}, {"w": w})


def sloped() -> ir.Model:
    """Products with a slope for each column; the first's result is added to the third's: a chain ends with either."""
    rng = np.random.default_rng(3)
    weights = {f"w{i}": rng.standard_normal((200, 200)).astype(np.float32) / 14 for i in range(5)}
    weights |= {f"s{i}": rng.random(200).astype(np.float32) for i in range(5)}
    nodes, last = [], "x"
    for i in range(5):
        nodes.append(helper.make_node("MatMul", [last, f"w{i}"], [f"m{i}"]))
        nodes.append(helper.make_node("PRelu", [f"m{i}", f"s{i}"], [f"p{i}"]))
        last = f"p{i}"
        if i == 2:
            nodes.append(helper.make_node("Add", ["p0", "p2"], ["sum"]))
            last = "sum"
    nodes.append(helper.make_node("Identity", [last], ["y"]))
    return graph(nodes, {"x": (1, 200)}, {"y": (1, 200)}, weights)


def two_heads() -> ir.Model:
    """A policy and a value of one state, as actors and critics have them."""
    rng = np.random.default_rng(4)
    sizes = {"w": (200, 384), "a": (384, 40), "b": (384, 1)}
    weights = {name: rng.standard_normal(shape).astype(np.float32) / 14 for name, shape in sizes.items()}
    steps = [
        ("MatMul", ["x", "w"], "m"),
        ("Tanh", ["m"], "s"),
        ("MatMul", ["s", "a"], "y"),
        ("MatMul", ["s", "b"], "v"),
    ]
    nodes = [helper.make_node(kind, inputs, [y]) for kind, inputs, y in steps]
    return graph(nodes, {"x": (1, 200)}, {"y": (1, 40), "v": (1, 1)}, weights)


CASES: dict[str, tuple[Callable[[], ir.Model], int]] = {
    "dense": (lambda: mlp([256, 384, 256, 40]), 1),
    "dense, five layers": (lambda: mlp([200, 384, 130, 8, 128, 75]), 1),
    "dense, one layer": (lambda: mlp([256, 384]), 1),
    "dense, with slopes and what others read": (sloped, 3),
    "dense, two heads": (two_heads, 2),
    "lstm": (lambda: recurrent("LSTM", 9, 5, 96), 2),
    "lstm, rows in turn": (lambda: recurrent("LSTM", 2, 5, 96, batch=40), 2),
    "lstm, one step": (lambda: recurrent("LSTM", 1, 5, 96, batch=3), 1),
    "gru, reset after": (lambda: recurrent("GRU", 9, 5, 96, linear_before_reset=1), 2),
    "gru, reset before": (lambda: recurrent("GRU", 9, 5, 96), 1),
    "both directions": (lambda: recurrent("LSTM", 30, 5, 24, direction="bidirectional"), 2),
    "attention": (lambda: attention(49, 3, 8), 1),
    "minimal filtering, many tiles": (lambda: conv((1, 16, 22, 20), 32, 16, 3, 3), 2),
    "minimal filtering, few tiles": (lambda: conv((1, 64, 8, 8), 64, 64, 3, 3), 1),
    "depthwise, narrow": (lambda: conv((1, 64, 25, 5), 64, 1, 3, 3, group=64), 1),
    "both directions of a gru": (lambda: recurrent("GRU", 40, 5, 24, batch=2, direction="bidirectional"), 2),
}


@pytest.mark.parametrize("name", CASES)
def test_parts_together_give_what_one_thread_gives(name: str) -> None:
    made, shared = CASES[name]
    model = made()
    team = build(model, HERE.name, threads=2)
    assert team.emitted.splits == shared
    shape = model.graph.inputs[0].shape
    assert shape is not None
    x = np.random.default_rng(0).standard_normal(shape.numpy()).astype(np.float32)
    alone = call(team, x)
    for expected, found in zip(run(model, [x]), alone, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    for parts in (2, 3) if shared else ():
        for _ in range(20):
            for expected, found in zip(alone, call(team, x, parts=parts), strict=True):
                np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("sizes", "stages"),
    [
        ([256, 384, 384, 256, 128, 32], [2, 2]),  # one thread is done with the last layer before two have met
        ([640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640], [1, 2, 2, 2, 2, 1]),  # 640 sums would have to move
        ([64, 64, 64], []),
        ([4096, 1], []),  # one column has no halves, and ten are one vector
        ([4096, 10], []),
    ],
)
def test_products_of_one_row_meet_where_that_costs_least(sizes: list[int], stages: list[int]) -> None:
    steps = program_of(mlp(sizes), "case", HERE, threads=2).steps
    assert [stage.layers for step in steps if isinstance(step, DenseChain) for stage in step.stages] == stages


@pytest.mark.parametrize("team", [3, 4])
def test_a_chain_is_cut_into_as_many_pieces_as_there_are_threads(team: int) -> None:
    model = mlp([200, 385, 131, 77])
    built = build(model, HERE.name, threads=team)
    x = np.random.default_rng(0).standard_normal((1, 200)).astype(np.float32)
    alone = call(built, x)
    np.testing.assert_allclose(alone[0], run(model, [x])[0], rtol=1e-5, atol=1e-5)
    assert any(isinstance(step, DenseChain) for step in built.program.steps)
    for parts in (2, 3, 4):
        np.testing.assert_array_equal(call(built, x, parts=parts)[0], alone[0])


def test_layers_that_need_each_other_stay_one_after_the_other() -> None:
    weights = {
        name: np.random.default_rng(k).standard_normal(shape).astype(np.float32) / 5
        for k, (name, shape) in enumerate({"w": (1, 96, 24), "r": (1, 96, 24)}.items())
    }
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r"], ["a"], hidden_size=24),
        helper.make_node("Squeeze", ["a", "axis"], ["b"]),
        helper.make_node("LSTM", ["b", "w", "r"], ["y"], hidden_size=24),
    ]
    model = graph(nodes, {"x": (9, 1, 24)}, {"y": (9, 1, 1, 24)}, {**weights, "axis": np.array([1])})
    kernels = [step.kernel for step in build(model, HERE.name, threads=2).program.steps]
    assert kernels.count("lstm") == 2


@pytest.mark.parametrize("name", ["x86-64-v3", "zen4", "aarch64"])
def test_parts_keep_to_the_rows_that_they_have(name: str) -> None:
    """A tile that follows the columns of pixels would have every part read all rows."""
    model = conv((1, 64, 25, 5), 64, 1, 3, 3, group=64)

    def followed(threads: int) -> int:
        steps = program_of(model, "case", isa(name), threads=threads).steps
        (step,) = (s for outer in steps for s in getattr(outer, "steps", (outer,)) if isinstance(s, Depthwise))
        assert step.schedule is not None
        return step.schedule.inner

    assert [followed(1), followed(2)] == [0, 1]


@pytest.mark.parametrize("tiles", range(1, 70))
def test_blocks_of_tiles_are_as_many_for_each_part(tiles: int) -> None:
    for team in (1, 2, 3, 4):
        each = block_tiles(tiles, team)
        blocks = -(-tiles // each)
        shares = [sum(min(each, tiles - b * each) for b in range(blocks * p // team, blocks * (p + 1) // team))
                  for p in range(team)]  # fmt: skip
        assert each <= TILES
        assert sum(shares) == tiles
        assert max(shares) <= tiles / team + -(-tiles // (TILES * team))  # the last block of a part may be smaller
