"""One candidate enters; it is built and run in processes of its own and judged here; its ``Trial`` leaves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hasten.measure.sampling import Sampling
from hasten.records import Artefact, Candidate, Comparison, Measurement, Trial
from hasten.tune.arrays import read_groups
from hasten.tune.builds import Builds
from hasten.tune.isolation import Child, ChildFailed, FellSilent
from hasten.tune.plan import Plan
from hasten.tune.processes import Start, spawn
from hasten.tune.store import Store
from hasten.verify import Tolerance, accuracy_bound, compare, metric

__all__ = ["Attempt", "attempt", "run_job"]

OnStage = Callable[[str], None]

# A framework's own call may take a second: it is the reference itself, a few of its answers are enough to see that
# this call path gives them.
_FRAMEWORK_CHECK_S = 2.0


@dataclass(frozen=True)
class Attempt:
    """What an attempt may use.

    Units:   end_s: the second of the monotonic clock at which the search must end
    """

    plan: Plan
    store: Store
    builds: Builds
    end_s: float

    @contextmanager
    def patience(self, limit_s: float) -> Iterator[float]:
        """The seconds to wait for a stage: its limit, or less where the search ends sooner.

        Raises:  _OutOfTime: it fell silent for less than its limit: slow, for all that anyone knows, not hanging
        """
        over_s = self.plan.limits.over_s
        wait_s = min(limit_s, over_s + max(0.0, self.end_s - time.monotonic()))
        try:
            yield wait_s
        except FellSilent as failure:
            if failure.waited_s >= limit_s:
                raise
            reason = f"no time left: still {failure.stage} after {wait_s:.0f} s; run again to continue"
            raise _OutOfTime(reason) from failure


class _OutOfTime(ChildFailed):
    """The search ended before the candidate had its time."""


def attempt(candidate: Candidate, given: Attempt, on_stage: OnStage) -> Trial:
    """The candidate's trial, saved unless the search's end cut it short."""
    folder = given.store.trial_folder(candidate)
    (folder / "log.txt").unlink(missing_ok=True)
    started = Trial(candidate, "failed", log=str(folder / "log.txt"))
    try:
        with given.patience(given.plan.limits.build_s) as wait_s:
            artefact, build_ns = given.builds.artefact(candidate, wait_s, on_stage)
        started = replace(started, artefact=artefact, build_ns=build_ns)
        trial, samples = _run_warm(started, folder, given, on_stage)
    except _OutOfTime as late:
        return replace(started, status="skipped", reason=str(late), log=None)
    except ChildFailed as failure:
        log = given.builds.log(candidate) if started.artefact is None else folder / "log.txt"
        reason = f"{failure}; log: {log}" if failure.status == "failed" else str(failure)
        trial, samples = replace(started, status=failure.status, reason=reason, log=str(log)), None
    return given.store.save(trial, samples)


def run_job(task: str, artefact: Artefact, plan: Plan, folder: Path) -> dict[str, Any]:
    """The job that opens ``artefact``: what ``run`` and ``serve`` have in common."""
    return {
        "task": task,
        "artefact": artefact,
        "session": plan.sessions.get(artefact.candidate.engine),
        "checks": plan.checks[artefact.candidate.batch].inputs,
        "folder": folder,
        "answers": folder / f"{task}-answers.npz",
    }


def _run_warm(
    started: Trial, folder: Path, given: Attempt, on_stage: OnStage
) -> tuple[Trial, NDArray[np.float64] | None]:
    """The run in a process with the framework imported; one that dies there is tried again in a fresh one.

    Not every library survives a fork, and such a death would say nothing of the candidate.
    """
    start = given.builds.pool.starter(given.plan.engines[started.candidate.engine])
    try:
        return _run((started, folder), given, on_stage, start)
    except ChildFailed as failure:
        if start is spawn or not failure.abrupt:
            raise
        return _run((started, folder), given, on_stage, spawn)


def _run(
    what: tuple[Trial, Path], given: Attempt, on_stage: OnStage, start: Start
) -> tuple[Trial, NDArray[np.float64] | None]:
    (started, folder), plan = what, given.plan
    artefact = started.artefact
    assert artefact is not None
    limits = plan.limits
    sampling = Sampling(limits.measure_s, 2.5 * limits.measure_s, 0.35 * limits.measure_s, gaps=limits.gaps)
    again = folder / "answers-again.npz"
    job = run_job("run", artefact, plan, folder) | {
        "answers_again": again,
        "check_s": None if artefact.ships else _FRAMEWORK_CHECK_S,
        "labelled": plan.labelled.inputs if plan.labelled and started.candidate.precision != "float32" else None,
        "batch": started.candidate.batch,
        "sampling": asdict(sampling),
    }
    on_stage("opening")
    with Child(job, folder, given.builds.memory_bytes, start) as child:
        facts = _listen(child, "checked", given, on_stage)
        comparison = _judge(started.candidate, plan, folder, job["answers"], partly=not artefact.ships)
        trial = replace(started, comparison=comparison, status="ok" if comparison.passed else "wrong")
        trial = replace(trial, reason=comparison.reason)
        if not comparison.passed and not started.candidate.is_own_call:
            return trial, None
        child.send("measure")
        facts |= _listen(child, "done", given, on_stage)
    measurement = replace(Measurement.from_json(facts["measurement"]), cold_start_ns=_cold_start(facts, child))
    if comparison.passed:
        later = _judge_again(started.candidate, plan, again)
        if later is not None:
            trial = replace(trial, status="unstable", reason=later)
    samples = np.load(folder / "samples.npy")
    for path in (job["answers"], again):
        path.unlink(missing_ok=True)
    return replace(trial, measurement=measurement), samples


def _cold_start(facts: dict[str, Any], child: Child) -> float:
    """Process start to first answer, less the reading of check inputs that no user's process does."""
    return float(facts["at_ns"] - child.started_ns - facts["apart_ns"])


