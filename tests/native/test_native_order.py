"""Where the largest or smallest stands: every axis, equal values, both zeros, NaN, and no copy of channels last."""

from __future__ import annotations

import numpy as np
import pytest
from native_cases import HERE, RUNNABLE, Built, graph
from onnx import helper
from test_native_ops import model

from hasten.native.compile import program_of
from hasten.native.isa import isa


def position(x: np.ndarray, axis: int, smallest: bool, last: bool) -> np.ndarray:
    """As numpy counts, from the end where the last of equal ones is asked for."""
    seen = np.flip(x, axis) if last else x
    found = (np.argmin if smallest else np.argmax)(seen, axis)
    return x.shape[axis] - 1 - found if last else found


def values(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Few different ones, so that many are equal; of floats some zeros are negative and some values NaN."""
    rng = np.random.default_rng(5)
    x = (rng.integers(0, 6, shape) - (0 if dtype.startswith("u") else 3)).astype(dtype)
    if dtype.startswith("float"):
        x = np.where((x == 0) & (rng.random(shape) < 0.5), np.array(-0.0, dtype), x)
        x[rng.random(shape) < 0.03] = np.nan
        x[0, 0] = 0.0  # a row without NaN whose zeros decide
        x[0, 0, 1::2] = -0.0
    return x


CASES = [(HERE.name, dtype) for dtype in ("float64", "float16", "int8", "uint8", "int32", "int64")]


@pytest.mark.parametrize(("target", "dtype"), [*((name, "float32") for name in RUNNABLE), *CASES])
def test_position_of_the_largest_and_the_smallest(target, dtype):
    x = values(dtype, (2, 21, 70))
    wanted, nodes = {}, []
    for axis in range(3):
        for op in ("ArgMax", "ArgMin"):
            for last in (0, 1):
                name = f"{op}_{axis}_{last}"
                wanted[name] = position(x, axis, op == "ArgMin", bool(last))
                given = {"axis": axis, "keepdims": 0, "select_last_index": last}
                nodes.append(helper.make_node(op, ["x"], [name], name=name, **given))
    found = Built(model(nodes, {"x": x}, list(wanted)), isa(target))(x)
    for (name, want), got in zip(wanted.items(), found, strict=True):
        np.testing.assert_array_equal(got, want, err_msg=name)


def test_the_position_among_channels_that_lie_last_copies_nothing():
    weight = np.random.default_rng(1).standard_normal((9, 4, 3, 3)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("ArgMax", ["c"], ["m"], axis=1)]
    nodes.append(helper.make_node("Cast", ["m"], ["y"], to=1))
    made = graph(nodes, {"x": (1, 4, 12, 11)}, {"y": (1, 1, 10, 9)}, {"w": weight})
    titles = [step.title for step in program_of(made, "case", HERE).steps]
    assert not [title for title in titles if "turned" in title], titles
