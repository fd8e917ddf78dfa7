"""Softmax applied twice.

## What it does
Finds `softmax(softmax(x))` and `log_softmax(softmax(x))`, a cross-entropy loss of torch on what already went through
softmax (in the expression, in the model's `forward`, at the end of a `Sequential`), Keras' `from_logits=True` after a
softmax layer, and a softmax of what a Keras model answers whose last layer is one:
`tf.nn.softmax(model.predict(x)[0])`, a `Softmax` layer behind it.

## Why is this bad
`CrossEntropyLoss` takes logits and applies log-softmax itself. A second softmax squeezes the answers together: training
slows and stalls early, confidences never leave the middle, and each call pays for one exponential too many.

Keras' losses know a softmax layer's answer on TensorFlow: there `from_logits=True` does nothing but warn. With torch
below Keras the same lines apply softmax twice.

## Cost
Training that needs many times the steps; worse confidences. Little time per call.

## Example
```python
loss = F.cross_entropy(torch.softmax(logits, 1), target)
```

## Use instead
```python
loss = F.cross_entropy(logits, target)
```

## Fix safety
No fix: the answers change.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise

from hasten.doctor import makers
from hasten.doctor.code import Code
from hasten.doctor.rule import Hit, Rule, argument, hit, keyword
from hasten.doctor.samples import value_of

_SOFTMAX = (
    "torch.softmax",
    "torch.nn.functional.softmax",
    "tensorflow.nn.softmax",
    "keras.activations.softmax",
    "keras.ops.softmax",
)
_LOG = ("torch.log_softmax", "torch.nn.functional.log_softmax", "tensorflow.nn.log_softmax")
_MODULES = ("torch.nn.Softmax", "torch.nn.Softmax2d", "torch.nn.LogSoftmax")
_WRONG = re.compile(r"(^|_)(wrong|bad|incorrect|double|twice)(_|$)")
_TORCH_LOSS = "torch.nn.functional.cross_entropy"
_KERAS_LOSSES = ("CategoricalCrossentropy", "SparseCategoricalCrossentropy")


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Losses and softmaxes whose input is a softmax already."""
    assert isinstance(node, ast.Call)
    if _is_shown_wrong(code.statement(node)):
        return
    name = code.qualified(node.func)
    if (name in _SOFTMAX or name in _LOG or _is_softmax_module(node.func, code)) and node.args:
        if _is_softmax(node.args[0], code):
            yield hit(node, f"{'log-softmax' if name in _LOG else 'softmax'} of a softmax")
    elif _is_method_softmax(node) and isinstance(node.func, ast.Attribute) and _is_softmax(node.func.value, code):
        yield hit(node, "softmax of a softmax")
    elif _is_torch_loss(node, code):
        logits = argument(node, 0, "input")
        if logits is not None and _is_softmax(logits, code):
            yield hit(node, "cross-entropy applies softmax itself, and is given one already applied")
    else:
        yield from _keras(node, code)


def _is_shown_wrong(statement: ast.stmt) -> bool:
    """True for `wrong_loss = …`: the mistake is made on purpose, to show what comes of it."""
    names = (t.id for t in statement.targets if isinstance(t, ast.Name)) if isinstance(statement, ast.Assign) else ()
    return any(_WRONG.search(n) for n in names)


def _is_method_softmax(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("softmax", "log_softmax")
    )


def _is_softmax_module(called: ast.expr, code: Code) -> bool:
    """True for `self.softmax` and `nn.Softmax(dim=1)`, modules of torch that are about to run."""
    kind = code.kind(called)
    made = kind.made if kind is not None and kind.name == makers.TORCH_MODULE and kind.local is None else None
    return made is not None and code.qualified(made.func) in _MODULES


def _is_torch_loss(node: ast.Call, code: Code) -> bool:
    if code.qualified(node.func) == _TORCH_LOSS:
        return True
    kind = code.kind(node.func)
    made = kind.made if kind is not None and kind.name == makers.TORCH_MODULE else None
    if isinstance(node.func, ast.Attribute) and node.func.attr == "forward":
        return False
    return made is not None and code.qualified(made.func) == "torch.nn.CrossEntropyLoss"


def _is_softmax(node: ast.expr, code: Code, depth: int = 4) -> bool:
    """True when a value certainly comes straight out of a softmax."""
    value = value_of(node, code)
    if value is not node and isinstance(node, ast.Name) and _is_one_of_many(node, code):
        return False
    if isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Constant) and depth:
        return _is_softmax(value.value, code, depth - 1)  # one row of many
    if not isinstance(value, ast.Call) or not depth:
        return False
    if _is_answer_of_softmax(value, code):
        return True
    name = code.qualified(value.func)
    if name in _SOFTMAX:
        return True
    if (
        isinstance(value.func, ast.Attribute)
        and value.func.attr == "softmax"
        and code.is_a(value.func.value, makers.TORCH_TENSOR)
    ):
        return True
    run = value.func.value if isinstance(value.func, ast.Attribute) and value.func.attr == "forward" else value.func
    kind, own = code.kind(run), code.names.class_of_self(run)
    if own is None and (kind is None or kind.name != makers.TORCH_MODULE):
        return False
    local = own or (kind.local if kind is not None else None)
    if local is not None:
        forward = code.definitions.method(local, "forward")
        returned = [r for r in code.definitions.returns(forward) if r is not None] if forward is not None else []
        return bool(returned) and all(_is_softmax(r, code, depth - 1) for r in returned)
    return kind is not None and kind.made is not None and _ends_in_softmax(kind.made, code)