def _listen(child: Child, until: str, given: Attempt, on_stage: OnStage) -> dict[str, Any]:
    """All facts of the messages up to the one called ``until``."""
    facts: dict[str, Any] = {}
    limits = given.plan.limits
    while True:
        opening = child.stage in ("starting", "opening")
        with given.patience(limits.open_s if opening else limits.check_s) as wait_s:
            message = child.next_message(wait_s)
        facts |= message
        if message["event"] == "stage":
            on_stage(child.stage)
        if message["event"] == until:
            return facts


def _judge(candidate: Candidate, plan: Plan, folder: Path, answers: Path, partly: bool) -> Comparison:
    """The comparison of the answers with the source's; ``partly``: the first checks alone may have been answered."""
    checks = plan.checks[candidate.batch]
    expected, received = checks.read_expected(), read_groups(answers)
    if partly:
        expected = expected[: len(received)]
    by_labels = plan.labelled is not None and candidate.precision != "float32" and plan.tolerance is None
    tolerance = _tolerance(candidate, plan, by_labels)
    found = compare(expected, received, tolerance, checks.names, checks.read_nearby())
    if not found.passed or candidate.precision == "float32":
        return found
    if plan.labelled is None:
        if plan.tolerance is None:
            reason = f"{candidate.precision} needs --tolerance or labelled data (--data, --metric, --max-drop)"
            return replace(found, passed=False, reason=reason)
        return found
    chosen = metric(plan.labelled.metric)
    score = chosen.score(read_groups(folder / "labelled.npz")[0], plan.labelled.labels)
    return accuracy_bound(found, chosen, (plan.labelled.source_score, score), plan.labelled.max_drop)


def _tolerance(candidate: Candidate, plan: Plan, by_labels: bool) -> Tolerance:
    if by_labels:
        return Tolerance.structure()
    found = plan.tolerance or (Tolerance() if candidate.precision == "float32" else Tolerance.named("int8"))
    return found.for_source(plan.computes_in, plan.steps, plan.spread)


def _judge_again(candidate: Candidate, plan: Plan, answers: Path) -> str | None:
    """None where the answers after thousands of calls are still right, else the reason."""
    checks, received = plan.checks[candidate.batch], read_groups(answers)
    by_labels = plan.labelled is not None and candidate.precision != "float32" and plan.tolerance is None
    tolerance = _tolerance(candidate, plan, by_labels)
    expected = checks.read_expected()[: len(received)]
    found = compare(expected, received, tolerance, checks.names, checks.read_nearby())
    return None if found.passed else f"answers changed in the course of many calls: {found.reason}"
