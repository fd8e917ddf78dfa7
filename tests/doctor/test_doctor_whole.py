"""Whole files as people write them, in many styles, under all rules at once: each marked line, and no other.

``whole/*.txt``: a line ends with ``# ! H001 H009`` where those rules must fire.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from hasten.doctor.check import Job, check_text
from hasten.doctor.rules import CODE_RULES
from hasten.doctor.settings import Settings

WHOLE = sorted((Path(__file__).parent / "whole").glob("*.txt"))


def marks(text: str) -> set[tuple[int, str]]:
    found = set()
    for number, line in enumerate(text.splitlines(), 1):
        marked = re.search(r"# ! ([H0-9 ]+)$", line)
        found |= {(number, code) for code in marked[1].split()} if marked else set()
    return found


@pytest.mark.parametrize("path", WHOLE, ids=lambda p: p.stem)
def test_every_habit_of_a_file_is_found_and_nothing_else(path: Path) -> None:
    text = path.read_text()
    found = {(f.line, f.rule) for f, _ in check_text(text, Job(path.with_suffix(".py"), path.stem, Settings()))}
    assert found == marks(text)


def test_every_rule_is_met_in_at_least_five_files() -> None:
    met = Counter(code for path in WHOLE for code in {code for _, code in marks(path.read_text())})
    assert {code: met[code] for code in CODE_RULES if met[code] < 5} == {}
