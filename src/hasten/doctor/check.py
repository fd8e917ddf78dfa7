"""One file through all rules: bytes enter, findings leave, and the mended bytes where fixes were asked for.

Whatever is wrong with a file (encoding, syntax, a broken notebook) becomes an ``H000`` finding; nothing stops a run.
"""

from __future__ import annotations

import ast
import difflib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hasten.doctor.code import Code
from hasten.doctor.dialect import older, without_magics
from hasten.doctor.notebook import Notebook, read_notebook
from hasten.doctor.read import Text, decode, lines_of
from hasten.doctor.rule import Fix, Hit, Rule
from hasten.doctor.rules import code_rules
from hasten.doctor.settings import Settings
from hasten.doctor.suppress import Suppressions
from hasten.records import Finding

__all__ = ["UNREADABLE", "Job", "Result", "check_bytes", "check_text"]

UNREADABLE = "H000"
# Every rule needs a name that was imported from one of these; without any of them there is nothing to resolve.
_LIBRARIES = re.compile(
    "torch|keras|tensorflow|tflite|litert|onnxruntime|openvino|transformers|timm|whisper|spacy|tqdm|allow_pickle"
)
# A file that a test runner is imported into is test code wherever it lies.
_TESTS = re.compile(r"^(import|from) (pytest|unittest|absl\.testing)\b(?!\.mock)", re.MULTILINE)
_HOLDS_TESTS = re.compile(r"^\s*(async )?def test_\w|^class \w*Test", re.MULTILINE)
_FAULT = "the doctor itself failed here: "
_ROUNDS = 10  # fixes may uncover others; each round reads the file anew


@dataclass(frozen=True)
class Job:
    """One file to read, and what may be done to it. ``fix``: '' (report only), 'safe' or 'unsafe'."""

    path: Path
    shown: str
    settings: Settings
    fix: str = ""
    is_test: bool = False


@dataclass(frozen=True)
class Result:
    """What one file gave. ``fixed`` is its new content where fixes were applied.

    ``file_lines``: of findings in a notebook's cells, the line of the file itself.
    """

    shown: str
    findings: tuple[Finding, ...] = ()
    skipped: str = ""
    fixes: int = 0
    diff: str = ""
    file_lines: Mapping[Finding, int] = field(default_factory=dict, repr=False)
    fixed: bytes | None = field(default=None, repr=False)


def check_bytes(data: bytes, job: Job) -> Result:
    """The findings in a file's content, after the fixes that were asked for."""
    text = decode(data)
    if job.path.suffix == ".ipynb":
        return _check_notebook(text, job)
    findings = [_unreadable(job, text.note, 1)] if text.note else []
    body, newline = _newlines(text.text)
    mended, fixes = _fix(body, job) if job.fix else (body, 0)
    findings += [f for f, _ in check_text(mended, job)]
    return _result(job, findings, text, text.text, mended.replace("\n", newline), fixes)


def check_text(text: str, job: Job) -> list[tuple[Finding, Fix | None]]:
    """Each finding in a Python text, with its fix; sorted by place."""
    try:
        return _found(text, job)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        read = _read_otherwise(text, job) if isinstance(error, SyntaxError) else None
        if read is not None:
            return read
        return [(_unreadable(job, _why(error), getattr(error, "lineno", None) or 1), None)]


def _read_otherwise(text: str, job: Job) -> list[tuple[Finding, Fix | None]] | None:
    """The findings in a text of newer Python, or with IPython's lines in it; None where it is neither.

    They come without fixes: what was read is not what the file holds.
    """
    plain = without_magics(text)
    for body, first in ((text, 0), plain or ("", 0)):
        for candidate in filter(None, (body if first else "", older(body))):
            try:
                found = [replace(f, fixable=False) for f, _ in _found(candidate, job)]
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                continue
            said = [_in_magics(job, lines_of(text)[first - 1].strip(), first)] if first else []
            return [(f, None) for f in sorted([*said, *found], key=lambda f: (f.line or 0, f.column or 0, f.rule))]
    return None


