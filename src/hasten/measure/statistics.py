"""Samples enter; percentiles, intervals, drift and ratios leave, and None where there are too few samples to say.

Intervals are percentile-bootstrap intervals over contiguous blocks of samples rather than over single ones:
neighbouring calls share a clock rate, a cache and an interruption, and an interval that took them for independent would
be several times too narrow.

Source:  block bootstrap: Künsch 1989, The Annals of Statistics 17(3); sample counts: MLPerf LoadGen, early stopping
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hasten.records import Interval

__all__ = [
    "LEAST_SAMPLES",
    "beyond_noise",
    "drift",
    "enough",
    "interval",
    "paired_ratio",
    "percentile",
    "ratio",
    "typical_ratio",
]

Float = NDArray[np.float64]

# Percentile → samples below which it is not reported: with fewer, too few lie above it for its error to be bounded.
LEAST_SAMPLES = {50.0: 1, 90.0: 64, 99.0: 662, 99.9: 6636}

# Two processes of one candidate differ by up to this without any change: memory layout, page placement.
BETWEEN_PROCESSES = 0.01
# Their tails differ by more: what else the machine does reaches each in other moments.
BETWEEN_TAILS = 0.1

_BLOCKS = 64
_RESAMPLES = 600
_GRID = 4096


def enough(count: int, q: float) -> bool:
    """True when percentile ``q`` of so many samples may be reported."""
    return count >= LEAST_SAMPLES[q]


def percentile(samples: Float, q: float) -> float | None:
    """Percentile ``q`` (50, 90, 99 or 99.9), None where there are too few samples for it."""
    return float(np.percentile(samples, q)) if enough(len(samples), q) else None


def interval(samples: Float, q: float, confidence: float = 0.95) -> Interval:
    """Percentile ``q`` with its bootstrap interval; the same samples give the same interval."""
    draws = _Bootstrap(np.array_split(samples, min(_BLOCKS, len(samples))), q)
    return _interval(float(np.percentile(samples, q)), draws.percentiles(draws.weights(seed=0)), confidence)


def ratio(a: Float, b: Float, q: float, confidence: float = 0.95) -> Interval:
    """Percentile ``q`` of ``a`` over that of ``b``, the two measured apart."""
    draws = [_Bootstrap(np.array_split(v, min(_BLOCKS, len(v))), q) for v in (a, b)]
    above, below = (d.percentiles(d.weights(seed)) for seed, d in enumerate(draws))
    return _interval(float(np.percentile(a, q) / np.percentile(b, q)), above / below, confidence)


def paired_ratio(a: Sequence[Float], b: Sequence[Float], q: float, confidence: float = 0.95) -> Interval:
    """Percentile ``q`` of ``a`` over that of ``b``, block k of both taken in the same round.

    Whole rounds are drawn, the same ones for both: a round in which the machine was slow counts on both sides.

    Raises:  ValueError: unlike numbers of rounds, or none
    """
    if len(a) != len(b) or not a:
        raise ValueError(f"paired ratio: expected as many rounds on both sides, received {len(a)} and {len(b)}")
    above, below = _Bootstrap(a, q), _Bootstrap(b, q)
    weights = above.weights(seed=0)
    value = np.percentile(np.concatenate(a), q) / np.percentile(np.concatenate(b), q)
    return _interval(float(value), above.percentiles(weights) / below.percentiles(weights), confidence)


def typical_ratio(a: Sequence[Float], b: Sequence[Float], confidence: float = 0.95) -> Interval:
    """The geometric mean, over rounds, of the median of ``a`` over that of ``b``, block k of both in the same round.

    Where the machine has two speeds, the median of all samples is that of either, as it happens; each round has one.

    Raises:  ValueError: unlike numbers of rounds, or none
    """
    if len(a) != len(b) or not a:
        raise ValueError(f"typical ratio: expected as many rounds on both sides, received {len(a)} and {len(b)}")
    logs = np.log([float(np.median(x) / np.median(y)) for x, y in zip(a, b, strict=True)])
    draws = np.random.default_rng(0).integers(0, len(logs), (_RESAMPLES, len(logs)))
    return _interval(float(np.exp(logs.mean())), np.exp(logs[draws].mean(axis=1)), confidence)


def beyond_noise(found: Interval, margin: float = BETWEEN_PROCESSES) -> bool:
    """True when a ratio is above 1 by more than its interval and what two equal processes differ by."""
    return found.low > 1.0 + margin


def drift(samples: Float) -> float:
    """Relative change of the median from the first to the last fifth; 0 with fewer than ten samples."""
    fifth = len(samples) // 5
    if fifth < 2:
        return 0.0
    first, last = float(np.median(samples[:fifth])), float(np.median(samples[-fifth:]))
    return last / first - 1.0 if first > 0 else 0.0


def _interval(value: float, draws: Float, confidence: float) -> Interval:
    tail = (1.0 - confidence) / 2
    low, high = (float(v) for v in np.quantile(draws, [tail, 1.0 - tail]))
    return Interval(value, min(low, value), max(high, value), confidence)


class _Bootstrap:
    """Percentiles of blocks drawn with replacement, without sorting each draw.

    Every block becomes cumulative counts over a grid of the samples' own values (each value where they are few, else
    even ranks and again as many near the percentile); a draw is then a weighted sum of those rows.
    """

    def __init__(self, blocks: Sequence[Float], q: float) -> None:
        ordered = np.sort(np.concatenate(blocks))
        self._share = q / 100
        self._grid = np.unique(ordered[_ranks(len(ordered), self._share)])
        rows = [np.bincount(np.searchsorted(self._grid, b), minlength=len(self._grid)) for b in blocks]
        self._counts = np.cumsum(np.stack(rows), axis=1, dtype=np.float64).astype(np.float32)

    def weights(self, seed: int) -> Float:
        """How often each block is drawn: one row a draw."""
        blocks = len(self._counts)
        drawn = np.random.default_rng(seed).multinomial(blocks, np.full(blocks, 1 / blocks), size=_RESAMPLES)
        return np.asarray(drawn, np.float64)

    def percentiles(self, weights: Float) -> Float:
        """The percentile of each draw."""
        counts = weights.astype(np.float32) @ self._counts
        # interpolated between the neighbours as numpy does: position q(n - 1) among the drawn samples, from 0
        position = self._share * (counts[:, -1] - 1)
        low = (counts > np.floor(position)[:, None]).argmax(1)
        high = (counts > np.ceil(position)[:, None]).argmax(1)
        part = position - np.floor(position)
        return np.asarray(self._grid[low] * (1 - part) + self._grid[high] * part)


def _ranks(count: int, share: float) -> NDArray[np.int64]:
    if count <= _GRID:
        return np.arange(count)
    near = 20 * np.sqrt(share * (1 - share) / count)
    fine = np.linspace(max(0.0, share - near), min(1.0, share + near), _GRID // 2)
    ranks = np.concatenate([np.linspace(0, 1, _GRID // 2), fine]) * (count - 1)
    return np.unique(np.round(ranks).astype(np.int64))
