from __future__ import annotations

import doctest

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hasten.errors import InputError, SettingsError
from hasten.types import TensorSpec
from hasten.verify import (
    METRICS,
    Metric,
    Tolerance,
    accuracy_bound,
    compare,
    comparison,
    edge_inputs,
    metric,
    nearby_inputs,
)

F32 = np.float32
FINITE = hnp.arrays(
    F32, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5), elements=st.floats(-1e6, 1e6, width=32)
)


def one(expected, received, tolerance=None):
    return compare([[np.asarray(expected)]], [[np.asarray(received)]], tolerance)


def test_docstrings_are_true() -> None:
    found = doctest.testmod(comparison)
    assert found.attempted > 0 and found.failed == 0


@settings(deadline=None)
@given(FINITE)
def test_equal_arrays_pass(array) -> None:
    found = one(array, array.copy())
    assert found.passed and found.max_abs_error == 0.0 and found.min_cosine == pytest.approx(1.0)


@settings(deadline=None)
@given(FINITE.filter(lambda a: a.size > 0), st.data(), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_a_nan_or_infinity_never_passes(array, data, bad) -> None:
    place = tuple(data.draw(st.integers(0, n - 1)) for n in array.shape)
    broken = array.copy()
    broken[place] = bad
    for tolerance in (None, Tolerance.uniform(1e9), Tolerance.structure(), Tolerance.named("int8")):
        assert not one(array, broken, tolerance).passed
        assert not one(broken, array, tolerance).passed
        assert one(broken, broken.copy(), tolerance).passed


def test_infinities_keep_their_sign() -> None:
    assert not one(F32([np.inf, 1]), F32([-np.inf, 1])).passed
    assert one(F32([np.inf, np.nan, -np.inf]), F32([np.inf, np.nan, -np.inf])).passed


@settings(deadline=None)
@given(FINITE.filter(lambda a: a.size > 0), st.data())
def test_one_wrong_element_is_found_and_named(array, data) -> None:
    place = tuple(data.draw(st.integers(0, n - 1)) for n in array.shape)
    broken = array.copy()
    broken[place] += F32(0.01 * max(1.0, float(np.abs(array).max())))
    found = one(array, broken)
    assert not found.passed and str(place) in found.reason
    assert f"output 0 on check 0: at {place}" in found.reason


@settings(deadline=None)
@given(FINITE, st.integers(-3, 3))
def test_float32_rounding_passes(array, steps) -> None:
    moved = array.astype(np.float64) * (1 + steps * 2.0**-23)
    assert one(array, moved.astype(F32)).passed


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_reduced_precision_fails_the_default(dtype) -> None:
    x = np.random.default_rng(0).standard_normal(1000).astype(F32)
    rounded = x.astype(dtype).astype(F32)
    name = np.dtype(dtype).name
    assert not one(x, rounded).passed
    assert one(x, rounded, Tolerance.named(name)).passed


def test_outputs_of_a_coarse_dtype_are_held_to_its_own_steps() -> None:
    x = np.random.default_rng(0).standard_normal(1000)
    for dtype, step in ((np.float16, 2**-10), (ml_dtypes.bfloat16, 2**-7)):
        y = x.astype(dtype)
        assert one(y, (x * (1 + step)).astype(dtype)).passed
        assert not one(y, (x * (1 + 20 * step)).astype(dtype)).passed


def test_float64_sources_keep_float64_accuracy() -> None:
    x = np.random.default_rng(0).standard_normal(100)
    assert one(x, x * (1 + 1e-12)).passed
    assert not one(x, x.astype(F32).astype(np.float64)).passed
    assert one(x, x.astype(F32).astype(np.float64), Tolerance.uniform(1e-5)).passed


def test_small_outputs_cannot_be_garbage() -> None:
    x = np.random.default_rng(0).standard_normal((4, 8)).astype(F32) * F32(3e-6)
    assert not one(x, np.zeros_like(x)).passed
    assert not one(x, x[::-1].copy()).passed
    assert one(x, x * F32(1 + 1e-6)).passed


def test_rounding_of_large_terms_is_allowed_beside_them() -> None:
    expected = F32([1000.0, 1e-3])
    assert one(expected, expected + F32([0, 5e-4])).passed
    assert not one(F32([1.0, 1e-3]), F32([1.0, 1e-3 + 5e-4])).passed


def test_a_check_of_zeros_is_held_against_the_usual_size() -> None:
    rng = np.random.default_rng(0)
    usual = [[rng.standard_normal(5).astype(F32)] for _ in range(3)]
    zeros = [[np.zeros(5, F32)]]
    close = [[np.full(5, 3e-6, F32)]]
    assert compare(usual + zeros, usual + close).passed
    assert not compare(usual + zeros, [*usual, [np.full(5, 1e-3, F32)]]).passed


@pytest.mark.parametrize(
    ("received", "words"),
    [
        ([np.zeros((1, 2), F32)], "expected 2 outputs, received 1"),
        ([np.zeros((1, 2), F32), np.zeros(3, np.int64), np.zeros(1)], "expected 2 outputs, received 3"),
        ([np.zeros(2, F32), np.zeros(3, np.int64)], "expected shape (1, 2), received (2,)"),
        ([np.zeros((1, 2)), np.zeros(3, np.int64)], "expected dtype float32, received float64"),
        ([np.zeros((1, 2), F32), np.zeros(3, np.int32)], "expected dtype int64, received int32"),
        ([], "expected 2 outputs, received 0"),
    ],
)
@pytest.mark.parametrize("tolerance", [None, Tolerance.structure(), Tolerance.uniform(1e6)])
def test_structure_is_exact_under_any_tolerance(received, words: str, tolerance) -> None:
    expected = [[np.zeros((1, 2), F32), np.zeros(3, np.int64)]]
    found = compare(expected, [received], tolerance, ["sample"])
    assert not found.passed and words in found.reason and "'sample'" in found.reason


def test_unanswered_checks_never_pass() -> None:
    array = [np.zeros(2, F32)]
    assert "expected answers to 2 checks, received 1" in compare([array, array], [array]).reason
    assert "nothing was checked" in compare([], []).reason
    assert not compare([array], [array, array]).passed


def test_empty_and_scalar_outputs() -> None:
    assert one(np.zeros((0, 4), F32), np.zeros((0, 4), F32)).passed
    assert not one(np.zeros((0, 4), F32), np.zeros((0, 3), F32)).passed
    assert one(F32(3), F32(3)).passed and not one(F32(3), F32(4)).passed
    assert one(np.int64(3), np.int64(3)).passed and not one(np.int64(3), np.int64(4)).passed


def test_integers_are_exact_unless_quantised() -> None:
    y = np.array([[5, -3, 120]], np.int8)
    assert not one(y, y + np.int8(1)).passed
    assert one(y, y + np.int8(1), Tolerance(integer=1)).passed
    assert not one(y, y + np.int8(2), Tolerance(integer=1)).passed
    big = np.array([2**63 - 1, 0], np.int64)
    assert not one(big, np.array([2**63 - 2, 0], np.int64)).passed
    assert not one(np.array([True, False]), np.array([True, True]), Tolerance(integer=5)).passed


@pytest.mark.parametrize(
    ("dtype", "off", "passes"), [("int8", 3, True), ("uint8", 4, False), ("int64", 1, True), ("int64", 2, False)]
)
def test_steps_are_those_of_answers_of_few_bits(dtype: str, off: int, passes: bool) -> None:
    answer = np.arange(8).astype(dtype)
    moved = (answer + off).astype(dtype)
    assert one(answer, moved, Tolerance().for_source("int8", 3)).passed is passes
    assert one(answer, moved, Tolerance.structure()).passed


def test_a_source_that_computes_in_half_is_held_to_what_half_can_keep() -> None:
    assert Tolerance().for_source("float32") == Tolerance()
    assert Tolerance().for_source("float16") == Tolerance.named("float16")
    assert Tolerance.uniform(0.5).for_source("bfloat16").absolute == 0.5
    assert Tolerance().for_source("int8") == Tolerance(integer=1)
    assert Tolerance().for_source("int8", 3) == Tolerance(integer=3)
    y = F32([[1.0, 0.25]])
    assert not one(y, y + F32(1e-3)).passed
    assert one(y, y + F32(1e-3), Tolerance().for_source("float16")).passed


def test_complex_outputs() -> None:
    z = np.array([1 + 2j, 3 - 1j], np.complex64)
    assert one(z, z * (1 + 1e-7)).passed
    assert not one(z, z.conj()).passed
    assert not one(z, np.array([1 + 2j, np.nan], np.complex64)).passed


def test_argmax_agreement_tolerates_ties_alone() -> None:
    scores = F32([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7]])
    tie = scores + F32([[-2e-6, 2e-6, 0], [0, 0, 0]])
    assert one(scores, tie).argmax_agreement == 1.0 and one(scores, tie).passed
    wrong = F32([[0.5, 0.5, 0.0], [0.1, 0.71, 0.7]])
    found = one(scores, wrong, Tolerance(1e-9, 0.0, cosine=-1))
    assert found.argmax_agreement == 0.5 and not found.passed


