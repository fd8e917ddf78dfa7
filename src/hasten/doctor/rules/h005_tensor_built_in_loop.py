"""A constant tensor built anew in each round of a loop.

## What it does
Finds `tf.constant`, `tf.convert_to_tensor`, `torch.tensor`, `torch.as_tensor` or `torch.from_numpy` in a loop whose
arguments never change there; `torch.ones`, `zeros`, `full`, `eye`, `arange` and `linspace` where they are moved to a
device as well. Loops whose rounds hold loops of their own, such as epochs, are left alone.

## Why is this bad
Building a tensor from Python values checks each element, allocates and copies. The same tensor could be made once.

## Cost
Microseconds for a scalar, tens of them for thousands of numbers, every round; on a GPU a transfer as well.

## Example
```python
for x in batches:
    scale = torch.tensor([0.229, 0.224, 0.225])
    out = x / scale
```

## Use instead
```python
scale = torch.tensor([0.229, 0.224, 0.225])
for x in batches:
    out = x / scale
```

## Fix safety
Safe where the tensor has a name of its own that nothing in the loop changes: the line moves before the loop. Not
offered for tensors made inside an expression.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from hasten.doctor import makers
from hasten.doctor.code import Code
from hasten.doctor.names import Function
from hasten.doctor.once import draws
from hasten.doctor.percall import hoist
from hasten.doctor.requirements import is_of_torch
from hasten.doctor.rule import Hit, Rule, hit, keyword
from hasten.doctor.words import words

_BUILDERS = words(
    "tensorflow.constant tensorflow.convert_to_tensor torch.tensor torch.as_tensor torch.from_numpy torch.FloatTensor "
    "torch.LongTensor torch.Tensor torch.IntTensor torch.BoolTensor"
)

_FILLED = words("torch.ones torch.zeros torch.full torch.eye torch.arange torch.linspace")
_NAMES_DEVICE = re.compile(r"\.to\((device\s*=\s*)?([\w.]*device|.cuda|.mps|.xpu)")
_HOLDERS = frozenset(("dict", "tuple", "list"))
_SAME_TENSOR = words("to cuda cpu float double half long int type clone unsqueeze view reshape squeeze")


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Tensors built from values that no round changes."""
    assert isinstance(node, ast.Call)
    maker = code.qualified(node.func)
    if not node.args or not (maker in _BUILDERS or (maker in _FILLED and _is_moved(node, code))):
        return
    if keyword(node, "requires_grad") is not None or is_of_torch(code.file):
        return
    loop = code.loop(node)
    if not isinstance(loop, (ast.For, ast.While)) or code.varies(node, loop) or not _has_content(node):
        return
    if _draws(loop) or draws(loop, code) or _is_beside_loop(loop, code):
        return
    if _is_rare(node, loop, code) or _is_kept(node, code) or _is_passed_on(node, loop, code) or _is_traced(node, code):
        return
    statement = code.statement(node)
    if isinstance(statement, ast.Assign) and _changes_later(statement, loop, code):
        return
    yield hit(node, "the same tensor is built again in every round", *hoist(node, code), safe=True)


def _is_moved(node: ast.Call, code: Code) -> bool:
    """True for `torch.ones(8).to(device)` and `.cuda()`."""
    method = code.parent(node)
    call = code.parent(method) if isinstance(method, ast.Attribute) else None
    if not isinstance(method, ast.Attribute) or not isinstance(call, ast.Call):
        return False
    return method.attr == "cuda" or (method.attr == "to" and _NAMES_DEVICE.search(code.source(call)) is not None)


def _has_content(node: ast.Call) -> bool:
    """Not for `torch.Tensor(3, 4)`-like allocation of scratch memory, nor for `torch.tensor([])`."""
    first = node.args[0]
    if isinstance(first, (ast.List, ast.Tuple)) and not first.elts:
        return False
    return not (isinstance(node.func, ast.Attribute) and node.func.attr.endswith("Tensor") and len(node.args) > 1)


def _draws(loop: ast.AST) -> bool:
    """True for a loop that shows pictures: drawing one costs a thousand small tensors."""
    return any(isinstance(n, ast.Attribute) and n.attr in ("imshow", "savefig") for n in ast.walk(loop))


