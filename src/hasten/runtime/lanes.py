"""One lane per compiled batch size: opened at first use, safe from many threads, and rows split over all of them."""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from hasten.errors import HastenError
from hasten.records import Artefact
from hasten.sessions import Session, open_session

__all__ = ["Lane", "Runner", "split"]


class Runner:
    """An artefact that answers. ``call`` may run in any number of threads at once.

    Where a session may not, each thread takes one from a stack and puts it back: as many sessions as threads that
    ever called at the same moment, and no lock.
    """

    def __init__(self, artefact: Artefact):
        self.artefact = artefact
        self.session = open_session(artefact)
        self._all = [self.session]
        self.call: Callable[..., Any] = self.session.call if self.session.thread_safe else self._pooled()

    def _pooled(self) -> Callable[..., Any]:
        free = deque([self.session.call])

        def call(*arrays: Any) -> Any:
            try:
                run = free.pop()
            except IndexError:
                run = self.another().call
            try:
                return run(*arrays)
            finally:
                free.append(run)

        return call

    def another(self) -> Session:
        """One more session of the same artefact, closed with this runner."""
        session = open_session(self.artefact)
        self._all.append(session)
        return session

    def close(self) -> None:
        """Frees every session."""
        while self._all:
            self._all.pop().close()


class Lane:
    """One batch size. ``open`` makes its runner: choosing, unpacking, rebuilding and checking happen there."""

    def __init__(self, batch: int, latency_ns: float | None, open_runner: Callable[[], Runner]):
        self.batch = batch
        self.cost = latency_ns if latency_ns else float(batch)
        self._open = open_runner
        self._lock = threading.Lock()
        self._runner: Runner | None = None
        self.broken = False

    @property
    def runner(self) -> Runner:
        """The runner, opened now if it was not.

        Raises:  BundleError: nothing in the bundle runs this batch size here
        """
        if self._runner is None:
            with self._lock:
                if self._runner is None:
                    self._runner = self._open()
        return self._runner

    def usable(self) -> bool:
        """True when it can be used; a lane that will not open warns once, and the other lanes carry its rows."""
        try:
            return not self.broken and self.runner is not None
        except HastenError as error:
            self.broken = True
            warnings.warn(f"batch {self.batch} is left out: {error}", RuntimeWarning, stacklevel=3)
            return False

    def close(self) -> None:
        """Frees what it holds."""
        if self._runner is not None:
            self._runner.close()


def split(rows: int, costs: Sequence[tuple[int, float]]) -> list[int]:
    """Batch sizes whose sum covers ``rows`` at the least cost; the last may reach past the end (and is padded).

    Shapes:  costs: (batch size, cost of one call) pairs, sizes distinct; returns sizes, those that are full first
    """
    if len(costs) == 1:
        return [costs[0][0]] * -(-rows // costs[0][0])
    bulk = min(costs, key=lambda pair: (pair[1] / pair[0], -pair[0]))[0]
    largest = max(size for size, _ in costs)
    # Whole chunks of the cheapest size per row, but for a remainder small enough to be worth an exact answer.
    chunks = max(0, (rows - largest) // bulk)
    plan = sorted([bulk] * chunks + _cheapest(rows - chunks * bulk, costs), reverse=True)
    while rows > 0 and sum(plan) - plan[-1] >= rows:  # a padded remainder may have room for the rows of a whole chunk
        plan.pop()
    return plan


def _cheapest(rows: int, costs: Sequence[tuple[int, float]]) -> list[int]:
    best: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for count in range(1, rows + 1):
        options = ((best[max(0, count - size)][0] + cost, size) for size, cost in costs)
        cost, size = min(options)
        best.append((cost, (*best[max(0, count - size)][1], size)))
    return list(best[rows][1])
