"""`predict` of a Keras model on a single sample.

## What it does
Finds `model.predict(x[None])`, `model.predict(np.expand_dims(x, 0))` and other ways to hand `predict` one sample; also
in a function that is only ever called with one, and where a thread is handed the method
(`asyncio.to_thread(model.predict, x[None])`, `run_in_executor`, `functools.partial`) by a handler, by its endless loop
over messages, or by a function that it calls. Left alone are a script's one
answer (about a file that it reads, about numbers written out, about a row picked by its number, of a model that it has
just trained), and one sample beside a loop that asks the same model again and again: that loop is what H001 names;
functions that draw what they ask about, loops that print a handful of answers, look now and then or time single calls,
trials whose shape alone is read, and functions that load the model they ask (H110), request handlers aside.

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
from hasten.doctor.once import answers_once, draws, shows_few
from hasten.doctor.rule import Hit, Rule, hit, keyword
from hasten.doctor.rules.h001_predict_in_loop import check as in_loop
from hasten.doctor.rules.h001_predict_in_loop import direct_call, is_measured, is_passed_one
from hasten.doctor.samples import first_argument, handed_over, is_keras_predict, is_one_sample, value_of

_MESSAGE = "`predict` on one sample spends its time on preparation"


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Keras `predict` calls on one sample that no loop repeats (H001 names those)."""
    assert isinstance(node, ast.Call)
    if _is_handed_over(node, code):
        yield hit(node, _MESSAGE)
        return
    if not is_keras_predict(node, code) or not _is_one(first_argument(node), code):
        return
    if any(True for _ in in_loop(node, code)) or is_measured(node, code.loop(node), code):
        return
    if answers_once(node, first_argument(node), code) or _is_beside_loop(node, code):
        return
    if _is_seldom(node, code) or _is_for_shape(node, code) or _is_loaded_for_it(node, code):
        return
    around = code.function(node) or code.loop(node)  # a loop that H001 leaves alone
    if around is not None and (draws(around, code) or shows_few(code.loop(node), code)):
        return
    yield hit(node, _MESSAGE, *direct_call(node, code), safe=True)


def _is_handed_over(node: ast.Call, code: Code) -> bool:
    """True where a handler has another thread ask the model about one sample."""
    asked = handed_over(node, code)
    if asked is None or not _answers(node, code):
        return False
    if not all(_waits_for_message(loop) for loop in code.loops(node)):
        return False
    return is_keras_predict(asked, code) and _is_one(first_argument(asked), code)


def _answers(node: ast.AST, code: Code) -> bool:
    """True in a handler, and in a function that a handler calls outside a loop over rows."""
    if code.handler(node) is not None:
        return True
    function = code.function(node)
    calls = code.callers(function) if function is not None else []
    return any(code.handler(c) is not None and all(_waits_for_message(loop) for loop in code.loops(c)) for c in calls)


def _waits_for_message(loop: ast.AST) -> bool:
    """True for ``while True`` around a socket's or queue's next message: no batch can gather those beforehand."""
    endless = isinstance(loop, ast.While) and isinstance(loop.test, ast.Constant) and bool(loop.test.value)
    awaited = (n.value for n in ast.walk(loop) if isinstance(n, ast.Await) and isinstance(n.value, ast.Call))
    named = (c.func.attr for c in awaited if isinstance(c.func, ast.Attribute))
    return endless and any(n == "get" or n.startswith(("receive", "recv")) for n in named)


def _is_beside_loop(node: ast.Call, code: Code) -> bool:
    """True where the same function asks the same model in a loop too: one call more is nothing to that."""
    assert isinstance(node.func, ast.Attribute)
    model, function = code.names.dotted(node.func.value), code.function(node)
    others = (c for c in code.calls_named("predict") if c is not node and code.function(c) is function)
    asked = (c.func.value for c in others if isinstance(c.func, ast.Attribute) and code.loop(c) is not None)
    return code.loop(node) is None and any(code.names.dotted(m) == model for m in asked)


def _is_loaded_for_it(node: ast.Call, code: Code) -> bool:
    """True where the function loads or builds the model that it asks: that takes far longer, and H110 names it."""
    assert isinstance(node.func, ast.Attribute)
    function, kind = code.function(node), code.kind(node.func.value)
    made = kind.made if kind is not None else None
    if function is None or made is None or code.handler(node) is not None:
        return False  # (a handler is to load its model once, and then this line counts)
    return code.function(made) is function


def _is_seldom(node: ast.Call, code: Code) -> bool:
    """True beneath `if step % 500 == 0` in a loop: a look now and then at what the other rounds do."""
    return code.loop(node) is None and any(not code.is_short(loop) for loop in code.loops(node))


def _is_for_shape(node: ast.Call, code: Code) -> bool:
    """True where only the shape of the answer is read: a trial of the model's layers."""
    uses = code.uses_of(node)
    return bool(uses) and all(getattr(code.parent(n), "attr", "") == "shape" for n in uses)


def _is_one(data: ast.expr | None, code: Code) -> bool:
    """One sample as written here, drawn at random for a trial, or passed by every call of this function."""
    if is_one_sample(data, code) or _is_one_drawn(value_of(data, code), code):
        return True
    function = code.function(data) if isinstance(data, ast.Name) else None
    return function is not None and isinstance(data, ast.Name) and is_passed_one(data.id, function, code)


def _is_one_drawn(data: ast.expr | None, code: Code) -> bool:
    """True for `np.random.rand(1, 20)`, `np.random.normal(size=(1, 20)).astype("float32")`."""
    while isinstance(data, ast.Call) and isinstance(data.func, ast.Attribute) and data.func.attr == "astype":
        data = data.func.value
    name = code.qualified(data.func) if isinstance(data, ast.Call) else ""
    if not isinstance(data, ast.Call) or not name.startswith(("numpy.random.", "tensorflow.random.")):
        return False
    shape = keyword(data, "size") or keyword(data, "shape")
    shapes = [shape] if shape is not None else [a for a in data.args if isinstance(a, (ast.Tuple, ast.List))]
    sizes = shapes[0].elts if shapes and isinstance(shapes[0], (ast.Tuple, ast.List)) else data.args
    plain = name.endswith((".rand", ".randn")) or bool(shapes)
    return plain and len(sizes) > 1 and isinstance(sizes[0], ast.Constant) and sizes[0].value == 1


RULE = Rule(
    code="H002",
    name="predict-one-sample",
    on=(ast.Call,),
    words=("predict",),
    remedy="Call the model itself: model(x, training=False).numpy(); for microseconds: hasten.compile(model).",
    check=check,
)
