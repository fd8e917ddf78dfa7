"""A ``Plan`` enters; each candidate is built, checked and timed in processes of its own; its ``Trial`` is saved.

What all are sure to need is built first, several at a time; then one process at a time: nothing is built while
something else is timed. Each engine's first candidate comes first, and native code's second beside it, then the rest
of those that are quick to try, then frameworks. What no longer fits into the budget is skipped without being saved, and
what was saved costs nothing, so running again goes on where the last run ended. On a slow machine the budget is
overdrawn until one that can be shipped has passed: at most by as much again for what must be converted or compiled
first, and for as long as it takes for what need not.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

import psutil

from hasten.errors import SettingsError
from hasten.records import FRAMEWORKS, Candidate, Trial
from hasten.tune.builds import Builds, built_as
from hasten.tune.plan import Event, Plan
from hasten.tune.processes import WarmPool
from hasten.tune.store import Store
from hasten.tune.trial import Attempt, attempt

__all__ = ["ahead", "search", "try_order"]

OnEvent = Callable[[Event], None]

# Seconds that one candidate takes besides the measuring: what opening and checking it usually cost, and building it
# where that is still to be done. A first guess, replaced by what was seen once one of the engine has been tried.
_USUAL_S = {"native": 0.5, "onnxruntime": 0.7, "litert": 0.6, "openvino": 1.0, "keras": 2.7, "torch": 2.0}
_USUAL_BUILD_S = {"native": 3.0, "litert": 4.0, "torch": 3.0}
_AT_HAND = ("native", "onnxruntime")
# Of the time for the search, what may go by while nothing is measured yet, and at most so many seconds.
_AHEAD_SHARE, _AHEAD_S = 0.4, 10.0


def search(plan: Plan, on_event: OnEvent = lambda event: None, builds: Builds | None = None) -> tuple[Trial, ...]:
    """One trial for every candidate of the plan and every one that it skipped, in the plan's order.

    ``builds`` may have been begun already; without it they are begun and ended here.

    An interruption (Ctrl-C) ends the candidate at hand and returns what there is; the rest is skipped and
    ``on_event`` hears ``interrupted``. What goes wrong with a candidate is its trial's reason.

    Raises:  SettingsError: a candidate of a batch size that the plan has no checks for, or of an unknown engine
    """
    for candidate in plan.candidates:
        if candidate.batch not in plan.checks or candidate.engine not in plan.engines:
            known = f"batches {sorted(plan.checks)} and engines {sorted(plan.engines)}"
            raise SettingsError(f"cannot try '{candidate.label}' (batch {candidate.batch}): expected {known}")
    store = Store(plan)
    run = _Search(plan, store, on_event)
    try:
        with ExitStack() as stack:
            if builds is None:
                pool = stack.enter_context(WarmPool(store.folder, plan.limits.open_s))
                builds = stack.enter_context(Builds(plan, pool))
            run.all(builds)
    except KeyboardInterrupt:
        on_event(Event("interrupted", run.done, len(plan.candidates)))
        run.skip_rest("not tried: the search was interrupted; run again to continue")
    return tuple(run.trials[c] for c in plan.candidates) + plan.skipped


def ahead(plan: Plan) -> tuple[Candidate, ...]:
    """What is sure to be tried and can be built before the source has answered: no framework, nothing reduced.

    Of that, no more than usually ends in time: a conversion that is given up has slowed the others down.
    """
    first = min((c.batch for c in plan.candidates), default=1)
    order = try_order(plan.candidates)
    sure = [c for c in order if c.engine not in FRAMEWORKS and c.batch == first and c.precision == "float32"]
    time_s = min(_AHEAD_S, _AHEAD_SHARE * plan.limits.budget_s) * (psutil.cpu_count() or 1)
    builds = list(dict.fromkeys(built_as(c, plan) for c in sure))
    ends_s = itertools.accumulate(map(_usual_build_s, builds))
    in_time = [build for build, end_s in zip(builds, ends_s, strict=True) if end_s <= time_s]
    return tuple(c for c in sure if built_as(c, plan) in in_time)


def try_order(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The order in which candidates are tried: each engine's first, then the quick ones' rest, then the slow ones'.

    Of the firsts, native code opens, the user's own call follows (no claim can be made without it), then what else
    needs no conversion and native code with more threads (the other that often wins), and then the others. Frameworks
    list their call paths from what people write to what is best; those are taken from both ends in turn, so that the
    honest baseline is measured even where the time does not suffice for all.
    """
    firsts = {c.engine: c for c in reversed(candidates)}
    early = [*firsts.values(), *_threaded(candidates, firsts.get("native"))]
    opening = sorted((c for c in candidates if c in early), key=lambda c: _opening_rank(c, firsts[c.engine]))
    rest = [c for c in candidates if c not in early]
    slow = [c for c in rest if c.engine in FRAMEWORKS]
    ends = [slow[-1 - k // 2] if k % 2 == 0 else slow[k // 2] for k in range(len(slow))]
    return (*opening, *(c for c in rest if c.engine not in FRAMEWORKS), *ends)


def _threaded(candidates: Sequence[Candidate], first: Candidate | None) -> list[Candidate]:
    """The candidate that is ``first`` with more threads and nothing else changed, if there is one."""
    if first is None:
        return []
    return [c for c in candidates if c.threads > first.threads and replace(c, threads=first.threads) == first][:1]


def _opening_rank(candidate: Candidate, first: Candidate) -> int:
    if candidate.is_own_call:
        return 1
    if candidate.engine in _AT_HAND:
        return (0 if candidate.engine == "native" else 2) if candidate == first else 3
    return 4


def _usual_build_s(candidate: Candidate) -> float:
    as_it_is = candidate.option("form") == "file"
    return 0.5 if as_it_is else _USUAL_BUILD_S.get(candidate.engine, 0.5)


def _way(candidate: Candidate) -> str:
    """Candidates that take about as long to try: the user's own call opens the file as it is, the others our graph."""
    return f"{candidate.engine} call" if candidate.option("call") else candidate.engine


class _Search:
    def __init__(self, plan: Plan, store: Store, on_event: OnEvent) -> None:
        self.plan, self.on_event = plan, on_event
        self.trials: dict[Candidate, Trial] = {}
        self.done = 0
        self._store = store
        self._end = time.monotonic() + plan.limits.budget_s
        self._seen_s: dict[str, float] = {}

    def all(self, builds: Builds) -> None:
        """Every candidate: first those that were saved, then the others while there is time."""
        waiting = []
        for candidate in try_order(self.plan.candidates):
            saved = self._store.load(candidate)
            if saved is None:
                waiting.append(candidate)
            else:
                self._finish("resumed", saved)
        self._settle(builds, waiting)
        for candidate in waiting:
            kept = self._kept_s(candidate, waiting, builds)
            left = self._end - kept - time.monotonic()
            needed = self._expected_s(candidate, builds)
            if needed > left and self._seen_s and self._may_skip(candidate, left):
                reason = f"no time left: needs about {needed:.0f} s, {max(left, 0):.0f} s remain; run again to continue"
                self._finish("finished", Trial(candidate, "skipped", reason))
            else:
                # What is kept for others is not overdrawn.
                end = self._end - kept - (self.plan.limits.over_s if kept else 0.0)
                at_least = 0.0 if self._passed() else self.plan.limits.build_s
                self._try(candidate, max(end, time.monotonic() + at_least), builds)

    def _kept_s(self, candidate: Candidate, waiting: Sequence[Candidate], builds: Builds) -> float:
        """Seconds kept for one more that can be shipped, while the user's own call of any slowness is timed."""
        if not candidate.is_own_call:
            return 0.0
        others = (c for c in waiting if c not in self.trials and not c.is_own_call)
        ready = next((c for c in others if c.engine in _AT_HAND and builds.is_built(c)), None)
        return 0.0 if ready is None else self._expected_s(ready, builds)

    def _may_skip(self, candidate: Candidate, left_s: float) -> bool:
        """Whether there will be something to ship without it, or waiting for it would be without end."""
        costly = candidate.engine in FRAMEWORKS or candidate.engine in _USUAL_BUILD_S
        return self._passed() or (costly and left_s < -self.plan.limits.budget_s)

    def _passed(self) -> bool:
        """Whether there is anything yet that could be shipped."""
        built = (t.artefact for t in self.trials.values() if t.status == "ok")
        return any(artefact is not None and artefact.ships for artefact in built)

    def _settle(self, builds: Builds, waiting: Sequence[Candidate]) -> None:
        """Builds what is sure to be needed, so that afterwards nothing but the candidate at hand is running."""
        wanted = [c for c in ahead(self.plan) if c in waiting and not builds.is_built(c)]
        builds.begin(wanted)
        if wanted:
            self._tell("stage", wanted[0], "building")
        # Without anything to try, the first must be waited for.
        needed = [] if any(map(builds.is_built, waiting)) else wanted[:1]
        builds.settle(min(_AHEAD_S, _AHEAD_SHARE * max(0.0, self._end - time.monotonic())), needed)

    def _expected_s(self, candidate: Candidate, builds: Builds) -> float:
        guess = _USUAL_S.get(candidate.engine, 2.0) + 2 * self.plan.limits.measure_s
        building = 0.0
        if not builds.is_built(candidate):  # what did not end ahead takes at least as long again
            building = max(_usual_build_s(candidate), builds.given_up_s(candidate))
        return self._seen_s.get(_way(candidate), guess) + building

    def _try(self, candidate: Candidate, end_s: float, builds: Builds) -> None:
        built = builds.is_built(candidate)
        begin = time.monotonic()
        self._tell("started", candidate)
        given = Attempt(self.plan, self._store, builds, end_s)
        trial = attempt(candidate, given, lambda stage: self._tell("stage", candidate, stage))
        took = time.monotonic() - begin
        way = _way(candidate)
        if trial.measurement is not None or way not in self._seen_s:
            self._seen_s[way] = took if built else took - (trial.build_ns or 0.0) / 1e9
        self._finish("finished", trial)

    def _finish(self, kind: str, trial: Trial) -> None:
        self.trials[trial.candidate] = trial
        self.done += 1
        self.on_event(Event(kind, self.done, len(self.plan.candidates), trial.candidate, trial=trial))

    def _tell(self, kind: str, candidate: Candidate, stage: str = "") -> None:
        self.on_event(Event(kind, self.done, len(self.plan.candidates), candidate, stage))

    def skip_rest(self, reason: str) -> None:
        """A skipped trial for each candidate that has none yet."""
        for candidate in self.plan.candidates:
            self.trials.setdefault(candidate, Trial(candidate, "skipped", reason))
