"""What a bundle holds of an int8 winner is enough to explain it, to export it and to build it for another host."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import hasten
from hasten import host
from hasten.api import Settings, study
from hasten.api.explaining import explain
from hasten.bundle import Bundle, Contents, Entry, read, write
from hasten.bundle.unpack import unpack
from hasten.errors import SettingsError
from hasten.runtime.rebuild import rebuild
from hasten.sessions.native import open_session
from hasten.types import Array

SIDE, CHANNELS, CLASSES, ROWS = 16, 8, 16, 200


@pytest.fixture(scope="module", autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> object:
    """Caches and the signing key of these tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
        yield


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small CNN, and rows with the classes that it gives them."""
    folder, rng = tmp_path_factory.mktemp("cnn"), np.random.default_rng(0)
    weights = {
        "k": rng.standard_normal((CHANNELS, 1, 3, 3)) / 3,
        "b": rng.standard_normal(CHANNELS) / 9,
        "d": rng.standard_normal((CHANNELS * SIDE * SIDE, CLASSES)) / 45,
    }
    nodes = [
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Conv", ["same", "k", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("MatMul", ["f", "d"], ["l"]),
        helper.make_node("Softmax", ["l"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "cnn",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )  # fmt: skip
    path, data = folder / "cnn.onnx", folder / "labelled.npz"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    x = rng.standard_normal((ROWS, 1, SIDE, SIDE)).astype(np.float32)
    (y,) = onnxruntime.InferenceSession(path).run(None, {"x": x})
    np.savez(data, x=x, y=y.argmax(1))
    return path, data


def optimised(labelled: tuple[Path, Path], precision: str, output: Path) -> Path:
    """The bundle of the smallest candidate that keeps the accuracy: no clock decides."""
    path, data = labelled
    settings = Settings(
        precision=precision, data=data, max_drop=0.1, objective="size", engines=("native",), threads=1, quick=True,
        budget_s=240,
    )  # fmt: skip
    study(path, output=output, settings=settings)
    return output


@pytest.fixture(scope="module")
def int8(labelled: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = optimised(labelled, "int8", tmp_path_factory.mktemp("int8") / "cnn.hasten")
    assert read(path).entries[0].artefact.candidate.precision == "int8"
    return path


def rows(labelled: tuple[Path, Path]) -> list[Array]:
    with np.load(labelled[1]) as file:
        return [np.ascontiguousarray(row[None]) for row in file["x"]]


def answers_in_c(folder: Path, given: list[Array]) -> list[Array]:
    """What the exported sources answer, built by gcc."""
    build = ["gcc", "-O2", "-shared", "-fPIC", "cnn.c", "cnn_weights.c", "-lm", "-o", "own.so"]
    subprocess.run(build, cwd=folder, check=True)
    library = ctypes.CDLL(str(folder / "own.so"))
    arena, made = np.zeros((1 << 20) + 64, np.uint8), []
    start = ctypes.c_void_p((arena.ctypes.data + 63) // 64 * 64)
    library.cnn_init(start)
    for x in given:
        y = np.zeros((1, CLASSES), np.float32)
        library.cnn_run(start, ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data))
        made.append(y)
    return made


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here")
@pytest.mark.parametrize("precision", ["int8", "auto"])
def test_what_won_by_accuracy_is_exported_with_its_own_answers(
    labelled: tuple[Path, Path], tmp_path: Path, request: pytest.FixtureRequest, precision: str
) -> None:
    path = tmp_path / "cnn.hasten"
    path = request.getfixturevalue("int8") if precision == "int8" else optimised(labelled, precision, path)
    assert read(path).entries[0].artefact.candidate.precision != "float32"
    hasten.export(path, tmp_path / "lib", target="c")
    given = rows(labelled)
    found = answers_in_c(tmp_path / "lib", given)
    # One step of an int8 activation would be a thousand times as much as this: only the softmax rounds in float32.
    with hasten.load(path) as model:
        np.testing.assert_allclose(np.concatenate(found), np.concatenate([model(x) for x in given]), rtol=0, atol=5e-7)


def test_int8_is_exported_for_another_processor(int8: Path, tmp_path: Path) -> None:
    hasten.export(int8, tmp_path / "lib", target="aarch64-linux-gnu")
    assert "int8_t" in (tmp_path / "lib" / "cnn.c").read_text()
    assert (tmp_path / "lib" / "libcnn.a").stat().st_size > 0


def test_int8_is_explained_as_it_runs(int8: Path) -> None:
    found = explain(int8)
    assert (found.candidate, found.note) == ("native int8", "")
    assert "int8_t" in found.profile.source


def test_the_kept_graph_is_no_part_of_the_size_that_is_chosen_by(int8: Path) -> None:
    opened = read(int8)
    artefact = unpack(opened, opened.entries[0])
    kept = opened.entries[0].graph_member
    assert kept is not None
    everything = sum((artefact.folder / name).stat().st_size for name in artefact.files)
    assert artefact.nbytes == everything - len(opened.member(kept))


def test_int8_is_built_for_another_host_from_what_the_bundle_holds(
    int8: Path, labelled: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    opened = read(int8)
    made = open_session(rebuild(opened, opened.entries[0].artefact.candidate))
    with hasten.load(int8) as model:
        for x in rows(labelled)[:20]:
            np.testing.assert_array_equal(made.call(x), model(x))


def test_what_won_by_accuracy_loads_on_another_host(
    int8: Path, labelled: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stored answers are asked there: edges far from the rows that it was calibrated with are not among them."""
    (x, *_), (expected, *_) = zip(*read(int8).checks(), strict=True)
    monkeypatch.setattr(host, "host_key", lambda: "another")
    with hasten.load(int8) as model:
        assert model.info()["precision"] == "int8" and not model.info()["host_match"]
        np.testing.assert_allclose(model(*x), expected[0], rtol=0, atol=0.1)


def older(opened: Bundle, path: Path) -> Path:
    """The same bundle as a hasten would have written it that did not keep quantised graphs."""
    entries = []
    for entry in opened.entries:
        artefact = unpack(opened, entry)
        details = {name: value for name, value in artefact.details.items() if name != "graph"}
        files = tuple(name for name in artefact.files if name != artefact.details.get("graph"))
        entries.append(Entry(replace(artefact, files=files, details=details), entry.role))
    samples, expected = zip(*opened.checks(), strict=True)
    specs = opened.inputs, opened.outputs
    graph, tolerance = opened.graph(), opened.tolerance
    return write(path, Contents(*specs, tuple(entries), graph, samples, expected, tolerance, opened.facts))


def test_int8_of_an_older_bundle_is_explained_with_a_note_and_not_exported(int8: Path, tmp_path: Path) -> None:
    """It does not hold the rows that set its ranges either: with others it would not be the same program."""
    path = older(read(int8), tmp_path / "older.hasten")
    found = explain(path)
    assert "int8_t" in found.profile.source and "calibrated" in found.note
    with pytest.raises(SettingsError, match="by an older hasten, does not hold"):
        hasten.export(path, tmp_path / "lib", target="c")
    assert not (tmp_path / "lib").exists()
    with hasten.load(path, trust=True) as model:
        assert model.info()["precision"] == "int8"
