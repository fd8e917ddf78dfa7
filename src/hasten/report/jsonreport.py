"""A ``Report`` enters; plain JSON leaves: every trial with its numbers, the raw samples named but not included."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hasten.records import to_json as record_json
from hasten.report import Report
from hasten.report.facts import headline

__all__ = ["SCHEMA", "finite", "to_json"]

SCHEMA = "hasten.report/1"
"""Changes when a field is renamed or changes its meaning; new fields may appear at any time."""


def to_json(report: Report) -> dict[str, Any]:
    """A dictionary that any JSON parser reads.

    A number that is NaN or infinite becomes null: JSON has neither, and the reason beside it says which it was.
    Units:   as the names end: ``_ns`` nanoseconds, ``_bytes`` bytes, ``_per_s`` per second
    """
    data = {k: v for k, v in vars(report).items() if k not in ("samples", "logs", "trials")}
    trials = []
    for trial in report.trials:
        entry = record_json(trial)
        entry["candidate"] |= {"key": trial.candidate.key, "label": trial.candidate.label}
        trials.append(entry)
    head = {"schema": SCHEMA, "headline": headline(report)}
    clean = finite({**head, **record_json(data), "trials": trials})
    assert isinstance(clean, dict)
    return clean


def finite(value: Any) -> Any:
    """The same dictionaries and lists with nothing in them that JSON lacks."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    if isinstance(value, np.generic | np.ndarray):
        return finite(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
