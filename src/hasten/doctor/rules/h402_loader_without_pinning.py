"""A `DataLoader` with workers but without `pin_memory` where a GPU is used.

## What it does
Finds `DataLoader(..., num_workers=n)` without `pin_memory` in a file that moves batches to CUDA, or to the device that
an object was told, and where a trainer of another file is handed the loader. Batches that a `collate_fn` of another
file puts together are left alone, unless a loop of this file moves them as they come; so are bare indices.

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
import re
from collections.abc import Iterator

from hasten.doctor.around import FUNCTIONS
from hasten.doctor.code import Code
from hasten.doctor.loaders import has_workers, is_loader
from hasten.doctor.rule import Edit, Hit, Rule, argument, hit

_LOADERS = re.compile(r"load|batch|data|iter|_dl\b")
_TENSORS = re.compile(r"stack|tensor|collate|\bcat\b|pad|torch\.")


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Loaders with workers whose batches are pageable."""
    assert isinstance(node, ast.Call)
    if not is_loader(node, code) or not has_workers(node) or argument(node, 7, "pin_memory") is not None:
        return
    if _gives_tensors(node, code) and not _gives_indices(node, code):
        yield hit(
            node,
            "batches go to the GPU through pageable memory",
            Edit("argument", node, "True", "pin_memory"),
            safe=True,
        )


def _gives_indices(node: ast.Call, code: Code) -> bool:
    """True for a data set of the file whose items are what they are asked by: a count of batches, no data."""
    kind = code.kind(argument(node, 0, "dataset"))
    owner = kind.local if kind is not None else None
    lookup = code.definitions.method(owner, "__getitem__") if owner is not None else None
    asked = {a.arg for a in lookup.args.args} if lookup is not None else set()
    return lookup is not None and all(getattr(r, "id", "") in asked for r in code.definitions.returns(lookup))


def _gives_tensors(node: ast.Call, code: Code) -> bool:
    """False for batches that a function of another file puts together: arrays and lists are never pinned."""
    collate = argument(node, 6, "collate_fn")
    if collate is None or isinstance(collate, ast.Constant) or code.qualified(collate).startswith("torch."):
        return True
    written = code.names.dotted(collate.func if isinstance(collate, ast.Call) else collate).rsplit(".", 1)[-1]
    own = [d for d in code.names.nodes if isinstance(d, (*FUNCTIONS, ast.ClassDef)) and d.name == written]
    return any(_TENSORS.search(code.source(d)) for d in own) or code.fact(_moves_what_comes)


def _moves_what_comes(code: Code) -> bool:
    """True where the elements of a loop go to the device as they are: they are tensors."""
    for call in code.calls_named("to", "cuda"):
        at = call.func.value if isinstance(call.func, ast.Attribute) else call
        while isinstance(at, (ast.Subscript, ast.Attribute)):
            at = at.value
        bindings = code.names.find(at.id, at)[1] if isinstance(at, ast.Name) else []
        if any(b.role == "element" and b.value is not None and _LOADERS.search(code.source(b.value)) for b in bindings):
            return True
    return bool(code.calls_named("to_device", "to_cuda", "prepare", "fit"))


RULE = Rule(
    code="H402",
    name="loader-without-pinning",
    on=(ast.Call,),
    words=("DataLoader",),
    remedy="Add pin_memory=True (and .to(device, non_blocking=True)).",
    check=check,
)
