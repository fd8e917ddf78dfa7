"""What each command prints and writes when all is well."""

from __future__ import annotations

import dataclasses
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from program import Run

import hasten
import small_onnx
from hasten import host
from hasten.api import Settings, explaining
from hasten.bundle import Contents, Entry, read, write
from hasten.bundle.unpack import unpack
from hasten.engines.onnxruntime import OnnxRuntimeEngine
from hasten.errors import UnsupportedOpError
from hasten.records import Candidate

FAST = ("--quick", "--engine", "onnxruntime", "--threads", "1")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("commands")


@pytest.fixture(scope="module")
def model(home: Path) -> Path:
    return small_onnx.dense(home / "model.onnx")


@pytest.fixture(scope="module")
def bundle(home: Path, model: Path) -> Path:
    return hasten.compile(model, engine="onnxruntime").save(home / "model.hasten")


def test_optimize_writes_a_bundle_and_a_report(run: Run, model: Path, tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    ran = run("optimize", model, *FAST, "-o", tmp_path / "fast.hasten")
    assert ran.code == 0, ran.err
    assert "chosen" in ran.out
    assert str(tmp_path / "fast.hasten") in ran.out
    assert "reading the model" in ran.err
    assert (tmp_path / "fast.html").read_text().startswith("<!")
    x = np.ones((3, 4), np.float32)
    np.testing.assert_allclose(hasten.load(tmp_path / "fast.hasten").predict(x), small_onnx.expected(x), rtol=1e-5)


def test_optimize_prints_json_alone(run: Run, model: Path, tmp_path: Path) -> None:
    ran = run("optimize", model, *FAST, "-o", tmp_path / "m.hasten", "--no-report", "--json")
    facts = json.loads(ran.out)
    assert facts["bundle"] == str(tmp_path / "m.hasten")
    assert facts["verdict"]["winner"]["engine"] == "onnxruntime"
    assert facts["commands"] == [f"hasten optimize {model} {' '.join(FAST)} -o {tmp_path}/m.hasten --no-report --json"]
    assert [p.name for p in tmp_path.iterdir()] == ["m.hasten"]


@pytest.mark.parametrize(("name", "text"), [("x.csv", "a,b,c,d\n1,2,3,4\n5,6,7,8\n"), ("x.json", "[[1, 2, 3, 4]]")])
def test_samples_of_text_take_the_models_dtype(run: Run, model: Path, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    ran = run("optimize", model, *FAST, "-o", tmp_path / "m.hasten", "--no-report", "--sample", tmp_path / name)
    assert ran.code == 0, ran.err
    first = read(tmp_path / "m.hasten").checks()[0][0][0]
    np.testing.assert_array_equal(first, np.float32([[1, 2, 3, 4]]))


def test_bench_chooses_and_writes_nothing(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run("bench", model, *FAST)
    assert ran.code == 0, ran.err
    assert "InferenceSession.run" in ran.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", [".npy", ".npz", ".csv", ".json"])
def test_predict_reads_every_format(run: Run, bundle: Path, tmp_path: Path, ending: str) -> None:
    x = np.array([[1, 2, 3, 4], [4, 3, 2, 1]], np.float32)
    path = tmp_path / f"x{ending}"
    if ending == ".npy":
        np.save(path, x)
    elif ending == ".npz":
        np.savez(path, rows=x)
    elif ending == ".csv":
        path.write_text("a,b,c,d\n" + "\n".join(",".join(map(str, row)) for row in x.tolist()) + "\n")
    else:
        path.write_text(json.dumps(x.tolist()))
    ran = run("predict", bundle, path)
    assert ran.code == 0, ran.err
    np.testing.assert_allclose(json.loads(ran.out), small_onnx.expected(x), rtol=1e-5)


@pytest.mark.parametrize("ending", [".npy", ".npz", ".json"])
def test_predict_writes_every_format(run: Run, bundle: Path, tmp_path: Path, ending: str) -> None:
    x = np.ones((2, 4), np.float32)
    np.save(tmp_path / "x.npy", x)
    out = tmp_path / f"y{ending}"
    ran = run("predict", bundle, tmp_path / "x.npy", "-o", out, "--batch-size", "1")
    assert (ran.code, ran.out) == (0, "")
    if ending == ".npy":
        found = np.load(out)
    elif ending == ".npz":
        found = np.load(out)["y"]
    else:
        found = np.array(json.loads(out.read_text()))
    np.testing.assert_allclose(found, small_onnx.expected(x), rtol=1e-5)


def test_predict_reads_standard_input_and_one_record(run: Run, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("[1, 2, 3, 4]"))
    ran = run("predict", bundle, "-")
    np.testing.assert_allclose(json.loads(ran.out), small_onnx.expected(np.float32([[1, 2, 3, 4]])), rtol=1e-5)


def test_a_bundle_from_another_cpu_answers_by_its_fallback(run: Run, bundle: Path, tmp_path: Path) -> None:
    """Its machine code is for another processor, and there is no graph to rebuild from: onnxruntime answers."""
    opened = read(bundle)
    (tmp_path / "model.so").write_bytes(b"machine code")
    first = opened.entries[0].artefact
    alien = dataclasses.replace(
        first,
        candidate=Candidate("native"),
        folder=tmp_path,
        files=("model.so",),
        portable=False,
        target="aarch64" if host.isa().name != "aarch64" else "x86-64-v3",
    )
    portable = dataclasses.replace(opened.entries[0], artefact=unpack(opened, opened.entries[0]))
    samples, expected = zip(*opened.checks(), strict=True)
    write(
        tmp_path / "alien.hasten",
        Contents(opened.inputs, opened.outputs, (Entry(alien), portable), None, samples, expected),
    )
    np.save(tmp_path / "x.npy", np.ones((2, 4), np.float32))
    ran = run("predict", tmp_path / "alien.hasten", tmp_path / "x.npy")
    assert ran.code == 0, ran.err
    np.testing.assert_allclose(json.loads(ran.out), small_onnx.expected(np.ones((2, 4), np.float32)), rtol=1e-5)
    assert f"runs on onnxruntime here; native: its machine code is for {alien.target}" in ran.err
    assert len(ran.err.splitlines()) == 1


def test_info_tells_without_running(run: Run, bundle: Path) -> None:
    ran = run("info", bundle)
    assert "float32[batch, 4]" in ran.out
    assert "onnxruntime" in ran.out
    facts = json.loads(run("info", bundle, "--json").out)
    assert facts["format"] == 1
    assert facts["facts"]["source"]["framework"] == "onnx"


def test_engines(run: Run) -> None:
    found = {facts["engine"]: facts for facts in json.loads(run("engines", "--json").out)}
    assert found["onnxruntime"]["available"]
    assert found["onnxruntime"]["versions"]["onnxruntime"]
    assert "onnxruntime" in run("engines").out


def test_version_and_help(run: Run) -> None:
    assert run("--version").out.startswith("hasten 0.")
    text = run("--help").out
    assert all(command in text for command in ("optimize", "bench", "predict", "info", "engines"))
    assert "--max-latency" in run("optimize", "--help").out


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; import hasten.cli;"
        "bad = {'numpy', 'onnx', 'onnxruntime', 'onnx_ir', 'tensorflow', 'torch', 'libcst'} & set(sys.modules);"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_ctrl_c_writes_the_best_so_far_and_says_so(model: Path, tmp_path: Path) -> None:
    """A real process and a real signal, sent once a candidate that can be shipped has passed."""
    command = [sys.executable, "-m", "hasten.cli", "optimize", str(model), "--engine", "onnxruntime", "--fresh"]
    process = subprocess.Popen(
        [*command, "-o", str(tmp_path / "m.hasten"), "--no-report"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "✓" in line and "InferenceSession" not in line and "original" not in line:
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            break
    rest, code = process.stderr.read(), process.wait(timeout=60)
    assert code == 130, "".join(lines) + rest
    assert f"the best so far is in {tmp_path / 'm.hasten'}" in rest
    assert "Traceback" not in rest
    assert hasten.load(tmp_path / "m.hasten")(np.ones((1, 4), np.float32)).shape == (1, 3)


def test_explain_tells_the_engine_of_a_bundle_first(run: Run, bundle: Path) -> None:
    ran = run("explain", bundle)
    assert ran.code == 0, ran.err
    engine, native = ran.out.split("The same model compiled to native code:")
    assert "The bundle runs on onnxruntime" in engine and "MatMul" in engine and "Softmax" in engine
    assert "One call takes" in native
    facts = json.loads(run("explain", bundle, "--json").out)
    assert {op["op"] for op in facts["shipped"]["times"]} == {"MatMul", "Softmax"}
    assert sum(op["share"] for op in facts["shipped"]["times"]) == pytest.approx(1)
    assert facts["profile"]["steps"]


def test_explain_tells_the_engine_where_native_code_lacks_an_operator(
    run: Run, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise UnsupportedOpError("cannot lower node 'a' (Odd): no kernel")

    monkeypatch.setattr(explaining, "explain", refused)
    ran = run("explain", bundle)
    assert ran.code == 0, ran.err
    assert "MatMul" in ran.out and ran.out.rstrip().endswith("none: cannot lower node 'a' (Odd): no kernel")
    facts = json.loads(run("explain", bundle, "--json").out)
    assert facts["shipped"]["times"] and facts["error"].startswith("cannot lower")


@pytest.mark.parametrize("columns", [80, 140])
def test_explain_tells_schedules_fused_nodes_and_rewrites(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.chdir(tmp_path)
    _two_layers(Path("net.onnx"))
    ran = run("explain", "net.onnx")
    assert ran.code == 0, ran.err
    assert max(map(len, ran.out.splitlines())) <= columns
    words = " ".join(ran.out.split())
    assert "How each step computes, and the nodes that were fused into it" in words
    assert "first, bend" in words and "vectors" in words
    assert "What the rewrites of the graph saved" in words
    assert "5 → 3 −512 B written" in words
    assert ("MACs" in ran.out.splitlines()[0]) == (columns == 140)

    facts = json.loads(run("explain", "net.onnx", "--json").out)
    assert any(r["nodes_before"] - r["nodes_after"] == 2 and r["written_bytes_saved"] == 512 for r in facts["rewrites"])
    assert all(step["nodes"] and "way" in step for step in facts["profile"]["steps"])


def _two_layers(path: Path) -> None:
    """Two products with a tanh between, and a Transpose to and fro around that, which a rewrite takes away."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((16, 32)).astype(np.float32), "v": np.ones((32, 4), np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="first"),
        helper.make_node("Transpose", ["h"], ["s"], name="there", perm=[1, 0]),
        helper.make_node("Tanh", ["s"], ["t"], name="bend"),
        helper.make_node("Transpose", ["t"], ["b"], name="back", perm=[1, 0]),
        helper.make_node("MatMul", ["b", "v"], ["y"], name="last"),
    ]
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def test_explain_says_why_an_engine_tells_nothing(run: Run, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(OnnxRuntimeEngine, "operators")
    ran = run("explain", bundle)
    assert ran.code == 0, ran.err
    assert "unknown: onnxruntime's Python library has no profiler" in " ".join(ran.out.split())
    assert "One call takes" in ran.out


def test_explain_of_a_bundle_runs_no_code_that_it_brings(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = read(bundle)
    held = opened.entries[0]
    posing = dataclasses.replace(held.artefact.candidate, engine="torch")
    artefact = dataclasses.replace(unpack(opened, held), candidate=posing, portable=True)
    contents = Contents(
        inputs=opened.inputs,
        outputs=opened.outputs,
        entries=(dataclasses.replace(held, artefact=artefact),),
        graph=opened.graph(),
        samples=tuple(given for given, _ in opened.checks()),
        expected=tuple(answers for _, answers in opened.checks()),
        tolerance=opened.tolerance,
        facts=opened.facts,
    )
    write(tmp_path / "code.hasten", contents)
    makers = explaining.shipped(tmp_path / "code.hasten")
    assert makers is not None and "not built by this user" not in makers.note
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "another"))
    found = explaining.shipped(tmp_path / "code.hasten")
    assert found is not None and "not built by this user; trust=True (--trust)" in found.note and not found.times
    trusting = explaining.shipped(tmp_path / "code.hasten", settings=Settings(trust=True))
    assert trusting is not None and "not built by this user" not in trusting.note
