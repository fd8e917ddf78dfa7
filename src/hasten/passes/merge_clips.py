"""Bounds on bounds become one: Relu before or after Clip, Clip after Clip."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from hasten.graph.walk import all_nodes
from hasten.passes import Pass
from hasten.passes.surgery import Editor, dims, input_of, is_op, scalar, sole_consumer

__all__ = ["merge_clips"]

_Bounds = tuple[float, float]


def _apply(model: ir.Model) -> int:
    editor = Editor(model)
    for node in list(all_nodes(model.graph)):
        inner = node.inputs[0].producer() if is_op(node, "Relu", "Clip") and node.inputs[0] is not None else None
        if inner is not None and sole_consumer(inner.outputs[0]) is node and node.outputs[0].dtype == ir.DataType.FLOAT:
            first, second = _bounds(inner), _bounds(node)
            if first is not None and second is not None:
                low, high = (min(max(bound, second[0]), second[1]) for bound in first)
                editor.swap(node.outputs[0], _bounded(editor, node, inner.inputs[0], (low, high)))
    return editor.finish()


def _bounds(node: ir.Node) -> _Bounds | None:
    """The least and the largest that leaves the node; None where they are not known."""
    if is_op(node, "Relu"):
        return 0.0, np.inf
    if not is_op(node, "Clip"):
        return None
    low, high = (
        other if value is None else scalar(value)
        for value, other in ((input_of(node, 1), -np.inf), (input_of(node, 2), np.inf))
    )
    if low is None or high is None or np.isnan(low) or np.isnan(high):
        return None
    return min(low, high), high


def _bounded(editor: Editor, before: ir.Node, value: ir.Value | None, bounds: _Bounds) -> ir.Value:
    shape = dims(before.outputs[0])
    if bounds == (0.0, np.inf):
        return editor.value(before, "Relu", [value], shape=shape)
    ends = [None if np.isinf(bound) else editor.weight(np.asarray(bound, np.float32), "bound") for bound in bounds]
    return editor.value(before, "Clip", [value, *ends], shape=shape)


merge_clips = Pass(
    "merge bounds", _apply, ensures="no Relu or Clip reads nothing but what another Relu or Clip bounded"
)
