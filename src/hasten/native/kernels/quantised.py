"""int8: the products between DequantizeLinear and QuantizeLinear on the processor's byte dot products.

A graph says DequantizeLinear → Conv → Relu → QuantizeLinear in float32. What it means is a sum of byte products, one
scale a channel and a rounding. The pattern is recognised at its QuantizeLinear; the float32 steps that it replaces have
no reader any more and are dropped.

Four bytes of neighbouring inputs meet four bytes of weights in each 32-bit lane. The dot products take unsigned inputs
on x86 and signed ones on Arm: inputs of the other kind are shifted by 128 while they are copied into the padded image,
and what that adds is taken out of the bias when the code is compiled, as is the input's zero point.

Source: ONNX operators QuantizeLinear-24, QLinearConv-10, QLinearMatMul-21, ConvInteger-10, MatMulInteger-10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.native.expr import call, load
from hasten.native.kernels.byte_depthwise import ByteDepthwise
from hasten.native.kernels.byte_image import Geometry
from hasten.native.kernels.byte_products import ByteConv
from hasten.native.kernels.elementwise import Elementwise
from hasten.native.kernels.quantised_values import (
    BYTES,
    Scale,
    dequantize,
    held_as,
    quantize,
    scale_of,
    shift_of,
)
from hasten.native.kernels.requantise import Requantise
from hasten.native.kernels.spatial import channels_last, window_of
from hasten.native.program import Step, View, contiguous_strides
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.lower import Lowering

__all__ = ["LOWER"]


def _scalars(low: Lowering, node: ir.Node, first: int = 1) -> Scale:
    scale = scale_of(low, node, first)
    if scale is None:
        raise UnsupportedOpError(f"op {node.op_type} (node '{node.name}') needs a constant scale and zero point")
    return scale


def _quantize(low: Lowering, node: ir.Node) -> None:
    scale = scale_of(low, node)
    dtype = node.outputs[0].dtype
    name = dtype.numpy().name if dtype is not None else ""
    if scale is not None and scale.is_scalar and name in BYTES:
        held = held_as(low, node.outputs[0], name)
        if (found := _byte_pattern(low, node, scale, (name, held))) is not None:
            low.set(node.outputs[0], found)
            return
    quantize(low, node, name)


def _byte_pattern(low: Lowering, node: ir.Node, out: Scale, dtypes: tuple[str, str]) -> View | None:
    """DequantizeLinear → Conv, Gemm, MatMul (→ Add) → Relu or Clip → this node as one byte product; None elsewhere."""
    (declared, dtype), value = dtypes, node.inputs[0]
    limits, shift = np.iinfo(declared), 128 if dtypes[0] != dtypes[1] else 0
    low_bound, high_bound = float(limits.min), float(limits.max)
    scale, zero = float(out.scale[0]), float(out.zero[0])
    maker = value.producer() if value is not None else None
    while maker is not None and maker.op_type in ("Relu", "Clip"):
        bounds = [0.0, np.inf] if maker.op_type == "Relu" else [-np.inf, np.inf]
        for i in (1, 2):
            if maker.op_type == "Clip" and len(maker.inputs) > i and low.has(maker.inputs[i]):
                data = low.constant(maker.inputs[i])
                if data is None:
                    return None
                bounds[i - 1] = float(data)
        low_bound = max(low_bound, np.rint(bounds[0] / scale) + zero)
        high_bound = min(high_bound, np.rint(bounds[1] / scale) + zero)
        value = maker.inputs[0]
        maker = value.producer() if value is not None else None
    bias: Array | None = None
    if maker is not None and maker.op_type == "Add":
        sides = list(maker.inputs)
        constants = [low.constant(v) for v in sides]
        at = next((i for i, c in enumerate(constants) if c is not None), None)
        if at is None:
            return None
        bias, value = constants[at], sides[1 - at]
        maker = value.producer() if value is not None else None
        if maker is None or maker.op_type != "MatMul":
            return None
    if maker is None or maker.op_type not in ("Conv", "MatMul", "Gemm"):
        return None
    operand = _byte_operand(low, maker)
    if operand is None:
        return None
    x, x_scale, weight, w_scale = operand
    if maker.op_type != "MatMul" and len(maker.inputs) > 2 and low.has(maker.inputs[2]):
        bias = low.constant(maker.inputs[2])
        if bias is None:
            return None
    if maker.op_type == "Gemm":
        attr = maker.attributes
        if attr.get_int("transA", 0) or attr.get_float("alpha", 1.0) != 1.0 or attr.get_float("beta", 1.0) != 1.0:
            return None
        weight = weight.T if attr.get_int("transB", 0) else weight
    count = weight.shape[0] if maker.op_type == "Conv" else weight.shape[1]
    if bias is not None and (bias.size != count or (bias.ndim > 1 and bias.shape[-1] != count)):
        return None
    if w_scale.size not in (1, count):
        return None
    columns = np.zeros(count, np.float32) if bias is None else bias.reshape(-1).astype(np.float32)
    factor = x_scale.scale[0].astype(np.float64) * np.broadcast_to(w_scale, (count,)).astype(np.float64) / scale
    requantise = Requantise(
        factor.astype(np.float32),
        (columns.astype(np.float64) / scale).astype(np.float32),
        int(zero) + shift,
        int(low_bound) + shift,
        int(high_bound) + shift,
    )
    zero_of_x = int(x_scale.zero[0])
    if maker.op_type == "Conv":
        return _conv(low, maker, (x, zero_of_x), weight, requantise, dtype)
    return _product(low, (x, zero_of_x), weight, requantise, dtype)


def _byte_operand(low: Lowering, maker: ir.Node) -> tuple[View, Scale, Array, Array] | None:
    """The bytes behind a product's two inputs: x with its scale, weights without zero point, their scales."""
    sources = []
    for value in maker.inputs[:2]:
        producer = value.producer() if value is not None else None
        if producer is None or producer.op_type != "DequantizeLinear":
            return None
        sources.append(producer)
    x = low._views.get(id(sources[0].inputs[0]))
    if x is None or x.dtype not in BYTES or low.constant(sources[0].inputs[0]) is not None:
        return None
    x_scale, w_scale = scale_of(low, sources[0]), scale_of(low, sources[1])
    if x_scale is None or w_scale is None:
        return None
    data = low.constant(sources[1].inputs[0])
    if data is None or data.dtype.name not in BYTES or not x_scale.is_scalar:
        return None
    if not w_scale.is_scalar:
        # One scale an output channel: rows of a convolution's weights, columns of a matrix's (rows where transposed).
        axis = sources[1].attributes.get_int("axis", 1) % data.ndim
        wanted = 0 if maker.op_type == "Conv" or maker.attributes.get_int("transB", 0) != 0 else 1
        if axis != wanted:
            return None
        shape = [1] * data.ndim
        shape[axis] = -1
        weight = data.astype(np.int32) - w_scale.zero.reshape(shape).astype(np.int32)
    else:
        weight = data.astype(np.int32) - int(w_scale.zero[0])
    if weight.min(initial=0) < -128 or weight.max(initial=0) > 127:
        return None
    x_scale = Scale(x_scale.scale, x_scale.zero + shift_of(sources[0].inputs[0], x))
    return x, x_scale, weight.astype(np.int8), w_scale.scale


