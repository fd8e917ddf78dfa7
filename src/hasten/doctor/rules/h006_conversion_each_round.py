"""`.item()`, `.tolist()`, `.numpy()` or `.cpu()` in each round of a loop, where one conversion after it would do.

## What it does
Finds a tensor converted round by round only to be appended to a list or added to a sum: elements of a tensor read one
by one, and results of a model kept one by one outside training. Where they leave a device (`.cpu()`, or a file that
names one), these are numbers, classes, answers of a model whose last layer, seen in the file, gives few numbers, and
answers that are put together afterwards; whole answers of any other model are left alone, and so are those beside which
a comment speaks of memory, or whose names tell of images and segmentation: they may leave the device to free it.

## Why is this bad
Each conversion waits for all the work queued before it, crosses from C++ to Python, and on a GPU copies over the bus.
One conversion of all results does it once. On a CPU it saves the crossings alone.

## Cost
A microsecond an element on a CPU; on a GPU a full synchronisation, tens of microseconds, each round.

## Example
```python
for i in range(len(scores)):
    values.append(scores[i].item())
```

## Use instead
```python
values = scores.tolist()
```

## Fix safety
`[t[i].item() for i in range(len(t))]` and `[x.item() for x in t]` become `t.flatten().tolist()`: safe, since the
original runs on tensors of one number a row alone, `(n,)` and `(n, 1)`. Nothing else is rewritten.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from hasten.doctor import makers
from hasten.doctor.answers import is_small, last_name
from hasten.doctor.code import Code
from hasten.doctor.once import is_printed_each
from hasten.doctor.requirements import is_of_torch
from hasten.doctor.rule import Edit, Hit, Rule, hit
from hasten.doctor.samples import comes_from, is_chunked, value_of
from hasten.doctor.words import words

_CONVERSIONS = ("item", "tolist", "numpy", "cpu")
_LOADERS = (makers.TORCH_LOADER, makers.TF_DATASET)
_OWN = ("__init__", "tolist", "item", "numpy")  # a tensor class' own conversion has no other to call
_SEVERAL = frozenset(words("linspace arange split chunk unbind meshgrid topk sort tensor_split broadcast_tensors"))
_LIBRARIES = frozenset(words("torch torchvision torchaudio tensorflow keras numpy math einops tqdm"))
_TAKES_OFF = re.compile("^numpy$|^tolist$|to_?list$|(to|2)_?(np|numpy)$")
_OF_ARRAYS = frozenset(("torch.from_numpy", "torch.as_tensor", "torch.tensor", "torch.FloatTensor", "torch.Tensor"))
_DEVICES_ELSEWHERE = ("pytorch_lightning", "lightning", "accelerate")
_HANDFUL = 8
_VIEWS = re.compile(r"(^|[._])(augment\w*|tta\w*|views|crops|flips|models|members|ensemble|nets)$")
_TRAINING = frozenset(("backward", "step", "train_on_batch", "apply_gradients", "minimize", "zero_grad"))


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Conversions whose result only joins a list or a sum."""
    assert isinstance(node, ast.Call)
    if not isinstance(node.func, ast.Attribute) or node.func.attr not in _CONVERSIONS or node.args:
        return
    receiver = node.func.value
    kind = code.kind(receiver)
    if kind is None or kind.name not in (makers.TORCH_TENSOR, makers.TF_TENSOR):
        return
    function = code.function(node)
    if _is_converted_again(node, code) or not _is_gathered(node, code) or (function and function.name in _OWN):
        return
    loop = code.loop(node)
    if is_of_torch(code.file) or loop is None or not code.depends_on_round(receiver, loop) or _trains(loop):
        return
    device = code.fact(_knows_device)
    if (node.func.attr != "cpu" or device) and _by_element(receiver, loop, code):
        if is_chunked(loop) or _over_loader(loop, code) or _is_extending(node, code) or _is_picked(node, loop, code):
            return  # the elements of a batch are no numbers, and of those that an `if` picks there may be few
        yield hit(
            node,
            f"`.{node.func.attr}()` takes the tensor apart one element a round",
            *_to_list(node, loop, code),
            safe=True,
        )
    elif (run := _from_model(receiver, loop, code)) and not _is_due(node, loop, code):
        leaves = device or any(isinstance(n, ast.Attribute) and n.attr == "cpu" for n in ast.walk(node.func))
        if leaves and not is_small(node, run, loop, code):
            return
        does = "waits and copies" if device else "converts"
        yield hit(node, f"`.{node.func.attr}()` {does} in every round, only to gather the results")


