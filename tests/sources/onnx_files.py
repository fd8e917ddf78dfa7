"""Writes ONNX models of a node or two and opens them, so that ONNX Runtime itself can be the judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hasten.graph.reference import run
from hasten.sources import Source, SourceRequest
from hasten.sources.onnx import open_onnx
from hasten.sources.samples import samples

RNG = np.random.default_rng(0)


def value(name: str, shape: Sequence[Any], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def weight(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(RNG.standard_normal(shape).astype(np.float32), name)


def model(nodes: Any, inputs: Any, outputs: Any, weights: Any = (), *, opset: int = 17, **more: Any) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializer=list(weights))
    imports = [helper.make_opsetid("", opset), *more.pop("domains", [])]
    return helper.make_model(graph, opset_imports=imports, ir_version=8, **more)


def dense(shape: Sequence[Any], **more: Any) -> onnx.ModelProto:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return model([node], [value("x", shape)], [value("y", [*shape[:-1], 3])], [weight("w", 4, 3)], **more)


def opened(proto: onnx.ModelProto, **request: Any) -> Source:
    return open_onnx(proto, SourceRequest(**request))


def same_answers(source: Source) -> None:
    assert source.model is not None
    for arrays in samples(source, SourceRequest(), 0, 2):
        for mine, theirs in zip(run(source.model, arrays), source.reference(arrays), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
