"""Rewrites a text by the edits of fixes, through libcst, so that comments and layout stay as they are.

Text and fixes enter, the new text leaves. A fix is applied whole or not at all; two that touch the same statement are
not applied in one round, and a result that no longer parses is thrown away.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider

from hasten.doctor.code import parse
from hasten.doctor.read import lines_of
from hasten.doctor.rule import Edit, Fix

__all__ = ["mend"]

_Place = tuple[int, int, int, int]


def mend(text: str, fixes: Sequence[Fix]) -> tuple[str, list[Fix]]:
    """The text with as many fixes applied as do not overlap, and those that were."""
    applied: list[Fix] = []
    touched: list[_Place] = []
    lines = lines_of(text)
    for fix in fixes:
        places = [p for edit in fix.edits for p in _places(edit, lines)]
        if not any(_overlap(p, q) for p in places for q in touched):
            applied.append(fix)
            touched += places
    edits = [edit for fix in applied for edit in fix.edits]
    mended = _rewrite(text, edits) if edits else text
    if mended is None and len(applied) > 1:  # one of them fails: take them one by one, keep those that work
        return _one_by_one(text, applied)
    return (text, []) if mended is None else (mended, applied)


def _one_by_one(text: str, fixes: Sequence[Fix]) -> tuple[str, list[Fix]]:
    for fix in fixes:
        mended = _rewrite(text, fix.edits)
        if mended is not None:
            return mended, [fix]
    return text, []


def _rewrite(text: str, edits: Sequence[Edit]) -> str | None:
    lines = lines_of(text)
    try:
        wrapper = MetadataWrapper(cst.parse_module(text), unsafe_skip_copy=True)
        rewriter = _Rewriter(edits, lines, wrapper.resolve(PositionProvider))
        mended = wrapper.module.visit(rewriter).code
        parse(mended)
    except (cst.ParserSyntaxError, cst.CSTValidationError, SyntaxError, ValueError):
        return None
    except (RecursionError, KeyError):  # nested too deeply for libcst's walk, which may lose a position on its way out
        return None
    return mended if rewriter.done == len(edits) else None


class _Rewriter(cst.CSTTransformer):
    """Applies each edit when the walk leaves the node that stands at its place."""

    def __init__(self, edits: Sequence[Edit], lines: Sequence[str], positions: Mapping[cst.CSTNode, object]) -> None:
        super().__init__()
        self.positions = positions
        self.done = 0
        self.expressions: dict[_Place, list[Edit]] = {}
        self.statements: dict[tuple[int, int], list[Edit]] = {}
        self.removed: set[tuple[int, int]] = set()
        self.moved: dict[tuple[int, int], cst.BaseStatement] = {}
        self.moves: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for edit in edits:
            place = _place(edit.node, lines)
            if edit.how in ("replace", "argument"):
                self.expressions.setdefault(place, []).append(edit)
            elif edit.how == "move":
                assert edit.target is not None
                self.removed.add(place[:2])
                self.moves.setdefault(_place(edit.target, lines)[:2], []).append(place[:2])
            else:
                self.statements.setdefault(place[:2], []).append(edit)

    def on_leave(self, original_node: cst.CSTNode, updated_node: cst.CSTNode) -> cst.CSTNode:  # type: ignore[override]
        """The node, changed where an edit names its place."""
        result = super().on_leave(original_node, updated_node)
        if isinstance(original_node, cst.BaseExpression) and isinstance(result, cst.BaseExpression):
            return self._expression(original_node, result)
        if isinstance(original_node, (cst.SimpleStatementLine, cst.BaseCompoundStatement)):
            return self._statement(original_node, result)  # type: ignore[arg-type]
        return result  # type: ignore[return-value]

    def _where(self, node: cst.CSTNode) -> _Place:
        span = self.positions[node]
        return (span.start.line, span.start.column, span.end.line, span.end.column)  # type: ignore[attr-defined]

    def _expression(self, original: cst.BaseExpression, node: cst.BaseExpression) -> cst.BaseExpression:
        if original not in self.positions or not self.expressions:
            return node
        for edit in self.expressions.pop(self._where(original), ()):
            self.done += 1
            if edit.how == "replace":
                assert edit.source is not None
                fresh = cst.parse_expression(edit.source)
                lpar, rpar = getattr(node, "lpar", ()), getattr(node, "rpar", ())
                node = fresh.with_changes(lpar=lpar, rpar=rpar) if lpar and not getattr(fresh, "lpar", ()) else fresh
            elif isinstance(node, cst.Call):
                node = _with_argument(node, edit.name, edit.source)
        return node

    def _statement(
        self, original: cst.SimpleStatementLine | cst.BaseCompoundStatement, node: cst.BaseStatement
    ) -> cst.CSTNode:
        start = self._where(original)[:2]
        if start in self.removed:
            if not isinstance(original, cst.SimpleStatementLine) or len(original.body) != 1:
                return node
            self.removed.discard(start)
            self.moved[start] = node.with_changes(leading_lines=())
            return cst.RemoveFromParent()  # type: ignore[return-value]
        before: list[cst.BaseStatement] = []
        after: list[cst.BaseStatement] = []
        for source in self.moves.pop(start, ()):
            if source in self.moved:
                before.append(self.moved[source])
                self.done += 1
        for edit in self.statements.pop(start, ()):
            node = self._one(edit, node, before, after)
        if not before and not after:
            return node
        if before and isinstance(node, (cst.SimpleStatementLine, cst.BaseCompoundStatement)):
            first = before[0].with_changes(leading_lines=node.leading_lines)
            before, node = [first, *before[1:]], node.with_changes(leading_lines=())
        return cst.FlattenSentinel([*before, node, *after])  # type: ignore[return-value]

    def _one(
        self, edit: Edit, node: cst.BaseStatement, before: list[cst.BaseStatement], after: list[cst.BaseStatement]
    ) -> cst.BaseStatement:
        assert edit.source is not None
        if edit.how == "decorate":
            if isinstance(node, cst.FunctionDef):
                self.done += 1
                decorator = cst.Decorator(cst.parse_expression(edit.source))
                return node.with_changes(decorators=(*node.decorators, decorator))
            return node
        fresh = cst.parse_statement(edit.source)
        if edit.how == "before":
            before.append(fresh)
        elif edit.how == "after":
            after.append(fresh)
        elif isinstance(node, cst.SimpleStatementLine) and len(node.body) == 1:
            assert isinstance(fresh, cst.SimpleStatementLine)
            node = node.with_changes(body=fresh.body)
        else:
            return node
        self.done += 1
        return node


def _with_argument(call: cst.Call, name: str, source: str | None) -> cst.Call:
    kept = [a for a in call.args if a.keyword is None or a.keyword.value != name]
    position = next((i for i, a in enumerate(call.args) if a.keyword is not None and a.keyword.value == name), None)
    if source is None:
        if position is not None and position == len(call.args) - 1 and kept:
            kept[-1] = kept[-1].with_changes(comma=call.args[position].comma)
        return call.with_changes(args=kept)
    value = cst.parse_expression(source)
    if position is not None:
        args = list(call.args)
        args[position] = args[position].with_changes(value=value)
        return call.with_changes(args=args)
    equal = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))
    fresh = cst.Arg(value, keyword=cst.Name(name), equal=equal)
    if call.args and isinstance(call.args[-1].comma, cst.Comma):  # a trailing comma, maybe with a line break after it
        last = call.args[-1].comma
        between = call.args[0].comma if len(call.args) > 1 else cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
        args = [*call.args[:-1], call.args[-1].with_changes(comma=between), fresh.with_changes(comma=last)]
        return call.with_changes(args=args)
    spaced = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
    args = [a.with_changes(comma=spaced) if a is call.args[-1] else a for a in call.args]
    return call.with_changes(args=[*args, fresh])


def _places(edit: Edit, lines: Sequence[str]) -> list[_Place]:
    place = _place(edit.node, lines)
    if edit.how in ("before", "after", "decorate"):
        return [(place[0], place[1], place[0], place[1] + 1)]
    if edit.how == "move" and edit.target is not None:
        target = _place(edit.target, lines)
        return [place, (target[0], target[1], target[0], target[1] + 1)]
    return [place]


def _place(node: ast.AST, lines: Sequence[str]) -> _Place:
    """Line and column (in characters, as libcst counts) of a node's start and end."""
    line, end = node.lineno, node.end_lineno  # type: ignore[attr-defined]
    first, last = lines[line - 1].encode(), lines[end - 1].encode()
    start_column = len(first[: node.col_offset].decode())  # type: ignore[attr-defined]
    end_column = len(last[: node.end_col_offset].decode())  # type: ignore[attr-defined]
    return (line, start_column, end, end_column)


def _overlap(a: _Place, b: _Place) -> bool:
    return (a[0], a[1]) < (b[2], b[3]) and (b[0], b[1]) < (a[2], a[3])
