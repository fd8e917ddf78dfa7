"""An artefact of PyTorch's enters; the time of each operator of a call leaves.

The session itself is called under PyTorch's profiler, so that what is told is the call path that was measured. It
happens in a process of its own (see ``apart``): threads, and the caches of Inductor, are set for a whole process.
"""

from __future__ import annotations

import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hasten.engines.apart import Operators, answer, ask
from hasten.errors import EngineError
from hasten.records import Artefact
from hasten.sessions.torch import open_session
from hasten.types import Array

__all__ = ["GENERATED", "in_one_call", "main", "profile", "spent", "typical"]

GENERATED = "generated"
"""The type of Inductor's own kernels."""

_WARM, _TURNS, _TURN_S, _LEAST, _ALL_S = 3, 5, 0.04, 2, 3.0
# The profiler's events of a turn, about so many an operator: to read them takes far longer than to record them.
_EVENTS, _INSIDE = 4000, 4
# Part of the call below which an operator is counted with what is between them: views, mostly.
_SEEN = 0.001
# The call under the profiler as a part of the call without it. Beyond, it tells its own time rather than theirs.
_HIGH = 1.5
_CALL = "hasten: one call"
_INDUCTOR = ("compile", "aot_inductor")
# A kernel that Inductor wrote; it is recorded where TORCHINDUCTOR_CPP_ENABLE_KERNEL_PROFILE=1 when it was.
_WRITTEN = re.compile(r"(?:graph_\d+_)?(cpp_.*)")

_T = TypeVar("_T")
Call = tuple[tuple[tuple[str, str], ...], tuple[float, ...]]
"""Name and type of each operator in the order they ran; their times, and last that of what was between them."""


def profile(artefact: Artefact, arrays: Sequence[Array]) -> Operators:
    """Name, type and nanoseconds of each operator of a call, and of what is between them.

    Raises:  EngineError: the path cannot be opened, or the profiler slows down a call this short too much
    """
    operators, whole_ns = spent(artefact, arrays)
    profiled_ns = sum(nanos for *_, nanos in operators)
    if profiled_ns > _HIGH * whole_ns:
        calls = f"a call takes {profiled_ns / 1e3:.1f} µs under it and {whole_ns / 1e3:.1f} µs without"
        raise EngineError(f"PyTorch's profiler: {calls}: it slows operators down too much to tell their shares")
    return operators


def spent(artefact: Artefact, arrays: Sequence[Array]) -> tuple[Operators, float]:
    """Name, type and nanoseconds of each operator of a call, and nanoseconds of a call without the profiler.

    Raises:  EngineError: the path cannot be opened, or the profiler crashes
    """
    return ask("PyTorch's profiler", __name__, artefact, arrays)


def main(folder: Path) -> None:
    """Answers in the folder's ``profile.json``."""
    answer(folder, _operators)


def _operators(artefact: Artefact, arrays: Sequence[Array]) -> tuple[Operators, float]:
    session = open_session(artefact)
    for _ in range(_WARM):
        session.call(*arrays)
    wholes: list[int] = []
    calls: list[Call] = []
    count, end = _LEAST, time.perf_counter() + _ALL_S
    for _ in range(_TURNS):
        wholes += _turn(session.call, arrays, count)
        found = [in_one_call(event) for event in _recorded(session.call, arrays, count)]
        calls += found
        count = max(_LEAST, min(_EVENTS // (_INSIDE * len(found[0][1])), int(_TURN_S * 1e9 / max(1, min(wholes)))))
        if time.perf_counter() > end:
            break
    return typical(calls, str(artefact.candidate.option("path"))), statistics.median(_calm(wholes, float))


def _turn(call: Callable[..., Any], arrays: Sequence[Array], count: int) -> Iterator[int]:
    for _ in range(count):
        start = time.perf_counter_ns()
        call(*arrays)
        yield time.perf_counter_ns() - start


def _recorded(call: Callable[..., Any], arrays: Sequence[Array], count: int) -> list[Any]:
    """The profiler's event of each call, with those inside it."""
    from torch import profiler  # noqa: PLC0415 - a framework, in its own adapter

    with profiler.profile(activities=[profiler.ProfilerActivity.CPU], record_shapes=True) as recorder:
        for _ in range(count):
            with profiler.record_function(_CALL):
                call(*arrays)
    found = [event for event in recorder.events() if event.name == _CALL]
    if len(found) != count:
        raise EngineError(f"it recorded {len(found)} calls of {count}")
    return found


def in_one_call(event: Any) -> Call:
    """The operators of a call that the profiler recorded.

    Units:   nanoseconds
    """
    found = list(_outermost(event))
    names = [(f"{i} {_told(one)}".rstrip(), _type(one.name)) for i, one in enumerate(found, 1)]
    times = [1e3 * float(one.cpu_time_total) for one in found]
    return tuple(names), (*times, max(0.0, 1e3 * float(event.cpu_time_total) - sum(times)))


def _outermost(event: Any) -> Iterator[Any]:
    """The operators inside an event; wrappers around them and the operators that they consist of are none."""
    for inside in event.cpu_children:
        if "::" in inside.name or inside.name.startswith("aoti_torch_") or _WRITTEN.match(inside.name):
            yield inside
        else:
            yield from _outermost(inside)


def _type(name: str) -> str:
    if _WRITTEN.match(name):
        return GENERATED
    return name.rpartition("::")[2].removeprefix("aoti_torch_cpu_").removeprefix("aoti_torch_")


def _calm(found: Iterable[_T], cost: Callable[[_T], float]) -> list[_T]:
    ordered = sorted(found, key=cost)
    return ordered[: (len(ordered) + 1) // 2]


def _told(event: Any) -> str:
    """The shapes of its tensors; of a kernel that was generated, its name, which says what it fuses."""
    if written := _WRITTEN.match(event.name):
        return written[1]
    inside = event.cpu_children
    shapes = event.input_shapes or (inside[0].input_shapes if len(inside) == 1 else [])
    return " · ".join("×".join(map(str, shape)) for shape in filter(_is_shape, shapes))


def _is_shape(given: Any) -> bool:
    """A tensor's; scalars have an empty one, and lists of tensors a list of them."""
    return isinstance(given, (list, tuple)) and bool(given) and isinstance(given[0], int)


def typical(calls: Sequence[Call], path: str) -> Operators:
    """Each operator's time in the calmer half of the calls that ran what the last one ran, and what was between."""
    names = calls[-1][0]
    alike = _calm((times for found, times in calls if found == names), sum)
    *each, between = (statistics.median(times) for times in zip(*alike, strict=True))
    least = _SEEN * (sum(each) + between)
    told = tuple((*name, nanos) for name, nanos in zip(names, each, strict=True) if nanos >= least)
    whole = path not in _INDUCTOR or any(op == GENERATED for _, op in names)
    rest = ("between them", "") if whole else ("Inductor's own kernels", GENERATED)
    return (*told, (*rest, between + sum(nanos for nanos in each if nanos < least)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