def _is_one_of_many(node: ast.Name, code: Code) -> bool:
    """True where a branch may have given the name another value."""
    _, bindings = code.names.find(node.id, node)
    earlier = [b for b in bindings if getattr(b.node, "lineno", 0) <= node.lineno]
    last = earlier[-1].node if earlier else None
    arms = [a for a in code.ancestors(last) if isinstance(a, (ast.If, ast.Try))] if last is not None else []
    return any(a not in list(code.ancestors(node)) for a in arms)


def _ends_in_softmax(made: ast.Call, code: Code) -> bool:
    name = code.qualified(made.func)
    if name in ("torch.nn.Softmax", "torch.nn.Softmax2d"):
        return True
    last = made.args[-1] if name == "torch.nn.Sequential" and made.args else None
    if isinstance(last, ast.Call) and code.qualified(last.func) == "collections.OrderedDict" and last.args:
        named = last.args[0].elts[-1] if isinstance(last.args[0], ast.List) and last.args[0].elts else None
        last = named.elts[-1] if isinstance(named, ast.Tuple) else None
    return isinstance(last, ast.Call) and _ends_in_softmax(last, code)


def _is_answer_of_softmax(call: ast.Call, code: Code) -> bool:
    """True for what a Keras model answers whose last layer is seen to be a softmax."""
    asked = call.func
    if isinstance(asked, ast.Attribute) and asked.attr in ("predict", "predict_on_batch"):
        asked = asked.value
    return _model_ends_in_softmax(asked, code)


def _keras(node: ast.Call, code: Code) -> Iterator[Hit]:
    """`from_logits=True` in the compile of a model that ends in softmax, and a Softmax layer behind such a model."""
    if code.qualified(node.func).endswith("keras.Sequential") and node.args and isinstance(node.args[0], ast.List):
        for before, layer in pairwise(node.args[0].elts):
            softmax = isinstance(layer, ast.Call) and code.qualified(layer.func).endswith(".Softmax")
            if softmax and isinstance(before, ast.Name) and _model_ends_in_softmax(before, code):
                yield hit(layer, "softmax of a softmax")
        return
    if not isinstance(node.func, ast.Attribute) or node.func.attr != "compile":
        return
    loss = value_of(argument(node, 1, "loss"), code)
    if not isinstance(loss, ast.Call) or code.qualified(loss.func).rsplit(".", 1)[-1] not in _KERAS_LOSSES:
        return
    logits = keyword(loss, "from_logits")
    if not (isinstance(logits, ast.Constant) and logits.value is True):
        return
    if _model_ends_in_softmax(node.func.value, code):
        message = "`from_logits=True` after a softmax layer: TensorFlow only warns, torch applies softmax twice"
        remedy = "Drop from_logits=True; or drop the softmax layer, and apply softmax to what people read."
        yield hit(logits, message, remedy=remedy)


def _model_ends_in_softmax(model: ast.expr, code: Code) -> bool:
    """True for a Keras model that is built in sight, and whose one answer comes out of a softmax."""
    kind = code.kind(model)
    if kind is None or kind.name != makers.KERAS_MODEL or kind.made is None:
        return False
    made = kind.made
    if code.qualified(made.func).endswith("keras.Model"):
        answer = value_of(argument(made, 1, "outputs"), code)
        return isinstance(answer, ast.Call) and _is_softmax_layer(answer.func, code)
    if not code.qualified(made.func).endswith("Sequential"):
        return False
    if made.args and isinstance(made.args[0], ast.List) and made.args[0].elts:
        return _is_softmax_layer(made.args[0].elts[-1], code)
    name = code.names.dotted(model)
    added = [
        c
        for c in code.calls_named("add")
        if isinstance(c.func, ast.Attribute) and code.names.dotted(c.func.value) == name
    ]
    return bool(added and added[-1].args) and _is_softmax_layer(added[-1].args[0], code)


def _is_softmax_layer(layer: ast.expr, code: Code) -> bool:
    if not isinstance(layer, ast.Call):
        return False
    name = code.qualified(layer.func)
    given = keyword(layer, "activation")
    if given is None and name.endswith(".Activation") and layer.args:
        given = layer.args[0]
    elif given is None and name.endswith(".Dense") and len(layer.args) > 1:
        given = layer.args[1]
    spelled = isinstance(given, ast.Constant) and given.value == "softmax"
    return name.endswith(".Softmax") or spelled or (given is not None and code.qualified(given) in _SOFTMAX)


RULE = Rule(
    code="H210",
    name="softmax-twice",
    on=(ast.Call,),
    words=("oftmax",),
    remedy="Give the loss the logits; apply softmax once, on what people read.",
    check=check,
)
