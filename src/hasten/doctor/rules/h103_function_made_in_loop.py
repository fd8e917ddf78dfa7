"""`tf.function` made inside a loop or a request handler.

## What it does
Finds `tf.function(...)` and `@tf.function` where they run again and again: in a loop's body, in a request handler, in
a function that a loop of the file calls. So too in a function that is a step by its name, where the new function is
run once and holds no loop.

## Why is this bad
A new `tf.function` knows no traces: it traces and optimises the graph at its first call, so here at every call.

## Cost
Tens of milliseconds to seconds each time; slower than no `tf.function` at all.

## Example
```python
for batch in batches:
    infer = tf.function(model)
    answers.append(infer(batch))
```

## Use instead
```python
infer = tf.function(model)
for batch in batches:
    answers.append(infer(batch))
```

## Fix safety
Safe for `name = tf.function(something)` that no round changes: the line moves before the loop.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from hasten.doctor.code import Code
from hasten.doctor.names import Function
from hasten.doctor.percall import hoist, is_guarded, is_used
from hasten.doctor.rule import Hit, Rule, hit

_STEP = re.compile(r"^(?!(make|build|create|get|define|compile|init)_)(\w*_)?step$")


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Traced functions made where the line runs many times."""
    if isinstance(node, ast.Call):
        if code.qualified(node.func) != "tensorflow.function" or not node.args or _is_decorator(node, code):
            return
        loop = code.loop(node)
        if loop is not None and (code.depends_on_round(node, loop) or not isinstance(loop, (ast.For, ast.While))):
            return
        if loop is not None and not is_used(node, loop, code):
            return
        hot = code.hot(node)
        if hot is not None and not is_guarded(node, code) and not _is_kept(node, code) and not _pays_off(node, code):
            yield hit(node, f"a new `tf.function` traces anew, {hot.reason}", *hoist(node, code), safe=True)
        return
    assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    for decorator in node.decorator_list:
        target = decorator.func if isinstance(decorator, ast.Call) else decorator
        if code.qualified(target) == "tensorflow.function":
            hot = code.hot(node)
            reason = hot.reason if hot is not None else _each_step(node, code)
            loop = code.loop(node)
            if not reason or is_guarded(node, code) or (loop is not None and code.depends_on_round(node, loop)):
                continue
            if _pays_off(node, code):
                continue
            yield hit(decorator, f"'{node.name}' is a new `tf.function`, traced anew, {reason}")


def _each_step(node: Function, code: Code) -> str:
    """Why a function of one run is traced again and again: the function around it is a step of other files' loops."""
    around = code.function(node)
    if around is None or not _STEP.search(around.name):
        return ""
    looped = any(isinstance(n, (ast.For, ast.While)) for n in ast.walk(node))
    run = any(code.function(c) is around for c in code.callers(node))
    return f"at every call of '{around.name}'" if run and not looped else ""


def _pays_off(node: ast.AST, code: Code) -> bool:
    """True where the function around hands the new one on, or runs it in a loop of its own: one for many calls."""
    around = code.function(node)
    if around is None or code.loop(node) is not None or code.handler(node) is not None:
        return False
    statement = code.statement(node)
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
        names = {statement.name}
    elif isinstance(statement, ast.Assign):
        names = {t.id for t in statement.targets if isinstance(t, ast.Name)}
    else:
        return False
    for used in ast.walk(around):
        if not isinstance(used, ast.Name) or used.id not in names or not isinstance(used.ctx, ast.Load):
            continue
        parent = code.parent(used)
        called = isinstance(parent, ast.Call) and parent.func is used
        if not called or code.loop(used) is not None:
            return True
    return False


def _is_decorator(node: ast.AST, code: Code) -> bool:
    parent = code.parent(node)
    return isinstance(parent, (ast.FunctionDef, ast.AsyncFunctionDef)) and node in parent.decorator_list


def _is_kept(node: ast.AST, code: Code) -> bool:
    parent = code.parent(node)
    stored = isinstance(parent, ast.Assign) and any(
        isinstance(t, (ast.Attribute, ast.Subscript)) for t in parent.targets
    )
    return stored or isinstance(parent, (ast.Return, ast.Dict))


RULE = Rule(
    code="H103",
    name="function-made-in-loop",
    on=(ast.Call, ast.FunctionDef, ast.AsyncFunctionDef),
    words=("tf.function", "tensorflow"),
    remedy="Make it once, outside, and call it here.",
    check=check,
)
