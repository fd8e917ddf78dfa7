"""Which arrays are tables, one row beneath the other, and which expressions are a row of one."""

from __future__ import annotations

import ast

from hasten.doctor.code import Code
from hasten.doctor.flow import reaching
from hasten.doctor.names import Binding
from hasten.doctor.rule import argument
from hasten.doctor.words import words

__all__ = ["is_row"]

_DEPTH = 12  # assignments and calls followed before giving up
_SAME_RANK = words(
    "tensor as_tensor from_numpy FloatTensor Tensor array asarray ascontiguousarray float32 float astype to cuda cpu "
    "float half double type contiguous copy clone detach numpy fillna to_numpy"
)
_SHAPED = words("rand randn zeros ones empty full standard_normal")
_TEXTS = words("numpy.loadtxt numpy.genfromtxt")
_THROUGH = ("tqdm", "enumerate", "zip", "list")


def is_row(node: ast.expr, code: Code) -> bool:
    """True for the element of a loop over a table, and for ``X[i]`` of one: a row alone, perhaps converted."""
    node = _unconverted(node, code)
    if _is_of_record(node, code):
        return True
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Name) and _is_table(node.value, code)
    bindings = _reaching(node, code) if isinstance(node, ast.Name) else []
    if len(bindings) != 1:
        return False
    value, path = bindings[0].value, bindings[0].path
    if bindings[0].role == "value" and value is not None and not path:  # `x = torch.from_numpy(row)`
        return not isinstance(value, ast.Name) and is_row(value, code)
    if bindings[0].role != "element":
        return False
    while isinstance(value, ast.Call) and (name := _last(value.func)) in _THROUGH and value.args:
        place = path[0] if path and name == "zip" else 0
        path = path[1:] if name in ("zip", "enumerate") else path
        value = value.args[place] if place < len(value.args) else None
    return value is not None and not path and _is_table(value, code)


def _is_of_record(node: ast.expr, code: Code) -> bool:
    """True for `row[1:]`, `row.values` and `[row.a, row.b]`, the row of pandas' `itertuples` or `iterrows`."""
    if not code.imports("pandas"):
        return False
    if isinstance(node, (ast.List, ast.Tuple)):
        fields = [e.value for e in node.elts if isinstance(e, (ast.Attribute, ast.Subscript))]
        return len(fields) == len(node.elts) > 0 and all(_is_record(f, code) for f in fields)
    cut = isinstance(node, ast.Subscript) and isinstance(node.slice, (ast.Slice, ast.List))
    if cut or (isinstance(node, ast.Attribute) and node.attr == "values"):
        node = node.value  # type: ignore[attr-defined]
    return _is_record(node, code)


def _is_record(node: ast.expr, code: Code) -> bool:
    bindings = _reaching(node, code) if isinstance(node, ast.Name) else []
    made = bindings[0].value if len(bindings) == 1 and bindings[0].role == "element" else None
    asked = _last(made.func) if isinstance(made, ast.Call) else ""
    path = bindings[0].path if bindings else ()
    return (asked, path) in (("itertuples", ()), ("iterrows", (1,)))


def _unconverted(node: ast.expr, code: Code) -> ast.expr:
    """The ``row`` of ``torch.from_numpy(row).float()``."""
    while isinstance(node, ast.Call) and _last(node.func) in _SAME_RANK:
        inner = _given(node, code)
        if inner is None:
            break
        node = inner
    return node


def _given(call: ast.Call, code: Code) -> ast.expr | None:
    """What a conversion converts: the first argument of a library's function, the object of a method."""
    if code.qualified(call.func):
        return call.args[0] if call.args else None
    return call.func.value if isinstance(call.func, ast.Attribute) else None


def _is_table(node: ast.expr | None, code: Code, depth: int = _DEPTH) -> bool:
    """True for an array of two dimensions at most, by what makes it: of a table's values, or of a written shape."""
    if node is None or not depth:
        return False
    if isinstance(node, ast.Name):
        held = _reaching(node, code)
        return bool(held) and all(_holds_table(b, code, depth - 1) for b in held)
    if isinstance(node, ast.Subscript):  # `X[:100]`, `X[:, 1:]`
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        return all(isinstance(p, ast.Slice) for p in parts) and _is_table(node.value, code, depth - 1)
    if isinstance(node, ast.Attribute):
        return node.attr == "values" and _has_tables_alone(code)
    return isinstance(node, ast.Call) and _gives_table(node, code, depth)


def _gives_table(node: ast.Call, code: Code, depth: int) -> bool:
    name, last = code.qualified(node.func), _last(node.func)
    if name in _TEXTS or (last == "to_numpy" and _has_tables_alone(code)):
        return True
    if last in ("fit_transform", "transform") and code.imports("sklearn") and not name:
        return len(node.args) == 1 and _is_table(node.args[0], code, depth - 1)
    if last in ("reshape", "view") and not name:
        return len(node.args) == 2
    if last in _SHAPED and name.startswith(("torch.", "numpy.")):
        return _dimensions(node) == 2
    return last in _SAME_RANK and _is_table(_given(node, code), code, depth - 1)


def _dimensions(made: ast.Call) -> int | None:
    """How many dimensions the shape that is written in a call has."""
    shape = argument(made, 0, "size") or argument(made, 0, "shape")
    if isinstance(shape, (ast.Tuple, ast.List)):
        return len(shape.elts)
    given = [a for a in made.args if not isinstance(a, ast.Starred)]
    return len(given) if len(given) == len(made.args) and _last(made.func) != "full" else None


def _holds_table(binding: Binding, code: Code, depth: int) -> bool:
    if binding.role != "value" or binding.value is None:
        return False
    if not binding.path:
        return _is_table(binding.value, code, depth)
    split = binding.value if isinstance(binding.value, ast.Call) else None
    if split is None or code.qualified(split.func) != "sklearn.model_selection.train_test_split":
        return False
    place = binding.path[0] // 2  # two parts of each argument
    return place < len(split.args) and _is_table(split.args[place], code, depth)


def _reaching(node: ast.Name, code: Code) -> list[Binding]:
    scope, bindings = code.names.find(node.id, node)
    same = scope is not None and code.function(node) is code.function(bindings[0].node) if bindings else False
    return reaching(node, bindings, code.names) if same else bindings


def _has_tables_alone(code: Code) -> bool:
    """True where `values` and `to_numpy` are those of pandas or polars, which know tables and columns alone."""
    return code.imports("pandas", "polars") and not code.imports("xarray")


def _last(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
