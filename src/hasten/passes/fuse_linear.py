"""Brings a matrix product and its bias together."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from hasten.graph.walk import all_nodes
from hasten.passes import Pass
from hasten.passes.surgery import (
    Dim,
    Editor,
    constant,
    dims,
    is_op,
    rank,
    sole_consumer,
)

__all__ = ["fuse_bias"]


def _bias(model: ir.Model) -> int:
    editor = Editor(model)
    for node in list(all_nodes(model.graph)):
        if is_op(node, "Add"):
            _fuse_bias(editor, node)
    return editor.finish()


def _fuse_bias(editor: Editor, add: ir.Node) -> None:
    """``MatMul + b`` on matrices is one Gemm."""
    for product, bias in (add.inputs, reversed(add.inputs)):
        matmul = None if product is None else product.producer()
        if matmul is None or product is None or not is_op(matmul, "MatMul") or sole_consumer(product) is not add:
            continue
        left, right = matmul.inputs
        row = _row(editor, bias, dims(right)) if rank(left) == 2 and rank(right) == 2 else None
        if row is None:
            continue
        editor.swap(add.outputs[0], editor.value(add, "Gemm", [left, right, row], shape=dims(add.outputs[0])))
        return


def _row(editor: Editor, bias: ir.Value | None, weights: tuple[Dim, ...] | None) -> ir.Value | None:
    """The bias as a row as wide as the product; a dequantised one as it is."""
    width = None if weights is None else weights[1]
    if bias is None or not isinstance(width, int):
        return None
    producer = bias.producer()
    if is_op(producer, "DequantizeLinear"):
        assert producer is not None
        return bias if constant(producer.inputs[0]) is not None and dims(bias) == (width,) else None
    numbers = constant(bias)
    if numbers is None or numbers.dtype.kind != "f" or numbers.size not in (1, width) or numbers.ndim > 2:
        return None
    if numbers.ndim == 2 and numbers.shape[0] != 1:
        return None
    return editor.weight(np.broadcast_to(numbers.reshape(-1), (width,)), f"{bias.name}_row")


fuse_bias = Pass("fuse bias into the matrix product", _bias, ensures="no Add of a constant row follows a plain MatMul")
