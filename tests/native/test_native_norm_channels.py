"""Images are normalised where they lie, channels innermost, as those whose channels lie apart are."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from native_cases import HERE, graph
from onnx import helper
from spatial_cases import build, call, host_isas

from hasten.graph.reference import run
from hasten.native.compile import program_of
from hasten.native.kernels.norm_channels import NormaliseChannels

# name → images, positions, channels, groups, what follows
CASES: dict[str, tuple[int, tuple[int, ...], int, int, str]] = {
    "each channel": (1, (5, 7), 24, 24, "Relu"),
    "each channel, of a line": (2, (37,), 67, 67, "Identity"),
    "each channel, five vectors": (1, (3, 4), 80, 80, "Sigmoid"),
    "two positions": (2, (1, 2), 32, 4, "Relu"),
    "groups of whole vectors": (1, (6, 6), 128, 4, "Elu"),
    "groups of parts of vectors": (2, (5, 9), 36, 6, "Relu"),
    "all channels": (1, (11, 3), 48, 1, "Tanh"),
    "all channels, no whole vector": (3, (13,), 19, 1, "Identity"),
    "more sums than positions": (1, (3,), 16, 2, "Relu"),
}


def normalised(name: str, *, residual: bool = False) -> ir.Model:
    """Normalised, scaled and shifted by channel, with something on top, from channels that lie innermost."""
    images, positions, channels, groups, last = CASES[name]
    rng = np.random.default_rng(channels)
    inner, outer = [0, len(positions) + 1, *range(1, len(positions) + 1)], [0, *range(2, len(positions) + 2), 1]
    weights = {"s": rng.standard_normal(channels).astype(np.float32), "b": rng.random(channels).astype(np.float32)}
    kind = "InstanceNormalization" if groups == channels else "GroupNormalization"
    attributes = {} if groups == channels else {"num_groups": groups}
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=inner),
        helper.make_node(kind, ["t", "s", "b"], ["n"], epsilon=0.01, **attributes),
        helper.make_node("Add", ["n", "t"], ["r"]) if residual else helper.make_node("Identity", ["n"], ["r"]),
        helper.make_node(last, ["r"], ["a"]),
        helper.make_node("Transpose", ["a"], ["y"], perm=outer),
    ]
    shape = (images, *positions, channels)
    return graph(nodes, {"x": shape}, {"y": shape}, weights, opset=21)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_channels_are_normalised_where_they_lie(name: str, residual: bool) -> None:
    model = normalised(name, residual=residual)
    shape = model.graph.inputs[0].shape
    assert shape is not None
    x = np.random.default_rng(0).standard_normal(shape.numpy()).astype(np.float32) * 3 + 7
    (expected,) = run(model, [x])
    for target in host_isas():
        built = build(model, target)
        np.testing.assert_allclose(call(built, x)[0], expected, rtol=1e-4, atol=2e-5)
    steps = program_of(model, "case", HERE).steps
    assert any(isinstance(step, NormaliseChannels) for step in steps) is (CASES[name][2] >= HERE.lanes)
    assert len(steps) == 1 or CASES[name][2] < HERE.lanes


def test_each_group_has_its_own_scale_before_opset_21() -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("GroupNormalization", ["t", "s", "b"], ["y"], num_groups=3, epsilon=0.1),
    ]
    weights = {"s": np.float32([1, -2, 3]), "b": np.float32([0.5, 0, 1])}
    model = graph(nodes, {"x": (2, 5, 4, 48)}, {"y": (2, 48, 5, 4)}, weights, opset=21)  # none checks 18's any more
    x = np.random.default_rng(0).standard_normal((2, 5, 4, 48)).astype(np.float32)
    parts = x.transpose(0, 3, 1, 2).reshape(2, 3, -1).astype(np.float64)
    centred = parts - parts.mean(-1, keepdims=True)
    rows = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 0.1)
    expected = (rows * weights["s"][:, None] + weights["b"][:, None]).reshape(2, 48, 5, 4)
    for target in host_isas():
        np.testing.assert_allclose(call(build(model, target), x)[0], expected, rtol=1e-4, atol=2e-5)