def test_worst_of_all_checks_is_reported() -> None:
    a = [np.ones(3, F32)]
    off = [F32([1, 1, 1.5])]
    found = compare([a, a, a], [a, off, off], None, ["p", "q", "r"])
    assert found.checked == 3 and found.max_abs_error == 0.5 and "check 'q'" in found.reason
    assert found.reason.endswith("(and 1 more)")


def test_nearby_inputs_are_one_rounding_away() -> None:
    values = F32([0.0, 3.0, -2.0, 0.3, -1.7, 1e-30, 1e6 + 0.5])
    (counts, moved) = nearby_inputs((np.arange(4), values), np.random.default_rng(0))
    assert counts.tolist() == [0, 1, 2, 3]
    assert moved.dtype == F32 and moved[:3].tolist() == values[:3].tolist()
    off = np.abs(moved[3:] - values[3:]) / np.spacing(np.abs(values[3:]))
    assert ((off >= 1) & (off <= 2)).all()


@pytest.mark.parametrize(
    ("precision", "rounding", "of_largest"),
    [("float16", 2**-11, False), ("bfloat16", 2**-8, False), ("int11", 1 / 2046, True), ("int8", 1 / 254, True)],
)
def test_nearby_inputs_of_a_precision_are_one_of_its_roundings_away(precision, rounding, of_largest) -> None:
    values = F32([0.0, 3.0, 0.3, -1.7, 1e-3, 50.5, np.inf, np.nan])
    (moved,) = nearby_inputs((values,), np.random.default_rng(0), precision)
    assert moved.dtype == F32 and moved[:2].tolist() == [0.0, 3.0] and np.array_equal(moved[6:], values[6:], True)
    size = 50.5 if of_largest else np.abs(values[2:6])
    assert np.abs(moved[2:6] - values[2:6]) == pytest.approx(size * rounding, rel=1e-2)


