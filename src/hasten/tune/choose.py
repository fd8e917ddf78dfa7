"""Trials enter; a ``Verdict`` leaves: which candidate ships, or that the original stays.

Where a play-off was held, its players alone are judged, by the samples that they took in turns. The best by the
objective wins only where it beats each other candidate beyond the noise, a tail in most of the rounds too: a burst of a
neighbour's work is nobody's tail. Of those that it does not beat, the ones whose median is beaten leave (tails are
noisy, medians are not), and then the simplest wins: the earlier engine of the table, float32, fewer threads, fewer
options.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hasten.engines import ENGINES
from hasten.errors import SettingsError
from hasten.measure import statistics
from hasten.records import Candidate, Interval, Trial
from hasten.tune.plan import Bounds
from hasten.tune.playoff import Rounds
from hasten.tune.store import raw_samples

__all__ = ["OBJECTIVES", "Verdict", "choose", "leaders"]

OBJECTIVES = ("p50", "p99", "p99.9", "throughput", "memory", "size")

_PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9}
# A difference of memory below this is the allocator's, of size the file's padding.
_EXACT_MARGIN = 0.02
# Part of the rounds in which a tail must be the better one: of 16 coins, 12 fall alike once in 26 times.
_STEADY_SHARE = 0.75


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
    """The best of the user's own calls: in the framework, or of the file as it is."""
    ratio: Interval | None
    """runner_up ÷ winner, at the median where that decided."""
    gain: Interval | None
    """original ÷ winner."""
    tie: bool
    """The winner does not beat the runner-up or the original beyond the noise; it won as the simpler one."""
    original_stays: bool
    """Nothing beats the user's own best call beyond the noise; that may be the winner itself."""
    reason: str
    gain_statistic: str = ""
    """What ``gain`` compares: ``statistic``, a lower percentile where the original has too few samples for it, or the
    median where they are level by both."""


def leaders(
    trials: Sequence[Trial], objective: str = "p99", bounds: Bounds | None = None, count: int = 4
) -> tuple[Trial, ...]:
    """The candidates worth a play-off: the best ``count`` that can be shipped, and the users' own best call.

    The best by the objective and the best by the median come in turn: a tail may have been a neighbour's fault. Those
    more than twice as costly as the best by both are left out, and their own call more than five times as costly:
    their trials already tell, and opening them again takes seconds. For ``memory`` and ``size`` there is nothing to
    play off.
    """
    table = _Table(trials, objective, None)
    if objective in ("memory", "size"):
        return ()
    shippable = table.eligible(bounds or Bounds())
    orders = [sorted(shippable, key=key) for key in (table.cost, table.median)]
    near = [
        t
        for pair in zip(*orders, strict=True)
        for t in pair
        if table.cost(t) <= 2 * table.cost(orders[0][0]) or table.median(t) <= 2 * table.median(orders[1][0])
    ]
    near = sorted({t.candidate.key: t for t in near[: 2 * count]}.values(), key=table.cost)
    original = table.original()
    if original is None or original in near or (near and table.ratio(original, near[0]).low > 5):
        return tuple(near)
    return (*near, original)


def choose(
    trials: Sequence[Trial], objective: str = "p99", bounds: Bounds | None = None, rounds: Rounds | None = None
) -> Verdict:
    """The verdict over all trials; where ``rounds`` holds both sides of a comparison its paired samples decide.

    A latency is compared among trials of the smallest batch alone: calls of unlike batches are unlike calls.

    Raises:  SettingsError: unknown objective
    """
    table = _Table(trials, objective, rounds)
    shippable = sorted(table.contenders(bounds or Bounds()), key=table.cost)
    original = table.original()
    if not shippable:
        reason = _why_none(trials, table, bounds or Bounds())
        return Verdict(
            objective, table.statistic, None, None, original, None, None, False, original is not None, reason
        )
    best = shippable[0]
    equals = _undecided(table, shippable)
    winner = min(equals, key=lambda t: (_simplicity(t.candidate), table.cost(t)))
    others = [t for t in shippable if t is not winner]
    runner_up = others[0] if others else None
    ratio = table.deciding_ratio(runner_up, winner) if runner_up else None
    gain = table.deciding_ratio(original, winner) if original else None
    original_stays = original is not None and (table.beats(original, winner) or not table.prevails(winner, original))
    tie = (runner_up is not None and not table.prevails(winner, runner_up)) or original_stays
    verdict = Verdict(
        objective=objective,
        statistic=table.statistic,
        winner=winner,
        runner_up=runner_up,
        original=original,
        ratio=ratio,
        gain=gain,
        gain_statistic=table.deciding_statistic(original, winner) if original else "",
        tie=tie,
        original_stays=original_stays,
        reason="",
    )
    return replace(verdict, reason=_why(verdict, best, table, bounds or Bounds()))


