"""What a thing is decides who reads it; every bad input is one clear line."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hasten.errors import SourceError
from hasten.sources import SourceRequest
from hasten.sources.detect import kind_of_file, kind_of_object, open_source

REQUEST = SourceRequest()


def tiny_onnx() -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def zip_of(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return path


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (("config.json", "metadata.json", "model.weights.h5"), "keras"),
        (("m/data.pkl", "m/code/x.py", "m/constants.pkl"), "torch"),
        (("m/data.pkl", "m/data/0"), "torch"),
        (("m/archive_format", "m/models/model.json"), "torch"),
    ],
)
def test_archives_are_told_apart_by_what_they_hold(tmp_path: Path, names: tuple[str, ...], kind: str) -> None:
    assert kind_of_file(zip_of(tmp_path / "model.bin", *names)) == kind


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "keras"),
        (b"\x1c\0\0\0TFL3" + bytes(64), "tflite"),
        (json.dumps({"class_name": "Sequential", "config": {}}).encode(), "keras"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "torch"),
        (b"\x08\x08\x12\x07pytorch", "onnx"),
    ],
)
def test_files_are_told_apart_by_their_first_bytes(tmp_path: Path, data: bytes, kind: str) -> None:
    assert kind_of_file(write(tmp_path / "model.whatever", data)) == kind


def test_a_folder_with_a_saved_model_is_one(tmp_path: Path) -> None:
    write(tmp_path / "saved_model.pb", b"x")
    assert kind_of_file(tmp_path) == "saved_model"


def parts(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    whole = tiny_onnx().SerializeToString()
    return {
        "missing": (folder / "nothing.onnx", "no such file"),
        "empty": (write(folder / "empty.keras", b""), "empty file"),
        "folder": (folder, "saved_model.pb"),
        "part of a folder": (write(parts(folder, "whole") / "saved_model.pb", b"\x08"), "the folder it"),
        "hollow folder": (write(parts(folder, "hollow") / "saved_model.pb", b"").parent, "empty saved_model.pb"),
        "text": (write(folder / "notes.onnx", b"hello, this is no model"), "not a model in any known format"),
        "truncated onnx": (write(folder / "cut.onnx", whole[: len(whole) // 2]), "cut"),
        "truncated zip": (write(folder / "cut.keras", b"PK\x03\x04" + bytes(100)), "cut short or damaged"),
        "other zip": (zip_of(folder / "other.zip", "a.txt"), "received a zip with a.txt"),
        "other json": (write(folder / "other.json", b'{"a": 1}'), "class_name and config"),
        "damaged json": (write(folder / "cut.json", b'{"class_name": '), "damaged JSON"),
        "bundle": (zip_of(folder / "m.hasten", "manifest.json"), "hasten.load"),
        "truncated tflite": (write(folder / "cut.tflite", b"\x1c\0\0\0TFL3" + bytes(40)), "cut short or damaged"),
    }


BAD = (
    "missing", "empty", "folder", "part of a folder", "hollow folder", "text", "truncated onnx", "truncated zip",
    "other zip", "other json", "damaged json", "bundle", "truncated tflite",
)  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, case: str) -> None:
    path, words = bad_files(tmp_path)[case]
    with pytest.raises(SourceError) as caught:
        open_source(path, REQUEST)
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    assert path.name in message


def test_content_wins_over_the_ending_and_a_note_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "model.keras", tiny_onnx().SerializeToString())
    source = open_source(path, REQUEST)
    assert source.framework == "onnx"
    assert any("'.keras' but holds a onnx model" in note for note in source.notes)


def test_a_right_ending_needs_no_note(tmp_path: Path) -> None:
    source = open_source(str(write(tmp_path / "model.onnx", tiny_onnx().SerializeToString())), REQUEST)
    assert source.notes == ()
    np.testing.assert_array_equal(source.reference([np.float32([[-1, 0, 1, 2]])])[0], [[0, 0, 1, 2]])


def class_of(module: str, name: str, base: type = object) -> type:
    return type(name, (base,), {"__module__": module})


@pytest.mark.parametrize(
    ("base", "kind"),
    [
        (class_of("keras.src.models.model", "Model"), "keras"),
        (class_of("torch.nn.modules.module", "Module"), "torch"),
        (class_of("torch.export.exported_program", "ExportedProgram"), "torch"),
        (class_of("torch.jit._script", "ScriptModule"), "torch"),
        (class_of("tensorflow.python.eager.polymorphic_function.polymorphic_function", "Function"), "tf_function"),
        (class_of("onnx.onnx_ml_pb2", "ModelProto"), "onnx"),
    ],
)
def test_objects_are_told_apart_without_importing_their_framework(base: type, kind: str) -> None:
    before = set(sys.modules)
    assert kind_of_object(class_of("mine", "Net", base)()) == kind
    assert not {m for m in set(sys.modules) - before if m.split(".")[0] in ("torch", "tensorflow", "keras")}


def test_an_object_that_is_no_model_is_refused() -> None:
    with pytest.raises(SourceError, match=r"class builtins\.dict: expected a path, a Keras model"):
        open_source({"a": 1}, REQUEST)