def test_no_rounding_is_finer_than_that_of_the_array() -> None:
    values = np.float16([0.3, -1.7])
    (moved,) = nearby_inputs((values,), np.random.default_rng(0), "float16")
    assert (np.abs(moved - values) >= np.spacing(np.abs(values))).all()


def _deep(x, order):
    """tanh of a deep network in float32, its sums in the given order: saturated, so that its size hides its terms."""
    rng = np.random.default_rng(1)
    for _ in range(5):
        weight = (rng.standard_normal((256, 256)) / 16).astype(F32)
        x = sum((x[:, part] @ weight[part] for part in np.array_split(np.arange(256), order)), F32(0))
    return np.tanh(x)


def test_what_rounding_alone_changes_is_not_held_against_an_answer() -> None:
    x = (np.random.default_rng(0).standard_normal((8, 256)) * 300).astype(F32)
    (moved,) = nearby_inputs((x,), np.random.default_rng(0))
    expected, received, nearby = [[_deep(x, 1)]], [[_deep(x, 7)]], [[_deep(moved, 1)]]
    assert "allowed" in compare(expected, received).reason
    assert compare(expected, received, nearby=nearby).passed
    strange = [[received[0][0] + F32(3e-3)]]
    assert "allowed" in compare(expected, strange, nearby=nearby).reason


@pytest.mark.parametrize(("error", "passes"), [(9e-7, True), (1.1e-6, False)])
def test_a_model_that_jumps_widens_the_tolerance_ten_times_at_most(error: float, passes: bool) -> None:
    expected, received, nearby = np.zeros(8, F32), np.zeros(8, F32), np.ones(8, F32)
    received[0] = error  # a size of 0.01 at least times 1e-5, ten times
    assert compare([[expected]], [[received]], nearby=[[nearby]]).passed is passes


