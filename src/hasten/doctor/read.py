"""Bytes of a Python file become text, whatever their encoding; a byte that fits none costs a note, never the run."""

from __future__ import annotations

import codecs
import io
import re
import tokenize
from dataclasses import dataclass

__all__ = ["Text", "decode", "lines_of", "without_comments"]

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
# A string, kept as it is, or a comment.
_STRING_OR_COMMENT = re.compile(
    r'''("""[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*"""|"[^"\\\n]*(?:\\.[^"\\\n]*)*"'''
    r"""|'''[^'\\]*(?:(?:\\.|'(?!''))[^'\\]*)*'''|'[^'\\\n]*(?:\\.[^'\\\n]*)*')|#[^\n]*""",
    re.DOTALL,
)
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class Text:
    """A file's text, the encoding to write it back in, and what was odd about it."""

    text: str
    encoding: str
    note: str = ""


def decode(data: bytes) -> Text:
    """The text of ``data`` by its byte-order mark, its PEP 263 line, UTF-8, and at last Latin-1 with a note."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            try:
                return Text(_lines(data.decode(encoding)), encoding, f"encoded as {encoding}; Python reads UTF-8 only")
            except UnicodeDecodeError as error:
                return Text(_lines(data.decode("latin-1")), "latin-1", f"broken {encoding}: {error.reason}")
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    except SyntaxError as error:
        if data.startswith(codecs.BOM_UTF8):
            return Text(
                _lines(data.decode("utf-8", "replace")), "utf-8-sig", "a UTF-8 mark, yet another encoding declared"
            )
        return Text(_lines(data.decode("latin-1")), "latin-1", f"{error.msg or 'unknown encoding'}; read as Latin-1")
    try:
        return Text(_lines(data.decode(encoding)), encoding)
    except (UnicodeDecodeError, LookupError):
        return Text(_lines(data.decode("latin-1")), "latin-1", f"not valid {encoding}; read as Latin-1")


def lines_of(text: str) -> list[str]:
    """The lines with their ends, as Python's parser counts them: a form feed or U+2028 ends none."""
    return _LINE.findall(text)


def _lines(text: str) -> str:
    return text.removeprefix("\ufeff")


def without_comments(text: str) -> str:
    """Python code without its comments, line for line."""
    return _STRING_OR_COMMENT.sub(r"\1", text) if "#" in text else text
