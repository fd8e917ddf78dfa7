"""`TimeDistributed(Dense(...))` where `Dense` does the same.

## What it does
Finds `TimeDistributed` wrapped around a `Dense` layer.

## Why is this bad
`Dense` already works on the last axis of any tensor, so both compute the same. The wrapper adds reshapes, and
exporters unroll it: a model of 1,000 steps becomes a graph of 1,000 matrix products.

## Cost
Little inside Keras; up to a hundred times after export to ONNX or TFLite.

## Example
```python
x = TimeDistributed(Dense(1, activation="sigmoid"))(x)
```

## Use instead
```python
x = Dense(1, activation="sigmoid")(x)
```

Not `Reshape((-1, 1))` before the `Dense`: that mixes the features into the time axis (H107).

## Fix safety
Safe where no weights are loaded in the file: same weights, same shapes, same answers. Unsafe where they are: layers
are then called otherwise, which weights stored by name will miss.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from hasten.doctor.code import Code
from hasten.doctor.rule import Edit, Hit, Rule, hit
from hasten.doctor.samples import value_of


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """TimeDistributed around Dense."""
    assert isinstance(node, ast.Call)
    if not _is_layer(node, "TimeDistributed", code) or not node.args:
        return
    inner = value_of(node.args[0], code)
    if not isinstance(inner, ast.Call) or not _is_layer(inner, "Dense", code):
        return
    edits = (Edit("replace", node, code.source(node.args[0])),) if not node.keywords and len(node.args) == 1 else ()
    stored = code.mentions("load_weights", "load_model", "by_name", "get_layer", "set_weights")
    yield hit(node, "`TimeDistributed(Dense)` computes what `Dense` alone computes", *edits, safe=not stored)


def _is_layer(node: ast.Call, name: str, code: Code) -> bool:
    found = code.qualified(node.func)
    return found.startswith("keras.") and found.endswith(f".{name}")


RULE = Rule(
    code="H106",
    name="time-distributed-dense",
    on=(ast.Call,),
    words=("TimeDistributed",),
    remedy="Use the Dense layer alone; it works on the last axis.",
    check=check,
)
