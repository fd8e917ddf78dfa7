"""Folds per-channel scales and shifts into the weights of the linear layer before or after them.

BatchNormalization at inference, and Mul, Add, Sub, Div by a constant, are all ``y = s·x + t`` for each channel. After
Conv, ConvTranspose, Gemm or MatMul: scale the weights' output channels, scale and shift the bias. Before one: scale its
input channels and add what the shift contributes to the bias; exact only where no padding is read, because padding is
zero after the shift, not before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from hasten.graph.walk import all_nodes
from hasten.passes import Pass
from hasten.passes.surgery import Editor, attribute, constant, dims, input_of, is_op, rank, sole_consumer
from hasten.types import Array

__all__ = ["fold_affine_after", "fold_affine_before"]

# Normalising an input far from zero inside the sums that follow would cancel large numbers: (1000 - 999) keeps four
# digits fewer than the original order of operations.
_LARGEST_EARLY_SHIFT = 32.0

_CONVOLUTIONS = ("Conv", "ConvTranspose")


@dataclass(frozen=True)
class _Affine:
    """``scale·x + shift``. Shapes: (C,) along ``axis``, or (1,) for all channels alike."""

    source: ir.Value
    scale: Array
    shift: Array

    @property
    def shifts(self) -> bool:
        return bool(np.any(self.shift))


def _after(model: ir.Model) -> int:
    editor = Editor(model)
    for node in list(all_nodes(model.graph)):
        linear = _source_node(node)
        if linear is None:
            continue
        axis = 1 if is_op(linear, *_CONVOLUTIONS) else -1
        affine = _affine(node, axis)
        if affine is not None and affine.source is linear.outputs[0] and sole_consumer(affine.source) is node:
            folded = _FOLDS_AFTER[linear.op_type](editor, linear, affine)
            if folded is not None:
                editor.swap(node.outputs[0], folded)
    return editor.finish()


def _source_node(node: ir.Node) -> ir.Node | None:
    for value in node.inputs[:2]:
        producer = None if value is None else value.producer()
        if producer is not None and is_op(producer, *_FOLDS_AFTER):
            return producer
    return None


def _affine(node: ir.Node, axis: int) -> _Affine | None:
    """What ``node`` does to its variable input, where that is a scale and a shift along ``axis``."""
    if is_op(node, "BatchNormalization"):
        return _normalisation(node) if axis == 1 or rank(node.inputs[0]) == 2 else None
    if not is_op(node, "Mul", "Add", "Sub", "Div"):
        return None
    for index in (0, 1):
        source, contents = node.inputs[index], constant(node.inputs[1 - index])
        if source is None or contents is None or contents.dtype.kind != "f" or constant(source) is not None:
            continue
        vector = _per_channel(contents, rank(source), axis)
        if vector is None or not np.all(np.isfinite(vector)):
            return None
        if node.op_type == "Div" and (index == 1 or not np.all(vector)):
            return None
        one, zero = np.ones_like(vector), np.zeros_like(vector)
        if node.op_type == "Sub":
            return _Affine(source, one, -vector) if index == 0 else _Affine(source, -one, vector)
        if node.op_type == "Add":
            return _Affine(source, one, vector)
        return _Affine(source, vector if node.op_type == "Mul" else 1 / vector, zero)
    return None


def _normalisation(node: ir.Node) -> _Affine | None:
    parts = [constant(value) for value in node.inputs[1:5]]
    if len(parts) < 4 or any(part is None for part in parts) or attribute(node, "training_mode", 0):
        return None
    gamma, beta, mean, variance = (np.asarray(part, np.float64) for part in parts)
    scale = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
    source = node.inputs[0]
    return None if source is None else _Affine(source, scale, beta - mean * scale)


def _per_channel(contents: Array, of_rank: int | None, axis: int) -> Array | None:
    """The constant as a vector along ``axis`` of a tensor of that rank; None where it varies along another."""
    if of_rank is None or contents.ndim > of_rank:
        return None
    shape = (1,) * (of_rank - contents.ndim) + contents.shape
    varying = [i for i, size in enumerate(shape) if size != 1]
    if varying not in ([], [axis % of_rank]):
        return None
    return contents.reshape(-1).astype(np.float64)


def _conv_after(editor: Editor, conv: ir.Node, affine: _Affine) -> ir.Value | None:
    weights, bias = constant(conv.inputs[1]), input_of(conv, 2)
    if weights is None or weights.dtype.kind != "f" or (bias is not None and constant(bias) is None):
        return None
    groups = attribute(conv, "group", 1)
    channels = weights.shape[0] if conv.op_type == "Conv" else weights.shape[1] * groups
    if affine.scale.size not in (1, channels):
        return None
    scale, shift = (np.broadcast_to(part, channels) for part in (affine.scale, affine.shift))
    if conv.op_type == "Conv":
        scaled = weights * scale.reshape(-1, *[1] * (weights.ndim - 1))
    else:  # weights (C_in, C_out/groups, …); the inputs of group g make the outputs of group g
        by_group = np.repeat(scale.reshape(groups, -1), weights.shape[0] // groups, axis=0)
        scaled = weights * by_group.reshape(*weights.shape[:2], *[1] * (weights.ndim - 2))
    old = constant(bias)
    moved = (0 if old is None else old) * scale + shift
    return _rebuild(editor, conv, scaled.astype(weights.dtype), moved.astype(weights.dtype))


def _gemm_after(editor: Editor, gemm: ir.Node, affine: _Affine) -> ir.Value | None:
    weights, bias = constant(gemm.inputs[1]), input_of(gemm, 2)
    if weights is None or weights.dtype.kind != "f" or (bias is not None and constant(bias) is None):
        return None
    flipped = attribute(gemm, "transB", 0)
    units = weights.shape[0 if flipped else 1]
    if affine.scale.size not in (1, units):
        return None
    scale, shift = (np.broadcast_to(part, units) for part in (affine.scale, affine.shift))
    scaled = weights * (scale[:, None] if flipped else scale)
    old = constant(bias)
    moved = (0 if old is None else old * attribute(gemm, "beta", 1.0)) * scale + shift
    return _rebuild(editor, gemm, scaled.astype(weights.dtype), np.asarray(moved).astype(weights.dtype))


def _matmul_after(editor: Editor, matmul: ir.Node, affine: _Affine) -> ir.Value | None:
    weights = constant(matmul.inputs[1])
    if weights is None or weights.dtype.kind != "f" or weights.ndim < 2 or affine.shifts:
        return None
    if affine.scale.size not in (1, weights.shape[-1]):
        return None
    scaled = editor.weight((weights * affine.scale).astype(weights.dtype), f"{matmul.inputs[1].name}_scaled")  # type: ignore[union-attr]
    return editor.value(matmul, "MatMul", [matmul.inputs[0], scaled], shape=dims(matmul.outputs[0]))


def _rebuild(editor: Editor, node: ir.Node, weights: Array, bias: Array) -> ir.Value:
    kept = {name: a for name, a in node.attributes.items() if name != "beta"}
    name = node.inputs[1].name if node.inputs[1] is not None else "weight"
    given: list[ir.Value | None] = [node.inputs[0], editor.weight(weights, f"{name}_folded")]
    given.append(editor.weight(bias, f"{name}_bias") if np.any(bias) or input_of(node, 2) is not None else None)
    return editor.value(node, node.op_type, given, kept, shape=dims(node.outputs[0]))


_FOLDS_AFTER = {"Conv": _conv_after, "ConvTranspose": _conv_after, "Gemm": _gemm_after, "MatMul": _matmul_after}


def _before(model: ir.Model) -> int:
    editor = Editor(model)
    for node in list(all_nodes(model.graph)):
        if not is_op(node, "BatchNormalization", "Mul", "Add", "Sub", "Div"):
            continue
        users = [user for user, _ in node.outputs[0].uses()]
        if not users or node.outputs[0].is_graph_output() or any(user.graph is not node.graph for user in users):
            continue
        plans = [_plan_before(node, user) for user in users]
        if all(plan is not None for plan in plans):
            for user, plan in zip(users, plans, strict=True):
                assert plan is not None
                _use_plan(editor, user, plan)
    return editor.finish()


@dataclass(frozen=True)
class _Plan:
    source: ir.Value
    weights: Array
    bias: Array | None


def _plan_before(node: ir.Node, user: ir.Node) -> _Plan | None:
    """The user's weights and bias with the scale and shift before it inside, where that is exact."""
    if not is_op(user, "Conv", "Gemm", "MatMul") or user.inputs[0] is not node.outputs[0]:
        return None
    affine = _affine(node, 1 if user.op_type == "Conv" else -1)
    weights, bias = constant(user.inputs[1]), input_of(user, 2)
    if affine is None or weights is None or weights.dtype.kind != "f" or user.inputs[1] is node.outputs[0]:
        return None
    if np.max(np.abs(affine.shift), initial=0) > _LARGEST_EARLY_SHIFT:
        return None
    if bias is not None and constant(bias) is None:
        return None
    return _conv_before(user, affine, weights) if user.op_type == "Conv" else _dense_before(user, affine, weights)


