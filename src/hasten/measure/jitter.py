"""Samples and their start times enter; how many are spikes, and whether the spikes come at a beat, leave."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Jitter", "jitter", "period_ns"]

Float = NDArray[np.float64]

_LEAST_EVENTS = 8
_FALSE_ALARM = 1e-3


@dataclass(frozen=True)
class Jitter:
    """Spikes of one run.

    Units:   nanoseconds; spike_share: spikes per call
    """

    threshold_ns: float
    spike_share: float
    period_ns: float | None


def jitter(latency_ns: Float, starts_ns: NDArray[np.int64]) -> Jitter:
    """Calls beyond the median by ten robust standard deviations and by half of it, and their period if they have one.

    Half the median keeps a very steady call, whose deviations are the clock's own steps, from seeming to spike.
    """
    middle = float(np.median(latency_ns))
    spread = 1.4826 * float(np.median(np.abs(latency_ns - middle)))
    threshold = middle + max(10 * spread, 0.5 * middle)
    spikes = latency_ns > threshold
    share = float(spikes.mean())
    times = starts_ns[spikes].astype(np.float64)
    span = float(starts_ns[-1] - starts_ns[0]) if len(starts_ns) > 1 else 0.0
    period = period_ns(_merge(times, 3 * middle), span) if share < 0.2 else None
    return Jitter(threshold, share, period)


def _merge(times: Float, gap: float) -> Float:
    """One event for each run of spikes closer than ``gap``: a pause that spans two calls is one pause."""
    if len(times) < 2:
        return times
    return np.asarray(times[np.concatenate([[True], np.diff(times) > gap])])


def period_ns(times: Float, span: float) -> float | None:
    """The period of events, or None where they are as irregular as chance has it.

    Rayleigh's test over a range of frequencies: for events at random times the power R = |Σ exp(2πi f t)|² / n is
    exponentially distributed with mean 1, so the greatest of m independent frequencies exceeds r with probability
    1 - (1 - exp(-r))^m. Frequencies go from four periods in the run up to one and a half times the events' rate (a
    third of the beats may be missing). Of a beat and its multiples the slowest counts.

    Units:   nanoseconds in and out
    """
    count = len(times)
    if count < _LEAST_EVENTS or span <= 0:
        return None
    times = (times - times[0])[:500]
    count, span = len(times), min(span, float(times[-1]) * count / (count - 1))
    lowest, highest = 4 / span, 1.5 * count / span
    if highest <= lowest:
        return None
    independent = (highest - lowest) * span
    frequencies = np.linspace(lowest, highest, int(8 * independent) + 2)
    power = _power(times, frequencies)
    best = float(power.max())
    if -np.expm1(independent * np.log1p(-np.exp(-best))) > _FALSE_ALARM:
        return None
    slowest = int(np.argmax(power >= 0.7 * best))
    end = min(slowest + 8, len(power))
    peak = float(frequencies[slowest + int(np.argmax(power[slowest:end]))])
    fine = np.linspace(peak - 0.5 / span, peak + 0.5 / span, 101)
    return float(1 / fine[int(np.argmax(_power(times, fine)))])


def _power(times: Float, frequencies: Float) -> Float:
    found = np.empty(len(frequencies))
    for start in range(0, len(frequencies), 256):  # a block at a time: 256 × 500 complex numbers are 2 MB
        part = frequencies[start : start + 256]
        found[start : start + 256] = np.abs(np.exp(2j * np.pi * np.outer(part, times)).sum(1)) ** 2
    return found / len(times)
