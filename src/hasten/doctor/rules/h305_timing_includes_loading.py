"""Timing that includes loading or converting the model.

## What it does
Finds two readings of a clock with both a load or conversion (`load_model`, `from_pretrained`, `InferenceSession`,
`torch.onnx.export`) and a run of the model between them.

## Why is this bad
Loading takes seconds, a run microseconds: the sum says nothing about either, and changes with the disk's cache.

## Cost
Latencies too high by ten times for a small file, by thousands for a large one.

## Example
```python
start = time.perf_counter()
model = keras.models.load_model("model.keras")
model(x)
print("latency", time.perf_counter() - start)
```

## Use instead
```python
model = keras.models.load_model("model.keras")
model(x)
start = time.perf_counter()
...
```

## Fix safety
No fix: which of the lines belong to what is measured is yours to say.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from hasten.doctor.clocks import Region, loads, networks, regions
from hasten.doctor.code import Code
from hasten.doctor.rule import Hit, Rule, hit

_MEANT = ("cold", "startup", "start_up", "total", "end_to_end", "e2e", "first", "load",
          "done", "finish", "complete", "execution", "script", "program", "whole")  # fmt: skip


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Regions that hold both a load and a run."""
    for region in regions(node, code):
        load = loads(region.body, code)
        runs = networks(region.body, code)
        after = [r for r in runs if load is not None and (r.lineno, r.col_offset) > (load.lineno, load.col_offset)]
        if load is None or not after or _is_meant(region) or _is_job(after, region, code):
            continue
        if any(
            isinstance(n, ast.Attribute) and n.attr in ("backward", "fit") for s in region.body for n in ast.walk(s)
        ):
            continue
        yield hit(region.reading, f"the time includes loading the model on line {load.lineno}")


def _is_job(runs: list[ast.Call], region: Region, code: Code) -> bool:
    """True for a pass over data whose whole time is told, and not that of an element."""
    outer = set(code.loops(region.start))
    over = [loop for r in runs for loop in code.loops(r) if loop not in outer and isinstance(loop, ast.For)]
    counted = any(getattr(n, "id", "") in ("range", "trange") for loop in over for n in ast.walk(loop.iter))
    shared = region.timer is None and any(
        isinstance(n, ast.BinOp) and isinstance(n.op, ast.Div) for n in ast.walk(region.stop)
    )
    return bool(over) and not counted and not shared


def _is_meant(region: Region) -> bool:
    """A cold start or a whole job measured on purpose, by its names and words."""
    text = region.told().lower()
    return any(word in text for word in _MEANT)


RULE = Rule(
    code="H305",
    name="timing-includes-loading",
    on=(ast.Assign, ast.With),
    words=("time",),
    remedy="Load and warm up first; time the runs alone, and the cold start apart.",
    check=check,
)
