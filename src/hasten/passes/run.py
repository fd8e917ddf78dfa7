"""Runs phases of passes over a copy of a graph and holds every step to account.

After a pass that changed something the graph is checked; after each phase its answers on ``probe`` are compared with
those before. A pass that breaks either is left out and the phase run again without it, so that one bad rewrite costs
itself alone; ``strict`` raises instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from hasten.errors import PassError, SourceError
from hasten.graph import clone, reference
from hasten.graph.check import Signature, check, compatible, signature
from hasten.graph.shapes import infer
from hasten.passes import Pass, Rewrite
from hasten.passes.load import Load, load
from hasten.types import Array

__all__ = ["LastAnswers", "Probe", "run_phases"]

Probe = Sequence[Array] | Callable[[], Sequence[Array]]
Answers = tuple[Array, ...]

# A phase is run again until it changes nothing; what a pass uncovers for an earlier one is found within a few rounds.
_ROUNDS = 4

# Rewrites change the order of float32 sums; a wrong one is off by far more than this share of the largest answer.
_TOLERANCE = 1e-4


@dataclass
class LastAnswers:
    """What the reference last answered: a graph that comes out of one run enters the next, and is not run again.

    Holds for graphs that nobody changes in between.
    """

    model: ir.Model | None = None
    arrays: Answers = ()
    answers: Answers | None = None

    def of(self, model: ir.Model, arrays: Answers) -> Answers | None:
        """The graph's answers, run if it or the arrays are others than last time; None where it cannot be run."""
        if model is not self.model or not _identical(arrays, self.arrays):
            self.model, self.arrays, self.answers = model, arrays, _answers(model, arrays)
        return self.answers


def run_phases(
    model: ir.Model,
    phases: Sequence[Sequence[Pass]],
    *,
    probe: Probe | None = None,
    strict: bool = False,
    last: LastAnswers | None = None,
) -> tuple[ir.Model, tuple[Rewrite, ...]]:
    """An equal, simpler model, and what each pass did to it; ``model`` is left as it was.

    ``probe`` is one array for each input (or a function that makes them) on which the answers are compared. ``last``
    hands them on from one run to the next.

    Raises:  PassError: with ``strict``, a pass broke the graph or changed its answers; the message names it
    """
    current = model
    arrays = None if probe is None else tuple(probe() if callable(probe) else probe)
    last = last or LastAnswers()
    expected = None if arrays is None else last.of(current, arrays)
    rewrites: list[Rewrite] = []
    for phase in phases:
        attempt = _Attempt(tuple(phase), strict, inferred=current is not model)
        result = attempt.run(current)
        while arrays is not None and expected is not None:
            fault = _difference(expected, last.of(result, arrays))
            if fault is None:
                break
            attempt.blame(_guilty(attempt, current, arrays, expected), fault)
            result = attempt.run(current)
        current = result
        rewrites += attempt.rewrites()
    return current if phases else clone(model), tuple(rewrites)


@dataclass
class _Tally:
    changes: int = 0
    before: int = 0
    after: int = 0
    macs: int = 0
    weight_bytes: int = 0
    written_bytes: int = 0

    def saves(self, old: Load, new: Load) -> None:
        """Adds the difference of what a call takes before and after one change."""
        self.weight_bytes += old.weight_bytes - new.weight_bytes
        if old.macs is not None and new.macs is not None:
            self.macs += old.macs - new.macs
        if old.written_bytes is not None and new.written_bytes is not None:
            self.written_bytes += old.written_bytes - new.written_bytes


