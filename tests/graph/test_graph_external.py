"""Weights beside the model's file: which files they lie in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hasten.engines import BuildRequest
from hasten.engines.onnxruntime import DEFAULT, ENGINE
from hasten.errors import SourceError
from hasten.graph.external import data_files
from hasten.records import Candidate


def saved(folder: Path, *, beside: bool) -> Path:
    weight = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 64]) for name in "xy"]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    path = folder / "m.onnx"
    onnx.save(helper.make_model(graph), path, save_as_external_data=beside, location="m.bin", size_threshold=0)
    return path


def test_files_of_weights_are_named_once(tmp_path: Path) -> None:
    assert data_files(saved(tmp_path, beside=True)) == (tmp_path / "m.bin",)
    assert data_files(saved(tmp_path, beside=False)) == ()


def test_the_users_own_file_counts_with_its_weights(tmp_path: Path) -> None:
    path = saved(tmp_path, beside=True)
    candidate = Candidate("onnxruntime", options=(("call", DEFAULT),))
    artefact = ENGINE.build(BuildRequest(candidate, None, path, "onnx", (), (), tmp_path))
    assert artefact.nbytes == path.stat().st_size + 64 * 64 * 4


def test_what_is_no_model_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"this is no model")
    with pytest.raises(SourceError, match=r"^cannot read '.*bad\.onnx': expected an ONNX model \(.*\)$"):
        data_files(path)
