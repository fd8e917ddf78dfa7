"""What the file says of its `tf.function`s: which one a call runs, and how it was made. Shared by the graph rules."""

from __future__ import annotations

import ast

from hasten.doctor import makers
from hasten.doctor.code import Code
from hasten.doctor.names import Function
from hasten.doctor.rule import keyword

__all__ = ["bends_to_shapes", "definition", "is_fixed", "traced_call"]


def traced_call(call: ast.Call, code: Code) -> bool:
    """True when a call runs a function made by `tf.function`."""
    return code.is_a(call.func, makers.TF_FUNCTION) or definition(call, code) is not None


def definition(call: ast.Call, code: Code) -> Function | None:
    """The decorated function of this file that a call runs."""
    function = code.function_run(call)
    if function is None:  # `model(x)`, of a class with a decorated `__call__`
        kind = code.kind(call.func)
        function = (
            code.definitions.method(kind.local, "__call__") if kind is not None and kind.local is not None else None
        )
    return function if function is not None and _decorator(function, code) is not None else None


def is_fixed(call: ast.Call, code: Code) -> bool:
    """True when the function was given an `input_signature`: it never traces again."""
    return _option(call, code, "input_signature") is not None


def bends_to_shapes(call: ast.Call, code: Code) -> bool:
    """True when new shapes cost no new trace: a signature, or `reduce_retracing`."""
    relaxed = _option(call, code, "reduce_retracing") or _option(call, code, "experimental_relax_shapes")
    return is_fixed(call, code) or getattr(relaxed, "value", relaxed) not in (None, False)


def _option(call: ast.Call, code: Code, name: str) -> ast.expr | None:
    function = definition(call, code)
    if function is not None:
        decorator = _decorator(function, code)
        return keyword(decorator, name) if isinstance(decorator, ast.Call) else None
    kind = code.kind(call.func)
    return keyword(kind.made, name) if kind is not None and kind.made is not None else None


def _decorator(function: Function, code: Code) -> ast.expr | None:
    for decorator in function.decorator_list:
        target = decorator.func if isinstance(decorator, ast.Call) else decorator
        if code.qualified(target) == "tensorflow.function":
            return decorator
    return None