def test_nearby_answers_that_are_not_finite_widen_nothing() -> None:
    answer = np.ones(3, F32)
    for nearby in (np.full(3, np.nan, F32), np.full(3, np.inf, F32), np.ones((1, 3), F32)):
        assert not compare([[answer]], [[answer + F32(1e-3)]], nearby=[[nearby]]).passed
        assert compare([[answer]], [[answer]], nearby=[[nearby]]).passed


def test_edges_cover_the_corners_and_fit_their_specs() -> None:
    specs = [
        TensorSpec("x", "float32", (2, 5)),
        TensorSpec("ids", "int64", (2, 3)),
        TensorSpec("q", "int8", (2, 3)),
        TensorSpec("mask", "bool", (2, 1)),
        TensorSpec("h", "bfloat16", (2,)),
        TensorSpec("u", "uint64", ()),
    ]
    found = edge_inputs(specs, np.random.default_rng(0), {"ids": (0, 9)})
    assert {"zeros", "ones", "large", "tiny"} <= set(found) and len(found) >= 8
    for arrays in found.values():
        for spec, array in zip(specs, arrays, strict=True):
            assert (array.shape, array.dtype.name) == (spec.shape, spec.dtype)
        assert arrays[1].min() >= 0 and arrays[1].max() <= 9
    assert not found["zeros"][0].any() and (found["ones"][0] == 1).all()
    assert found["large"][0].std() > 20 and 0 < np.abs(found["tiny"][0]).max() < 1e-4
    assert (found["large"][1] == 9).all()
    again = edge_inputs(specs, np.random.default_rng(0), {"ids": (0, 9)})
    assert all(np.array_equal(a, b) for k in found for a, b in zip(found[k], again[k], strict=True))


def test_edges_of_free_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="free dimensions"):
        edge_inputs([TensorSpec("x", "float32", ("batch", 2))], np.random.default_rng(0))


def test_metrics_on_known_scores() -> None:
    scores = np.eye(6)[[0, 1, 2, 3]] + 0.01 * np.arange(6)
    labels = np.array([0, 1, 2, 0])
    assert METRICS["accuracy"].score([scores], labels) == 0.75
    assert METRICS["accuracy"].score([scores], np.eye(6)[labels]) == 0.75
    assert METRICS["top5"].score([scores], labels) == 0.75  # five of six: all but the least
    assert METRICS["accuracy"].score([np.array([[0.2], [0.9]])], np.array([0, 1])) == 1.0
    assert METRICS["mse"].score([np.array([[1.0], [3.0]])], np.array([0.0, 0.0])) == 5.0
    assert METRICS["mae"].score([np.array([[1.0], [-3.0]])], np.array([0.0, 0.0])) == 2.0
    with pytest.raises(InputError, match="expected 4 labels, received 3"):
        METRICS["accuracy"].score([scores], labels[:3])


def test_drop_points_to_the_worse() -> None:
    assert METRICS["accuracy"].drop(0.9, 0.88) == pytest.approx(0.02)
    assert METRICS["mse"].drop(1.0, 1.5) == 0.5
    ours = metric(lambda outputs, labels: 1.0)
    assert isinstance(ours, Metric) and ours.higher_is_better
    with pytest.raises(SettingsError, match="unknown metric 'f1'"):
        metric("f1")


def test_accuracy_bound_decides_by_the_drop() -> None:
    base = one(F32([1, 2]), F32([1, 2]), Tolerance.structure())
    good = accuracy_bound(base, METRICS["accuracy"], (0.91, 0.908), 0.005)
    bad = accuracy_bound(base, METRICS["accuracy"], (0.91, 0.90), 0.005)
    assert good.passed and good.metric["drop"] == pytest.approx(0.002)
    assert not bad.passed and "drop of at most 0.005" in bad.reason
    assert not accuracy_bound(base, METRICS["mse"], (0.1, float("nan")), 1e9).passed


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_tolerances_are_positive_numbers(value: float) -> None:
    with pytest.raises(SettingsError, match="positive number"):
        Tolerance.uniform(value)
    with pytest.raises(SettingsError, match="unknown tolerance"):
        Tolerance.named("int3")
