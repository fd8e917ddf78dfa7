"""Reshapes and transposes of dequantised weights happen on the integers, before DequantizeLinear.

Engines recognise an integer kernel by DequantizeLinear right before the layer; a Transpose between hides it.
"""

from __future__ import annotations

import onnx_ir as ir

from hasten.passes import Pass
from hasten.passes.surgery import Editor, attribute, constant, dims, is_op, sole_consumer, static_dims
from hasten.passes.views import VIEWS

__all__ = ["views_before_dequantise"]


def _apply(model: ir.Model) -> int:
    editor = Editor(model)
    for node in list(model.graph.all_nodes()):
        if is_op(node, *VIEWS):
            _hoist(editor, node)
    return editor.finish()


def _hoist(editor: Editor, view: ir.Node) -> None:
    source = view.inputs[0].producer() if view.inputs[0] is not None else None
    if source is None or not is_op(source, "DequantizeLinear") or sole_consumer(source.outputs[0]) is not view:
        return
    integers, shape = constant(source.inputs[0]), static_dims(view.outputs[0])
    if integers is None or shape is None or attribute(source, "block_size", 0):
        return
    changed = {}
    if static_dims(source.inputs[1]) not in ((), (1,)):
        axis = _moved_axis(view, attribute(source, "axis", 1) % integers.ndim, integers.shape, shape)
        if axis is None:
            return
        changed = {"axis": axis}
    if view.op_type == "Transpose":
        integers = integers.transpose(attribute(view, "perm", tuple(range(integers.ndim))[::-1]))
    weight = editor.weight(integers.reshape(shape), f"{source.inputs[0].name if source.inputs[0] else ''}_moved")
    attributes = {**source.attributes, **changed}
    made = editor.value(view, "DequantizeLinear", [weight, *source.inputs[1:]], attributes, shape=dims(view.outputs[0]))
    if view.outputs[0].dtype is not None:
        made.dtype = view.outputs[0].dtype
    editor.swap(view.outputs[0], made)


def _moved_axis(view: ir.Node, axis: int, before: tuple[int, ...], after: tuple[int, ...]) -> int | None:
    """Where the axis of the scales ends up; None where a reshape mixes it with others."""
    if view.op_type == "Transpose":
        perm = tuple(attribute(view, "perm", tuple(range(len(before)))[::-1]))
        return perm.index(axis)
    ahead = 1
    for size in before[:axis]:
        ahead *= size
    passed = 1
    for place, size in enumerate(after):
        if passed == ahead and size == before[axis]:
            return place
        passed *= size
    return None


views_before_dequantise = Pass(
    "reshape quantised weights as integers",
    _apply,
    ensures="DequantizeLinear of a weight stands right before the node that reads it",
)
