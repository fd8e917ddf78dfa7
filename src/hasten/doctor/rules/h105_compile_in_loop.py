"""`torch.compile` inside a loop or a request handler.

## What it does
Finds `torch.compile(model)` (and `torch.jit.trace`/`script`) where it runs again and again with the same model, and
`torch.compile(f)(x)` in a function, which throws away what it compiled; so too a function decorated with it there.

## Why is this bad
Compiling takes seconds; a new wrapper looks up and guards everything again, and past the cache limit falls back to
eager without a word.

## Cost
Seconds to minutes each time.

## Example
```python
for batch in batches:
    fast = torch.compile(model)
    out = fast(batch)
```

## Use instead
```python
fast = torch.compile(model)
for batch in batches:
    out = fast(batch)
```

## Fix safety
Safe for `name = torch.compile(something)` that no round changes: the line moves before the loop.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from hasten.doctor.code import Code
from hasten.doctor.names import Function
from hasten.doctor.percall import hoist, is_guarded, is_used, tainted
from hasten.doctor.requirements import is_of_torch
from hasten.doctor.rule import Hit, Rule, hit
from hasten.doctor.samples import value_of

_ONCE = re.compile(r"_*(test|bench|main|export|convert|warm|setup|init|profile|compare|check|demo)")
_COMPILERS = ("torch.compile", "torch.jit.trace", "torch.jit.script")


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Compilations of one model, many times."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        yield from _decorated(node, code)
        return
    assert isinstance(node, ast.Call)
    if code.qualified(node.func) not in _COMPILERS or not node.args or is_guarded(node, code):
        return
    if is_of_torch(code.file):
        return  # its own operators hand themselves to the compiler, which keeps what it made
    loop = code.loop(node)
    if loop is not None and (_is_new(node, loop, code) or not isinstance(loop, (ast.For, ast.While))):
        return
    if loop is not None and any(code.depends_on_round(k.value, loop) for k in node.keywords):
        return  # a sweep over modes or backends
    if loop is not None and not is_used(node, loop, code):
        return
    at_once = _is_called_at_once(node, code)
    if code.definitions.function_named(node.args[0]) is not None and not at_once:
        return  # a function defined here, not a model
    statement = code.statement(node)
    if isinstance(statement, ast.Assign) and not isinstance(statement.targets[0], ast.Name):
        return
    if isinstance(statement, ast.Return) and loop is None and not at_once:
        return
    if loop is None and (_from_outside(node, code) or _is_fresh(node, code)):
        return
    hot, function = code.hot(node), code.function(node)
    if hot is not None and _is_of_new_owner(node, hot.loop, code):
        return
    if hot is not None:
        yield hit(node, f"the model is compiled again, {hot.reason}", *hoist(node, code), safe=True)
    elif at_once and function is not None and not _ONCE.match(function.name):
        yield hit(node, f"the model is compiled again, at every call of '{function.name}'")


def _decorated(node: Function, code: Code) -> Iterator[Hit]:
    """Functions decorated where they are defined again and again, of nothing that the round changes."""
    for decorator in node.decorator_list:
        target = decorator.func if isinstance(decorator, ast.Call) else decorator
        if code.qualified(target) != "torch.compile" or is_guarded(node, code):
            continue
        loop, hot = code.loop(node), code.hot(node)
        if hot is not None and not (loop is not None and code.depends_on_round(node, loop)):
            yield hit(decorator, f"'{node.name}' is compiled again, {hot.reason}")


def _is_called_at_once(node: ast.Call, code: Code) -> bool:
    """True for `torch.compile(f)(x)`: nobody keeps what was compiled."""
    parent = code.parent(node)
    return isinstance(parent, ast.Call) and parent.func is node and code.qualified(node.func) == "torch.compile"


def _is_new(node: ast.Call, loop: ast.AST, code: Code) -> bool:
    """True when each round brings another model; `model = torch.compile(model)` wraps the same one again."""
    model = node.args[0]
    if isinstance(model, ast.Name):
        statement = code.statement(node)
        return any(b.node is not statement for b in code.bound_in(model, loop))
    return code.depends_on_round(model, loop)


def _is_of_new_owner(node: ast.Call, loop: ast.AST | None, code: Code) -> bool:
    """True for `self.model` of an object that each round of a loop elsewhere makes: `Exporter(model).export()`."""
    if loop is None or code.loop(node) is not None or not code.names.dotted(node.args[0]).startswith("self."):
        return False
    owner = code.klass(node)
    made = (c for c in ast.walk(loop) if isinstance(c, ast.Call) and isinstance(c.func, ast.Name))
    return owner is not None and any(getattr(c.func, "id", "") == owner.name for c in made)


def _is_fresh(node: ast.Call, code: Code) -> bool:
    """True where the function builds the model by a call that this file does not know: each may be another."""
    value = value_of(node.args[0], code)
    made = isinstance(value, ast.Call) and code.function(value) is code.function(node)
    return made and code.kind(value) is None


def _from_outside(node: ast.Call, code: Code) -> bool:
    """True where the model comes from the function's own arguments: each call may bring another."""
    function = code.function(node)
    names = tainted(function, [a.arg for a in function.args.args if a.arg != "self"]) if function is not None else set()
    return any(isinstance(n, ast.Name) and n.id in names for n in ast.walk(node.args[0]))


RULE = Rule(
    code="H105",
    name="compile-in-loop",
    on=(ast.Call, ast.FunctionDef, ast.AsyncFunctionDef),
    words=("torch.compile", "torch.jit", "compile(", "import compile"),
    remedy="Compile once, before the loop or when the program starts.",
    check=check,
)
