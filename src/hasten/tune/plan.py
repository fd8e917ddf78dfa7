"""All that a search may look at, frozen and on disk, so that each candidate can be tried in another process.

``api`` writes a ``Plan`` (``record_checks`` helps); ``search``, ``playoff`` and ``choose`` read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hasten.engines import ENGINES
from hasten.records import Candidate, Trial
from hasten.tune.arrays import read_groups, write_groups
from hasten.types import Array, TensorSpec
from hasten.verify import Tolerance

__all__ = ["Bounds", "Checks", "Event", "Labelled", "Limits", "Plan", "record_checks"]

GIB = 1 << 30


@dataclass(frozen=True)
class Limits:
    """How long and how large a search may get.

    Units:   *_s: seconds of wall time; memory_bytes: resident bytes of one candidate's process
    """

    budget_s: float = 70.0
    """For all candidates together; what no longer fits is skipped, and tried first by the next run."""
    measure_s: float = 0.6
    """Timed calls of one candidate, warm-up apart."""
    gaps: int = 7
    """Sleeps before calls whose latency after idleness is wanted."""
    build_s: float = 45.0
    open_s: float = 30.0
    """Process start to first answer."""
    check_s: float = 30.0
    """A candidate that has been silent for so long while it answers checks or is timed hangs."""
    over_s: float = 5.0
    """By how much the candidate at hand may overdraw the budget."""
    memory_bytes: int | None = None
    """None: four fifths of the memory that is free when the search begins."""

    @staticmethod
    def quick() -> Limits:
        """The limits of ``--quick``."""
        return Limits(budget_s=12.0, measure_s=0.25, gaps=3, build_s=12.0, open_s=10.0, check_s=8.0, over_s=2.0)

    def within(self, budget_s: float) -> Limits:
        """These limits with another budget. Where that is longer, each stage may take longer too, up to a whole
        search's limits: on a busy machine what is slow is not taken for hanging before the time given is used."""
        more, whole = max(1.0, budget_s / self.budget_s), Limits()
        waits = ("build_s", "open_s", "check_s")
        longer = {name: max(mine := getattr(self, name), min(mine * more, getattr(whole, name))) for name in waits}
        return replace(self, budget_s=budget_s, **longer)


@dataclass(frozen=True)
class Bounds:
    """What the winner may cost at most; None is no bound.

    Units:   max_latency_ns: nanoseconds per call, of the objective's percentile; max_memory_bytes: resident bytes
    """

    max_latency_ns: float | None = None
    max_memory_bytes: int | None = None


@dataclass(frozen=True)
class Checks:
    """Inputs for one batch size and the source framework's own answers to them, as files.

    Inputs and answers lie apart because a candidate's process is given the inputs alone: it never judges itself. The
    first check is the user's sample; it is also what the timing runs on.
    """

    names: tuple[str, ...]
    inputs: Path
    expected: Path
    nearby: Path | None = None
    """The source's answers where every float of an input is one rounding away, which no answer needs to keep apart;
    None: it was not asked, or a tolerance of the user's own holds as it is."""

    def read_expected(self) -> list[tuple[Array, ...]]:
        """The source's answers, check by check."""
        return read_groups(self.expected)

    def read_nearby(self) -> list[tuple[Array, ...]]:
        """Its answers to the inputs next to them, check by check; empty where it was not asked."""
        return [] if self.nearby is None else read_groups(self.nearby)


@dataclass(frozen=True)
class Labelled:
    """Labelled rows under which precisions below float32 may be chosen.

    Shapes:  inputs file: one array (N, …) an input, in order; labels: what ``verify.Metric`` takes
    """

    inputs: Path
    labels: Array
    metric: str
    max_drop: float
    source_score: float


@dataclass(frozen=True)
class Plan:
    """One model's search: the source, its graphs and checks by batch size, what to try, and the limits.

    ``engines`` and ``sessions`` map a name to ``module`` or ``module:attribute``; tests put engines there that crash on
    purpose. ``sessions`` holds only what the shipped table lacks.
    """

    fingerprint: str
    framework: str
    source: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    graphs: Mapping[int, Path]
    """Batch size → optimised ONNX file of static shapes; empty where no importer could read the source."""
    checks: Mapping[int, Checks]
    candidates: tuple[Candidate, ...]
    store: Path
    """Folder of saved trials, shared by all models."""
    skipped: tuple[Trial, ...] = ()
    limits: Limits = field(default_factory=Limits)
    tolerance: Tolerance | None = None
    """The user's own; None: the defaults, and no precision below float32 passes without ``labelled``."""
    labelled: Labelled | None = None
    calibration: Path | None = None
    computes_in: str = "float32"
    """The coarsest dtype that the source itself computes in: "float32", "float16", "bfloat16" or "int8"."""
    steps: int = 1
    """As in ``Source``."""
    spread: float = 0.0
    """As in ``Source``."""
    trust: bool = False
    schedule: str = "kept"
    """Where native code's schedules come from: "timed" tries a handful for each of the heavy steps, "kept" does not."""
    engines: Mapping[str, str] = field(default_factory=lambda: dict(ENGINES))
    sessions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """Progress of a search, for people to watch.

    ``kind``: ``started`` (a candidate's process), ``stage`` (building, opening, checking, measuring), ``finished``
    (``trial`` is set), ``resumed`` (``trial`` was saved by an earlier run), ``interrupted``, ``playoff``.
    """

    kind: str
    done: int
    total: int
    candidate: Candidate | None = None
    stage: str = ""
    trial: Trial | None = None


def record_checks(
    folder: Path,
    inputs: Mapping[str, Sequence[Array]],
    expected: Mapping[str, Sequence[Array]],
    nearby: Mapping[str, Sequence[Array]] | None = None,
) -> Checks:
    """``Checks`` whose files lie in ``folder``; the mappings go from a check's name to its arrays, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    names = tuple(inputs)
    write_groups(folder / "inputs.npz", [tuple(map(np.asarray, inputs[n])) for n in names])
    write_groups(folder / "expected.npz", [tuple(map(np.asarray, expected[n])) for n in names])
    if nearby:
        write_groups(folder / "nearby.npz", [tuple(map(np.asarray, nearby[n])) for n in names])
    return Checks(names, folder / "inputs.npz", folder / "expected.npz", folder / "nearby.npz" if nearby else None)
