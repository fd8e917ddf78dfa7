"""Trials enter; a ``Verdict`` leaves: which candidate ships, or that the original stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hasten.records import Interval, Trial
from hasten.tune.plan import Bounds
from hasten.tune.playoff import Rounds

__all__ = ["OBJECTIVES", "Verdict", "choose", "leaders"]

OBJECTIVES = ("p50", "p99", "p99.9", "throughput", "memory", "size")


@dataclass(frozen=True)
class Verdict:
    """The decision and what it rests on.

    Units:   ratios: other ÷ winner in the objective's cost, so above 1 the winner is better
    """

    objective: str
    statistic: str
    """What was compared: the objective, or a lower percentile where there are too few samples for it."""
    winner: Trial | None
    """The best that can be shipped; None when nothing passed verification and the bounds."""
    runner_up: Trial | None
    """The best other candidate that can be shipped."""
    original: Trial | None
    """The best call of the user's own framework."""
    ratio: Interval | None
    """runner_up ÷ winner."""
    gain: Interval | None
    """original ÷ winner."""
    tie: bool
    """The winner is not better than the runner-up or the original beyond the noise; it won as the simpler one."""
    original_stays: bool
    """Nothing beats the user's own framework beyond the noise."""
    reason: str


def leaders(
    trials: Sequence[Trial], objective: str = "p99", bounds: Bounds | None = None, count: int = 4
) -> tuple[Trial, ...]:
    """The candidates worth a play-off: the best ``count`` that can be shipped, and the framework's best call."""
    raise NotImplementedError


def choose(
    trials: Sequence[Trial], objective: str = "p99", bounds: Bounds | None = None, rounds: Rounds | None = None
) -> Verdict:
    """The verdict over all trials; where ``rounds`` holds a candidate its paired samples decide.

    Raises:  SettingsError: unknown objective
    """
    raise NotImplementedError
