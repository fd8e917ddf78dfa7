"""What a graph of QuantizeLinear and DequantizeLinear means, found at each QuantizeLinear: steps on bytes.

A graph says DequantizeLinear → Conv → Relu → QuantizeLinear in float32. What it means is a sum of byte products, one
scale a channel and a rounding; a largest value is a largest byte; a function of one value is a table of 256. The
float32 steps that a pattern replaces have no reader any more and are dropped.

Source: ONNX operators QuantizeLinear-24, DequantizeLinear-24.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from hasten.native.expr import call, const, widened
from hasten.native.kernels.byte_nodes import byte_conv, byte_max, byte_mean, byte_product, byte_transposed
from hasten.native.kernels.byte_sum import Blend, ByteSum
from hasten.native.kernels.byte_table import looked_up
from hasten.native.kernels.elementwise import Elementwise
from hasten.native.kernels.quantised_values import (
    BYTES,
    NIBBLES,
    Scale,
    held_as,
    quantize,
    requantised,
    scale_of,
    shift_of,
)
from hasten.native.kernels.requantise import LARGEST, Requantise
from hasten.native.program import View
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.lower import Lowering

__all__ = ["quantized"]

_MAXIMA, _MEANS = ("MaxPool", "GlobalMaxPool"), ("AveragePool", "GlobalAveragePool", "ReduceMean")


@dataclass(frozen=True)
class _Target:
    """The bytes that a pattern ends in: their scale, and the bounds that a Relu or Clip before them leaves."""

    scale: float
    zero: int
    low: int
    high: int
    dtype: str
    shift: int
    """128 where int8 is held as uint8."""

    def requantise(self, factor: Array, offset: Array) -> Requantise:
        """Rounding of sums, ``factor`` and ``offset`` counted in float32's units."""
        shift, scaled = self.shift, (factor / self.scale).astype(np.float32)
        moved = (offset / self.scale).astype(np.float32)
        return Requantise(scaled, moved, self.zero + shift, self.low + shift, self.high + shift)


@dataclass(frozen=True)
class _Bytes:
    """Bytes that a DequantizeLinear reads."""

    view: View
    scale: float
    zero: int


def quantized(low: Lowering, node: ir.Node) -> None:
    """QuantizeLinear: the end of a pattern, or arithmetic."""
    scale, dtype = scale_of(low, node), node.outputs[0].dtype
    name = dtype.numpy().name if dtype is not None else ""
    if scale is not None and scale.is_scalar and name in BYTES:
        found = _pattern(low, node, scale, name)
        if found is not None:
            low.set(node.outputs[0], found)
            return
    quantize(low, node, name)


def _pattern(low: Lowering, node: ir.Node, scale: Scale, declared: str) -> View | None:
    """The bytes, made by one step on bytes; None where this is no such pattern."""
    held, limits = held_as(low, node.outputs[0], declared), np.iinfo(declared)
    target = _Target(
        float(scale.scale[0]), int(scale.zero[0]), limits.min, limits.max, held, 0 if held == declared else 128
    )
    table = looked_up(low, node, (target.scale, target.zero + target.shift, (limits.min, limits.max), held))
    if table is not None:
        return table
    bounded = _bounded(low, node.inputs[0], target)
    if bounded is None:
        return None
    value, target = bounded
    found = _sum(low, value, target) or _joined(low, value, target, (limits.min, limits.max))
    if found is not None:
        return found
    maker, bias = _without_bias(low, value)
    if maker is None:
        return None
    if maker.op_type in _MAXIMA and bias is None:
        return _largest(low, maker, target, whole=(target.low, target.high) == (limits.min, limits.max))
    if maker.op_type in _MEANS and bias is None:
        return _mean(low, maker, target)
    return _product(low, maker, bias, target)


