"""int8: operators that say themselves that they work on integers, and QuantizeLinear, where patterns of bytes end.

Source: ONNX operators QuantizeLinear-24, QLinearConv-10, QLinearMatMul-21, ConvInteger-10, MatMulInteger-10.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.native.kernels.arithmetic import cast
from hasten.native.kernels.byte_nodes import byte_conv, byte_product
from hasten.native.kernels.dynamic_quantise import dynamic_quantise
from hasten.native.kernels.integer_product import integer_sums, quantised_sums
from hasten.native.kernels.quantised_pattern import quantized
from hasten.native.kernels.quantised_values import BYTES, Scale, dequantize, scale_of
from hasten.native.kernels.requantise import Requantise
from hasten.native.program import View
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.lower import Lowering

__all__ = ["LOWER"]


def _scalars(low: Lowering, node: ir.Node, first: int = 1) -> Scale:
    scale = scale_of(low, node, first)
    if scale is None:
        raise UnsupportedOpError(f"op {node.op_type} (node '{node.name}') needs a constant scale and zero point")
    return scale


def _need(found: View | None, node: ir.Node) -> View:
    if found is None:
        raise UnsupportedOpError(f"op {node.op_type} (node '{node.name}') of this shape has no native kernel")
    return found


def _signed(low: Lowering, node: ir.Node, index: int, zero: Array) -> Array:
    """Constant weights without their zero point.

    Raises:  UnsupportedOpError: computed at run time
    """
    data = low.constant(node.inputs[index])
    if data is None or data.dtype.name not in BYTES:
        raise UnsupportedOpError(f"op {node.op_type} (node '{node.name}') needs constant int8 or uint8 weights")
    return np.asarray(data.astype(np.int16) - zero.astype(np.int16))


def _qlinear(low: Lowering, node: ir.Node) -> None:
    conv = node.op_type == "QLinearConv"
    x, x_scale = low.view(node.inputs[0]), _scalars(low, node, 1)
    w_scale, y_scale = _scalars(low, node, 4), _scalars(low, node, 6)
    dtype = node.outputs[0].dtype
    name = dtype.numpy().name if dtype is not None else ""
    if not (x_scale.is_scalar and y_scale.is_scalar) or x.dtype not in BYTES or name not in BYTES:
        raise UnsupportedOpError(f"op {node.op_type} (node '{node.name}') with a scale per channel of x or y")
    data = low.constant(node.inputs[3])
    if data is None and not conv:
        zeros = (low.data(s.zero) if s.zero.any() else None for s in (x_scale, w_scale))
        sums = _need(integer_sums(low, *zip((x, low.view(node.inputs[3])), zeros, strict=True)), node)
        factors = x_scale.scale * w_scale.scale / y_scale.scale
        low.set(node.outputs[0], quantised_sums(low, sums, factors, int(y_scale.zero[0]), name))
        return
    rank = 0 if data is None else data.ndim
    zero = w_scale.zero if w_scale.is_scalar or not conv else w_scale.zero.reshape(-1, *(1,) * (rank - 1))
    weight = _signed(low, node, 3, zero)
    count = weight.shape[0 if conv else -1]
    given = node.inputs[8] if conv and len(node.inputs) > 8 and low.has(node.inputs[8]) else None
    bias = low.constant(given)
    if given is not None and bias is None:
        raise UnsupportedOpError(f"op {node.op_type} (node '{node.name}') needs a constant bias")
    scale = x_scale.scale[0].astype(np.float64) * np.broadcast_to(w_scale.scale, (count,)).astype(np.float64)
    factor = scale / float(y_scale.scale[0])
    offset = np.zeros(count) if bias is None else bias.astype(np.float64) * factor
    limits = np.iinfo(name)
    requantise = Requantise(
        factor.astype(np.float32), offset.astype(np.float32), int(y_scale.zero[0]), limits.min, limits.max
    )
    source = (x, int(x_scale.zero[0]))
    made = (
        byte_conv(low, node, source, weight, requantise, name)
        if conv
        else byte_product(low, source, weight, requantise, name)
    )
    low.set(node.outputs[0], _need(made, node))


def _integer(low: Lowering, node: ir.Node) -> None:
    """ConvInteger and MatMulInteger: the exact int32 sums. The zero point of x may be known at run time only."""
    x, conv = low.view(node.inputs[0]), node.op_type == "ConvInteger"
    if not conv and low.constant(node.inputs[1]) is None:
        _integer_at_run_time(low, node)
        return
    zeros: list[Array | None] = []
    for i in (2, 3):
        given = node.inputs[i] if len(node.inputs) > i else None
        zeros.append(low.constant(given) if low.has(given) else np.zeros((), np.int32))
    zero_of_x, zero = zeros
    size = low.view(node.inputs[2]).size if zero_of_x is None else zero_of_x.size
    if zero is None or size != 1:
        raise UnsupportedOpError(
            f"op {node.op_type} (node '{node.name}') needs one zero point of x, a constant one of w"
        )
    data = low.constant(node.inputs[1])
    zero = zero.reshape(-1)
    if conv and data is not None and zero.size > 1:
        zero = zero.reshape(-1, *(1,) * (data.ndim - 1))
    weight = _signed(low, node, 1, zero)
    source = (x, int(zero_of_x.reshape(-1)[0]) if zero_of_x is not None else low.view(node.inputs[2]))
    made = (
        byte_conv(low, node, source, weight, None, "int32")
        if conv
        else byte_product(low, source, weight, None, "int32")
    )
    low.set(node.outputs[0], _need(made, node))


def _integer_at_run_time(low: Lowering, node: ir.Node) -> None:
    """MatMulInteger of two matrices and zero points that may all come at run time."""
    left, right = (low.view(v) for v in node.inputs[:2])
    given = (node.inputs[i] if len(node.inputs) > i else None for i in (2, 3))
    zero, zero_of_right = (low.view(v) if low.has(v) else None for v in given)
    if zero is not None and zero.rank == 1:  # of every row
        zero = low.reshape(zero, (zero.size, 1))
    sums = _need(integer_sums(low, (left, zero), (right, zero_of_right)), node)
    low.set(node.outputs[0], cast(low, sums, "int32"))


LOWER: Mapping[str, Any] = {
    "QuantizeLinear": quantized, "DequantizeLinear": dequantize, "QLinearConv": _qlinear, "QLinearMatMul": _qlinear,
    "ConvInteger": _integer, "MatMulInteger": _integer, "DynamicQuantizeLinear": dynamic_quantise,
}  # fmt: skip
