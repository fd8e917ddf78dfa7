"""The pipeline as a library: settings, one engine at once, the whole search, bad samples."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hasten
import small_onnx
from hasten.api import Settings, prepare, study
from hasten.api import pipeline as pipeline_module
from hasten.bundle import read
from hasten.engines import engine as engine_named
from hasten.errors import (
    BundleError,
    EngineError,
    InputError,
    NondeterministicError,
    SettingsError,
    SourceError,
    VerifyError,
)
from hasten.records import Trial
from hasten.sources import SourceRequest
from hasten.sources.detect import open_source
from hasten.tune.plan import Event, Limits, Plan

QUICK = Settings(engines=("onnxruntime",), quick=True, threads=1, budget_s=90)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api")


@pytest.fixture(autouse=True)
def own_folders(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))


@pytest.fixture(scope="module")
def model_file(home: Path) -> Path:
    return small_onnx.dense(home / "dense.onnx")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"objective": "p95"}, "objective: expected one of p50"),
        ({"precision": "fp32"}, "precision: expected one of float32"),
        ({"engines": ("onxruntime",)}, "engine: expected one of native"),
        ({"metric": "f1"}, "metric: expected one of accuracy"),
        ({"batch": ()}, "batch: expected whole numbers"),
        ({"batch": (0,)}, "batch: expected whole numbers"),
        ({"batch": (1, 1)}, "none twice"),
        ({"batch": (True,)}, "batch: expected whole numbers"),
        ({"threads": (-1,)}, "threads: expected"),
        ({"shapes": {"x": (1, 0)}}, "shape of 'x'"),
        ({"max_latency_ns": 0}, "max_latency_ns: expected a number above 0"),
        ({"tolerance": float("nan")}, "tolerance: expected"),
        ({"max_drop": -1}, "max_drop: expected"),
        ({"seed": -1}, "seed: expected"),
        ({"precision": "auto"}, "expected a bound on what it may cost"),
    ],
)
def test_settings_refuse_what_means_nothing(values: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(**values)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_settings_say_what_differs_from_the_default() -> None:
    assert Settings(batch=8, quick=True).to_json() == {"batch": (8,), "quick": True}
    assert Settings(precision="int8").precisions == ("float32", "int8")
    assert Settings(precision="auto", tolerance=0.1).precisions[0] == "float32"


def test_a_longer_budget_waits_longer_before_it_calls_anything_hung() -> None:
    quick, whole = Limits.quick(), Limits()
    assert Settings(quick=True).limits == quick
    assert Settings(quick=True, budget_s=6).limits == dataclasses.replace(quick, budget_s=6.0)
    assert Settings(quick=True, budget_s=24).limits.open_s == 2 * quick.open_s
    assert Settings(quick=True, budget_s=9000).limits == dataclasses.replace(
        quick, budget_s=9000.0, build_s=whole.build_s, open_s=whole.open_s, check_s=whole.check_s
    )
    assert Settings(budget_s=9000).limits == dataclasses.replace(whole, budget_s=9000.0)


def test_compile_answers_like_the_source(model_file: Path) -> None:
    with hasten.compile(model_file, engine="onnxruntime", settings=Settings(batch=(1, 8))) as model:
        x = np.random.default_rng(0).standard_normal((11, 4)).astype(np.float32)
        np.testing.assert_allclose(model.predict(x), small_onnx.expected(x), rtol=1e-5, atol=1e-6)
        assert model(x[:1]).shape == (1, 3)
        assert model(x[:0]).shape == (0, 3)
        assert model.info()["batches"] == [1, 8]


def test_compile_draws_rows_only_for_a_quantiser(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Path] = []
    plain = prepare.calibration
    monkeypatch.setattr(prepare, "calibration", lambda *given: drawn.append(plain(*given)) or drawn[-1])
    hasten.compile(model_file, engine="onnxruntime").close()
    assert not drawn
    hasten.compile(model_file, engine="onnxruntime", precision="int8").close()
    assert len(drawn) == 1


def test_compile_keeps_its_files_until_it_is_closed(model_file: Path, tmp_path: Path) -> None:
    model = hasten.compile(model_file, engine="onnxruntime")
    folder = Path(model.info()["path"]).parent
    saved = model.save(tmp_path / "saved.hasten")
    assert folder.is_dir()
    model.close()
    assert not folder.exists()
    assert hasten.load(saved)(np.ones((1, 4), np.float32)).shape == (1, 3)


def test_compile_lets_quantised_values_round_either_way(home: Path, tmp_path: Path) -> None:
    path = small_onnx.rounded(home / "rounded.onnx")
    with hasten.compile(path, engine="onnxruntime") as model:
        assert model(np.full((1, 4), 0.1, np.float32)).dtype == np.uint8
        model.save(tmp_path / "rounded.hasten")
    assert read(tmp_path / "rounded.hasten").tolerance["integer"] == 1


@pytest.mark.parametrize(("dtype", "absolute"), [("float16", 2e-3), ("float32", 1e-5)])
def test_compile_holds_a_source_that_computes_in_half_to_half(
    home: Path, tmp_path: Path, dtype: str, absolute: float
) -> None:
    path = small_onnx.inside(home / "inside.onnx", dtype)
    with hasten.compile(path, engine="native") as model:
        model.save(tmp_path / "inside.hasten")
    assert read(tmp_path / "inside.hasten").tolerance["absolute"] == absolute


def test_compile_several_inputs_by_name(home: Path) -> None:
    path = small_onnx.dense(home / "two.onnx", inputs=2)
    a, b = np.ones((3, 4), np.float32), np.full((3, 4), 2, np.float32)
    model = hasten.compile(path, engine="onnxruntime", sample={"x1": b, "x0": a})
    np.testing.assert_allclose(model.predict({"x0": a, "x1": b}), small_onnx.expected(a, b), rtol=1e-5)
    with pytest.raises(InputError, match="inputs disagree on the batch"):
        model.predict([a, b[:2]])


@pytest.mark.frameworks
@pytest.mark.parametrize("engine", ["keras", "litert"])
def test_compile_with_an_engine_that_calls_the_source_itself(engine: str, model_file: Path) -> None:
    keras = pytest.importorskip("keras")
    if engine_named(engine).missing() is not None:
        pytest.skip("not installed")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "tanh")])
    x = np.random.default_rng(0).standard_normal((1, 4)).astype(np.float32)
    with hasten.compile(model, engine=engine) as fast:
        np.testing.assert_allclose(fast(x), np.asarray(model(x)), rtol=1e-5, atol=1e-6)
    with pytest.raises(EngineError, match=rf"{engine} cannot run a model of onnx"):
        hasten.compile(model_file, engine=engine)


def test_compile_with_an_unknown_engine(model_file: Path) -> None:
    with pytest.raises(SettingsError, match="expected one of native"):
        hasten.compile(model_file, engine="turbo")


@pytest.mark.parametrize(
    "sample",
    [
        np.full((1, 4), np.nan, np.float32),
        np.full((2, 4), np.inf, np.float32),
        np.zeros((1, 5), np.float32),
        np.full((1, 4), 1e300),
        np.zeros((1, 4), np.complex128),
        (np.zeros((1, 4), np.float32), np.zeros((1, 4), np.float32)),
        {"z": np.zeros((1, 4), np.float32)},
        [["a", "b", "c", "d"]],
    ],
)
def test_samples_that_do_not_fit_are_refused(model_file: Path, sample: object) -> None:
    with pytest.raises((InputError, SourceError)) as caught:
        hasten.compile(model_file, engine="onnxruntime", sample=sample)
    assert "\n" not in str(caught.value)
    assert "expected" in str(caught.value)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int64", "uint8", "bool"])
def test_a_sample_of_another_dtype_is_converted(model_file: Path, dtype: str) -> None:
    sample = np.array([[1, 0, 2, 3]]).astype(dtype)
    source = open_source(model_file, SourceRequest())
    for given in (sample, sample.tolist(), (sample,), {"x": sample}):
        hasten.compile(model_file, engine="onnxruntime", sample=given).close()
        (taken,) = prepare.ordered(source, given) or ()
        assert taken.dtype == np.float32
        np.testing.assert_array_equal(taken, sample)


def test_whole_numbers_fit_their_input_or_are_refused(home: Path) -> None:
    path = small_onnx.lookup(home / "lookup.onnx")
    hasten.compile(path, engine="onnxruntime", sample=np.array([[1, 2]], np.int64)).close()
    with pytest.raises(InputError, match="expected values that fit int32, received 1 to 1099511627776"):
        hasten.compile(path, engine="onnxruntime", sample=np.array([[1, 2**40]], np.int64))
    with pytest.raises(InputError, match=r"expected int32\[batch, 2\], received float64\[1, 2\]"):
        hasten.compile(path, engine="onnxruntime", sample=np.array([[1.0, 2.0]]))


def test_random_models_are_refused(home: Path) -> None:
    with pytest.raises(NondeterministicError, match="random"):
        hasten.compile(small_onnx.random(home / "random.onnx"), engine="onnxruntime")


def test_batch_of_a_fixed_model_is_refused(home: Path) -> None:
    path = small_onnx.dense(home / "fixed.onnx", batch=1)
    with pytest.raises(SettingsError, match="this model's shapes are fixed"):
        hasten.compile(path, engine="onnxruntime", settings=Settings(batch=8))


def test_output_is_checked_before_the_work(model_file: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="No such file or directory"):
        hasten.optimize(model_file, output=tmp_path / "absent" / "m.hasten", settings=QUICK)
    with pytest.raises(BundleError, match="is a folder"):
        hasten.optimize(model_file, output=tmp_path, settings=QUICK)


@pytest.fixture(scope="module")
def optimised(home: Path, model_file: Path) -> tuple[Path, list[Event]]:
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    patch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    events: list[Event] = []
    settings = dataclasses.replace(QUICK, batch=(1, 4))
    study(model_file, output=home / "model.hasten", settings=settings, on_event=events.append)
    patch.undo()
    return home / "model.hasten", events


def test_optimize_ships_what_answers_like_the_source(optimised: tuple[Path, list[Event]]) -> None:
    path, events = optimised
    model = hasten.load(path)
    x = np.random.default_rng(1).standard_normal((9, 4)).astype(np.float32)
    np.testing.assert_allclose(model.predict(x), small_onnx.expected(x), rtol=1e-5, atol=1e-6)
    info = model.info()
    assert info["engine"] == "onnxruntime"
    assert info["batches"] == [1, 4]
    assert info["verdict"]["winner"]
    assert next(e.stage for e in events if e.kind == "step") == "reading the model"
    trials = [Trial.from_json(t) for t in read(path).measurements()["trials"]]
    assert {t.status for t in trials} <= {"ok", "skipped"}
    assert all(t.comparison is not None and t.comparison.passed for t in trials if t.status == "ok")


def test_a_second_run_resumes(optimised: tuple[Path, list[Event]], model_file: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    settings = dataclasses.replace(QUICK, batch=(1, 4))
    study(model_file, output=tmp_path / "again.hasten", settings=settings, on_event=events.append)
    done = [e.kind for e in events if e.trial is not None and e.trial.status == "ok"]
    assert "resumed" in done


def test_ctrl_c_keeps_and_writes_the_best_so_far(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(event: Event) -> None:
        trial = event.trial
        if (
            trial is not None
            and trial.status == "ok"
            and trial.artefact
            and trial.artefact.portable
            and trial.artefact.files
        ):
            raise KeyboardInterrupt

    outcome = study(model_file, output=tmp_path / "m.hasten", settings=QUICK, on_event=interrupt)
    assert outcome.interrupted
    assert any("interrupted" in note for note in outcome.report.notes)
    assert hasten.load(tmp_path / "m.hasten")(np.ones((1, 4), np.float32)).shape == (1, 3)


def test_ctrl_c_before_anything_passed_writes_nothing(model_file: Path, tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        if event.kind in ("started", "resumed"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="nothing was written"):
        study(
            model_file,
            output=tmp_path / "m.hasten",
            settings=dataclasses.replace(QUICK, fresh=True),
            on_event=interrupt,
        )
    assert not list(tmp_path.iterdir())


def test_when_nothing_passes_nothing_is_written(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(plan: object, on_event: object, builds: object) -> tuple[Trial, ...]:
        return ()

    monkeypatch.setattr(pipeline_module, "search", nothing)
    with pytest.raises(VerifyError, match="no candidate gave the source's answers"):
        study(model_file, output=tmp_path / "m.hasten", settings=QUICK)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [({}, 0.0, 2e-6), ({"precision": "bfloat16"}, 1e-4, 4e-2), ({"math": "fast"}, 0.0, 2e-6)],
)
def test_the_source_is_asked_what_rounding_changes(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], least: float, most: float
) -> None:
    seen: dict[str, float] = {}

    def looked_at(plan: Plan, on_event: object, builds: object) -> tuple[Trial, ...]:
        checks = plan.checks[1]
        for name, given, near in zip(checks.names, checks.read_expected(), checks.read_nearby(), strict=True):
            seen[name] = float(np.abs(given[0] - near[0]).max() / np.abs(given[0]).max())
        return ()

    monkeypatch.setattr(pipeline_module, "search", looked_at)
    with pytest.raises(VerifyError):
        study(model_file, output=tmp_path / "m.hasten", settings=dataclasses.replace(QUICK, **asked))
    assert seen["ones"] == seen["zeros"] == 0.0
    assert least < max(seen.values()) < most


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_tolerance_of_ones_own_is_held_as_it_is(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    seen: list[Plan] = []

    def looked_at(plan: Plan, on_event: object, builds: object) -> tuple[Trial, ...]:
        seen.append(plan)
        return ()

    monkeypatch.setattr(pipeline_module, "search", looked_at)
    own = dataclasses.replace(QUICK, precision=precision, tolerance=1e-2)
    with pytest.raises(VerifyError):
        study(model_file, output=tmp_path / "m.hasten", settings=own)
    assert seen[0].checks[1].nearby is None


def test_when_nothing_keeps_within_the_bounds_they_are_named(model_file: Path, tmp_path: Path) -> None:
    with pytest.raises(VerifyError, match=r"candidates keeps within latency 0.001 µs; the nearest"):
        study(model_file, output=tmp_path / "m.hasten", settings=dataclasses.replace(QUICK, max_latency_ns=1.0))
    assert not list(tmp_path.iterdir())


def test_labelled_data(home: Path, model_file: Path) -> None:
    from hasten.api.prepare import read_labels, request
    from hasten.sources.detect import open_source

    source = open_source(model_file, request(None, QUICK, home))
    x = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
    np.savez(home / "good.npz", x=x, y=small_onnx.expected(x).argmax(1))
    assert len(read_labels(source, home / "good.npz").labels) == 20
    for name, arrays in {"short": {"x": x[:3], "y": x[:, 0]}, "bare": {"x": x}, "other": {"q": x, "y": x}}.items():
        np.savez(home / f"{name}.npz", **arrays)
        with pytest.raises(InputError, match="labelled data"):
            read_labels(source, home / f"{name}.npz")
    (home / "text.npz").write_text("no arrays here")
    with pytest.raises(InputError, match="cannot read labelled data"):
        read_labels(source, home / "text.npz")


def test_a_nested_sample_is_refused_by_name_where_the_model_takes_none(model_file: Path) -> None:
    x = np.zeros((1, 3), np.float32)
    with pytest.raises(SourceError, match="shape given for unknown input 'batch_left': expected one of x"):
        hasten.compile(model_file, engine="onnxruntime", sample={"batch": {"left": x, "right": x}})
    with pytest.raises(InputError, match=r"sample 'batch\.left': expected numbers, received dtype <U1"):
        hasten.compile(model_file, engine="onnxruntime", sample={"batch": {"left": np.array(["a"]), "right": x}})
    with pytest.raises(InputError, match="sample 'x': expected an array, received object"):
        hasten.compile(model_file, engine="onnxruntime", sample={"x": object()})


def test_a_lower_precision_under_labelled_data(home: Path, model_file: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)
    np.savez(home / "data.npz", x=x, y=small_onnx.expected(x).argmax(1))
    settings = dataclasses.replace(QUICK, precision="int8-dynamic", data=home / "data.npz", max_drop=0.5)
    outcome = study(model_file, output=tmp_path / "m.hasten", settings=settings)
    lower = [t for t in outcome.report.trials if t.candidate.precision == "int8-dynamic"]
    assert lower
    judged = [t for t in lower if t.status == "ok"]
    assert all(t.comparison is not None and t.comparison.metric for t in judged)
    np.testing.assert_array_equal(hasten.load(tmp_path / "m.hasten").predict(x).argmax(1).shape, (60,))


def test_import_and_load_stay_light(optimised: tuple[Path, list[Event]]) -> None:
    code = (
        "import sys, numpy as np, hasten; hasten.__version__; assert 'onnxruntime' not in sys.modules;"
        "m = hasten.load(sys.argv[1]); m(np.ones((1, 4), np.float32));"
        "bad = {'onnx', 'onnx_ir', 'typer', 'rich', 'tensorflow', 'torch', 'keras', 'openvino'} & set(sys.modules);"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code, str(optimised[0])], check=True)


def test_a_bundle_rebuilds_for_another_engine(optimised: tuple[Path, list[Event]]) -> None:
    pytest.importorskip("openvino")
    model = hasten.load(optimised[0], engine="openvino")
    x = np.ones((1, 4), np.float32)
    np.testing.assert_allclose(model(x), small_onnx.expected(x), rtol=1e-5)
    assert model.info()["engine"] == "openvino"
