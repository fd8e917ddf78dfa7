"""Takes what follows a Concat into its parts, so that the layers that make the parts can take it in.

``Concat(Conv, Conv, …) → BatchNormalization → Relu`` is how Inception and its kin are written: behind the Concat the
two are a pass over memory of their own, in each part they cost nothing.
"""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import onnx_ir as ir

from hasten.graph.operators import UNARY
from hasten.graph.walk import all_nodes
from hasten.passes import Pass
from hasten.passes.surgery import Editor, attribute, constant, dims, is_op, rank, sole_consumer, static_dims

__all__ = ["spread_over_concat"]

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_ARITHMETIC = ("Add", "Sub", "Mul", "Div")


def _apply(model: ir.Model) -> int:
    editor = Editor(model)
    for node in list(all_nodes(model.graph)):
        place = _joined(node)
        if place is not None:
            _spread(editor, node, place)
    return editor.finish()


def _joined(node: ir.Node) -> int | None:
    """Which input of ``node`` is a Concat of layers that nothing else reads; the others are constants."""
    place = _acts_on(node)
    joined = None if place is None else node.inputs[place]
    concat = None if joined is None else joined.producer()
    if joined is None or concat is None or not is_op(concat, "Concat") or sole_consumer(joined) is not node:
        return None
    return place if all(_is_layer(part, concat) for part in concat.inputs) else None


def _acts_on(node: ir.Node) -> int | None:
    """The one input that is no constant, where each of its elements becomes one of the same kind, else None."""
    if not is_op(node, *UNARY, *_ARITHMETIC, "BatchNormalization") or attribute(node, "training_mode", 0):
        return None
    varying = [i for i, value in enumerate(node.inputs) if value is not None and constant(value) is None]
    if len(varying) != 1 or (varying[0] and not is_op(node, *_ARITHMETIC)):
        return None
    source, made = node.inputs[varying[0]], node.outputs[0]
    alike = source is not None and source.dtype == made.dtype and static_dims(source) == static_dims(made)
    return varying[0] if alike else None


def _is_layer(value: ir.Value | None, reader: ir.Node) -> bool:
    """True for what a layer makes for ``reader`` alone, through whatever acts on each element."""
    while value is not None and sole_consumer(value) is reader and static_dims(value) is not None:
        maker = value.producer()
        if maker is None or is_op(maker, *_LAYERS):
            return maker is not None and constant(maker.inputs[1]) is not None
        place = _acts_on(maker)
        value, reader = None if place is None else maker.inputs[place], maker
    return False


def _spread(editor: Editor, node: ir.Node, place: int) -> None:
    joined = node.inputs[place]
    concat = None if joined is None else joined.producer()
    if concat is None or not (count := rank(joined)):
        return
    axis = attribute(concat, "axis") % count
    normalises = is_op(node, "BatchNormalization")
    if normalises and axis != 1:
        return
    shapes = [static_dims(part) or () for part in concat.inputs]
    cuts = list(accumulate(shape[axis] for shape in shapes))[:-1]
    operands = [
        list(concat.inputs) if i == place else _cut(editor, value, -1 if normalises else axis - count, cuts)
        for i, value in enumerate(node.inputs)
    ]
    parts = []
    for shape, inputs in zip(shapes, zip(*operands, strict=True), strict=True):
        parts.append(editor.value(node, node.op_type, inputs, node.attributes, shape=shape))
    editor.swap(node.outputs[0], editor.value(node, "Concat", parts, concat.attributes, shape=dims(node.outputs[0])))


def _cut(editor: Editor, value: ir.Value | None, axis: int, cuts: list[int]) -> list[ir.Value | None]:
    """The constant for each part; ``axis`` counts from its end."""
    contents = constant(value)
    if value is None or contents is None or contents.ndim < -axis or contents.shape[axis] == 1:
        return [value] * (len(cuts) + 1)
    return [editor.weight(part, f"{value.name}_part") for part in np.split(contents, cuts, axis)]


spread_over_concat = Pass(
    "take arithmetic into the parts of a concatenation",
    _apply,
    requires="inferred shapes",
    ensures="no activation, scale or shift stands behind a Concat of layers that nothing else reads",
)
