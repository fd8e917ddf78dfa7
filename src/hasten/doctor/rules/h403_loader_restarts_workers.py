"""A `DataLoader` whose workers start anew each epoch.

## What it does
Finds `DataLoader(..., num_workers=n)` without `persistent_workers` that is iterated inside a loop of epochs, in a file
that uses CUDA.

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

from hasten.doctor.code import Code
from hasten.doctor.loaders import has_workers, is_loader
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
    if _is_iterated_often(node, code):
        edit = Edit("argument", node, "True", "persistent_workers")
        yield hit(node, "all workers are stopped and started again at each epoch", edit, safe=True)


def _is_iterated_often(node: ast.Call, code: Code) -> bool:
    statement = code.statement(node)
    if (
        not isinstance(statement, ast.Assign)
        or not isinstance(statement.targets[0], ast.Name)
        or code.loop(node) is not None
    ):
        return False
    name = statement.targets[0].id
    scope = code.names.scope_of(statement)
    for loop in code.names.nodes:
        if not isinstance(loop, ast.For) or code.loop(loop) is None:
            continue
        read = [n for n in ast.walk(loop.iter) if isinstance(n, ast.Name) and n.id == name]
        if read and code.names.find(name, read[0])[0] is scope:
            return True
    return False


RULE = Rule(
    code="H403",
    name="loader-restarts-workers",
    on=(ast.Call,),
    words=("DataLoader",),
    remedy="Add persistent_workers=True.",
    check=check,
)