def _undecided(table: _Table, shippable: Sequence[Trial]) -> list[Trial]:
    """The candidates that the best does not beat, neither by the objective nor, for a percentile, at the median."""
    best = shippable[0]
    equals = [t for t in shippable if not table.beats(best, t)]
    if table.objective not in _PERCENTILES:
        return equals
    median = min(equals, key=table.median)
    return [t for t in equals if not _beats(table, table.ratio(t, median, "p50"))]


def _beats(table: _Table, ratio: Interval, statistic: str = "p50") -> bool:
    if table.objective in ("memory", "size"):
        return statistics.beyond_noise(ratio, _EXACT_MARGIN)
    tail = statistic not in ("p50", "throughput")
    return statistics.beyond_noise(ratio, statistics.BETWEEN_TAILS if tail else statistics.BETWEEN_PROCESSES)


def _simplicity(candidate: Candidate) -> tuple[int, int, int, int, int, str]:
    order = list(ENGINES)
    rank = order.index(candidate.engine) if candidate.engine in order else len(order)
    reduced = int(candidate.precision != "float32")
    return rank, reduced, candidate.threads, candidate.batch, len(candidate.options), candidate.label


class _Table:
    """The trials of one decision and what each costs by its objective: nanoseconds per row, or bytes."""

    def __init__(self, trials: Sequence[Trial], objective: str, rounds: Rounds | None) -> None:
        if objective not in OBJECTIVES:
            raise SettingsError(f"unknown objective '{objective}': expected one of {', '.join(OBJECTIVES)}")
        self.objective = objective
        self._blocks = dict(rounds.blocks) if rounds else {}
        measured = [t for t in trials if t.measurement is not None and t.artefact is not None]
        if objective.startswith("p") and measured:
            smallest = min(t.candidate.batch for t in measured)
            measured = [t for t in measured if t.candidate.batch == smallest]
        self._measured = measured
        self._samples = {t.candidate.key: self._read(t) for t in measured} if objective in _PERCENTILES else {}
        self.statistic = self._statistic()
        self._costs = {t.candidate.key: self._cost(t) for t in measured}

    def _read(self, trial: Trial) -> NDArray[np.float64]:
        blocks = self._blocks.get(trial.candidate.key)
        if blocks:
            return np.concatenate(blocks)
        found = raw_samples(trial)
        assert trial.measurement is not None
        return found if found is not None and len(found) else np.array([trial.measurement.p50_ns.value])

    def _statistic(self) -> str:
        """The objective, or the highest percentile below it that all have samples enough for."""
        if self.objective not in _PERCENTILES:
            return self.objective
        return self._common([t for t in self._measured if t.status == "ok" and _ships(t)], self.objective)

    def _common(self, trials: Sequence[Trial], wanted: str) -> str:
        """The highest percentile up to ``wanted`` that every one of ``trials`` has samples enough for."""
        fewest = min((len(self._samples[t.candidate.key]) for t in trials), default=1)
        names = [n for n, q in _PERCENTILES.items() if q <= _PERCENTILES[wanted] and statistics.enough(fewest, q)]
        return names[-1]

    def _shared(self, other: Trial, winner: Trial) -> str:
        """What ``ratio`` compares the two by."""
        return self._common([other, winner], self.statistic) if self._samples else self.statistic

    def cost(self, trial: Trial) -> float:
        """What the trial costs; less is better."""
        return self._costs[trial.candidate.key]

    def _cost(self, trial: Trial) -> float:
        assert trial.measurement is not None and trial.artefact is not None
        if self.objective == "throughput":
            return 1e9 / trial.measurement.rate_per_s
        if self.objective == "memory":
            return float(trial.measurement.resident_bytes or np.inf)
        if self.objective == "size":
            return float(trial.artefact.nbytes)
        return float(np.percentile(self._samples[trial.candidate.key], _PERCENTILES[self.statistic]))

    def eligible(self, bounds: Bounds) -> list[Trial]:
        """Those that can be shipped: verified, without the framework, within the bounds."""
        return [t for t in self._measured if t.status == "ok" and _ships(t) and not self._breaks(t, bounds)]

    def _breaks(self, trial: Trial, bounds: Bounds) -> bool:
        return self.by_bounds(trial, bounds) > 1

    def by_bounds(self, trial: Trial, bounds: Bounds) -> float:
        """What it costs by what it may cost, latency or memory, whichever is the more; 0 without bounds."""
        assert trial.measurement is not None
        found = [0.0]
        if bounds.max_memory_bytes is not None:
            found.append((trial.measurement.resident_bytes or np.inf) / bounds.max_memory_bytes)
        if bounds.max_latency_ns is not None:
            latency = trial.measurement.p99_ns or trial.measurement.p50_ns
            cost = self.cost(trial) if self.objective in _PERCENTILES else latency.value
            found.append(cost / bounds.max_latency_ns)
        return max(found)

    def original(self) -> Trial | None:
        """The users' best call; one whose answers stray from the reference only where none other is there."""
        own = [t for t in self._measured if t.candidate.is_own_call and self.cost(t) > 0]
        own = [t for t in own if t.status == "ok"] or own
        if not self._samples:
            return min(own, key=self.cost, default=None)
        q = _PERCENTILES[self._common(own, self.statistic)]  # a call of 50 ms has too few samples for a tail
        return min(own, key=lambda t: float(np.percentile(self._samples[t.candidate.key], q)), default=None)

    def contenders(self, bounds: Bounds) -> list[Trial]:
        """Those among whom one is chosen: the players of the play-off, or all that can be shipped without one."""
        eligible = self.eligible(bounds)
        return [t for t in eligible if t.candidate.key in self._blocks] or eligible

    def median(self, trial: Trial) -> float:
        """The median latency per row."""
        assert trial.measurement is not None
        samples = self._samples.get(trial.candidate.key)
        found = trial.measurement.p50_ns.value if samples is None else float(np.median(samples))
        return found / trial.candidate.batch

    def beats(self, better: Trial, other: Trial) -> bool:
        """Whether one beats another beyond the noise by the objective; a tail, in most of the rounds as well."""
        return _beats(self, self.ratio(other, better), self.statistic) and self._steadily(better, other)

    def _steadily(self, better: Trial, other: Trial) -> bool:
        a, b = (self._blocks.get(t.candidate.key) for t in (better, other))
        if self.statistic not in _PERCENTILES or self.statistic == "p50" or not a or not b:
            return True
        q = _PERCENTILES[self.statistic]
        wins = [np.percentile(x, q) < np.percentile(y, q) for x, y in zip(a, b, strict=True)]
        return float(np.mean(wins)) >= _STEADY_SHARE

    def prevails(self, winner: Trial, other: Trial) -> bool:
        """Whether one beats another by the objective or, for a percentile that leaves them level, at the median."""
        return self.beats(winner, other) or self._by_median(winner, other)

    def _by_median(self, winner: Trial, other: Trial) -> bool:
        return self.objective in _PERCENTILES and _beats(self, self.ratio(other, winner, "p50"))

    def deciding_ratio(self, other: Trial, winner: Trial) -> Interval:
        """``other`` ÷ ``winner`` by the objective; at the median where the objective leaves them level."""
        return self.ratio(other, winner, "p50" if self._median_decides(other, winner) else None)

    def deciding_statistic(self, other: Trial, winner: Trial) -> str:
        """What ``deciding_ratio`` compares the two by."""
        return "p50" if self._median_decides(other, winner) else self._shared(other, winner)

    def _median_decides(self, other: Trial, winner: Trial) -> bool:
        return not self.beats(winner, other) and not self.beats(other, winner) and self._by_median(winner, other)

    def ratio(self, other: Trial, winner: Trial, statistic: str | None = None) -> Interval:
        """``other`` ÷ ``winner`` in cost or at another percentile, paired where a play-off timed both."""
        if other is winner:
            return Interval(1.0, 1.0, 1.0)
        if self.objective in ("memory", "size"):
            value = self.cost(other) / max(self.cost(winner), 1.0)
            return Interval(value, value, value)
        a, b = other.candidate.key, winner.candidate.key
        if self.objective == "throughput":
            return self._rates_ratio(other, winner)
        q = _PERCENTILES[statistic or self._shared(other, winner)]
        if a in self._blocks and b in self._blocks:
            ours, theirs = self._blocks[a], self._blocks[b]
            return statistics.typical_ratio(ours, theirs) if q == 50 else statistics.paired_ratio(ours, theirs, q)
        return statistics.ratio(self._samples[a], self._samples[b], q)

    def _rates_ratio(self, other: Trial, winner: Trial) -> Interval:
        """Rates are of means; their interval is that of block means, drawn like the percentiles'."""
        means = []
        for trial in (other, winner):
            blocks = self._blocks.get(trial.candidate.key) or np.array_split(self._read(trial), 32)
            found = np.array([b.mean() for b in blocks if len(b)]) / trial.candidate.batch
            means.append(found)
        draws = np.random.default_rng(0)
        above, below = (m[draws.integers(0, len(m), (600, len(m)))].mean(1) for m in means)
        value = float(means[0].mean() / means[1].mean())
        low, high = (float(v) for v in np.quantile(above / below, [0.025, 0.975]))
        return Interval(value, min(low, value), max(high, value))


