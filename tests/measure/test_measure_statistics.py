from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.measure import statistics as s
from hasten.records import Interval

# distribution → (draw n, true percentile); logs of the normal's percentiles are exact to 1e-6
Z = {50.0: 0.0, 90.0: 1.2815516, 99.0: 2.3263479, 99.9: 3.0902323}
KNOWN = {
    "exponential": (lambda rng, n: rng.exponential(10.0, n), lambda q: -10.0 * np.log1p(-q / 100)),
    "normal": (lambda rng, n: rng.normal(100.0, 5.0, n), lambda q: 100.0 + 5.0 * Z[q]),
    "lognormal": (lambda rng, n: rng.lognormal(2.0, 0.5, n), lambda q: np.exp(2.0 + 0.5 * Z[q])),
}


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("q", [50.0, 90.0, 99.0, 99.9])
def test_percentiles_of_known_distributions(name: str, q: float) -> None:
    draw, truth = KNOWN[name]
    found = s.percentile(draw(np.random.default_rng(1), 200_000), q)
    assert found == pytest.approx(truth(q), rel=0.03)


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize(("q", "n"), [(50.0, 400), (99.0, 3000), (50.0, 20_000)])
def test_intervals_cover_the_truth_as_often_as_they_say(name: str, q: float, n: int) -> None:
    draw, truth = KNOWN[name]
    rng = np.random.default_rng(7)
    runs = 150
    found = [s.interval(draw(rng, n), q) for _ in range(runs)]
    covered = np.mean([f.low <= truth(q) <= f.high for f in found])
    # 95 % nominal; 150 runs have a standard error of 1.8 %, and a bootstrap of 64 blocks falls a little short
    assert 0.88 <= covered <= 0.995


def test_intervals_widen_where_neighbours_are_alike() -> None:
    rng = np.random.default_rng(3)
    slow = np.repeat(rng.normal(0, 1, 40), 500)  # forty slow spells of 500 calls
    samples = 100 + slow + rng.normal(0, 0.1, slow.size)
    shuffled = rng.permutation(samples)
    wide, narrow = s.interval(samples, 50.0), s.interval(shuffled, 50.0)
    assert wide.high - wide.low > 4 * (narrow.high - narrow.low)


def test_too_few_samples_give_no_percentile() -> None:
    for q, least in s.LEAST_SAMPLES.items():
        values = np.arange(least, dtype=np.float64)
        assert s.percentile(values, q) is not None
        assert least == 1 or s.percentile(values[:-1], q) is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(1e-3, 1e12), min_size=1, max_size=300), st.sampled_from([50.0, 90.0, 99.0]))
def test_interval_holds_its_value_and_stays_in_range(values: list[float], q: float) -> None:
    samples = np.array(values)
    found = s.interval(samples, q)
    assert found.low <= found.value <= found.high
    assert samples.min() * (1 - 1e-6) <= found.low and found.high <= samples.max() * (1 + 1e-6)
    assert found == s.interval(samples, q)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(1.0, 1e9), min_size=2, max_size=200), st.floats(0.1, 100.0))
def test_interval_scales_with_the_unit(values: list[float], scale: float) -> None:
    samples = np.array(values)
    a, b = s.interval(samples, 50.0), s.interval(samples * scale, 50.0)
    assert b.value == pytest.approx(a.value * scale)
    assert b.low == pytest.approx(a.low * scale, rel=1e-6) and b.high == pytest.approx(a.high * scale, rel=1e-6)


def test_drift_is_found_and_absent() -> None:
    rng = np.random.default_rng(0)
    steady = rng.normal(100, 2, 5000)
    rising = steady * np.linspace(1.0, 1.25, 5000)  # medians of the outer fifths: 1.025 and 1.225
    assert abs(s.drift(steady)) < 0.005
    assert s.drift(rising) == pytest.approx(1.225 / 1.025 - 1, abs=0.01)
    assert s.drift(np.array([1.0, 5.0])) == 0.0


def test_ratio_of_known_distributions() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.lognormal(2.0, 0.2, 20_000) * 1.5, rng.lognormal(2.0, 0.2, 20_000)
    for q in (50.0, 99.0):
        found = s.ratio(a, b, q)
        assert found.low <= 1.5 <= found.high and found.high - found.low < 0.15
        assert s.beyond_noise(found) and not s.beyond_noise(s.ratio(b, a, q))


def test_equal_distributions_tie_nearly_always() -> None:
    rng = np.random.default_rng(6)
    wins = [
        s.beyond_noise(s.ratio(rng.exponential(1.0, 3000), rng.exponential(1.0, 3000), 50.0), margin=0.0)
        for _ in range(100)
    ]
    assert np.mean(wins) < 0.08  # 2.5 % is nominal for one side


def test_pairing_cancels_a_machine_that_changes_speed() -> None:
    rng = np.random.default_rng(2)
    speed = rng.lognormal(0, 0.5, 40)
    a = [1.1 * v * rng.normal(100, 1, 200) for v in speed]
    b = [v * rng.normal(100, 1, 200) for v in speed]
    paired, apart = s.paired_ratio(a, b, 50.0), s.ratio(np.concatenate(a), np.concatenate(b), 50.0)
    assert s.beyond_noise(paired) and paired.high < 1.2
    assert paired.low <= 1.1 <= paired.high
    assert not s.beyond_noise(apart)


def test_a_machine_of_two_speeds_does_not_hide_who_is_faster() -> None:
    """In about half of the rounds a second core helps; the median of all samples is then that of either half."""
    rng = np.random.default_rng(3)
    a = [rng.normal(100, 1, 200) for _ in range(64)]
    b = [rng.normal(60 if i % 2 else 99, 1, 200) for i in range(64)]
    typical, pooled = s.typical_ratio(a, b), s.paired_ratio(a, b, 50.0)
    assert s.beyond_noise(typical) and typical.low <= np.sqrt(100 / 60 * 100 / 99) <= typical.high
    assert pooled.high / pooled.low > 1.5 > typical.high / typical.low
    assert not s.beyond_noise(s.typical_ratio(a, a[::-1]))


@pytest.mark.parametrize("ratio", [lambda a, b: s.paired_ratio(a, b, 50.0), s.typical_ratio])
def test_pairing_refuses_unlike_rounds(ratio) -> None:
    with pytest.raises(ValueError, match="received 1 and 2"):
        ratio([np.ones(3)], [np.ones(3)] * 2)


def test_beyond_noise_wants_more_than_what_equal_processes_differ_by() -> None:
    assert not s.beyond_noise(Interval(1.004, 1.003, 1.005))
    assert s.beyond_noise(Interval(1.04, 1.03, 1.05))
    assert not s.beyond_noise(Interval(1.3, 0.9, 1.9))
