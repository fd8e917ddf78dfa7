"""Brings a Pad into the convolution or pooling that reads it, also through views between the two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from hasten.graph.walk import all_nodes
from hasten.passes import Pass
from hasten.passes.surgery import (
    Editor,
    attribute,
    dims,
    input_of,
    ints,
    is_op,
    rank,
    scalar,
    sole_consumer,
    static_dims,
)

__all__ = ["fuse_padding"]

_NEVER_NEGATIVE = ("Relu", "Sigmoid", "Softmax", "Exp", "Abs", "Sqrt", "HardSigmoid", "Softplus")
_RESHAPES = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")

_Around: TypeAlias = tuple[tuple[int, int], ...]


def _padding(model: ir.Model) -> int:
    editor = Editor(model)
    for node in list(all_nodes(model.graph)):
        if is_op(node, "Conv", "QLinearConv", "MaxPool", "AveragePool"):
            _fuse_padding(editor, node)
    return editor.finish()


def _fuse_padding(editor: Editor, node: ir.Node) -> None:
    found = _pad_above(node.inputs[0])
    count = rank(node.inputs[0])
    if found is None or count is None:
        return
    pad, views = found
    seen = _around_each(pad, views)
    given = tuple(attribute(node, "pads", (0,) * (2 * (count - 2))))
    if seen is None or attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID") or len(node.outputs) > 1:
        return
    around = seen[-1]
    extra = (*(begin for begin, _ in around[2:]), *(end for _, end in around[2:]))
    if any(map(any, around[:2])) or not _same_filling((pad, views), node, given, extra):
        return
    changed = {name: a for name, a in node.attributes.items() if name != "auto_pad"}
    pads = [a + b for a, b in zip(given, extra, strict=True)]
    if node.op_type == "AveragePool":
        changed["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
    inputs = [_without(editor, node, pad, views, seen), *node.inputs[1:]]
    made = editor.value(node, node.op_type, inputs, {**changed, "pads": pads}, shape=dims(node.outputs[0]))
    editor.swap(node.outputs[0], made)


def _pad_above(value: ir.Value | None) -> tuple[ir.Node, list[ir.Node]] | None:
    """The Pad that nothing but the layer reads, and the views between the two, from the Pad on."""
    views: list[ir.Node] = []
    while value is not None and sole_consumer(value) is not None:
        producer = value.producer()
        if is_op(producer, "Pad"):
            assert producer is not None
            return producer, views[::-1]
        if producer is None or not (is_op(producer, "Transpose", *_RESHAPES) or _dequantises(producer)):
            return None
        views.append(producer)
        value = producer.inputs[0]
    return None


def _dequantises(node: ir.Node) -> bool:
    """True where every element keeps its place, and one integer stands for zero."""
    return is_op(node, "DequantizeLinear") and static_dims(node.inputs[1]) in ((), (1,))


def _around_each(pad: ir.Node, views: Sequence[ir.Node]) -> list[_Around] | None:
    """What the Pad adds at either end of each axis, as it is there and as it is after each view; None where a view
    mixes what was added with the rest, and where the Pad cuts or does not fill in a constant.
    """
    first = _around(pad)
    if first is None:
        return None
    found = [first]
    for view in views:
        after = _seen_through(view, found[-1])
        if after is None:
            return None
        found.append(after)
    return found


def _around(pad: ir.Node) -> _Around | None:
    pads, count = ints(input_of(pad, 1)), rank(pad.outputs[0])
    if pads is None or count is None or attribute(pad, "mode", "constant") != "constant" or min(pads, default=0) < 0:
        return None
    axes = input_of(pad, 3)
    listed = range(count) if axes is None else ints(axes)
    if listed is None:
        return None
    found = [(0, 0)] * count
    for place, axis in enumerate(listed):
        found[axis % count] = (pads[place], pads[place + len(pads) // 2])
    return tuple(found)


def _seen_through(view: ir.Node, around: _Around) -> _Around | None:
    """The same after a transpose, or after a reshape that only adds or drops axes of one element."""
    if is_op(view, "Transpose"):
        perm = attribute(view, "perm", tuple(reversed(range(len(around)))))
        return tuple(around[axis] for axis in perm)
    if is_op(view, "DequantizeLinear"):
        return around
    source, target = static_dims(view.inputs[0]), static_dims(view.outputs[0])
    if source is None or target is None or [d for d in source if d != 1] != [d for d in target if d != 1]:
        return None
    if any(any(ends) for size, ends in zip(source, around, strict=True) if size == 1):
        return None
    kept = iter([ends for size, ends in zip(source, around, strict=True) if size != 1])
    return tuple(next(kept) if size != 1 else (0, 0) for size in target)


def _without(
    editor: Editor, node: ir.Node, pad: ir.Node, views: Sequence[ir.Node], seen: Sequence[_Around]
) -> ir.Value | None:
    """What the layer reads, as if there were no Pad."""
    value = pad.inputs[0]
    for view, around in zip(views, seen[1:], strict=True):
        whole = static_dims(view.outputs[0])
        shape = None if whole is None else [d - sum(ends) for d, ends in zip(whole, around, strict=True)]
        if is_op(view, "Transpose"):
            value = editor.value(node, "Transpose", [value], view.attributes, shape=shape)
        elif is_op(view, "DequantizeLinear"):
            value = editor.value(node, "DequantizeLinear", [value, *view.inputs[1:]], view.attributes, shape=shape)
            value.dtype = view.outputs[0].dtype or ir.DataType.FLOAT
        else:
            assert shape is not None  # _seen_through
            value = editor.value(node, "Reshape", [value, editor.ints(shape, "target")], shape=shape)
    return value


def _filling(pad: ir.Node, views: Sequence[ir.Node]) -> float | None:
    """What Pad fills in, as the layer sees it; None where that is not known, or some scale away from zero."""
    filling = input_of(pad, 2)
    number = 0.0 if filling is None else scalar(filling)
    for view in views:
        if is_op(view, "DequantizeLinear"):
            zero = input_of(view, 2)
            number = 0.0 if number is not None and number == (0.0 if zero is None else scalar(zero)) else None
    return number


def _same_filling(
    found: tuple[ir.Node, Sequence[ir.Node]], node: ir.Node, given: tuple[int, ...], extra: tuple[int, ...]
) -> bool:
    """True where the layer's own padding means the same as what Pad fills in."""
    pad, number = found[0], _filling(*found)
    if node.op_type == "Conv":
        return number == 0
    if node.op_type == "QLinearConv":
        return number is not None and number == scalar(node.inputs[2])
    if attribute(node, "ceil_mode", 0):
        return False
    if node.op_type == "AveragePool":
        return number == 0 and (not any(given) or bool(attribute(node, "count_include_pad", 0)))
    producer = pad.inputs[0].producer() if pad.inputs[0] is not None else None
    # Every window of a MaxPool must see something real, or zeros would not equal its own minus infinity.
    kernel = attribute(node, "kernel_shape")
    sees_real = all(a + b < size for a, b, size in zip(given, extra, [*kernel, *kernel], strict=True)) and set(
        attribute(node, "dilations", (1,))
    ) == {1}
    return number == -np.inf or (number == 0 and sees_real and is_op(producer, *_NEVER_NEGATIVE))


fuse_padding = Pass(
    "fuse padding into convolution and pooling", _padding, ensures="no Pad that a layer could do itself"
)
