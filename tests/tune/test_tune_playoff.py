from __future__ import annotations

from dataclasses import replace

import numpy as np
import psutil
import pytest
from tune_plans import deliberate

from hasten.tune.choose import choose, leaders
from hasten.tune.playoff import Rounds, playoff
from hasten.tune.search import search
from hasten.tune.store import Store


def test_leaders_take_turns_and_the_faster_wins(plan_of) -> None:
    slow, fast = deliberate(delay_ms=4), deliberate(delay_ms=2)
    plan = plan_of(slow, fast)
    trials = search(plan)
    found = leaders(trials, "p50")
    assert [t.candidate for t in found] == [fast] or {t.candidate for t in found} == {fast, slow}
    events = []
    rounds = playoff(plan, trials, 0.6, events.append)
    assert set(rounds.blocks) == {slow.key, fast.key}
    assert len(rounds.blocks[slow.key]) == len(rounds.blocks[fast.key]) >= 3
    assert np.median(np.concatenate(rounds.blocks[slow.key])) > 3.9e6
    assert {e.kind for e in events} == {"playoff"}
    verdict = choose(trials, "p50", rounds=rounds)
    assert verdict.winner.candidate == fast and verdict.runner_up.candidate == slow
    assert verdict.ratio.low > 1.2 and not verdict.tie
    assert psutil.Process().children(recursive=True) == []


@pytest.mark.parametrize("how", ["segfault", "hang", "crash when timed"])
def test_a_leader_that_fails_is_left_out(plan_of, how: str) -> None:
    good, other, bad = deliberate(delay_ms=1), deliberate(delay_ms=1, n=2), deliberate(how)
    plan = plan_of(good, other, bad)
    trials = list(search(plan_of(good, other)))
    plan = replace(plan, store=plan.store)
    broken = replace(trials[0], candidate=bad)
    rounds = playoff(plan, [*trials, broken], 0.3)
    assert set(rounds.blocks) == {good.key, other.key}
    assert psutil.Process().children(recursive=True) == []


def test_slow_leaders_still_play_three_rounds(plan_of) -> None:
    plan = plan_of(deliberate(delay_ms=60), deliberate(delay_ms=60, n=2))
    rounds = playoff(plan, search(plan), 0.05)
    assert all(len(blocks) >= 3 and all(len(b) == 1 for b in blocks) for blocks in rounds.blocks.values())


def test_one_leader_needs_no_playoff(plan_of) -> None:
    plan = plan_of(deliberate())
    assert playoff(plan, search(plan), 1.0) == Rounds({})


def test_interruption_leaves_no_process(plan_of) -> None:
    plan = plan_of(deliberate(delay_ms=1), deliberate(delay_ms=1, n=2))
    trials = search(plan)

    def stop(event) -> None:
        if event.stage.startswith("timing"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        playoff(plan, trials, 0.5, stop)
    assert psutil.Process().children(recursive=True) == []
    assert Store(plan).load(trials[0].candidate) is not None