def _conv(
    low: Lowering, node: ir.Node, given: tuple[View, int], weight: Array, requantise: Requantise | None, dtype: str
) -> View | None:
    """A byte convolution; None where it has groups of several channels (those stay in float32) or is not 1-D or 2-D."""
    x, zero = given
    groups = node.attributes.get_int("group", 1)
    apart = groups == weight.shape[0] == x.shape[1] and groups > 1 and requantise is not None
    if (groups != 1 and not apart) or x.rank not in (3, 4):
        return None
    window, shape = window_of(node, x.shape[2:], weight.shape[2:]), _out_shape(node)
    lead = (1,) * (4 - x.rank)  # a line is an image one row high
    images = low.contiguous(x, channels_last(x.rank))
    image = View(images.tensor, (x.shape[0], *lead, *x.shape[2:], x.shape[1]), (), images.offset)
    image = replace(image, strides=contiguous_strides(image.shape))
    y = low.new(shape, dtype, channels_last(len(shape)))
    target = View.whole(y.tensor, (shape[0], *lead, *shape[2:], shape[1]))
    kernel = weight.reshape(*weight.shape[:2], *lead, *weight.shape[2:])
    taps = np.ascontiguousarray(kernel.transpose(2, 3, 1, 0))
    if apart:
        assert requantise is not None
        low.add(ByteDepthwise.of(low, image, target, taps[:, :, 0], Geometry.of(window), zero, requantise))
    else:
        low.add(ByteConv.of(low, image, target, taps, Geometry.of(window), zero, requantise))
    return y


