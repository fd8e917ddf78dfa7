"""Arrays of ever new shapes handed to a `tf.function`.

## What it does
Finds a `tf.function` called in a loop on `x[:i]`, `x[i:]`, an array whose size follows the rounds (`tf.zeros((i, 8))`)
one made of a list that grows or joined on in each round, without `input_signature` or `reduce_retracing`.

## Why is this bad
Each new shape traces and optimises the graph again, and every trace is kept.

## Cost
Ten milliseconds to seconds for each new shape.

## Example
```python
@tf.function
def score(x): ...

for n in range(1, 500):
    score(series[:n])
```

## Use instead
```python
@tf.function(input_signature=[tf.TensorSpec([None, 8], tf.float32)])
def score(x): ...
```

## Fix safety
No fix: the signature's dtype and fixed dimensions are yours to say. Padding to few lengths is the other cure.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from hasten.doctor.code import Code
from hasten.doctor.functions_tf import bends_to_shapes, traced_call
from hasten.doctor.rule import Hit, Rule, argument, hit, keyword
from hasten.doctor.samples import value_of
from hasten.doctor.words import words

_FILLED = ("zeros", "ones", "empty", "full", "fill", "rand", "randn", "normal", "uniform", "random", "range", "arange")
_ARRAYS = ("array", "asarray", "constant", "convert_to_tensor", "stack", "concat", "concatenate", "expand_dims")

_JOINS = words("tensorflow.concat numpy.concatenate numpy.append numpy.vstack numpy.hstack keras.ops.concatenate")


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Arguments of traced functions whose length follows the loop."""
    assert isinstance(node, ast.Call)
    loop = code.loop(node)
    if loop is None or not traced_call(node, code) or bends_to_shapes(node, code):
        return
    for value in node.args:
        if _grows(value, loop, code):
            yield hit(value, "each round brings a new shape, and `tf.function` traces again for it")


def _grows(value: ast.expr, loop: ast.AST, code: Code, depth: int = 3) -> bool:
    if isinstance(value, ast.Name) and _is_joined_on(value, loop, code):
        return True
    value = value_of(value, code) or value
    if isinstance(value, ast.Subscript):
        index = value.slice.elts[0] if isinstance(value.slice, ast.Tuple) and value.slice.elts else value.slice
        if isinstance(index, ast.Slice) and (index.lower is None) != (index.upper is None):
            bound = index.lower or index.upper
            return bound is not None and not _is_negative(bound) and _counts(bound, loop, code)
        adds_axis = isinstance(index, ast.Constant) and index.value is None
        return adds_axis and depth > 0 and _grows(value.value, loop, code, depth - 1)
    if not isinstance(value, ast.Call) or not depth:
        return False
    name = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
    if name == "astype" and isinstance(value.func, ast.Attribute):
        return _grows(value.func.value, loop, code, depth - 1)
    if name in _FILLED and code.qualified(value.func).startswith(("numpy.", "tensorflow.")):
        return _is_sized_by_round(value, loop, code)
    if name not in _ARRAYS or not value.args:
        return False
    return _list_grows(value.args[0], loop) or _grows(value.args[0], loop, code, depth - 1)


def _is_joined_on(name: ast.Name, loop: ast.AST, code: Code) -> bool:
    """True for ``tokens`` where each round does ``tokens = tf.concat([tokens, token], 1)`` and nothing else to it."""
    bindings = code.bound_in(name, loop)
    made = bindings[0].value if len(bindings) == 1 and bindings[0].role == "value" else None
    if not isinstance(made, ast.Call) or not made.args or code.qualified(made.func) not in _JOINS:
        return False
    first = made.args[0]
    parts = first.elts if isinstance(first, (ast.List, ast.Tuple)) else made.args[:2]
    return len(parts) > 1 and any(isinstance(p, ast.Name) and p.id == name.id for p in parts)


def _is_sized_by_round(made: ast.Call, loop: ast.AST, code: Code) -> bool:
    """True for ``tf.zeros((n, 8))`` and ``np.random.rand(n, 8)`` where ``n`` follows the rounds."""
    name = code.qualified(made.func)
    place = 2 if name in ("numpy.random.normal", "numpy.random.uniform") else 0  # after the two numbers of each
    shape = keyword(made, "shape") or keyword(made, "size") or argument(made, place, "dims")
    shapes = made.args if name.endswith((".rand", ".randn")) else [shape]
    axes = [e for s in shapes if s for e in (s.elts if isinstance(s, (ast.Tuple, ast.List)) else [s])]
    return any(_counts(axis, loop, code) for axis in axes)


def _counts(bound: ast.expr, loop: ast.AST, code: Code) -> bool:
    """True for a bound that follows the rounds themselves; `x[: len(y)]` only trims a padded batch."""
    asked = any(isinstance(n, (ast.Attribute, ast.Call, ast.Subscript)) for n in ast.walk(bound))
    return not asked and code.depends_on_round(bound, loop)


def _is_negative(node: ast.expr) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)


def _list_grows(node: ast.expr, loop: ast.AST) -> bool:
    """True for a list that the loop appends to and never shortens or renews."""
    if not isinstance(node, ast.Name):
        return False
    grown = shortened = False
    for inner in ast.walk(loop):
        if (
            isinstance(inner, ast.Call)
            and isinstance(inner.func, ast.Attribute)
            and isinstance(inner.func.value, ast.Name)
        ):
            if inner.func.value.id == node.id:
                grown |= inner.func.attr == "append"
                shortened |= inner.func.attr in ("pop", "clear", "popleft", "remove")
        elif isinstance(inner, ast.Name) and inner.id == node.id and isinstance(inner.ctx, (ast.Store, ast.Del)):
            shortened = True
        elif isinstance(inner, ast.Delete):
            shortened |= any(isinstance(n, ast.Name) and n.id == node.id for n in ast.walk(inner))
    return grown and not shortened


RULE = Rule(
    code="H102",
    name="changing-shape-to-function",
    on=(ast.Call,),
    words=("tf.function", "tensorflow"),
    remedy="Give input_signature with None for the changing dimension, or reduce_retracing=True, or pad.",
    check=check,
)
