"""The site builds without a warning, asks nothing of a network, and covers what it says it covers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("mkdocs")
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(target)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stdout + run.stderr
    return target


def test_no_page_loads_anything_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|link|iframe)\b[^>]*?(?:src|href)="(https?:)?//[^"]*"', text)
        assert not loaded, page


def test_every_command_and_public_name_has_its_place(site):
    from hasten import __all__ as names
    from hasten.cli.app import app

    commands = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    assert {c.name for c in app.registered_commands if f'id="{c.name}"' not in commands} == set()
    python = (site / "reference" / "python.html").read_text(encoding="utf-8")
    errors = (site / "reference" / "errors.html").read_text(encoding="utf-8")
    homeless = {
        name
        for name in names
        if not name.startswith("_") and not re.search(rf'id="hasten[\w.]*\.{name}"', python + errors)
    }
    assert homeless == set()


def test_readme_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert links and all((ROOT / link).exists() for link in links if "://" not in link)