def _bounded(low: Lowering, value: ir.Value | None, target: _Target) -> tuple[ir.Value | None, _Target] | None:
    """What comes before Relu and Clip, with the bounds they leave; None where bounds are computed at run time."""
    least, most = float(target.low), float(target.high)
    maker = value.producer() if value is not None else None
    while maker is not None and maker.op_type in ("Relu", "Clip"):
        bounds = [0.0, np.inf] if maker.op_type == "Relu" else [-np.inf, np.inf]
        for i in (1, 2):
            if maker.op_type == "Clip" and len(maker.inputs) > i and low.has(maker.inputs[i]):
                data = low.constant(maker.inputs[i])
                if data is None:
                    return None
                bounds[i - 1] = float(data)
        least = max(least, np.rint(bounds[0] / target.scale) + target.zero)
        most = min(most, np.rint(bounds[1] / target.scale) + target.zero)
        value = maker.inputs[0]
        maker = value.producer() if value is not None else None
    if least > most:
        return None
    return value, _Target(target.scale, target.zero, int(least), int(most), target.dtype, target.shift)


def _without_bias(low: Lowering, value: ir.Value | None) -> tuple[ir.Node | None, Array | None]:
    """What makes the value, and the constant that is added to a MatMul."""
    maker = value.producer() if value is not None else None
    if maker is None or maker.op_type != "Add":
        return maker, None
    constants = [low.constant(v) for v in maker.inputs]
    at = next((i for i, c in enumerate(constants) if c is not None), None)
    product = maker.inputs[1 - at] if at is not None else None
    made = product.producer() if product is not None else None
    if at is None or made is None or made.op_type != "MatMul":
        return None, None
    return made, constants[at]


def _source(low: Lowering, value: ir.Value | None) -> _Bytes | None:
    """The bytes behind a value, of one scale, with the zero point as they are held; None for anything else."""
    maker = value.producer() if value is not None else None
    if maker is None or maker.op_type != "DequantizeLinear":
        return None
    x, scale = low._views.get(id(maker.inputs[0])), scale_of(low, maker)
    if x is None or x.dtype not in BYTES or low.constant(maker.inputs[0]) is not None:
        return None
    if scale is None or not scale.is_scalar:
        return None
    return _Bytes(x, float(scale.scale[0]), int(scale.zero[0]) + shift_of(maker.inputs[0], x))


def _sum(low: Lowering, value: ir.Value | None, target: _Target) -> View | None:
    """Two tensors of bytes, of one shape, added or subtracted."""
    maker = value.producer() if value is not None else None
    if maker is None or maker.op_type not in ("Add", "Sub"):
        return None
    a, b = (_source(low, v) for v in maker.inputs)
    if a is None or b is None or a.view.shape != b.view.shape:
        return None
    first, second = a.scale / target.scale, b.scale / target.scale * (1 if maker.op_type == "Add" else -1)
    offset = -(first * a.zero + second * b.zero)
    if 255 * (abs(first) + abs(second)) + abs(offset) >= LARGEST:
        return None
    x = a.view if a.view.order is not None else low.contiguous(a.view)
    other, y = low.contiguous(b.view, x.order), low.new(x.shape, target.dtype, x.order)
    shift = target.shift
    blend = Blend(first, second, offset, target.zero + shift, target.low + shift, target.high + shift)
    low.add(ByteSum(x, other, y, blend))
    return y


def _joined(low: Lowering, value: ir.Value | None, target: _Target, limits: tuple[int, int]) -> View | None:
    """Tensors of bytes one after the other: those of the same scale are copied, others are rounded on their way."""
    maker = value.producer() if value is not None else None
    if maker is None or maker.op_type != "Concat":
        return None
    parts = [p for p in (_source(low, v) for v in maker.inputs) if p is not None]
    if len(parts) < len(maker.inputs):
        return None
    views = [p.view for p in parts]
    axis = maker.attributes.get_int("axis", 0) % views[0].rank
    shape = [sum(v.shape[d] for v in views) if d == axis else n for d, n in enumerate(views[0].shape)]
    y, start = low.new(shape, target.dtype, next((v.order for v in views if v.order is not None), None)), 0
    for part, view in zip(parts, views, strict=True):
        place = y.slice(axis, start, view.shape[axis])
        start += view.shape[axis]
        if view.dtype == target.dtype and (target.low, target.high) == limits and _is_same(part, target):
            low.copy(view, place)
            continue
        given = call("mul", call("sub", widened(view), const(float(part.zero))), const(part.scale))
        low.add(
            Elementwise(place, requantised(given, target.scale, target.zero, (target.low, target.high), target.shift))
        )
    return y