def _is_picked(node: ast.AST, loop: ast.AST, code: Code) -> bool:
    """True beneath an `if` that asks about the round."""
    for around in code.ancestors(node):
        if around is loop:
            return False
        if isinstance(around, ast.If) and code.depends_on_round(around.test, loop):
            return True
    return False


def _is_extending(node: ast.AST, code: Code) -> bool:
    """True for `labels.extend(x.tolist())`: a round that answers for many is a batch."""
    parent = code.parent(node)
    return isinstance(parent, ast.Call) and isinstance(parent.func, ast.Attribute) and parent.func.attr == "extend"


def _is_due(node: ast.Call, loop: ast.AST, code: Code) -> bool:
    """True where each round has reason to convert: it waits in any case, or wants the number there and then."""
    if _is_beside_host(loop, code) or _asks_few(loop, code):
        return True
    if _has_left(node.func.value, loop, code):  # type: ignore[attr-defined]
        return True
    if _generates(loop) or _is_over_outputs(loop, code) or _is_read_each_round(node, loop, code):
        return True
    if _is_wanted_too(node, loop, code):
        return True
    return isinstance(node.func, ast.Attribute) and node.func.attr == "item" and _waits_anyway(loop, code)


def _has_left(receiver: ast.expr, loop: ast.AST, code: Code, depth: int = 4) -> bool:
    """True where an earlier line took the value off its device: ``hits = right.type(torch.FloatTensor)``."""
    for inner in ast.walk(receiver):
        kinds = inner.args if isinstance(inner, ast.Call) and last_name(inner.func) == "type" else []
        if any(re.fullmatch(r"torch\.\w+Tensor", code.qualified(k)) for k in kinds):
            return True
        if isinstance(inner, ast.Name) and depth:
            values = (b.value for b in code.bound_in(inner, loop) if b.role == "value")
            if any(v is not None and v is not receiver and _has_left(v, loop, code, depth - 1) for v in values):
                return True
    return False


def _is_beside_host(loop: ast.AST, code: Code) -> bool:
    """True where the round makes its input of an array, and the file knows no device: there is nothing to wait for."""
    made = (code.qualified(n.func) for n in ast.walk(loop) if isinstance(n, ast.Call))
    return not code.fact(_knows_device) and any(m in _OF_ARRAYS for m in made)


def _knows_device(code: Code) -> bool:
    """True where the file, or the framework that runs it, may put the model on a GPU: ``x.to(device)``."""
    moved = (code.names.dotted(c.args[0]).lower() for c in code.calls_named("to") if c.args)
    return code.uses_gpu or code.imports(*_DEVICES_ELSEWHERE) or any("dev" in m for m in moved)


def _asks_few(loop: ast.AST, code: Code) -> bool:
    """True for rounds over the members of an ensemble, the views of one sample, or what a list names: a handful."""
    if not isinstance(loop, ast.For):
        return False
    named = value_of(loop.iter, code) if isinstance(loop.iter, ast.Name) else None
    if isinstance(named, (ast.Tuple, ast.List)) and 0 < len(named.elts) <= _HANDFUL:
        return True
    if _VIEWS.search(code.names.dotted(loop.iter).lower()):
        return True
    runs = (n.func for n in ast.walk(loop) if isinstance(n, ast.Call) and code.runs_model(n) is not None)
    members = {n.id for n in ast.walk(loop.target) if isinstance(n, ast.Name)}
    return any(isinstance(n, ast.Name) and n.id in members for r in runs for n in ast.walk(r))


