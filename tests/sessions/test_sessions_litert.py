"""LiteRT candidates: a TFLite file as it is, Keras models converted at a fixed batch, state set and read by name."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from hasten.engines import BuildRequest, Offer
from hasten.engines.litert import ENGINE
from hasten.errors import EngineError
from hasten.records import Artefact, Candidate, to_json
from hasten.sessions import Session, open_session
from hasten.types import TensorSpec

FILE = (("form", "file"),)


def svdf_file() -> bytes:
    import sys

    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sources"))
    from tflite_builder import FileOf

    file, rng = FileOf(), np.random.default_rng(0)
    x, y, state = file.tensor((1, 5)), file.tensor((1, 4)), file.tensor((1, 24), variable=True)
    weights = [file.constant(rng.standard_normal(shape).astype(np.float32)) for shape in ((8, 5), (8, 3))]
    file.operator("SVDF", [x, *weights, -1, state], [y], ("SVDFOptions", {"rank": 2, "fusedActivationFunction": 0}))
    return file.to_bytes([x], [y])


def request(folder: Path, source: Path, specs: tuple[TensorSpec, TensorSpec], **more: Any) -> BuildRequest:
    framework = more.pop("framework", "tflite")
    candidate = Candidate(
        "litert", more.pop("precision", "float32"), more.pop("threads", 1), more.pop("batch", 1), FILE
    )
    ins, outs = ((specs[0],), (specs[1],))
    return BuildRequest(candidate, None, source, framework, ins, outs, folder, **more)


def build(asked: BuildRequest) -> Session:
    made = ENGINE.build(asked)
    assert made.nbytes > 0 and made.portable
    return open_session(Artefact.from_json(to_json(made), made.folder))


def test_what_is_offered() -> None:
    offer = Offer("tflite", ".tflite", has_graph=True, precisions=("float32",), threads=(1, 2))
    assert [c.label for c in ENGINE.candidates(offer)] == [
        "litert file",
        "litert file without XNNPACK",
        "litert file 2t",
    ]
    assert len(ENGINE.candidates(dataclasses.replace(offer, quick=True))) == 2
    keras = dataclasses.replace(offer, framework="keras", precisions=("float32", "bfloat16", "int8-dynamic"))
    assert {c.precision for c in ENGINE.candidates(keras)} == {"float32", "int8-dynamic"}
    assert ENGINE.candidates(dataclasses.replace(offer, framework="torch")) == ()
    assert ENGINE.missing() is None


def test_a_file_runs_as_it_is_and_answers_are_fresh(shared_models: Path, tmp_path: Path) -> None:
    specs = TensorSpec("x", "float32", (1, 20)), TensorSpec("y", "float32", (1, 2))
    session = build(request(tmp_path, shared_models / "seeds" / "mlp20.tflite", specs))
    x = np.random.default_rng(0).standard_normal((1, 20)).astype(np.float32)
    first = session.call(x)
    kept = first.copy()
    second = session.call(-x)
    np.testing.assert_array_equal(first, kept)
    assert not np.array_equal(first, second) and not np.shares_memory(first, second)
    assert first.dtype == np.float32 and first.shape == (1, 2)
    session.close()
    with pytest.raises(EngineError, match="closed"):
        session.call(x)


def test_a_free_batch_is_resized(shared_models: Path, tmp_path: Path) -> None:
    source = shared_models / "seeds" / "mlp20.tflite"
    x = np.random.default_rng(0).standard_normal((8, 20)).astype(np.float32)
    one = build(
        request(tmp_path / "1", source, (TensorSpec("x", "float32", (1, 20)), TensorSpec("y", "float32", (1, 2))))
    )
    specs = TensorSpec("x", "float32", (8, 20)), TensorSpec("y", "float32", (8, 2))
    eight = build(request(tmp_path / "8", source, specs, batch=8, threads=2))
    np.testing.assert_allclose(eight.call(x), np.concatenate([one.call(x[i : i + 1]) for i in range(8)]), atol=1e-6)


def test_recurrent_state_is_reset_before_every_call(shared_models: Path, tmp_path: Path) -> None:
    specs = TensorSpec("x", "float32", (1, 28, 28)), TensorSpec("y", "float32", (1, 10))
    session = build(request(tmp_path, shared_models / "real" / "mnist_lstm.tflite", specs))
    a, b = np.random.default_rng(0).standard_normal((2, 1, 28, 28)).astype(np.float32)
    first = session.call(a)
    session.call(b)
    np.testing.assert_array_equal(session.call(a), first)


def test_int8_files_keep_their_dtypes(shared_models: Path, tmp_path: Path) -> None:
    specs = TensorSpec("x", "int8", (1, 49, 10, 1)), TensorSpec("y", "int8", (1, 12))
    session = build(request(tmp_path, shared_models / "real" / "kws_int8.tflite", specs))
    answer = session.call(np.zeros((1, 49, 10, 1), np.int8))
    assert answer.dtype == np.int8 and answer.shape == (1, 12)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "bad.tflite"
    source.write_bytes(b"\x1c\0\0\0TFL3" + bytes(100))
    specs = TensorSpec("x", "float32", (1, 20)), TensorSpec("y", "float32", (1, 2))
    with pytest.raises(EngineError, match="litert: cannot run the model"):
        ENGINE.build(request(tmp_path / "out", source, specs))


@pytest.mark.frameworks
def test_state_that_is_a_port_is_set_and_read(tmp_path: Path) -> None:
    from hasten.sources import SourceRequest
    from hasten.sources.samples import samples
    from hasten.sources.tflite import open_tflite

    path = tmp_path / "svdf.tflite"
    path.write_bytes(svdf_file())
    source = open_tflite(path, SourceRequest(work=tmp_path / "work"))
    candidate = Candidate("litert", options=FILE)
    asked = BuildRequest(candidate, None, source.path, "tflite", source.inputs, source.outputs, tmp_path / "built")
    session = open_session(ENGINE.build(asked))
    for arrays in samples(source, SourceRequest(), 0, 3):
        for mine, theirs in zip(session.call(*arrays), source.reference(arrays), strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-6)


@pytest.fixture(scope="module")
def keras_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    keras = pytest.importorskip("keras")
    folder, layers = tmp_path_factory.mktemp("keras"), keras.layers
    keras.utils.set_random_seed(0)
    lstm = keras.Sequential([keras.Input((6, 3)), layers.LSTM(5), layers.Dense(2)])
    a, b = keras.Input((4,), name="zebra"), keras.Input((4,), name="ant")
    two = keras.Model({"zebra": a, "ant": b}, {"y": layers.Dense(3)(a) - b[:, :3], "x": layers.Dense(2)(b)})
    for name, model in (("lstm", lstm), ("two", two)):
        model.save(folder / f"{name}.keras")
    return {name: folder / f"{name}.keras" for name in ("lstm", "two")}


@pytest.mark.frameworks
@pytest.mark.parametrize(("precision", "atol"), [("float32", 1e-6), ("float16", 1e-3), ("int8-dynamic", 5e-2)])
def test_a_keras_lstm_converts_without_flex(keras_files: Any, tmp_path: Path, precision: str, atol: float) -> None:
    import keras

    specs = TensorSpec("x", "float32", (1, 6, 3)), TensorSpec("y", "float32", (1, 2))
    session = build(request(tmp_path, keras_files["lstm"], specs, framework="keras", precision=precision))
    x = np.random.default_rng(0).standard_normal((1, 6, 3)).astype(np.float32)
    wanted = keras.saving.load_model(keras_files["lstm"])(x).numpy()
    np.testing.assert_allclose(session.call(x), wanted, atol=atol)


@pytest.mark.frameworks
def test_named_inputs_and_outputs_keep_their_order(keras_files: Any, tmp_path: Path) -> None:
    import keras

    model = keras.saving.load_model(keras_files["two"])
    names = [tensor.name for tensor in keras.tree.flatten(model._inputs_struct)]
    ins = tuple(TensorSpec(name, "float32", (1, 4)) for name in names)
    rng = np.random.default_rng(0)
    given = {name: rng.standard_normal((1, 4)).astype(np.float32) for name in names}
    wanted = keras.tree.flatten(model(given))
    outs = tuple(TensorSpec(f"y{i}", "float32", tuple(y.shape)) for i, y in enumerate(wanted))
    asked = BuildRequest(Candidate("litert"), None, keras_files["two"], "keras", ins, outs, tmp_path)
    answers = open_session(ENGINE.build(asked)).call(*(given[name] for name in names))
    for mine, theirs in zip(answers, wanted, strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), atol=1e-6)


@pytest.mark.frameworks
def test_int8_needs_calibration_data(keras_files: Any, tmp_path: Path) -> None:
    specs = TensorSpec("x", "float32", (1, 6, 3)), TensorSpec("y", "float32", (1, 2))
    with pytest.raises(EngineError, match="int8 needs calibration data"):
        build(request(tmp_path, keras_files["lstm"], specs, framework="keras", precision="int8"))
