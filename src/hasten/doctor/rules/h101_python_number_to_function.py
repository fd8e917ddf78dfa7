"""Python numbers handed to a `tf.function`.

## What it does
Finds a `tf.function` called with a Python number that changes: the index of a loop, a counter, or three different
literals at its call sites.

## Why is this bad
A Python number is part of the function's key: each new value traces and optimises the whole graph again, and every
trace is kept.

## Cost
Ten milliseconds to seconds for each new value, and memory that never shrinks.

## Example
```python
for step in range(1000):
    train_step(batch, step)
```

## Use instead
```python
for step in tf.range(1000):          # or tf.constant(step)
    train_step(batch, step)
```

## Fix safety
Unsafe: the number is wrapped in `tf.constant`; a function that branches on it in Python, or takes it as a shape,
breaks.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from hasten.doctor import makers
from hasten.doctor.code import Code
from hasten.doctor.functions_tf import definition, is_fixed, traced_call
from hasten.doctor.rule import Edit, Hit, Rule, hit

_MANY = 3


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Changing Python numbers among the arguments of traced functions."""
    assert isinstance(node, ast.Call)
    if not traced_call(node, code) or is_fixed(node, code) or _inside_trace(node, code):
        return
    loop = code.loop(node)
    for place, value in enumerate(node.args):
        counted = loop is not None and code.is_a(value, makers.NUMBER) and code.depends_on_round(value, loop)
        if counted or _many_literals(node, place, value, code):
            wrapped = _wrapped(value, code)
            yield hit(value, "a changing Python number makes `tf.function` trace again for each value", *wrapped)


def _inside_trace(node: ast.AST, code: Code) -> bool:
    function = code.function(node)
    return function is not None and any("function" in code.names.dotted(d) for d in function.decorator_list)


def _many_literals(node: ast.Call, place: int, value: ast.expr, code: Code) -> bool:
    """At least three numbers at one parameter, over the file's calls of the function."""
    if not isinstance(value, ast.Constant) or not code.is_a(value, makers.NUMBER):
        return False
    function = definition(node, code)
    if function is None:
        return False
    seen = {
        str(c.args[place].value)  # type: ignore[attr-defined]
        for c in code.callers(function)
        if len(c.args) > place and isinstance(c.args[place], ast.Constant) and code.is_a(c.args[place], makers.NUMBER)
    }
    return len(seen) >= _MANY


def _wrapped(value: ast.expr, code: Code) -> tuple[Edit, ...]:
    name = _tensorflow(value, code)
    return (Edit("replace", value, f"{name}.constant({code.source(value)})"),) if name else ()


def _tensorflow(node: ast.AST, code: Code) -> str:
    """What the file calls the tensorflow module."""
    for name, bindings in code.names.module.names.items():
        if any(b.role == "import" and b.origin == "tensorflow" for b in bindings):
            return name
    return ""


RULE = Rule(
    code="H101",
    name="python-number-to-function",
    on=(ast.Call,),
    words=("tf.function", "tensorflow"),
    remedy="Pass a tensor: tf.constant(value), or loop over tf.range.",
    check=check,
)
