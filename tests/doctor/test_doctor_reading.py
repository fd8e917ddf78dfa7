"""What the doctor makes of odd, broken, deep and many files: each is reported, and nothing stops a run."""

from __future__ import annotations

import codecs
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from doctor_runs import BAD, rules, run, write

from hasten.doctor.check import Job, check_bytes
from hasten.doctor.read import without_comments
from hasten.doctor.rules import code_rules
from hasten.doctor.run import examine
from hasten.doctor.settings import Settings


@pytest.mark.parametrize(
    "data",
    [
        codecs.BOM_UTF8 + BAD.encode(),
        b"# -*- coding: latin-1 -*-\n# caf\xe9\n" + BAD.encode(),
        b"# coding: cp1251\n# \xcf\xf0\xe8\xe2\xe5\xf2\n" + BAD.encode(),
        BAD.replace("\n", "\r\n").encode(),
        BAD.replace("'w.pt'", "'веса.pt'").encode(),
    ],
)
def test_declared_encodings_are_read(data: bytes) -> None:
    assert [rule for rule, _ in rules(data)] == ["H501"]


@pytest.mark.parametrize(
    "data", [BAD.encode("utf-16"), b"# caf\xe9\n" + BAD.encode(), b"# coding: nonsense\n" + BAD.encode()]
)
def test_odd_encodings_are_reported_and_still_read(data: bytes) -> None:
    assert sorted(rule for rule, _ in rules(data)) == ["H000", "H501"]


@pytest.mark.parametrize("data", [b"def f(:\n", b"x = 'a\n", b"\0", b"  x = 1\n", b"print 'torch'\n", b"(" * 5000])
def test_what_is_no_python_is_reported(data: bytes) -> None:
    [(rule, line)] = rules(data)
    assert rule == "H000" and line == 1


NEWER = {
    "quotes": """x = f"{d["a"]} and {", ".join(f"{n}" for n in d)}"; torch.load('w')\n""",
    "lines": """x = f"{\n  d['a']  # why\n}"; torch.load('w')\n""",
    "backslash": """x = f"{'\\n'.join(d)}"; torch.load('w')\n""",
    "parameters": "def first[T](x: T) -> T: return torch.load('w')\n",
    "alias": "type Row[T] = list[T]; torch.load('w')\n",
}


@pytest.mark.parametrize("case", NEWER)
def test_newer_python_is_read_and_not_called_broken(case: str) -> None:
    """Python before 3.12 cannot parse these: columns stay where they are, and nothing is written back."""
    text = "import torch\nd = {}\n" + NEWER[case]
    before, _, _ = text.rpartition("torch.load")
    place = (before.count("\n") + 1, len(before) - before.rfind("\n"))
    result = check_bytes(text.encode(), Job(Path("a.py"), "a.py", Settings()))
    assert [(f.rule, f.line, f.column) for f in result.findings] == [("H501", *place)]
    fixed = check_bytes(text.encode(), Job(Path("a.py"), "a.py", Settings(), "unsafe")).fixed
    assert fixed in (None, text.replace("'w')", "'w', weights_only=True)").encode())


def test_magics_in_a_file_are_named_and_the_rest_is_read() -> None:
    text = "import torch\n%matplotlib inline\nif d:\n    !ls\ntorch.load('w')\n"
    magic, load = check_bytes(text.encode(), Job(Path("a.py"), "a.py", Settings())).findings
    assert (magic.rule, magic.line) == ("H000", 2) and "`%matplotlib inline` is IPython's" in magic.message
    assert (load.rule, load.line) == ("H501", 5)
    assert check_bytes(text.encode(), Job(Path("a.py"), "a.py", Settings(), "unsafe")).fixed is None
    newer = text.replace("'w')", """f"{d["a"]}")""")
    assert rules(newer.encode()) == [("H000", 2), ("H501", 5)]


def test_nothing_stops_a_run(tmp_path: Path) -> None:
    write(tmp_path, "good.py", BAD)
    write(tmp_path, "broken.py", "def f(:\n")
    write(tmp_path, "latin.py", b"# caf\xe9\n" + BAD.encode())
    write(tmp_path, "huge.py", "x = [\n" + "1234567890,\n" * 450_000 + "]\n")
    write(tmp_path, "n.ipynb", '{"cells": [')
    write(tmp_path, "m.ipynb", "[]")
    done = run(str(tmp_path))
    assert done.exit_code == 1
    for name in (
        "good.py:2:9: H501",
        "broken.py:1:7: H000",
        "latin.py:1:1: H000",
        "n.ipynb:1:1: H000",
        "m.ipynb:1:1: H000",
    ):
        assert name.split(":")[0] in done.output
    assert "huge.py: skipped: " in done.output


