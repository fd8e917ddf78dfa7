"""Who calls whom within one file, and with what: the way from a function to the lines that run it, and back."""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import cached_property

from hasten.doctor.definitions import Definitions
from hasten.doctor.names import Function, Names

__all__ = ["Calls"]


class Calls:
    """The calls of one file that run its own functions. ``owner``: the local class whose instance an expression is."""

    def __init__(self, names: Names, definitions: Definitions, owner: Callable[[ast.AST], ast.ClassDef | None]) -> None:
        self.names = names
        self.definitions = definitions
        self._owner = owner

    @cached_property
    def by_last_name(self) -> dict[str, list[ast.Call]]:
        """Every call by its last name: ``x.eval()`` under ``eval``."""
        found: dict[str, list[ast.Call]] = {}
        for node in self.names.nodes:
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                found.setdefault(name, []).append(node)
        return found

    def function_of(self, node: ast.Call) -> Function | None:
        """The function or method of this file that a call runs."""
        if isinstance(node.func, ast.Name):
            return self.definitions.function_named(node.func)
        if isinstance(node.func, ast.Attribute):
            owner = self._owner(node.func.value)
            return self.definitions.method(owner, node.func.attr) if owner is not None else None
        return None

    def callers(self, function: Function) -> list[ast.Call]:
        """The calls of this file that run ``function``."""
        owner = self.names.parents.get(function)
        if function.name == "__init__" and isinstance(owner, ast.ClassDef):
            built = self.by_last_name.get(owner.name, [])
            own = self.by_last_name.get("cls", [])  # `return cls(net)`, of its class methods
            made = [c for c in own if isinstance(c.func, ast.Name) and self.names.class_of_self(c.func) is owner]
            return [*(c for c in built if self.definitions.class_named(c.func) is owner), *made]
        return [c for c in self.by_last_name.get(function.name, []) if self.function_of(c) is function]

    def arguments(self, function: Function, name: str) -> list[ast.expr]:
        """What the file's own calls pass for one parameter."""
        positional = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
        bound = isinstance(self.names.parents.get(function), ast.ClassDef) and not any(
            self.names.dotted(d) == "staticmethod" for d in function.decorator_list
        )
        passed: list[ast.expr] = []
        for call in self.callers(function):
            value = next((k.value for k in call.keywords if k.arg == name), None)
            if value is None and name in positional:
                index = positional.index(name) - bound
                starred = any(isinstance(a, ast.Starred) for a in call.args[: index + 1])
                value = call.args[index] if 0 <= index < len(call.args) and not starred else None
            if value is not None:
                passed.append(value)
        return passed
