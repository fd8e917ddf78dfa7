"""One habit to measure: the same work done as found and as advised."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Habit", "measure"]


@dataclass(frozen=True)
class Habit:
    """``before`` and ``after`` do the same work once; ``per`` says what that work is."""

    rule: str
    per: str
    before: Callable[[], object]
    after: Callable[[], object]
    rounds: int = 15


def measure(habit: Habit) -> dict[str, object]:
    """Median, 5th and 95th percentile of both sides, taken in turns after a warm-up.

    Units:   *_us: microseconds for ``per``
    """
    for _ in range(2):
        habit.before()
        habit.after()
    gc.collect()
    times: dict[str, list[float]] = {"before": [], "after": []}
    for _ in range(habit.rounds):
        for side, call in (("before", habit.before), ("after", habit.after)):
            start = time.perf_counter_ns()
            call()
            times[side].append((time.perf_counter_ns() - start) / 1e3)
    before, after = (statistics.median(times[side]) for side in ("before", "after"))
    found: dict[str, object] = {"rule": habit.rule, "per": habit.per, "rounds": habit.rounds}
    found |= {"before_us": round(before, 2), "after_us": round(after, 2), "ratio": round(before / after, 2)}
    found |= {f"{side}_samples_us": [round(t, 2) for t in taken] for side, taken in times.items()}
    return found