def _is_wanted_too(node: ast.Call, loop: ast.AST, code: Code) -> bool:
    """True where the round converts the same tensor for another purpose as well: a line that it writes."""
    written = ast.dump(node)
    same = (n for n in ast.walk(loop) if isinstance(n, ast.Call) and n is not node and ast.dump(n) == written)
    return any(not _is_gathered(n, code) for n in same)


def _waits_anyway(loop: ast.AST, code: Code) -> bool:
    """True where each round takes whole answers off the device, itself or in a function that it calls.

    So too where it picks by a mask, `scores[~missing]`: how many are picked must be known before the next line runs.
    """
    if any(
        isinstance(n, ast.Subscript)
        and isinstance(n.slice, (ast.Compare, ast.UnaryOp))
        and not isinstance(getattr(n.slice, "op", None), ast.USub)
        for n in ast.walk(loop)
    ):
        return True
    calls = [n for n in ast.walk(loop) if isinstance(n, ast.Call)]
    if any(last_name(c.func) == "isnan" or _is_tested(c, loop, code) for c in calls):
        return True
    helpers = {code.function_run(c) for c in calls} - {None}
    read = (c for c in calls if _is_unseen(c, code) or is_printed_each(c, loop, code))
    if any(_from_model(a, loop, code) for c in read for a in c.args):
        return True  # the measures of other files give numbers, more often than not; `print(answer)` shows them
    calls += [n for h in helpers if h is not None for n in ast.walk(h) if isinstance(n, ast.Call)]
    named = (c.func.attr if isinstance(c.func, ast.Attribute) else getattr(c.func, "id", "") for c in calls)
    return any(_TAKES_OFF.search(name) for name in named)


def _is_unseen(call: ast.Call, code: Code) -> bool:
    """True for a function of another file of the project: `from metrics import score`."""
    if not isinstance(call.func, ast.Name) or call.func.id[:1].isupper():
        return False
    origins = [b.origin for b in code.names.find(call.func.id, call.func)[1] if b.role == "import"]
    return any(o.split(".")[0] not in _LIBRARIES for o in origins)


def _is_tested(call: ast.Call, loop: ast.AST, code: Code) -> bool:
    """True for a conversion in the test of an `if`, itself or by name: the round waits for it there."""
    if last_name(call.func) not in _CONVERSIONS:
        return False
    statement = code.statement(call)
    if isinstance(statement, ast.Assign) and statement.value is call and isinstance(statement.targets[0], ast.Name):
        name = statement.targets[0].id
        tests = [n.test for n in ast.walk(loop) if isinstance(n, (ast.If, ast.While, ast.Assert))]
        return any(isinstance(n, ast.Name) and n.id == name for t in tests for n in ast.walk(t))
    inside, at = call, code.parent(call)
    while isinstance(at, ast.expr):
        inside, at = at, code.parent(at)  # type: ignore[assignment]
    return isinstance(at, (ast.If, ast.While)) and at.test is inside


def _is_read_each_round(node: ast.AST, loop: ast.AST, code: Code) -> bool:
    """True where the loop shows the sum so far: ``bar.set_postfix(loss=total / seen)``."""
    statement = code.statement(node)
    if not isinstance(statement, ast.AugAssign):
        return False
    written, own = code.names.dotted(statement.target), set(ast.walk(statement))
    reads = (n for n in ast.walk(loop) if isinstance(getattr(n, "ctx", None), ast.Load) and n not in own)
    return any(code.names.dotted(n) == written and not _is_stored_into(n, code) for n in reads)


