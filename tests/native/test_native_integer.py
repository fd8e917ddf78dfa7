"""Operators of bytes that are exact, bit by bit as ONNX Runtime has them: matrices at run time, pools in depth."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from int8_cases import Graph, compare, expected
from native_cases import HERE, RUNNABLE, Built
from onnx import helper
from test_native_ops import model

from hasten.errors import UnsupportedOpError
from hasten.native.compile import program_of
from hasten.native.isa import isa
from hasten.native.kernels.byte_pool import BytePool

# Without VNNI ONNX Runtime's products of unsigned and signed bytes overflow where both are large.
LARGEST = 128 if "vnni" in HERE.features else 64
TYPES = [("uint8", "int8"), ("uint8", "uint8"), ("int8", "int8")]
SHAPES = [((3, 5), (5, 7)), ((2, 1, 4, 70), (3, 70, 33)), ((1, 257), (257, 19)), ((6, 258), (258, 3))]


def some(rng: np.random.Generator, dtype: str, shape: tuple[int, ...], most: int = 128) -> np.ndarray:
    low = 128 if dtype == "uint8" else 0
    return rng.integers(low - most, low + most, shape).astype(dtype)


def agree(made: ir.Model, arrays: list[np.ndarray], target: str) -> np.ndarray:
    """The first result, which is ONNX Runtime's, as all others are."""
    found = Built(made, isa(target))(*arrays)
    for f, w in zip(found, expected(ir.to_proto(made), *arrays), strict=True):
        np.testing.assert_array_equal(f, w)
    return found[0]


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize(("left", "right"), TYPES)
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_matrices_of_bytes_at_run_time(shapes, left, right, target):
    """Without zero points, with known ones, with one a column, and with such as come at run time."""
    rng = np.random.default_rng(len(left) + shapes[0][-1])
    a, b = some(rng, left, shapes[0]), some(rng, right, shapes[1], LARGEST)
    p, q = some(rng, left, ()), some(rng, right, (), LARGEST)
    columns = some(rng, right, shapes[1][-1:], LARGEST)
    zeros = {"none": [], "known": ["m", "n"], "columns": ["m", "ns"], "right alone": ["", "q"], "given": ["p", "q"]}
    nodes = [helper.make_node("MatMulInteger", ["a", "b", *names], [kind]) for kind, names in zeros.items()]
    inputs = {"a": a, "b": b, "p": p, "q": q}
    made = model(nodes, inputs, list(zeros), {"m": p, "n": q, "ns": columns})
    found = dict(zip(zeros, Built(made, isa(target))(*inputs.values()), strict=True))
    wide = {n: v.astype(np.int64) for n, v in (inputs | {"ns": columns}).items()}
    np.testing.assert_array_equal(found["columns"], (wide["a"] - wide["p"]) @ (wide["b"] - wide["ns"]))
    if b.ndim > 2:  # ONNX Runtime takes one zero point a column for a single matrix alone
        made.graph.outputs[:] = [v for v in made.graph.outputs if v.name != "columns"]
        made.graph.remove([n for n in made.graph if n.outputs[0].name == "columns"], safe=True)
    names = [v.name for v in made.graph.outputs]
    for name, value in zip(names, expected(ir.to_proto(made), *inputs.values()), strict=True):
        np.testing.assert_array_equal(found[name], value)


def test_the_largest_sums_are_exact():
    """At the depth up to which float32 has them, and one beyond."""
    node = helper.make_node("MatMulInteger", ["a", "b", "p", "q"], ["y"])
    for depth in (257, 258, 259, 70_000):
        a, b = np.full((2, depth), 255, np.uint8), np.full((depth, 3), 255, np.uint8)
        a[1, 0] = 254
        made = model([node], {"a": a, "b": b}, ["y"], {"p": np.uint8(0), "q": np.uint8(0)})
        (found,) = Built(made, HERE)(a, b)
        exact = (a.astype(np.int64) @ b.astype(np.int64)).astype(np.int32)
        np.testing.assert_array_equal(found, exact)