def _is_beside_loop(loop: ast.For | ast.While, code: Code) -> bool:
    """True where each round has a loop of its own: an epoch takes no notice of one tensor."""
    inner = (n for n in ast.walk(loop) if isinstance(n, (ast.For, ast.While)) and n is not loop)
    return any(not code.is_short(n) for n in inner)


def _is_rare(node: ast.AST, loop: ast.AST, code: Code) -> bool:
    """True beneath an `if`, `try` or `return` of the loop: it may not run each round."""
    for around in code.ancestors(node):
        if around is loop:
            return False
        if isinstance(around, (ast.If, ast.IfExp, ast.ExceptHandler, ast.Return, ast.Raise, ast.Assert, ast.Lambda)):
            return True
    return False


def _is_kept(node: ast.AST, code: Code) -> bool:
    """True where each round wants a tensor of its own: appended, yielded, stored under a key."""
    parent = code.parent(node)
    while isinstance(parent, ast.Attribute) and parent.attr in _SAME_TENSOR:  # `torch.tensor(1.0).to(device)`
        call = code.parent(parent)
        if not isinstance(call, ast.Call):
            break
        node, parent = call, code.parent(call)
    if isinstance(parent, (ast.List, ast.Tuple, ast.Dict, ast.Yield, ast.Starred)):
        return True
    if isinstance(parent, ast.keyword):
        parent = code.parent(parent)
    if isinstance(parent, ast.Call) and parent.func is not node and not _is_computing(parent, code):
        return True
    if isinstance(parent, ast.Call) and node in parent.args:
        name = parent.func.attr if isinstance(parent.func, ast.Attribute) else getattr(parent.func, "id", "")
        return name in ("append", "extend", "put", "add", "Variable", "Parameter", "cat", "stack", "concat")
    statement = code.statement(node)
    return isinstance(statement, ast.Assign) and any(not isinstance(t, ast.Name) for t in statement.targets)


def _is_computing(call: ast.Call, code: Code) -> bool:
    """True for calls that use a tensor and keep none: operations of the libraries, runs of models."""
    computes = code.qualified(call.func).startswith(("torch.", "tensorflow.", "keras.ops."))
    on_tensor = isinstance(call.func, ast.Attribute) and code.is_a(call.func.value, *makers.TENSORS)
    return computes or on_tensor or code.runs_model(call) is not None


def _changes_later(statement: ast.Assign, loop: ast.AST, code: Code) -> bool:
    """True where the named tensor is an accumulator, changed in place, or kept by someone in the loop."""
    target = statement.targets[0]
    if not isinstance(target, ast.Name):
        return False
    if len(code.bound_in(target, loop)) > 1 or target.id in code.changed(loop):
        return True
    return any(_keeps(inner, target.id, code) for inner in ast.walk(loop))


def _keeps(node: ast.AST, name: str, code: Code) -> bool:
    """True for `records.append((i, name))`, `{"boxes": name}`, `out[i] = name`: each record has a tensor of its own."""
    held: list[ast.expr | None] = []
    if isinstance(node, ast.Dict):
        held += node.values
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        held += node.args if node.func.attr in ("append", "put", "extend", "add") else []
    elif isinstance(node, ast.Assign):
        held += [node.value] if any(isinstance(t, (ast.Subscript, ast.Attribute)) for t in node.targets) else []
    elif isinstance(node, ast.Yield):
        held.append(node.value)
    return any(h is not None and _holds(h, name, code) for h in held)


def _holds(value: ast.expr, name: str, code: Code) -> bool:
    """True for the tensor itself, and for a tuple, a list or an object that it is put into."""
    if isinstance(value, ast.Name):
        return value.id == name
    if isinstance(value, (ast.Tuple, ast.List, ast.Set)):
        return any(_holds(e, name, code) for e in value.elts)
    made = code.names.dotted(value.func).rpartition(".")[2] if isinstance(value, ast.Call) else ""
    if isinstance(value, ast.Call) and (made[:1].isupper() or made in _HOLDERS) and not _is_computing(value, code):
        return any(_holds(a, name, code) for a in (*value.args, *(k.value for k in value.keywords)))
    return False


