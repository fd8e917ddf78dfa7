"""Records enter; a terminal table, JSON, and one HTML file that opens offline leave. The last room of the house.

``Report`` holds every fact that the three renderings show. ``terminal.render``, ``jsonreport.to_json`` and
``html.write`` only lay it out: they compute no statistic that is not derived here or in ``measure``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from hasten.records import Candidate, Interval, Trial
from hasten.types import TensorSpec

__all__ = ["OpTime", "Outcome", "Peaks", "Report", "RewriteFacts", "Verdict"]

Outcome = Literal["faster", "tie", "original", "none", "compared"]


class RewriteFacts(Protocol):
    """What a report reads of one graph rewrite; ``passes.Rewrite`` is one."""

    @property
    def name(self) -> str:
        """The pass."""

    @property
    def changes(self) -> int:
        """How many places it changed."""

    @property
    def nodes_before(self) -> int:
        """Nodes of the graph before it."""

    @property
    def nodes_after(self) -> int:
        """Nodes of the graph after it, without what other passes took away between its rounds."""

    @property
    def detail(self) -> str:
        """One line more, or nothing."""

    @property
    def macs_saved(self) -> int:
        """Multiply-adds of one call; below zero: it takes more."""

    @property
    def weight_bytes_saved(self) -> int:
        """Bytes of weights."""

    @property
    def written_bytes_saved(self) -> int:
        """Bytes of what nodes write in one call."""


@dataclass(frozen=True)
class OpTime:
    """One operator of the call that a report looks into, timed.

    Units:   time_ns: nanoseconds per call; share: of the whole call, 0 to 1; macs, bytes: per call;
             limit_ns: the least that this machine could need for it
    """

    name: str
    op: str
    time_ns: float
    share: float
    macs: int | None = None
    bytes: int | None = None
    gmacs_per_s: float | None = None
    gb_per_s: float | None = None
    kernel: str = ""
    limit_ns: float | None = None


@dataclass(frozen=True)
class Peaks:
    """What this machine can do at most, measured on one core: arithmetic, and bytes from each memory level.

    Units:   gmac_per_s: 1e9 float32 multiply-adds per second; gb_per_s: level name → 1e9 bytes per second
    """

    gmac_per_s: float
    gb_per_s: Mapping[str, float] = field(default_factory=dict)
    method: str = ""
    """How they were measured."""
    int8_gmac_per_s: float | None = None
    """1e9 multiply-adds of 8- or 16-bit integers per second; None where no operator makes any."""


@dataclass(frozen=True)
class Verdict:
    """Who won, against whom, by how much, and why.

    ``outcome``: *faster* (the winner beats both baselines beyond the noise), *tie* (nothing beats the next best beyond
    the noise, the simpler one was taken), *original* (nothing beats the user's own framework), *none* (no candidate
    passed), *compared* (a bench: nothing was chosen).
    Units:   over_today, over_honest: cost of the baseline divided by that of the winner, in what decided (p99,
             say); the sentence on top divides the medians that it shows
    """

    outcome: Outcome
    winner: Candidate | None = None
    today: Candidate | None = None
    """The call that users of this framework make by habit (``keras predict``)."""
    honest: Candidate | None = None
    """The fastest call path of the user's own framework: the fair baseline."""
    over_today: Interval | None = None
    over_honest: Interval | None = None
    reason: str = ""
    """One line: what decided."""
    objective: str = "p99"
    """What was to be best: a percentile, or *throughput*, *memory*, *size*."""


@dataclass(frozen=True)
class Report:
    """Everything known after a run, ready to be laid out.

    Shapes:  samples: candidate key → (N,) nanoseconds per call, in the order they were taken
    """

    model: str
    """File name, or the class name of an object."""
    framework: str
    trials: tuple[Trial, ...]
    verdict: Verdict
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    samples: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    host: Mapping[str, object] = field(default_factory=dict)
    """CPU, caches, operating system, library versions; nested mappings become nested rows."""
    settings: Mapping[str, object] = field(default_factory=dict)
    tolerance: Mapping[str, float] = field(default_factory=dict)
    """The bounds that outputs were held to, by name: ``absolute``, ``relative`` (those known are drawn)."""
    rewrites: tuple[RewriteFacts, ...] = ()
    ops_before: Mapping[str, int] = field(default_factory=dict)
    """Operator → how many nodes of the imported graph."""
    ops_after: Mapping[str, int] = field(default_factory=dict)
    op_times: tuple[OpTime, ...] = ()
    op_times_of: Candidate | None = None
    """Whose operators those are: the winner's, or those of the user's own call where that stays."""
    peaks: Peaks | None = None
    notes: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    """Shell commands that reproduce this report, one a line."""
    logs: Mapping[str, str] = field(default_factory=dict)
    """Candidate key → text of its log."""
    created: str = ""
    """When, ISO 8601."""
    version: str = ""
    """hasten's own."""
    bundle: str | None = None
    """Where the bundle was written."""
