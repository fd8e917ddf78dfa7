"""Where an old name is used on purpose: beside the new one, for users of older libraries."""

from __future__ import annotations

import ast

from hasten.doctor.code import Code

__all__ = ["is_fallback"]


def is_fallback(node: ast.AST, code: Code) -> bool:
    """True in an `except ImportError`, or beneath a test of versions or of what a module has."""
    for around in code.ancestors(node):
        if isinstance(around, ast.ExceptHandler):
            return True
        if isinstance(around, ast.Try) and any(_catches_import(h) for h in around.handlers):
            return True
        if isinstance(around, (ast.If, ast.IfExp)):
            text = ast.unparse(around.test).lower()
            if any(
                word in text for word in ("version", "hasattr", "torch_", "_available", "is_torch", "older", "newer")
            ):
                return True
    return any(_has_returned(s) for s in _before(node, code))


def _before(node: ast.AST, code: Code) -> list[ast.stmt]:
    """The statements that stand before a node's own, in the same block."""
    statement = code.statement(node)
    block = code.block(statement)
    return block[: block.index(statement)]


def _has_returned(statement: ast.stmt) -> bool:
    """True for `if hasattr(torch.amp, …): return …`: what follows is for those who lack it."""
    if not isinstance(statement, ast.If) or not isinstance(statement.body[-1], ast.Return):
        return False
    return "hasattr" in ast.unparse(statement.test)


def _catches_import(handler: ast.ExceptHandler) -> bool:
    names = (
        {n.id for n in ast.walk(handler.type) if isinstance(n, ast.Name)} if handler.type is not None else {"Exception"}
    )
    return bool(names & {"ImportError", "ModuleNotFoundError", "AttributeError"})
