"""``Kind``: what an expression is known to be; and when several roads to a name agree on it."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Kind", "agree", "is_nothing"]


@dataclass(frozen=True)
class Kind:
    """What a thing is, and the local class it is an instance of where there is one."""

    name: str
    made: ast.Call | None = None
    """The call that made it, where that was seen."""
    local: ast.ClassDef | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Kind) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


def agree(kinds: Sequence[Kind | None]) -> Kind | None:
    """The one kind all have; None where one is unknown or two differ."""
    if not kinds or any(k is None or k != kinds[0] for k in kinds):
        return None
    return next((k for k in kinds if k is not None and (k.local or k.made)), kinds[0])


def is_nothing(node: ast.AST | None) -> bool:
    """True for no expression, and for ``None`` itself."""
    return node is None or (isinstance(node, ast.Constant) and node.value is None)
