"""`predict_on_batch` or `predict_classes` of a Keras model in a hot loop.

## What it does
Finds `predict_on_batch`, `predict_classes`, `predict_proba` and `predict_generator` of a Keras model in a loop whose
data changes from round to round. `predict_on_batch` is left alone where the rounds train the model too, or read and
show pictures: there its own cost is lost in theirs. What a generator or loader hands over is a batch already, and a
stateful model must go step by step.

## Why is this bad
`predict_on_batch` leaves out the data pipeline but still converts, checks and copies in Python at each call, and
traces again for each new shape. The others are gone since TensorFlow 2.6 and were `predict` plus a step.

## Cost
A few tenths of a millisecond a call; a compiled function saves a third of it, a compiled engine nearly all.

## Example
```python
for state in states:
    action = model.predict_on_batch(state).argmax()
```

## Use instead
```python
infer = tf.function(model, reduce_retracing=True)
for state in states:
    action = tf.argmax(infer(state), axis=-1)
```

## Fix safety
No fix: where the compiled function is made decides what it costs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from hasten.doctor.code import Code, Loop
from hasten.doctor.evidence import is_given_little
from hasten.doctor.rule import Hit, Rule, hit
from hasten.doctor.samples import first_argument, is_chunked, is_keras_predict, is_one_sample, model_changes

_NAMES = ("predict_on_batch", "predict_classes", "predict_proba", "predict_generator")
_BATCHES = re.compile(r"batch|loader|dataset|generator|^next$|(^|_)gen(_|$)|^minibatch")
_PICTURES = frozenset(
    ("imread", "load_img", "load_image", "read_image", "read_image_bgr", "resize_image", "imshow", "imwrite")
)


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Keras' other predicting methods in a loop, on the round's own data."""
    assert isinstance(node, ast.Call)
    loop = code.loop(node)
    if loop is None or not is_keras_predict(node, code, *_NAMES):
        return
    if _is_thrown_away(code.statement(node)):
        return
    assert isinstance(node.func, ast.Attribute)
    data = first_argument(node)
    if model_changes(node.func.value, loop, code) or is_chunked(loop):
        return
    if node.func.attr == _NAMES[0] and (_trains(node.func.value, loop, code) or _reads_pictures(loop)):
        return
    if data is None or not (code.depends_on_round(data, loop) or any(isinstance(n, ast.Call) for n in ast.walk(data))):
        return
    if not is_given_little(node, loop, code) or _is_batch(data, loop, code) or _keeps_state(node, code):
        return
    yield hit(node, f"`{node.func.attr}` in a loop checks and converts in Python at each call")


def _trains(model: ast.expr, loop: ast.AST, code: Code) -> bool:
    """True where the rounds train the model as well: a step costs many of these calls, and changes the answers."""
    named = code.names.dotted(model)
    calls = (n.func for n in ast.walk(loop) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute))
    return any(f.attr in ("train_on_batch", "fit") and code.names.dotted(f.value) == named for f in calls)


def _reads_pictures(loop: ast.AST) -> bool:
    """True where each round reads, scales or shows a picture: that takes longer than the call's own Python."""
    calls = (n.func for n in ast.walk(loop) if isinstance(n, ast.Call))
    return any((getattr(f, "attr", "") or getattr(f, "id", "")) in _PICTURES for f in calls)


def _is_batch(data: ast.expr, loop: Loop, code: Code) -> bool:
    """True for what a generator or loader hands over, or what is called a batch: its rows are gathered already."""
    if is_one_sample(data, code):
        return False
    names = [n for n in ast.walk(data) if isinstance(n, ast.Name)]
    values = [b.value for n in names for b in code.bound_in(n, loop) if b.value is not None]
    if not isinstance(loop, ast.While):
        values.append(loop.iter if isinstance(loop, (ast.For, ast.AsyncFor)) else loop.generators[0].iter)
    called = [n for v in values for n in ast.walk(v)]
    written = [getattr(n, "id", getattr(n, "attr", "")) for n in (*names, *called)]
    return any(_BATCHES.search(w.lower()) for w in written)


def _keeps_state(node: ast.Call, code: Code) -> bool:
    """True where the model goes on from what it has read, one step after the other."""
    text = code.source(code.klass(node) or code.function(node) or code.tree)
    return "stateful" in text or "reset_states" in text


def _is_thrown_away(statement: ast.stmt) -> bool:
    """True for `_ = model.predict_on_batch(x)`: the run is for what it leaves behind, in layers that watch."""
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return bool(targets) and all(isinstance(t, ast.Name) and t.id == "_" for t in targets)


RULE = Rule(
    code="H003",
    name="predict-on-batch-in-loop",
    on=(ast.Call,),
    words=_NAMES,
    remedy="Gather the rows and predict once, or call tf.function(model) / hasten.compile(model) in the loop.",
    check=check,
)
