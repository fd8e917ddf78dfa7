"""Whether another file sees to what a run of a model leaves open: its mode, its gradients."""

from __future__ import annotations

import ast
import re

from hasten.doctor.code import Code
from hasten.doctor.inference import leading_to, runs_here
from hasten.doctor.package import is_in_package, is_named_beside

__all__ = ["is_covered_beside"]


def is_covered_beside(call: ast.Call, code: Code, mark: re.Pattern[str]) -> bool:
    """True where this file runs a function nowhere, and another of its package calls it and says ``mark``.

    So too where another file defines the model's class, and says ``mark``: its ``forward`` may see to it. Files of a
    mere folder are strangers until one imports the other.
    """
    function, kind, package = code.function(call), code.runs_model(call), is_in_package(code.file)
    if code.file is None:
        return False
    maker = kind.made if kind is not None and kind.local is None else None
    made = code.qualified(maker.func).rpartition(".") if maker is not None else ("", "", "")
    home = "" if package else made[0].rpartition(".")[2]
    classes = (re.compile(rf"^class {made[2]}\b", re.M),)
    if made[2] and (package or home) and is_named_beside(code.file, mark, classes, home):
        return True
    if function is None or runs_here(function, code):
        return False
    entries = leading_to(function, code)
    owners = {f: code.klass(f) for f in entries}
    homes = {o.name if o is not None else f.name for f, o in owners.items()} | {code.file.stem}
    calls = {o.name if o is not None and f.name.startswith("__") else f.name for f, o in owners.items()}
    known = _any_word(homes, "") if package else _any_import(homes)
    return is_named_beside(code.file, mark, (known, _any_word(calls, r"\(")))


def _any_import(names: set[str]) -> re.Pattern[str]:
    any_of = "|".join(sorted(map(re.escape, names)))
    return re.compile(rf"^[ \t]*(from|import)\b([^(\n]*|[^(\n]*\([^)]*)\b({any_of})\b", re.M)


def _any_word(names: set[str], after: str) -> re.Pattern[str]:
    return re.compile(rf"\b({'|'.join(sorted(map(re.escape, names)))})\b{after}")
