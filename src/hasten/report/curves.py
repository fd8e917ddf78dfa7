"""Raw samples enter; curves small enough to draw leave, with the spikes still in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Band", "ecdf", "over_time"]

Samples = NDArray[np.float64]


@dataclass(frozen=True)
class Band:
    """A run in equal slices of calls.

    Shapes:  every field has one number a slice
    Units:   call: number of the slice's first call; low, middle, high: nanoseconds
    """

    call: tuple[int, ...]
    low: tuple[float, ...]
    middle: tuple[float, ...]
    high: tuple[float, ...]


def ecdf(samples: Samples, points: int = 160) -> tuple[tuple[float, float], ...]:
    """(latency, share of calls no slower) from the fastest call to the slowest, denser in the tail.

    Every returned pair is exact: the latency is a sample, the share its rank. Short runs are returned whole.
    Shapes:  samples (N,) nanoseconds · returns up to ``points`` pairs
    """
    ordered = np.sort(samples[np.isfinite(samples)])
    count = len(ordered)
    if count == 0:
        return ()
    ranks = np.arange(1, count + 1)
    if count > points:
        # Half of the points evenly over the ranks, half evenly over the magnitudes of the tail (1, 2, 4 … from its end)
        body = np.linspace(1, count, points // 2)
        tail = count + 1 - np.geomspace(1, count, points - points // 2)
        ranks = np.unique(np.rint(np.concatenate([body, tail])).astype(int))
    return tuple((_short(ordered[rank - 1]), float(rank / count)) for rank in ranks)


def over_time(samples: Samples, slices: int = 240) -> Band:
    """The run in at most ``slices`` slices: fastest, median and slowest call of each, so that no spike is lost.

    Shapes:  samples (N,) nanoseconds, in the order they were taken
    """
    finite = samples[np.isfinite(samples)]
    parts = np.array_split(finite, min(slices, len(finite))) if len(finite) else []
    starts = np.cumsum([0, *map(len, parts)])[:-1]
    return Band(
        tuple(int(start) for start in starts),
        tuple(_short(part.min()) for part in parts),
        tuple(_short(np.median(part)) for part in parts),
        tuple(_short(part.max()) for part in parts),
    )


def _short(value: np.floating | float) -> float:
    """Five significant digits: more cannot be seen, and would double the page."""
    return float(f"{value:.5g}")
