"""A graph enters; one leaves in which shape inference follows the bodies of its loops and branches too.

Inference sees no constants from around a body: an axis or a target shape that lies there hides every shape behind it.
"""

from __future__ import annotations

import onnx_ir as ir

from hasten.graph import clone, shapes

__all__ = ["with_shapes_inside"]

_LARGEST = 64
"""Elements of a constant that may be a shape."""


def with_shapes_inside(model: ir.Model) -> ir.Model:
    """The model itself where every body's shapes are known; else a copy whose bodies hold such constants themselves."""
    if all(value.shape is not None for body in model.graph.subgraphs() for node in body for value in node.outputs):
        return model
    copy = clone(model)
    for number, body in enumerate(copy.graph.subgraphs()):
        _fill(body, number)
    shapes.infer(copy)
    return copy


def _fill(body: ir.Graph, number: int) -> None:
    held: dict[int, ir.Value] = {}
    for node in body:
        for index, value in enumerate(node.inputs):
            if value is None or value.const_value is None or value.graph is body or value.is_graph_input():
                continue
            tensor = value.const_value
            if tensor.dtype not in (ir.DataType.INT64, ir.DataType.INT32) or tensor.size > _LARGEST:
                continue
            if id(value) not in held:
                name = f"{value.name}_in_{number}"
                own = ir.Value(name=name, shape=value.shape, type=value.type, const_value=tensor)
                body.register_initializer(own)
                held[id(value)] = own
            node.replace_input_with(index, held[id(value)])
