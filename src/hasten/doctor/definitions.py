"""The functions and classes that a file defines itself: which one a name means, what it inherits, what it returns.

``Names`` enters. Next: ``kinds`` asks what a call of one of them gives, ``calls`` who calls it.
"""

from __future__ import annotations

import ast

from hasten.doctor import makers
from hasten.doctor.names import SCOPES, Function, Names

__all__ = ["Definitions"]

_BASES = 4  # classes followed upwards before giving up


class Definitions:
    """The local functions and classes of one file."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self._kinds: dict[ast.ClassDef, str] = {}

    def class_named(self, node: ast.AST) -> ast.ClassDef | None:
        """The class of this file that a name refers to."""
        if not isinstance(node, ast.Name):
            return None
        _, bindings = self.names.find(node.id, node)
        if len(bindings) == 1 and isinstance(bindings[0].node, ast.ClassDef):
            return bindings[0].node
        return None

    def class_kind(self, node: ast.ClassDef) -> str:
        """What instances of a local class are: the kind of its bases, else ``object``."""
        if node not in self._kinds:
            self._kinds[node] = makers.OBJECT
            for base in node.bases:
                local = self.class_named(base)
                name = self.class_kind(local) if local is not None else makers.base_kind(self.names.qualified(base))
                if name and name != makers.OBJECT:
                    self._kinds[node] = name
                    break
        return self._kinds[node]

    def function_named(self, node: ast.AST) -> Function | None:
        """The function of this file that a name refers to."""
        if not isinstance(node, ast.Name):
            return None
        _, bindings = self.names.find(node.id, node)
        found = bindings[0].node if len(bindings) == 1 else None
        return found if isinstance(found, (ast.FunctionDef, ast.AsyncFunctionDef)) else None

    def method(self, owner: ast.ClassDef, name: str, depth: int = 0) -> Function | None:
        """The method of that name, of the class or a base in this file."""
        for item in owner.body:
            if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)) and item.name == name:
                return item
        for base in owner.bases if depth < _BASES else ():
            local = self.class_named(base)
            found = self.method(local, name, depth + 1) if local is not None else None
            if found is not None:
                return found
        return None

    def returns(self, function: Function) -> list[ast.expr | None]:
        """What each ``return`` of a function gives, nested functions aside."""
        found: list[ast.expr | None] = []
        stack: list[ast.AST] = list(function.body)
        while stack:
            node = stack.pop()
            if isinstance(node, ast.Return):
                found.append(node.value)
            elif not isinstance(node, SCOPES):
                stack.extend(ast.iter_child_nodes(node))
        return found
