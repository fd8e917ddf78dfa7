"""The leaders' sessions, each alive in its own process, are timed in turns, so that a drifting machine hurts all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hasten.records import Trial
from hasten.tune.plan import Event, Plan

__all__ = ["Rounds", "playoff"]


@dataclass(frozen=True)
class Rounds:
    """Paired samples: block k of every leader was timed in round k.

    Units:   nanoseconds per call
    """

    blocks: Mapping[str, tuple[NDArray[np.float64], ...]]
    """Candidate key → one array a round."""


def playoff(
    plan: Plan, leaders: Sequence[Trial], seconds: float, on_event: Callable[[Event], None] = lambda event: None
) -> Rounds:
    """Samples of every leader, taken in interleaved rounds that last ``seconds`` altogether."""
    raise NotImplementedError
