import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hasten.report.curves import ecdf, over_time

SAMPLES = arrays(np.float64, st.integers(1, 900), elements=st.floats(1, 1e9))


@given(SAMPLES)
@settings(max_examples=60)
def test_ecdf_points_are_exact_and_reach_from_fastest_to_slowest(samples):
    points = ecdf(samples, 50)
    assert len(points) <= max(50, min(len(samples), 50))
    assert points[0][0] == float(f"{samples.min():.5g}")
    assert points[-1] == (float(f"{samples.max():.5g}"), 1.0)
    ordered = np.sort(samples)
    for latency, share in points:
        rank = round(share * len(samples))
        assert latency == float(f"{ordered[rank - 1]:.5g}")
    assert all(a[0] <= b[0] and a[1] < b[1] for a, b in itertools.pairwise(points))


def test_ecdf_keeps_every_one_of_the_slowest_calls():
    samples = np.concatenate([np.full(100_000, 10.0), [1e3, 2e3, 3e3, 4e3, 5e3]])
    assert {1e3, 2e3, 3e3, 4e3, 5e3} <= {latency for latency, _ in ecdf(samples)}
    assert len(ecdf(samples)) <= 160


@given(SAMPLES, st.integers(1, 300))
@settings(max_examples=60)
def test_no_spike_is_lost_over_time(samples, slices):
    band = over_time(samples, slices)
    assert max(band.high) == float(f"{samples.max():.5g}")
    assert min(band.low) == float(f"{samples.min():.5g}")
    assert len(band.call) == min(slices, len(samples))
    assert band.call[0] == 0
    assert all(low <= middle <= high for low, middle, high in zip(band.low, band.middle, band.high, strict=True))


def test_a_spike_stays_where_it_was():
    samples = np.full(10_000, 5.0)
    samples[7_777] = 900.0
    band = over_time(samples, 100)
    assert band.call[band.high.index(900.0)] == 7_700
    assert band.high.count(900.0) == 1


def test_nothing_measured_draws_nothing():
    assert ecdf(np.array([])) == ()
    assert over_time(np.array([])).call == ()
    assert ecdf(np.array([np.nan, 3.0, np.inf])) == ((3.0, 1.0),)
