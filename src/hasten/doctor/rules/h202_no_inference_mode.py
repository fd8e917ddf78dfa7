"""A torch model asked for answers without `no_grad()` or `inference_mode()`.

## What it does
Finds a torch model run for inference where nothing on the way switches gradients off: no context, no decorator, no
`requires_grad_(False)`. A method that only other files of the package run is left alone where one of them names
`no_grad`, where it hands on a tensor as it is, or where its class loads no weights; so is a single run on random
numbers (unless the network has weights, and its answer becomes a class or a number) or on numbers written out, and one
of a network that is made of its configuration alone. A model that a function is given counts where the function puts
it in eval mode and asks it in a loop, and the file never speaks of gradients.

## Why is this bad
Autograd records every operation and keeps every activation for a backward pass that never comes: time for each
operation, and memory for all of them.

## Cost
Ten to thirty percent of the time of small models; several times the memory.

## Example
```python
def score(x):
    return model(x).argmax(1).tolist()
```

## Use instead
```python
@torch.inference_mode()
def score(x):
    return model(x).argmax(1).tolist()
```

## Fix safety
`@torch.no_grad()` is put on the function. Safe where all that it returns are plain numbers, lists or arrays; unsafe
where a tensor might still be meant for a backward pass elsewhere. Not offered for generators, coroutines and lines
outside functions.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from hasten.doctor.beside import is_covered_beside
from hasten.doctor.code import Code
from hasten.doctor.inference import answers, is_covered, is_loaded_here, loads_own, own_calls
from hasten.doctor.names import Function
from hasten.doctor.once import is_written_out
from hasten.doctor.package import is_in_package
from hasten.doctor.rule import Edit, Fix, Hit, Rule
from hasten.doctor.samples import value_of
from hasten.doctor.words import words

_MARKS = ("no_grad", "inference_mode", "set_grad_enabled", "requires_grad_", "evaluating", "_no_grad", "eval_mode")
_FILE_WIDE = re.compile(
    r"^torch\.(set_grad_enabled|autograd\.set_grad_enabled)\(False|requires_grad\s*=\s*False|volatile=True", re.M
)
_BESIDE = re.compile(r"no_grad|inference_mode|set_grad_enabled\(False")
_TAKEN_OFF = frozenset(words("item tolist numpy decode batch_decode cpu detach data argmax max topk"))
_PLAIN = frozenset(("item", "tolist", "numpy", "decode"))
_STEPS = frozenset(("backward", "step", "zero_grad", "grad", "train_step", "fit"))
_MESSAGE = "autograd records every operation of this run, for nothing"


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """The first inference run of each function that autograd records."""
    if code.finds(_FILE_WIDE):
        return
    for call in answers(node, code):
        if is_covered(call, code, _MARKS) or _goes_to_gradients(call, code) or _is_one_look(call, code):
            continue
        function = code.function(call)
        elsewhere = code.mentions("no_grad", "inference_mode", "grad_enabled")
        known = function is None or (
            loads_own(function, code) or bool(code.callers(function)) or code.handler(function) is not None
        )
        if not known and (elsewhere or not _ends_plain(function, code)):
            continue
        if not known and is_in_package(code.file) and not is_loaded_here(call, code):
            continue  # who gives the model its weights may run it under no_grad too
        if not _is_detached(function) and is_covered_beside(call, code, _BESIDE):
            continue
        yield Hit(call, _MESSAGE, _fix(function, code))
        return
    for call in _given(node, code):
        yield Hit(call, _MESSAGE, _fix(code.function(call), code))
        return


def _given(node: ast.AST, code: Code) -> Iterator[ast.Call]:
    """The runs of a model that a function was given, put in eval mode and asks in a loop, for numbers alone.

    Who gives it may switch gradients off around the function: a file that speaks of that is believed to.
    """
    if not isinstance(node, ast.FunctionDef) or node.decorator_list or code.mentions(*_MARKS, "autograd"):
        return
    parameters = {a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)}
    told = {s.value.func.value.id for s in node.body if _is_eval(s)} & parameters  # type: ignore[attr-defined]
    attributes = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
    if not told or attributes & _STEPS or not attributes & {*_PLAIN, "detach"}:
        return
    for call in own_calls(node):
        runs = isinstance(call.func, ast.Name) and call.func.id in told and isinstance(code.loop(call), ast.For)
        if runs and not is_covered_beside(call, code, _BESIDE):
            yield call


def _is_eval(statement: ast.stmt) -> bool:
    """True for `model.eval()`."""
    called = statement.value.func if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call) else None
    return isinstance(called, ast.Attribute) and called.attr == "eval" and isinstance(called.value, ast.Name)


def _is_one_look(call: ast.Call, code: Code) -> bool:
    """True for `model(torch.tensor([[1.0, 2.0]]))` in a module's own lines, and no loop: one answer, once."""
    data = value_of(call.args[0], code) if len(call.args) == 1 else None
    once = code.function(call) is None and not any(True for _ in code.loops(call))
    return once and data is not None and is_written_out(data, code)


def _goes_to_gradients(call: ast.Call, code: Code) -> bool:
    return any(isinstance(k.value, ast.Constant) and k.arg == "create_graph" for k in call.keywords)


def _ends_plain(function: Function | None, code: Code) -> bool:
    """False where a method hands on a tensor as it is: that may be meant for a backward pass elsewhere."""
    if function is None or code.klass(function) is None:
        return True
    return any(isinstance(n, ast.Attribute) and n.attr in _TAKEN_OFF for n in ast.walk(function))


def _is_detached(function: Function | None) -> bool:
    """True where `detach()` says that the answers do come with their gradients."""
    return function is not None and any(isinstance(n, ast.Attribute) and n.attr == "detach" for n in ast.walk(function))


def _fix(function: Function | None, code: Code) -> Fix | None:
    if not isinstance(function, ast.FunctionDef) or any(
        isinstance(n, (ast.Yield, ast.YieldFrom)) for n in ast.walk(function)
    ):
        return None
    name = next((n for n, bs in code.names.module.names.items() if any(b.origin == "torch" for b in bs)), "")
    if not name:
        return None
    returned = [r for r in code.definitions.returns(function) if r is not None]
    plain = all(any(isinstance(n, ast.Attribute) and n.attr in _PLAIN for n in ast.walk(r)) for r in returned)
    return Fix((Edit("decorate", function, f"{name}.no_grad()"),), plain)


RULE = Rule(
    code="H202",
    name="no-inference-mode",
    on=(ast.Module, ast.FunctionDef, ast.AsyncFunctionDef),
    words=("torch",),
    remedy="Run it under torch.inference_mode() (or no_grad).",
    check=check,
)
