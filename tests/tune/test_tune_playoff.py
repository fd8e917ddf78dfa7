from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a stopped process with its parent")
@pytest.mark.parametrize("engine", ["deliberate", "deliberate:PRELOADING"])
def test_who_waits_is_stopped(plan_of, engine: str) -> None:
    spinning = deliberate("spin")
    plan = plan_of(spinning, deliberate(delay_ms=150), engines={"deliberate": engine})
    trials = search(plan)
    waits = next(Path(plan.store).rglob("waits"))
    waits.write_text("")
    rounds = playoff(plan, trials, 2.0)
    assert set(rounds.blocks) == {t.candidate.key for t in trials}
    passed_s, burnt_s = np.array([line.split() for line in waits.read_text().splitlines()], float).T
    waited = passed_s > 0.14
    assert waited.sum() >= 3
    # not the first: until all have opened nobody is stopped
    assert np.median(burnt_s[waited] / passed_s[waited]) < 0.2


PLAYS = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
from tune_plans import deliberate, make_plan
from hasten.tune.playoff import playoff
from hasten.tune.processes import WarmPool
from hasten.tune.search import search
plan = make_plan(Path({folder!r}), (deliberate(delay_ms=1), deliberate(delay_ms=2)),
                 engines={{"deliberate": {engine!r}}})
trials = search(plan)
with WarmPool(Path({folder!r}), 20) as pool:
    playoff(plan, trials, 60, lambda event: print(event.stage, flush=True), pool)
"""


@pytest.mark.parametrize("engine", ["deliberate", "deliberate:PRELOADING"])
def test_killed_while_leaders_are_stopped_leaves_none(tmp_path: Path, engine: str) -> None:
    code = PLAYS.format(here=str(Path(__file__).parent), folder=str(tmp_path), engine=engine)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    while "in turns" not in process.stdout.readline():
        pass
    time.sleep(0.3)
    players = psutil.Process(process.pid).children(recursive=True)
    assert sys.platform != "linux" or "stopped" in {p.status() for p in players}
    process.kill()
    process.communicate()
    assert psutil.wait_procs(players, timeout=30)[1] == []


def test_slow_leaders_still_play_three_rounds(plan_of) -> None:
    plan = plan_of(deliberate(delay_ms=60), deliberate(delay_ms=60, n=2))
    rounds = playoff(plan, search(plan), 0.05)
    assert all(len(blocks) >= 3 and all(len(b) == 1 for b in blocks) for blocks in rounds.blocks.values())


def test_a_turn_is_long_enough_to_warm_up_again(plan_of) -> None:
    """In 20 ms a team whose calls take 4 ms was still being woken when its turn was over: it lost to its own half."""
    plan = plan_of(deliberate(delay_ms=4), deliberate(delay_ms=8))
    rounds = playoff(plan, search(plan), 2.5)
    assert all(np.median([len(b) for b in blocks]) * ms > 100 for blocks, ms in _by_delay(rounds))
    assert all(len(blocks) >= 8 for blocks in rounds.blocks.values())


def _by_delay(rounds: Rounds) -> list[tuple[tuple[np.ndarray, ...], float]]:
    return [(blocks, np.median(np.concatenate(blocks)) / 1e6) for blocks in rounds.blocks.values()]


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
