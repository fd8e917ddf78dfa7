"""The pages in ``docs/rules`` are what their generator writes from the rules as they are."""

from __future__ import annotations

import runpy
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "rules"


def test_pages_are_up_to_date() -> None:
    made = runpy.run_path(str(FOLDER / "make.py"))["pages"]()
    assert {p.name for p in FOLDER.glob("*.md")} == set(made), "run python docs/rules/make.py"
    for name, text in made.items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, f"{name}: run python docs/rules/make.py"
