from __future__ import annotations

import gc
import subprocess
import sys
import time

import numpy as np
import pytest

from hasten.measure import clock, memory, sampling
from hasten.measure.sampling import Samples, Sampling
from hasten.measure.session import Start, measure, summarise
from hasten.records import Measurement, to_json

X = [np.zeros(3, np.float32)]


class Ticking:
    """A clock that goes forward by a fixed step at each reading, so that durations are known exactly."""

    def __init__(self, step: int) -> None:
        self.now, self.step = 0, step

    def __call__(self) -> int:
        self.now += self.step
        return self.now


def test_each_call_is_timed_and_in_order(monkeypatch) -> None:
    ticking = Ticking(7)
    monkeypatch.setattr(clock.time, "perf_counter_ns", ticking)
    costs = iter([100, 200, 300, 400])

    def call(x) -> None:
        ticking.now += next(costs)

    starts, durations = clock.time_calls(call, X, 4)
    assert durations.tolist() == [107, 207, 307, 407]
    assert (np.diff(starts) > 0).all()
    assert clock.timer_overhead_ns(11) == 7.0


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_input_is_passed(count: int) -> None:
    seen = []
    arrays = [np.full(1, k) for k in range(count)]
    clock.time_calls(lambda *xs: seen.append([int(x[0]) for x in xs]), arrays, 2)
    clock.loop_ns(lambda *xs: seen.append([int(x[0]) for x in xs]), arrays, 1)
    assert seen == [list(range(count))] * 3


def test_garbage_collection_is_paused_and_restored() -> None:
    seen = []
    sampling.sample(lambda x: seen.append(gc.isenabled()), X, Sampling(0.0, 0.0, 0.0))
    assert not any(seen) and gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        sampling.sample(lambda x: 1 / 0, X)
    assert gc.isenabled()
    gc.disable()
    try:
        with clock.gc_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_slow_calls_get_three_samples_and_no_more() -> None:
    found = sampling.sample(lambda x: time.sleep(0.03), X, Sampling(seconds_s=0.01, longest_s=0.02, warm_up_s=0.0))
    assert len(found.latency_ns) == 3 and not found.steady
    assert found.latency_ns.min() > 25e6


def test_fast_calls_stop_at_the_cap() -> None:
    found = sampling.sample(lambda x: None, X, Sampling(seconds_s=5.0, warm_up_s=0.02, most=5000))
    assert len(found.latency_ns) == 5000
    assert found.latency_ns.min() >= 1.0 and found.timer_ns > 0


def test_sampling_goes_on_for_p99_where_that_is_within_reach() -> None:
    near = Sampling(seconds_s=0.05, longest_s=5.0, warm_up_s=0.0, wanted=100)
    assert len(sampling.sample(lambda x: time.sleep(0.001), X, near).latency_ns) >= 100
    far = Sampling(seconds_s=0.05, longest_s=0.1, warm_up_s=0.0, wanted=10_000)
    assert len(sampling.sample(lambda x: time.sleep(0.001), X, far).latency_ns) < 90


def test_warm_up_lasts_until_the_medians_settle(monkeypatch) -> None:
    ticking = Ticking(1)
    monkeypatch.setattr(sampling.time, "perf_counter", lambda: ticking.now / 1e9)
    monkeypatch.setattr(clock.time, "perf_counter_ns", ticking)
    done = 0

    def call(x) -> None:
        nonlocal done
        done += 1
        ticking.now += 10_000 + int(90_000 * 0.5 ** (done / 400))

    usual, steady = sampling.warm_up(call, X, 10.0)
    assert steady and usual < 11_000 and done > 1500


def test_looped_median_is_for_short_calls_alone() -> None:
    assert sampling.looped_median_ns(lambda x: None, X, 25_000.0) is None
    found = sampling.looped_median_ns(lambda x: None, X, 50.0, loops=3)
    assert found is not None and 0 <= found < 20_000


def test_idle_latency_counts_the_call_and_not_the_sleep() -> None:
    found = sampling.after_idle_ns(lambda x: time.sleep(0.002), X, 0.05, repeats=2)
    assert 1.9e6 < found < 40e6


def test_measurement_is_whole_and_survives_json() -> None:
    found, raw = measure(lambda x: x + 1, X, Start(1e6, 2e6, batch=4), Sampling(0.05, 0.1, 0.02))
    assert found.samples == len(raw) >= 662
    assert found.p50_ns.low <= found.p50_ns.value <= found.p50_ns.high
    assert found.p99_ns is not None and found.p99_ns.value >= found.p50_ns.value
    assert found.max_ns == raw.max() and found.first_ns == 1e6 and found.cold_start_ns == 2e6
    assert found.rate_per_s == pytest.approx(4e9 / found.mean_ns)
    assert found.idle_10ms_ns and found.idle_100ms_ns and found.looped_ns and found.resident_bytes and found.peak_bytes
    assert Measurement.from_json(to_json(found)) == found


def test_percentiles_are_none_where_samples_are_too_few() -> None:
    few = Samples(np.array([3.0, 1.0, 2.0]), np.array([0, 10, 20]), 1.0, True)
    found = summarise(few, Start(1.0))
    assert (found.p90_ns, found.p99_ns, found.p999_ns) == (None, None, None)
    assert found.p50_ns.value == 2.0 and found.p50_ns.low >= 1.0 and found.p50_ns.high <= 3.0


def test_memory_is_of_this_process() -> None:
    code = (
        "import numpy as np; from hasten.measure import memory as m; a = m.resident_bytes();"
        "x = np.ones(50_000_000, np.uint8); b = m.resident_bytes(); del x;"
        "print(b - a, m.peak_bytes() - b, m.peak_bytes())"
    )
    ballast = np.ones(300_000_000, np.uint8)  # the child must not count what its parent holds
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    grown, above, peak = map(int, done.stdout.split())
    assert 49e6 < grown < 60e6 and -1e6 < above < 10e6
    assert peak < 250e6 < ballast.nbytes
    assert (memory.peak_bytes() or 0) >= memory.resident_bytes() - (1 << 20)
