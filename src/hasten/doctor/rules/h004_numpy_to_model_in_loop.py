"""A numpy array handed to `model(x)` in a loop.

## What it does
Finds a Keras model called on a numpy array inside a loop, or in a function that a loop calls.

## Why is this bad
The call runs layer by layer in Python, and each array is checked and copied into a tensor on the way. Neither is
needed more than once.

## Cost
About a millisecond a call for a small model; `tf.function` makes it a third, one batch far less.

## Example
```python
for i in range(len(rows)):
    answers.append(model(rows[i : i + 1]))
```

## Use instead
```python
answers = model(tf.constant(rows))        # one call; or, where rows come one by one:

infer = tf.function(model, reduce_retracing=True)
for row in stream:
    answers.append(infer(tf.constant(row[None])))
```

## Fix safety
No fix: whether rows can be gathered depends on where they come from.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from hasten.doctor import makers
from hasten.doctor.code import Code
from hasten.doctor.rule import Hit, Rule, hit
from hasten.doctor.samples import first_argument, is_chunked, model_changes


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Direct calls of a Keras model on arrays that change from round to round."""
    assert isinstance(node, ast.Call)
    if not code.is_a(node.func, makers.KERAS_MODEL):
        return
    own, hot = code.loop(node), code.hot(node)
    loop = hot.loop if hot is not None else None  # or the one around a call of the function
    data = first_argument(node)
    if loop is None or data is None or not code.is_a(data, makers.NUMPY):
        return
    if own is not None and not code.depends_on_round(data, own):
        return
    if is_chunked(loop) or model_changes(node.func, loop, code) or _is_traced(node, code) or _is_kept(node, code):
        return
    yield hit(node, "a numpy array is converted and the layers are run from Python at each round")


def _is_kept(node: ast.AST, code: Code) -> bool:
    """True beneath `if key not in answers`: only what was not asked before is asked, perhaps nothing."""
    tests = [a.test for a in code.ancestors(node) if isinstance(a, ast.If)]
    return any(isinstance(t, ast.Compare) and any(isinstance(o, ast.NotIn) for o in t.ops) for t in tests)


def _is_traced(node: ast.AST, code: Code) -> bool:
    function = code.function(node)
    while function is not None:
        if any(
            "function" in code.names.dotted(d.func if isinstance(d, ast.Call) else d) for d in function.decorator_list
        ):
            return True
        function = code.function(function)
    return any(
        isinstance(a, ast.With) and any("Tape" in ast.dump(item.context_expr) for item in a.items)
        for a in code.ancestors(node)
    )


RULE = Rule(
    code="H004",
    name="numpy-to-model-in-loop",
    on=(ast.Call,),
    words=("keras",),
    remedy="Call the model once on all rows, or make it a tf.function and hand it tensors; or hasten.compile(model).",
    check=check,
)
