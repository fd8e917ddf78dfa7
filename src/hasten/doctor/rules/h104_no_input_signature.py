"""A hot `tf.function` without `input_signature`.

## What it does
Finds a `tf.function` of the file that a request handler calls, or that a loop calls on numpy arrays or on what it
takes out of a queue, a socket or a sensor, with neither `input_signature` nor `reduce_retracing`. Training steps (with
a gradient tape) are left alone.

## Why is this bad
Whatever the outside sends decides when the function traces: another length, another dtype, a list in place of an
array. Each first time costs a pause in the middle of serving.

## Cost
Tens of milliseconds to seconds at each new shape or dtype, at a moment the caller picks.

## Example
```python
@tf.function
def score(x):
    return model(x)
```

## Use instead
```python
@tf.function(input_signature=[tf.TensorSpec([None, 784], tf.float32)])
def score(x):
    return model(x)
```

## Fix safety
No fix: shapes and dtypes are yours to say.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from hasten.doctor import makers
from hasten.doctor.code import Code
from hasten.doctor.functions_tf import bends_to_shapes, definition
from hasten.doctor.names import Function
from hasten.doctor.rule import Hit, Rule, hit
from hasten.doctor.samples import value_of
from hasten.doctor.words import words

_RECEIVES = frozenset(words("get get_nowait read recv recv_json recv_pyobj receive poll popleft brpop blpop readline"))
_OF_ARRAYS = ("tensorflow.constant", "tensorflow.convert_to_tensor")


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Traced functions without a signature that serve outside data."""
    if isinstance(node, ast.Call):
        yield from _wrapped(node, code)
        return
    assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    decorator = next((d for d in node.decorator_list if _is_function(d, code)), None)
    if decorator is None or not _takes_data(node) or code.mentions("get_concrete_function") or _trains(node):
        return
    if code.handler(node) is not None:
        return  # made anew at each request: H103 says it
    for call in code.callers(node):
        if definition(call, code) is node and not bends_to_shapes(call, code) and _serves(call, code):
            yield hit(
                decorator, f"'{node.name}' is called with outside data on line {call.lineno} and has no input_signature"
            )
            return


def _wrapped(node: ast.Call, code: Code) -> Iterator[Hit]:
    """`tf.function(model)` that is kept and serves; made anew at each request, H103 says it."""
    if code.qualified(node.func) != "tensorflow.function" or not node.args or code.mentions("get_concrete_function"):
        return
    wrapped = code.definitions.function_named(node.args[0])
    if code.hot(node) is not None or (wrapped is not None and _trains(wrapped)):
        return
    for call in code.calls:
        kind = code.kind(call.func) if call.args else None
        if kind is None or kind.name != makers.TF_FUNCTION or kind.made is not node:
            continue
        if not bends_to_shapes(call, code) and (_serves(call, code) or _is_fed_elements(node, call, code)):
            yield hit(node, f"it is called with outside data on line {call.lineno} and has no input_signature")
            return


def _is_function(decorator: ast.expr, code: Code) -> bool:
    return code.qualified(decorator.func if isinstance(decorator, ast.Call) else decorator) == "tensorflow.function"


def _takes_data(node: Function) -> bool:
    return any(a.arg != "self" for a in (*node.args.posonlyargs, *node.args.args)) or node.args.vararg is not None


def _trains(node: Function) -> bool:
    return any(isinstance(n, (ast.Attribute, ast.Name)) and "Tape" in ast.dump(n) for n in ast.walk(node))


def _serves(call: ast.Call, code: Code) -> bool:
    if code.function(call) is not None and code.handler(call) is not None:
        return True
    loop = code.loop(call)
    if loop is None:
        return False
    if isinstance(loop, ast.While) and any(_is_received(a, loop, code) for a in call.args):
        return True
    return any(_is_array(a, code) and code.depends_on_round(a, loop) for a in call.args)


def _is_received(given: ast.expr, loop: ast.While, code: Code) -> bool:
    """True for what a round takes out of a queue, a socket, a sensor."""
    names = [n for n in ast.walk(given) if isinstance(n, ast.Name)]
    values = [given, *(b.value for n in names for b in code.bound_in(n, loop) if b.role == "value")]
    calls = (v.func for v in values if isinstance(v, ast.Call))
    return any(isinstance(f, ast.Attribute) and f.attr in _RECEIVES for f in calls)


def _is_fed_elements(node: ast.Call, call: ast.Call, code: Code) -> bool:
    """True for a traced Keras model that a loop gives its own elements, made tensors there: they were none before."""
    loop = code.loop(call)
    if loop is None or not code.is_a(node.args[0], makers.KERAS_MODEL):
        return False
    made = value_of(call.args[0], code)
    given = (
        made.args[0] if isinstance(made, ast.Call) and code.qualified(made.func) in _OF_ARRAYS and made.args else None
    )
    return isinstance(given, ast.Name) and code.kind(given) is None and code.depends_on_round(given, loop)


def _is_array(given: ast.expr, code: Code) -> bool:
    """True for a numpy array, and for a tensor made of one: it is of the same shape."""
    value = value_of(given, code) or given
    if isinstance(value, ast.Call) and value.args and code.qualified(value.func) in _OF_ARRAYS:
        value = value.args[0]
    return code.is_a(value, makers.NUMPY)


RULE = Rule(
    code="H104",
    name="no-input-signature",
    on=(ast.Call, ast.FunctionDef, ast.AsyncFunctionDef),
    words=("tf.function", "tensorflow"),
    remedy="Add input_signature=[tf.TensorSpec(shape, dtype)], None for each free dimension.",
    check=check,
)
