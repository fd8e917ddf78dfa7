"""`torch.cuda.amp`, the retired place of `torch.amp`.

## What it does
Finds `torch.cuda.amp.autocast`, `torch.cuda.amp.GradScaler` and `torch.cpu.amp.autocast`, by whatever import.
Projects that hold torch below 2.4 are left alone.

## Why is this bad
Deprecated since torch 2.4: each use warns, and works for one kind of device only.

## Cost
A warning for each use; a break at the release that drops it.

## Example
```python
with torch.cuda.amp.autocast():
    out = model(x)
```

## Use instead
```python
with torch.amp.autocast("cuda"):
    out = model(x)
```

## Fix safety
Safe where `torch` itself is imported: the old class is this call.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from hasten.doctor.code import Code
from hasten.doctor.requirements import is_torch_older
from hasten.doctor.retired import is_fallback
from hasten.doctor.rule import Edit, Hit, Rule, hit

_NEW = {
    "torch.cuda.amp.autocast": ("autocast", "cuda"),
    "torch.cuda.amp.autocast_mode.autocast": ("autocast", "cuda"),
    "torch.cuda.amp.GradScaler": ("GradScaler", "cuda"),
    "torch.cuda.amp.grad_scaler.GradScaler": ("GradScaler", "cuda"),
    "torch.cpu.amp.autocast": ("autocast", "cpu"),
}


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Calls of the old classes, with the new call as the fix."""
    assert isinstance(node, ast.Call)
    found = _NEW.get(code.qualified(node.func))
    if found is None or is_fallback(node, code) or is_torch_older(code.file, (2, 4)):
        return
    name, device = found
    message = f'`{code.qualified(node.func)}` is retired: today it is `torch.amp.{name}("{device}", ...)`'
    yield hit(node, message, *_edit(node, name, device, code), safe=True)


def _edit(node: ast.Call, name: str, device: str, code: Code) -> tuple[Edit, ...]:
    torch = next((n for n, bs in code.names.module.names.items() if any(b.origin == "torch" for b in bs)), "")
    if not torch or any(isinstance(a, ast.Starred) for a in node.args) or (node.args and name == "autocast"):
        return ()
    rest = [code.source(a) for a in node.args]
    rest += [f"{k.arg}={code.source(k.value)}" if k.arg else f"**{code.source(k.value)}" for k in node.keywords]
    return (Edit("replace", node, f"{torch}.amp.{name}({', '.join([repr(device).replace(chr(39), chr(34)), *rest])})"),)


RULE = Rule(
    code="H205",
    name="retired-amp",
    on=(ast.Call,),
    words=("amp",),
    remedy='Write torch.amp.autocast("cuda") and torch.amp.GradScaler("cuda").',
    check=check,
    tests=True,
)
