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
            message = f"`{old}=` is retired: today it is `{_TODAY[old]}=`"
            yield hit(
                node, message, *_edits(node, name, old, value), safe=True, remedy=_remedy(name, _TODAY[old], value)
            )
            return
    if len(node.args) == 1 and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, bool):
        yield hit(node, "a positional `pretrained` is retired: today it is `weights=`")


def _remedy(name: str, today: str, value: ast.expr) -> str:
    """What to write instead; '' where that is the rule's own remedy."""
    if isinstance(value, ast.Constant) and not value.value:
        return f"Write {today}=None."
    family = name.split(".")[2] if name.count(".") > 2 else ""
    first = next((w for part, w in _FIRST_WEIGHTS if part in name), "IMAGENET1K_V1") if today == "weights" else ""
    if not first or (family and first == "IMAGENET1K_V1" and family not in _CLASSIFIERS):
        return f'Write {today}="DEFAULT" (the best), or the weights of this model by name.'
    if not isinstance(value, ast.Constant):
        return f'Write {today}="{first}" (the same) or "DEFAULT" (the best) where it is true, else {today}=None.'
    return "" if first == "IMAGENET1K_V1" else f'Write {today}="{first}" (the same) or {today}="DEFAULT" (the best).'


def _edits(node: ast.Call, name: str, old: str, value: ast.expr) -> tuple[Edit, ...]:
    if (name.count(".") > 2 and name.split(".")[2] not in _CLASSIFIERS) or old != "pretrained":
        return ()
    if not isinstance(value, ast.Constant) or not isinstance(value.value, bool) or keyword(node, "weights") is not None:
        return ()
    weights = '"IMAGENET1K_V1"' if value.value else "None"
    return (Edit("argument", node, None, old), Edit("argument", node, weights, "weights"))


_TODAY = {"pretrained": "weights", "pretrained_backbone": "weights_backbone"}
_CLASSIFIERS = (
    "resnet",
    "vgg",
    "alexnet",
    "densenet",
    "mobilenet",
    "mobilenetv2",
    "mobilenetv3",
    "efficientnet",
    "squeezenet",
    "inception",
    "googlenet",
    "shufflenetv2",
    "mnasnet",
)
# What `pretrained=True` loaded, by a part of the model's name.
_FIRST_WEIGHTS = (
    ("rcnn_", "COCO_V1"),
    ("retinanet_", "COCO_V1"),
    ("fcos_", "COCO_V1"),
    ("ssd300_", "COCO_V1"),
    ("ssdlite320_", "COCO_V1"),
    ("fcn_resnet", "COCO_WITH_VOC_LABELS_V1"),
    ("deeplabv3_", "COCO_WITH_VOC_LABELS_V1"),
    ("lraspp_", "COCO_WITH_VOC_LABELS_V1"),
    (".r3d_18", "KINETICS400_V1"),
    (".mc3_18", "KINETICS400_V1"),
    (".r2plus1d_18", "KINETICS400_V1"),
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
