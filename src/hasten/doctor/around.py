"""What stands around a line of a file: its statement, function, class, and the loops that repeat it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from hasten.doctor.names import Function, Names

__all__ = ["FUNCTIONS", "Around", "Loop"]

Loop = ast.For | ast.AsyncFor | ast.While | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
_LOOPS = (ast.For, ast.AsyncFor, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_SHORT = 3  # a range or literal of so few rounds is no hot loop
_SHORT_LITERAL = 8
_SELDOM = 50  # every so many rounds is no longer each round
_SELDOM_NAMES = ("interval", "every", "freq", "period")


class Around:
    """The surroundings of every node of one file."""

    def __init__(self, names: Names) -> None:
        self.names = names

    def parent(self, node: ast.AST) -> ast.AST | None:
        """The node that holds this one."""
        return self.names.parents.get(node)

    def ancestors(self, node: ast.AST) -> Iterator[ast.AST]:
        """Parents, from the nearest outwards."""
        at = self.names.parents.get(node)
        while at is not None:
            yield at
            at = self.names.parents.get(at)

    def statement(self, node: ast.AST) -> ast.stmt:
        """The statement that a node is part of."""
        while not isinstance(node, ast.stmt):
            node = self.names.parents[node]
        return node

    def block(self, statement: ast.stmt) -> list[ast.stmt]:
        """The list of statements that holds this one."""
        parent = self.names.parents[statement]
        for _, value in ast.iter_fields(parent):
            if isinstance(value, list) and any(v is statement for v in value):
                return value
        return [statement]

    def function(self, node: ast.AST) -> Function | None:
        """The ``def`` around a node."""
        return next((a for a in self.ancestors(node) if isinstance(a, FUNCTIONS)), None)

    def klass(self, node: ast.AST) -> ast.ClassDef | None:
        """The class around a node."""
        return next((a for a in self.ancestors(node) if isinstance(a, ast.ClassDef)), None)

    def loops(self, node: ast.AST) -> Iterator[Loop]:
        """The loops that repeat ``node`` in its own function, nearest first."""
        child, at = node, self.names.parents.get(node)
        while at is not None and not isinstance(at, (*FUNCTIONS, ast.Lambda, ast.ClassDef)):
            if isinstance(at, _LOOPS) and _repeats(at, child):
                yield at
            if not isinstance(at, ast.comprehension) or not _is_first_iter(at, child, self.names):
                child = at
            at = self.names.parents.get(at)

    def loop(self, node: ast.AST) -> Loop | None:
        """The nearest loop that repeats ``node`` more than a few times, in the same function."""
        repeating = (loop for loop in self.loops(node) if not self.is_short(loop))
        return next((loop for loop in repeating if not self._is_seldom(node, loop)), None)

    def _is_seldom(self, node: ast.AST, loop: ast.AST) -> bool:
        """True beneath ``if step % 1000 == 0`` and ``if step % log_interval == 0`` in the loop."""
        for at in self.ancestors(node):
            if at is loop:
                return False
            if isinstance(at, ast.If) and any(_is_seldom_test(n, self.names) for n in ast.walk(at.test)):
                return True
        return False

    def is_short(self, loop: ast.AST) -> bool:
        """True for a loop whose few rounds are written out: a literal, ``range(3)``, a dict of splits."""
        if isinstance(loop, ast.While):
            return False
        iterable = loop.iter if isinstance(loop, (ast.For, ast.AsyncFor)) else loop.generators[0].iter  # type: ignore[attr-defined]
        if isinstance(iterable, ast.Call):
            name = self.names.dotted(iterable.func)
            if name == "range" and len(iterable.args) == 1 and isinstance(iterable.args[0], ast.Constant):
                value = iterable.args[0].value
                return isinstance(value, int) and value <= _SHORT
            if isinstance(iterable.func, ast.Attribute) and iterable.func.attr in ("items", "values", "keys"):
                iterable = iterable.func.value
            elif name in ("enumerate", "zip") and iterable.args:
                iterable = iterable.args[0]
        if isinstance(iterable, ast.Name):
            return self._is_few_numbers(iterable)
        if isinstance(iterable, ast.Dict):
            return len(iterable.keys) <= _SHORT_LITERAL
        return isinstance(iterable, (ast.Tuple, ast.List, ast.Set)) and len(iterable.elts) <= _SHORT_LITERAL

    def _is_few_numbers(self, name: ast.Name) -> bool:
        """True for a name that only ever holds a few numbers written out: the axes of an array."""
        bindings = self.names.find(name.id, name)[1]
        values = [b.value for b in bindings if b.role == "value" and not b.path]
        arms = [a for v in values for a in ((v.body, v.orelse) if isinstance(v, ast.IfExp) else (v,))]
        return bool(arms) and len(values) == len(bindings) and all(_holds_few_numbers(a) for a in arms)


def _holds_few_numbers(node: ast.expr | None) -> bool:
    if not isinstance(node, (ast.Tuple, ast.List)) or not 0 < len(node.elts) <= _SHORT_LITERAL:
        return False
    return all(isinstance(e, ast.Constant) and isinstance(e.value, int) for e in node.elts)


def _is_seldom_test(node: ast.AST, names: Names) -> bool:
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Mod):
        return False
    if isinstance(node.right, ast.Constant):
        return isinstance(node.right.value, int) and node.right.value >= _SELDOM
    written = names.dotted(node.right).rsplit(".", 1)[-1].lower()
    return any(word in written for word in _SELDOM_NAMES)


def _repeats(loop: ast.AST, child: ast.AST) -> bool:
    if isinstance(loop, (ast.For, ast.AsyncFor, ast.While)) and _ends_at_once(loop, child):
        return False
    if isinstance(loop, (ast.For, ast.AsyncFor)):
        return any(child is s for s in loop.body)
    if isinstance(loop, ast.While):
        return child is loop.test or any(child is s for s in loop.body)
    generators: list[ast.comprehension] = loop.generators  # type: ignore[attr-defined]
    return child is not generators[0].iter


def _ends_at_once(loop: ast.For | ast.AsyncFor | ast.While, child: ast.AST) -> bool:
    """True where the round that reaches a line is the last: it ends with `break`, and nothing from there skips that."""
    leaves = isinstance(loop.body[-1], (ast.Break, ast.Return))
    place = next((i for i, s in enumerate(loop.body) if s is child), 0)
    return leaves and not any(isinstance(n, ast.Continue) for s in loop.body[place:] for n in ast.walk(s))


def _is_first_iter(at: ast.comprehension, child: ast.AST, names: Names) -> bool:
    owner = names.parents.get(at)
    return child is at.iter and getattr(owner, "generators", [None])[0] is at
