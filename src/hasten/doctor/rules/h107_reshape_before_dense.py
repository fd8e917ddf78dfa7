"""`Reshape((-1, 1))` before a `Dense`, in place of `TimeDistributed`.

## What it does
Finds `Reshape((-1, 1))` between a layer that gives (time, features) and a `Dense`.

## Why is this bad
It is a known wrong replacement for `TimeDistributed(Dense)`: it mixes the features into the time axis. Ten steps of
64 features become 640 "steps" of one number; the `Dense` sees one feature at a time, with one shared weight, and the
model answers 640 values where it should answer ten. It is also slower.

## Cost
A different (wrong) model; as many times the work as there are features.

## Example
```python
x = LSTM(64, return_sequences=True)(x)
x = Reshape((-1, 1))(x)
x = Dense(1)(x)
```

## Use instead
```python
x = LSTM(64, return_sequences=True)(x)
x = Dense(1)(x)
```

## Fix safety
No fix: the model's shape changes, and weights trained with the reshape do not fit.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from hasten.doctor.code import Code
from hasten.doctor.rule import Hit, Rule, argument, hit, keyword
from hasten.doctor.samples import value_of
from hasten.doctor.words import words

_SEQUENCES = words(
    "Conv1D Conv1DTranspose SeparableConv1D MultiHeadAttention TimeDistributed Embedding MaxPooling1D AveragePooling1D "
    "UpSampling1D MaxPool1D"
)
_RECURRENT = ("LSTM", "GRU", "SimpleRNN", "RNN")
_THROUGH = words("BatchNormalization Dropout Activation LayerNormalization ReLU LeakyReLU SpatialDropout1D")


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Reshape((-1, 1)) with a sequence before it and a Dense after it."""
    assert isinstance(node, ast.Call)
    if _layer(node, code) != "Reshape" or not _is_column(argument(node, 0, "target_shape")):
        return
    before, after = _neighbours(node, code)
    sequence = _gives_sequence(before, code) if before is not None else _is_pair(keyword(node, "input_shape"))
    if after is not None and _layer(after, code) == "Dense" and sequence:
        yield hit(
            node, "`Reshape((-1, 1))` mixes the features into the time axis: not the same as TimeDistributed(Dense)"
        )


def _layer(node: ast.expr | None, code: Code) -> str:
    if not isinstance(node, ast.Call):
        return ""
    name = code.qualified(node.func)
    return name.rsplit(".", 1)[-1] if name.startswith("keras.") else ""


def _is_column(shape: ast.expr | None) -> bool:
    return isinstance(shape, (ast.Tuple, ast.List)) and [ast.unparse(e) for e in shape.elts] == ["-1", "1"]


def _neighbours(node: ast.Call, code: Code) -> tuple[ast.expr | None, ast.expr | None]:
    """The layers before and after: in a list, in a run of `add`, in functional style."""
    parent = code.parent(node)
    if isinstance(parent, ast.List):
        return _in_list(node, list(parent.elts), code)
    if isinstance(parent, ast.Call) and isinstance(parent.func, ast.Attribute) and parent.func.attr == "add":
        receiver = code.names.dotted(parent.func.value)
        added = [
            c.args[0]
            for c in code.calls_named("add")
            if isinstance(c.func, ast.Attribute) and c.args and code.names.dotted(c.func.value) == receiver
            and code.function(c) is code.function(node)
        ]  # fmt: skip
        return _in_list(node, added, code)
    if isinstance(parent, ast.Call) and parent.func is node and parent.args:
        return _producer(parent.args[0], code), _consumer(parent, code)
    return None, None


def _in_list(node: ast.expr, layers: list[ast.expr], code: Code) -> tuple[ast.expr | None, ast.expr | None]:
    index = next((i for i, e in enumerate(layers) if e is node), -1)
    if index < 0:
        return None, None
    before = next((e for e in reversed(layers[:index]) if _layer(e, code) not in _THROUGH), None)
    return before, layers[index + 1] if index + 1 < len(layers) else None


def _producer(data: ast.expr, code: Code) -> ast.expr | None:
    for _ in range(6):
        value = value_of(data, code)
        if not isinstance(value, ast.Call):
            return None
        if _layer(value, code) == "Input":
            return value
        if _layer(value.func, code) in _THROUGH and value.args:
            data = value.args[0]
            continue
        return value.func if isinstance(value.func, ast.Call) else None
    return None


def _consumer(called: ast.Call, code: Code) -> ast.expr | None:
    parent = code.parent(called)
    if isinstance(parent, ast.Call) and called in parent.args:
        return parent.func
    if not isinstance(parent, ast.Assign) or not isinstance(parent.targets[0], ast.Name):
        return None
    name = parent.targets[0].id
    for other in code.calls:
        if (
            other.lineno > called.lineno
            and other.args
            and isinstance(other.args[0], ast.Name)
            and other.args[0].id == name
        ):
            return other.func
    return None


def _gives_sequence(node: ast.expr, code: Code) -> bool:
    name = _layer(node, code)
    assert isinstance(node, ast.Call)
    if name == "Bidirectional" and node.args:
        return _gives_sequence(node.args[0], code) if isinstance(node.args[0], ast.Call) else False
    if name in _RECURRENT:
        value = keyword(node, "return_sequences")
        return isinstance(value, ast.Constant) and value.value is True
    if name in ("Input", "InputLayer"):
        return _is_pair(argument(node, 0, "shape"))
    return name in _SEQUENCES


def _is_pair(shape: ast.expr | None) -> bool:
    """True for the shape of a sequence of features, the batch aside."""
    return isinstance(shape, (ast.Tuple, ast.List)) and len(shape.elts) == 2


RULE = Rule(
    code="H107",
    name="reshape-before-dense",
    on=(ast.Call,),
    words=("Reshape",),
    remedy="Remove the Reshape: Dense works on the last axis of (batch, time, features) as it stands.",
    check=check,
)
