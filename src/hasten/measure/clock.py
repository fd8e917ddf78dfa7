"""Times single calls with ``perf_counter_ns``, the clock's own cost calibrated."""

from __future__ import annotations

import gc
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hasten.types import Array

__all__ = ["gc_paused", "loop_ns", "time_calls", "timer_overhead_ns"]

Int = NDArray[np.int64]


@contextmanager
def gc_paused() -> Iterator[None]:
    """Garbage collected now and not again inside, then the collector as it was."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def timer_overhead_ns(pairs: int = 4001) -> float:
    """Nanoseconds between two readings of the clock with nothing between: what each sample holds too much.

    The median, not the least: subtracting the least would leave the clock's usual cost in fast calls, the most would
    make them look faster than they are.
    """
    clock = time.perf_counter_ns
    found = array("q", bytes(8 * pairs))
    for i in range(pairs):
        start = clock()
        stop = clock()
        found[i] = stop - start
    return float(np.median(np.frombuffer(found, np.int64)))


def time_calls(call: Callable[..., Any], arrays: Sequence[Array], count: int) -> tuple[Int, Int]:
    """Start times and durations of ``count`` calls in a row, as the clock read them.

    The answer is dropped inside the timed part: a caller, too, pays for freeing it. One input is passed plainly: a
    star call costs as much as a fast model's whole overhead.

    Units:   nanoseconds
    """
    clock = time.perf_counter_ns
    starts, stops = array("q", bytes(8 * count)), array("q", bytes(8 * count))
    if len(arrays) == 1:
        x = arrays[0]
        for i in range(count):
            start = clock()
            call(x)
            stop = clock()
            starts[i], stops[i] = start, stop
    else:
        for i in range(count):
            start = clock()
            call(*arrays)
            stop = clock()
            starts[i], stops[i] = start, stop
    first = np.frombuffer(starts, np.int64)
    return first, np.frombuffer(stops, np.int64) - first


def loop_ns(call: Callable[..., Any], arrays: Sequence[Array], count: int) -> float:
    """Nanoseconds per call over ``count`` calls with no clock between, an empty loop's cost subtracted."""
    clock = time.perf_counter_ns
    repeat = range(count)
    if len(arrays) == 1:
        x = arrays[0]
        start = clock()
        for _ in repeat:
            call(x)
        stop = clock()
    else:
        start = clock()
        for _ in repeat:
            call(*arrays)
        stop = clock()
    empty = clock()
    for _ in repeat:
        pass
    return max(0.0, (stop - start) - (clock() - empty)) / count
