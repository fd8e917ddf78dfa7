"""Calls enter; nanoseconds of every single call leave, taken in short blocks that take turns.

A drifting machine hurts all contestants alike: each round holds one block of each, in an order drawn anew.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hasten.measure.clock import gc_paused

__all__ = ["Samples", "take_turns"]

Samples = NDArray[np.float64]
_ROUNDS = 24
_WARM_S = 0.15
# So many calls of the runner-up are waited for, in up to so many times the seconds asked for: what p99 needs.
_CALLS, _STRETCH = 700, 5
# A call slower than this is there for context: it is timed in two rounds, so that it does not eat the others' time.
_SLOW_S = 0.2


def take_turns(calls: Mapping[str, Callable[[], Any]], seconds: float, seed: int) -> dict[str, list[Samples]]:
    """For each contestant the samples of its rounds, in the order of time; an empty call's cost is taken off.

    Units:   seconds: of measuring, all contestants together, more where calls are slow; samples: nanoseconds
    """
    warm = {label: _warm(call) for label, call in calls.items()}
    slow = {label for label, once in warm.items() if once > _SLOW_S}
    overhead, rng = _empty_call_ns(), np.random.default_rng(seed)
    runner_up = sorted(warm.values())[min(1, len(warm) - 1)]
    each = max(1, len(calls) - len(slow))
    block_ns = int(max(seconds / each, min(_CALLS * runner_up, seconds * _STRETCH / each)) * 1e9 / _ROUNDS)
    found: dict[str, list[Samples]] = {label: [] for label in calls}
    with gc_paused():
        for turn in range(_ROUNDS):
            for k in rng.permutation(len(calls)):
                label = list(calls)[int(k)]
                if label not in slow or turn < 2:
                    found[label].append(np.maximum(_block(calls[label], block_ns) - overhead, 1.0))
    return found


def _block(call: Callable[[], Any], block_ns: int) -> Samples:
    clock, durations = time.perf_counter_ns, array("q")
    end = clock() + block_ns
    while True:
        start = clock()
        call()
        stop = clock()
        durations.append(stop - start)
        if stop > end:
            return np.array(durations, np.float64)


def _warm(call: Callable[[], Any]) -> float:
    """Seconds of the last of the calls that warm it up."""
    end = time.perf_counter() + _WARM_S
    while True:
        start = time.perf_counter()
        call()
        stop = time.perf_counter()
        if stop > end:
            return stop - start


def _empty_call_ns() -> float:
    """The least that timing an empty call has cost: taking off more could make a call look faster than it is."""
    return float(_block(lambda: None, 20_000_000).min())