@dataclass
class _Attempt:
    """One phase on one model; remembers the passes that had to be left out and why."""

    passes: tuple[Pass, ...]
    strict: bool
    inferred: bool = False
    """What it starts from comes from a phase before it, whose every change was checked, and so inferred."""
    left_out: dict[str, str] = field(default_factory=dict)
    tallies: dict[str, _Tally] = field(default_factory=dict)
    steps: int = 0
    last: str = ""
    checks: Callable[[ir.Model], None] = check

    def run(self, start: ir.Model, limit: int | None = None) -> ir.Model:
        """The phase applied to a copy of ``start``; with ``limit``, only so many steps that change something."""
        while True:
            model = clone(start)
            if not self.inferred:
                infer(model)
            self.steps, self.tallies = 0, {}
            fault = self._rounds(model, limit)
            if fault is None:
                return model
            if self.checks is check and not _sound(start):
                self.checks = infer  # what was odd before is no pass's fault
            else:
                self.blame(*fault)

    def blame(self, name: str, reason: str) -> None:
        if self.strict or not name:
            raise PassError(f"pass '{name or 'unknown'}' broke the graph: {reason}; leave it out or report it")
        self.left_out[name] = reason

    def guilty(self, start: ir.Model, steps: int) -> str:
        """Name of the pass that made the ``steps``-th change."""
        self.run(start, steps)
        return self.last

    def rewrites(self) -> list[Rewrite]:
        """What each pass did, in order; those left out say why."""
        records = []
        for item in self.passes:
            tally = self.tallies.get(item.name, _Tally())
            reason = self.left_out.get(item.name)
            detail = "" if reason is None else f"left out: {reason}"
            saved = tally.macs, tally.weight_bytes, tally.written_bytes
            records.append(Rewrite(item.name, tally.changes, tally.before, tally.after, detail, *saved))
        return records

    def _rounds(self, model: ir.Model, limit: int | None) -> tuple[str, str] | None:
        taken = load(model)
        idle: set[Pass] = set()  # found nothing on the graph as it now is, and would find nothing again
        for _ in range(_ROUNDS):
            changed = 0
            for item in self.passes:
                if item.name in self.left_out or item in idle:
                    continue
                if limit is not None and self.steps >= limit:
                    return None
                before, shape = model.graph.num_nodes(), signature(model)
                try:
                    changes = item.apply(model)
                    if changes:
                        self.checks(model)
                        _check_signature(shape, signature(model))
                except Exception as error:
                    return item.name, str(error).splitlines()[0] if str(error) else type(error).__name__
                tally = self.tallies.setdefault(item.name, _Tally(0, before, before))
                tally.changes += changes
                tally.after += model.graph.num_nodes() - before  # by this pass alone, in every round
                idle = set() if changes else {*idle, item}
                if changes:
                    old, taken = taken, load(model)
                    tally.saves(old, taken)
                    self.steps, self.last, changed = self.steps + 1, item.name, changed + 1
            if not changed:
                break
        return None


def _check_signature(before: Signature, after: Signature) -> None:
    if not compatible(before, after):
        raise PassError(f"inputs or outputs changed: expected {before}, received {after}")


def _sound(model: ir.Model) -> bool:
    try:
        check(clone(model))
    except PassError:
        return False
    return True


def _guilty(attempt: _Attempt, start: ir.Model, arrays: Answers, expected: Answers) -> str:
    """The pass whose change first made the answers differ, found by halving."""
    good, bad = 0, attempt.steps
    while bad - good > 1:
        middle = (good + bad) // 2
        if _difference(expected, _answers(attempt.run(start, middle), arrays)) is None:
            good = middle
        else:
            bad = middle
    return attempt.guilty(start, bad) if bad else ""


def _answers(model: ir.Model, arrays: Answers) -> Answers | None:
    """None where ONNX Runtime cannot run the graph at all."""
    try:
        return reference.run(model, arrays)
    except SourceError:
        return None


def _identical(left: Answers, right: Answers) -> bool:
    """Whether they are the same bit by bit: NaN is NaN, and -0 is not 0."""
    return len(left) == len(right) and all(
        a is b or (a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())
        for a, b in zip(left, right, strict=True)
    )


def _difference(expected: Answers, received: Answers | None) -> str | None:
    """How the answers differ beyond rounding, or None."""
    if received is None:
        return "the reference can no longer run it"
    for index, (old, new) in enumerate(zip(expected, received, strict=True)):
        if not isinstance(old, np.ndarray) or old.size == 0:
            continue
        if old.shape != new.shape or old.dtype != new.dtype:
            return f"output {index}: expected {old.dtype}{list(old.shape)}, received {new.dtype}{list(new.shape)}"
        if old.dtype.kind not in "fiu":
            if not np.array_equal(old, new):
                return f"output {index}: values differ"
            continue
        a, b = old.astype(np.float64), new.astype(np.float64)
        finite = np.isfinite(a)
        if not np.array_equal(finite, np.isfinite(b)) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
            return f"output {index}: NaN or infinity where there was none, or the reverse"
        error = float(np.max(np.abs(a[finite] - b[finite]), initial=0))
        allowed = _allowed(a, old.dtype)
        if error > allowed:
            return f"output {index}: expected a difference up to {allowed:.3g}, received {error:.3g}"
    return None


def _allowed(expected: Array, dtype: Any) -> float:
    if dtype.kind in "iu":
        return 1.0 if dtype.itemsize == 1 else 0.0
    scale = float(np.max(np.abs(expected), initial=0, where=np.isfinite(expected)))
    return _TOLERANCE * (10 if dtype.itemsize == 2 else 1) * max(scale, 1e-3)
