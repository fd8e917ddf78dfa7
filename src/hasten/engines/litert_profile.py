"""An artefact of LiteRT's enters; the time of each operator of a call leaves.

The profiler is the C library's, reached by ctypes: it runs in a process of its own (see ``apart``).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hasten.engines.apart import Operators, answer, ask
from hasten.engines.litert_library import NODE, Event, Program
from hasten.errors import EngineError
from hasten.records import Artefact
from hasten.sessions.litert import open_session
from hasten.types import Array

__all__ = ["main", "operator_times", "profile", "seen", "spent"]

# Turns without the profiler and under it; of each turn the first third is not counted.
_TURNS, _TURN_S, _LEAST, _ALL_S = 5, 0.04, 2, 3.0
# Microseconds. A delegate cuts fractions off: of an operator that takes less, hiccups alone are seen.
_DELEGATE_SEES = 1
# What the operators together take, as a part of the call without a profiler. Less: short operators are missing. More:
# the profiler slows them down, and the shortest the most.
_LOW, _HIGH = 0.75, 1.5

# Their bodies' operators count. What a loop takes itself is the profiler, which looks at the memory in use every time.
_CALLERS = {"CALL", "CALL_ONCE", "IF", "STABLEHLO_CASE", "STABLEHLO_COMPOSITE", "STABLEHLO_WHILE", "WHILE"}

_T = TypeVar("_T")
Key = tuple[int, int, str, int]
"""Subgraph, part of it that a delegate runs (0: none does), operator, index."""


def profile(artefact: Artefact, arrays: Sequence[Array]) -> Operators:
    """Name, type and nanoseconds of each operator of a call, those inside XNNPACK as XNNPACK calls them.

    Raises:  EngineError: no profiler for this file, it crashes, runs another program, or is too coarse for this one
    """
    if artefact.details.get("reset"):
        raise EngineError("LiteRT's profiler reads no file with variable tensors, in which state is kept")
    operators, whole_ns = spent(artefact, arrays)
    _check(sum(nanos for *_, nanos in operators), whole_ns)
    return operators


def spent(artefact: Artefact, arrays: Sequence[Array]) -> tuple[Operators, float]:
    """Name, type and nanoseconds of each operator of a call, and nanoseconds of a call without the profiler.

    Raises:  EngineError: the profiler is missing, crashes, or runs another program than the session
    """
    return ask("LiteRT's profiler", __name__, artefact, arrays)


def main(folder: Path) -> None:
    """Answers in the folder's ``profile.json``."""
    answer(folder, _operators)


def _operators(artefact: Artefact, arrays: Sequence[Array]) -> tuple[list[tuple[str, str, float]], float]:
    path, details = artefact.path(".tflite"), artefact.details
    session = open_session(artefact)
    program = Program(path, artefact.candidate.threads, details.get("delegate") is not False)
    ins, outs = program.places
    program.feed([arrays[details["inputs"].index(place)] for place in ins])
    program.call()
    answered = session.call(*arrays)
    answers = answered if isinstance(answered, tuple) else (answered,)
    expected = dict(zip(details["outputs"], answers, strict=True))
    if any(expected[place].tobytes() != data for place, data in zip(outs, program.outputs(), strict=True)):
        raise EngineError("its program answers otherwise than the one that was measured")
    whole_ns, times = _in_turns(lambda: _elapsed(session.call, arrays), lambda: operator_times(program.profiled()))
    names = _node_names(path)
    return [(*_named(key, names), 1e3 * micros) for key, micros in seen(times).items()], whole_ns


def _elapsed(call: Callable[..., Any], arrays: Sequence[Array]) -> int:
    start = time.perf_counter_ns()
    call(*arrays)
    return time.perf_counter_ns() - start


def _in_turns(whole: Callable[[], int], parts: Callable[[], dict[Key, int]]) -> tuple[float, dict[Key, float]]:
    """Means of what both tell, over the half of the calls that was least disturbed.

    Each has the machine for a while: threads wait awake after a call, and would hinder those of the other.
    """
    wholes: list[int] = []
    calls: list[dict[Key, int]] = []
    end = time.perf_counter() + _ALL_S
    for _ in range(_TURNS):
        wholes += _turn(whole)
        calls += _turn(parts)
        if time.perf_counter() > end:
            break
    calm = sorted(wholes)[: len(wholes) // 2]
    calm_calls = sorted(calls, key=lambda call: sum(call.values()))[: len(calls) // 2]
    times = {key: sum(call.get(key, 0) for call in calm_calls) / len(calm_calls) for key in calls[0]}
    return sum(calm) / len(calm), times


def _turn(call: Callable[[], _T]) -> list[_T]:
    found: list[_T] = []
    end = time.perf_counter() + _TURN_S
    while len(found) < _LEAST or time.perf_counter() < end:
        found.append(call())
    return found[len(found) // 3 :]


def operator_times(events: Iterable[Event]) -> dict[Key, int]:
    """What each operator of a call took. A delegate may run several parts of a subgraph, each numbered from 0.

    Units:   microseconds
    """
    found: dict[Key, int] = {}
    part, previous = 0, None
    for event in events:
        if event.kind == NODE:
            key = (event.subgraph, 0, event.tag, event.index)
        else:
            if event.subgraph == 0 and (previous is None or previous.kind == NODE or event.index <= previous.index):
                part += 1
            key = (event.subgraph, part if event.subgraph == 0 else 1, event.tag, event.index)
        if event.tag not in _CALLERS:
            found[key] = found.get(key, 0) + event.micros
        previous = event
    return found


def seen(times: Mapping[Key, float]) -> dict[Key, float]:
    """The operators long enough for the profiler to count.

    Units:   microseconds
    """
    return {key: micros for key, micros in times.items() if (micros >= _DELEGATE_SEES if key[1] else micros > 0)}


def _check(parts_ns: float, whole_ns: float) -> None:
    why = ""
    if parts_ns < _LOW * whole_ns:
        why = "it counts whole microseconds and misses shorter ones"
    elif parts_ns > _HIGH * whole_ns:
        why = "it slows them down too much to tell their shares"
    if why:
        sums = f"its operators add up to {parts_ns / 1e3:.1f} µs of a call of {whole_ns / 1e3:.1f} µs"
        raise EngineError(f"LiteRT's profiler: {sums}: {why}")


def _node_names(path: Path) -> dict[tuple[int, int], str]:
    """What each node of each subgraph computes first."""
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415 - optional library

    tree = schema.Model.GetRootAs(path.read_bytes(), 0)
    names = {}
    for s in range(tree.SubgraphsLength()):
        graph = tree.Subgraphs(s)
        for i in range(graph.OperatorsLength()):
            node = graph.Operators(i)
            if node.OutputsLength():
                names[s, i] = graph.Tensors(node.Outputs(0)).Name().decode(errors="replace")
    return names


def _named(key: Key, names: dict[tuple[int, int], str]) -> tuple[str, str]:
    subgraph, part, op, index = key
    if not part:
        return names.get((subgraph, index), f"node {index}"), op
    return (f"XNNPACK {part}.{index}" if subgraph == 0 else f"XNNPACK in subgraph {subgraph}.{index}"), op


if __name__ == "__main__":
    main(Path(sys.argv[1]))
