"""The winner's time by operator, for the report: the native program's own steps, or its engine's profile."""

from __future__ import annotations

from dataclasses import dataclass

from hasten import graph
from hasten.api.explaining import winner_profile
from hasten.engines import engine
from hasten.errors import HastenError
from hasten.records import Trial
from hasten.report import OpTime, Peaks
from hasten.tune.arrays import read_groups
from hasten.tune.plan import Plan

__all__ = ["ByOp", "by_op"]


@dataclass(frozen=True)
class ByOp:
    """Operators with their times, and what the machine can do at most where that was measured."""

    times: tuple[OpTime, ...] = ()
    peaks: Peaks | None = None
    note: str = ""
    """Why there are none, one line for the report."""


def by_op(plan: Plan, winner: Trial) -> ByOp:
    """Where the winner's time goes, or a note that its engine does not tell."""
    candidate = winner.candidate
    arrays = read_groups(plan.checks[candidate.batch].inputs)[0]
    if candidate.engine == "native":
        found = winner_profile(graph.read(plan.graphs[candidate.batch]), arrays, candidate)
        return _unknown(winner, "its program could not be compiled again") if found is None else ByOp(*found)
    operators = getattr(engine(candidate.engine), "operators", None)
    if operators is None:
        return _unknown(winner, f"{candidate.engine}'s Python library has no profiler")
    try:
        return ByOp(_shares(winner, operators(winner.artefact, arrays)))
    except HastenError as error:
        return _unknown(winner, str(error))


def _unknown(winner: Trial, reason: str) -> ByOp:
    return ByOp(note=f"time by operator of {winner.candidate.label} is unknown: {reason}")


def _shares(winner: Trial, spent: tuple[tuple[str, str, float], ...]) -> tuple[OpTime, ...]:
    """Each operator's part of the call. Profilers slow operators down: their times count as shares alone."""
    assert winner.measurement is not None
    call_ns, total = winner.measurement.p50_ns.value, sum(part for *_, part in spent) or 1.0
    return tuple(OpTime(name, op, part / total * call_ns, part / total) for name, op, part in spent)
