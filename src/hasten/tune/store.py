"""Saved trials: each is written whole as soon as it is finished, so that a search that is killed goes on later.

A trial counts only for the same model, inputs, settings, library versions, host and code of hasten's own; anything
else has another name and is measured anew. To forget all of them, delete the folder.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hasten.host import host_key, library_versions
from hasten.records import Candidate, Trial, digest, to_json
from hasten.tune.arrays import read_groups
from hasten.tune.plan import Plan

__all__ = ["Store", "build_folder", "raw_samples"]


_ELSEWHERE = ("api", "bundle", "cli", "compress", "doctor", "report", "runtime", "serve", "stream")


class Store:
    """The folder of one plan's trials."""

    def __init__(self, plan: Plan) -> None:
        self.folder = plan.store / _plan_key(plan)
        self.folder.mkdir(parents=True, exist_ok=True)

    def trial_folder(self, candidate: Candidate) -> Path:
        """Where the candidate's trial, samples and log lie; made if absent."""
        return _made(self.folder / "trials", candidate)

    def load(self, candidate: Candidate) -> Trial | None:
        """The saved trial, or None where there is none, it is damaged, or its files are gone."""
        try:
            data = json.loads((self.trial_folder(candidate) / "trial.json").read_text())
            trial = Trial.from_json(data)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if trial.candidate != candidate:
            return None
        if trial.artefact and not all((trial.artefact.folder / name).is_file() for name in trial.artefact.files):
            return None
        if trial.measurement and raw_samples(trial) is None:
            return None
        return trial

    def save(self, trial: Trial, samples: NDArray[np.float64] | None = None) -> Trial:
        """Writes samples and trial, the trial last and by a rename: it is there whole or not at all.

        Returns the trial with the names of its files filled in.
        """
        folder = self.trial_folder(trial.candidate)
        measurement = trial.measurement
        if measurement is not None and samples is not None:
            np.save(folder / "samples.part.npy", samples)
            (folder / "samples.part.npy").replace(folder / "samples.npy")
            measurement = replace(measurement, raw=str(folder / "samples.npy"))
        whole = replace(trial, measurement=measurement, log=trial.log or str(folder / "log.txt"))
        temporary = folder / "trial.json.part"
        temporary.write_text(json.dumps(to_json(whole)))
        temporary.replace(folder / "trial.json")
        return whole


def build_folder(plan: Plan, candidate: Candidate) -> Path:
    """Where the candidate's artefact lies; made if absent. Neither checks nor limits have a part in it."""
    return _made(plan.store / "builds" / digest(_model_facts(plan)), candidate)


def _made(folder: Path, candidate: Candidate) -> Path:
    words = "-".join([candidate.engine, candidate.key, digest(library_versions(candidate.engine))[:8]])
    made = folder / words
    made.mkdir(parents=True, exist_ok=True)
    return made


def raw_samples(trial: Trial) -> NDArray[np.float64] | None:
    """Every latency of the trial in order (nanoseconds), or None where none were kept."""
    if trial.measurement is None or trial.measurement.raw is None:
        return None
    try:
        found: NDArray[np.float64] = np.load(trial.measurement.raw, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found


def _plan_key(plan: Plan) -> str:
    labelled = plan.labelled
    facts: dict[str, Any] = _model_facts(plan) | {
        "inputs": {str(b): [c.names, _content(c.inputs)] for b, c in sorted(plan.checks.items())},
        "settings": [plan.limits.measure_s, plan.tolerance, plan.computes_in, plan.steps, plan.spread],
        "labelled": labelled and [_content(labelled.inputs), labelled.metric, labelled.max_drop, labelled.source_score],
    }
    return digest(facts)


def _model_facts(plan: Plan) -> dict[str, Any]:
    """What decides over the files that an engine builds."""
    return {
        "model": [plan.fingerprint, plan.framework, str(plan.source) if not plan.fingerprint else ""],
        "specs": [plan.inputs, plan.outputs],
        "calibration": plan.calibration and digest(plan.calibration.read_bytes()),
        "engines": [plan.engines, plan.sessions],
        "schedule": plan.schedule,
        "host": host_key(),
        "code": _code_digest(),
    }


def _content(path: Path) -> str:
    """Names the arrays of a file; the file's own bytes hold the time at which it was written."""
    state = hashlib.sha256()
    for group in read_groups(path):
        for array in group:
            state.update(f"{array.dtype}{array.shape}".encode())
            state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()[:16]


@cache
def _code_digest() -> str:
    """Names hasten's own sources in the rooms that make, run or measure a candidate.

    A changed compiler or rewrite makes another candidate; a changed report or command line does not.
    """
    root = Path(__file__).resolve().parents[1]
    state = hashlib.sha256()
    found = [p for p in root.rglob("*") if p.suffix in (".py", ".c", ".h", ".so")]
    for path in sorted(p for p in found if p.relative_to(root).parts[0] not in _ELSEWHERE):
        state.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return state.hexdigest()[:16]
