"""Slices, pieces, borders, picked rows and repeated pixels are taken of integers, not of what they stand for.

``DequantizeLinear → Slice → QuantizeLinear`` moves four bytes for every one, and hides from the layer behind it that it
reads integers. Where the scale stays the same nothing is left but the move.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from hasten.graph.walk import all_nodes
from hasten.passes import Pass
from hasten.passes.surgery import Editor, attribute, constant, dims, input_of, is_op, scalar, static_dims
from hasten.passes.views import VIEWS
from hasten.types import Array

__all__ = ["moves_of_integers"]

# Of what they read first.
_MOVES = ("Slice", "Split", "Gather", "Pad")
# What ONNX Runtime moves, too.
_INTEGERS = (ir.DataType.INT8, ir.DataType.UINT8)


def _apply(model: ir.Model) -> int:
    editor = Editor(model)
    for node in list(all_nodes(model.graph)):
        if is_op(node, *_MOVES) or _repeats(node):
            _lower(editor, node)
    return editor.finish()


def _repeats(node: ir.Node) -> bool:
    """A Resize that gives every pixel the value of another one."""
    if not is_op(node, "Resize") or attribute(node, "mode", "nearest") != "nearest":
        return False
    return bool(attribute(node, "coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize")


def _serves_moves(value: ir.Value) -> bool:
    return all(index == 0 and is_op(user, *VIEWS, *_MOVES) for user, index in value.uses())


def _is_rounded(move: ir.Node) -> bool:
    if any(output.is_graph_output() for output in move.outputs):
        return False
    return all(is_op(user, "QuantizeLinear") for output in move.outputs for user, _ in output.uses())


def _lower(editor: Editor, move: ir.Node) -> None:
    """The move above the DequantizeLinear that it reads, where that serves moves alone or integers follow."""
    value = move.inputs[0]
    source = value.producer() if value is not None else None
    if value is None or source is None or not is_op(source, "DequantizeLinear") or source.graph is not move.graph:
        return
    integers = source.inputs[0]
    if integers is None or integers.dtype not in _INTEGERS or constant(integers) is not None:
        return
    if static_dims(source.inputs[1]) not in ((), (1,)) or value.is_graph_output():
        return
    if not _serves_moves(value) and not _is_rounded(move):
        return
    given = [integers, *move.inputs[1:]]
    if is_op(move, "Pad"):
        border = _border(move, source, integers)
        if border is None:
            return
        given = [integers, move.inputs[1], editor.weight(border, "border"), input_of(move, 3)]
    moved = editor.node(move, move.op_type, given, move.attributes, outputs=len(move.outputs))
    for old, new in zip(move.outputs, moved.outputs, strict=True):
        new.dtype = integers.dtype
        new.shape = old.shape
        made = editor.value(move, "DequantizeLinear", [new, *source.inputs[1:]], source.attributes, shape=dims(old))
        if value.dtype is not None:
            made.dtype = value.dtype
        editor.swap(old, made)


def _border(pad: ir.Node, source: ir.Node, integers: ir.Value) -> Array | None:
    """The integer that stands for what is filled in; None where none surely does."""
    filling, zero = input_of(pad, 2), input_of(source, 2)
    if attribute(pad, "mode", "constant") != "constant" or (filling is not None and scalar(filling) != 0):
        return None
    if zero is None:
        return np.zeros((), integers.dtype.numpy()) if integers.dtype is not None else None
    found = constant(zero)
    return None if found is None else found.reshape(())


moves_of_integers = Pass(
    "move integers, not what they stand for",
    _apply,
    ensures="no slice, split, padding or gathering of what a DequantizeLinear makes, where integers follow",
)
