"""Every kind of bad input: one clear line, exit code 2, no traceback, nothing half-written."""

from __future__ import annotations

import json
import resource
import zipfile
from pathlib import Path

import numpy as np
import pytest
from program import Run

import hasten
import small_onnx
from hasten.bundle import FORMAT, write
from hasten.bundle.contents import MANIFEST

FAST = ("--quick", "--engine", "onnxruntime", "--threads", "1", "--no-report")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bad")


@pytest.fixture(scope="module")
def model(home: Path) -> Path:
    return small_onnx.dense(home / "model.onnx")


@pytest.fixture(scope="module")
def two(home: Path) -> Path:
    """A bundle with two inputs."""
    path = small_onnx.dense(home / "two.onnx", inputs=2)
    return hasten.compile(path, engine="onnxruntime").save(home / "two.hasten")


@pytest.fixture(scope="module")
def bundle(home: Path, model: Path) -> Path:
    return hasten.compile(model, engine="onnxruntime").save(home / "model.hasten")


def refused(run: Run, *arguments: object, says: str, folder: Path) -> None:
    """The contract of every row."""
    before = {p: p.stat().st_size for p in folder.rglob("*")}
    ran = run(*arguments)
    assert ran.code == 2, ran
    told = [line for line in ran.err.splitlines() if line.startswith("hasten: ")]
    assert len(told) == 1, ran.err
    assert says in told[0], told[0]
    assert "Traceback" not in ran.err + ran.out
    assert ran.out == ""
    assert {p: p.stat().st_size for p in folder.rglob("*")} == before, "something was written"


def test_missing_file(run: Run, tmp_path: Path) -> None:
    refused(
        run,
        "optimize",
        tmp_path / "none.keras",
        *FAST,
        "-o",
        tmp_path / "o.hasten",
        says="no such file",
        folder=tmp_path,
    )


def test_empty_file(run: Run, tmp_path: Path) -> None:
    for name in ("empty.keras", "empty.onnx", "empty.tflite"):
        (tmp_path / name).touch()
        refused(run, "optimize", tmp_path / name, *FAST, says="empty file", folder=tmp_path)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_file(run: Run, model: Path, tmp_path: Path, share: float) -> None:
    data = model.read_bytes()
    (tmp_path / "cut.onnx").write_bytes(data[: int(len(data) * share)])
    refused(run, "optimize", tmp_path / "cut.onnx", *FAST, says="cut.onnx", folder=tmp_path)


