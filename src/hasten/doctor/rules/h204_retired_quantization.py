"""`torch.quantization`, the retired place of `torch.ao.quantization`.

## What it does
Finds imports from and uses of `torch.quantization` (and `torch.nn.quantized`, `torch.nn.intrinsic`, `torch.nn.qat`).
Projects that hold torch below 1.13 are left alone.

## Why is this bad
The module is an alias kept for old code since torch 1.13 and gets nothing new. `torch.ao.quantization` is what it
points to; new work happens in `torchao`.

## Cost
None at run time today; a break at the release that drops the alias.

## Example
```python
q = torch.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
```

## Use instead
```python
q = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
```

## Fix safety
Safe: the same functions under today's name.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from hasten.doctor.code import Code
from hasten.doctor.requirements import is_torch_older
from hasten.doctor.retired import is_fallback
from hasten.doctor.rule import Edit, Hit, Rule, hit

_MOVED = {
    "torch.quantization": "torch.ao.quantization",
    "torch.nn.quantized": "torch.ao.nn.quantized",
    "torch.nn.intrinsic": "torch.ao.nn.intrinsic",
    "torch.nn.qat": "torch.ao.nn.qat",
    "torch.nn.quantizable": "torch.ao.nn.quantizable",
}


_OWN = re.compile(r"(^|[/\\])torch[/\\](__init__|nn|quantization|ao|testing)\b")  # torch itself keeps the alias alive


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Imports and attributes of the old modules, each named once."""
    if is_fallback(node, code) or _OWN.search(code.path) or is_torch_older(code.file, (1, 13)):
        return
    if isinstance(node, ast.ImportFrom) and node.module in ("torch", "torch.nn") and not node.level:
        yield from _whole_module(node, code)
    elif isinstance(node, ast.ImportFrom):
        old = _old(node.module or "") if not node.level else ""
        if old:
            text = code.source(node).replace(old, _MOVED[old], 1)
            yield hit(
                node, f"`{old}` is retired: today it is `{_MOVED[old]}`", Edit("statement", node, text), safe=True
            )
    elif isinstance(node, ast.Import):
        for alias in node.names:
            if _old(alias.name):
                edit = [Edit("statement", node, code.source(node).replace(_old(alias.name), _MOVED[_old(alias.name)]))]
                # `import torch.quantization` is read by its full name further down: those uses are named themselves.
                yield hit(
                    node, f"`{alias.name}` is retired: today it is `{_MOVED[_old(alias.name)]}`", *edit, safe=True
                )
    elif isinstance(node, ast.Attribute):
        written = code.names.dotted(node)
        old = code.qualified(node)
        if old in _MOVED and written == old and not isinstance(code.parent(node), ast.Import):
            yield hit(
                node, f"`{old}` is retired: today it is `{_MOVED[old]}`", Edit("replace", node, _MOVED[old]), safe=True
            )


def _whole_module(node: ast.ImportFrom, code: Code) -> Iterator[Hit]:
    """`from torch import quantization`."""
    for alias in node.names:
        old = f"{node.module}.{alias.name}"
        if old in _MOVED:
            new = _MOVED[old].rsplit(".", 1)[0]
            text = code.source(node).replace(f"from {node.module} ", f"from {new} ", 1)
            edits = (Edit("statement", node, text),) if len(node.names) == 1 else ()
            yield hit(node, f"`{old}` is retired: today it is `{_MOVED[old]}`", *edits, safe=True)


def _old(name: str) -> str:
    return next((old for old in _MOVED if name == old or name.startswith(old + ".")), "")


RULE = Rule(
    code="H204",
    name="retired-quantization",
    on=(ast.ImportFrom, ast.Import, ast.Attribute),
    words=("quantization", "quantized", "intrinsic", "nn.qat", "quantizable"),
    remedy="Write torch.ao.quantization (or move to torchao).",
    check=check,
    tests=True,
)
