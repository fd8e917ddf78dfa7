from __future__ import annotations

import numpy as np
import pytest

from hasten.measure.jitter import jitter, period_ns


def run(rng: np.random.Generator, calls: int, usual_ns: float = 10_000.0) -> tuple[np.ndarray, np.ndarray]:
    latency = rng.normal(usual_ns, 0.02 * usual_ns, calls)
    return latency, np.concatenate([[0], np.cumsum(latency)[:-1]]).astype(np.int64)


@pytest.mark.parametrize("period_ms", [1.0, 4.0, 10.0, 47.0])
@pytest.mark.parametrize("missing", [0.0, 0.25])
def test_planted_period_is_found(period_ms: float, missing: float) -> None:
    rng = np.random.default_rng(int(period_ms))
    latency, starts = run(rng, 100_000)
    beats = np.arange(period_ms * 1e6, starts[-1], period_ms * 1e6)
    beats = beats[rng.random(len(beats)) >= missing]
    beats = beats + rng.normal(0, 0.01 * period_ms * 1e6, len(beats))
    latency[np.searchsorted(starts, beats[(beats > 0) & (beats < starts[-1])])] *= 8
    found = jitter(latency, starts)
    assert found.period_ns == pytest.approx(period_ms * 1e6, rel=0.02)
    assert found.spike_share == pytest.approx(len(beats) / len(latency), rel=0.1)


def test_random_spikes_have_no_period() -> None:
    alarms = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        latency, starts = run(rng, 20_000)
        latency[rng.choice(len(latency), int(rng.integers(8, 400)), replace=False)] *= 6
        alarms += jitter(latency, starts).period_ns is not None
    assert alarms <= 2  # one in a thousand is nominal


def test_bursts_of_spikes_have_no_period() -> None:
    alarms = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        latency, starts = run(rng, 20_000)
        for begin in rng.choice(19_900, 40, replace=False):
            latency[begin : begin + int(rng.integers(1, 6))] *= 5
        alarms += jitter(latency, starts).period_ns is not None
    assert alarms <= 2


def test_steady_calls_have_no_spikes() -> None:
    latency, starts = run(np.random.default_rng(0), 50_000)
    assert jitter(latency, starts).spike_share == 0.0
    constant = np.full(100, 50.0)
    constant[3] = 60.0  # the clock's own step
    assert jitter(constant, np.arange(100) * 50).spike_share == 0.0


def test_few_events_say_nothing() -> None:
    assert period_ns(np.arange(5) * 1e6, 5e6) is None
    assert period_ns(np.array([]), 1e9) is None
    assert jitter(np.array([5.0]), np.array([0])).period_ns is None