def _is_stored_into(node: ast.AST, code: Code) -> bool:
    """True for the ``counts`` of ``counts[i] += 1``."""
    parent = code.parent(node)
    return isinstance(parent, ast.Subscript) and isinstance(parent.ctx, ast.Store)


def _is_converted_again(node: ast.Call, code: Code) -> bool:
    """For `x.cpu().numpy()` the last call is the one that counts."""
    parent = code.parent(node)
    return isinstance(parent, ast.Attribute) and parent.attr in (*_CONVERSIONS, "detach", "to", "cuda")


def _is_gathered(node: ast.AST, code: Code) -> bool:
    """True where the value joins a list (`append`, a comprehension) or a sum (`+=`) and does nothing else."""
    at = node
    parent = code.parent(at)
    while isinstance(parent, (ast.Subscript, ast.BinOp)) or (
        isinstance(parent, ast.Attribute) and parent.attr in ("flatten", "squeeze")
    ):
        at, parent = parent, code.parent(parent)
    if isinstance(parent, ast.Call) and isinstance(parent.func, ast.Attribute):
        return parent.func.attr in ("append", "extend") and at in parent.args
    if isinstance(parent, ast.AugAssign):
        return isinstance(parent.op, ast.Add) and at is parent.value and not isinstance(parent.target, ast.Subscript)
    return isinstance(parent, (ast.ListComp, ast.GeneratorExp)) and at is parent.elt


def _trains(loop: ast.AST) -> bool:
    return any(isinstance(n, ast.Attribute) and n.attr in _TRAINING for n in ast.walk(loop)) or any(
        isinstance(n, ast.Name) and n.id == "GradientTape" for n in ast.walk(loop)
    )


def _generates(loop: ast.AST) -> bool:
    """A round that generates, step by step, takes far longer than one copy of what it made."""
    return any(isinstance(n, ast.Attribute) and n.attr == "generate" for n in ast.walk(loop))


def _is_over_outputs(loop: ast.AST, code: Code) -> bool:
    """True for `[part.numpy() for part in model(x)]`: the few outputs of one run, each of its own shape."""
    if not isinstance(loop, (ast.ListComp, ast.GeneratorExp)):
        return False
    iterable = loop.generators[0].iter
    bindings = code.names.find(iterable.id, iterable)[1] if isinstance(iterable, ast.Name) else []
    values = [b.value for b in bindings if b.role == "value"] or [iterable]
    return any(v is not None and code.runs_model(v) is not None for v in values)


def _from_model(receiver: ast.expr, loop: ast.AST, code: Code, depth: int = 4) -> ast.AST | None:
    """The model run of this very round that gives a value, by itself or by way of names and methods."""
    for inner in ast.walk(receiver):
        if code.runs_model(inner) is not None and not _is_loss(inner, code):
            return inner
        if isinstance(inner, ast.Name) and depth:
            for binding in code.bound_in(inner, loop):
                value = binding.value if binding.role == "value" else None
                if value is None or value is receiver:
                    continue
                run = _from_model(value, loop, code, depth - 1)
                if run is not None:
                    return run
    return None


def _is_loss(run: ast.AST, code: Code) -> bool:
    """True for `torch.nn.L1Loss()(x, y)`: where its inputs come from is seen elsewhere, if at all."""
    kind = code.runs_model(run)
    made = code.qualified(kind.made.func) if kind is not None and kind.made is not None else ""
    return made.startswith("torch.nn.") and made.endswith("Loss")


def _over_loader(loop: ast.AST, code: Code) -> bool:
    """Batches moved off the device one by one keep its memory free: that is right."""
    if not isinstance(loop, ast.For):
        return False
    iterable: ast.expr = loop.iter
    made = code.names.dotted(iterable.func).lower() if isinstance(iterable, ast.Call) else ""
    while isinstance(iterable, ast.Call) and iterable.args and not code.is_a(iterable, *_LOADERS):
        iterable = iterable.args[0]
    written = f"{made} {code.names.dotted(iterable)}".lower()
    return code.is_a(iterable, *_LOADERS) or any(w in written for w in ("load", "data", "batch"))


