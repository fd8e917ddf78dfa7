"""Small ONNX models for tests that need a real one, made in milliseconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WEIGHTS = np.random.default_rng(7).standard_normal((4, 3)).astype(np.float32)


def dense(path: Path, *, batch: int | str = "batch", inputs: int = 1, opset: int = 18) -> Path:
    """softmax((x0 + x1 + …) @ W): input(s) ``x`` (batch, 4), output ``y`` (batch, 3)."""
    names = ["x"] if inputs == 1 else [f"x{k}" for k in range(inputs)]
    nodes, total = [], names[0]
    for k, name in enumerate(names[1:]):
        nodes.append(helper.make_node("Add", [total, name], [f"sum{k}"]))
        total = f"sum{k}"
    nodes += [helper.make_node("MatMul", [total, "w"], ["z"]), helper.make_node("Softmax", ["z"], ["y"], axis=-1)]
    return _save(path, nodes, [(name, (batch, 4)) for name in names], [("y", (batch, 3))], opset)


def unknown_operator(path: Path) -> Path:
    """A model with an operator that nobody knows."""
    nodes = [helper.make_node("Frobnicate", ["x"], ["y"], domain="nowhere")]
    return _save(path, nodes, [("x", (1, 4))], [("y", (1, 4))], 18)


def random(path: Path) -> Path:
    """A model whose answers are drawn anew each time."""
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["noise"]),
        helper.make_node("Add", ["x", "noise"], ["y"]),
    ]
    return _save(path, nodes, [("x", (1, 4))], [("y", (1, 4))], 18)


def lookup(path: Path) -> Path:
    """Rows of the weights by number: ids (batch, 2) int32 to y (batch, 2, 3)."""
    graph = helper.make_graph(
        [helper.make_node("Gather", ["w", "ids"], ["y"])],
        "small",
        [helper.make_tensor_value_info("ids", TensorProto.INT32, ("batch", 2))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("batch", 2, 3))],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def inside(path: Path, dtype: str) -> Path:
    """x (1, 4) in float32, doubled in ``dtype``, answered in float32."""
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=getattr(TensorProto, dtype.replace("float32", "float").upper())),
        helper.make_node("Add", ["h", "h"], ["z"]),
        helper.make_node("Cast", ["z"], ["y"], to=TensorProto.FLOAT),
    ]
    return _save(path, nodes, [("x", (1, 4))], [("y", (1, 4))], 18)


def rounded(path: Path) -> Path:
    """x (1, 4) in steps of a tenth, as bytes."""
    nodes = [helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 4))],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, (1, 4))],
        [numpy_helper.from_array(np.float32(0.1), "step"), numpy_helper.from_array(np.uint8(128), "zero")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[tuple[str, tuple[int | str, ...]]],
    outputs: list[tuple[str, tuple[int | str, ...]]],
    opset: int,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("nowhere", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def expected(*arrays: np.ndarray) -> np.ndarray:
    """What ``dense`` answers."""
    z = sum(arrays).astype(np.float64) @ WEIGHTS  # type: ignore[union-attr]
    e = np.exp(z - z.max(-1, keepdims=True))
    answer: np.ndarray = (e / e.sum(-1, keepdims=True)).astype(np.float32)
    return answer
