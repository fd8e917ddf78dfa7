"""A torch model asked for answers without `eval()`.

## What it does
Finds a torch model run for inference in a file where nothing calls `.eval()` on the way to it, nor does another file
of the package that runs the same function. The file must show layers that care (dropout, batch norm, a network of
torchvision, timm or a hub), or a script must load the weights right where it runs the model; in a package both are
asked for. `from_pretrained` models are left alone: they come in eval mode.

## Why is this bad
In training mode dropout throws activations away at random and batch norm takes its statistics from the batch, and
updates them: answers are wrong, differ from call to call, and the layers cost time that inference needs not spend.

## Cost
Wrong answers; and up to several times the time, for small layers.

## Example
```python
model.load_state_dict(torch.load("weights.pt", weights_only=True))
answer = model(x)
```

## Use instead
```python
model.load_state_dict(torch.load("weights.pt", weights_only=True))
model.eval()
answer = model(x)
```

## Fix safety
Unsafe: the answers change (that is the point).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from hasten.doctor.beside import is_covered_beside
from hasten.doctor.code import Code
from hasten.doctor.inference import (
    answers,
    is_covered,
    is_loaded_here,
    leading_to,
    loads_own,
    own_calls,
)
from hasten.doctor.names import Function
from hasten.doctor.package import is_in_package
from hasten.doctor.rule import Edit, Hit, Rule, argument, hit
from hasten.doctor.samples import value_of

_STATEFUL = (
    "Dropout",
    "BatchNorm",
    "SyncBatchNorm",
    "AlphaDropout",
    "Transformer",
)
_WITH_DROPOUT = ("MultiheadAttention", "LSTM", "GRU")  # they have none unless it is asked for
_MODULES = re.compile(r"(Model|Module|ModuleClass|Net|Network|Encoder|Decoder|Layer|Backbone)$")
_BESIDE = re.compile(r"\.eval\(\)")
_SETS_MODE = re.compile(r"\.train\((mode=)?(\w+\.)*\w*(mode|training)\)")  # `net.train(was_training)`


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """The first inference run of each function without eval mode."""
    if code.mentions(
        "model_eval", "eval_mode", "set_eval", "freeze(", ".train(False)", "train(mode=False)"
    ) or _is_part(node, code):
        return
    if code.finds(_SETS_MODE):
        return
    for call in answers(node, code):
        if is_covered(call, code, ("eval", "evaluating")) or _is_in_eval_mode(call, code) or _is_opened_by(call, code):
            continue
        if code.calls_named("eval") and not _stands_alone(call, code):
            continue
        elsewhere = _is_in_package(call, code) or not _is_loaded_there(call, code) or _plays(call, code)
        if elsewhere and not _shows_state(call, code):
            continue
        if _is_in_package(call, code) and not is_loaded_here(call, code):
            continue  # who gives the model its weights may set its mode too
        if is_covered_beside(call, code, _BESIDE):
            continue
        yield hit(call, "the model answers in training mode: dropout and batch norm are at work", *_edit(call, code))
        return


def _is_part(scope: ast.AST, code: Code) -> bool:
    """True in a class whose base, of another file, says that it is a module: its methods are steps of one run.

    In a package any base of another of its files may be one.
    """
    owner = code.klass(scope)
    if owner is not None and is_in_package(code.file) and any(_is_foreign(b, code) for b in owner.bases):
        return True
    bases = [code.names.dotted(b).rsplit(".", 1)[-1] for b in owner.bases] if owner is not None else []
    return any(_MODULES.search(b) for b in bases)


def _is_foreign(base: ast.expr, code: Code) -> bool:
    bindings = code.names.find(base.id, base)[1] if isinstance(base, ast.Name) else []
    return any(b.role == "import" for b in bindings)


def _shows_state(call: ast.Call, code: Code) -> bool:
    """True where the file shows that the model holds layers that care: by their names, or a whole network's."""
    kind = code.runs_model(call)
    made = kind.made or _made_elsewhere(call, code) if kind is not None else None
    for part in (made, kind.local if kind is not None else None):
        if part is None:
            continue
        if _cares(code.source(part)) or "pretrained=True" in code.source(part):
            return True
        names = (code.qualified(c.func) for c in ast.walk(part) if isinstance(c, ast.Call))
        if any(n.startswith(("torchvision.models.", "timm.", "torch.hub.")) for n in names):
            return True
    return False


def _cares(written: str) -> bool:
    """True for the source of a network with a layer that works otherwise in training."""
    return any(s in written for s in _STATEFUL) or ("dropout" in written and any(s in written for s in _WITH_DROPOUT))


def _is_in_package(call: ast.Call, code: Code) -> bool:
    """True for a function of a package: its models are of other files' making, and those may see to their mode."""
    return is_in_package(code.file) and code.function(call) is not None


