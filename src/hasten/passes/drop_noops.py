"""Takes out nodes that hand on their input as it is, and those whose work an earlier node has already done."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from hasten.graph.walk import all_nodes
from hasten.passes import Pass
from hasten.passes.surgery import (
    Editor,
    attribute,
    constant,
    dims,
    input_of,
    ints,
    is_op,
    rank,
    same_dims,
    scalar,
    static_dims,
)

__all__ = ["drop_noops"]

_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_NEVER_NEGATIVE = ("Relu", "Sigmoid", "Softmax", "Exp", "Abs", "Sqrt", "HardSigmoid", "Softplus")
# Casting to the second and back loses nothing of the first.
_HOLDS = {
    ir.DataType.FLOAT: (ir.DataType.DOUBLE,),
    ir.DataType.FLOAT16: (ir.DataType.FLOAT, ir.DataType.DOUBLE),
    ir.DataType.BFLOAT16: (ir.DataType.FLOAT, ir.DataType.DOUBLE),
    ir.DataType.INT32: (ir.DataType.INT64, ir.DataType.DOUBLE),
    ir.DataType.INT8: (ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT, ir.DataType.DOUBLE),
    ir.DataType.UINT8: (ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT, ir.DataType.DOUBLE),
    ir.DataType.BOOL: (ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT, ir.DataType.UINT8, ir.DataType.INT8),
}


def _apply(model: ir.Model) -> int:
    editor = Editor(model)
    for node in list(all_nodes(model.graph)):
        if node.domain not in ("", "ai.onnx") or not node.outputs:
            continue
        kept = _SAME_AS.get(node.op_type, _never)(node)
        if kept is not None and _can_go(node, kept):
            editor.swap(node.outputs[0], kept)
        elif is_op(node, "Cast"):
            _merge_casts(node, editor)
    return editor.finish()


def _can_go(node: ir.Node, kept: ir.Value) -> bool:
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        return False
    output = node.outputs[0]
    if not output.is_graph_output():
        return bool(output.uses())
    # An output needs a node of its own to carry its name; an Identity that does so must stay.
    return kept.producer() is not None and not kept.is_graph_output() and kept.graph is output.graph


def _merge_casts(node: ir.Node, editor: Editor) -> None:
    source = node.inputs[0]
    inner = source.producer() if source is not None else None
    if inner is None or not is_op(inner, "Cast") or source is None:
        return
    first = inner.inputs[0]
    if first is not None and first.dtype is not None and source.dtype in _HOLDS.get(first.dtype, ()):
        node.replace_input_with(0, first)
        editor.changes += 1


def _never(node: ir.Node) -> ir.Value | None:
    return None


def _always(node: ir.Node) -> ir.Value | None:
    return node.inputs[0]


def _dropout(node: ir.Node) -> ir.Value | None:
    training = input_of(node, 2)
    off = training is None or scalar(training) == 0
    return node.inputs[0] if off else None


def _cast(node: ir.Node) -> ir.Value | None:
    source = node.inputs[0]
    return source if source is not None and source.dtype == attribute(node, "to") else None


def _same_shape(node: ir.Node) -> ir.Value | None:
    source = node.inputs[0]
    return source if same_dims(source, node.outputs[0]) else None


def _transpose(node: ir.Node) -> ir.Value | None:
    perm = attribute(node, "perm")
    if perm is None:
        return node.inputs[0] if rank(node.inputs[0]) in (0, 1) else None
    return node.inputs[0] if tuple(perm) == tuple(range(len(perm))) else None


def _slice(node: ir.Node) -> ir.Value | None:
    steps = input_of(node, 4)
    forward = steps is None or all(step > 0 for step in ints(steps) or (-1,))
    if not forward:
        return None
    if same_dims(node.inputs[0], node.outputs[0]) or static_dims(node.inputs[0]) is not None:
        return _same_shape(node)
    starts, ends = ints(node.inputs[1]), ints(node.inputs[2])
    whole = starts is not None and ends is not None and set(starts) <= {0} and min(ends, default=0) >= 2**31 - 1
    return node.inputs[0] if whole and (steps is None or set(ints(steps) or ()) <= {1}) else None


def _pad(node: ir.Node) -> ir.Value | None:
    pads = ints(input_of(node, 1))
    return node.inputs[0] if pads is not None and not any(pads) else None


def _single(node: ir.Node) -> ir.Value | None:
    return node.inputs[0] if len(node.inputs) == 1 else None


def _neutral(number: float, *, either_side: bool) -> Callable[[ir.Node], ir.Value | None]:
    """A binary operator with a constant that changes nothing: ``x + 0``, ``x * 1``."""

    def keep(node: ir.Node) -> ir.Value | None:
        for kept, other in ((0, 1), (1, 0)) if either_side else ((0, 1),):
            value = node.inputs[kept]
            contents = constant(node.inputs[other])
            if value is None or contents is None or value.dtype not in _FLOATS or contents.size > 65_536:
                continue
            if np.all(contents == number) and same_dims(value, node.outputs[0]):
                return value
        return None

    return keep


def _clip(node: ir.Node) -> ir.Value | None:
    return node.inputs[0] if all(value is None for value in node.inputs[1:]) else None


def _relu(node: ir.Node) -> ir.Value | None:
    source = node.inputs[0]
    producer = source.producer() if source is not None else None
    return source if is_op(producer, *_NEVER_NEGATIVE) else None


def _pool_of_one(node: ir.Node) -> ir.Value | None:
    kernel, pads = attribute(node, "kernel_shape", ()), attribute(node, "pads", (0,))
    strides = attribute(node, "strides", (1,))
    plain = set(kernel) == {1} and set(strides) == {1} and not any(pads)
    return node.inputs[0] if plain and attribute(node, "auto_pad", "NOTSET") != "SAME_LOWER" else None


def _resize(node: ir.Node) -> ir.Value | None:
    if attribute(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return None
    scales = constant(input_of(node, 2))
    if scales is not None and scales.size:
        return node.inputs[0] if np.all(scales == 1) else None
    return _same_shape(node)


def _undone(node: ir.Node) -> ir.Value | None:
    """``Not(Not(x))`` and ``Neg(Neg(x))``."""
    source = node.inputs[0]
    inner = source.producer() if source is not None else None
    return inner.inputs[0] if inner is not None and is_op(inner, node.op_type) else None


def _requantised(node: ir.Node) -> ir.Value | None:
    """Integers that were dequantised and are quantised again in the same way."""
    source = node.inputs[0]
    inner = source.producer() if source is not None else None
    if inner is None or not is_op(inner, "DequantizeLinear") or inner.inputs[0] is None:
        return None
    parts = [(constant(one), constant(other)) for one, other in zip(node.inputs[1:], inner.inputs[1:], strict=False)]
    same = all(a is not None and b is not None and np.array_equal(a, b) for a, b in parts)
    alike = len(node.inputs) == len(inner.inputs) and inner.inputs[0].dtype == node.outputs[0].dtype
    settings = attribute(node, "axis", 1) == attribute(inner, "axis", 1) and not attribute(node, "block_size", 0)
    return inner.inputs[0] if same and alike and settings else None


def _concat(node: ir.Node) -> ir.Value | None:
    if len(node.inputs) == 1:
        return node.inputs[0]
    axis = attribute(node, "axis")
    shapes = [dims(value) for value in node.inputs]
    filled = [value for value, shape in zip(node.inputs, shapes, strict=True) if shape is None or shape[axis] != 0]
    return filled[0] if len(filled) == 1 else None


_SAME_AS: dict[str, Callable[[ir.Node], ir.Value | None]] = {
    "Identity": _always,
    "Dropout": _dropout,
    "Cast": _cast,
    "Reshape": _same_shape,
    "Flatten": _same_shape,
    "Expand": _same_shape,
    "Squeeze": _same_shape,
    "Unsqueeze": _same_shape,
    "Tile": _same_shape,
    "Transpose": _transpose,
    "Slice": _slice,
    "Pad": _pad,
    "Concat": _concat,
    "Sum": _single,
    "Max": _single,
    "Min": _single,
    "Mean": _single,
    "Add": _neutral(0.0, either_side=True),
    "Sub": _neutral(0.0, either_side=False),
    "Mul": _neutral(1.0, either_side=True),
    "Div": _neutral(1.0, either_side=False),
    "Pow": _neutral(1.0, either_side=False),
    "Clip": _clip,
    "Relu": _relu,
    "AveragePool": _pool_of_one,
    "MaxPool": _pool_of_one,
    "Resize": _resize,
    "QuantizeLinear": _requantised,
    "Not": _undone,
    "Neg": _undone,
}

drop_noops = Pass("drop no-ops", _apply, requires="inferred shapes", ensures="no node hands on its input unchanged")