def test_odd_folders_and_files_cost_themselves_alone(tmp_path: Path) -> None:
    write(tmp_path, "good.py", BAD)
    write(tmp_path, "folder.py/inside.py", BAD)
    write(tmp_path, "empty.py", "")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "dangling.py").symlink_to(tmp_path / "nowhere.py")
    os.mkfifo(tmp_path / "pipe.py")
    secret = write(tmp_path, "secret.py", BAD)
    secret.chmod(0)
    done = run(str(tmp_path), "--format", "json")
    found = {(Path(f["path"]).name, f["rule"]) for f in json.loads(done.output)["findings"]}
    readable = os.access(secret, os.R_OK)  # as root everything is
    assert found == {("good.py", "H501"), ("inside.py", "H501"), ("secret.py", "H501" if readable else "H000")}


def test_names_that_are_no_text_are_shown(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.py")
    write(tmp_path, name, BAD)
    for form in ("text", "sarif"):
        command = [sys.executable, "-m", "hasten.cli", "doctor", ".", "--format", form]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
        assert (done.returncode, b"H501" in done.stdout, done.stderr) == (1, True, b"")


DEEP = {
    "attributes": "x = a" + ".b" * 5000 + "\n",
    "operators": "x = " + "+".join(["1"] * 9000) + "\n",
    "brackets": "x = " + "[" * 300 + "]" * 300 + "\n",
}


@pytest.mark.parametrize("case", DEEP)
def test_what_is_too_deep_is_reported(case: str) -> None:
    found = rules(b"import torch\n" + DEEP[case].encode() + b"torch.load('w')\n")
    assert found in ([("H000", 1)], [("H000", 2)])


def test_a_fix_in_a_file_too_deep_for_libcst_is_left_undone() -> None:
    arms = "".join(f"elif a == {i}:\n    pass\n" for i in range(900))
    text = f"import torch\nif a:\n    pass\n{arms}s = torch.load('w')\n".encode()
    result = check_bytes(text, Job(Path("a.py"), "a.py", Settings(), "unsafe"))
    assert [f.rule for f in result.findings] == ["H501"] and result.fixed is None


def test_lines_and_columns_are_those_of_python() -> None:
    """A form feed, a vertical tab, U+0085 and U+2028 end no line."""
    text = "import torch\n\x0c\nx = 'a\x0bb\x85c\u2028d'; s = torch.load('w')\n"
    result = check_bytes(text.encode(), Job(Path("a.py"), "a.py", Settings(), "unsafe"))
    assert (result.fixed or b"").decode() == text.replace("'w')", "'w', weights_only=True)")
    [finding] = check_bytes(text.encode(), Job(Path("a.py"), "a.py", Settings())).findings
    assert (finding.line, finding.column) == (3, 20)


def test_a_rule_that_fails_costs_its_own_answer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(node: object, code: object) -> list[object]:
        raise KeyError("x")

    [broken] = [r for r in code_rules() if r.code == "H502"]
    others = tuple(replace(r, check=fail) if r is broken else r for r in code_rules())
    monkeypatch.setattr("hasten.doctor.check.code_rules", lambda: others)
    found = rules(BAD.encode() + b"import numpy as np\nnp.load('x', allow_pickle=True)\n")
    assert ("H501", 2) in found and {rule for rule, _ in found} == {"H501", "H000"}


def test_many_files_in_several_processes_give_what_one_gives(tmp_path: Path) -> None:
    for i in range(60):
        write(tmp_path, f"p{i % 7}/m{i}.py", BAD * (i % 3))
    several = examine([tmp_path], Settings(), workers=2)
    assert several == examine([tmp_path], Settings(), workers=1)
    assert len(several) == 60 and sum(len(r.findings) for r in several) == 60


def test_comments_go_and_strings_stay_line_for_line() -> None:
    code = """a = '# no' # one\nb = '''it's\n# text'''  # two\nc = f'{a}#' + "\\"#" # three '\n#\nd = ''#four\n"""
    bare = """a = '# no' \nb = '''it's\n# text'''  \nc = f'{a}#' + "\\"#" \n\nd = ''\n"""
    assert without_comments(code) == bare
