"""Copies between host and device inside a loop that need not be there.

## What it does
Finds, in a loop: a tensor or model that no round changes moved to a device (`.to(device)`, `.cuda()`), and round trips
(`.cpu().cuda()`, `torch.from_numpy(x.cpu().numpy()).to(device)`, a state that is taken off only to go back).

## Why is this bad
A copy over the bus costs more than most kernels, and waits for the work before it.

## Cost
Ten microseconds and more each round, and a stalled queue.

## Example
```python
for x in batches:
    out = model(x) * scale.to("cuda")
```

## Use instead
```python
scale = scale.to("cuda")
for x in batches:
    out = model(x) * scale
```

## Fix safety
Safe where the moved tensor gets a name of its own that nothing in the loop changes: the line moves before the loop.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from hasten.doctor import makers
from hasten.doctor.code import Code
from hasten.doctor.percall import hoist, is_guarded
from hasten.doctor.rule import Hit, Rule, hit, keyword
from hasten.doctor.samples import value_of

_OF_ARRAYS = ("torch.from_numpy", "torch.tensor", "torch.as_tensor")
_DTYPES = ("float", "half", "int", "long", "bool", "double", "complex", "bfloat", "uint", "dtype")


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Repeated moves of the same thing, and journeys there and back."""
    assert isinstance(node, ast.Call)
    if not isinstance(node.func, ast.Attribute) or node.func.attr not in ("to", "cuda"):
        return
    loop = code.loop(node)
    if not isinstance(loop, (ast.For, ast.While)):
        return
    receiver = node.func.value
    if (_comes_from_device(receiver, code) or _comes_back(receiver, loop, code)) and _is_to_device(node, code):
        yield hit(node, "the tensor leaves the device and comes back in every round")
        return
    if not _is_to_device(node, code) or not code.is_a(receiver, makers.TORCH_TENSOR, makers.TORCH_MODULE):
        return
    if (
        code.varies(receiver, loop)
        or code.varies(node, loop)
        or is_guarded(node, code)
        or isinstance(receiver, ast.Call)
    ):
        return
    if code.is_a(receiver, makers.TORCH_MODULE) and (_is_reloaded(loop) or _is_epoch(loop)):
        return
    if _is_made_there(receiver, code):
        return
    if _is_put_back(receiver, loop, code) or (code.is_a(receiver, makers.TORCH_TENSOR) and _is_shared(receiver, code)):
        return
    yield hit(node, "the same thing is moved to the device in every round", *hoist(node, code), safe=True)


def _is_made_there(receiver: ast.expr, code: Code) -> bool:
    """True for what `torch.tensor(words, device=device)` made, here or in a function: no move copies it."""
    klass = code.klass(code.function(receiver) or receiver)
    if isinstance(receiver, ast.Attribute) and klass is not None and code.names.dotted(receiver.value) == "self":
        values = [b.value for b in code.names.attributes.get(klass, {}).get(receiver.attr, [])]
    else:
        values = [value_of(receiver, code)]
    return bool(values) and all(_is_on_device(v, code) for v in values)


def _is_on_device(value: ast.expr | None, code: Code, depth: int = 1) -> bool:
    """True for a tensor that is told its device as it is made, by way of `.unsqueeze(0)` and its like too."""
    while isinstance(value, ast.Call):
        place = keyword(value, "device")
        if place is not None:
            return "cpu" not in ast.unparse(place)
        function = code.function_run(value) if depth else None
        if function is not None:
            returned = code.definitions.returns(function)
            return bool(returned) and all(_is_on_device(r, code, depth - 1) for r in returned)
        value = value.func.value if isinstance(value.func, ast.Attribute) else None
    return False


def _is_epoch(loop: ast.For | ast.While) -> bool:
    """True for rounds over whole epochs: a model that is there already moves nowhere, once in an epoch."""
    return isinstance(loop, ast.For) and "epoch" in ast.unparse(loop.target) + ast.unparse(loop.iter)


