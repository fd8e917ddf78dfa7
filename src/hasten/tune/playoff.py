"""The leaders' sessions, each alive in its own process, are timed in turns, so that a drifting machine hurts all.

A round is one short block of calls of every leader, the order turning by one each round. All but the one that is being
timed are stopped: blocked on a pipe is not idle, ONNX Runtime's threads spin for some 50 ms after their last call and
would cost a team of threads half of its cores.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from hasten.records import Trial
from hasten.tune.arrays import read_groups
from hasten.tune.isolation import Child, ChildFailed
from hasten.tune.plan import Event, Plan
from hasten.tune.processes import WarmPool, spawn
from hasten.tune.store import Store
from hasten.tune.trial import run_job

__all__ = ["Rounds", "playoff"]

# One player's turn is no shorter, and lasts so many calls of the quickest. Who was stopped until now needs a few of
# them to be itself again: a team to wake and to find out whether it is worth it.
_BLOCK_S, _LONGEST_BLOCK_S = 0.02, 0.25
_BLOCK_CALLS = 32
_LEAST_ROUNDS = 3
_MOST_ROUNDS = 64


@dataclass(frozen=True)
class Rounds:
    """Paired samples: block k of every leader was timed in round k.

    Units:   nanoseconds per call
    """

    blocks: Mapping[str, tuple[NDArray[np.float64], ...]]
    """Candidate key → one array a round."""


@dataclass(frozen=True)
class _Player:
    trial: Trial
    child: Child
    answers: Path
    stoppable: bool = False


def playoff(
    plan: Plan,
    leaders: Sequence[Trial],
    seconds: float,
    on_event: Callable[[Event], None] = lambda event: None,
    pool: WarmPool | None = None,
) -> Rounds:
    """Samples of every leader, taken in interleaved rounds that last about ``seconds`` altogether.

    Opening the sessions comes on top. A leader that fails here is left out of the result; three rounds are played
    however slow the leaders are. Fewer than two leaders need no play-off and give no rounds. An interruption (Ctrl-C)
    ends the children and leaves as it came.
    """
    if len(leaders) < 2:
        return Rounds({})
    store = Store(plan)
    memory_bytes = plan.limits.memory_bytes or int(psutil.virtual_memory().available * 0.8)
    with contextlib.ExitStack() as stack:
        on_event(Event("playoff", 0, len(leaders), stage="opening the leaders"))
        opening = [_open(plan, trial, (store, pool), memory_bytes, stack) for trial in leaders]
        players = [player for begun in opening if (player := _ready(begun, plan.limits.open_s))]
        on_event(Event("playoff", len(players), len(leaders), stage="timing the leaders in turns"))
        alive, played = _play(plan, players, seconds)
        found = {p.trial.candidate.key: blocks for p in alive if (blocks := _collect(plan, p, played))}
    return Rounds(found if len(found) > 1 else {})


def _open(
    plan: Plan, trial: Trial, found_in: tuple[Store, WarmPool | None], memory_bytes: int, stack: contextlib.ExitStack
) -> _Player:
    """The leader's process, begun; all of them open at the same time."""
    store, pool = found_in
    assert trial.artefact is not None
    folder = store.trial_folder(trial.candidate)
    job = run_job("serve", replace(trial.artefact, candidate=trial.candidate), plan, folder)
    job |= {"warm_up_s": 0.35 * plan.limits.measure_s}
    start = spawn if pool is None else pool.starter(plan.engines[trial.candidate.engine])
    return _Player(trial, stack.enter_context(Child(job, folder, memory_bytes, start)), job["answers"])


def _ready(player: _Player, limit_s: float) -> _Player | None:
    """The player, open and warm; None where it failed."""
    try:
        while (message := player.child.next_message(limit_s))["event"] != "ready":
            pass
    except ChildFailed:
        return None
    return replace(player, stoppable=bool(message["stoppable"]))


@contextlib.contextmanager
def _turn(player: _Player) -> Iterator[None]:
    """The player runs in here, and only in here."""
    if player.stoppable:
        player.child.resume()
    yield
    if player.stoppable:
        player.child.pause()


def _play(plan: Plan, players: Sequence[_Player], seconds: float) -> tuple[list[_Player], int]:
    """The players that lasted, and the number of whole rounds that they played.

    Nobody is told of a round: what draws progress would run beside the one that is timed.
    """
    alive, begin = list(players), time.monotonic()
    for player in players:
        if player.stoppable:
            player.child.pause()
    wanted = max(8, min(_MOST_ROUNDS, int(seconds / (_least_block_s(players) * max(1, len(players))))))
    block_s = seconds / wanted / max(1, len(players))
    for played in count():
        late = time.monotonic() - begin > 1.5 * seconds and played >= _LEAST_ROUNDS
        if played == wanted or late or len(alive) < 2:
            return alive, played
        turn = played % len(alive)
        for player in alive[turn:] + alive[:turn]:
            try:
                with _turn(player):
                    player.child.send("block", seconds=block_s)
                    while player.child.next_message(plan.limits.check_s)["event"] != "block":
                        pass
            except ChildFailed:
                alive.remove(player)
    raise AssertionError("unreachable")


def _least_block_s(players: Sequence[_Player]) -> float:
    usual_ns = [m.p50_ns.value for p in players if (m := p.trial.measurement)]
    return min(max(_BLOCK_S, _BLOCK_CALLS * min(usual_ns, default=0.0) / 1e9), _LONGEST_BLOCK_S)


def _collect(plan: Plan, player: _Player, played: int) -> tuple[NDArray[np.float64], ...]:
    try:
        if player.stoppable:
            player.child.resume()
        player.child.send("finish")
        while player.child.next_message(plan.limits.check_s)["event"] != "done":
            pass
        blocks = read_groups(player.answers)[0]
    except ChildFailed:
        return ()
    player.answers.unlink(missing_ok=True)
    return tuple(blocks[:played]) if len(blocks) >= played else ()
