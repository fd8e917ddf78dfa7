"""A ``Report`` enters; the sorted rows, the sentence on top and the list of what did not run leave.

What the terminal and the page share, so that they can never tell two stories.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hasten.records import Candidate, Interval, Trial
from hasten.report import Report
from hasten.report.units import error_text, ratio_text, time_text

__all__ = [
    "Group",
    "Role",
    "answered",
    "gain",
    "headline",
    "left_out",
    "only_call",
    "p50_text",
    "role",
    "size_bytes",
    "title",
]

Role = str
"""winner, today, honest or nothing."""

_STATUS_ORDER = {"ok": 0, "unstable": 0, "wrong": 1, "failed": 2, "skipped": 3}


@dataclass(frozen=True)
class Group:
    """Candidates that ended the same way for the same reason."""

    status: str
    reason: str
    labels: tuple[str, ...]


def answered(report: Report) -> tuple[Trial, ...]:
    """Trials that were timed, fastest median first; those with wrong answers after all others."""
    timed = [t for t in report.trials if t.measurement is not None]
    return tuple(sorted(timed, key=_order))


def _order(trial: Trial) -> tuple[int, float, str]:
    assert trial.measurement is not None
    return _STATUS_ORDER[trial.status], trial.measurement.p50_ns.value, trial.candidate.label


def left_out(report: Report) -> tuple[Group, ...]:
    """Every trial that is not plainly ok, with its reason; equal reasons of one engine are told once."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for trial in sorted(report.trials, key=lambda t: (_STATUS_ORDER[t.status], t.candidate.engine)):
        if trial.status != "ok":
            reason = trial.reason or "no reason was given"
            found.setdefault((trial.status, trial.candidate.engine, reason), []).append(trial.candidate.label)
    return tuple(Group(status, reason, tuple(labels)) for (status, _, reason), labels in found.items())


def role(report: Report, candidate: Candidate) -> Role:
    """What this candidate is to the reader."""
    verdict = report.verdict
    if candidate == verdict.winner:
        return "winner"
    if candidate == verdict.today:
        return "today"
    return "honest" if candidate == verdict.honest else ""


def p50_text(p50: Interval) -> str:
    """The median and the wider half of its interval, in percent of it."""
    half = max(p50.high - p50.value, p50.value - p50.low)
    if p50.value <= 0 or not math.isfinite(half):
        return time_text(p50.value)
    percent = 100 * half / p50.value
    return f"{time_text(p50.value)} ±{percent:.0f}%" if percent >= 0.95 else f"{time_text(p50.value)} ±{percent:.1f}%"


def size_bytes(trial: Trial) -> int | None:
    """Bytes of the artefact's files; None when there is none, or its files are gone."""
    try:
        return trial.artefact.nbytes if trial.artefact else None
    except OSError:
        return None


def title(report: Report) -> str:
    """What was looked at, in one line."""
    inputs = ", ".join(map(str, report.inputs))
    outputs = ", ".join(map(str, report.outputs))
    shapes = f" · {inputs} → {outputs}" if inputs or outputs else ""
    return f"{report.model} · {report.framework}{shapes}"


def headline(report: Report) -> str:
    """The whole result in one sentence."""
    verdict, winner = report.verdict, _trial(report, report.verdict.winner)
    if winner is None or winner.measurement is None:
        return _no_winner(report)
    latency = time_text(winner.measurement.p50_ns.value)
    if verdict.outcome == "original":
        return _stays(report, winner)
    sentence = f"{report.model} answers in {latency} (p50) with {winner.candidate.label}"
    today = _trial(report, verdict.today)
    if today is not None and today.measurement is not None and today is not winner:
        sentence += f" instead of {time_text(today.measurement.p50_ns.value)}"
    gains = _gains(report)
    if gains:
        sentence += f": {', '.join(gains)}"
    if winner.comparison is not None:
        sentence += f"; largest error {error_text(winner.comparison.max_abs_error)}"
    return f"{sentence}; a tie: the simpler of equals was taken" if verdict.outcome == "tie" else sentence


def _stays(report: Report, winner: Trial) -> str:
    """Nothing beats the user's own call for certain: that call, and the best of those that can be shipped."""
    own = _trial(report, report.verdict.honest)
    kept = winner if own is None or own.measurement is None else own
    assert kept.measurement is not None
    assert winner.measurement is not None
    latency = time_text(kept.measurement.p50_ns.value)
    sentence = f"{report.model} answers in {latency} (p50) with {kept.candidate.label}: nothing beats it for certain"
    if kept is winner:
        return sentence
    return f"{sentence}; of those to ship, {winner.candidate.label} takes {time_text(winner.measurement.p50_ns.value)}"


def _no_winner(report: Report) -> str:
    timed = [t for t in answered(report) if t.status in ("ok", "unstable")]
    if not timed:
        return f"{report.model}: no candidate gave the source's answers; keep your own call"
    first = timed[0]
    assert first.measurement is not None
    latency = time_text(first.measurement.p50_ns.value)
    lead = "nothing was chosen; " if report.verdict.outcome == "none" else ""
    return f"{report.model}: {lead}fastest of {len(timed)} ways to call it is {first.candidate.label}, {latency} (p50)"


def gain(report: Report, baseline: Candidate | None) -> Interval | None:
    """Median of the baseline ÷ median of the winner; None where either was not timed, or both are one.

    The bounds come from the ends of both intervals: wider than those of paired samples.
    """
    slow, fast = _trial(report, baseline), _trial(report, report.verdict.winner)
    if slow is None or fast is None or slow is fast or slow.measurement is None or fast.measurement is None:
        return None
    a, b = slow.measurement.p50_ns, fast.measurement.p50_ns
    return Interval(a.value / b.value, a.low / b.high, a.high / b.low, a.confidence)


def _gains(report: Report) -> Sequence[str]:
    verdict = report.verdict
    today, honest = gain(report, verdict.today), gain(report, verdict.honest)
    gains = []
    if today is not None and verdict.today is not None:
        caveat = " (its other call paths were not timed)" if only_call(report) else ""
        gains.append(f"{_gain(today.value)} {verdict.today.label}{caveat}")
    if honest is not None and verdict.honest is not None and verdict.honest != verdict.today:
        gains.append(f"{_gain(honest.value)} your best own call ({verdict.honest.label})")
    return gains


def only_call(report: Report) -> bool:
    """True when of the user's framework only today's call was timed: its best one is not known then."""
    today, honest = report.verdict.today, report.verdict.honest
    if today is None or honest not in (None, today):
        return False
    return any(t.candidate.engine == today.engine and t.status == "skipped" for t in report.trials)


def _gain(ratio: float) -> str:
    return f"{ratio_text(ratio)} faster than" if ratio >= 1 else f"{ratio_text(1 / ratio)} slower than"


def _trial(report: Report, candidate: Candidate | None) -> Trial | None:
    return next((t for t in report.trials if t.candidate == candidate), None)
