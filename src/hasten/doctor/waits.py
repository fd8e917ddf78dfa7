"""Whether lines between two readings of a clock may wait for the device, by what they do with a model's answer."""

from __future__ import annotations

import ast

from hasten.doctor.code import Code
from hasten.doctor.words import words

__all__ = ["may_wait"]

# What a tensor's methods leave on the device.
_LAZY = words(
    "abs add argmax argmin argsort chunk clamp clip clone contiguous cuda detach div exp expand flatten flip float get "
    "half items keys log log_softmax max mean min mul norm permute pow relu repeat reshape round sigmoid softmax sort "
    "split sqrt squeeze std sub sum tanh t to topk transpose type unsqueeze values view"
)
_GATHERS = frozenset(("append", "extend", "insert", "update"))
_HARMLESS = frozenset(("tuple", "list", "dict", "len", "isinstance", "hasattr", "enumerate", "zip", "reversed"))


def may_wait(run: ast.Call, body: tuple[ast.stmt, ...], code: Code) -> bool:
    """True unless all that is done with the answer is in sight, and stays on the device: unknown functions may wait."""
    answers = _answers(run, body, code)
    for inner in (n for s in body for n in ast.walk(s)):
        if isinstance(inner, ast.Call) and inner is not run and _takes(inner, run, answers):
            if not _is_lazy(inner, run, answers, code):
                return True
        elif any(_holds(n, run, answers) for n in _asked(inner)):
            return True
    return False


def _asked(node: ast.AST) -> list[ast.expr]:
    """What a question, or a text, needs the value of."""
    if isinstance(node, (ast.If, ast.While, ast.Assert, ast.IfExp)):
        return [node.test]
    return [node.value] if isinstance(node, ast.FormattedValue) else []


def _answers(run: ast.Call, body: tuple[ast.stmt, ...], code: Code) -> set[str]:
    """The names that hold the answer, or something made of it."""
    names: set[str] = set()
    for _ in range(2):
        for inner in (n for s in body for n in ast.walk(s)):
            if isinstance(inner, ast.Assign) and _holds(inner.value, run, names):
                names.update(n.id for t in inner.targets for n in ast.walk(t) if isinstance(n, ast.Name))
            elif isinstance(inner, (ast.For, ast.comprehension)) and _holds(inner.iter, run, names):
                names.update(n.id for n in ast.walk(inner.target) if isinstance(n, ast.Name))
    return names


def _holds(node: ast.AST, run: ast.Call, names: set[str]) -> bool:
    loaded = (n for n in ast.walk(node) if not isinstance(n, ast.Name) or isinstance(n.ctx, ast.Load))
    return any(n is run or (isinstance(n, ast.Name) and n.id in names) for n in loaded)


def _takes(call: ast.Call, run: ast.Call, names: set[str]) -> bool:
    given = [call.func, *call.args, *(k.value for k in call.keywords)]
    return any(_holds(g, run, names) for g in given)


def _is_lazy(call: ast.Call, run: ast.Call, names: set[str], code: Code) -> bool:
    """True for torch's own functions, another model, and methods that leave a tensor where it is."""
    if code.qualified(call.func).startswith("torch.") or code.runs_model(call) is not None:
        return True
    if isinstance(call.func, ast.Name):
        return call.func.id in _HARMLESS
    if not isinstance(call.func, ast.Attribute):
        return False
    return call.func.attr in (_LAZY if _holds(call.func.value, run, names) else _GATHERS)
