"""A `DataLoader` with workers but without `pin_memory` where a GPU is used.

## What it does
Finds `DataLoader(..., num_workers=n)` without `pin_memory` in a file that moves batches to CUDA.

## Why is this bad
Batches in pageable memory are first copied to a pinned buffer, and the copy to the device can't overlap computing
(`non_blocking=True` then does nothing).

## Cost
Up to half the speed of the transfer.

## Example
```python
loader = DataLoader(dataset, batch_size=64, num_workers=4)
```

## Use instead
```python
loader = DataLoader(dataset, batch_size=64, num_workers=4, pin_memory=True)
```

## Fix safety
Safe: the same values, in memory that the device can read directly.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from hasten.doctor.code import Code
from hasten.doctor.loaders import has_workers, is_loader
from hasten.doctor.rule import Edit, Hit, Rule, argument, hit


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Loaders with workers whose batches are pageable."""
    assert isinstance(node, ast.Call)
    if is_loader(node, code) and has_workers(node) and argument(node, 7, "pin_memory") is None:
        yield hit(
            node,
            "batches go to the GPU through pageable memory",
            Edit("argument", node, "True", "pin_memory"),
            safe=True,
        )


RULE = Rule(
    code="H402",
    name="loader-without-pinning",
    on=(ast.Call,),
    words=("DataLoader",),
    remedy="Add pin_memory=True (and .to(device, non_blocking=True)).",
    check=check,
)
