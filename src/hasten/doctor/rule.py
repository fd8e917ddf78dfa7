"""What a rule is: its code, when to ask it, and the question itself.

A rule's file holds its documentation as the module docstring, in ruff's form (What it does, Why is this bad, Cost,
Example, Use instead, Fix safety); the docs pages and ``hasten doctor --explain`` are made from it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hasten.doctor.code import Code

__all__ = ["Edit", "Fix", "Hit", "Rule", "argument", "hit", "keyword"]


@dataclass(frozen=True)
class Edit:
    """One change to the text, at a node of the tree.

    ``how`` is one of: ``replace`` (the expression, by ``source``), ``argument`` (set a call's keyword ``name`` to
    ``source``; None removes it), ``before`` and ``after`` (a new statement), ``move`` (the statement to just before
    ``target``), ``decorate`` (a function), ``statement`` (replace a simple statement).
    """

    how: str
    node: ast.AST
    source: str | None = None
    name: str = ""
    target: ast.AST | None = None


@dataclass(frozen=True)
class Fix:
    """Edits that belong together. ``safe``: same results, whatever else the program does."""

    edits: tuple[Edit, ...]
    safe: bool


@dataclass(frozen=True)
class Hit:
    """One place where a rule fires; ``fix`` where it can be rewritten, ``remedy`` where it is not the rule's own."""

    node: ast.AST
    message: str
    fix: Fix | None = None
    remedy: str = ""


Check = Callable[[ast.AST, Code], Iterable[Hit]]


@dataclass(frozen=True)
class Rule:
    """One slow habit and how to see it.

    ``words``: the text must hold one of them, else the rule is not asked (no finding may be lost by it).
    ``on``: the node types that ``check`` is called with. ``tests``: whether it also looks at test files.
    """

    code: str
    name: str
    on: tuple[type[ast.AST], ...]
    words: tuple[str, ...]
    remedy: str
    check: Check
    tests: bool = False
    doc: str = ""


def hit(node: ast.AST, message: str, *edits: Edit, safe: bool = False, remedy: str = "") -> Hit:
    """A hit, with a fix where edits are given."""
    return Hit(node, message, Fix(edits, safe) if edits else None, remedy)


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    """The value of a keyword argument."""
    return next((k.value for k in call.keywords if k.arg == name), None)


def argument(call: ast.Call, index: int, name: str) -> ast.expr | None:
    """An argument given by place or by name."""
    if index < len(call.args) and not any(isinstance(a, ast.Starred) for a in call.args[: index + 1]):
        return call.args[index]
    return keyword(call, name)
