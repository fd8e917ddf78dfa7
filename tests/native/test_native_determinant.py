"""Determinants against numpy's in float64, within rounding of the largest that rows of their lengths can have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_cases import HERE, RUNNABLE, Built, graph
from onnx import helper

from hasten.graph import reference
from hasten.native.isa import isa


def determinant(x: np.ndarray, target: str = HERE.name) -> np.ndarray:
    model = graph([helper.make_node("Det", ["x"], ["y"])], {"x": x.shape}, {"y": x.shape[:-2]}, {})
    (found,) = Built(model, isa(target), extra=("-O1", "-Werror"))(x)
    np.testing.assert_allclose(found, reference.run(model, [x])[0], atol=1e-5 * largest(x).max(initial=1e-30))
    return found


def largest(x: np.ndarray) -> np.ndarray:
    """Hadamard's bound: the product of the rows' lengths."""
    return np.prod(np.linalg.norm(x.astype(np.float64), axis=-1), axis=-1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(1, 4), max_size=2), st.integers(1, 9), st.booleans())
def test_determinants_of_any_size(seed: int, batch: list[int], size: int, sparse: bool) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((*batch, size, size)).astype(np.float32)
    x *= rng.integers(0, 2, x.shape).astype(np.float32) if sparse else 1  # pivots of zero, rows that change places
    expected = np.linalg.det(x.astype(np.float64))
    assert np.all(np.abs(determinant(x) - expected) <= 1e-5 * largest(x))


@pytest.mark.parametrize("target", RUNNABLE)
def test_singular_turned_and_unfinished_matrices(target: str) -> None:
    turned = np.eye(3, dtype=np.float32)[[1, 0, 2]]
    x = np.stack([np.ones((3, 3), np.float32), turned, np.zeros((3, 3), np.float32), 2 * turned[[1, 2, 0]]])
    np.testing.assert_array_equal(determinant(x, target), [0, -1, 0, 8 * np.linalg.det(turned[[1, 2, 0]]).round()])
    x = np.full((1, 2, 2), np.nan, np.float32)
    model = graph([helper.make_node("Det", ["x"], ["y"])], {"x": x.shape}, {"y": (1,)}, {})
    assert np.isnan(Built(model, isa(target))(x)[0]).all()
