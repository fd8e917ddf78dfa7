"""Dimensions of ONNX files: which is the batch, what is asked for, what only the file tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_files import dense, model, opened, same_answers, value

from hasten.errors import SourceError
from hasten.graph import reference, write
from hasten.passes.phases import OPTIMISE, TIDY
from hasten.passes.run import run_phases
from hasten.sources import SourceRequest
from hasten.sources.onnx import open_onnx


def test_how_many_axes_a_value_has_is_kept_where_only_the_file_tells(tmp_path: Path) -> None:
    """ONNX infers no shape behind Inverse, and the turned product behind that is spelt out only with its axes known."""
    rng, info = np.random.default_rng(0), helper.make_tensor_value_info
    nodes = [
        helper.make_node("Inverse", ["x"], ["back"], domain="com.microsoft"),
        helper.make_node("FusedMatMul", ["back", "w"], ["y"], domain="com.microsoft", transA=1, alpha=0.5),
    ]
    w = numpy_helper.from_array(rng.standard_normal((4, 5)).astype(np.float32), "w")
    graph = helper.make_graph(
        nodes, "turned", [info("x", TensorProto.FLOAT, ["N", 4, 4])], [info("y", TensorProto.FLOAT, ["N", 4, 5])], [w],
        value_info=[info("back", TensorProto.FLOAT, [1, 4, 4])],
    )  # fmt: skip
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=8))
    write(model, tmp_path / "turned.onnx")
    x = (rng.standard_normal((3, 4, 4)) + 3 * np.eye(4)).astype(np.float32)
    source = open_onnx(tmp_path / "turned.onnx", SourceRequest(sample=(x,)))
    assert source.model is not None and source.inputs[0].is_batched
    result, _ = run_phases(source.model, [TIDY, OPTIMISE], probe=[x], strict=True)
    assert [node.op_type for node in result.graph if node.domain] == ["Inverse"]
    np.testing.assert_allclose(reference.run(result, [x])[0], source.reference([x])[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["batch", "N", "unk__7", None])
def test_a_leading_free_dimension_whose_rows_are_independent_is_the_batch(tmp_path: Path, name: str | None) -> None:
    source = opened(dense([name, 4]), work=tmp_path)
    assert source.inputs[0].shape == ("batch", 4)
    assert source.outputs[0].shape == ("batch", 3)
    assert ir.Shape(["batch", 4]) == source.model.graph.inputs[0].shape  # type: ignore[union-attr]
    same_answers(source)


def test_rows_that_depend_on_one_another_are_no_batch(tmp_path: Path) -> None:
    proto = model(
        [helper.make_node("Softmax", ["x"], ["y"], axis=0)], [value("x", ["batch", 4])], [value("y", ["batch", 4])]
    )
    source = opened(proto, work=tmp_path)
    assert source.inputs[0].shape == (1, 4)
    assert any("fixed to batch 1" in note for note in source.notes)
    with pytest.raises(SourceError, match=r"'frames' is free and is no batch.*--shape x=100,4"):
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "frames"
        opened(proto, work=tmp_path)
    assert opened(proto, work=tmp_path, shapes={"x": (7, 4)}).inputs[0].shape == (7, 4)


def test_a_state_of_layers_batch_units_leaves_no_batch(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceSum", ["h", "zero"], ["s"], keepdims=0),
        helper.make_node("Add", ["x", "s"], ["y"]),
    ]
    zero = numpy_helper.from_array(np.array([0]), "zero")
    proto = model(nodes, [value("x", ["N", 4]), value("h", [2, "N", 4])], [value("y", ["N", 4])], [zero])
    source = opened(proto, work=tmp_path)
    assert [spec.shape for spec in source.inputs] == [(1, 4), (2, 1, 4)]
    same_answers(source)


def test_any_other_free_dimension_is_asked_for_by_name(tmp_path: Path) -> None:
    proto = dense(["batch", "time", 4])
    with pytest.raises(SourceError, match=r"leaves 'time' open.*--shape x=1,100,4$"):
        opened(proto, work=tmp_path)
    source = opened(proto, work=tmp_path, shapes={"x": (1, 250, 4)})
    assert source.inputs[0].shape == ("batch", 250, 4)
    assert opened(proto, work=tmp_path, sample=(np.zeros((2, 9, 4), np.float32),)).inputs[0].shape == ("batch", 9, 4)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"z": (1, 4)}, "unknown input 'z': expected one of x"),
        ({"x": (1, 2, 4)}, "expected 2 dimensions, received 3"),
        ({"x": (1, 5)}, "expected 4 in dimension 1, received 5"),
        ({"x": (0, 4)}, "expected at least 1 in dimension 0"),
    ],
)
def test_a_shape_that_does_not_fit_says_how(tmp_path: Path, shapes: Any, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        opened(dense(["batch", 4]), work=tmp_path, shapes=shapes)


def test_a_sample_of_the_wrong_count_says_so(tmp_path: Path) -> None:
    sample = (np.zeros((1, 4), np.float32), np.zeros((1, 4), np.float32))
    with pytest.raises(SourceError, match="sample has 2 arrays: expected 1"):
        opened(dense(["batch", 4]), work=tmp_path, sample=sample)


def test_samples_of_unlike_batch_are_refused(tmp_path: Path) -> None:
    proto = model(
        [helper.make_node("Add", ["a", "b"], ["y"])],
        [value("a", ["n", 4]), value("b", ["n", 4])],
        [value("y", ["n", 4])],
    )
    sample = (np.zeros((2, 4), np.float32), np.zeros((3, 4), np.float32))
    with pytest.raises(SourceError, match="input 'b' has 3 for dimension 'n': expected 2"):
        opened(proto, work=tmp_path, sample=sample)
