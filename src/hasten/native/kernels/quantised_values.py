"""QuantizeLinear and DequantizeLinear of values: element-wise arithmetic, so that it folds into whatever is around it.

Between two nodes of the graph int8 may be held as uint8, 128 higher, where only DequantizeLinear reads it: the byte dot
products of x86 take unsigned inputs, so that nothing needs to be shifted in between.

Source: ONNX operators QuantizeLinear-25, DequantizeLinear-25.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.native.expr import Expr, call, const, load, widened
from hasten.native.kernels.elementwise import Elementwise
from hasten.native.kernels.typed import NARROW, saturated
from hasten.native.program import View
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.lower import Lowering

__all__ = ["BYTES", "NIBBLES", "Scale", "dequantize", "quantize", "requantised", "rounded", "scale_of", "shift_of"]

BYTES = ("int8", "uint8")
NIBBLES = ("int4", "uint4")
_WIDER = ("int16", "uint16")


@dataclass(frozen=True)
class Scale:
    """A constant scale and zero point, of a tensor or of each channel."""

    scale: Array
    zero: Array

    @property
    def is_scalar(self) -> bool:
        """One for all values."""
        return self.scale.size == 1


def scale_of(low: Lowering, node: ir.Node, first: int = 1) -> Scale | None:
    """The scale at input ``first`` and the zero point behind it, flat; None where one is computed at run time."""
    scale = low.constant(node.inputs[first])
    given = node.inputs[first + 1] if len(node.inputs) > first + 1 else None
    zero = low.constant(given) if low.has(given) else np.zeros(1, np.float32)
    if scale is None or zero is None:
        return None
    scale = scale.astype(np.float32).reshape(-1)
    return Scale(scale, np.broadcast_to(zero.astype(np.float32).reshape(-1), scale.shape))


def shift_of(value: ir.Value | None, view: View) -> int:
    """128 where int8 is held as uint8, else 0."""
    return 128 if value is not None and value.dtype == ir.DataType.INT8 and view.dtype == "uint8" else 0


def _placed(node: ir.Node, data: Array, shape: tuple[int, ...]) -> Array:
    """A constant scale or zero point, given along ``axis`` or by blocks of it, so that it broadcasts to the shape."""
    if data.size == 1:
        return data.reshape(())
    axis = node.attributes.get_int("axis", 1)
    axis = axis % len(shape)
    block = node.attributes.get_int("block_size", 0)
    if block and data.ndim == len(shape):
        return np.take(np.repeat(data, block, axis), range(shape[axis]), axis)
    return data.reshape([-1 if d == axis else 1 for d in range(len(shape))])


def _operand(low: Lowering, node: ir.Node, index: int, shape: tuple[int, ...]) -> Expr | None:
    """Scale or zero point as a float32 expression over the shape; None where it is not given, or zero throughout."""
    if len(node.inputs) <= index or not low.has(node.inputs[index]):
        return None
    value = node.inputs[index]
    data = low.constant(value)
    if data is not None:
        placed = _placed(node, data.astype(np.float32), shape)
        if not placed.any():
            return None
        return const(float(placed)) if placed.ndim == 0 else load(low.data(placed).broadcast(shape))
    view = low.view(value)
    if view.size == 1:
        found = view.reshape(())
        assert found is not None
        view = found
    else:
        axis = node.attributes.get_int("axis", 1) % len(shape)
        block = node.attributes.get_int("block_size", 0)
        if block and view.rank == len(shape):
            view = _repeated(low, view, axis, block).slice(axis, 0, shape[axis])
        else:
            view = low.reshape(view, [view.size if d == axis else 1 for d in range(len(shape))])
    return _float(view.broadcast(shape))


def _repeated(low: Lowering, view: View, axis: int, times: int) -> View:
    """Each element ``times`` times along the axis, as the blocks that share it."""
    ahead, behind = view.shape[: axis + 1], view.shape[axis + 1 :]
    apart = low.reshape(view, (*ahead, 1, *behind)).broadcast((*ahead, times, *behind))
    return low.reshape(apart, (*ahead[:-1], ahead[-1] * times, *behind))


def _float(view: View) -> Expr:
    if view.dtype in BYTES:
        return widened(view)
    return load(view) if view.dtype == "float32" else call("cast", load(view))


def dequantize(low: Lowering, node: ir.Node) -> None:
    """``(x - zero) · scale``; of a constant, at once."""
    data, scale = low.constant(node.inputs[0]), scale_of(low, node)
    if data is not None and scale is not None:
        factor, zero = (low.constant(v) if low.has(v) else None for v in (*node.inputs[1:3], None)[:2])
        assert factor is not None
        wide = data.astype(np.float64)
        if zero is not None:
            wide = wide - _placed(node, zero.astype(np.float64), data.shape)
        low.know(
            node.outputs[0], np.asarray(wide.astype(np.float32) * _placed(node, factor.astype(np.float32), data.shape))
        )
        return
    x = low.view(node.inputs[0])
    if x.dtype not in (*BYTES, *_WIDER, *NARROW, "int32"):
        raise UnsupportedOpError(f"op DequantizeLinear (node '{node.name}') on {x.dtype} has no native kernel")
    expr, zero_point = _float(x), _operand(low, node, 2, x.shape)
    if shift := shift_of(node.inputs[0], x):
        zero_point = const(float(shift)) if zero_point is None else call("add", zero_point, const(float(shift)))
    if zero_point is not None and zero_point.op == "add" and all(a.op == "const" for a in zero_point.args):
        zero_point = const(sum(a.value for a in zero_point.args))
    if zero_point is not None:
        expr = call("sub", expr, zero_point)
    factor_expr = _operand(low, node, 1, x.shape)
    expr = call("mul", expr, const(0.0) if factor_expr is None else factor_expr)
    y = low.new(x.shape, "float32", x.order)
    low.add(Elementwise(y, expr))
    low.set(node.outputs[0], y)


def held_as(low: Lowering, value: ir.Value, dtype: str) -> str:
    """uint8 for int8 that only DequantizeLinear reads, where the target multiplies unsigned bytes; else the dtype."""
    readers = value.consumers()
    free = not value.is_graph_output() and readers and all(n.op_type == "DequantizeLinear" for n in readers)
    return "uint8" if dtype == "int8" and free and low.unsigned_bytes else dtype


def quantize(low: Lowering, node: ir.Node, dtype: str) -> None:
    """``saturate(round(x / scale) + zero)``, ties to even."""
    x = low.view(node.inputs[0])
    if dtype not in (*BYTES, *_WIDER, *NARROW) or x.dtype not in ("float32", "int32"):
        raise UnsupportedOpError(f"op QuantizeLinear (node '{node.name}') to {dtype} has no native kernel")
    value = node.outputs[0]
    held = held_as(low, value, dtype)
    scale, zero = _operand(low, node, 1, x.shape), _operand(low, node, 2, x.shape)
    expr = _divided(_float(x), const(0.0) if scale is None else scale, exact=x.tensor.kind == "input")
    if "float" not in dtype:
        expr = rounded(expr, zero, _bounds(dtype), 128 if held != dtype else 0)
    elif node.attributes.get_int("saturate", 1):
        expr = saturated(expr, dtype)  # the zero point of a float is zero
    y = low.new(x.shape, held, x.order)
    low.add(Elementwise(y, expr if dtype in BYTES else call("cast", expr, dtype=dtype)))
    low.set(value, y)


def _bounds(dtype: str) -> tuple[float, float]:
    if dtype in BYTES or dtype in _WIDER:
        return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
    bits = int(dtype[-1])
    return (0.0, 2.0**bits - 1) if dtype.startswith("u") else (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1)


def _divided(x: Expr, scale: Expr, *, exact: bool) -> Expr:
    """The quotient; what no caller sees before rounding is multiplied by the inverse, equal but for ties."""
    if exact or scale.op != "const" or scale.value == 0.0:
        return call("div", x, scale)
    return call("mul", x, const(float(np.float32(1) / np.float32(scale.value))))


def requantised(x: Expr, scale: float, zero: int, bounds: tuple[float, float], shift: int) -> Expr:
    """``x`` in steps of ``scale``, as ``rounded`` has them."""
    return rounded(_divided(x, const(scale), exact=False), const(float(zero)), bounds, shift)


def rounded(x: Expr, zero: Expr | None, bounds: tuple[float, float], shift: int) -> Expr:
    """``clamp(round(x) + zero) + shift``, whole numbers as float32."""
    expr = call("round", x)
    low, high = bounds
    if zero is not None and zero.op != "const":
        expr = call("add", expr, call("add", zero, const(float(shift))) if shift else zero)
    else:
        offset = (0.0 if zero is None else zero.value) + shift
        expr = call("add", expr, const(offset)) if offset else expr
    return call("clip_low", call("clip_high", expr, const(high + shift)), const(low + shift))
