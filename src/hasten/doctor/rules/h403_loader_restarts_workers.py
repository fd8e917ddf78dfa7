"""A `DataLoader` whose workers start anew each epoch.

## What it does
Finds `DataLoader(..., num_workers=n)` without `persistent_workers` that is iterated inside a loop of epochs, by itself
or by a function or method of the file, in a file that uses CUDA; so too one that a Lightning module's
`train_dataloader` or `val_dataloader` returns.

## Why is this bad
At the end of each epoch all workers stop, and new ones start: processes, imports and the dataset's copy once more.

## Cost
A tenth of a second to ten seconds an epoch.

## Example
```python
loader = DataLoader(dataset, batch_size=64, num_workers=4, pin_memory=True)
for epoch in range(90):
    for batch in loader:
        train(batch)
```

## Use instead
```python
loader = DataLoader(dataset, batch_size=64, num_workers=4, pin_memory=True, persistent_workers=True)
```

## Fix safety
Safe where `num_workers` is a number above zero: with zero, the option is an error.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from hasten.doctor.clocks import is_clock
from hasten.doctor.code import Code
from hasten.doctor.loaders import has_workers, is_given_each_epoch, is_loader
from hasten.doctor.rule import Edit, Hit, Rule, argument, hit


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Loaders iterated once an epoch that lose their workers each time."""
    assert isinstance(node, ast.Call)
    if (
        not is_loader(node, code)
        or not has_workers(node, literal=True)
        or argument(node, 14, "persistent_workers") is not None
    ):
        return
    if is_given_each_epoch(node, code) or _is_iterated_often(node, code):
        edit = Edit("argument", node, "True", "persistent_workers")
        yield hit(node, "all workers are stopped and started again at each epoch", edit, safe=True)


def _is_iterated_often(node: ast.Call, code: Code) -> bool:
    statement = code.statement(node)
    if not isinstance(statement, ast.Assign) or statement.value is not node or code.loop(node) is not None:
        return False
    return any(_is_run_each_epoch(n, code) for n in _reads(statement.targets[0], code))


def _reads(target: ast.expr, code: Code) -> list[ast.expr]:
    """Where a variable, or an attribute of the object itself, is read."""
    loaded = [n for n in code.names.nodes if isinstance(getattr(n, "ctx", None), ast.Load)]
    if isinstance(target, ast.Name):
        scope = code.names.scope_of(target)
        named = (n for n in loaded if isinstance(n, ast.Name) and n.id == target.id)
        return [n for n in named if code.names.find(n.id, n)[0] is scope]
    owner = code.names.class_of_self(target.value) if isinstance(target, ast.Attribute) else None
    if owner is None or not isinstance(target, ast.Attribute):
        return []
    kept = (n for n in loaded if isinstance(n, ast.Attribute) and n.attr == target.attr)
    return [n for n in kept if code.names.class_of_self(n.value) is owner]


def _is_run_each_epoch(read: ast.expr, code: Code) -> bool:
    """True where a loop iterates the loader within another, or hands it to a function of the file that iterates it."""
    header = next((a for a in code.ancestors(read) if isinstance(a, (ast.For, ast.Call, ast.stmt))), None)
    while isinstance(header, ast.Call) and code.function_run(header) is None:
        header = next((a for a in code.ancestors(header) if isinstance(a, (ast.For, ast.Call, ast.stmt))), None)
    if header is None or not _is_repeated(header, code):
        return False
    if isinstance(header, ast.For):
        return any(n is read for n in ast.walk(header.iter)) and not _measures(header, code)
    return isinstance(header, ast.Call) and _iterates_parameter(header, read, code)


def _is_repeated(node: ast.AST, code: Code) -> bool:
    """True in a loop, and in a function that a loop of the file calls: `for epoch in range(90): train(epoch)`."""
    if code.loop(node) is not None:
        return not _is_now_and_then(node, code)
    function = code.function(node)
    calls = code.callers(function) if function is not None else []
    return any(code.loop(c) is not None and not _is_now_and_then(c, code) for c in calls)


def _is_now_and_then(node: ast.AST, code: Code) -> bool:
    """True beneath `if epoch % 10 == 0`: workers that were kept would idle for the rounds between."""
    loop = code.loop(node)
    for around in code.ancestors(node):
        if around is loop:
            return False
        if isinstance(around, ast.If) and any(isinstance(n, ast.Mod) for n in ast.walk(around.test)):
            return True
    return False


def _measures(loop: ast.For, code: Code) -> bool:
    """True for timed rounds that only draw batches: they measure the loader, the start of its workers with it."""
    works = any(isinstance(n, (ast.Call, ast.Subscript, ast.BinOp)) for s in loop.body for n in ast.walk(s))
    return not works and any(is_clock(c, code) and code.function(c) is code.function(loop) for c in code.calls)


def _iterates_parameter(call: ast.Call, given: ast.expr, code: Code) -> bool:
    function = code.function_run(call)
    assert function is not None
    parameters = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    names = {p.arg for p in parameters if any(a is given for a in code.kinds.calls.arguments(function, p.arg))}
    headers = (n.iter for n in ast.walk(function) if isinstance(n, ast.For))
    return any(isinstance(n, ast.Name) and n.id in names for header in headers for n in ast.walk(header))


RULE = Rule(
    code="H403",
    name="loader-restarts-workers",
    on=(ast.Call,),
    words=("DataLoader",),
    remedy="Add persistent_workers=True.",
    check=check,
)
