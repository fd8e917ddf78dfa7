"""`predict` of a Keras model on a single sample.

## What it does
Finds `model.predict(x[None])`, `model.predict(np.expand_dims(x, 0))` and other ways to hand `predict` one sample.

## Why is this bad
`predict` builds a data pipeline around its input. For one sample the pipeline is the whole cost. Keras' own
documentation asks for `model(x)` where inputs fit in one batch.

## Cost
Tens of milliseconds a call; a direct call needs a tenth of it, a compiled one a thousandth.

## Example
```python
answer = model.predict(image[None])
```

## Use instead
```python
answer = model(image[None], training=False).numpy()
```

## Fix safety
Offered where the input is known to be a numpy array and no option but `verbose` is given. Safe: the same layers run on
the same single batch.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from hasten.doctor.code import Code
from hasten.doctor.rule import Hit, Rule, hit
from hasten.doctor.rules.h001_predict_in_loop import check as in_loop
from hasten.doctor.rules.h001_predict_in_loop import direct_call
from hasten.doctor.samples import first_argument, is_keras_predict, is_one_sample


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Keras `predict` calls on one sample that no loop repeats (H001 names those)."""
    assert isinstance(node, ast.Call)
    if not is_keras_predict(node, code) or not is_one_sample(first_argument(node), code):
        return
    if any(True for _ in in_loop(node, code)):
        return
    yield hit(node, "`predict` on one sample spends its time on preparation", *direct_call(node, code), safe=True)


RULE = Rule(
    code="H002",
    name="predict-one-sample",
    on=(ast.Call,),
    words=("predict",),
    remedy="Call the model itself: model(x, training=False).numpy(); for microseconds: hasten.compile(model).",
    check=check,
)