def _is_to_device(node: ast.Call, code: Code) -> bool:
    """False for conversions of dtype only."""
    if isinstance(node.func, ast.Attribute) and node.func.attr == "cuda":
        return True
    target = node.args[0] if node.args else keyword(node, "device")
    if target is None:
        return False
    if isinstance(target, ast.Constant):
        return isinstance(target.value, str) and target.value.startswith(("cuda", "mps", "xpu"))
    written = code.names.dotted(target) or (code.names.dotted(target.func) if isinstance(target, ast.Call) else "")
    return "device" in written.lower() and not any(written.rsplit(".", 1)[-1].startswith(d) for d in _DTYPES)


def _comes_from_device(node: ast.expr, code: Code) -> bool:
    """True for `x.cpu()`, and `from_numpy(x.cpu().numpy())` with nothing but arrays and arithmetic between."""
    if isinstance(node, ast.BinOp):
        return _comes_from_device(node.left, code) or _comes_from_device(node.right, code)
    while isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and node.func.attr == "cpu":
            return True
        if code.qualified(node.func) in _OF_ARRAYS and node.args:
            node = node.args[0]
        elif isinstance(node.func, ast.Attribute) and node.func.attr in (
            "numpy",
            "detach",
            "float",
            "squeeze",
            "clone",
        ):
            node = node.func.value
        else:
            return False
    return False


def _comes_back(receiver: ast.expr, loop: ast.AST, code: Code) -> bool:
    """True for the state of ``state = model(x, state.to(device)).cpu()``, which nothing else in the loop reads.

    So too for ``from_numpy(state)``, where ``state`` was taken off by the lines before.
    """
    if isinstance(receiver, ast.Call) and code.qualified(receiver.func) in _OF_ARRAYS and receiver.args:
        receiver = receiver.args[0]
    if not isinstance(receiver, ast.Name):
        return False
    bound = [b for b in code.bound_in(receiver, loop) if b.role == "value" and b.value is not None]
    before = [b for b in bound if b.value is not None and b.value.lineno < receiver.lineno]
    last = max(before, key=lambda b: b.value.lineno) if before else bound[0] if len(bound) == 1 else None  # type: ignore[union-attr]
    if last is None or not isinstance(last.value, ast.Call) or not _comes_from_device(last.value, code):
        return False
    after = last.value.lineno if before else 0
    same = (n for n in ast.walk(loop) if isinstance(n, ast.Name) and n.id == receiver.id and n is not receiver)
    return not any(isinstance(n.ctx, ast.Load) and n.lineno > after for n in same)


def _is_put_back(receiver: ast.expr, loop: ast.AST, code: Code) -> bool:
    """A model moved off the device later in the round is moved on purpose: memory is short."""
    written = code.names.dotted(receiver)
    for inner in ast.walk(loop):
        if (
            isinstance(inner, ast.Call)
            and isinstance(inner.func, ast.Attribute)
            and code.names.dotted(inner.func.value) == written
        ):
            cpu = inner.func.attr == "cpu" or (
                inner.func.attr == "to" and any(getattr(a, "value", "") == "cpu" for a in inner.args)
            )
            if cpu:
                return True
    return False


def _is_reloaded(loop: ast.AST) -> bool:
    """True where each round reads other weights into a model: one checkpoint after the other is looked at."""
    called = (n.func for n in ast.walk(loop) if isinstance(n, ast.Call))
    return any("load" in (f.attr if isinstance(f, ast.Attribute) else getattr(f, "id", "")) for f in called)


def _is_shared(receiver: ast.expr, code: Code) -> bool:
    """A tensor that is written to, or handed to others who may write, can hold something new in each round."""
    written = code.names.dotted(receiver)
    for node in code.names.nodes:
        if (
            isinstance(node, ast.Subscript)
            and isinstance(node.ctx, ast.Store)
            and code.names.dotted(node.value) == written
        ):
            return True
        if isinstance(node, ast.Call) and not code.qualified(node.func).startswith("torch."):
            given = [*node.args, *(k.value for k in node.keywords)]
            flat = [e for g in given for e in (g.elts if isinstance(g, (ast.Tuple, ast.List)) else [g])]
            if any(code.names.dotted(g) == written for g in flat):
                return True
    return False


RULE = Rule(
    code="H408",
    name="copy-in-loop",
    on=(ast.Call,),
    words=(".to(", ".cuda("),
    remedy="Move it once, before the loop; keep results on the device until the end.",
    check=check,
)
