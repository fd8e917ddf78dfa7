"""A model timed without warm-up.

## What it does
Finds a loop that only repeats a model's run (`for _ in range(100)`) between two readings of a clock, or around them,
with no run of a model before the first reading. A pass over data is left alone: there the first call is part of the
job.

## Why is this bad
First calls trace, compile, allocate, pick kernels and fill caches. Their cost, hundreds of times that of a later call,
is spread over the average and called latency.

## Cost
Averages too high by any factor; the fewer the rounds, the worse.

## Example
```python
start = time.perf_counter()
for _ in range(100):
    model(x)
print((time.perf_counter() - start) / 100)
```

## Use instead
```python
for _ in range(20):
    model(x)                # warm-up
start = time.perf_counter()
...
```

## Fix safety
No fix: how many calls it takes to be steady depends on the model; `hasten.benchmark` finds out.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from hasten.doctor.clocks import Region, network, networks, regions
from hasten.doctor.code import Code
from hasten.doctor.names import Function
from hasten.doctor.rule import Hit, Rule, hit
from hasten.doctor.vicinity import vicinity

# What takes a model, and something beside it, and runs nothing.
_SETS_UP = re.compile(
    "load|save|restore|quant|prun|compile|prepare|convert|replace|attr|isinstance|print|log|init|freeze|count|optim"
)
# Schedules of the learning rate, and fits that go on from the last, warm nothing up here.
_WARM = re.compile(
    "(?<!no )(?<!no[-_])(?<!without )(?<!without[-_])warm(?!_?(?:restart|start|up_?(?:ratio|epoch)))", re.IGNORECASE
)

_GATHERS = frozenset(("append", "extend", "insert", "add", "update", "record", "put", "write", "writerow", "observe"))


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Timed loops of runs that are the first of their function."""
    for region in regions(node, code):
        runs = networks(region.body, code)
        around = next(code.loops(region.start), None)
        timed = [r for r in runs if _is_repeated(r, region.start, code)]
        if (
            not timed
            or _trains(region.body)
            or _exports(region.body)
            or (around is not None and not _is_benchmark(around))
        ):
            continue
        if around is not None and not _is_kept(region, code):
            continue
        begin = (around or region.start).lineno
        if _is_made_here(timed[0], code):
            fresh = not _ran_before_in(code.function(timed[0]), begin, code)
        else:
            fresh = not _ran_before(begin, region.start, code)
        if fresh and not _is_handed_on(timed[0], begin, code) and not _WARM.search(vicinity(region.start, code)):
            yield hit(region.reading, "the first, slowest calls are among those timed: nothing ran before")


def _exports(body: Iterable[ast.AST]) -> bool:
    """True for a whole job whose dry runs come before it writes the model out."""
    called = (n.func for s in body for n in ast.walk(s) if isinstance(n, ast.Call))
    return any(isinstance(f, ast.Attribute) and f.attr == "export" for f in called)


def _is_repeated(run: ast.Call, start: ast.stmt, code: Code) -> bool:
    """True where loops that only repeat stand around a run, in its region or around that: none over data in it."""
    outer = list(code.loops(start))
    inner = [loop for loop in code.loops(run) if loop not in outer]
    return all(_is_benchmark(loop) for loop in inner) and bool(inner or outer)


def _is_kept(region: Region, code: Code) -> bool:
    """True where each round's time is gathered or added up; of times that are only shown, the first is told apart."""
    block = code.block(region.stop)
    place = next(i for i, s in enumerate(block) if s is region.stop) + (region.timer is not None)
    for inner in (n for s in block[place:] for n in ast.walk(s)):
        if isinstance(inner, ast.AugAssign) or (isinstance(inner, ast.Subscript) and isinstance(inner.ctx, ast.Store)):
            return True
        if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute) and inner.func.attr in _GATHERS:
            return True
        if isinstance(inner, ast.Assign) and any(_names(t) & _names(inner.value) for t in inner.targets):
            return True
    return False


def _names(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def _trains(body: tuple[ast.stmt, ...]) -> bool:
    return any(
        isinstance(n, ast.Attribute) and n.attr in ("backward", "fit", "apply_gradients")
        for s in body
        for n in ast.walk(s)
    )


def _is_benchmark(loop: ast.AST) -> bool:
    """A loop that only repeats: `for _ in range(n)`. Over data, or until an answer ends it, the first is of the job."""
    if not isinstance(loop, ast.For) or any(isinstance(n, ast.Break) for s in loop.body for n in ast.walk(s)):
        return False
    target = loop.target.id if isinstance(loop.target, ast.Name) else ""
    called = loop.iter.func if isinstance(loop.iter, ast.Call) else None
    return getattr(called, "id", "") in ("range", "trange") and (target.startswith("_") or not _reads(loop, target))


def _reads(loop: ast.For, name: str) -> bool:
    """True where a round asks which it is, other than to find the place of its time: ``times[i] = …``."""
    inside = [n for s in loop.body for n in ast.walk(s)]
    places = {n.slice for n in inside if isinstance(n, ast.Subscript) and isinstance(n.ctx, ast.Store)}
    named = (n for n in inside if isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Load))
    return any(n not in places for n in named)


def _is_made_here(run: ast.Call, code: Code) -> bool:
    """True where the function makes the model itself: nobody else can have run it."""
    kind, function = network(run, code), code.function(run)
    return function is not None and kind is not None and kind.made is not None and code.function(kind.made) is function


def _ran_before_in(function: Function | None, line: int, code: Code) -> bool:
    return any(
        call.lineno < line and code.function(call) is function and network(call, code) is not None
        for call in code.calls
    )


def _is_handed_on(run: ast.Call, line: int, code: Code) -> bool:
    """True where the model went, with something for it to work on, to a function or trainer that may have run it."""
    written = code.names.dotted(run.func) or code.names.dotted(getattr(run.func, "value", run.func))
    names = {written, written.rpartition(".")[0]} - {""}
    around = code.function(run)
    for call in code.calls:
        given = [*call.args, *(k.value for k in call.keywords)]
        if call.lineno >= line or code.function(call) not in (around, None) or len(given) < 2:
            continue
        called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        works = not called[:1].isupper() or "Trainer" in called
        if works and not _SETS_UP.search(called) and any(code.names.dotted(g) in names for g in given):
            return True
    return False


def _ran_before(line: int, node: ast.AST, code: Code) -> bool:
    function = code.function(node)
    for call in code.calls:
        if call.lineno < line and network(call, code) is not None:
            where = code.function(call)
            if where is function or where is None:
                return True
    if function is None:
        return False
    # The function may be called with something already run: its callers, or outside the file.
    callers = code.callers(function)
    return not callers or any(_ran_before(c.lineno, c, code) for c in callers if code.function(c) is not function)


RULE = Rule(
    code="H302",
    name="no-warm-up",
    on=(ast.Assign, ast.With),
    words=("time", "datetime"),
    remedy="Run the model until its times are steady before reading the clock (hasten.benchmark does).",
    check=check,
)
