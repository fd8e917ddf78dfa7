"""A `tf.data` `map` or `interleave` without `num_parallel_calls`.

## What it does
Finds `dataset.map(f)` that runs its function on one element after the other, where the function's lines (its name,
where they are out of sight) show work: reading, parsing, decoding, images, text, random numbers, arithmetic. Functions
that only pick or rename parts of the element, count in a variable, or run a model, which uses all cores by itself, are
left alone, and so are a cut, a flip or a factor behind a map on several cores, pipelines of one element or of
a few that are written out, those of which a loop only looks at a few elements, and those inside a function that
another pipeline maps.

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
from hasten.doctor.pipelines import is_within_map, only_looked_at, pipeline_of, shows_heavy_work, shows_work, step_of
from hasten.doctor.rule import Edit, Hit, Rule, argument, hit


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Serial maps of datasets."""
    assert isinstance(node, ast.Call)
    if not isinstance(node.func, ast.Attribute) or node.func.attr not in ("map", "interleave"):
        return
    if not node.args or not code.is_a(node.func.value, makers.TF_DATASET) or any(k.arg is None for k in node.keywords):
        return
    place = 1 if node.func.attr == "map" else 3
    if argument(node, place, "num_parallel_calls") is not None or _is_light(node, code) or _is_single(node, code):
        return
    before = pipeline_of(node.func.value, code)
    cheap = before.is_shared and not shows_heavy_work(node.args[0], code)
    if place == 1 and (before.is_single or cheap):
        return
    if only_looked_at(node, code) or is_within_map(node, code):
        return
    name = next((n for n, bs in code.names.module.names.items() if any(b.origin == "tensorflow" for b in bs)), "")
    edits = (Edit("argument", node, f"{name}.data.AUTOTUNE", "num_parallel_calls"),) if name else ()
    yield hit(step_of(node), f"`{node.func.attr}` works on one element after the other", *edits)


def _is_light(node: ast.Call, code: Code) -> bool:
    """True for a map whose function shows no work; an interleave reads files, unless it only deals datasets out."""
    local = code.definitions.function_named(node.args[0])
    unseen = local is None and not isinstance(node.args[0], ast.Lambda)
    reads = isinstance(node.func, ast.Attribute) and node.func.attr == "interleave" and unseen
    return not reads and (_ignores_element(local or node.args[0]) or not shows_work(node.args[0], code))


def _ignores_element(function: ast.AST) -> bool:
    """True for `lambda _: tf.random.normal(shape)`: the same few numbers each time, and no element to work on."""
    if not isinstance(function, (ast.Lambda, ast.FunctionDef)) or function.args.vararg is not None:
        return False
    given = {a.arg for a in (*function.args.posonlyargs, *function.args.args)}
    parts = [function.body] if isinstance(function, ast.Lambda) else function.body
    named = {n.id for p in parts for n in ast.walk(p) if isinstance(n, ast.Name)}
    return bool(given) and not given & named


def _is_single(node: ast.Call, code: Code) -> bool:
    """True where the function makes one element to take out whole, or feeds a placeholder: nothing to share out."""
    around = code.function(node)
    return around is not None and any(
        code.function(c) is around
        for c in code.calls_named("get_single_element", "placeholder", "placeholder_with_default")
    )


RULE = Rule(
    code="H406",
    name="serial-map",
    on=(ast.Call,),
    words=(".map(", ".interleave("),
    remedy="Add num_parallel_calls=tf.data.AUTOTUNE.",
    check=check,
)
