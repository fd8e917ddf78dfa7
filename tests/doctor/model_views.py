"""Models as the doctor's rules see them, written in a few words: ONNX's own text form, Keras' own configuration."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from hasten.doctor.graphs import ModelView
from hasten.doctor.layers import layers_of_config

__all__ = ["after", "graph", "keras", "layer"]


def graph(text: str, weights: dict[str, np.ndarray] | None = None, *, opset: int = 21) -> ModelView:
    """`inputs => outputs { body }` in ONNX's own text form; weights by name."""
    head = f'<ir_version: 10, opset_import: ["" : {opset}, "odd" : 1]> g '
    model = onnx.parser.parse_model(head + text)
    for name, value in (weights or {}).items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"n{i}"
    return ModelView(ir.from_proto(model))


def keras(*layers: dict, outputs: list | None = None) -> ModelView:
    config: dict = {"layers": list(layers)}
    if outputs is not None:
        config["output_layers"] = outputs
    return ModelView(None, layers_of_config({"class_name": "Functional", "config": config}))


def layer(kind: str, name: str = "a", calls: list | None = None, **config: object) -> dict:
    return {"class_name": kind, "name": name, "config": {"name": name, **config}, "inbound_nodes": calls or []}


def after(*names: str, **kwargs: object) -> dict:
    tensors = [{"class_name": "__keras_tensor__", "config": {"keras_history": [n, 0, 0]}} for n in names]
    return {"args": tensors, "kwargs": kwargs}