def _is_passed_on(node: ast.Call, loop: ast.AST, code: Code) -> bool:
    """True where an array that the tensor is made of is also given to calls that might fill it."""
    arrays = {n.id for a in node.args for n in ast.walk(a) if isinstance(n, ast.Name)}
    arrays = {a for a in arrays if a not in ("np", "torch", "tf")}
    held = [n for a in node.args for n in ast.walk(a) if isinstance(n, ast.Attribute) and not code.qualified(n)]
    arrays -= {"self"}
    if not arrays:
        return not all(_is_made_once(n, code) for n in held)
    inside = {id(n) for n in ast.walk(node)}
    for inner in ast.walk(loop):
        if isinstance(inner, ast.Call) and id(inner) not in inside:
            given = [*inner.args, *(k.value for k in inner.keywords)]
            if isinstance(inner.func, ast.Attribute):
                given.append(inner.func.value)
            if any(isinstance(g, ast.Name) and g.id in arrays for g in given):
                return True
    return bool(held)


def _is_made_once(attribute: ast.Attribute, code: Code) -> bool:
    """True for ``self.window`` that ``__init__`` makes by a call, and that the class only reads from there on."""
    owner = code.names.class_of_self(attribute.value)
    bindings = code.names.attributes.get(owner, {}).get(attribute.attr, []) if owner is not None else []
    if owner is None or len(bindings) != 1 or not isinstance(bindings[0].value, ast.Call):
        return False
    made = code.function(bindings[0].node)
    if made is None or made.name != "__init__":
        return False
    written = f"self.{attribute.attr}"
    for other in ast.walk(owner):
        if not isinstance(other, ast.Attribute) or code.names.dotted(other) != written or _is_inside(other, made, code):
            continue
        parent = code.parent(other)
        builds = isinstance(parent, ast.Call) and code.qualified(parent.func) in _BUILDERS
        reads = isinstance(parent, ast.Subscript) and isinstance(parent.ctx, ast.Load)
        if not builds and not reads and not isinstance(parent, ast.BinOp):
            return False
    return True


def _is_inside(node: ast.AST, function: Function, code: Code) -> bool:
    return any(a is function for a in code.ancestors(node))


def _is_traced(node: ast.Call, code: Code) -> bool:
    """True where the loop only builds: a graph by `tf.function`, a layer's `call`, TensorFlow 1; an object once."""
    if code.mentions("compat.v1") and code.qualified(node.func).startswith("tensorflow."):
        return True
    function = code.function(node)
    if function is None:
        return False
    if function.name in ("__init__", "build", "reset_parameters"):
        return True
    if code.qualified(node.func).startswith("tensorflow.") and not _is_eager(function, code):
        return True
    if any("function" in code.names.dotted(d.func if isinstance(d, ast.Call) else d) for d in function.decorator_list):
        return True
    if code.in_class_of(node, makers.KERAS_LAYER, makers.KERAS_MODEL):
        return True
    owner = code.klass(node)  # a schedule, a loss, a metric: Keras traces their calls too
    return owner is not None and any(code.qualified(b).startswith("keras.") for b in owner.bases)


def _is_eager(function: Function, code: Code) -> bool:
    """True where TensorFlow surely runs eagerly: the file calls the function, runs models, or reads values.

    Any other function may be traced by who calls it, and then builds its constants once.
    """
    seen = code.callers(function) or code.handler(function) is not None
    return bool(seen) or code.fact(_runs_models) or code.mentions(".numpy()", "GradientTape", ".fit(", ".predict(")


def _runs_models(code: Code) -> bool:
    return any(code.runs_model(call) is not None for call in code.calls)


RULE = Rule(
    code="H005",
    name="tensor-built-in-loop",
    on=(ast.Call,),
    words=("constant", "tensor", "from_numpy", "Tensor", "ones(", "zeros(", "full(", "eye(", "arange(", "linspace("),
    remedy="Build the tensor once, before the loop.",
    check=check,
)
