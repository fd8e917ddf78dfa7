"""What a finished search tells the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import small_onnx
from hasten.api import Settings, benchmark, study
from hasten.api.profiling import by_op
from hasten.records import Candidate, Trial
from hasten.tune.plan import Plan, record_checks


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path_factory.getbasetemp() / "report-home"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))


def test_the_report_holds_every_fact(tmp_path: Path) -> None:
    path = small_onnx.dense(tmp_path / "dense.onnx")
    settings = Settings(engines=("onnxruntime",), quick=True, threads=1, budget_s=90)
    report = study(path, output=tmp_path / "m.hasten", settings=settings, command="hasten optimize dense.onnx").report
    assert report.model == "dense.onnx"
    assert report.verdict.outcome in ("faster", "tie", "original")
    assert report.verdict.winner is not None
    assert report.verdict.today is not None
    assert report.verdict.today.option("call") == "InferenceSession.run"
    assert report.verdict.over_today is not None
    assert report.verdict.over_today.low <= report.verdict.over_today.value <= report.verdict.over_today.high
    assert len(report.samples[report.verdict.winner.key]) > 100
    assert report.ops_before == {"MatMul": 1, "Softmax": 1}
    assert report.tolerance["absolute"] > 0
    assert report.commands == ("hasten optimize dense.onnx",)
    assert report.bundle == str(tmp_path / "m.hasten")
    assert report.host["cpu"]
    assert {op.op for op in report.op_times} == {"MatMul", "Softmax"}
    assert sum(op.share for op in report.op_times) == pytest.approx(1)

    again = benchmark(path, settings=settings)
    assert again.verdict.outcome == "compared"
    assert again.bundle is None
    assert len(again.trials) == len(report.trials)


def test_openvino_tells_its_operators(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = small_onnx.dense(tmp_path / "dense.onnx")
    settings = Settings(engines=("openvino",), quick=True, threads=1, budget_s=90)
    report = study(path, output=tmp_path / "m.hasten", settings=settings).report
    assert {"FullyConnected", "Softmax"} <= {op.op for op in report.op_times}
    assert sum(op.share for op in report.op_times) == pytest.approx(1)


def test_litert_tells_its_operators(shared_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ai_edge_litert")
    from hasten.engines import litert_profile

    # How well the parts add up to the call is another test's business: on a busy machine they may not.
    monkeypatch.setattr(litert_profile, "_LOW", 0.0)
    monkeypatch.setattr(litert_profile, "_HIGH", float("inf"))
    settings = Settings(engines=("litert",), quick=True, threads=1, budget_s=90)
    report = study(shared_models / "seeds" / "mlp784.tflite", output=tmp_path / "m.hasten", settings=settings).report
    assert any(op.op.upper().replace(" ", "_").startswith("FULLY_CONNECTED") for op in report.op_times)
    assert sum(op.share for op in report.op_times) == pytest.approx(1)


@pytest.mark.parametrize(("name", "status"), [("seeds/mlp784", "ok"), ("real/kws", "wrong")])
def test_todays_call_of_a_tflite_file_is_timed(shared_models: Path, tmp_path: Path, name: str, status: str) -> None:
    pytest.importorskip("ai_edge_litert")
    settings = Settings(engines=("litert", "onnxruntime"), quick=True, threads=1, budget_s=90)
    report = study(shared_models / f"{name}.tflite", output=tmp_path / "m.hasten", settings=settings).report
    assert report.verdict.today is not None and report.verdict.today.option("form") == "file"
    today = next(trial for trial in report.trials if trial.candidate == report.verdict.today)
    # Activations that LiteRT rounds stray from the float graph; how long it takes is known all the same.
    assert (today.status, today.measurement is not None) == (status, True)
    assert report.verdict.winner is not None and (status == "ok" or report.verdict.winner.engine == "onnxruntime")


def test_an_engine_without_a_profiler_says_so(tmp_path: Path) -> None:
    (tmp_path / "checks").mkdir()
    checks = record_checks(tmp_path / "checks", {"sample": [np.zeros(1)]}, {"sample": [np.zeros(1)]})
    candidate = Candidate("keras")
    plan = Plan("", "keras", tmp_path, (), (), {}, {1: checks}, (candidate,), tmp_path)
    assert by_op(plan, Trial(candidate, "ok")).note.endswith("keras's Python library has no profiler")