def _ships(trial: Trial) -> bool:
    return trial.artefact is not None and trial.artefact.ships


def _why(verdict: Verdict, best: Trial, table: _Table, bounds: Bounds) -> str:
    assert verdict.winner is not None
    name, what = verdict.winner.candidate.label, verdict.statistic
    if verdict.statistic != verdict.objective:
        what += f" (too few samples for {verdict.objective})"
    if verdict.original_stays and verdict.original is not None and verdict.gain is not None:
        if verdict.winner.candidate.is_own_call:
            return f"the original stays: nothing beats '{name}', the model's own call, beyond the noise"
        call = verdict.original.candidate.label
        return f"the original stays: {name} does not beat '{call}' beyond the noise at {what} ({_times(verdict.gain)})"
    if verdict.runner_up is None or verdict.ratio is None:
        within = "" if bounds == Bounds() else " and keeps within the bounds"
        return f"{name} is the only candidate that was timed and passed{within}"
    other = verdict.runner_up.candidate.label
    if verdict.tie:
        how = "as the simpler one" if best is not verdict.winner else "as the better and simpler of equals"
        return f"{name} and {other} tie at {what} ({_times(verdict.ratio)}); {name} wins {how}"
    if not table.beats(verdict.winner, verdict.runner_up):
        level = table.ratio(verdict.runner_up, verdict.winner)
        return f"{name} wins at p50: {other} costs {_times(verdict.ratio)}; level at {what} ({_times(level)})"
    return f"{name} wins at {what}: {other} costs {_times(verdict.ratio)}"


def _times(ratio: Interval) -> str:
    return f"{ratio.value:.2f} times as much, {ratio.low:.2f} to {ratio.high:.2f}"


def _why_none(trials: Sequence[Trial], table: _Table, bounds: Bounds) -> str:
    passed = table.eligible(Bounds())
    if passed:
        asked = [f"latency {bounds.max_latency_ns / 1e3:g} µs"] if bounds.max_latency_ns is not None else []
        asked += [f"memory {bounds.max_memory_bytes / 2**20:.4g} MiB"] if bounds.max_memory_bytes is not None else []
        nearest = min(passed, key=lambda t: table.by_bounds(t, bounds))
        return (
            f"none of {len(passed)} verified candidates keeps within {' and '.join(asked)}; the nearest, "
            f"{nearest.candidate.label}, needs {table.by_bounds(nearest, bounds):.3g} times as much"
        )
    counts = {s: sum(t.status == s for t in trials) for s in ("wrong", "unstable", "failed", "skipped")}
    words = ", ".join(f"{n} {s}" for s, n in counts.items() if n)
    return f"no candidate that can be shipped passed verification ({words or 'none was tried'})"
