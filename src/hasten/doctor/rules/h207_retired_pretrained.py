"""torchvision's retired `pretrained=True`.

## What it does
Finds `pretrained=` among the arguments of `torchvision.models` functions (timm's argument of that name is current and
left alone), but for projects that hold torch below 1.12.

## Why is this bad
Deprecated since torchvision 0.13; `weights=` says which weights, and brings the preprocessing that belongs to them.
`pretrained=True` silently means the first, usually weaker set.

## Cost
None in time; a warning at each call, and often a point or two of accuracy.

## Example
```python
net = torchvision.models.resnet50(pretrained=True)
```

## Use instead
```python
net = torchvision.models.resnet50(weights="IMAGENET1K_V1")     # the same weights; "DEFAULT" for the best
```

## Fix safety
Safe for classification models: `IMAGENET1K_V1` is what `pretrained=True` loaded. Not offered for detection,
segmentation and video, or where the value is no literal.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from hasten.doctor.code import Code
from hasten.doctor.requirements import is_torch_older
from hasten.doctor.retired import is_fallback
from hasten.doctor.rule import Edit, Hit, Rule, hit, keyword


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """`pretrained` handed to torchvision."""
    assert isinstance(node, ast.Call)
    name = code.qualified(node.func)
    if not name.startswith("torchvision.models.") or is_fallback(node, code) or is_torch_older(code.file, (1, 12)):
        return
    for old in ("pretrained", "pretrained_backbone"):
        value = keyword(node, old)
        if value is not None:
            yield hit(node, f"`{old}=` is retired: today it is `weights=`", *_edits(node, name, old, value), safe=True)
            return
    if len(node.args) == 1 and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, bool):
        yield hit(node, "a positional `pretrained` is retired: today it is `weights=`")


def _edits(node: ast.Call, name: str, old: str, value: ast.expr) -> tuple[Edit, ...]:
    if (name.count(".") > 2 and name.split(".")[2] not in _CLASSIFIERS) or old != "pretrained":
        return ()
    if not isinstance(value, ast.Constant) or not isinstance(value.value, bool) or keyword(node, "weights") is not None:
        return ()
    weights = '"IMAGENET1K_V1"' if value.value else "None"
    return (Edit("argument", node, None, old), Edit("argument", node, weights, "weights"))


_CLASSIFIERS = (
    "resnet",
    "vgg",
    "alexnet",
    "densenet",
    "mobilenet",
    "mobilenetv2",
    "efficientnet",
    "squeezenet",
    "inception",
)

RULE = Rule(
    code="H207",
    name="retired-pretrained",
    on=(ast.Call,),
    words=("torchvision",),
    remedy='Write weights="IMAGENET1K_V1" (the same) or weights="DEFAULT" (the best).',
    check=check,
    tests=True,
)
