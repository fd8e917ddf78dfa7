"""Every rule's cases with their calls written otherwise: a rule may fall silent, but none may fail."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest
from test_doctor_rules import ALL, cases

from hasten.doctor.check import UNREADABLE, Job, check_text
from hasten.doctor.rules import CODE_RULES
from hasten.doctor.settings import Settings


def named(call: ast.Call) -> None:
    names = ["f", "obj"] if "f" not in {k.arg for k in call.keywords} else ["input", "other"]
    plain = [a for a in call.args if not isinstance(a, ast.Starred)]
    given = [ast.keyword(names[i] if i < len(names) else f"k{i}", a) for i, a in enumerate(plain)]
    call.args, call.keywords = [], [*given, *call.keywords]


def empty(call: ast.Call) -> None:
    call.args, call.keywords = [], []


def unpacked(call: ast.Call) -> None:
    call.args = [ast.Starred(ast.Name("values", ast.Load()), ast.Load())]
    call.keywords = [ast.keyword(None, ast.Name("options", ast.Load()))]


def first_alone(call: ast.Call) -> None:
    del call.args[1:]


def faults(text: str) -> list[str]:
    found = check_text(text, Job(Path("case.py"), "case.py", Settings()))
    return [f"{f.message}\n{text}" for f, _ in found if f.rule == UNREADABLE]


@pytest.mark.parametrize("otherwise", [named, empty, unpacked, first_alone])
@pytest.mark.parametrize("code", CODE_RULES)
def test_no_rule_fails_on_calls_written_otherwise(code: str, otherwise: Callable[[ast.Call], None]) -> None:
    for of, kind, index in ALL:
        if of != code:
            continue
        try:
            tree = ast.parse(cases(code, kind)[index])
        except SyntaxError:  # a case of newer Python
            continue
        for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
            otherwise(call)
        assert not faults(ast.unparse(ast.fix_missing_locations(tree)))