def _product(
    low: Lowering, given: tuple[View, int], weight: Array, requantise: Requantise | None, dtype: str
) -> View | None:
    """A byte matrix product: a 1x1 convolution over rows."""
    x, zero = given
    if weight.ndim != 2 or x.rank < 2:
        return None
    x = low.contiguous(x)
    rows, depth = x.size // x.shape[-1], x.shape[-1]
    image = View(x.tensor, (1, 1, rows, depth), (rows * depth, rows * depth, depth, 1), x.offset)
    y = low.new((*x.shape[:-1], weight.shape[1]), dtype)
    target = View.whole(y.tensor, (1, 1, rows, weight.shape[1]))
    taps = np.ascontiguousarray(weight[None, None])
    low.add(ByteConv.of(low, image, target, taps, Geometry((1, 1), (1, 1), (0, 0)), zero, requantise))
    return y


def _out_shape(node: ir.Node) -> tuple[int, ...]:
    shape = node.outputs[0].shape
    if shape is None or not all(isinstance(d, int) for d in shape):
        raise UnsupportedOpError(f"op {node.op_type} (node '{node.name}') has no static output shape")
    return tuple(int(d) for d in shape)  # type: ignore[arg-type]


def _need(found: View | None, node: ir.Node) -> View:
    if found is None:
        raise UnsupportedOpError(f"op {node.op_type} (node '{node.name}') of this shape has no native kernel")
    return found


def _signed(low: Lowering, node: ir.Node, index: int, zero: Array) -> Array:
    """Constant weights without their zero point, as int8.

    Raises:  UnsupportedOpError: computed at run time, or too wide without it
    """
    data = low.constant(node.inputs[index])
    if data is None or data.dtype.name not in BYTES:
        raise UnsupportedOpError(f"op {node.op_type} (node '{node.name}') needs constant int8 or uint8 weights")
    wide = data.astype(np.int32) - zero.astype(np.int32)
    if wide.min(initial=0) < -128 or wide.max(initial=0) > 127:
        raise UnsupportedOpError(
            f"op {node.op_type} (node '{node.name}') has weights that need 9 bits without zero point"
        )
    return wide.astype(np.int8)


def _qlinear(low: Lowering, node: ir.Node) -> None:
    conv = node.op_type == "QLinearConv"
    x, x_scale = low.view(node.inputs[0]), _scalars(low, node, 1)
    w_scale, y_scale = _scalars(low, node, 4), _scalars(low, node, 6)
    dtype = node.outputs[0].dtype
    name = dtype.numpy().name if dtype is not None else ""
    if not (x_scale.is_scalar and y_scale.is_scalar) or x.dtype not in BYTES or name not in BYTES:
        raise UnsupportedOpError(f"op {node.op_type} (node '{node.name}') with a scale per channel of x or y")
    data = low.constant(node.inputs[3])
    rank = 0 if data is None else data.ndim
    zero = w_scale.zero if w_scale.is_scalar or not conv else w_scale.zero.reshape(-1, *(1,) * (rank - 1))
    weight = _signed(low, node, 3, zero)
    count = weight.shape[0 if conv else -1]
    bias = low.constant(node.inputs[8]) if conv and len(node.inputs) > 8 and low.has(node.inputs[8]) else None
    scale = x_scale.scale[0].astype(np.float64) * np.broadcast_to(w_scale.scale, (count,)).astype(np.float64)
    factor = scale / float(y_scale.scale[0])
    offset = np.zeros(count) if bias is None else bias.astype(np.float64) * factor
    limits = np.iinfo(name)
    requantise = Requantise(
        factor.astype(np.float32), offset.astype(np.float32), int(y_scale.zero[0]), limits.min, limits.max
    )
    given = (x, int(x_scale.zero[0]))
    made = _conv(low, node, given, weight, requantise, name) if conv else _product(low, given, weight, requantise, name)
    low.set(node.outputs[0], _need(made, node))


