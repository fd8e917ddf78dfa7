"""Inputs whose integers obey a rule: drawn examples keep it, and vary what they can."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import hasten
from hasten.errors import SourceError
from hasten.sources import Source, SourceRequest
from hasten.sources.detect import open_source
from hasten.sources.samples import samples


def shaped(path: Path) -> Path:
    """x (2, 3, 4) reshaped to the three numbers of an input."""
    float32, int64 = TensorProto.FLOAT, TensorProto.INT64
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["r"]), helper.make_node("Relu", ["r"], ["y"])],
        "shaped",
        [helper.make_tensor_value_info("x", float32, [2, 3, 4]), helper.make_tensor_value_info("shape", int64, [3])],
        [helper.make_tensor_value_info("y", float32, [None, None, None])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def rising(arrays: object) -> tuple[np.ndarray, ...]:
    """What a source that counts by offsets answers."""
    from hasten.errors import SourceError

    values, offsets = arrays  # type: ignore[misc]
    if offsets[0] != 0 or np.any(np.diff(offsets) < 0) or offsets[-1] > len(values):
        raise SourceError("offsets have to rise from 0")
    return (np.add.reduceat(np.append(values, 0), offsets),)


def test_what_the_sample_says_of_a_shape_is_kept(tmp_path: Path) -> None:
    given = (np.ones((2, 3, 4), np.float32), np.array([6, 2, 2]))
    source = open_source(shaped(tmp_path / "m.onnx"), SourceRequest(sample=given, work=tmp_path))
    drawn = samples(source, SourceRequest(), seed=0, count=4)
    assert [sorted(shape) for _, shape in drawn] == [[2, 2, 6]] * 4
    assert len({x.tobytes() for x, _ in drawn}) == 4
    hasten.compile(tmp_path / "m.onnx", engine="onnxruntime", sample=given)


def test_offsets_vary_and_hold(tmp_path: Path) -> None:
    from hasten.sources.held import with_held
    from hasten.types import TensorSpec

    specs = (TensorSpec("values", "float32", (9,)), TensorSpec("offsets", "int64", (4,)))
    bare = Source("torch", tmp_path, None, specs, (TensorSpec("y", "float32", (4,)),), rising)
    given = (np.arange(9, dtype=np.float32), np.array([0, 3, 3, 8]))
    source = with_held(bare, SourceRequest(sample=given))
    assert [list(held) for held in source.held[:1]] == [["offsets"]]
    np.testing.assert_array_equal(source.held[0]["offsets"], given[1])
    assert len({tuple(held["offsets"]) for held in source.held}) > 2
    for drawn in samples(source, SourceRequest(), seed=0, count=8):
        source.reference(drawn)
    with pytest.raises(SourceError):
        bare.reference(samples(bare, SourceRequest(), seed=0, count=1)[0])


def test_free_integers_stay_free(tmp_path: Path) -> None:
    from hasten.sources.held import with_held
    from hasten.types import TensorSpec

    specs = (TensorSpec("ids", "int64", ("batch", 4)),)
    bare = Source("onnx", tmp_path, None, specs, (TensorSpec("y", "int64", ("batch", 4)),), tuple)
    assert with_held(bare, SourceRequest(sample=(np.zeros((2, 4), np.int64),))).held == ()
