"""Planes that turn: whole blocks of vectors, what is left beside them, and planes narrower than a vector."""

from __future__ import annotations

import numpy as np
import pytest
from native_cases import HERE, RUNNABLE, Built
from onnx import helper
from test_native_ops import model

from hasten.native.compile import program_of
from hasten.native.emit import emit
from hasten.native.isa import isa

SHAPES = [(2, 12, 101), (2, 101, 12), (1, 37, 50), (3, 3, 90), (1, 16, 33), (2, 8, 70), (1, 200, 5), (1, 2, 140)]


def turned(shapes):
    inputs = {f"x{i}": np.random.default_rng(i).standard_normal(s).astype(np.float32) for i, s in enumerate(shapes)}
    nodes = [helper.make_node("Transpose", [name], [f"y{name}"], perm=[0, 2, 1]) for name in inputs]
    return model(nodes, inputs, [f"y{name}" for name in inputs]), inputs


@pytest.mark.parametrize("target", RUNNABLE)
def test_planes_of_every_size_turn(target):
    made, inputs = turned(SHAPES)
    for found, x in zip(Built(made, isa(target))(*inputs.values()), inputs.values(), strict=True):
        np.testing.assert_array_equal(found, x.transpose(0, 2, 1))


@pytest.mark.skipif(HERE.lanes < 2, reason="no vectors here")
@pytest.mark.parametrize("shape", [(1, 3, 90), (1, 90, 3), (1, 37, 50)])
def test_no_value_of_a_plane_is_moved_alone(shape):
    made, _ = turned([shape])
    source = emit(program_of(made, "case", HERE), HERE).source
    assert "v_turn(a)" in source
    assert "= from[" not in source
