"""Where a script answers once: a line that no loop repeats, on the one file that the script itself reads."""

from __future__ import annotations

import ast

from hasten.doctor.code import Code
from hasten.doctor.names import Binding
from hasten.doctor.words import words

__all__ = ["answers_one_file"]

_READERS = words("load_img imread open read_image load_image loadtxt input fromfile decode_image read_file get_file")


def answers_one_file(node: ast.AST, data: ast.expr | None, code: Code) -> bool:
    """True where a line runs once in its script, on what comes of one file: the script's own time is loading."""
    if code.imports("streamlit"):
        return False  # it runs the script again at each click
    return data is not None and _runs_once(node, code) and _comes_of_file(data, code)


def _runs_once(node: ast.AST, code: Code, depth: int = 3) -> bool:
    """True for a line of the module that no loop repeats, and in a function that only one such line calls."""
    function = code.function(node)
    if any(True for _ in code.loops(node)) or code.klass(node) is not None:
        return False
    if function is None:
        return True
    calls = code.callers(function)
    if code.handler(function) is not None or len(calls) != 1 or not depth:
        return False
    return _runs_once(calls[0], code, depth - 1)


def _comes_of_file(data: ast.expr, code: Code) -> bool:
    """True where the data, by way of the names in it, is read from a file that no loop names."""
    seen: set[object] = set()
    waiting: list[ast.AST] = [data]
    while waiting:
        for inner in ast.walk(waiting.pop()):
            if isinstance(inner, ast.Call) and _reads(inner) and code.loop(inner) is None:
                return True
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Load):
                scope, bindings = code.names.find(inner.id, inner)
                if (scope, inner.id) not in seen:
                    seen.add((scope, inner.id))
                    waiting += [v for b in bindings for v in _values(b, inner, code)]
    return False


def _values(binding: Binding, name: ast.Name, code: Code) -> list[ast.expr]:
    """What a name is given: the assigned value, or what the callers of its function pass for it."""
    function = code.function(name)
    if binding.role == "parameter" and function is not None:
        return code.kinds.calls.arguments(function, name.id)
    return [binding.value] if binding.role in ("value", "other") and binding.value is not None else []


def _reads(call: ast.Call) -> bool:
    return (call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")) in _READERS
