"""A GPU model timed without `torch.cuda.synchronize()`.

## What it does
Finds a torch model run between two readings of a clock (or in `with Timer():`, written in the same file, or in what
`timeit` or pytest-benchmark repeats), in a file that uses CUDA or moves things to a device it does not name, with
nothing in between that waits for the device (`synchronize`, `.item()`, `.cpu()`, printing) or may do so: detectors,
which count their boxes, questions about the answer and functions that are handed it are left alone.

## Why is this bad
CUDA calls return as soon as the work is queued: the clock measures the queueing.

## Cost
Times too low by ten to a thousand times.

## Example
```python
start = time.perf_counter()
model(x)
print(time.perf_counter() - start)
```

## Use instead
```python
torch.cuda.synchronize()
start = time.perf_counter()
model(x)
torch.cuda.synchronize()
print(time.perf_counter() - start)
```

## Fix safety
Safe: waiting changes no result; it is put before both readings. Not offered where the device has no name, or
where a `with` or a function does the timing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from hasten.doctor import makers
from hasten.doctor.clocks import device_work, network, regions
from hasten.doctor.code import Code
from hasten.doctor.rule import Edit, Hit, Rule, argument, hit
from hasten.doctor.samples import value_of
from hasten.doctor.waits import may_wait

_WAITS = re.compile("sync|cuda|Event|device|wait")  # in a timer: it may see to it that the device has done
_DETECTORS = re.compile("yolo|ultralytics|silero|detection|rcnn|retinanet|pipeline")


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Timed device work that nobody waits for."""
    if not code.imports("torch") or not (code.uses_gpu or code.fact(_has_device)):
        return
    if isinstance(node, ast.Call):
        yield from _repeated(node, code)
        return
    for region in regions(node, code):
        run = device_work(region.body, code)
        if run is None or _trains(region.body) or _is_on_cpu(run, code):
            continue
        if region.timer is not None and _WAITS.search(code.source(region.timer)):
            continue
        if _waits_in_stop(region.stop) or _sums_up(region.body) or _is_over_data(run, region.start, code):
            continue
        if _is_seen_to(run, code) or may_wait(run, region.body, code):
            continue
        # Where the device is unknown, `torch.cuda.synchronize()` might not run.
        named = code.uses_gpu and region.timer is None
        edits = _edits(region.start, region.stop, code) if named else ()
        yield hit(region.reading, "the clock stops while the GPU still works", *edits, safe=True)


def _repeated(call: ast.Call, code: Code) -> Iterator[Hit]:
    """`timeit.timeit(lambda: net(x))`, and pytest-benchmark's `benchmark(lambda: net(x))`."""
    function = code.function(call)
    tests = function is not None and function.name.startswith("test_") and getattr(call.func, "id", "") == "benchmark"
    if not tests and code.qualified(call.func) not in ("timeit.timeit", "timeit.repeat"):
        return
    repeated = argument(call, 0, "stmt")
    if not isinstance(repeated, ast.Lambda):
        return
    body: tuple[ast.stmt, ...] = (ast.Expr(repeated.body),)
    run = device_work(body, code)
    if run is not None and not _is_on_cpu(run, code) and not _is_seen_to(run, code) and not may_wait(run, body, code):
        yield hit(call, "what is timed ends while the GPU still works")


def _is_seen_to(run: ast.Call, code: Code) -> bool:
    """True on another device, and for models that wait for the GPU themselves."""
    return _is_other_device(run, code) or _is_given_objects(run, code) or _waits_by_itself(run, code)


def _has_device(code: Code) -> bool:
    """True where things go `.to(self.device)`, whichever it is: a file that means the processor says "cpu"."""
    moved = (c.args[0] for c in code.calls_named("to") if c.args)
    return not code.mentions('"cpu"', "'cpu'") and any(
        code.names.dotted(d).rsplit(".", 1)[-1].endswith("device") for d in moved
    )


def _is_on_cpu(run: ast.Call, code: Code) -> bool:
    """True where a function says so by its name, or makes its own model and names no device."""
    function, kind = code.function(run), network(run, code)
    if (function is not None and "cpu" in function.name.lower().split("_")) or _is_moved_off(run, code):
        return True
    if function is None or kind is None or kind.made is None or code.function(kind.made) is not function:
        return False
    return not any(word in code.source(function) for word in ("cuda", "device"))


