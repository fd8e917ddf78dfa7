"""The numbers of one candidate as columns, for the terminal and the page alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hasten.records import Interval, Measurement, Trial
from hasten.report.facts import p50_text, size_bytes
from hasten.report.units import bytes_text, error_text, rate_text, share_text, time_text

__all__ = ["COLUMNS", "Column", "in_order"]


@dataclass(frozen=True)
class Column:
    """A heading, what it means, and how to get one candidate's number.

    In the terminal, of the columns that do not fit, the one with the highest ``rank`` gives way first; a column without
    rank appears on the page alone.
    """

    head: str
    meaning: str
    value: Callable[[Trial, Measurement], float | None]
    """For sorting, in the base unit (nanoseconds, bytes)."""
    text: Callable[[Trial, Measurement], str]
    rank: int | None = None


def _time(head: str, meaning: str, value: Callable[[Measurement], float | None], rank: int | None = None) -> Column:
    return Column(head, meaning, lambda _, m: value(m), lambda _, m: time_text(value(m)), rank)


def _size(head: str, meaning: str, value: Callable[[Trial, Measurement], float | None], rank: int | None) -> Column:
    return Column(head, meaning, value, lambda t, m: bytes_text(value(t, m)), rank)


def _error(head: str, meaning: str, value: Callable[[Trial], float | None], rank: int | None = None) -> Column:
    return Column(head, meaning, lambda t, _: value(t), lambda t, _: error_text(value(t)), rank)


def _middle(interval: Interval | None) -> float | None:
    return interval.value if interval else None


COLUMNS = (
    Column(
        "p50", "half of the calls were faster; ± 95 % bootstrap interval",
        lambda _, m: m.p50_ns.value, lambda _, m: p50_text(m.p50_ns), 0,
    ),
    _time("p90", "9 of 10 calls were faster", lambda m: m.p90_ns),
    _time("p99", "99 of 100 calls were faster", lambda m: _middle(m.p99_ns), 1),
    _time("p99.9", "999 of 1,000 calls were faster", lambda m: m.p999_ns, 5),
    _time("max", "slowest call seen", lambda m: m.max_ns, 3),
    Column("rate", "rows per second, one call after the other", lambda _, m: m.rate_per_s,
           lambda _, m: rate_text(m.rate_per_s), 7),
    _time("first", "the first call of a fresh process, the model already open", lambda m: m.first_ns, 9),
    _time("cold start", "from starting a process to its first answer", lambda m: m.cold_start_ns, 6),
    _time("idle 10 ms", "a call after 10 ms of doing nothing", lambda m: m.idle_10ms_ns),
    _time("idle 100 ms", "a call after 100 ms of doing nothing", lambda m: m.idle_100ms_ns),
    Column("drift", "change of the median from the first to the last fifth of the run", lambda _, m: m.drift,
           lambda _, m: share_text(m.drift)),
    Column("spikes", "calls beyond the median by half of it and by ten robust standard deviations",
           lambda _, m: m.spike_share, lambda _, m: share_text(m.spike_share)),
    _size("memory", "peak resident memory of the candidate's process", lambda _, m: m.peak_bytes, 8),
    _size("resident", "memory of that process before timing began", lambda _, m: m.resident_bytes, 11),
    _size("size", "files of the artefact", lambda t, _: size_bytes(t), 10),
    _error("max error", "largest absolute error of any output element against the source",
           lambda t: t.comparison.max_abs_error if t.comparison else None, 2),
    _error("rel. error", "largest relative error", lambda t: t.comparison.max_rel_error if t.comparison else None),
    Column("samples", "timed calls, or groups of them where one is too short for the clock",
           lambda _, m: m.samples, lambda _, m: f"{m.samples:,}"),
)  # fmt: skip

# The column in which each objective is decided; the median is what the sentence on top tells.
_DECIDES = {"p99": "p99", "p99.9": "p99.9", "throughput": "rate", "memory": "resident", "size": "size"}


def in_order(objective: str) -> tuple[tuple[int, Column], ...]:
    """The terminal's columns, each with its rank: what decided gives way last of all."""
    decides = _DECIDES.get(objective)
    return tuple((0 if c.head == decides else c.rank, c) for c in COLUMNS if c.rank is not None)