def test_zero_points_a_row():
    """ONNX Runtime has none of those."""
    rng = np.random.default_rng(3)
    a, b, rows = some(rng, "uint8", (4, 9)), some(rng, "int8", (9, 5)), some(rng, "uint8", (4,))
    node = helper.make_node("MatMulInteger", ["a", "b", "rows"], ["y"])
    (found,) = Built(model([node], {"a": a, "b": b}, ["y"], {"rows": rows}), HERE)(a, b)
    np.testing.assert_array_equal(found, (a.astype(np.int32) - rows[:, None]) @ b.astype(np.int32))


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize(("left", "right"), TYPES)
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_quantised_matrices_at_run_time(shapes, left, right, target):
    rng = np.random.default_rng(len(left) + shapes[0][-1])
    a, b = some(rng, left, shapes[0]), some(rng, right, shapes[1], LARGEST)
    scale = np.float32(0.9 / np.sqrt(shapes[0][-1]))
    weights = {
        "as": np.float32(0.0123), "az": some(rng, left, (), 5), "bs": scale, "bz": some(rng, right, (), 5),
        "ys": np.float32(0.91), "yz": some(rng, left, (), 9),
        "bcs": rng.uniform(0.5, 2, shapes[1][-1]).astype(np.float32) * scale,
        "bcz": some(rng, right, shapes[1][-1:], 5),
    }  # fmt: skip
    nodes = [
        helper.make_node("QLinearMatMul", ["a", "as", "az", "b", scales, zeros, "ys", "yz"], [y])
        for y, scales, zeros in (("one", "bs", "bz"), ("columns", "bcs", "bcz"))
    ]
    nodes = nodes[: 1 if len(shapes[1]) > 2 else 2]  # a stack of matrices takes its columns' scales as a stack
    found = agree(model(nodes, {"a": a, "b": b}, [n.output[0] for n in nodes], weights), [a, b], target)
    assert found.dtype == left and len(np.unique(found)) > 8, "most are not at the ends"


def test_what_is_no_matrix_is_named():
    node = helper.make_node("MatMulInteger", ["a", "b"], ["y"])
    with pytest.raises(UnsupportedOpError, match=r"op MatMulInteger .* of this shape"):
        program_of(model([node], {"a": np.ones(4, np.uint8), "b": np.ones((4, 2), np.uint8)}, ["y"]), "case", HERE)


# ---- pools in depth ------------------------------------------------------------------------------------------------

WINDOWS = [
    {"kernel_shape": [2, 3, 2], "strides": [1, 2, 3]},
    {"kernel_shape": [3, 1, 3], "strides": [2, 1, 1], "pads": [1, 0, 2, 1, 0, 0]},
    {"kernel_shape": [1, 2, 2], "pads": [0, 1, 1, 0, 1, 0], "dilations": [1, 2, 1]},
    {"kernel_shape": [2, 2, 2], "strides": [3, 2, 2], "dilations": [3, 1, 2], "ceil_mode": 1},
    {"kernel_shape": [2, 2, 2], "auto_pad": "SAME_UPPER"},
]


def deep_pools(x: np.ndarray) -> ir.Model:
    """The largest bytes under every one of the windows."""
    nodes = [helper.make_node("MaxPool", ["x"], [f"y{i}"], **options) for i, options in enumerate(WINDOWS)]
    return model(nodes, {"x": x}, [n.output[0] for n in nodes])


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("channels", [1, 7, 64, 67])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_the_largest_bytes_in_depth(dtype, channels, target):
    x = some(np.random.default_rng(channels), dtype, (2, channels, 5, 7, 6))
    made = deep_pools(x)
    assert sum(isinstance(s, BytePool) for s in program_of(made, "case", isa(target)).steps) == 2 * len(WINDOWS)
    agree(made, [x], target)


def test_the_largest_in_depth_between_bytes():
    g = Graph(3)
    x = g.rounded("x")
    y = g.rounded(g.node("MaxPool", x, kernel_shape=[2, 2, 2], strides=[2, 2, 2]), g.scale_of[x], g.zero_of[x])
    made: onnx.ModelProto = g.model([y], {"x": (1, 19, 4, 6, 5)})
    steps = program_of(ir.from_proto(made), "case", HERE).steps
    assert sum(isinstance(s, BytePool) for s in steps) == 2
    compare(made, np.random.default_rng(0).standard_normal((1, 19, 4, 6, 5)).astype(np.float32) * 3, step=1e-6)
