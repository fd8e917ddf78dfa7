"""Operators over stacked lanes: how each is applied once to (lanes, …) instead of lane by lane.

``BATCHED`` maps an operator to a function that emits it over stacked operands; one that cannot take the extra leading
dimension in some configuration raises NotImplementedError, and the caller leaves the loop as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from hasten.graph.operators import BROADCAST, REDUCTIONS, UNARY
from hasten.passes.surgery import Dim, Editor, attribute, dims, ints
from hasten.types import Array

__all__ = ["BATCHED", "Operand", "Stacked", "stack"]


@dataclass(frozen=True)
class Stacked:
    """All lanes' values in one. Shapes: value (count, *shape); shape is one lane's"""

    value: ir.Value
    shape: tuple[Dim, ...]
    count: int

    def joined(self, editor: Editor, before: ir.Node, axis: int) -> ir.Value:
        """The lanes one after the other along ``axis``, as a Concat would put them."""
        rank = len(self.shape)
        axis %= rank
        perm = [*range(1, axis + 1), 0, *range(axis + 1, rank + 1)]
        moved = _transposed(editor, before, self.value, perm)
        extent = self.shape[axis]
        merged = self.count * extent if isinstance(extent, int) else None
        return reshaped(editor, before, moved, (*self.shape[:axis], merged, *self.shape[axis + 1 :]))


Operand = ir.Value | Stacked
_Emit = Callable[[Editor, ir.Node, ir.Node, Sequence[Operand | None]], ir.Value]


def reshaped(editor: Editor, before: ir.Node, value: ir.Value, shape: Sequence[Dim]) -> ir.Value:
    """``value`` in ``shape``, of which one dimension at most is no number."""
    if sum(not isinstance(d, int) for d in shape) > 1:
        raise NotImplementedError
    return editor.reshaped(before, value, shape)


def _transposed(editor: Editor, before: ir.Node, value: ir.Value, perm: Sequence[int]) -> ir.Value:
    if list(perm) == sorted(perm):
        return value
    shape = dims(value)
    moved = None if shape is None else [shape[axis] for axis in perm]
    return editor.value(before, "Transpose", [value], {"perm": list(perm)}, shape=moved)


def stack(editor: Editor, before: ir.Node, source: ir.Value, cut: tuple[int, tuple[int, ...], int | None]) -> Stacked:
    """Slices of ``source`` as lanes. ``cut``: axis, each lane's start, width (None: one, and the axis is dropped)."""
    axis, starts, width = cut
    shape = dims(source)
    if shape is None:
        raise NotImplementedError
    count, wide = len(starts), width or 1
    extent = shape[axis]
    if starts != tuple(wide * lane for lane in range(count)) or extent != count * wide:
        index = np.asarray(starts)[:, None] + np.arange(wide)
        source = _picked(editor, before, source, axis, index.reshape(-1))
    inner = () if width is None else (width,)
    split = reshaped(editor, before, source, (*shape[:axis], count, *inner, *shape[axis + 1 :]))
    moved = _transposed(editor, before, split, [axis, *(a for a in range(len(shape) + len(inner)) if a != axis)])
    return Stacked(moved, (*shape[:axis], *inner, *shape[axis + 1 :]), count)


def _picked(editor: Editor, before: ir.Node, source: ir.Value, axis: int, index: Array) -> ir.Value:
    shape = list(dims(source) or ())
    shape[axis] = len(index)
    step = int(index[1] - index[0]) if len(index) > 1 else 1
    if step > 0 and np.array_equal(index, np.arange(index[0], index[0] + step * len(index), step)):
        bounds = [editor.ints([n], "slice") for n in (int(index[0]), int(index[-1]) + 1, axis, step)]
        return editor.value(before, "Slice", [source, *bounds], shape=shape)
    return editor.value(before, "Gather", [source, editor.ints(index, "lanes")], {"axis": axis}, shape=shape)


def _plain(operands: Sequence[Operand | None]) -> list[ir.Value | None]:
    return [operand.value if isinstance(operand, Stacked) else operand for operand in operands]


def _only_first(operands: Sequence[Operand | None]) -> Stacked:
    """The one stacked operand, which must be the first."""
    first = operands[0] if operands else None
    if not isinstance(first, Stacked) or any(isinstance(operand, Stacked) for operand in operands[1:]):
        raise NotImplementedError
    return first


def _emit(
    editor: Editor, before: ir.Node, node: ir.Node, inputs: Sequence[ir.Value | None], **changed: object
) -> ir.Value:
    given = {**node.attributes, **changed}
    made = editor.value(before, node.op_type, inputs, given)
    if node.outputs[0].dtype is not None:
        made.dtype = node.outputs[0].dtype
    return made


def _lane_shape(node: ir.Node) -> tuple[Dim, ...]:
    shape = dims(node.outputs[0])
    if shape is None:
        raise NotImplementedError
    return shape


def _elementwise(editor: Editor, before: ir.Node, node: ir.Node, operands: Sequence[Operand | None]) -> ir.Value:
    rank = len(_lane_shape(node))
    inputs: list[ir.Value | None] = []
    for operand in operands:
        if isinstance(operand, Stacked) and len(operand.shape) < rank:
            padded = (operand.count, *[1] * (rank - len(operand.shape)), *operand.shape)
            inputs.append(reshaped(editor, before, operand.value, padded))
        else:
            inputs.append(operand.value if isinstance(operand, Stacked) else operand)
    return _emit(editor, before, node, inputs)