def test_a_wrong_ending_is_seen_through(run: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes(model.read_bytes())
    ran = run("bench", tmp_path / "model.keras", *FAST[:-1], "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["framework"] == "onnx"


def test_not_a_model(run: Run, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(range(256)) * 4)
    (tmp_path / "notes.onnx").write_text("Dear diary, " * 50)
    (tmp_path / "archive.keras").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "archive.keras", "w") as archive:
        archive.writestr("hello.txt", "hello")
    for name in ("photo.jpg", "notes.onnx", "archive.keras"):
        refused(run, "optimize", tmp_path / name, *FAST, says=name, folder=tmp_path)
    refused(run, "optimize", tmp_path, *FAST, "-o", "o.hasten", says="SavedModel", folder=tmp_path)


def test_unknown_operator(run: Run, tmp_path: Path) -> None:
    path = small_onnx.unknown_operator(tmp_path / "odd.onnx")
    refused(run, "optimize", path, *FAST, says="Frobnicate", folder=tmp_path)


@pytest.mark.frameworks
def test_custom_layer_without_its_code(run: Run, tmp_path: Path) -> None:
    import keras

    class Strange(keras.layers.Layer):
        def call(self, x: object) -> object:
            return x

    model = keras.Sequential([keras.layers.Input((4,)), Strange(), keras.layers.Dense(2)])
    model.save(tmp_path / "custom.keras")
    refused(run, "optimize", tmp_path / "custom.keras", *FAST, says="Strange", folder=tmp_path)


@pytest.mark.frameworks
def test_a_model_that_needs_trust(run: Run, tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Lambda(lambda x: x * 2), keras.layers.Dense(2)])
    model.save(tmp_path / "lambda.keras")
    refused(run, "optimize", tmp_path / "lambda.keras", *FAST, says="trust", folder=tmp_path)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((1, 5), np.float32), "expected 4 in dimension 1, received 5"),
        (np.zeros((1, 4), np.complex64), "complex64"),
        (np.full((1, 4), 1e300), "expected numbers that float32 holds"),
        (np.full((1, 4), np.nan, np.float32), "NaN"),
        (np.zeros((4,), np.float32), "expected 2 dimensions, received 1"),
    ],
)
def test_samples_that_do_not_fit(run: Run, model: Path, tmp_path: Path, array: np.ndarray, says: str) -> None:
    np.save(tmp_path / "x.npy", array)
    refused(run, "optimize", model, *FAST, "--sample", tmp_path / "x.npy", says=says, folder=tmp_path)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((2, 5), np.float32), "expected float32[batch, 4], received float32[2, 5]"),
        (np.zeros((2, 4), np.complex64), "received complex64[2, 4]"),
        (np.array([["a", "b", "c", "d"]]), "expected float32[batch, 4], received text[1, 4]"),
        (np.full((3, 4), np.nan, np.float32), "received 12 NaN in the rows, the first in row 0"),
    ],
)
def test_rows_that_do_not_fit(run: Run, bundle: Path, tmp_path: Path, array: np.ndarray, says: str) -> None:
    np.save(tmp_path / "x.npy", array)
    refused(run, "predict", bundle, tmp_path / "x.npy", says=says, folder=tmp_path)


X, Y = np.zeros((2, 4), np.float32), np.array([0, 1])


def damaged(path: Path) -> Path:
    """An archive whose array is not what its checksum says."""
    data = bytearray(path.read_bytes())
    data[200] ^= 255
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"a": X}, "expected arrays x and y, received a"),
        ({"x": np.zeros((2, 5), np.float32), "y": Y}, "expected x: float32[batch, 4] with one row per label (2)"),
        ({"x": X, "y": np.arange(3)}, "with one row per label (3), received float32[2, 4]"),
        ({"x": X[:0], "y": Y[:0]}, "with one row per label (0)"),
        ({"x": np.array(["a", "b"]), "y": Y}, "received <U1[2]"),
        ({"x": X.astype(np.complex64), "y": Y}, "received complex64[2, 4]"),
        ({"x": X, "y": np.int64(0)}, "expected one label per row in 'y', received a single one"),
        ({"x": X, "y": np.array(["a", "b"])}, "expected finite numbers for labels, received <U1[2]"),
        ({"x": X, "y": np.array([0, np.nan])}, "expected finite numbers for labels, received NaN"),
        ({"x": X, "y": np.zeros((2, 3, 4))}, "metric 'accuracy' takes no labels of float64[2, 3, 4]"),
        ({"x": X, "y": np.array([{}, {}])}, "expected an .npz of plain arrays"),
    ],
)
def test_labelled_rows_that_do_not_fit(
    run: Run, model: Path, tmp_path: Path, arrays: dict[str, np.ndarray], says: str
) -> None:
    np.savez(tmp_path / "rows.npz", **arrays)
    options = ("--data", tmp_path / "rows.npz", "-o", tmp_path / "o.hasten")
    refused(run, "optimize", model, *FAST, *options, says=says, folder=tmp_path)


def test_samples_and_labelled_rows_in_damaged_archives(run: Run, model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", X)
    np.savez(tmp_path / "cut.npz", x=X, y=Y)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:150])
    np.savez(tmp_path / "flipped.npz", x=X, y=Y)
    damaged(tmp_path / "flipped.npz")
    for name in ("one.npy", "cut.npz", "flipped.npz"):
        for option in ("--data", "--sample")[: 1 if name == "one.npy" else 2]:
            options = (option, tmp_path / name, "-o", tmp_path / "o.hasten")
            refused(run, "optimize", model, *FAST, *options, says="cannot read", folder=tmp_path)


