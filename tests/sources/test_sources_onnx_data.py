"""Weights in files of their own beside an ONNX file: found where they belong, named where they are bad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx_files import dense, same_answers

from hasten.errors import SourceError
from hasten.sources import SourceRequest
from hasten.sources.onnx import open_onnx


def test_external_data_beside_the_file_is_found_and_missed(tmp_path: Path) -> None:
    proto = dense(["batch", 4])
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    same_answers(open_onnx(tmp_path / "m.onnx", SourceRequest()))
    (tmp_path / "w.bin").unlink()
    with pytest.raises(SourceError, match=r"w\.bin"):
        open_onnx(tmp_path / "m.onnx", SourceRequest())


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:20])


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _elsewhere(file: Path) -> None:
    file.rename(file.parents[1] / "w.bin")
    file.symlink_to(file.parents[1] / "w.bin")


def _twice(file: Path) -> None:
    file.with_name("again.bin").hardlink_to(file)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (_cut, r"expected at least 48 bytes \(weight 'w', float\[4,3\]\), received 20; copy it again"),
        (Path.unlink, "is missing: expected it in"),
        (_folder, "is a folder: expected a file"),
        (_elsewhere, "lies outside the model's folder"),
        (_twice, "is linked from another place too"),
    ],
)
def test_a_bad_data_file_is_named(tmp_path: Path, harm: Any, says: str) -> None:
    place = tmp_path / "models"
    place.mkdir()
    onnx.save(dense(["batch", 4]), place / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    harm(place / "w.bin")
    with pytest.raises(SourceError, match=rf"its data file 'w\.bin' {'is cut short: ' if harm is _cut else ''}{says}"):
        open_onnx(place / "m.onnx", SourceRequest())


@pytest.mark.parametrize(
    ("key", "text", "says"),
    [
        ("location", "../w.bin", "its data file '../w.bin' lies outside"),
        ("location", "/w.bin", "its data file '/w.bin' lies outside"),
        ("length", "10", "is said to hold 10 bytes .*expected 48"),
        ("offset", "400", "expected at least 448 bytes .*, received 48"),
    ],
)
def test_data_that_a_damaged_model_looks_for_elsewhere_is_refused(
    tmp_path: Path, key: str, text: str, says: str
) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(dense(["batch", 4]), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    proto = onnx.load(path, load_external_data=False)
    next(entry for entry in proto.graph.initializer[0].external_data if entry.key == key).value = text
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(SourceError, match=says):
        open_onnx(path, SourceRequest())
