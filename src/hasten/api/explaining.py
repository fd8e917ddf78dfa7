"""Where the time of a model goes: by its compiled program, and by the engine that a bundle runs on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hasten import bundle, host
from hasten.api.settings import Settings
from hasten.api.subject import is_bundle, subject
from hasten.bundle import Bundle, Entry
from hasten.bundle.signing import must_be_vouched
from hasten.bundle.unpack import unpack
from hasten.engines import BuildRequest, engine
from hasten.engines.native import graph_of, numerics
from hasten.errors import EngineError, HastenError
from hasten.native.explain import Profile, StepTime, profile
from hasten.native.isa import for_host
from hasten.native.peaks import measure
from hasten.passes import Rewrite
from hasten.records import Artefact
from hasten.report import OpTime, Peaks
from hasten.types import Array

__all__ = ["Explanation", "Shipped", "explain", "op_times", "operators_told", "shares", "shipped", "shown_peaks"]

_RECALIBRATED = (
    "The bundle was made before hasten kept quantised graphs: its int8 ranges come of its stored inputs, not of the "
    "rows that it was calibrated with. The steps are the same, the answers not quite."
)

Tells = Callable[[Artefact, Sequence[Array]], tuple[tuple[str, str, float], ...]]


@dataclass(frozen=True)
class Explanation:
    """The native program of a model, timed step by step, beside what this machine can do at most."""

    name: str
    profile: Profile
    peaks: host.Peaks
    instruction_set: str
    threads: int = 1
    """Of the team that the program is made for; it is timed on one."""
    candidate: str = ""
    """Whose program it is: the native winner of a bundle; empty for any other model."""
    rewrites: tuple[Rewrite, ...] = ()
    """What the passes that changed the graph saved."""
    rewritten_since: str = "source"
    """``portable graph`` where a bundle does not say what had made that one."""
    note: str = ""

    @property
    def op_times(self) -> tuple[OpTime, ...]:
        """The steps as the report shows them."""
        return op_times(self.profile)


def explain(model: Any, sample: Any = None, *, settings: Settings | None = None) -> Explanation:
    """Time, arithmetic and bytes by step of the native program of a bundle or model, against this machine's limits.

    Of a bundle whose winner is native code it is the winner's own: in its precision, by its mathematics, for its team.

    Raises:  UnsupportedOpError: the native compiler lacks an operator; SourceError: the model cannot be read
    """
    peaks, used = host.peaks(measure), settings or Settings()
    with tempfile.TemporaryDirectory(prefix="hasten-") as work:
        found = subject(model, sample, used, Path(work))
        timed = profile(
            found.model, for_host(), found.checks[0][0], peaks, numerics=found.numerics, threads=found.threads
        )
    label = "" if found.candidate is None else found.candidate.label
    note = _RECALIBRATED if found.is_recalibrated else ""
    changed = tuple(rewrite for rewrite in found.rewrites if rewrite.changes or rewrite.detail)
    return Explanation(
        found.name, timed, peaks, for_host().name, found.threads, label, changed, found.rewritten_since, note
    )


@dataclass(frozen=True)
class Shipped:
    """What a bundle runs on, operator by operator, as its engine's own profiler tells it."""

    candidate: str
    times: tuple[OpTime, ...] = ()
    """Nanoseconds under the profiler, which slows operators down."""
    note: str = ""
    """Why there are none."""


def shipped(model: Any, *, settings: Settings | None = None) -> Shipped | None:
    """Time by operator of what a bundle runs on; None where that is native code, or ``model`` is no bundle.

    Raises:  BundleError: a damaged bundle
    """
    used = settings or Settings()
    if not is_bundle(model):
        return None
    opened = bundle.read(Path(model))
    entry = next((e for e in opened.entries if e.artefact.candidate.batch == used.batch[0]), None)
    if entry is None or entry.artefact.candidate.engine == "native":
        return None
    label = entry.artefact.candidate.label
    try:
        spent = _spent(opened, entry, used.trust)
    except HastenError as error:
        return Shipped(label, note=f"time by operator of {label} is unknown: {error}")
    return Shipped(label, shares(spent, sum(nanos for *_, nanos in spent)))


def _spent(opened: Bundle, entry: Entry, trust: bool) -> tuple[tuple[str, str, float], ...]:
    """Raises HastenError where the engine cannot tell, or telling would run what the bundle brings."""
    artefact = entry.artefact
    must_be_vouched(entry, trust=trust)
    told = operators_told(artefact.candidate.engine)
    shapes = [spec.static_shape for spec in artefact.inputs]
    fitting = (given for given, _ in opened.checks() if [array.shape for array in given] == shapes)
    arrays = next(fitting, None)
    if arrays is None:
        raise HastenError(f"the bundle holds no stored inputs at batch {artefact.candidate.batch}")
    return told(unpack(opened, entry), arrays)


def operators_told(name: str) -> Tells:
    """The engine's own ``operators``.

    Raises:  EngineError: it has none, or its library is not installed
    """
    found = engine(name)
    missing = found.missing()
    told = getattr(found, "operators", None)
    if told is None or missing:
        raise EngineError(missing or f"{name}'s Python library has no profiler")
    return cast("Tells", told)


def shares(spent: Sequence[tuple[str, str, float]], call_ns: float) -> tuple[OpTime, ...]:
    """Each operator's part of a call of ``call_ns``: profilers slow operators down, their times are shares alone."""
    total = sum(part for *_, part in spent) or 1.0
    return tuple(OpTime(name, op, part / total * call_ns, part / total) for name, op, part in spent)


def op_times(timed: Profile) -> tuple[OpTime, ...]:
    """A profile's steps as records of the report."""
    total = sum(s.time_ns for s in timed.steps) or 1.0
    return tuple(
        OpTime(
            name=", ".join(s.nodes),
            op=s.title,
            time_ns=s.time_ns,
            share=s.time_ns / total,
            macs=s.macs or None,
            bytes=s.bytes or None,
            gmacs_per_s=s.macs / s.time_ns if s.macs and timed.has_rates(s) else None,
            gb_per_s=s.bytes / s.time_ns if s.bytes and timed.has_rates(s) else None,
            kernel=_kernel(s),
            limit_ns=s.limit_ns,
        )
        for s in timed.steps
    )


def _kernel(step: StepTime) -> str:
    """The C function, and how it was chosen to compute."""
    chosen = f"{step.way}; timed" if step.timed else step.way
    return f"{step.function} ({chosen})" if chosen else step.function


def shown_peaks(peaks: host.Peaks, timed: Profile) -> Peaks:
    """The host's peaks as a record of the report: those of integers where the profiled program computes in them."""
    used = any(step.is_integer and step.macs for step in timed.steps)
    whole = peaks.int8_gmac_per_s if used and peaks.int8_gmac_per_s else None
    return Peaks(peaks.gmac_per_s, dict(peaks.bandwidth), peaks.method, whole)


def winner_profile(request: BuildRequest, arrays: tuple[Array, ...]) -> tuple[tuple[OpTime, ...], Peaks] | None:
    """What the report of a search shows of a native winner; None where it cannot be profiled."""
    try:
        peaks = host.peaks(measure)
        candidate = request.candidate
        timed = profile(
            graph_of(request), for_host(), arrays, peaks, numerics=numerics(candidate), threads=candidate.threads
        )
        return op_times(timed), shown_peaks(peaks, timed)
    except HastenError:
        return None
