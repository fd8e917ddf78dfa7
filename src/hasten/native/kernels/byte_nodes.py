"""Convolutions, products and pools of bytes as steps: what the operators of ONNX and the patterns of a graph share."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from hasten.native.kernels.byte_depthwise import ByteDepthwise
from hasten.native.kernels.byte_image import Geometry, pixels
from hasten.native.kernels.byte_pool import BytePool
from hasten.native.kernels.byte_products import ByteConv
from hasten.native.kernels.requantise import Requantise
from hasten.native.kernels.spatial import Window, axis_of, channels_last, window_of
from hasten.native.lower_shape import static
from hasten.native.program import View
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.lower import Lowering

__all__ = ["byte_conv", "byte_max", "byte_mean", "byte_product"]


def byte_conv(
    low: Lowering,
    node: ir.Node,
    given: tuple[View, int | View],
    weight: Array,
    requantise: Requantise | None,
    dtype: str,
) -> View | None:
    """A byte convolution; None where it has groups of several channels (those stay in float32) or is not 1-D or 2-D."""
    x, zero = given
    groups = node.attributes.get_int("group", 1)
    apart = groups == weight.shape[0] == x.shape[1] and groups > 1 and requantise is not None and isinstance(zero, int)
    if (groups != 1 and not apart) or x.rank not in (3, 4):
        return None
    window, shape = window_of(node, x.shape[2:], weight.shape[2:]), static(node, node.outputs[0])
    lead = (1,) * (4 - x.rank)  # a line is an image one row high
    image = pixels(low, x)
    y = low.new(shape, dtype, channels_last(len(shape)))
    target = View.whole(y.tensor, (shape[0], *lead, *shape[2:], shape[1]))
    kernel = weight.reshape(*weight.shape[:2], *lead, *weight.shape[2:])
    taps = np.ascontiguousarray(kernel.transpose(2, 3, 1, 0))
    if apart:
        assert requantise is not None and isinstance(zero, int)
        low.add(ByteDepthwise.of(low, image, target, taps[:, :, 0], Geometry.of(window), zero, requantise))
    else:
        low.add(ByteConv.of(low, image, target, taps, Geometry.of(window), zero, requantise))
    return y


def byte_product(
    low: Lowering, given: tuple[View, int | View], weight: Array, requantise: Requantise | None, dtype: str
) -> View | None:
    """A byte matrix product: a 1x1 convolution over rows; a stack of matrices one by one."""
    x, zero = given
    if weight.ndim < 2 or x.rank < 2 or (weight.ndim > 2 and x.shape[:-2] != weight.shape[:-2]):
        return None
    x = low.contiguous(x)
    depth, count = weight.shape[-2:]
    y = low.new((*x.shape[:-1], count), dtype)
    stack = weight.reshape(-1, depth, count)
    rows = x.size // depth // len(stack)
    still = Geometry((1, 1), (1, 1), (0, 0))
    for i, matrix in enumerate(stack):
        image = View(x.tensor, (1, 1, rows, depth), (0, 0, depth, 1), x.offset + i * rows * depth)
        target = View(y.tensor, (1, 1, rows, count), (0, 0, count, 1), i * rows * count)
        taps = np.ascontiguousarray(matrix[None, None])
        low.add(ByteConv.of(low, image, target, taps, still, zero, requantise))
    return y


def byte_max(low: Lowering, node: ir.Node, x: View, dtype: str) -> View | None:
    """A pool of the largest bytes; None where it also returns places, or is not 1-D or 2-D."""
    if len(node.outputs) > 1 and low.has(node.outputs[1]):
        return None
    found = _pooled(low, node, x, dtype)
    if found is None:
        return None
    step, y, _ = found
    low.add(step)
    return y


def byte_mean(low: Lowering, node: ir.Node, given: tuple[View, int], requantise: Requantise, dtype: str) -> View | None:
    """A mean of bytes; None where windows count differently many positions."""
    zero, found = given[1], _pooled(low, node, given[0], dtype)
    if found is None:
        return None
    step, y, window = found
    inside = window is None or bool(node.attributes.get_int("count_include_pad", 0))
    reach = step.geometry.reach((step.y.shape[1], step.y.shape[2]), step.taps)
    ends = (0, 0) if window is None else ((0,) * (2 - len(window.pads_end)) + window.pads_end)
    room = [n + b + e for n, b, e in zip(step.x.shape[1:3], step.geometry.pads, ends, strict=True)]
    beyond = any(r > n for r, n in zip(reach, room, strict=True))  # ceil_mode: what lies there does not count
    padded = step.geometry.pads != (0, 0) or any(r > n for r, n in zip(reach, step.x.shape[1:3], strict=True))
    if beyond or (padded and not inside) or prod(step.taps) * 255 >= 2**31:
        return None
    factor = (requantise.factor.astype(np.float64) / prod(step.taps)).astype(np.float32)
    low.add(replace(step, zero=zero, requantise=replace(requantise, factor=factor)))
    return y


def _pooled(low: Lowering, node: ir.Node, x: View, dtype: str) -> tuple[BytePool, View, Window | None] | None:
    """A pool without its rounding, its result as the node has it, and its window; a global one's is all of x."""
    shape = static(node, node.outputs[0])
    y = low.new(shape, dtype, channels_last(len(shape)))
    if node.op_type.startswith("Global"):
        x = low.contiguous(x, channels_last(x.rank))
        count = prod(x.shape[2:])
        image = View.whole(x.tensor, (x.shape[0], 1, count, x.shape[1]))
        image = replace(image, offset=x.offset)
        target = View.whole(y.tensor, (shape[0], 1, 1, shape[1]))
        return BytePool(image, target, (1, count), Geometry((1, 1), (1, 1), (0, 0))), y, None
    if x.rank not in (3, 4):
        return None
    window = window_of(node, x.shape[2:], node.attributes.get_ints("kernel_shape"))
    axes = [axis_of(x, y, window, i) for i in range(len(window.kernel))]
    if any(not len(axis.taps(p)) for axis in axes for p in range(axis.size)):
        return None
    lead = (1,) * (4 - x.rank)
    kernel = (*lead, *window.kernel)
    target = View.whole(y.tensor, (shape[0], *lead, *shape[2:], shape[1]))
    return BytePool(pixels(low, x), target, (kernel[0], kernel[1]), Geometry.of(window)), y, window
