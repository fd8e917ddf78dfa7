"""What an annotation says of a name: ``tf.keras.Model``, ``Optional[nn.Module]``, ``"nn.Module"``, a local class."""

from __future__ import annotations

import ast

from hasten.doctor import makers
from hasten.doctor.definitions import Definitions
from hasten.doctor.kind import Kind, agree, is_nothing
from hasten.doctor.names import Names

__all__ = ["annotated"]

_SAME = ("Optional", "Annotated", "Final", "ClassVar")


def annotated(annotation: ast.expr | None, names: Names, definitions: Definitions) -> Kind | None:
    """The kind that an annotation declares; None where it says nothing of use."""
    if annotation is None:
        return None
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        parsed = _parsed(annotation, names)
        return annotated(parsed, names, definitions) if parsed is not None else None
    if isinstance(annotation, ast.Subscript):
        return _subscripted(annotation, names, definitions)
    if isinstance(annotation, ast.BinOp):
        sides = [s for s in (annotation.left, annotation.right) if not is_nothing(s)]
        return agree([annotated(s, names, definitions) for s in sides])
    name = names.qualified(annotation)
    made = makers.ANNOTATIONS.get(name) or makers.made_by_class(name)
    if made:
        return Kind(made)
    local = definitions.class_named(annotation)
    return Kind(definitions.class_kind(local), None, local) if local is not None else None


def _parsed(annotation: ast.Constant, names: Names) -> ast.expr | None:
    """The expression in quotes, placed in the scope of the annotation."""
    try:
        parsed = ast.parse(str(annotation.value), mode="eval").body
    except (SyntaxError, ValueError):
        return None
    for inner in ast.walk(parsed):
        names.scopes[inner] = names.scope_of(annotation)
    return parsed


def _subscripted(annotation: ast.Subscript, names: Names, definitions: Definitions) -> Kind | None:
    outer = names.dotted(annotation.value).rsplit(".", 1)[-1]
    inner = annotation.slice
    if outer == "Annotated" and isinstance(inner, ast.Tuple) and inner.elts:
        inner = inner.elts[0]
    if outer == "Union" and isinstance(inner, ast.Tuple):
        return agree([annotated(e, names, definitions) for e in inner.elts if not is_nothing(e)])
    return annotated(inner, names, definitions) if outer in _SAME else None