def _found(text: str, job: Job) -> list[tuple[Finding, Fix | None]]:
    is_test = job.is_test or _is_test(text, job.path)
    rules = [r for r in code_rules() if job.settings.wants(r.code) and (r.tests or not is_test)]
    asked = [r for r in rules if any(w in text for w in r.words)] if _LIBRARIES.search(text) else []
    if not asked:
        compile(text, "<code>", "exec", flags=ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        return []
    code = Code(text, path=job.shown, file=job.path, is_test=is_test)
    suppressions = Suppressions(text)
    lines = lines_of(text)
    found = [(_finding(rule, hit, job, lines), hit.fix) for rule, hit in _hits(code, asked)]
    kept = {(f.rule, f.line, f.column): (f, fix) for f, fix in found if not suppressions.covers(f)}
    return sorted(kept.values(), key=lambda pair: (pair[0].line or 0, pair[0].column or 0, pair[0].rule))


def _is_test(text: str, path: Path) -> bool:
    """True for a test wherever it lies: scripts that try a model out, and hold no test, bear the names of tests too."""
    named = path.name.startswith("test_") or path.name.endswith("_test.py")
    return _TESTS.search(text) is not None or (named and _HOLDS_TESTS.search(text) is not None)


def _why(error: Exception) -> str:
    """Why a text could not be parsed."""
    if isinstance(error, (RecursionError, MemoryError)):
        return "nested too deeply for Python's parser"
    reason = getattr(error, "msg", None) or str(error) or type(error).__name__
    return f"syntax error for Python {sys.version_info[0]}.{sys.version_info[1]}: {reason}"


def _hits(code: Code, rules: Sequence[Rule]) -> Iterator[tuple[Rule, Hit]]:
    """One walk over the nodes; each rule is asked about the types that it named."""
    asked: dict[type[ast.AST], list[Rule]] = {}
    for rule in rules:
        for kind in rule.on:
            asked.setdefault(kind, []).append(rule)
    for node in code.names.nodes:
        for rule in asked.get(type(node), ()):
            for found in _asked(rule, node, code):
                yield rule, found


def _asked(rule: Rule, node: ast.AST, code: Code) -> Sequence[Hit]:
    """A rule's answer; a fault of the rule costs that answer alone, and is said."""
    try:
        return list(rule.check(node, code))
    except Exception as error:  # ours, whatever it is: the other rules and files go on
        return [Hit(node, f"{_FAULT}{type(error).__name__}: {error}")]


def _finding(rule: Rule, hit: Hit, job: Job, lines: Sequence[str]) -> Finding:
    node = hit.node
    line, end = getattr(node, "lineno", 1), getattr(node, "end_lineno", 1)
    if isinstance(
        node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.For, ast.While, ast.With, ast.AsyncFor)
    ):
        end = line  # the header says it; the body may be long
    column = _column(lines, line, getattr(node, "col_offset", 0))
    end_column = _column(lines, end, getattr(node, "end_col_offset", 0)) if end != line or end else None
    if hit.message.startswith(_FAULT):
        return Finding(UNREADABLE, f"{rule.code}: {hit.message}", "Please report it.", job.shown, line, column)
    safe = hit.fix is not None and (hit.fix.safe or job.fix == "unsafe")
    return Finding(
        rule.code, hit.message, hit.remedy or rule.remedy, job.shown, line, column, end, end_column, fixable=safe
    )


def _column(lines: Sequence[str], line: int, offset: int) -> int:
    if not 0 < line <= len(lines):
        return 1
    return len(lines[line - 1].encode()[:offset].decode(errors="replace")) + 1


def _fix(text: str, job: Job) -> tuple[str, int]:
    from hasten.doctor.mend import mend  # noqa: PLC0415  (libcst costs 0.3 s; reading alone does without)

    count = 0
    for _ in range(_ROUNDS):
        fixes = [fix for _, fix in check_text(text, job) if fix is not None and (fix.safe or job.fix == "unsafe")]
        mended, applied = mend(text, fixes)
        if not applied or mended == text:
            break
        text, count = mended, count + len(applied)
    return text, count


def _check_notebook(text: Text, job: Job) -> Result:
    try:
        notebook = read_notebook(text.text)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        return Result(job.shown, _wanted(job, [_unreadable(job, f"broken notebook: {error}", 1)]))
    problems = []
    for broken in notebook.broken:
        finding = _unreadable(job, f"syntax error in cell {broken.cell}: {broken.reason}", broken.line)
        problems.append(replace(finding, path=f"{job.shown}:cell {broken.cell}"))
    mended, fixes = _fix(notebook.text, job) if job.fix and not notebook.is_altered else (notebook.text, 0)
    content = notebook.rebuilt(mended) if fixes else text.text
    after = read_notebook(content) if fixes else notebook
    result = _result(job, problems + _in_cells(mended, after, job), text, text.text, content, fixes)
    return replace(result, file_lines=_file_lines(result.findings, after))


def _file_lines(findings: Sequence[Finding], notebook: Notebook) -> dict[Finding, int]:
    found: dict[Finding, int] = {}
    for finding in findings:
        cell = (finding.path or "").rpartition(":cell ")[2]
        line = notebook.file_line(int(cell), finding.line or 1) if cell.isdigit() else None
        if line is not None:
            found[finding] = line
    return found


def _in_cells(text: str, notebook: Notebook, job: Job) -> list[Finding]:
    found = []
    for finding, _ in check_text(text, job):
        cell, line = notebook.place(finding.line or 1)
        end = line + (finding.end_line or 0) - (finding.line or 0)
        fixable = finding.fixable and not notebook.is_altered
        placed = replace(finding, path=f"{job.shown}:cell {cell}", line=line, end_line=end, fixable=fixable)
        found.append(placed)
    return found


def _result(job: Job, findings: list[Finding], text: Text, before: str, after: str, fixes: int) -> Result:
    fixed, diff = None, ""
    if fixes:
        shown = difflib.unified_diff(
            before.splitlines(keepends=True), after.splitlines(keepends=True), job.shown, job.shown, n=3
        )
        diff = "".join(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in shown)
        fixed = after.encode(text.encoding)
    return Result(job.shown, _wanted(job, findings), fixes=fixes, diff=diff, fixed=fixed)


def _wanted(job: Job, findings: list[Finding]) -> tuple[Finding, ...]:
    return tuple(f for f in findings if job.settings.wants(f.rule))


def _unreadable(job: Job, reason: str, line: int) -> Finding:
    return Finding(UNREADABLE, reason, "Mend the file, or exclude it in [tool.hasten.doctor].", job.shown, line, 1)


def _in_magics(job: Job, line: str, number: int) -> Finding:
    reason = f"`{line[:40]}` is IPython's, and no Python: only IPython runs this file"
    return Finding(UNREADABLE, reason, "Take such lines out, or name the file .ipy.", job.shown, number, 1)


def _newlines(text: str) -> tuple[str, str]:
    """The text with plain line ends, and the line end to write back."""
    if "\r\n" in text:
        return text.replace("\r\n", "\n"), "\r\n"
    return text, "\n"
