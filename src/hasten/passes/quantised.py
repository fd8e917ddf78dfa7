"""Reshapes and transposes happen on integers, between QuantizeLinear and DequantizeLinear.

Engines recognise an integer kernel by DequantizeLinear right before a layer and QuantizeLinear right after it; a
Transpose between hides it. So views move up through DequantizeLinear and down through QuantizeLinear.
"""

from __future__ import annotations

import onnx_ir as ir

from hasten.graph.walk import all_nodes
from hasten.passes import Pass
from hasten.passes.surgery import Editor, attribute, constant, dims, is_op, sole_consumer, static_dims
from hasten.passes.views import VIEWS

__all__ = ["views_as_integers"]


def _apply(model: ir.Model) -> int:
    editor = Editor(model)
    for node in list(all_nodes(model.graph)):
        if is_op(node, *VIEWS):
            _hoist(editor, node)
        elif is_op(node, "QuantizeLinear"):
            _sink(editor, node)
    return editor.finish()


def _sink(editor: Editor, quantise: ir.Node) -> None:
    view = quantise.inputs[0].producer() if quantise.inputs[0] is not None else None
    if view is None or not is_op(view, *VIEWS) or sole_consumer(view.outputs[0]) is not quantise:
        return
    if static_dims(quantise.inputs[1]) not in ((), (1,)):
        return
    given = [view.inputs[0], *quantise.inputs[1:]]
    integers = editor.value(quantise, "QuantizeLinear", given, quantise.attributes, shape=dims(view.inputs[0]))
    if quantise.outputs[0].dtype is not None:
        integers.dtype = quantise.outputs[0].dtype
    moved = editor.value(
        quantise, view.op_type, [integers, *view.inputs[1:]], view.attributes, shape=dims(quantise.outputs[0])
    )
    editor.swap(quantise.outputs[0], moved)


def _hoist(editor: Editor, view: ir.Node) -> None:
    source = view.inputs[0].producer() if view.inputs[0] is not None else None
    if source is None or not is_op(source, "DequantizeLinear") or sole_consumer(source.outputs[0]) is not view:
        return
    if attribute(source, "block_size", 0):
        return
    integers, shape = constant(source.inputs[0]), static_dims(view.outputs[0])
    whole = static_dims(source.inputs[1]) in ((), (1,))
    if integers is None and whole:
        moved = editor.value(
            view, view.op_type, [source.inputs[0], *view.inputs[1:]], view.attributes, shape=dims(view.outputs[0])
        )
        _dequantise(editor, view, moved, source, {})
        return
    if integers is None or shape is None:
        return
    changed = {}
    if not whole:
        axis = _moved_axis(view, attribute(source, "axis", 1) % integers.ndim, integers.shape, shape)
        if axis is None:
            return
        changed = {"axis": axis}
    if view.op_type == "Transpose":
        integers = integers.transpose(attribute(view, "perm", tuple(range(integers.ndim))[::-1]))
    weight = editor.weight(integers.reshape(shape), f"{source.inputs[0].name if source.inputs[0] else ''}_moved")
    _dequantise(editor, view, weight, source, changed)


def _dequantise(editor: Editor, view: ir.Node, integers: ir.Value, source: ir.Node, changed: dict[str, int]) -> None:
    """``source`` again, over integers already rearranged, in place of ``view``."""
    attributes = {**source.attributes, **changed}
    given = [integers, *source.inputs[1:]]
    made = editor.value(view, "DequantizeLinear", given, attributes, shape=dims(view.outputs[0]))
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


views_as_integers = Pass(
    "rearrange integers, not what they stand for",
    _apply,
    ensures="no view stands between a layer and the QuantizeLinear or DequantizeLinear around it",
)
