"""A `tf.data` `map` or `interleave` without `num_parallel_calls`.

## What it does
Finds `dataset.map(f)` that runs its function on one element after the other, where the function's lines or its name
show work: reading, parsing, decoding, images, text, random numbers, arithmetic. Functions that only pick or rename
parts of the element, count in a variable, or run a model, which uses all cores by itself, are left alone.

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
import re
from collections.abc import Iterator

from hasten.doctor import makers
from hasten.doctor.code import Code
from hasten.doctor.rule import Edit, Hit, Rule, argument, hit
from hasten.doctor.words import words

_ARRANGES = words("items keys values get pop copy update dict tuple list len next iter isinstance zip pack_sequence_as")
_WORK = re.compile(
    r"decode|parse|read|load|augment|process|resiz|crop|flip|rotate|noise|normali|scale|tokeni|transform|convert|extract"
    r"|encode|random|spectrogram|stft|mfcc|mel|feature|py_func|numpy_function|^tensorflow\.(io|image|audio|strings|signal)\."
)
_STATEFUL = frozenset(("assign", "assign_add", "assign_sub", "scatter_nd_update"))
_SCALES = (ast.Mult, ast.Div, ast.Pow, ast.MatMult)  # sums and remainders are done to counters too
_OF_DATASETS = frozenset(("apply", "shard", "unbatch", "window", "flat_map"))


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
    name = next((n for n, bs in code.names.module.names.items() if any(b.origin == "tensorflow" for b in bs)), "")
    edits = (Edit("argument", node, f"{name}.data.AUTOTUNE", "num_parallel_calls"),) if name else ()
    yield hit(node, f"`{node.func.attr}` works on one element after the other", *edits)


def _is_light(node: ast.Call, code: Code) -> bool:
    """True for a map whose function shows no work; an interleave reads files, unless it only deals datasets out."""
    local = code.definitions.function_named(node.args[0])
    unseen = local is None and not isinstance(node.args[0], ast.Lambda)
    reads = isinstance(node.func, ast.Attribute) and node.func.attr == "interleave" and unseen
    return not reads and not _works(node.args[0], code)


def _is_single(node: ast.Call, code: Code) -> bool:
    """True where the function makes one element to take out whole, or feeds a placeholder: nothing to share out."""
    around = code.function(node)
    return around is not None and any(
        code.function(c) is around
        for c in code.calls_named("get_single_element", "placeholder", "placeholder_with_default")
    )


def _works(function: ast.expr, code: Code) -> bool:
    """True for a function that shows work of its own on each element, which several cores could share."""
    if isinstance(function, ast.Call) and code.qualified(function.func) == "functools.partial" and function.args:
        function = function.args[0]
    local = function if isinstance(function, ast.Lambda) else code.definitions.function_named(function)
    if local is None:
        made = function.func if isinstance(function, ast.Call) else function
        return _is_work(made, code)
    parts = [local.body] if isinstance(local, ast.Lambda) else local.body
    nodes = [n for p in parts for n in ast.walk(p)]
    called = [n.func for n in nodes if isinstance(n, ast.Call)]
    named = {_last_name(f) for f in called}
    if named & (_OF_DATASETS | _STATEFUL) or any(_is_model(f, code) for f in called):
        return False
    scales = (isinstance(n, ast.BinOp) and isinstance(n.op, _SCALES) for n in nodes)
    if isinstance(local, ast.FunctionDef) and any(scales):
        return True
    return not named <= _ARRANGES and (_is_work(function, code) or any(_is_work(f, code) for f in called))


def _is_work(function: ast.expr, code: Code) -> bool:
    name = code.qualified(function) or _last_name(function).lower()
    return name.startswith("tensorflow.data.") or _WORK.search(name) is not None


def _is_model(function: ast.expr, code: Code) -> bool:
    return code.is_a(function, makers.KERAS_MODEL) or _last_name(function).lower().endswith("model")


def _last_name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


RULE = Rule(
    code="H406",
    name="serial-map",
    on=(ast.Call,),
    words=(".map(", ".interleave("),
    remedy="Add num_parallel_calls=tf.data.AUTOTUNE.",
    check=check,
)
