"""Dimensions of ONNX files: which is the batch, what is asked for, what only the file tells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

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
