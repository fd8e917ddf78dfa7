"""From trials and verdicts to the contents of a bundle: the winners, what to fall back to, and how to check them."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hasten import graph, host
from hasten.api.prepare import Graphs
from hasten.api.settings import Settings
from hasten.bundle import Contents, Entry
from hasten.records import Trial, to_json
from hasten.runtime.loading import LIBRARIES, library_version
from hasten.sessions import Session, open_session
from hasten.sources import Source
from hasten.tune.arrays import read_groups
from hasten.tune.choose import Verdict
from hasten.tune.plan import Plan
from hasten.types import Array
from hasten.verify import Tolerance, compare

__all__ = ["contents", "entries", "facts", "imported_version", "rewrites"]

_CHECKS, _CHECK_BYTES = 6, 16 << 20

Check = tuple[tuple[Array, ...], tuple[Array, ...]]
"""Inputs, and the source's own outputs for them."""


def contents(
    source: Source,
    made: Graphs,
    asked: tuple[Plan, Settings],
    outcome: tuple[Sequence[Trial], Mapping[int, Verdict]],
) -> Contents:
    """All that goes into the bundle."""
    (plan, settings), (trials, verdicts) = asked, outcome
    chosen = entries(trials, verdicts)
    size = min(entry.artefact.candidate.batch for entry in chosen)
    allowed = _tolerance(plan, chosen)
    samples, expected = _stored_checks(_repeatable(plan, size, chosen, allowed))
    return Contents(
        inputs=source.inputs,
        outputs=source.outputs,
        entries=chosen,
        graph=None if made.tidy is None else graph.to_bytes(made.tidy),
        samples=samples,
        expected=expected,
        tolerance=to_json(allowed),
        facts=facts(source, settings) | {"verdict": _verdict(verdicts[settings.batch[0]])},
        measurements={"trials": [to_json(trial) for trial in trials]},
        rewrites=rewrites(made),
    )


def rewrites(made: Graphs) -> dict[int, Any]:
    """By batch size, what each pass did that changed the graph, or had to be left out."""
    return {
        size: [to_json(rewrite) for rewrite in every if rewrite.changes or rewrite.detail]
        for size, every in made.rewrites.items()
    }


def entries(trials: Sequence[Trial], verdicts: Mapping[int, Verdict]) -> tuple[Entry, ...]:
    """The winner of each batch size; then, where a winner may not run elsewhere, the best that will."""
    found = []
    for size, verdict in sorted(verdicts.items()):
        if verdict.winner is None:
            continue
        found.append(_entry(verdict.winner, "winner"))
        if verdict.winner.candidate.engine != "onnxruntime":
            fallback = _fallback(trials, size)
            found += [] if fallback is None else [_entry(fallback, "fallback")]
    return tuple(found)


def facts(source: Source, settings: Settings) -> dict[str, Any]:
    """Where a bundle comes from and was made."""
    return {
        "source": {
            "framework": source.framework,
            "name": source.path.name,
            "fingerprint": source.fingerprint,
            "notes": list(source.notes),
            "rows_mix": source.rows_mix,
        },
        "host": to_json(host.host()) | {"key": host.host_key()},
        "settings": to_json(settings.to_json()),
        "hasten": host.library_versions().get("hasten", ""),
    }


def _entry(trial: Trial, role: str) -> Entry:
    assert trial.artefact is not None
    latency = None if trial.measurement is None else trial.measurement.p50_ns.value
    artefact = replace(trial.artefact, candidate=trial.candidate)
    return Entry(artefact, role, latency, imported_version(trial.candidate.engine))


def imported_version(engine: str) -> str:
    """The version as the session's own process will read it: from the imported library."""
    with contextlib.suppress(ImportError, KeyError):
        importlib.import_module(LIBRARIES[engine])
    return library_version(engine)


def _fallback(trials: Sequence[Trial], size: int) -> Trial | None:
    """The fastest that runs wherever hasten is installed: onnxruntime is a core dependency, machine code is not."""
    able = [
        trial
        for trial in trials
        if trial.status == "ok"
        and trial.artefact is not None
        and trial.measurement is not None
        and trial.artefact.ships
        and trial.artefact.portable
        and trial.candidate.engine == "onnxruntime"
        and trial.candidate.batch == size
    ]
    return min(able, key=lambda trial: trial.measurement.p50_ns.value if trial.measurement else 0.0, default=None)


def _repeatable(plan: Plan, size: int, chosen: Sequence[Entry], allowed: Tolerance) -> list[Check]:
    """Inputs with the source's answers that everything in the bundle gives within the bounds that it is stored with.

    What was held to its accuracy on labelled rows may stray on edges far from them, and would be refused elsewhere. One
    stays in any case, the sample: without answers nothing can be explained or exported.
    """
    checks = plan.checks[size]
    found = list(zip(read_groups(checks.inputs), checks.read_expected(), strict=True))
    if plan.labelled is None or plan.tolerance is not None:
        return found
    artefacts = [entry.artefact for entry in chosen if entry.artefact.candidate.batch == size]
    for artefact in (a for a in artefacts if a.candidate.precision != "float32"):
        session = open_session(artefact)
        try:
            found = [check for check in found if _gives(session, check, allowed)] or found[:1]
        finally:
            session.close()
    return found


def _gives(session: Session, check: Check, allowed: Tolerance) -> bool:
    inputs, expected = check
    answer = session.call(*inputs)
    return compare([expected], [answer if isinstance(answer, tuple) else (answer,)], allowed).passed


def _stored_checks(checks: Sequence[Check]) -> tuple[tuple[tuple[Array, ...], ...], tuple[tuple[Array, ...], ...]]:
    samples: list[tuple[Array, ...]] = []
    expected: list[tuple[Array, ...]] = []
    total = 0
    for inputs, outputs in checks:
        total += sum(array.nbytes for array in (*inputs, *outputs))
        if samples and (len(samples) == _CHECKS or total > _CHECK_BYTES):
            break
        samples.append(inputs)
        expected.append(outputs)
    return tuple(samples), tuple(expected)


def _tolerance(plan: Plan, chosen: Sequence[Entry]) -> Tolerance:
    """What another host holds the stored answers against: what they were held against here."""
    allowed = plan.tolerance or Tolerance()
    lower = [e.artefact.candidate.precision for e in chosen if e.artefact.candidate.precision != "float32"]
    if plan.labelled is not None and lower:
        allowed = max((Tolerance.named(p.split("-")[0]) for p in lower), key=lambda t: t.absolute)
    return allowed.for_source(plan.computes_in, plan.steps, plan.spread)


def _verdict(verdict: Verdict) -> dict[str, Any]:
    def label(trial: Trial | None) -> str | None:
        return None if trial is None else trial.candidate.label

    return {
        "objective": verdict.objective,
        "winner": label(verdict.winner),
        "runner_up": label(verdict.runner_up),
        "original": label(verdict.original),
        "ratio": to_json(verdict.ratio),
        "gain": to_json(verdict.gain),
        "tie": verdict.tie,
        "original_stays": verdict.original_stays,
        "reason": verdict.reason,
    }