def _conv_before(conv: ir.Node, affine: _Affine, weights: Array) -> _Plan | None:
    padded = any(attribute(conv, "pads", ())) or attribute(conv, "auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    groups = attribute(conv, "group", 1)
    channels = weights.shape[1] * groups
    if (affine.shifts and padded) or affine.scale.size not in (1, channels):
        return None
    scale, shift = (np.broadcast_to(part, channels).reshape(groups, -1) for part in (affine.scale, affine.shift))
    outputs = weights.shape[0] // groups
    by_output = [np.repeat(part, outputs, axis=0) for part in (scale, shift)]
    spread = [part.reshape(*part.shape, *[1] * (weights.ndim - 2)) for part in by_output]
    moved = (weights * spread[1]).sum(axis=tuple(range(1, weights.ndim)))
    old = constant(input_of(conv, 2))
    bias = None if old is None and not affine.shifts else ((0 if old is None else old) + moved).astype(weights.dtype)
    return _Plan(affine.source, (weights * spread[0]).astype(weights.dtype), bias)


def _dense_before(dense: ir.Node, affine: _Affine, weights: Array) -> _Plan | None:
    if weights.ndim != 2 or attribute(dense, "transA", 0) or (dense.op_type == "MatMul" and affine.shifts):
        return None
    matrix = weights.T if attribute(dense, "transB", 0) else weights
    if affine.scale.size not in (1, matrix.shape[0]):
        return None
    scale, shift = (np.broadcast_to(part, matrix.shape[0]) for part in (affine.scale, affine.shift))
    scaled = matrix * scale[:, None]
    old, bias = constant(input_of(dense, 2)), None
    if dense.op_type == "Gemm" and (old is not None or affine.shifts):
        alpha, beta = attribute(dense, "alpha", 1.0), attribute(dense, "beta", 1.0)
        bias = ((0 if old is None else old * beta) + alpha * (shift @ matrix)).astype(weights.dtype)
    return _Plan(affine.source, (scaled.T if attribute(dense, "transB", 0) else scaled).astype(weights.dtype), bias)


def _use_plan(editor: Editor, user: ir.Node, plan: _Plan) -> None:
    name = user.inputs[1].name if user.inputs[1] is not None else "weight"
    given: list[ir.Value | None] = [plan.source, editor.weight(plan.weights, f"{name}_folded")]
    if plan.bias is not None:
        given.append(editor.weight(plan.bias, f"{name}_bias"))
    kept = {key: a for key, a in user.attributes.items() if key != "beta"}
    editor.swap(user.outputs[0], editor.value(user, user.op_type, given, kept, shape=dims(user.outputs[0])))


fold_affine_after = Pass(
    "fold scales and shifts into the layer before",
    _after,
    ensures="no BatchNormalization, nor scale or shift by a constant, follows a linear layer that nothing else reads",
)
fold_affine_before = Pass(
    "fold scales and shifts into the layer after",
    _before,
    ensures="no scale or shift stands before linear layers that could take it in exactly",
)