def _matmul(editor: Editor, before: ir.Node, node: ir.Node, operands: Sequence[Operand | None]) -> ir.Value:
    ranks = [len(op.shape) if isinstance(op, Stacked) else len(dims(op) or ()) for op in operands if op is not None]
    left, right = operands
    if isinstance(left, Stacked) and isinstance(right, Stacked):
        if ranks[0] != ranks[1] or ranks[0] < 2:
            raise NotImplementedError
    elif isinstance(left, Stacked):
        if ranks[1] != 2 and (ranks[1] > ranks[0] or ranks[1] < 2):
            raise NotImplementedError
    elif ranks[1] < 2 or ranks[0] < 1 or (ranks[0] > 2 and ranks[0] > ranks[1]) or ranks[0] == 1:
        raise NotImplementedError
    return _emit(editor, before, node, _plain(operands))


def _gemm(editor: Editor, before: ir.Node, node: ir.Node, operands: Sequence[Operand | None]) -> ir.Value:
    rows = _only_first(operands)
    bias = operands[2] if len(operands) > 2 else None
    wide = dims(bias) if isinstance(bias, ir.Value) else ()
    if attribute(node, "transA", 0) or wide is None or (len(wide) == 2 and wide[0] != 1):
        raise NotImplementedError
    flat = reshaped(editor, before, rows.value, (_product(rows.count, rows.shape[0]), rows.shape[1]))
    made = _emit(editor, before, node, [flat, *_plain(operands[1:])])
    return reshaped(editor, before, made, (rows.count, *_lane_shape(node)))


def _in_batch(editor: Editor, before: ir.Node, node: ir.Node, operands: Sequence[Operand | None]) -> ir.Value:
    """Operators whose first dimension is already a batch: lanes become more of it."""
    lanes = _only_first(operands)
    merged = _product(lanes.count, lanes.shape[0])
    flat = reshaped(editor, before, lanes.value, (merged, *lanes.shape[1:]))
    made = _emit(editor, before, node, [flat, *_plain(operands[1:])])
    return reshaped(editor, before, made, (lanes.count, *_lane_shape(node)))


def _product(count: int, dim: Dim) -> Dim:
    return count * dim if isinstance(dim, int) else None


def _along_axis(editor: Editor, before: ir.Node, node: ir.Node, operands: Sequence[Operand | None]) -> ir.Value:
    lanes = _only_first(operands)
    axis = attribute(node, "axis", 0 if node.op_type == "Gather" else -1)
    return _emit(editor, before, node, _plain(operands), axis=axis % len(lanes.shape) + 1)


def _reduce(editor: Editor, before: ir.Node, node: ir.Node, operands: Sequence[Operand | None]) -> ir.Value:
    lanes = _only_first(operands)
    axes = _axes(operands, attribute(node, "axes"))
    if axes is None and not attribute(node, "noop_with_empty_axes", 0):
        axes = tuple(range(len(lanes.shape)))
    if axes is None:
        raise NotImplementedError
    shifted = [axis % len(lanes.shape) + 1 for axis in axes]
    if "axes" in node.attributes:
        return _emit(editor, before, node, [lanes.value], axes=shifted)
    return _emit(editor, before, node, [lanes.value, editor.ints(shifted, "axes")])


def _axes(operands: Sequence[Operand | None], given: tuple[int, ...] | None) -> tuple[int, ...] | None:
    second = operands[1] if len(operands) > 1 else None
    return ints(second) if isinstance(second, ir.Value) else given


def _transpose(editor: Editor, before: ir.Node, node: ir.Node, operands: Sequence[Operand | None]) -> ir.Value:
    lanes = _only_first(operands)
    perm = attribute(node, "perm", tuple(range(len(lanes.shape)))[::-1])
    return _emit(editor, before, node, [lanes.value], perm=[0, *(axis + 1 for axis in perm)])


def _view(editor: Editor, before: ir.Node, node: ir.Node, operands: Sequence[Operand | None]) -> ir.Value:
    lanes = _only_first(operands)
    return reshaped(editor, before, lanes.value, (lanes.count, *_lane_shape(node)))


def _concat(editor: Editor, before: ir.Node, node: ir.Node, operands: Sequence[Operand | None]) -> ir.Value:
    if not all(isinstance(operand, Stacked) for operand in operands):
        raise NotImplementedError
    axis = attribute(node, "axis") % len(_lane_shape(node)) + 1
    return _emit(editor, before, node, _plain(operands), axis=axis)


_IN_BATCH = (
    "AveragePool",
    "BatchNormalization",
    "Conv",
    "ConvTranspose",
    "DepthToSpace",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "GroupNormalization",
    "InstanceNormalization",
    "LRN",
    "MaxPool",
    "SpaceToDepth",
)

BATCHED: dict[str, _Emit] = {
    **dict.fromkeys(UNARY | BROADCAST, _elementwise),
    **dict.fromkeys(REDUCTIONS, _reduce),
    **dict.fromkeys(_IN_BATCH, _in_batch),
    **dict.fromkeys(["Softmax", "LogSoftmax", "Hardmax", "LayerNormalization", "Gather"], _along_axis),
    **dict.fromkeys(["Reshape", "Flatten", "Squeeze", "Unsqueeze"], _view),
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Transpose": _transpose,
    "Concat": _concat,
}
