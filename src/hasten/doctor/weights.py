"""Whether the answers of a torch model matter: it has weights from somewhere, or it is asked again and again."""

from __future__ import annotations

import ast
import re

from hasten.doctor.code import Code

__all__ = ["has_weights", "is_given_weights", "is_meant"]

_SAYS_WEIGHTS = re.compile(r"pretrain|weights|checkpoint|ckpt|(^|[._])load|restore|model_path", re.I)
_STORED = re.compile(r"\.(pth?|ckpt|bin|safetensors|pkl|jit|ts)(\.tar)?$")
_LOADS = re.compile("load|restore")
_LOOKS = frozenset(("print", "summary", "type", "id", "len", "isinstance"))


def is_meant(call: ast.Call, code: Code) -> bool:
    """True where the answers matter: the model has weights, or a loop, a handler or a server asks it again and again.

    A network that is made of its configuration alone and asked once is tried, whatever else the file loads.
    """
    kind = code.runs_model(call)
    if kind is None or kind.made is None or code.loop(call) is not None:
        return True
    if code.handler(call) is not None or _names_weights(kind.made, code):
        return True
    if code.klass(call) is not None or code.function(kind.made) is not code.function(call):
        return True  # who calls a method or hands the model over may do so often
    return _is_handed_on(call, kind.made, code)


def has_weights(call: ast.Call, code: Code) -> bool:
    """True where the file shows how the model that is run comes by its weights."""
    kind = code.runs_model(call)
    made = kind.made if kind is not None else None
    return made is not None and (_names_weights(made, code) or _is_handed_on(call, made, code))


def _names_weights(made: ast.Call, code: Code) -> bool:
    """True where what makes the model says where its weights come from: in its name, an argument or a path."""
    for part in ast.walk(made):
        if isinstance(part, ast.keyword) and _SAYS_WEIGHTS.search(part.arg or ""):
            if not (isinstance(part.value, ast.Constant) and part.value.value in (None, False)):
                return True
        elif isinstance(part, ast.Constant) and isinstance(part.value, str) and _STORED.search(part.value):
            return True
    return _SAYS_WEIGHTS.search(code.qualified(made.func) or code.names.dotted(made.func)) is not None


def _is_handed_on(call: ast.Call, made: ast.Call, code: Code) -> bool:
    """True where the model is told to load, or handed to someone who may load it."""
    names = {code.names.dotted(call.func)}
    statement = code.statement(made)
    names |= {code.names.dotted(t) for t in statement.targets} if isinstance(statement, ast.Assign) else set()
    names.discard("")
    here = code.function(call)
    for other in code.calls:
        if code.function(other) is not here:
            continue  # another function's variable of that name
        told = other.func.value if isinstance(other.func, ast.Attribute) else None
        if isinstance(other.func, ast.Attribute) and _LOADS.search(other.func.attr) and told is not None:
            parts = {code.names.dotted(n) for n in ast.walk(told)}  # also of one layer: `net[0].load_state_dict(…)`
            if parts & names:
                return True
        elif any(code.names.dotted(a) in names for a in other.args) and getattr(other.func, "id", "") not in _LOOKS:
            return True
    return False


def is_given_weights(run: ast.Call, code: Code) -> bool:
    """True where weights are read into the very thing that is run: a single layer is then a model of its own."""
    name, owner = code.names.dotted(run.func), code.klass(run)
    read = [
        code.names.dotted(c.func.value)
        for c in code.calls_named("load_state_dict")
        if isinstance(c.func, ast.Attribute) and code.klass(c) is owner
    ]
    return name != "" and name in read
