"""A clock around one call of a model.

## What it does
Finds `t = clock(); model(x); clock() - t` around a single run of a model, not repeated by any loop, whose result is
printed or logged. Requests timed inside a server or a page are left alone, and functions given data by other files:
there each is one sample of many. So are `predict` over a whole set of data, `generate`, and times that the words beside
them call those of a whole job, or of the first call.

## Why is this bad
One sample says nothing: the first call carries set-up, the next may meet a page fault, an interrupt, another clock
rate. `time.time()` also jumps when the system clock is set, and is coarse on some systems.

## Cost
Wrong decisions: single readings of one model spread by a factor of two to a hundred and more.

## Example
```python
start = time.time()
model(x)
print(time.time() - start)
```

## Use instead
```python
hasten.benchmark(model, sample=x)        # or: warm up, then the median and p99 of many perf_counter_ns readings
```

## Fix safety
No fix: what to repeat, and how often, is yours to say.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from hasten.doctor import makers
from hasten.doctor.clocks import Region, loads, networks, regions
from hasten.doctor.code import Code
from hasten.doctor.rule import Hit, Rule, hit
from hasten.doctor.vicinity import vicinity

_PAGES = ("streamlit", "gradio", "chainlit")  # each run of the script answers one visitor
# Names of whole sets, and of what hands their batches out.
_SETS = re.compile(r"gen(erator)?$|loader|dataset|(^|_)(ds|test|val|valid|validation|train)(_|$)", re.IGNORECASE)
# How the time compares with the length of the speech that was made: told with each job, and no measure of the model.
_FACTOR = re.compile(r"(\b|_)rtf\b|real[-_ ]?time[-_ ]?factor", re.IGNORECASE)

_JOB = re.compile(r"total|done|finish|complet|generat|transcri|translat|whole|script|program|process", re.IGNORECASE)
_MEASURE = re.compile(r"infer|latenc|fps|predict|forward|speed|\bper\b|model|bench", re.IGNORECASE)
_FIRST = re.compile(
    r"first[-_ ]?(call|run|latency|inference|pass|forward|predict|ms\b)|_first\b|\bcold\b", re.IGNORECASE
)
_BESIDE = 3  # statements from the difference on


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Regions with exactly one model run that nothing repeats."""
    if code.imports(*_PAGES):
        return
    for region in regions(node, code):
        body = list(region.body)
        runs = networks(body, code)
        if len(runs) != 1 or code.loop(runs[0]) is not None or any(True for _ in code.loops(region.start)):
            continue
        function = code.function(region.start)
        if loads(region.body, code) is not None or code.hot(region.start) is not None:
            continue
        if function is not None and (code.klass(function) is not None or _returns_time(function, region.name, code)):
            continue
        if _FACTOR.search(vicinity(region.start, code)) or _is_over_set(runs[0], code):
            continue
        if _is_no_call(runs[0]) or _is_job(region, code) or _is_first(region, code) or _is_for_callers(function, code):
            continue
        yield hit(
            region.reading, "one reading of a clock around one call is one sample, jitter and any warm-up included"
        )


def _is_no_call(run: ast.Call) -> bool:
    """True for `generate`, which runs once a token, and for a layer made on the spot: a step of a computation."""
    return isinstance(run.func, ast.Call) or (isinstance(run.func, ast.Attribute) and run.func.attr == "generate")


def _is_first(region: Region, code: Code) -> bool:
    """True where the lines say that it is the first call whose time they take, with all that it prepares."""
    last = region.stop.end_lineno or region.stop.lineno
    return _FIRST.search("\n".join(code.lines[max(0, region.start.lineno - 2) : last])) is not None


def _is_job(region: Region, code: Code) -> bool:
    """True where the words beside the difference tell how long a job took, and name no model's work."""
    block = code.block(region.stop)
    place = next(i for i, s in enumerate(block) if s is region.stop)
    told = (n for s in block[place : place + _BESIDE] for n in ast.walk(s) if isinstance(n, ast.Constant))
    texts = " ".join(n.value for n in told if isinstance(n.value, str))
    return _JOB.search(texts) is not None and _MEASURE.search(texts) is None


def _is_for_callers(function: ast.AST | None, code: Code) -> bool:
    """True for a function that answers other files, given their data: each call may be one sample of many."""
    if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)) or code.callers(function):
        return False
    answers = any(r is not None for r in code.definitions.returns(function))
    return answers and bool(function.args.args or function.args.posonlyargs)


def _is_over_set(run: ast.Call, code: Code) -> bool:
    """True for a `predict` over a whole set of data: it runs batch after batch, many calls in one."""
    if not isinstance(run.func, ast.Attribute) or run.func.attr != "predict" or not run.args:
        return False
    given = run.args[0]
    return code.is_a(given, makers.TF_DATASET) or _SETS.search(code.names.dotted(given)) is not None


def _returns_time(function: ast.AST, name: str, code: Code) -> bool:
    """A function that hands the time back is called for many samples elsewhere."""
    returned = [n.value for n in ast.walk(function) if isinstance(n, ast.Return) and n.value is not None]
    used = {name for value in returned for name in _names(value)}
    made = [n for n in ast.walk(function) if isinstance(n, ast.Assign) and name in _names(n.value)]
    return name in used or any(_names(t) & used for n in made for t in n.targets)


def _names(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


RULE = Rule(
    code="H301",
    name="one-call-timed",
    on=(ast.Assign, ast.With),
    words=("time", "datetime"),
    remedy="Warm up, time many calls with time.perf_counter_ns, report p50 and p99 (or hasten.benchmark).",
    check=check,
)
