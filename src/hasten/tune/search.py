"""A ``Plan`` enters; each candidate is built, checked and timed in processes of its own; its ``Trial`` is saved."""

from __future__ import annotations

from collections.abc import Callable

from hasten.records import Trial
from hasten.tune.plan import Event, Plan

__all__ = ["search"]


def search(plan: Plan, on_event: Callable[[Event], None] = lambda event: None) -> tuple[Trial, ...]:
    """One trial for every candidate of the plan, the skipped ones included, in the plan's order."""
    raise NotImplementedError
