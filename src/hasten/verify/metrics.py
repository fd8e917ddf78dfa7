"""Scores on labelled rows, for precisions whose numbers may move."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hasten.errors import InputError, SettingsError
from hasten.records import Comparison
from hasten.types import Array

__all__ = ["METRICS", "Metric", "accuracy_bound", "metric"]


@dataclass(frozen=True)
class Metric:
    """A score on labelled rows.

    Shapes:  score(outputs, labels): the model's outputs on N rows and N labels (class numbers or one-hot rows for the
             classifying metrics, values shaped like output 0 for the errors) → one number
    """

    name: str
    score: Callable[[Sequence[Array], Array], float]
    higher_is_better: bool = True

    def drop(self, source: float, candidate: float) -> float:
        """How much worse the candidate is; negative when better."""
        return source - candidate if self.higher_is_better else candidate - source


def metric(chosen: str | Metric | Callable[[Sequence[Array], Array], float]) -> Metric:
    """The metric of that name, or the user's own function as one (higher is better).

    Raises:  SettingsError: no such metric
    """
    if isinstance(chosen, Metric):
        return chosen
    if callable(chosen):
        return Metric(getattr(chosen, "__name__", "custom"), chosen)
    if chosen not in METRICS:
        raise SettingsError(f"unknown metric '{chosen}': expected one of {', '.join(METRICS)} or a function")
    return METRICS[chosen]


def accuracy_bound(comparison: Comparison, chosen: Metric, scores: tuple[float, float], max_drop: float) -> Comparison:
    """``comparison`` judged by labelled data instead of by distance: the numbers may move, the score may not.

    Structure and the NaN pattern are compared elsewhere and stay gates; ``scores``: the source's and the candidate's.
    """
    source, candidate = scores
    drop = chosen.drop(source, candidate)
    facts = {"source": source, "candidate": candidate, "drop": drop, "max_drop": max_drop}
    passed = bool(np.isfinite(candidate) and drop <= max_drop)
    reason = f"{chosen.name}: expected a drop of at most {max_drop:g}, received {drop:g} ({source:g} to {candidate:g})"
    return replace(comparison, passed=passed, reason=None if passed else reason, metric=facts)


def _classes(labels: Array, rows: int, name: str) -> Array:
    flat = labels.argmax(-1) if labels.ndim > 1 and labels.shape[-1] > 1 else labels.reshape(-1)
    if len(flat) != rows:
        raise InputError(f"metric '{name}': expected {rows} labels, received {len(flat)}")
    return flat


def _accuracy(outputs: Sequence[Array], labels: Array) -> float:
    scores = np.asarray(outputs[0])
    scores = scores.reshape(len(scores), -1)
    if scores.shape[1] == 1:  # one sigmoid unit
        return float(np.mean((scores[:, 0] > 0.5) == (_classes(labels, len(scores), "accuracy") > 0.5)))
    return float(np.mean(scores.argmax(1) == _classes(labels, len(scores), "accuracy")))


def _top5(outputs: Sequence[Array], labels: Array) -> float:
    scores = np.asarray(outputs[0]).reshape(len(outputs[0]), -1)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    return float(np.mean((best == _classes(labels, len(scores), "top5")[:, None]).any(1)))


def _difference(outputs: Sequence[Array], labels: Array) -> NDArray[np.float64]:
    values = np.asarray(outputs[0], np.float64)
    if values.size != labels.size:
        raise InputError(f"metric: expected labels of shape {values.shape}, received {labels.shape}")
    return np.asarray(values - labels.reshape(values.shape))


METRICS: dict[str, Metric] = {
    "accuracy": Metric("accuracy", _accuracy),
    "top5": Metric("top5", _top5),
    "mse": Metric("mse", lambda o, y: float(np.mean(_difference(o, y) ** 2)), higher_is_better=False),
    "mae": Metric("mae", lambda o, y: float(np.mean(np.abs(_difference(o, y)))), higher_is_better=False),
}