def _is_loaded_there(call: ast.Call, code: Code) -> bool:
    """True where the very model is given its weights in the function that runs it, or in a method of its class."""
    model, owner = code.names.dotted(call.func), code.klass(call)
    scope = owner or code.function(call) or code.tree
    calls = (c for c in ast.walk(scope) if isinstance(c, ast.Call)) if owner is not None else own_calls(scope)
    given = (c.func for c in calls if isinstance(c.func, ast.Attribute) and c.func.attr == "load_state_dict")
    return any(owner is not None or code.names.dotted(f.value) == model for f in given)


def _plays(call: ast.Call, code: Code) -> bool:
    """True for a policy that steps an environment: such networks are plain layers."""
    own = own_calls(code.function(call) or code.tree)
    return any(isinstance(c.func, ast.Attribute) and code.names.dotted(c.func).endswith("env.step") for c in own)


def _is_opened_by(call: ast.AST, code: Code) -> bool:
    """True where this function, or one that calls it, opens the model by a function of the file that says `eval()`."""
    function = code.function(call)
    leading = leading_to(function, code, 3) if function is not None else []
    scopes: list[ast.AST] = [*leading, code.tree] if function is None or _is_run_by_file(leading, code) else [*leading]
    for scope in scopes:
        for own in own_calls(scope):
            helper = code.function_run(own)
            if helper is not None and helper is not scope and any(_says_eval(c) for c in own_calls(helper)):
                return True
    return False


def _is_run_by_file(functions: list[Function], code: Code) -> bool:
    return any(code.function(c) is None for f in functions for c in code.callers(f))


def _says_eval(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr == "eval"


def _is_in_eval_mode(call: ast.Call, code: Code) -> bool:
    """True for models that come in eval mode, and for those without a layer that cares."""
    kind = code.runs_model(call)
    if kind is None:
        return True
    made = kind.made or _made_elsewhere(call, code)
    name = code.qualified(made.func) if made is not None else ""
    if name.endswith(("from_pretrained", "jit.load")) or (not made and not kind.local):
        return name != "" or code.mentions("from_pretrained", "jit.load")
    if kind.local is not None:
        whole = all(code.qualified(b) == "torch.nn.Module" for b in kind.local.bases)
        words = code.source(kind.local)
        outside = any(_is_unknown(c, code) for c in ast.walk(kind.local) if isinstance(c, ast.Call))
        return whole and not outside and not _cares(words)
    if name == "torch.nn.Sequential" and made is not None:
        outside = any(_is_unknown(c, code) for c in ast.walk(made) if isinstance(c, ast.Call))
        return not outside and not _cares(code.source(made))
    return False


def _made_elsewhere(run: ast.AST, code: Code) -> ast.Call | None:
    """What every caller hands a function as its model, where a function of this file made it: ``score(build(), x)``."""
    function, model = code.function(run), run.func if isinstance(run, ast.Call) else None
    if function is None or not isinstance(model, ast.Name):
        return None
    names = [a.arg for a in function.args.args]
    if model.id not in names:
        return None
    place, found = names.index(model.id), None
    for call in code.callers(function):
        given = value_of(argument(call, place, model.id), code)
        helper = code.function_run(given) if isinstance(given, ast.Call) else None
        returned = [value_of(r, code) for r in code.definitions.returns(helper)] if helper is not None else []
        if len(returned) != 1 or not isinstance(returned[0], ast.Call) or found not in (None, returned[0]):
            return None
        found = returned[0]
    return found


def _is_unknown(call: ast.Call, code: Code) -> bool:
    """True for a part built from elsewhere: a class of this or another file, a whole backbone."""
    name = code.qualified(call.func)
    if name.endswith(".from_pretrained"):
        return False  # it comes in eval mode, and stays so inside a module that is in training mode
    if name.startswith(("torchvision.", "timm.", "transformers.", "torch.hub")):
        return True
    target = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return target[:1].isupper() and not name.startswith("torch.")


def _stands_alone(call: ast.Call, code: Code) -> bool:
    """Elsewhere in the file something is put in eval mode: only a function that loads its own weights, or whose
    callers are seen, surely goes without."""
    function = code.function(call)
    return function is not None and (loads_own(function, code) or bool(code.callers(function)))


def _edit(call: ast.Call, code: Code) -> tuple[Edit, ...]:
    """`model.eval()` after the model's weights are loaded, or after it is made, in the same function."""
    model = call.func
    if not isinstance(model, ast.Name):
        return ()
    scope, bindings = code.names.find(model.id, model)
    if scope is None or len(bindings) != 1 or not isinstance(bindings[0].node, ast.Assign):
        return ()
    made = bindings[0].node
    for other in own_calls(code.function(made) or code.tree):
        if isinstance(other.func, ast.Attribute) and other.func.attr in ("load_state_dict", "to", "cuda"):
            statement = code.statement(other)
            if isinstance(statement, ast.Expr) and code.names.dotted(other.func.value) == model.id:
                made = statement  # type: ignore[assignment]
    return (Edit("after", made, f"{model.id}.eval()"),)


RULE = Rule(
    code="H201",
    name="no-eval",
    on=(ast.Module, ast.FunctionDef, ast.AsyncFunctionDef),
    words=("torch",),
    remedy="Call model.eval() once, after the weights are loaded.",
    check=check,
)
