"""Docstring sections as this project writes them (STYLE: Shapes, Units, Raises, Source, Example) become Markdown."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

_SECTION = re.compile(r"^(Shapes|Units|Raises|Source|Defaults|Example): *(.*)$")


class Sections(griffe.Extension):
    """Rewrites every docstring as griffe finds it."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for modules, classes, functions and attributes alike."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)


def to_markdown(text: str) -> str:
    """The docstring with each section as a bold word before its text, and examples as code."""
    blocks: list[str] = []
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        found = _SECTION.match(lines[at])
        if not found:
            blocks.append(lines[at])
            at += 1
            continue
        name, first = found.groups()
        end = at + 1
        while end < len(lines) and (lines[end].startswith(" ") or (not lines[end] and name == "Example")):
            end += 1
        body = [first, *textwrap.dedent("\n".join(lines[at + 1 : end])).splitlines()]
        blocks += ["", _section(name, "\n".join(body).strip()), ""]
        at = end
    return "\n".join(blocks).strip()


def _section(name: str, body: str) -> str:
    if name == "Example":
        code = re.sub(r"\s*# doctest:.*", "", body)
        return f"**Example**\n\n```pycon\n{code}\n```"
    body = re.sub(r"\b([A-Z]\w+Error)\b:", r"`\1`:", body) if name == "Raises" else body
    return f"**{name}** · {' '.join(body.split())}"
