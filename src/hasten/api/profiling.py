"""A call's time by operator, for the report: the native program's own steps, or its engine's profile."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from hasten.api.explaining import operators_told, shares, winner_profile
from hasten.engines import BuildRequest
from hasten.engines.torch_profile import GENERATED
from hasten.errors import HastenError
from hasten.records import Candidate, Trial
from hasten.report import OpTime, Peaks
from hasten.tune.arrays import read_groups
from hasten.tune.plan import Plan

__all__ = ["ByOp", "by_op"]

_HOW_APART = (
    "the kernels that Inductor wrote are one operator above: run it again with --fresh and "
    "TORCHINDUCTOR_CPP_ENABLE_KERNEL_PROFILE=1 set to have each by name"
)


@dataclass(frozen=True)
class ByOp:
    """Operators with their times, and what the machine can do at most where that was measured."""

    times: tuple[OpTime, ...] = ()
    of: Candidate | None = None
    """Whose they are."""
    peaks: Peaks | None = None
    note: str = ""
    """Why there are none, or how to be told more: one line for the report."""


def by_op(plan: Plan, winner: Trial) -> ByOp:
    """Where the time of a candidate that was measured goes, or a note that its engine does not tell."""
    candidate = winner.candidate
    arrays = read_groups(plan.checks[candidate.batch].inputs)[0]
    if candidate.engine == "native":
        with tempfile.TemporaryDirectory(prefix="hasten-") as work:
            found = winner_profile(_request(plan, candidate, Path(work)), arrays)
        if found is None:
            return _unknown(winner, "its program could not be compiled again")
        return ByOp(found[0], candidate, found[1])
    assert winner.artefact is not None and winner.measurement is not None
    try:
        spent = operators_told(candidate.engine)(winner.artefact, arrays)
    except HastenError as error:
        return _unknown(winner, str(error))
    # Kernels that Inductor wrote are recorded one by one only where it was asked to when it wrote them.
    whole = spent[-1:] and spent[-1][1] == GENERATED
    return ByOp(shares(spent, winner.measurement.p50_ns.value), candidate, note=_HOW_APART if whole else "")


def _request(plan: Plan, candidate: Candidate, work: Path) -> BuildRequest:
    path = plan.graphs[candidate.batch]
    return BuildRequest(
        candidate, path, path, plan.framework, plan.inputs, plan.outputs, work, calibration=plan.calibration
    )


def _unknown(winner: Trial, reason: str) -> ByOp:
    return ByOp(note=f"time by operator of {winner.candidate.label} is unknown: {reason}")
