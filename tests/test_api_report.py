"""What a finished search tells the report."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import small_onnx
from hasten.api import Settings, benchmark, pipeline, study
from hasten.api.profiling import ByOp, by_op
from hasten.engines import apart
from hasten.engines.apart import counted, turns
from hasten.engines.keras import KerasEngine
from hasten.engines.torch import TorchEngine
from hasten.records import Artefact, Candidate, Interval, Measurement, Trial
from hasten.report import OpTime
from hasten.tune.choose import Verdict
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
    stays = report.verdict.outcome == "original"
    assert report.op_times_of == (report.verdict.honest if stays else report.verdict.winner)
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


def a_trial(folder: Path, candidate: Candidate, cold_start_s: float = 0.1) -> Trial:
    kept = Trial(candidate, "ok", artefact=Artefact(candidate, folder, (), (), (), portable=True))
    return replace(kept, measurement=replace(made_measurement(), cold_start_ns=1e9 * cold_start_s))


def made_measurement() -> Measurement:
    facts = dict.fromkeys((f.name for f in fields(Measurement)), 1.0)
    return Measurement(**facts | {"p50_ns": Interval(1e6, 1e6, 1e6)})  # type: ignore[arg-type]


OWN, SHIPS = Candidate("torch", options=(("path", "aot_inductor"),)), Candidate("onnxruntime")
TIMES = (OpTime("a", "MatMul", 1.0, 1.0),)


@pytest.mark.parametrize(
    ("stays", "tells", "left_s", "expected"),
    [
        (True, {OWN, SHIPS}, 30.0, OWN),
        (False, {OWN, SHIPS}, 30.0, SHIPS),
        (True, {SHIPS}, 30.0, SHIPS),
        (True, {OWN, SHIPS}, 12.0, SHIPS),  # to open one's own again would take ten seconds
        (True, {OWN, SHIPS}, 2.0, None),
    ],
)
def test_operators_are_those_of_the_call_that_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stays: bool, tells: set[Candidate], left_s: float,
    expected: Candidate | None,
) -> None:  # fmt: skip
    own, ships = a_trial(tmp_path, OWN, cold_start_s=10.0), a_trial(tmp_path, SHIPS)
    verdict = Verdict("p50", "p50", ships, None, own, None, None, stays, stays, "")
    told = [
        ByOp(TIMES, trial.candidate) if trial.candidate in tells else ByOp(note="unknown") for trial in (own, ships)
    ]
    monkeypatch.setattr(pipeline, "by_op", lambda _, trial: told[trial is ships])
    monkeypatch.setattr(pipeline, "_left_s", lambda *_: left_s)
    found = pipeline._by_op(None, verdict, Settings(), 0.0)  # type: ignore[arg-type]  # the plan is by_op's
    assert found.of == expected
    assert bool(found.times) == (expected is not None)
    assert ("no time was left" in found.note) == (expected is None)


def test_how_to_tell_inductor_s_kernels_apart_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checks").mkdir()
    checks = record_checks(tmp_path / "checks", {"sample": [np.zeros(1)]}, {"sample": [np.zeros(1)]})
    plan = Plan("", "torch", tmp_path, (), (), {}, {1: checks}, (OWN,), tmp_path)
    parts = [("1 1×8", "addmm", 30.0), ("Inductor's own kernels", "generated", 70.0)]
    monkeypatch.setattr(TorchEngine, "operators", lambda *_: tuple(parts))
    found = by_op(plan, a_trial(tmp_path, OWN))
    assert [(op.name, op.share) for op in found.times] == [("1 1×8", 0.3), ("Inductor's own kernels", 0.7)]
    assert "TORCHINDUCTOR_CPP_ENABLE_KERNEL_PROFILE=1" in found.note and found.of == OWN
    parts[1] = ("between them", "", 70.0)
    assert by_op(plan, a_trial(tmp_path, OWN)).note == ""


def test_long_calls_are_profiled_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = count(0, 4)
    monkeypatch.setattr(apart, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    assert list(turns(220)) == [0, 1, 2]
    monkeypatch.setattr(apart, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    assert list(turns(220)) == list(range(220))
    assert counted([9.0, 1.0, 2.0], warm=20) == [1.0, 2.0]
    assert counted([9.0, 9.0, 1.0, 1.0, 1.0, 1.0, 1.0], warm=2) == [1.0] * 5


def test_an_engine_without_a_profiler_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checks").mkdir()
    checks = record_checks(tmp_path / "checks", {"sample": [np.zeros(1)]}, {"sample": [np.zeros(1)]})
    candidate = Candidate("keras")
    plan = Plan("", "keras", tmp_path, (), (), {}, {1: checks}, (candidate,), tmp_path)
    monkeypatch.setattr(KerasEngine, "missing", lambda _: None)
    assert by_op(plan, a_trial(tmp_path, candidate)).note.endswith("keras's Python library has no profiler")
