"""A `tf.data` `map` or `interleave` without `num_parallel_calls`.

## What it does
Finds `dataset.map(f)` that runs its function on one element after the other. Lambdas that only pick or rename parts
of the element are left alone.

## Why is this bad
One core prepares the data, whatever the machine has; the rest waits.

## Cost
As many times as there are free cores, for pipelines bound by their `map`.

## Example
```python
data = data.map(decode)
```

## Use instead
```python
data = data.map(decode, num_parallel_calls=tf.data.AUTOTUNE)
```

## Fix safety
Unsafe: order is kept, but a function with state or random numbers gives them out in another order.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from hasten.doctor import makers
from hasten.doctor.code import Code
from hasten.doctor.rule import Edit, Hit, Rule, argument, hit


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Serial maps of datasets."""
    assert isinstance(node, ast.Call)
    if not isinstance(node.func, ast.Attribute) or node.func.attr not in ("map", "interleave"):
        return
    if not node.args or not code.is_a(node.func.value, makers.TF_DATASET) or any(k.arg is None for k in node.keywords):
        return
    place = 1 if node.func.attr == "map" else 3
    if argument(node, place, "num_parallel_calls") is not None or _is_trivial(node.args[0]):
        return
    name = next((n for n, bs in code.names.module.names.items() if any(b.origin == "tensorflow" for b in bs)), "")
    edits = (Edit("argument", node, f"{name}.data.AUTOTUNE", "num_parallel_calls"),) if name else ()
    yield hit(node, f"`{node.func.attr}` works on one element after the other", *edits)


def _is_trivial(function: ast.expr) -> bool:
    if not isinstance(function, ast.Lambda):
        return False
    calls = [n for n in ast.walk(function.body) if isinstance(n, ast.Call)]
    return not calls or any(isinstance(c.func, ast.Attribute) and c.func.attr == "apply" for c in calls)


RULE = Rule(
    code="H406",
    name="serial-map",
    on=(ast.Call,),
    words=(".map(", ".interleave("),
    remedy="Add num_parallel_calls=tf.data.AUTOTUNE.",
    check=check,
)
