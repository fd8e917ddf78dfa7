"""An open session's call and its inputs enter; the ``Measurement`` and its raw samples leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hasten.measure import memory, statistics
from hasten.measure.jitter import jitter
from hasten.measure.sampling import Samples, Sampling, after_idle_ns, looped_median_ns, sample
from hasten.records import Measurement
from hasten.types import Array

__all__ = ["Start", "measure", "summarise"]


@dataclass(frozen=True)
class Start:
    """What happened before the timing.

    Units:   nanoseconds; batch: rows of one call
    """

    first_ns: float
    cold_start_ns: float | None = None
    batch: int = 1


@dataclass(frozen=True)
class _Aside:
    """What is read beside the samples."""

    looped_ns: float | None
    idle_10ms_ns: float | None
    idle_100ms_ns: float | None
    peak_bytes: int | None
    resident_bytes: int | None


def measure(
    call: Callable[..., Any], arrays: Sequence[Array], start: Start, sampling: Sampling | None = None
) -> tuple[Measurement, NDArray[np.float64]]:
    """The measurement of ``call(*arrays)`` in this process, and every sample in order (nanoseconds).

    Memory is read before samples are kept, the idle latencies last: they let the machine cool.
    """
    resident = memory.resident_bytes()
    samples = sample(call, arrays, sampling)
    peak = memory.peak_bytes()
    usual = float(np.median(samples.latency_ns))
    none = usual > 0.5e9  # such calls warm the caches themselves, and cost their time each
    gaps = 1 if usual > 0.05e9 else (sampling or Sampling()).gaps
    aside = _Aside(
        looped_ns=looped_median_ns(call, arrays, usual),
        idle_10ms_ns=None if none else after_idle_ns(call, arrays, 0.010, repeats=gaps),
        idle_100ms_ns=None if none else after_idle_ns(call, arrays, 0.100, repeats=max(1, gaps // 2)),
        peak_bytes=peak,
        resident_bytes=resident,
    )
    return summarise(samples, start, aside), samples.latency_ns


def summarise(samples: Samples, start: Start, aside: _Aside | None = None) -> Measurement:
    """What the samples say; a percentile only where there are enough of them."""
    latency = samples.latency_ns
    spikes = jitter(latency, samples.starts_ns)
    mean = float(latency.mean())
    beside = aside or _Aside(None, None, None, None, None)
    return Measurement(
        samples=len(latency),
        p50_ns=statistics.interval(latency, 50.0),
        p90_ns=statistics.percentile(latency, 90.0),
        p99_ns=statistics.interval(latency, 99.0) if statistics.enough(len(latency), 99.0) else None,
        p999_ns=statistics.percentile(latency, 99.9),
        max_ns=float(latency.max()),
        mean_ns=mean,
        rate_per_s=start.batch * 1e9 / mean,
        inner_loop=1,
        timer_ns=samples.timer_ns,
        first_ns=start.first_ns,
        cold_start_ns=start.cold_start_ns,
        idle_10ms_ns=beside.idle_10ms_ns,
        idle_100ms_ns=beside.idle_100ms_ns,
        drift=statistics.drift(latency),
        spike_share=spikes.spike_share,
        spike_period_ns=spikes.period_ns,
        peak_bytes=beside.peak_bytes,
        resident_bytes=beside.resident_bytes,
        looped_ns=beside.looped_ns,
    )
