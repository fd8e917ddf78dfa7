"""The vector functions of ``c/``: names enter, C text leaves, all that they need before them.

A function may also be asked for with vectors of half the width, as ``v8_load`` beside ``v_load``: few channels would
waste the other half.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources

from hasten.errors import SettingsError
from hasten.native.isa import Isa

__all__ = ["MATH", "helpers", "narrowed"]

# How exact exp, tanh and their like are: within 6 ULP, 2 ULP, or 5e-4.
MATH = ("default", "strict", "fast")


@cache
def _snippets(name: str) -> Mapping[str, tuple[tuple[str, ...], str]]:
    """Functions of one ``c/*.h`` file: name → (what it needs, text)."""
    text = resources.files("hasten.native").joinpath("c", name).read_text(encoding="utf-8")
    found: dict[str, tuple[tuple[str, ...], str]] = {}
    for part in re.split(r"^//! ", text, flags=re.MULTILINE)[1:]:
        head, body = part.split("\n", 1)
        label, _, needs = head.partition(":")
        found[label.strip()] = (tuple(needs.split()), body.rstrip() + "\n")
    return found


def helpers(isa: Isa, names: Sequence[str], *, math: str = "default") -> list[str]:
    """The C text of these vector functions and all they need, types first; ``math``: one of ``MATH``.

    Raises:  SettingsError: another tier
    """
    if math not in MATH:
        raise SettingsError(f"unknown mathematics '{math}': expected one of {', '.join(MATH)}")
    half = [_HALF_NAME.sub(r"\1_", name) for name in names if _HALF_NAME.match(name)]
    found = _texts(isa, [name for name in names if not _HALF_NAME.match(name)], math)
    if half:
        assert isa.half is not None, f"{isa.name} has no functions for half of its vectors"
        found += map(narrowed, _texts(isa.half, half, math))
    return list(dict.fromkeys(found))  # what does not depend on the width is the same text


def narrowed(text: str) -> str:
    """C, or a name in it, for vectors of half the width: their types and functions bear an 8."""
    return _FUNCTION.sub(r"\g<1>8_", _TYPE.sub(r"\g<1>8", text))


# double-wide vectors (vd, vl, d_…) are those of the strict mathematics
_TYPE, _FUNCTION, _HALF_NAME = re.compile(r"\b(VL|vf|vi|vb|vd|vl)\b"), re.compile(r"\b([vd])_"), re.compile(r"([vd])8_")


def _texts(isa: Isa, names: Sequence[str], math: str) -> list[str]:
    tier = {} if math == "default" else _snippets(f"math_{math}.h")
    library = {**_snippets("scalar.h"), **_snippets("math.h"), **_snippets("bytes.h"), **_snippets("words.h"), **tier}
    for header in isa.headers:
        library |= _snippets(header)
    wanted: list[str] = []

    def visit(name: str) -> None:
        if name in wanted:
            return
        for need in library[name][0]:
            visit(need)
        wanted.append(name)

    visit("types")
    for name in sorted(names):
        visit(name)
    return [library[name][1] for name in wanted]