def _by_element(receiver: ast.expr, loop: ast.AST, code: Code) -> bool:
    """True for `t[i]` and for the loop's own target, elements of one tensor made before the loop."""
    if isinstance(receiver, ast.Subscript):
        if any(isinstance(n, ast.Slice) for n in ast.walk(receiver.slice)):
            return False  # parts of several lengths have a conversion each
        return code.depends_on_round(receiver.slice, loop) and not code.depends_on_round(receiver.value, loop)
    if not isinstance(receiver, ast.Name) or code.kind(receiver) is None:
        return False
    if isinstance(loop, ast.For) and receiver.id not in {
        n.id for n in ast.walk(loop.target) if isinstance(n, ast.Name)
    }:
        return False  # made of the element, and perhaps much more than one
    iterable = (
        loop.iter if isinstance(loop, ast.For) else loop.generators[0].iter if isinstance(loop, ast.ListComp) else None
    )
    around = (i for outer in code.loops(receiver) for i in _iterables(outer))
    if any(comes_from(i, code, _is_top) for i in around):
        return False
    if isinstance(iterable, ast.Attribute) and iterable.attr == "values":
        return False  # what the replicas of a strategy give, a tensor each
    if (
        iterable is None
        or (isinstance(iterable, ast.Call) and _is_few(iterable))
        or code.runs_model(value_of(iterable, code) or iterable) is not None
    ):
        return False  # a model may answer with several tensors: these are no elements of one
    return code.is_a(iterable, makers.TORCH_TENSOR, makers.TF_TENSOR)


def _is_few(made: ast.Call) -> bool:
    """True for calls that give a few numbers, or several tensors: `torch.where(mask)` has one for each axis."""
    name = last_name(made.func)
    return name in _SEVERAL or (name in ("where", "nonzero") and len(made.args) + len(made.keywords) < 3)


def _iterables(loop: ast.AST) -> list[ast.expr]:
    return [loop.iter] if isinstance(loop, ast.For) else [g.iter for g in getattr(loop, "generators", ())]


def _is_top(node: ast.AST) -> bool:
    """True for `scores.topk(5)`: a handful, however it is turned."""
    return isinstance(node, ast.Call) and last_name(node.func) == "topk"


def _to_list(node: ast.Call, loop: ast.AST, code: Code) -> tuple[Edit, ...]:
    if not isinstance(loop, ast.ListComp) or loop.elt is not node or len(loop.generators) != 1:
        return ()
    generator = loop.generators[0]
    assert isinstance(node.func, ast.Attribute)
    if generator.ifs or node.func.attr != "item" or not isinstance(generator.target, ast.Name):
        return ()
    receiver = node.func.value
    if (
        isinstance(receiver, ast.Name)
        and receiver.id == generator.target.id
        and code.is_a(generator.iter, makers.TORCH_TENSOR)
    ):
        return (Edit("replace", loop, f"{code.source(generator.iter)}.flatten().tolist()"),)
    if not isinstance(receiver, ast.Subscript) or not code.is_a(receiver.value, makers.TORCH_TENSOR):
        return ()
    tensor = code.source(receiver.value)
    whole = (f"range(len({tensor}))", f"range({tensor}.shape[0])", f"range({tensor}.size(0))")
    plain = isinstance(receiver.slice, ast.Name) and receiver.slice.id == generator.target.id
    return (
        (Edit("replace", loop, f"{tensor}.flatten().tolist()"),)
        if plain and code.source(generator.iter) in whole
        else ()
    )


RULE = Rule(
    code="H006",
    name="conversion-each-round",
    on=(ast.Call,),
    words=tuple(f".{c}(" for c in _CONVERSIONS),
    remedy="Keep tensors in the loop; convert once after it (stack, then .tolist() or .numpy()).",
    check=check,
)
