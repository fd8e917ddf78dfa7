"""Pruning masks that are never removed, or expected to make anything faster.

## What it does
Finds `torch.nn.utils.prune` or TensorFlow's `prune_low_magnitude` in a file that keeps, saves or times the model and
never calls `prune.remove` / `strip_pruning`. With the mask removed, it still finds where the lines that follow time the
pruned model.

## Why is this bad
A mask multiplies the weights by zeros and ones at every call: the model is as large as before (twice, with the mask)
and slower. Zeros alone make dense kernels no faster even once the mask is gone: only removed channels, or engines
with sparse kernels at high sparsity, do.

## Cost
One more multiplication of every weight at each call; twice the file.

## Example
```python
prune.l1_unstructured(model.fc, "weight", amount=0.5)
torch.save(model.state_dict(), "pruned.pt")
```

## Use instead
```python
prune.l1_unstructured(model.fc, "weight", amount=0.5)
prune.remove(model.fc, "weight")                       # permanent zeros; then remove whole channels for speed
torch.save(model.state_dict(), "pruned.pt")
```

## Fix safety
No fix: masks must stay as long as training goes on.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from hasten.doctor.clocks import is_clock, network, networks, regions
from hasten.doctor.code import Code
from hasten.doctor.rule import Hit, Rule, argument, hit

_TORCH = "torch.nn.utils.prune."
_REPEATERS = ("timeit.timeit", "timeit.repeat", "timeit.Timer", "torch.utils.benchmark.Timer")
_KERAS = "tensorflow_model_optimization.sparsity.keras."


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """The first pruning call of a file that ships the masks."""
    assert isinstance(node, ast.Call)
    if not _prunes(node, code) or node is not code.fact(_first):
        return
    if any(_removes(c, code) for c in code.calls_named("remove", "strip_pruning")):
        if _is_timed_after(node, code):
            yield hit(node, "zeros make dense kernels no faster, with the mask or without it")
        return
    if _times(code):
        yield hit(node, "masks make nothing faster: they are one more multiplication at each call")
    elif _ships(code):
        yield hit(node, "the pruning masks are never removed, and go with the model")


def _prunes(call: ast.Call, code: Code) -> bool:
    name = code.qualified(call.func)
    last = name.rsplit(".", 1)[-1]
    torch = name.startswith(_TORCH) and (last.endswith("structured") or last in ("custom_from_mask", "identity"))
    return torch or (name.startswith(_KERAS) and last == "prune_low_magnitude")


def _first(code: Code) -> ast.Call | None:
    return next((c for c in code.calls if _prunes(c, code)), None)


def _removes(call: ast.Call, code: Code) -> bool:
    return code.qualified(call.func).startswith((_TORCH, _KERAS))


def _ships(code: Code) -> bool:
    names = ("torch.save", "torch.onnx.export", "torch.jit.save", "torch.export.save")
    if any(code.qualified(c.func) in names for c in code.calls_named("save", "export")):
        return True
    return any(
        isinstance(c.func, ast.Attribute) and c.func.attr in ("from_keras_model", "save_pretrained") for c in code.calls
    ) or (code.imports("tensorflow_model_optimization") and bool(code.calls_named("save")))


def _times(code: Code) -> bool:
    return any(is_clock(c, code) or code.qualified(c.func) in _REPEATERS for c in code.calls) and not code.mentions(
        ".backward(", "epoch"
    )


def _is_timed_after(node: ast.Call, code: Code) -> bool:
    """True where the same function, or the module's own lines, then time the run of a model."""
    function = code.function(node)
    timed = (ast.Assign, ast.With, ast.Call)
    later = (n for n in code.names.nodes if isinstance(n, timed) and n.lineno > node.lineno)
    starts = (s for s in later if code.function(s) is function)
    return any(_times_model(s, code) for s in starts)


def _times_model(node: ast.AST, code: Code) -> bool:
    """True for what times the run of a model, and for the call of a function of the file that does."""
    helper = code.function_run(node) if isinstance(node, ast.Call) else None
    inner = ast.walk(helper) if helper is not None else iter((node,))
    return any(_repeats_model(n, code) or any(networks(r.body, code) for r in regions(n, code)) for n in inner)


def _repeats_model(call: ast.AST, code: Code) -> bool:
    """True for `timeit.timeit(lambda: model(x), number=100)`."""
    if not isinstance(call, ast.Call) or code.qualified(call.func) not in _REPEATERS:
        return False
    repeated = argument(call, 0, "stmt")
    run = repeated.body if isinstance(repeated, ast.Lambda) else None
    return run is not None and any(isinstance(n, ast.Call) and network(n, code) for n in ast.walk(run))


RULE = Rule(
    code="H209",
    name="pruning-masks-kept",
    on=(ast.Call,),
    words=("prune",),
    remedy="Call prune.remove(module, name) (strip_pruning in Keras) before saving; remove channels for speed.",
    check=check,
)
