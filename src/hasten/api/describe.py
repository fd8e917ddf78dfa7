"""From trials and a verdict to a ``Report``: every fact that the terminal, JSON and the page lay out."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hasten import host
from hasten.api.prepare import Graphs
from hasten.api.profiling import ByOp
from hasten.api.settings import Settings
from hasten.records import Interval, Trial, to_json
from hasten.report import Report
from hasten.report import Verdict as Shown
from hasten.sources import Source
from hasten.tune.choose import Verdict
from hasten.tune.plan import Plan
from hasten.tune.store import raw_samples
from hasten.verify import Tolerance

__all__ = ["Finished", "describe"]

# How users of a framework call it by habit, the most common first: an option of its candidates.
_HABITS = ("predict", "eager", "inference_mode", "signature", "InferenceSession.run", "file")


@dataclass(frozen=True)
class Finished:
    """A search and what was decided."""

    trials: tuple[Trial, ...]
    verdict: Verdict | None
    """None for a comparison, where nothing was chosen."""
    bundle: Path | None = None
    command: str = ""
    interrupted: bool = False
    by_op: ByOp = field(default_factory=ByOp)


def describe(name: str, source: Source, made: Graphs, work: tuple[Plan, Settings], finished: Finished) -> Report:
    """Everything known, ready to be laid out."""
    plan, settings = work
    allowed = plan.tolerance or Tolerance()
    notes = list(source.notes)
    if finished.by_op.note:
        notes.append(finished.by_op.note)
    if finished.interrupted:
        notes.append("interrupted: only what was measured until then is shown; run the same command again to go on")
    return Report(
        model=name,
        framework=source.framework,
        trials=finished.trials,
        verdict=_shown(finished),
        inputs=source.inputs,
        outputs=source.outputs,
        samples={t.candidate.key: raw for t in finished.trials if (raw := raw_samples(t)) is not None},
        host=to_json(host.host()),
        settings=settings.to_json(),
        tolerance={"absolute": allowed.absolute, "relative": allowed.relative},
        rewrites=made.rewrites.get(settings.batch[0], ()),
        ops_before=made.before,
        ops_after=made.after,
        op_times=finished.by_op.times,
        op_times_of=finished.by_op.of,
        peaks=finished.by_op.peaks,
        notes=tuple(notes),
        commands=(finished.command,) if finished.command else (),
        logs=_logs(finished.trials),
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        version=host.library_versions().get("hasten", ""),
        bundle=None if finished.bundle is None else str(finished.bundle),
    )


def _shown(finished: Finished) -> Shown:
    today, verdict = _habit(finished.trials), finished.verdict
    if verdict is None:
        return Shown("compared", today=None if today is None else today.candidate)
    winner, honest = verdict.winner, verdict.original
    if winner is None:
        outcome = "none"
    elif verdict.original_stays:
        outcome = "original"
    else:
        outcome = "tie" if verdict.tie else "faster"
    return Shown(
        outcome=outcome,  # type: ignore[arg-type]  # one of the literals above
        winner=None if winner is None else winner.candidate,
        today=None if today is None else today.candidate,
        honest=None if honest is None else honest.candidate,
        over_today=_ratio(today, winner),
        over_honest=verdict.gain,
        reason=verdict.reason,
        objective=verdict.objective,
    )


def _habit(trials: Sequence[Trial]) -> Trial | None:
    own = [trial for trial in trials if trial.measurement is not None and trial.candidate.is_own_call]
    for habit in _HABITS:
        for trial in own:
            if any(value == habit for _, value in trial.candidate.options):
                return trial
    return None


def _ratio(slow: Trial | None, fast: Trial | None) -> Interval | None:
    """Medians divided, bounds by the ends of both intervals: wider than paired samples would give."""
    if slow is None or fast is None or slow.measurement is None or fast.measurement is None:
        return None
    a, b = slow.measurement.p50_ns, fast.measurement.p50_ns
    return Interval(a.value / b.value, a.low / b.high, a.high / b.low, a.confidence)


def _logs(trials: Sequence[Trial]) -> dict[str, str]:
    """What candidates that did not succeed wrote, from the end where it is long."""
    found = {}
    for trial in trials:
        if trial.status != "ok" and trial.log:
            try:
                found[trial.candidate.key] = Path(trial.log).read_text(errors="replace")[-20_000:]
            except OSError:
                continue
    return found
