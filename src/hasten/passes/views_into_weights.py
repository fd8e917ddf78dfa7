"""Lets a dense layer read or write its features in another order, instead of transposing them per call.

``Conv → Transpose → Flatten → Dense`` (channels-last Flatten) needs no Transpose if the rows of the dense weights are
put in the convolution's order; ``Dense → Reshape → Transpose → Conv`` none if the columns are.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from hasten.graph.operators import UNARY
from hasten.graph.walk import all_nodes
from hasten.passes import Pass
from hasten.passes.surgery import Editor, attribute, constant, dims, input_of, is_op, sole_consumer
from hasten.passes.views import VIEWS, Arrangement, trace
from hasten.types import Array

__all__ = ["views_into_weights"]


def _apply(model: ir.Model) -> int:
    editor = Editor(model)
    for node in list(all_nodes(model.graph)):
        if is_op(node, "MatMul", "Gemm"):
            _rows(editor, node)
        elif is_op(node, *VIEWS):
            _columns(editor, node)
    return editor.finish()


def _chain_above(value: ir.Value | None) -> list[ir.Node]:
    """Views above ``value`` that nothing else reads."""
    nodes: list[ir.Node] = []
    while value is not None:
        producer = value.producer()
        if producer is None or not is_op(producer, *VIEWS) or sole_consumer(value) is None:
            break
        nodes.insert(0, producer)
        value = producer.inputs[0]
    return nodes


def _rows(editor: Editor, dense: ir.Node) -> None:
    weights = constant(dense.inputs[1])
    if weights is None or weights.ndim != 2 or attribute(dense, "transA", 0):
        return
    nodes = _chain_above(dense.inputs[0])
    arrangement, shape = trace(nodes) if nodes else None, dims(dense.inputs[0])
    if arrangement is None or shape is None or not arrangement.moves or not nodes:
        return
    order = _order_within(arrangement, arrangement.current[-1], arrangement.before)
    if order is None or sum(not isinstance(d, int) for d in shape) > 1:
        return
    flipped = bool(attribute(dense, "transB", 0))
    matrix = weights.T if flipped else weights
    sorted_rows = _reordered(matrix, *order)
    source = nodes[0].inputs[0]
    assert source is not None
    flat = editor.reshaped(dense, source, shape)
    weight = editor.weight(sorted_rows.T if flipped else sorted_rows, f"{_name(dense)}_rows")
    dense.replace_input_with(0, flat)
    dense.replace_input_with(1, weight)
    editor.changes += 1


def _name(node: ir.Node) -> str:
    return (node.inputs[1].name if node.inputs[1] is not None else None) or "weight"


def _order_within(
    arrangement: Arrangement, group: list[int], wanted: list[int]
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Sizes of the group's atoms and their permutation into ``wanted`` order, where only they are out of order."""
    sizes = [arrangement.size[atom] for atom in group]
    inside = sorted(group, key=wanted.index)
    corrected = [atom for atom in arrangement.after if atom not in group] + inside
    if corrected != wanted or not all(isinstance(size, int) for size in sizes):
        return None
    return tuple(int(size or 0) for size in sizes), tuple(group.index(atom) for atom in inside)


def _reordered(matrix: Array, sizes: tuple[int, ...], perm: tuple[int, ...]) -> Array:
    parts = matrix.reshape(*sizes, -1)
    return np.ascontiguousarray(parts.transpose(*perm, len(sizes))).reshape(matrix.shape)


def _columns(editor: Editor, last: ir.Node) -> None:
    follower = sole_consumer(last.outputs[0])
    if follower is not None and is_op(follower, *VIEWS):
        return
    nodes = _chain_above(last.outputs[0]) if sole_consumer(last.outputs[0]) else [last, *()]
    if nodes[-1] is not last:
        return
    dense, pointwise = _dense_above(nodes[0].inputs[0])
    arrangement, shape = trace(nodes), dims(last.outputs[0])
    if dense is None or arrangement is None or shape is None or not arrangement.moves:
        return
    group = arrangement.source[-1]
    ahead = [atom for atom in arrangement.before if atom not in group]
    inside = [atom for atom in arrangement.after if atom in group]
    sizes = [arrangement.size[atom] for atom in group]
    if arrangement.after != ahead + inside or not all(isinstance(size, int) for size in sizes):
        return
    if sum(not isinstance(d, int) for d in shape) > 1:
        return
    perm = tuple(group.index(atom) for atom in inside)
    if not _reorder_columns(editor, dense, tuple(int(size or 0) for size in sizes), perm):
        return
    source = pointwise[-1].outputs[0] if pointwise else dense.outputs[0]
    editor.swap(last.outputs[0], editor.reshaped(last, source, shape))


def _dense_above(value: ir.Value | None) -> tuple[ir.Node | None, list[ir.Node]]:
    """The dense layer whose features these are, seen through activations; and those activations, downwards."""
    pointwise: list[ir.Node] = []
    while value is not None and sole_consumer(value) is not None:
        producer = value.producer()
        if is_op(producer, "MatMul", "Gemm"):
            return producer, pointwise
        if producer is None or not is_op(producer, *UNARY):
            break
        pointwise.insert(0, producer)
        value = producer.inputs[0]
    return None, []


def _reorder_columns(editor: Editor, dense: ir.Node, sizes: tuple[int, ...], perm: tuple[int, ...]) -> bool:
    weights, bias = constant(dense.inputs[1]), input_of(dense, 2)
    row = constant(bias)
    if weights is None or weights.ndim != 2 or (bias is not None and row is None):
        return False
    flipped = bool(attribute(dense, "transB", 0))
    matrix = weights if flipped else weights.T
    if matrix.shape[0] != int(np.prod(sizes)) or (row is not None and row.size not in (1, matrix.shape[0])):
        return False
    if row is not None and row.size > 1:
        dense.replace_input_with(2, editor.weight(_reordered(row.reshape(-1, 1), sizes, perm).reshape(row.shape)))
    moved = _reordered(np.ascontiguousarray(matrix), sizes, perm)
    dense.replace_input_with(1, editor.weight(moved if flipped else moved.T, f"{_name(dense)}_columns"))
    return True


views_into_weights = Pass(
    "let dense layers take features in the order they come",
    _apply,
    requires="chains of views merged",
    ensures="no Transpose only reorders the features of one dense layer",
)