def test_wrong_number_of_inputs(run: Run, two: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 4), np.float32))
    refused(run, "predict", two, tmp_path / "x.npy", says="with arrays named 'x0', 'x1'", folder=tmp_path)
    np.savez(tmp_path / "x.npz", x0=np.zeros((2, 4), np.float32))
    refused(run, "predict", two, tmp_path / "x.npz", says="named 'x0', 'x1', received 'x0'", folder=tmp_path)


def test_two_inputs_of_unlike_batch(run: Run, two: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x0=np.zeros((2, 4), np.float32), x1=np.zeros((3, 4), np.float32))
    refused(
        run, "predict", two, tmp_path / "x.npz", says="'x0' has 2 rows, 'x1' has 3", folder=tmp_path
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content"),
    [("x.npy", b"no array"), ("x.npz", b"no arrays"), ("x.csv", b"a,b\n1,two\n"), ("x.json", b"{"), ("x.txt", b"1 2")],
)
def test_rows_in_damaged_files(run: Run, bundle: Path, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    refused(run, "predict", bundle, tmp_path / name, says="cannot read", folder=tmp_path)
    refused(run, "predict", bundle, tmp_path / "absent.npy", says="no such file", folder=tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [("a,b\n1,2\n\n3\n", "line 4 has 1 columns where the first row has 2"), ("1,x\n2,y\n", "line 2 holds 'y'")],
)
def test_a_bad_line_of_a_table_is_named(run: Run, bundle: Path, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    refused(run, "predict", bundle, tmp_path / "x.csv", says=says, folder=tmp_path)


def test_an_unknown_engine(run: Run, bundle: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 4), np.float32))
    says = "unknown engine 'fast': expected one of native, onnxruntime"
    refused(run, "predict", bundle, tmp_path / "x.npy", "--engine", "fast", says=says, folder=tmp_path)


def test_pickled_rows_are_not_unpickled(run: Run, bundle: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    refused(run, "predict", bundle, tmp_path / "x.npy", says="cannot read", folder=tmp_path)


def test_disk_full(run: Run, model: Path, tmp_path: Path) -> None:
    """A limit on file sizes stands in for a full disk: both end in an OSError while writing."""
    ran = run("optimize", model, *FAST, "-o", tmp_path / "first.hasten")
    assert ran.code == 0, ran.err
    kept = (tmp_path / "first.hasten").read_bytes()
    original = write

    def limited(*arguments: object) -> object:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            return original(*arguments)  # type: ignore[arg-type]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    patch = pytest.MonkeyPatch()
    patch.setattr("hasten.bundle.write", limited)
    try:
        refused(
            run, "optimize", model, *FAST, "-o", tmp_path / "first.hasten", says="cannot write bundle", folder=tmp_path
        )
    finally:
        patch.undo()
    assert (tmp_path / "first.hasten").read_bytes() == kept


def test_unwritable_output(run: Run, model: Path, bundle: Path, tmp_path: Path) -> None:
    refused(run, "optimize", model, *FAST, "-o", tmp_path / "no" / "m.hasten", says="cannot write", folder=tmp_path)
    refused(run, "optimize", model, *FAST, "-o", tmp_path, says="is a folder", folder=tmp_path)
    np.save(tmp_path / "x.npy", np.zeros((2, 4), np.float32))
    refused(
        run,
        "predict",
        bundle,
        tmp_path / "x.npy",
        "-o",
        tmp_path / "no" / "y.npy",
        says="cannot write",
        folder=tmp_path,
    )
    refused(run, "predict", bundle, tmp_path / "x.npy", "-o", tmp_path / "y.txt", says="expected .npy", folder=tmp_path)


def test_bundle_with_a_flipped_byte(run: Run, bundle: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 4), np.float32))
    data = bundle.read_bytes()
    for at in np.linspace(0, len(data) - 1, 25).astype(int):
        (tmp_path / "flipped.hasten").write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        refused(run, "predict", tmp_path / "flipped.hasten", tmp_path / "x.npy", says="flipped.hasten", folder=tmp_path)
        refused(run, "info", tmp_path / "flipped.hasten", says="flipped.hasten", folder=tmp_path)


