import base64
import hashlib
import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import report_samples as made

from hasten.errors import MissingLibraryError
from hasten.report import OpTime
from hasten.report.html import page, write

ALL = ["full_report", "long_names", "none_ok", "one_candidate", "hostile"]


class Elements(HTMLParser):
    """Every tag with its attributes, and the text of every script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self._inside = True
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._inside = self._inside and tag != "script"

    def handle_data(self, data):
        if self._inside:
            self.scripts[-1] += data

    def attributes(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.tags if name in attrs]


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_asked_of_a_network(name):
    found = Elements(page(getattr(made, name)()))
    assert all(link.startswith("#") or link == "data:," for link in found.attributes("href"))
    assert found.attributes("src") == []
    assert not {"iframe", "img", "object", "embed", "form", "base"} & {tag for tag, _ in found.tags}
    assert "@import" not in page(made.one_candidate()) and "url(" not in (made_css())


def test_what_each_rewrite_saved_stands_beside_it():
    assert "2 places · −1,200 MACs, +64 B of weights, −8.19 kB written · into conv_1 and conv_2" in page(
        made.full_report()
    )


def made_css() -> str:
    return re.search(r"<style>(.*?)</style>", page(made.one_candidate()), re.DOTALL)[1]


@pytest.mark.parametrize("name", ALL)
def test_the_policy_allows_our_two_scripts_and_nothing_else(name):
    found = Elements(page(getattr(made, name)()))
    policy = next(a["content"] for tag, a in found.tags if tag == "meta" and "http-equiv" in a)
    allowed = set(re.findall(r"'(sha256-[^']+)'", policy))
    data, *code = found.scripts
    hashes = {"sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in code}
    assert len(code) == 2 and hashes == allowed
    assert policy.startswith("default-src 'none'") and "unsafe-eval" not in policy
    json.loads(data)


def test_hostile_text_is_shown_and_never_run():
    text = page(made.hostile())
    assert "<script>alert" not in text and "<img" not in text
    assert "&lt;script&gt;alert" in text
    assert "{{ 7*7 }}" in text and "49}}" not in text
    assert not any(name.startswith("on") for _, attrs in Elements(text).tags for name in attrs)


def test_the_page_is_written_whole_and_small(tmp_path):
    path = tmp_path / "report.html"
    write(made.full_report(), path)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert 300_000 < path.stat().st_size < 1_000_000


def test_a_million_samples_do_not_swell_it():
    report = made.full_report()
    many = {key: np.random.default_rng(0).lognormal(8, 0.2, 100_000) for key in report.samples}
    assert len(page(replace(report, samples=many))) < 1_000_000


def test_every_answered_candidate_has_its_row_and_curves():
    report = made.full_report()
    found = Elements(page(report))
    data = json.loads(found.scripts[0])
    assert [c["label"] for c in data["candidates"]][:2] == ["native", "litert"]
    assert len(data["candidates"]) == 15
    assert sum(bool(c["ecdf"]) for c in data["candidates"]) == 14
    assert {c["role"] for c in data["candidates"]} == {"winner", "today", "honest", ""}
    assert len(data["errors"]) == 16
    roles = [a["class"] for tag, a in found.tags if tag == "tr" and "class" in a]
    assert roles.count("role-winner status-ok") == roles.count("role-today status-ok") == 1


def test_operators_beyond_what_can_be_drawn_are_summed():
    ops = tuple(OpTime(f"op{i}", "Add", 100.0 - i, 1 / 60) for i in range(60))
    data = json.loads(Elements(page(replace(made.full_report(), op_times=ops))).scripts[0])
    assert len(data["ops"]) == 25
    assert data["ops"][-1]["name"] == "36 more"
    assert sum(op["share"] for op in data["ops"]) == pytest.approx(1)


def test_nested_facts_are_flat_and_sizes_readable():
    text = page(
        replace(made.full_report(), host={"caches": {"L2": 1 << 20}, "memory_bytes": 8 << 30, "governor": None})
    )
    rows = dict(re.findall(r'<th scope="row">([^<]*)</th><td>([^<]*)</td>', text))
    assert rows["caches · L2"] == "1 MiB"
    assert rows["memory"] == "8 GiB"
    assert rows["governor"] == "—"


def test_ids_are_unique_and_every_link_has_its_target():
    found = Elements(page(made.full_report()))
    ids = found.attributes("id")
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in found.attributes("href") if link.startswith("#")} <= set(ids)


def test_without_jinja_the_message_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingLibraryError, match=r"hasten\[report\]"):
        write(made.full_report(), tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []
