"""`DataParallel` for inference.

## What it does
Finds `nn.DataParallel(model)` in a file that runs models but trains none; in a function, where that function itself
goes on to eval mode or switches gradients off. A parameter that a function wraps and hands back may be in training
elsewhere.

## Why is this bad
At every call it copies the whole model to each device, splits the batch, runs Python threads that share one
interpreter lock, and gathers everything on the first device. Its own documentation advises against it.

## Cost
Often slower than one device; the copy alone costs milliseconds.

## Example
```python
model = torch.nn.DataParallel(model).eval()
```

## Use instead
```python
model = model.to("cuda:0").eval()     # one process for each device, where one is not enough
```

## Fix safety
No fix: names of stored weights (`module.`) may depend on it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from hasten.doctor.code import Code
from hasten.doctor.names import Function
from hasten.doctor.rule import Hit, Rule, hit

_TRAINING = (".backward(", "optim.", "Trainer(", "optimizer", ".train()", "train(", "loss", "criterion")
_OFF = ("no_grad", "inference_mode")
_INFERENCE = (".eval()", "no_grad", "inference_mode")


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """DataParallel where only answers are wanted."""
    assert isinstance(node, ast.Call)
    if code.qualified(node.func) not in ("torch.nn.DataParallel", "torch.nn.parallel.DataParallel"):
        return
    if not code.mentions(*_INFERENCE) or code.mentions(*_TRAINING) or _loads_wrapped(node, code):
        return
    if not _is_for_answers(node, code):
        return
    if any(isinstance(a, ast.If) and "requires_grad" in code.source(a.test) for a in code.ancestors(node)):
        return
    yield hit(node, "`DataParallel` copies the model to every device at each call")


def _is_for_answers(node: ast.Call, code: Code) -> bool:
    """True for the module's own lines, and in a function that makes its model and surely runs it for its answers."""
    function = code.function(node)
    if function is None:
        return True
    if function.name.startswith("test_") or (code.klass(function) is None and _is_handed(node, function, code)):
        return False
    decorated = any(
        code.names.dotted(d.func if isinstance(d, ast.Call) else d).endswith(_OFF) for d in function.decorator_list
    )
    return decorated or any(_is_sign(n) and _is_sure(n, node, code) for n in ast.walk(function))


def _is_handed(node: ast.Call, function: Function, code: Code) -> bool:
    """True where what is wrapped is the function's own parameter, and handed back: who takes it may train it."""
    model = node.args[0] if node.args else None
    parameters = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    if not isinstance(model, ast.Name) or model.id not in {a.arg for a in parameters}:
        return False
    statement = code.statement(node)
    names = {t.id for t in statement.targets if isinstance(t, ast.Name)} if isinstance(statement, ast.Assign) else set()
    returned = (r for r in code.definitions.returns(function) if r is not None)
    return not names or any(_hands_back(r, names) for r in returned)


def _hands_back(value: ast.expr, names: set[str]) -> bool:
    """True for a returned model, and not for what it answers."""
    parts = value.elts if isinstance(value, (ast.Tuple, ast.List)) else [value]
    while any(isinstance(p, ast.Call) and isinstance(p.func, ast.Attribute) for p in parts):
        parts = [p.func.value if isinstance(p, ast.Call) and isinstance(p.func, ast.Attribute) else p for p in parts]
    return any(isinstance(p, ast.Name) and p.id in names for p in parts)


def _is_sign(node: ast.AST) -> bool:
    named = node.func if isinstance(node, ast.Call) else None
    return getattr(named, "attr", getattr(named, "id", "")) in ("eval", *_OFF)


def _is_sure(sign: ast.AST, node: ast.Call, code: Code) -> bool:
    """False beneath an `if` that the wrapping does not stand beneath: without it the model may be in training."""
    around = set(code.ancestors(node))
    return all(a in around for a in code.ancestors(sign) if isinstance(a, ast.If))


def _loads_wrapped(node: ast.Call, code: Code) -> bool:
    """Wrapped only to take weights stored with the `module.` prefix, and unwrapped again."""
    return code.mentions(".module\n", "= model.module", "= net.module")


RULE = Rule(
    code="H203",
    name="data-parallel-inference",
    on=(ast.Call,),
    words=("DataParallel",),
    remedy="Run one device a process; split batches between processes.",
    check=check,
)