def _is_moved_off(run: ast.Call, code: Code) -> bool:
    """True where the last move of the model before its run was to the processor, or none came before it yet."""
    model = run.func.value if isinstance(run.func, ast.Attribute) else run.func
    made = value_of(model, code)
    moves = [
        c
        for c in code.calls_named("to", "cuda", "cpu")
        if isinstance(c.func, ast.Attribute)
        and code.function(c) is code.function(run)
        and (c is made or code.names.dotted(c.func.value) == code.names.dotted(model) != "")
    ]
    before = [c for c in moves if c.lineno < run.lineno]
    if not before:  # made here, not handed in from where it may have been moved, and moved further down
        return isinstance(made, ast.Call) and any(not _is_to_cpu(c) and code.loop(c) is None for c in moves)
    return _is_to_cpu(max(before, key=lambda c: c.lineno))


def _is_to_cpu(move: ast.Call) -> bool:
    place = " ".join([getattr(move.func, "attr", ""), *(ast.unparse(a) for a in (*move.args, *move.keywords))])
    return "cpu" in place and "cuda" not in place  # `"cuda" if … else "cpu"` is meant for the GPU


def _trains(body: tuple[ast.stmt, ...]) -> bool:
    return any(isinstance(n, ast.Attribute) and n.attr in ("backward", "step") for s in body for n in ast.walk(s))


def _sums_up(body: tuple[ast.stmt, ...]) -> bool:
    """True where the last timed line asks a metric for its value, which waits for all that went into it."""
    return any(isinstance(n, ast.Attribute) and n.attr == "compute" for s in body[-1:] for n in ast.walk(s))


def _is_other_device(run: ast.Call, code: Code) -> bool:
    """True in the `else` of a question for CUDA: the GPU is timed in the other branch."""
    inner: ast.AST = run
    for around in code.ancestors(run):
        asked = isinstance(around, ast.If) and any(inner is s for s in around.orelse)
        if asked and isinstance(around, ast.If) and "cuda" in ast.unparse(around.test).lower():
            return True
        inner = around
    return False


def _is_given_objects(run: ast.Call, code: Code) -> bool:
    """True for a model that takes a numpy array, a pipeline that moves its answers back by itself, or a list.

    Images of different sizes in a list are what detectors take, which count their boxes.
    """
    if not run.args:
        return False
    given = value_of(run.args[0], code)
    listed = isinstance(given, (ast.List, ast.ListComp)) or getattr(getattr(given, "func", None), "id", "") == "list"
    return listed or code.is_a(run.args[0], makers.NUMPY)


def _waits_by_itself(run: ast.Call, code: Code) -> bool:
    """True for detectors: the boxes that they keep are counted on the processor before they answer."""
    kind = network(run, code)
    if kind is None or kind.made is None:
        return False
    return _DETECTORS.search(f"{code.qualified(kind.made.func)} {ast.unparse(kind.made)}".lower()) is not None


def _is_over_data(run: ast.Call, start: ast.stmt, code: Code) -> bool:
    """True for a whole pass over a loader: against its time, what is still queued at the end is nothing."""
    own = set(code.loops(start))
    loops = [loop for loop in code.loops(run) if loop not in own and isinstance(loop, ast.For)]
    made = [getattr(n, "id", "") for loop in loops for n in ast.walk(loop.iter) if isinstance(n, ast.Name)]
    return bool(loops) and not any(name in ("range", "trange") for name in made)


def _waits_in_stop(stop: ast.stmt) -> bool:
    return any(isinstance(n, ast.Attribute) and n.attr in ("item", "cpu", "synchronize") for n in ast.walk(stop))


def _edits(start: ast.stmt, stop: ast.stmt, code: Code) -> tuple[Edit, ...]:
    torch = next((n for n, bs in code.names.module.names.items() if any(b.origin == "torch" for b in bs)), "")
    if not torch:
        return ()
    block = code.block(start)
    before = next(i for i, s in enumerate(block) if s is start) - 1
    wait = f"{torch}.cuda.synchronize()"
    done = before >= 0 and "synchronize" in ast.unparse(block[before])
    edits = () if done else (Edit("before", start, wait),)
    return (*edits, Edit("before", stop, wait))


RULE = Rule(
    code="H303",
    name="no-synchronize",
    on=(ast.Assign, ast.With, ast.Call),
    words=("time", "benchmark"),
    remedy="Call torch.cuda.synchronize() before each reading of the clock.",
    check=check,
)
