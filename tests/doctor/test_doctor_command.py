"""``hasten doctor`` from outside: what it prints, how it exits, and which files it reads by which settings."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx
import pytest
from doctor_runs import BAD, CLEAN, notebook, rules, run, write

from hasten.doctor.check import Job, check_bytes
from hasten.doctor.output import as_sarif
from hasten.doctor.run import examine
from hasten.doctor.settings import Settings, find_settings
from hasten.errors import SettingsError

# -- exit codes and formats ------------------------------------------------------------------------------------------


def test_exits_with_one_on_findings_and_names_the_place(tmp_path: Path) -> None:
    path = write(tmp_path, "a.py", BAD)
    done = run(str(path))
    assert done.exit_code == 1
    assert f"{path}:2:9: H501" in done.output
    assert "weights_only=True" in done.output


def test_exits_with_zero_when_clean(tmp_path: Path) -> None:
    assert run(str(write(tmp_path, "a.py", CLEAN))).exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere.py"],
        ["--format", "xml", "."],
        ["--select", "H999", "."],
        ["--explain", "X1"],
        ["--diff", "--json", "."],
        ["--diff", "--format", "sarif", "."],
    ],
)
def test_misuse_exits_with_two_and_one_line(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hasten.cli", "doctor", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("hasten: ") and done.stderr.count("\n") == 1


def test_json_holds_findings_and_counts(tmp_path: Path) -> None:
    write(tmp_path, "a.py", BAD)
    data = json.loads(run(str(tmp_path), "--format", "json").output)
    [finding] = data["findings"]
    assert (finding["rule"], finding["name"], finding["line"], finding["column"]) == ("H501", "unsafe-torch-load", 2, 9)
    assert data["summary"] == {"files": 1, "findings": 1, "fixable": 0, "fixed": 0}


def test_github_annotations_are_one_escaped_line_each(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b.py", BAD)
    [line] = run(str(path), "--format", "github").output.splitlines()
    assert (
        line.startswith("::warning file=")
        and "a%2Cb.py,line=2,col=9,endLine=2,endColumn=27," in line
        and "title=hasten H501::" in line
    )


def test_sarif_has_the_parts_that_scanners_read(tmp_path: Path) -> None:
    write(tmp_path, "a.py", BAD)
    write(tmp_path, "b.py", "def f(:\n")
    log = json.loads(run(str(tmp_path), "--format", "sarif").output)
    assert log["version"] == "2.1.0" and log["$schema"].endswith("sarif-2.1.0.json")
    [found] = log["runs"]
    described = found["tool"]["driver"]["rules"]
    for result in found["results"]:
        assert described[result["ruleIndex"]]["id"] == result["ruleId"]
        place = result["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"].startswith("file://")
        assert place["region"]["startLine"] >= 1 and place["region"]["startColumn"] >= 1
    assert {(r["ruleId"], r["level"]) for r in found["results"]} == {("H501", "warning"), ("H000", "error")}


def test_sarif_has_what_the_standard_requires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SARIF 2.1.0, sections 3.13 to 3.52: required properties, levels, indices, columns from 1, URI references."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "a b/ü#1.py", BAD)
    write(tmp_path, "n.ipynb", notebook("import torch", "s = torch.load('w')"))
    write(tmp_path, "huge.py", "x = [\n" + "1234567890,\n" * 100_000 + "]\n")
    log = json.loads(run(".", "--format", "sarif").output)
    assert set(log) == {"$schema", "version", "runs"}
    [found] = log["runs"]
    assert found["columnKind"] == "unicodeCodePoints" and found["invocations"][0]["executionSuccessful"] is True
    [note] = found["invocations"][0]["toolExecutionNotifications"]
    assert note["level"] == "note" and note["message"]["text"].startswith("skipped: ")
    for rule in found["tool"]["driver"]["rules"]:
        assert rule["name"].isalnum() and rule["shortDescription"]["text"] and rule["help"]["text"]
        assert rule["defaultConfiguration"]["level"] in ("error", "warning", "note", "none")
    python, book = found["results"]
    place = python["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "a%20b/%C3%BC%231.py"
    assert place["region"] == {"startLine": 2, "startColumn": 9, "endLine": 2, "endColumn": 27}
    # The region is the line of the file; the cell is a logical location, and the message names it.
    [location] = book["locations"]
    line = location["physicalLocation"]["region"]["startLine"]
    assert "torch.load('w')" in Path("n.ipynb").read_text().splitlines()[line - 1]
    assert location["logicalLocations"] == [{"name": "cell 3", "kind": "module"}]
    assert book["message"]["text"].startswith("cell 3, line 1: ")


def test_sarif_names_the_tools_own_page_where_there_is_one() -> None:
    result = check_bytes(BAD.encode(), Job(Path("a.py"), "a.py", Settings()))
    for home in ("", "https://example.org/hasten"):
        [found] = json.loads(as_sarif([result], "1.0", home))["runs"]
        driver = found["tool"]["driver"]
        assert driver.get("informationUri", "") == home
        assert "any code when it is opened" in driver["rules"][0]["fullDescription"]["text"]


def test_statistics_explain_select_and_ignore(tmp_path: Path) -> None:
    path = str(write(tmp_path, "a.py", BAD + BAD))
    assert "2 H501 unsafe-torch-load" in run(path, "--statistics").output
    assert "## Why is this bad" in run("--explain", "h001").output
    assert run(path, "--ignore", "H501").exit_code == 0
    assert run(path, "--select", "H0,H1").exit_code == 0
    assert run(path, "--select", "H5", "--ignore", "H502").exit_code == 1


# -- fixing ------------------------------------------------------------------------------------------------------------

FIXABLE = "import torch\nq = torch.quantization.default_qconfig\n"


def test_fix_writes_diff_does_not(tmp_path: Path) -> None:
    path = write(tmp_path, "a.py", FIXABLE)
    done = run(str(path), "--diff")
    assert done.exit_code == 1 and "+q = torch.ao.quantization.default_qconfig" in done.output
    assert path.read_text() == FIXABLE
    done = run(str(path), "--fix")
    assert done.exit_code == 0 and "Fixed 1 habit." in done.output
    assert "torch.ao.quantization" in path.read_text()


def test_stdin_is_read_and_with_fix_written_to_stdout() -> None:
    done = run("-", "--stdin-filename", "x.py", stdin=BAD)
    assert done.exit_code == 1 and "x.py:2:9: H501" in done.output
    done = subprocess.run(
        [sys.executable, "-m", "hasten.cli", "doctor", "-", "--fix"],
        input=FIXABLE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout == FIXABLE.replace("torch.quantization", "torch.ao.quantization")


# -- suppression and settings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("comment", "found"),
    [
        ("  # hasten: ignore", False),
        ("  # hasten: ignore[H501]", False),
        ("  # hasten: ignore[H001, h5]", False),
        ("  # trusted  # hasten: ignore[H501] our own file", False),
        ("  # hasten: ignore[H001]", True),
        ("  # ignore", True),
    ],
)
def test_ignore_comments(comment: str, found: bool) -> None:
    text = f"import torch\nstate = torch.load('w.pt'){comment}\n"
    assert bool(rules(text.encode())) == found


def test_ignore_for_a_whole_file_and_not_in_strings() -> None:
    assert rules(b"# hasten: ignore-file[H501]\n" + BAD.encode()) == []
    assert rules(b"# hasten: ignore-file\n" + BAD.encode()) == []
    assert rules(b"x = '# hasten: ignore-file'\n" + BAD.encode()) == [("H501", 3)]


def test_an_ignore_at_the_end_of_a_call_over_lines_counts() -> None:
    assert rules(b"import torch\ns = torch.load(\n    'a',\n)  # hasten: ignore[H501]\n") == []


def test_settings_are_found_upwards_and_obeyed(tmp_path: Path) -> None:
    table = '[tool.hasten.doctor]\nignore = ["H2"]\nexclude = ["old"]\n'
    table += '[tool.hasten.doctor.per-file-ignores]\n"scripts/*" = ["H501"]\n'
    write(tmp_path, "pyproject.toml", table)
    for name in ("src/a.py", "old/a.py", "scripts/a.py"):
        write(tmp_path, name, BAD + FIXABLE)
    settings = find_settings(tmp_path / "src")
    found = [(Path(r.shown).parent.name, f.rule) for r in examine([tmp_path], settings) for f in r.findings]
    assert found == [("src", "H501")]


@pytest.mark.parametrize(
    "text", ['[tool.hasten.doctor]\nselekt = ["H0"]\n', "[tool.hasten.doctor]\nselect = 3\n", "[tool.hasten.doctor\n"]
)
def test_bad_settings_say_which_key_and_file(tmp_path: Path, text: str) -> None:
    write(tmp_path, "pyproject.toml", text)
    with pytest.raises(SettingsError, match=r"pyproject\.toml"):
        find_settings(tmp_path)


# -- which files -------------------------------------------------------------------------------------------------------


def test_walks_folders_as_git_and_people_expect(tmp_path: Path) -> None:
    write(tmp_path, ".gitignore", "made/\n*_pb2.py\n!kept_pb2.py\n")
    kept = ["a.py", "deep/b.py", "kept_pb2.py", "n.ipynb"]
    left = [
        "made/c.py",
        "x_pb2.py",
        ".venv/d.py",
        "node_modules/e.py",
        "build/f.py",
        "deep/g_pb2.py",
        "notes.txt",
        ".git/h.py",
    ]
    for name in kept + left:
        write(tmp_path, name, BAD if name.endswith("py") else json.dumps({"cells": []}))
    found = sorted(str(Path(r.shown).relative_to(tmp_path)) for r in examine([tmp_path], Settings()))
    assert found == sorted(kept)


def test_a_file_named_outright_is_read_even_if_excluded(tmp_path: Path) -> None:
    path = write(tmp_path, "build/a.py", BAD)
    assert [f.rule for r in examine([path], Settings()) for f in r.findings] == ["H501"]


def test_tests_are_judged_by_fewer_rules(tmp_path: Path) -> None:
    write(tmp_path, "tests/test_a.py", BAD + FIXABLE)
    assert [f.rule for r in examine([tmp_path], Settings()) for f in r.findings] == ["H204"]


@pytest.mark.parametrize("runner", ["import pytest", "from unittest import TestCase", "import unittest"])
def test_a_file_that_imports_a_test_runner_is_a_test(tmp_path: Path, runner: str) -> None:
    path = write(tmp_path, "checks.py", f"{runner}\n" + BAD + FIXABLE)
    assert [f.rule for r in examine([path], Settings()) for f in r.findings] == ["H204"]
    mocked = write(tmp_path, "app.py", "from unittest.mock import Mock\n" + BAD)
    assert [f.rule for r in examine([mocked], Settings()) for f in r.findings] == ["H501"]


def test_a_script_that_bears_a_tests_name_and_holds_none_is_no_test(tmp_path: Path) -> None:
    script = write(tmp_path, "speed_test.py", BAD)
    assert [f.rule for r in examine([script], Settings()) for f in r.findings] == ["H501"]
    holds = write(tmp_path, "test_speed.py", BAD + "def test_speed():\n    assert state\n")
    assert [f.rule for r in examine([holds], Settings()) for f in r.findings] == []


# -- models and safety -------------------------------------------------------------------------------------------------


def test_models_are_examined_by_the_same_command(shared_models: Path) -> None:
    done = run(str(shared_models / "seeds" / "conv_lstm_td.onnx"))
    assert done.exit_code == 1 and "H603" in done.output and "1000 times" in done.output


def test_nothing_that_is_read_is_imported_or_run(tmp_path: Path) -> None:
    path = write(tmp_path, "a.py", "import sys, torch\nopen('ran', 'w')\nsys.exit(3)\n" + BAD)
    code = f"import sys; from hasten.cli.app import app; sys.argv = ['hasten', 'doctor', {str(path)!r}]\ntry: app()\n"
    code += "finally: print(sorted({'torch', 'tensorflow', 'keras', 'onnx'} & set(sys.modules)))\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout.endswith("[]\n")
    assert not (tmp_path / "ran").exists()


def test_free_dimensions_are_a_finding_where_no_engine_takes_them(tmp_path: Path) -> None:
    text = '<ir_version: 10, opset_import: ["" : 21]> g (float[n,t,8] x) => (float[n,t,8] y) { y = Relu(x) }'
    path = tmp_path / "free.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    done = run(str(path))
    assert done.exit_code == 1
    assert "H606 input 'x': dimension 1 of (n, t, 8) is free" in done.output
    assert "--shape" in done.output


@pytest.mark.frameworks
def test_free_dimensions_of_a_keras_file_are_a_finding(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    path = tmp_path / "free.keras"
    keras.Sequential([keras.Input((None, 8)), keras.layers.Conv1D(4, 3), keras.layers.Flatten()]).save(path)
    done = run(str(path))
    assert done.exit_code == 1
    assert "H606" in done.output


@pytest.mark.frameworks
@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_what_lies_behind_free_dimensions_is_examined_too(tmp_path: Path, ending: str) -> None:
    keras = pytest.importorskip("keras")
    path = tmp_path / f"free.{ending}"
    words = keras.Input((None,), dtype="int32")
    rows = keras.layers.Embedding(300_000, 16)(words)
    keras.Model(words, keras.layers.Dense(1)(rows)).save(path)
    done = run(str(path))
    assert done.exit_code == 1
    assert "H606" in done.output and "H611" in done.output
    assert "reads at most 100 of 300000 rows" in " ".join(done.output.split())


@pytest.mark.frameworks
def test_a_model_at_random_is_a_finding(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "random.pt2"
    net = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Dropout(0.5)).train()
    torch.export.save(torch.export.export(net, (torch.randn(1, 8),)), path)
    done = run(str(path))
    assert done.exit_code == 1
    assert "H602" in done.output


@pytest.mark.frameworks
def test_a_model_at_random_that_has_no_graph_is_a_finding(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    rows = keras.Input((8,))
    path = tmp_path / "random"
    keras.Model(rows, keras.layers.Dropout(0.5)(rows, training=True)).export(path, verbose=False)
    done = run(str(path))
    assert done.exit_code == 1
    assert "H602" in done.output
    assert "have no ONNX form" in done.output


@pytest.mark.frameworks
def test_a_torch_file_is_told_the_shapes_of_its_inputs(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "script.pt"
    net = torch.nn.Sequential(torch.nn.Embedding(300_000, 16), torch.nn.Flatten())
    torch.jit.trace(net, torch.zeros((1, 20), dtype=torch.int64)).save(path)
    done = run("--trust", "--shape", "input=1,20", str(path))
    assert done.exit_code == 1
    assert "reads at most 20 of 300000 rows" in " ".join(done.output.split())


@pytest.mark.frameworks
def test_free_dimensions_of_a_saved_model_are_a_finding(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    path = tmp_path / "free"
    keras.Sequential([keras.Input((None, 8)), keras.layers.Conv1D(4, 3)]).export(path, verbose=False)
    done = run(str(path))
    assert done.exit_code == 1
    assert "H606" in done.output and "has free dimensions; examined as" in " ".join(done.output.split())


def test_a_model_examined_leaves_no_copy_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The importer writes an old file anew; the temporary folder is empty again afterwards."""
    keras, h5py = pytest.importorskip("keras"), pytest.importorskip("h5py")
    path, temporary = tmp_path / "old.h5", tmp_path / "temporary"
    keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)]).save(path)
    with h5py.File(path, "r+") as file:
        file.attrs["keras_version"] = "2.15.0"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert run(str(path)).exit_code == 0
    assert not list(temporary.iterdir())


def test_a_model_that_cannot_be_opened_costs_the_others_nothing(tmp_path: Path) -> None:
    write(tmp_path, "bad.onnx", "junk\n")
    write(tmp_path, "a.py", BAD)
    done = run(str(tmp_path / "bad.onnx"), str(tmp_path / "a.py"))
    assert done.exit_code == 1
    assert "H501" in done.output and "bad.onnx: H000 cannot read" in done.output
