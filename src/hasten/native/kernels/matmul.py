"""MatMul and Gemm with a constant right-hand side → ``Dense``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.native.expr import ACC, call, const
from hasten.native.kernels.dense import Dense

if TYPE_CHECKING:
    from hasten.native.lower import Lowering

__all__ = ["LOWER"]


def _matmul(low: Lowering, node: ir.Node) -> None:
    a, b = low.view(node.inputs[0]), low.constant(node.inputs[1])
    if b is None or b.ndim != 2 or a.rank < 1 or b.dtype != np.float32:
        raise UnsupportedOpError(f"op MatMul (node '{node.name}') without a constant 2-D float32 right-hand side")
    shape = (*a.shape[:-1], b.shape[1])
    rows = int(np.prod(a.shape[:-1]))
    x = low.reshape(low.contiguous(a), (rows, b.shape[0]))
    y = low.new((rows, b.shape[1]))
    low.add(Dense(x, y, b, np.zeros(b.shape[1], np.float32)))
    low.set(node.outputs[0], low.reshape(y, shape))


def _gemm(low: Lowering, node: ir.Node) -> None:
    attr = node.attributes
    alpha, beta = (attr.get_float(k, 1.0) for k in ("alpha", "beta"))
    a, b = low.view(node.inputs[0]), low.constant(node.inputs[1])
    if b is None or b.dtype != np.float32:
        raise UnsupportedOpError(f"op Gemm (node '{node.name}') without a constant float32 right-hand side")
    if attr.get_int("transA", 0):
        a = a.transpose((1, 0))
    b = b.T if attr.get_int("transB", 0) else b
    weight = np.ascontiguousarray(b * np.float32(alpha))
    x, y = low.contiguous(a), low.new((a.shape[0], b.shape[1]))
    bias, expr = np.zeros(b.shape[1], np.float32), ACC
    if len(node.inputs) > 2 and low.has(node.inputs[2]):
        c = low.constant(node.inputs[2])
        if c is not None and c.size in (1, b.shape[1]) and (c.ndim < 2 or c.shape[0] == 1):
            bias = np.broadcast_to(c.reshape(-1) * np.float32(beta), (b.shape[1],)).astype(np.float32)
        else:
            operand = low.view(node.inputs[2]).broadcast(y.shape)
            from hasten.native.expr import load

            term = load(low.contiguous(operand) if operand.strides[-1] not in (0, 1) else operand)
            expr = call("add", ACC, term if beta == 1.0 else call("mul", term, const(beta)))
    low.add(Dense(x, y, weight, bias, expr))
    low.set(node.outputs[0], y)


LOWER: Mapping[str, Any] = {"MatMul": _matmul, "Gemm": _gemm}
