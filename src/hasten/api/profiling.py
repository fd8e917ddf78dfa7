"""The winner's time by operator, for the report: the native program's own steps, or ONNX Runtime's profile."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from hasten import graph
from hasten.api.explaining import winner_profile
from hasten.records import Trial
from hasten.report import OpTime, Peaks
from hasten.tune.arrays import read_groups
from hasten.tune.plan import Plan
from hasten.types import Array

__all__ = ["ByOp", "by_op"]

_WARM, _TIMED = 20, 200


@dataclass(frozen=True)
class ByOp:
    """Operators with their times, and what the machine can do at most where that was measured."""

    times: tuple[OpTime, ...] = ()
    peaks: Peaks | None = None


def by_op(plan: Plan, winner: Trial | None) -> ByOp:
    """Where the winner's time goes; nothing for engines that do not tell."""
    if winner is None or winner.artefact is None:
        return ByOp()
    size = winner.candidate.batch
    arrays = read_groups(plan.checks[size].inputs)[0]
    if winner.candidate.engine == "native" and size in plan.graphs:
        found = winner_profile(graph.read(plan.graphs[size]), arrays)
        return ByOp() if found is None else ByOp(*found)
    if winner.candidate.engine == "onnxruntime":
        return ByOp(_profiled(winner, arrays))
    return ByOp()


def _profiled(winner: Trial, arrays: Sequence[Array]) -> tuple[OpTime, ...]:
    """Shares by ONNX Runtime's own profiler; its marks slow operators: times are shares of the call."""
    assert winner.artefact is not None and winner.measurement is not None
    with tempfile.TemporaryDirectory(prefix="hasten-") as folder:
        options = onnxruntime.SessionOptions()
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
        options.intra_op_num_threads, options.log_severity_level = winner.candidate.threads, 3
        try:
            path = str(winner.artefact.path(".onnx"))
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            given = {value.name: array for value, array in zip(session.get_inputs(), arrays, strict=True)}
            for _ in range(_WARM + _TIMED):
                session.run(None, given)
            events = json.loads(Path(session.end_profiling()).read_text())
        except Exception:  # onnxruntime's exceptions share no base; a report without this part is still a report
            return ()
    return _shared(events, winner.measurement.p50_ns.value)


def _shared(events: Sequence[dict[str, object]], call_ns: float) -> tuple[OpTime, ...]:
    """Each node's part of ``call_ns``, by the median of its timed calls."""
    durations: dict[tuple[str, str], list[float]] = {}
    for event in events:
        details = event.get("args")
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith("_kernel_time") and isinstance(details, dict):
            key = (name.removesuffix("_kernel_time"), str(details.get("op_name", "")))
            durations.setdefault(key, []).append(float(str(event["dur"])))
    usual = {key: float(np.median(spent[_WARM:])) for key, spent in durations.items() if len(spent) > _WARM}
    total = sum(usual.values()) or 1.0
    return tuple(OpTime(name, op, part / total * call_ns, part / total) for (name, op), part in usual.items())
