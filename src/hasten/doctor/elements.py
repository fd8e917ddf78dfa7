"""What a loop's target or an item is: from the list, dictionary, tensor or loader that is looped over."""

from __future__ import annotations

import ast
from collections.abc import Callable

from hasten.doctor import makers
from hasten.doctor.calls import Calls
from hasten.doctor.kind import Kind, agree
from hasten.doctor.names import Binding, Names

__all__ = ["Elements"]

_THROUGH = ("tqdm", "trange", "list", "iter", "reversed", "sorted", "track", "islice", "tuple")
_Of = Callable[[ast.AST | None], Kind | None]


class Elements:
    """The kinds of what collections hold. ``of``: the kind of an expression."""

    def __init__(self, names: Names, calls: Calls, of: _Of) -> None:
        self.names = names
        self.calls = calls
        self._of = of

    def target(self, iterable: ast.expr | None, path: tuple[int, ...]) -> Kind | None:
        """What a loop target is (the part of it at ``path``), from what is looped over."""
        while isinstance(iterable, ast.Call):
            name = self.names.dotted(iterable.func)
            called = name.rsplit(".", 1)[-1]
            if self.names.qualified(iterable.func) == "tensorflow.range":
                break  # rounds of tensors
            if name == "range" or called == "trange":
                return Kind(makers.NUMBER)
            if called == "enumerate" and path and iterable.args:
                if path[0] == 0:
                    return Kind(makers.NUMBER)
                path = path[1:]
            elif called == "zip" and path and path[0] < len(iterable.args):
                iterable, path = iterable.args[path[0]], path[1:]
                continue
            elif isinstance(iterable.func, ast.Attribute) and called in ("items", "values") and not iterable.args:
                if called == "items" and path[:1] != (1,):
                    return None
                return self.held(iterable.func.value) if len(path) == (called == "items") else None
            elif called not in _THROUGH or not iterable.args:
                break
            iterable = iterable.args[0]
        return self._one_of(iterable, path)

    def _one_of(self, iterable: ast.expr | None, path: tuple[int, ...]) -> Kind | None:
        kind = self._of(iterable)
        if kind is None:
            is_dict = isinstance(self._written(iterable), (ast.Dict, ast.DictComp))
            return None if path or is_dict else self.held(iterable)
        element = makers.ELEMENTS.get(kind.name)
        return Kind(element) if element and not (element == makers.NUMPY and path) else None

    def held(self, collection: ast.expr | None) -> Kind | None:
        """What a list, tuple or dictionary written in this file holds, where all of it is of one kind."""
        value = self._written(collection)
        if isinstance(value, (ast.List, ast.Tuple, ast.Set)) and value.elts:
            return agree([self._of(e) for e in value.elts])
        if isinstance(value, ast.Dict) and value.values:
            return agree([self._of(v) for v in value.values])
        if isinstance(value, (ast.ListComp, ast.SetComp, ast.GeneratorExp)):
            return self._of(value.elt)
        if isinstance(value, ast.DictComp):
            return self._of(value.value)
        if isinstance(value, ast.List) and isinstance(collection, (ast.Name, ast.Attribute)):
            return self._appended(collection)
        return None

    def _appended(self, collection: ast.Name | ast.Attribute) -> Kind | None:
        """What is appended to a list that starts empty."""
        written = self.names.dotted(collection)
        given = [
            call.args[0]
            for call in self.calls.by_last_name.get("append", [])
            if isinstance(call.func, ast.Attribute) and len(call.args) == 1
            and self.names.dotted(call.func.value) == written and self.names.same_root(call.func.value, collection)
        ]  # fmt: skip
        return agree([self._of(g) for g in given])

    def _written(self, collection: ast.expr | None) -> ast.expr | None:
        """The display or comprehension behind a name that is bound once."""
        bindings: list[Binding] = []
        if isinstance(collection, ast.Name):
            bindings = self.names.find(collection.id, collection)[1]
        elif isinstance(collection, ast.Attribute):
            owner = self.names.class_of_self(collection.value)
            bindings = self.names.attributes.get(owner, {}).get(collection.attr, []) if owner is not None else []
        else:
            return collection
        only = bindings[0] if len(bindings) == 1 else None
        return only.value if only is not None and only.role == "value" and not only.path else None
