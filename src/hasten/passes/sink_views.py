"""Moves reshapes below elementwise nodes, so that a layer meets its activation and reshapes meet each other.

``Conv → Squeeze → Relu → Unsqueeze → Conv`` keeps engines from fusing Conv and Relu although the reshapes do nothing:
below the Relu they cancel. Views only ever move down, so this ends.
"""

from __future__ import annotations

import itertools

import onnx_ir as ir

from hasten.graph.operators import BROADCAST, UNARY
from hasten.graph.walk import all_nodes
from hasten.passes import Pass
from hasten.passes.surgery import Dim, Editor, constant, dims, is_op, sole_consumer

__all__ = ["sink_views"]

_RESHAPES = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")


def _apply(model: ir.Model) -> int:
    editor = Editor(model)
    for node in list(all_nodes(model.graph)):
        if is_op(node, *UNARY, *BROADCAST) and len(node.outputs) == 1:
            _sink(editor, node)
    return editor.finish()


def _sink(editor: Editor, node: ir.Node) -> None:
    views = [_view_above(value, node) for value in node.inputs]
    above = [view for view in views if view is not None]
    if not above or any(user is not node for view in above for user, _ in view.outputs[0].uses()):
        return
    source, shape = dims(above[0].inputs[0]), dims(above[0].outputs[0])
    if source is None or shape is None or None in source or shape != dims(node.outputs[0]):
        return
    if any(dims(view.inputs[0]) != source or dims(view.outputs[0]) != shape for view in above):
        return
    others = [value for value, view in zip(node.inputs, views, strict=True) if view is None and value is not None]
    if not all(_fits_both(value, source, shape) for value in others) or not _worthwhile(node, above):
        return
    if sum(not isinstance(d, int) for d in shape) > 1:
        return
    inputs = [value if view is None else view.inputs[0] for value, view in zip(node.inputs, views, strict=True)]
    made = editor.value(node, node.op_type, inputs, node.attributes, shape=source)
    if node.outputs[0].dtype is not None:
        made.dtype = node.outputs[0].dtype
    editor.swap(node.outputs[0], editor.reshaped(node, made, shape))


def _view_above(value: ir.Value | None, node: ir.Node) -> ir.Node | None:
    producer = None if value is None else value.producer()
    if value is None or producer is None or not is_op(producer, *_RESHAPES) or producer.graph is not node.graph:
        return None
    return None if value.is_graph_output() or constant(producer.inputs[0]) is not None else producer


def _fits_both(value: ir.Value, source: tuple[Dim, ...], shape: tuple[Dim, ...]) -> bool:
    """True for a constant that broadcasts alike to the reshaped tensor and to the one before."""
    contents = constant(value)
    if contents is None or contents.ndim > min(len(source), len(shape)):
        return contents is not None and contents.size == 1 and contents.ndim <= len(source)
    used = len(tuple(itertools.dropwhile(lambda size: size == 1, contents.shape)))
    return used == 0 or source[-used:] == shape[-used:]


def _worthwhile(node: ir.Node, above: list[ir.Node]) -> bool:
    """Not at the graph's own inputs, where nothing is fused, unless another view follows to merge with."""
    if any(view.inputs[0] is not None and view.inputs[0].producer() is not None for view in above):
        return True
    follower = sole_consumer(node.outputs[0])
    return follower is not None and is_op(follower, *_RESHAPES, "Transpose")


sink_views = Pass(
    "sink reshapes below elementwise nodes",
    _apply,
    requires="inferred shapes",
    ensures="no reshape separates a layer from the elementwise nodes after it",
)
