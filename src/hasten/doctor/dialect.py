"""Texts that this Python cannot parse though nothing is wrong with them: newer syntax, and IPython's own lines.

A text enters; one that can be parsed leaves, its lines and columns where they were, with what no rule needs blanked
out. Such a text is for reading alone: never write it back.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from hasten.doctor.read import lines_of

__all__ = ["MAGIC", "older", "without_magics"]

MAGIC = re.compile(r"^(\s*)([%!?]|[\w.]+\?{1,2}\s*$)")
# What newer Pythons may read otherwise: without any of it nothing is tried.
_NEWER = re.compile(r"""\b[rR]?[fFtT][rR]?["']|^\s*type\s+\w|^\s*(async\s+)?(def|class)\s+\w+\s*\[""", re.MULTILINE)
_DEEP = 60  # brackets in brackets, at most; the parser of libcst has no limit of its own, and ends the process
_Span = tuple[tuple[int, int], tuple[int, int], str]


def without_magics(text: str) -> tuple[str, int] | None:
    """The text with IPython's lines set aside, and the number of the first; None where it has none."""
    lines = lines_of(text)
    magics = [n for n, line in enumerate(lines) if MAGIC.match(line)]
    if not magics:
        return None
    for n in magics:
        indent = lines[n][: len(lines[n]) - len(lines[n].lstrip())]
        lines[n] = f"{indent}pass\n"
    return "".join(lines), magics[0] + 1


def older(text: str) -> str | None:
    """The text without f-strings, type parameters and `type` of newer Pythons; None where they are not the trouble."""
    if not _NEWER.search(text) or _depth(text) > _DEEP:
        return None
    import libcst  # noqa: PLC0415  (costs 0.3 s, for the few texts that need it)
    from libcst.metadata import MetadataWrapper, PositionProvider  # noqa: PLC0415

    try:
        wrapper = MetadataWrapper(libcst.parse_module(text), unsafe_skip_copy=True)
        places = wrapper.resolve(PositionProvider)
    except (libcst.ParserSyntaxError, RecursionError, KeyError, ValueError):  # too deep, or no Python at all
        return None
    lines = lines_of(text)
    spans = sorted(
        ((at.start.line, at.start.column), (at.end.line, at.end.column), kind)
        for node, at in places.items()
        for kind in (_kind(node),)
        if kind
    )
    for start, (last, right), kind in _outermost(spans):
        body = lines[last - 1][:right]
        end = (last, len(body.rstrip(" \t;")) if kind == "pass" else right)  # the semicolon counts as the statement's
        if kind != '"' or not _is_known(_segment(lines, start, end)):
            _blank(lines, start, end, kind)
    found = "".join(lines)
    return found if found != text else None


def _depth(text: str) -> int:
    depth = deepest = 0
    for mark in re.findall(r"[][(){}]", text):
        depth = depth + 1 if mark in "[({" else max(depth - 1, 0)
        deepest = max(deepest, depth)
    return deepest


def _kind(node: object) -> str:
    """What stands in for a node of newer syntax: a text, nothing, or a statement; '' for all others."""
    name = type(node).__name__
    return {"FormattedString": '"', "TemplatedString": '"', "TypeParameters": " ", "TypeAlias": "pass"}.get(name, "")


def _outermost(spans: list[_Span]) -> Iterator[_Span]:
    last = (0, 0)
    for start, end, kind in spans:
        if start >= last:
            yield start, end, kind
            last = end


def _segment(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    (first, left), (last, right) = start, end
    if first == last:
        return lines[first - 1][left:right]
    return "".join([lines[first - 1][left:], *lines[first : last - 1], lines[last - 1][:right]])


def _is_known(segment: str) -> bool:
    """True for an f-string that this Python reads as it is."""
    try:
        ast.parse(f"({segment})", mode="eval")
    except (SyntaxError, ValueError):
        return False
    return True


def _blank(lines: list[str], start: tuple[int, int], end: tuple[int, int], kind: str) -> None:
    """Puts what stands in for a span at its place; blanks keep every other column."""
    (first, left), (last, right) = start, end
    for number in range(first, last + 1):
        line = lines[number - 1]
        body = line.rstrip("\r\n")
        begin, stop = left if number == first else 0, right if number == last else len(body)
        room = stop - begin
        if kind == '"':
            filling = _text(number == first, number == last, room)
        else:
            filling = (kind.strip() if number == first else "").ljust(room)
        lines[number - 1] = body[:begin] + filling + body[stop:] + line[len(body) :]


def _text(opens: bool, closes: bool, room: int) -> str:
    """One line of a text that stands in for an f-string; backslashes carry on one over several lines."""
    if opens and closes:
        return '"' + " " * (room - 2) + '"'
    return " " * room if closes else ('""' if opens else "").ljust(room - 1) + "\\"
