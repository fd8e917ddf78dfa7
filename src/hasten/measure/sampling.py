"""Decides how long to warm up and how many calls to time, from a call of 100 ns to one of seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hasten.measure.clock import gc_paused, loop_ns, time_calls, timer_overhead_ns
from hasten.types import Array

__all__ = ["Samples", "Sampling", "after_idle_ns", "looped_median_ns", "sample", "warm_up"]

Call = Callable[..., Any]

_BLOCK_NS = 10e6
_LOOP_BELOW_NS = 20_000


@dataclass(frozen=True)
class Sampling:
    """How long to sample.

    Units:   *_s: seconds of wall time
    """

    seconds_s: float = 0.8
    """Calls are timed for so long, and for up to ``longest_s`` where that brings ``wanted`` samples."""
    longest_s: float = 2.0
    warm_up_s: float = 0.3
    wanted: int = 662
    """Enough for p99."""
    least: int = 3
    """Timed however slow a call is."""
    most: int = 250_000
    gaps: int = 7
    """Sleeps of 10 ms after which one call is timed; of 100 ms there are half as many."""


@dataclass(frozen=True)
class Samples:
    """Timed calls in order, the clock's cost subtracted.

    Units:   nanoseconds
    """

    latency_ns: NDArray[np.float64]
    starts_ns: NDArray[np.int64]
    timer_ns: float
    steady: bool
    """False where warming up reached its time cap before the medians settled."""


def sample(call: Call, arrays: Sequence[Array], sampling: Sampling | None = None) -> Samples:
    """Warms up until steady, then times call by call; garbage is not collected meanwhile."""
    limits = sampling or Sampling()
    with gc_paused():
        timer_ns = timer_overhead_ns()
        usual_ns, steady = warm_up(call, arrays, limits.warm_up_s)
        starts, durations = _time_blocks(call, arrays, limits, usual_ns)
    return Samples(np.maximum(durations - timer_ns, 1.0), starts, timer_ns, steady)


def _time_blocks(
    call: Call, arrays: Sequence[Array], limits: Sampling, usual_ns: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    block = int(min(max(_BLOCK_NS / max(usual_ns, 1.0), 1), limits.most))
    begin, count = time.perf_counter(), 0
    starts, durations = [], []
    while count < limits.most:
        spent = time.perf_counter() - begin
        if (
            count >= limits.least
            and spent >= limits.seconds_s
            and (count >= limits.wanted or spent >= limits.longest_s)
        ):
            break
        if count >= limits.least and spent >= limits.seconds_s and not _within_reach(count, spent, limits):
            break
        a, b = time_calls(call, arrays, min(block, limits.most - count))
        starts.append(a)
        durations.append(b)
        count += len(a)
    return np.concatenate(starts), np.concatenate(durations)


def _within_reach(count: int, spent: float, limits: Sampling) -> bool:
    """True when going on to ``longest_s`` would bring the samples wanted; else the extra time buys nothing."""
    return count * limits.longest_s / spent >= limits.wanted


def warm_up(call: Call, arrays: Sequence[Array], cap_s: float) -> tuple[float, bool]:
    """Nanoseconds of a usual call, and whether it settled: three windows' medians in a row within 5 %.

    A window is ten calls or a twentieth of the cap, whichever is more; one call at least is made.
    """
    begin, medians = time.perf_counter(), list[float]()
    _, first = time_calls(call, arrays, 1)
    usual = float(first[0])
    while time.perf_counter() - begin + usual / 1e9 < cap_s:
        count = int(min(max(cap_s * 1e9 / 20 / max(usual, 1.0), 10), 20_000))
        count = max(1, min(count, int((cap_s - (time.perf_counter() - begin)) * 1e9 / max(usual, 1.0))))
        usual = float(np.median(time_calls(call, arrays, count)[1]))
        medians.append(usual)
        last = medians[-3:]
        if len(last) == 3 and max(last) <= 1.05 * min(last):
            return usual, True
    return usual, False


def looped_median_ns(call: Call, arrays: Sequence[Array], usual_ns: float, loops: int = 21) -> float | None:
    """The median of loops without a clock inside, for calls under 20 µs; None for slower ones."""
    if usual_ns >= _LOOP_BELOW_NS:
        return None
    count = int(min(max(2e6 / max(usual_ns, 1.0), 50), 20_000))
    with gc_paused():
        return float(np.median([loop_ns(call, arrays, count) for _ in range(loops)]))


def after_idle_ns(call: Call, arrays: Sequence[Array], gap_s: float, repeats: int) -> float:
    """The median of calls that each follow a sleep: cores and caches have turned to something else meanwhile."""
    with gc_paused():
        timer_ns, found = timer_overhead_ns(501), list[float]()
        for _ in range(repeats):
            time.sleep(gap_s)
            found.append(float(time_calls(call, arrays, 1)[1][0]))
    return max(1.0, float(np.median(found)) - timer_ns)