def _integer(low: Lowering, node: ir.Node) -> None:
    """ConvInteger and MatMulInteger: the exact int32 sums."""
    x = low.view(node.inputs[0])
    zeros: list[Array] = []
    late: View | None = None  # a zero point of x that is known at run time only
    for i in (2, 3):
        given = node.inputs[i] if len(node.inputs) > i else None
        data = low.constant(given) if low.has(given) else np.zeros((), np.int32)
        if i == 2 and data is None and low.view(given).size == 1 and node.op_type == "MatMulInteger":
            late, data = low.view(given), np.zeros((), np.int32)
        if data is None or (i == 2 and data.size != 1):
            raise UnsupportedOpError(f"op {node.op_type} (node '{node.name}') needs a constant zero point")
        zeros.append(data)
    conv = node.op_type == "ConvInteger"
    data = low.constant(node.inputs[1])
    zero = zeros[1].reshape(-1)
    if conv and data is not None and zero.size > 1:
        zero = zero.reshape(-1, *(1,) * (data.ndim - 1))
    weight = _signed(low, node, 1, zero)
    source = (x, int(zeros[0].reshape(-1)[0]))
    made = _conv(low, node, source, weight, None, "int32") if conv else _product(low, source, weight, None, "int32")
    made = _need(made, node)
    low.set(node.outputs[0], made if late is None else _without_zero(low, made, late, weight))


def _without_zero(low: Lowering, sums: View, zero: View, weight: Array) -> View:
    """``Σ x · w - zero · Σ w``: the sums as if x had been counted from its zero point."""
    columns = low.data(weight.astype(np.int32).sum(axis=0, dtype=np.int32)).broadcast(sums.shape)
    flat = zero.reshape(())
    assert flat is not None
    wide = call("cast", load(flat.broadcast(sums.shape)), dtype="int32")
    expr = call("sub", load(sums), call("mul", wide, load(columns), dtype="int32"), dtype="int32")
    y = low.new(sums.shape, "int32")
    low.add(Elementwise(y, expr))
    return y


@dataclass(eq=False)
class DynamicQuantise(Step):
    """uint8 values, scale and zero point of a float32 tensor, from its own range (zero included).

    Shapes:  x, y dense in the same order · scale, zero: scalars
    """

    x: View
    y: View
    scale: View
    zero: View
    READS = ("x",)
    WRITES = ("y", "scale", "zero")

    @property
    def title(self) -> str:
        """How many values."""
        return f"{self.x.size} values to uint8 by their range"

    def emit(self, out: Emitter) -> None:
        """The range, then one loop."""
        lines = [
            "    float low = 0.0f, high = 0.0f;",
            f"    for (int i = 0; i < {self.x.size}; i++) {{",
            "        low = x[i] < low ? x[i] : low;",
            "        high = x[i] > high ? x[i] : high;",
            "    }",
            "    const float s = (high - low) / 255.0f, d = s == 0.0f ? 1.0f : s;",
            "    float z = __builtin_rintf(-low / d);",
            "    z = z < 0.0f ? 0.0f : z > 255.0f ? 255.0f : z;",
            "    *scale = s;",
            "    *zero = (uint8_t)z;",
            f"    for (int i = 0; i < {self.x.size}; i++) {{",
            "        float v = __builtin_rintf(x[i] / d) + z;",
            "        v = v > 255.0f ? 255.0f : v;",
            "        y[i] = (uint8_t)(v > 0.0f ? v : 0.0f);",
            "    }",
        ]
        signature = [
            ("const float *restrict x", out.pointer(self.x)),
            ("uint8_t *restrict y", out.pointer(self.y)),
            ("float *scale", out.pointer(self.scale)),
            ("uint8_t *zero", out.pointer(self.zero)),
        ]
        out.function("dynamicquantise", self.title, signature, "\n".join(lines))


def _dynamic(low: Lowering, node: ir.Node) -> None:
    x = low.view(node.inputs[0])
    x = x if x.order is not None else low.contiguous(x)
    y, scale, zero = low.new(x.shape, "uint8", x.order), low.new((), "float32"), low.new((), "uint8")
    low.add(DynamicQuantise(x, y, scale, zero))
    for value, view in zip(node.outputs, (y, scale, zero), strict=True):
        low.set(value, view)


LOWER: Mapping[str, Any] = {
    "QuantizeLinear": _quantize, "DequantizeLinear": dequantize, "QLinearConv": _qlinear, "QLinearMatMul": _qlinear,
    "ConvInteger": _integer, "MatMulInteger": _integer, "DynamicQuantizeLinear": _dynamic,
}  # fmt: skip