def test_bundle_of_a_newer_format(run: Run, bundle: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(tmp_path / "new.hasten", "w") as new:
        manifest = json.loads(old.read(MANIFEST)) | {"format": FORMAT + 1}
        new.writestr(MANIFEST, json.dumps(manifest))
    refused(run, "info", tmp_path / "new.hasten", says="pip install -U hasten", folder=tmp_path)


def test_what_is_no_bundle(run: Run, model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 4), np.float32))
    refused(run, "predict", model, tmp_path / "x.npy", says="expected a .hasten bundle", folder=tmp_path)
    refused(run, "info", tmp_path / "none.hasten", says="No such file", folder=tmp_path)


def test_a_bundle_is_not_optimised_again(run: Run, bundle: Path, tmp_path: Path) -> None:
    refused(run, "optimize", bundle, *FAST, "-o", tmp_path / "o.hasten", says="it is a bundle already", folder=tmp_path)


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--batch", "1,x", "--batch: expected whole numbers such as 1,8,32, received '1,x'"),
        ("--batch", "0", "batch: expected whole numbers of at least 1"),
        ("--shape", "1,2", "--shape: expected NAME=DIMENSIONS"),
        ("--shape", "z=1,4", "unknown input 'z'"),
        ("--objective", "p95", "objective: expected one of p50"),
        ("--max-latency", "5", "--max-latency: expected a number with its unit such as 5ms"),
        ("--max-memory", "lots", "--max-memory: expected a number with its unit such as 50MB"),
        ("--precision", "fp16", "precision: expected one of float32"),
        ("--engine", "turbo", "engine: expected one of native"),
        ("--metric", "f1", "metric: expected one of accuracy"),
        ("--tolerance", "-1", "tolerance: expected a number above 0"),
        ("--sample", "nowhere.npy", "no such file"),
    ],
)
def test_misspelt_values(run: Run, model: Path, tmp_path: Path, option: str, value: str, says: str) -> None:
    refused(run, "optimize", model, *FAST, "-o", tmp_path / "o", option, value, says=says, folder=tmp_path)


def test_debug_shows_the_traceback(run: Run, tmp_path: Path) -> None:
    with pytest.raises(hasten.HastenError):
        run("info", tmp_path / "none.hasten", "--debug")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["optimise"], "Did you mean 'optimize'; see hasten --help"),
        (["info", "--frobnicate"], "No such option: --frobnicate; see hasten info --help"),
        (["info"], "Missing argument 'bundle'; see hasten info --help"),
        (["optimize", "m.onnx", "--seed", "x"], "Invalid value for '--seed'"),
    ],
)
def test_a_misspelt_command_line_is_told_in_one_line(run: Run, tmp_path: Path, arguments: list[str], says: str) -> None:
    refused(run, *arguments, says=says, folder=tmp_path)
    assert len(run(*arguments).err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["optimize", "none.keras", "--frobnicate"],
        ["bench", "none.keras"],
        ["explain", "none.hasten"],
        ["export", "none.hasten", "-o", "lib"],
        ["predict", "none.hasten", "x.npy"],
        ["info", "none.hasten"],
        ["doctor", "none.py"],
    ],
)
def test_errors_are_json_where_json_was_asked_for(run: Run, tmp_path: Path, arguments: list[str]) -> None:
    command, *rest = arguments
    ran = run(command, *(tmp_path / name if name.startswith(("none", "lib")) else name for name in rest), "--json")
    (told,) = [line for line in ran.err.splitlines() if line.startswith("hasten: ")]
    assert ran.code == 2
    assert json.loads(ran.out) == {"error": told.removeprefix("hasten: ")}
    assert not list(tmp_path.iterdir())
