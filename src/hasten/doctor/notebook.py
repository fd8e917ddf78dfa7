"""A notebook's code cells as one Python text, and back: magics stand aside, line numbers stay traceable.

JSON enters, ``Notebook`` leaves with ``text`` for the rules; ``place`` turns a line into (cell, line in cell);
``rebuilt`` puts a mended text back into the cells, everything else as it was.
"""

from __future__ import annotations

import ast
import json
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

from hasten.doctor.dialect import MAGIC, older
from hasten.doctor.read import lines_of

__all__ = ["Notebook", "read_notebook"]

_SENTINEL = "# hasten-cell {}"
_HIDDEN = "pass  # hasten-magic "
_ASSIGNED = re.compile(r"^(\s*)([\w.,\s]+=\s*)([!%].*)$")
_PYTHON_CELLS = ("%%time", "%%timeit", "%%capture", "%%prun", "%%memit", "%%mprun", "%%snakeviz", "%%notify")
_PARSE = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


@dataclass(frozen=True)
class Broken:
    """A cell that is no Python, and where."""

    cell: int
    line: int
    reason: str


@dataclass
class Notebook:
    """Code cells joined; ``starts[i]`` is the line (from 1) where the i-th code cell's text begins."""

    data: dict[str, Any]
    text: str
    cells: list[int]
    starts: list[int]
    raw: str
    broken: list[Broken] = field(default_factory=list)
    is_altered: bool = False
    """True where cells of newer Python were changed to be read: nothing may be written back."""

    def place(self, line: int) -> tuple[int, int]:
        """Cell number (from 1, all kinds counted) and line in it (from 1)."""
        index = max(bisect_right(self.starts, line) - 1, 0)
        return self.cells[index] + 1, line - self.starts[index] + 1

    def file_line(self, cell: int, line: int) -> int | None:
        """The line of the notebook's own file where a cell's line stands; None where the file is written oddly."""
        lines = self._file_lines.get(cell - 1)
        return lines[min(line, len(lines)) - 1] if lines else None

    @cached_property
    def _file_lines(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        at = 0
        for number, cell in enumerate(self.data["cells"]):
            source = cell.get("source") if isinstance(cell, dict) else None
            places = _places(self.raw, source, at)
            if places:
                at = places[-1]
                found[number] = [self.raw.count("\n", 0, place) + 1 for place in places]
        return found

    def rebuilt(self, text: str) -> str:
        """The notebook's JSON with the cells of a mended ``text``; untouched cells keep their very form."""
        before, after = _split(self.text), _split(text)
        for index, source in after.items():
            if before.get(index) == source:
                continue
            cell = self.data["cells"][index]
            lines = [_shown(line) for line in source.splitlines(keepends=True)]
            if lines and not str(_joined(cell["source"])).endswith("\n"):
                lines[-1] = lines[-1].rstrip("\n")
            cell["source"] = lines if isinstance(cell["source"], list) else "".join(lines)
        indent = re.match(r"\{\s*?\n([ \t]*)", self.raw)
        spaces: int | str | None = indent.group(1) if indent else None
        ascii_only = "\\u" in self.raw and self.raw.isascii()
        end = "\n" if self.raw.endswith("\n") else ""
        return json.dumps(self.data, indent=spaces, ensure_ascii=ascii_only) + end


def read_notebook(raw: str) -> Notebook:
    """The code of a notebook.

    Raises:  ValueError: not JSON, or no notebook
    """
    data = json.loads(raw)
    if not isinstance(data, dict) or not isinstance(data.get("cells"), list):
        raise ValueError("expected a notebook of format 4 with 'cells'")
    language = _language(data)
    lines: list[str] = []
    notebook = Notebook(data, "", [], [], raw)
    for number, cell in enumerate(data["cells"]):
        if not isinstance(cell, dict) or cell.get("cell_type") != "code" or language not in ("python", "ipython"):
            continue
        lines.append(_SENTINEL.format(number) + "\n")
        notebook.cells.append(number)
        notebook.starts.append(len(lines) + 1)
        lines.extend(_cell(_joined(cell.get("source", "")), number, notebook))
    notebook.text = "".join(lines)
    return notebook


def _places(raw: str, source: Any, start: int) -> list[int]:
    """Where each line of a cell's source begins in the file, searched from ``start`` on; [] where it is not found."""
    lines = source if isinstance(source, list) else [source]
    if not lines or not all(isinstance(line, str) for line in lines):
        return []
    for ascii_only in (False, True):
        written = [json.dumps(line, ensure_ascii=ascii_only) for line in lines]
        key = re.compile(r'"source"\s*:\s*\[?\s*' + r"\s*,\s*".join(map(re.escape, written)))
        match = key.search(raw, start)
        if match:
            places = [raw.index(written[0], match.start() + len('"source"'))]
            for before, line in pairwise(written):
                places.append(raw.index(line, places[-1] + len(before)))
            return places
    return []


def _language(data: dict[str, Any]) -> str:
    """The language that the notebook says it is in; Python where it says none, or nothing of use."""
    metadata = data.get("metadata")
    information = metadata.get("language_info") if isinstance(metadata, dict) else None
    return str(information.get("name", "python")).lower() if isinstance(information, dict) else "python"


def _joined(source: Any) -> str:
    if isinstance(source, list):
        return "".join(str(s) for s in source)
    return str(source)


def _cell(source: str, number: int, notebook: Notebook) -> list[str]:
    kept = [line.rstrip("\r\n") for line in lines_of(source)]
    first = next((line.strip() for line in kept if line.strip()), "")
    if first.startswith("%%") and not first.startswith(_PYTHON_CELLS):
        return [f"# hasten-magic {line}\n" for line in kept]
    problem: SyntaxError | ValueError | None = None
    for lines, altered in _readings(kept):
        try:
            compile("\n".join(lines) + "\n", "<cell>", "exec", flags=_PARSE, dont_inherit=True)
            notebook.is_altered |= altered
            return [line + "\n" for line in lines]
        except (SyntaxError, ValueError) as error:
            problem = problem if altered else error
    notebook.broken.append(
        Broken(number + 1, getattr(problem, "lineno", 1) or 1, getattr(problem, "msg", str(problem)))
    )
    return [f"# hasten-magic {line}\n" for line in kept]


def _readings(kept: list[str]) -> Iterator[tuple[list[str], bool]]:
    """A cell's lines as they may be parsed, and whether they are others than it holds but for its magics."""
    yield kept, False  # first: a comment that ends in "?" is no magic
    hidden = _hidden(kept)
    yield hidden, False
    newer = older("\n".join(hidden) + "\n")
    if newer is not None:
        yield newer.splitlines(), True


def _hidden(lines: list[str]) -> list[str]:
    """The lines with their magics set aside, and what a backslash carries on of them."""
    found: list[str] = []
    carried = False
    for line in lines:
        shown = f"# hasten-magic {line}" if carried else _hide(line)
        carried = (carried or "hasten-magic " in shown) and line.rstrip().endswith("\\")
        found.append(shown)
    return found


def _hide(line: str) -> str:
    assigned = _ASSIGNED.match(line)
    if assigned:
        return f"{assigned[1]}{assigned[2]}None  # hasten-magic {assigned[3]}"
    magic = MAGIC.match(line)
    if magic and not line.strip().startswith("#"):
        return f"{magic[1]}{_HIDDEN}{line.strip()}"
    return line


def _shown(line: str) -> str:
    for mark in (_HIDDEN, "None  # hasten-magic ", "# hasten-magic "):
        if mark in line:
            return line.replace(mark, "", 1)
    return line


def _split(text: str) -> dict[int, str]:
    parts = re.split(r"^# hasten-cell (\d+)\n", text, flags=re.MULTILINE)
    return {int(parts[i]): parts[i + 1] for i in range(1, len(parts) - 1, 2)}