def _is_same(x: _Bytes, target: _Target) -> bool:
    """Where x is held so that the target's bytes are its own, or its own moved by 128."""
    return (x.scale, x.zero) == (target.scale, target.zero + target.shift + _moved(x, target))


def _largest(low: Lowering, maker: ir.Node, target: _Target, *, whole: bool) -> View | None:
    """A pool of the largest: of the bytes themselves where the scale stays the same."""
    x = _source(low, maker.inputs[0])
    if x is None or not whole or not _is_same(x, target):
        return None
    return byte_max(low, maker, x.view, target.dtype)


def _moved(x: _Bytes, target: _Target) -> int:
    """How far x is held from where the target is."""
    return {("int8", "uint8"): -128, ("uint8", "int8"): 128}.get((x.view.dtype, target.dtype), 0)


def _mean(low: Lowering, maker: ir.Node, target: _Target) -> View | None:
    x = _source(low, maker.inputs[0])
    if x is None:
        return None
    requantise = target.requantise(np.full(1, x.scale, np.float64), np.zeros(1))
    return byte_mean(low, maker, (x.view, x.zero), requantise, target.dtype)


def _product(low: Lowering, maker: ir.Node, bias: Array | None, target: _Target) -> View | None:
    """Conv, ConvTranspose, Gemm or MatMul of bytes with constant bytes."""
    if maker.op_type not in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
        return None
    x, weights = _source(low, maker.inputs[0]), _weights(low, maker)
    if x is None or weights is None:
        return None
    weight, scale = weights
    if maker.op_type != "MatMul" and len(maker.inputs) > 2 and low.has(maker.inputs[2]):
        bias = low.constant(maker.inputs[2])
        if bias is None:
            return None
    if maker.op_type == "Gemm":
        if not _is_plain(maker):
            return None
        weight = weight.T if maker.attributes.get_int("transB", 0) == 1 else weight
    count = weight.shape[_filters(maker, weight.ndim)]
    if bias is not None and (bias.size != count or (bias.ndim > 1 and bias.shape[-1] != count)):
        return None
    if scale.size not in (1, count):
        return None
    columns = np.zeros(count) if bias is None else bias.reshape(-1).astype(np.float64)
    factor = x.scale * np.broadcast_to(scale, (count,)).astype(np.float64)
    requantise, given = target.requantise(factor, columns), (x.view, x.zero)
    if maker.op_type == "Conv":
        return byte_conv(low, maker, given, weight, requantise, target.dtype)
    if maker.op_type == "ConvTranspose":
        return byte_transposed(low, maker, given, weight, requantise, target.dtype)
    return byte_product(low, given, weight, requantise, target.dtype)


def _filters(maker: ir.Node, rank: int) -> int:
    """Which axis of the weights the outputs' channels lie along."""
    return {"Conv": 0, "ConvTranspose": 1}.get(maker.op_type, rank - 1)


def _is_plain(gemm: ir.Node) -> bool:
    """True for a Gemm that neither scales nor transposes what it is given."""
    attributes = gemm.attributes
    scales = attributes.get_float("alpha", 1.0), attributes.get_float("beta", 1.0)
    return scales == (1.0, 1.0) and attributes.get_int("transA", 0) == 0


def _weights(low: Lowering, maker: ir.Node) -> tuple[Array, Array] | None:
    """Constant weights without their zero point, and their scales: one, or one an output channel."""
    value = maker.inputs[1]
    source = value.producer() if value is not None else None
    if source is None or source.op_type != "DequantizeLinear" or source.attributes.get_int("block_size", 0) != 0:
        return None
    data, scale = low.constant(source.inputs[0]), scale_of(low, source)
    if data is None or scale is None or data.dtype.name not in (*BYTES, *NIBBLES):
        return None
    if scale.is_scalar:
        return data.astype(np.int16) - np.int16(scale.zero[0]), scale.scale
    # One scale an output channel: rows of a convolution's weights, columns of a matrix's (rows where transposed).
    axis = source.attributes.get_int("axis", 1) % data.ndim
    if axis != (0 if maker.attributes.get_int("transB", 0) == 1 else _filters(maker, data.ndim)):
        return None
    shape = [-1 if d == axis else 1 for d in range(data.ndim)]
    return data.astype(np.int16) - scale.zero.reshape(shape).astype(np.int16), scale.scale
