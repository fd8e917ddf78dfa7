"""Group normalisation, which exporters write as another normalisation between reshapes, becomes one node.

PyTorch's has InstanceNormalization of groups between the reshapes, Keras' the steps of a layer normalisation. For the
native compiler, which normalises groups of channels where they lie; ONNX Runtime has no kernel of its own for the node.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from hasten.graph.walk import all_nodes
from hasten.passes import Pass
from hasten.passes.opset import raise_to
from hasten.passes.recognise_normalisation import spelt_layer
from hasten.passes.surgery import Editor, attribute, constant, is_op, sole_consumer, static_dims
from hasten.types import Array

__all__ = ["recognise_groups"]

_OPSET = 21  # from which on each channel has a scale of its own


@dataclass(frozen=True)
class _Groups:
    """``x`` normalised by groups of the channels along ``axis``, then scaled and shifted by group."""

    x: ir.Value
    back: ir.Node
    axis: int
    count: int
    epsilon: float
    scale: Array
    shift: Array


def _apply(model: ir.Model) -> int:
    if not any(_found(node) for node in all_nodes(model.graph)) or not raise_to(model, _OPSET):
        return 0
    editor = Editor(model)
    for node in list(all_nodes(model.graph)):
        found = _found(node)
        if found is not None:
            _replace(editor, found)
    return editor.finish()


def _found(node: ir.Node) -> _Groups | None:
    if is_op(node, "InstanceNormalization"):
        return _of_instances(node)
    return _of_steps(node) if is_op(node, "Div", "Mul") else None


def _of_instances(node: ir.Node) -> _Groups | None:
    between = _between(node.inputs[0], node.outputs[0])
    scale, shift = constant(node.inputs[1]), constant(node.inputs[2])
    if between is None or scale is None or shift is None:
        return None
    x, back, shape, split = between
    if len(shape) < 3 or len(split) < 3 or split[0] != shape[0] or shape[1] % split[1]:
        return None
    return _Groups(x, back, 1, split[1], attribute(node, "epsilon", 1e-5), scale, shift)


def _of_steps(node: ir.Node) -> _Groups | None:
    found = spelt_layer(node)
    between = None if found is None else _between(found.source, node.outputs[0])
    if found is None or between is None:
        return None
    x, back, shape, split = between
    kept = [d for d in range(1, len(split)) if d not in found.axes]
    if len(shape) < 3 or len(split) != len(shape) + 1 or len(kept) != 1 or 0 in found.axes:
        return None
    axis = kept[0]
    if axis >= len(shape) or split != (*shape[:axis], split[axis], shape[axis] // split[axis], *shape[axis + 1 :]):
        return None
    return _Groups(x, back, axis, split[axis], found.epsilon, np.ones(split[axis]), np.zeros(split[axis]))


def _between(
    source: ir.Value | None, result: ir.Value
) -> tuple[ir.Value, ir.Node, tuple[int, ...], tuple[int, ...]] | None:
    """What was reshaped to ``source``, the node that shapes ``result`` back, and the two shapes."""
    split, back = None if source is None else source.producer(), sole_consumer(result)
    if split is None or back is None or not is_op(split, "Reshape") or not is_op(back, "Reshape"):
        return None
    x, shape, cut = split.inputs[0], static_dims(split.inputs[0]), static_dims(source)
    if x is None or shape is None or cut is None or static_dims(back.outputs[0]) != shape:
        return None
    return x, back, shape, cut


def _replace(editor: Editor, found: _Groups) -> None:
    shape = static_dims(found.x)
    if shape is None or found.x.dtype is None:
        return
    given = [
        editor.weight(np.repeat(part, shape[found.axis] // found.count).astype(found.x.dtype.numpy()), name)
        for part, name in ((found.scale, "group_scale"), (found.shift, "group_shift"))
    ]
    perm = [0, found.axis, *(d for d in range(1, len(shape)) if d != found.axis)]
    moved, result = [shape[d] for d in perm], found.x
    attributes = {"num_groups": found.count, "epsilon": found.epsilon}
    if found.axis != 1:
        result = editor.value(found.back, "Transpose", [result], {"perm": perm}, shape=moved)
    result = editor.value(found.back, "GroupNormalization", [result, *given], attributes, shape=moved)
    if found.axis != 1:
        back = [perm.index(d) for d in range(len(perm))]
        result = editor.value(found.back, "Transpose", [result], {"perm": back}, shape=shape)
    editor.swap(found.back.outputs[0], result)


recognise_groups = Pass(
    "recognise group normalisation",
    _apply,
    requires="inferred shapes",
    ensures="group normalisation is one node",
)
