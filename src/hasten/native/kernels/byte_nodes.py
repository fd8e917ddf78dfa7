"""Convolutions, products and pools of bytes as steps: what the operators of ONNX and the patterns of a graph share."""

from __future__ import annotations

from dataclasses import astuple, replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from hasten.native.kernels.byte_depthwise import ByteDepthwise
from hasten.native.kernels.byte_image import Geometry, pixels
from hasten.native.kernels.byte_pool import BytePool
from hasten.native.kernels.byte_products import ByteConv
from hasten.native.kernels.conv_transpose import transposed_window
from hasten.native.kernels.reduce import reduced_axes
from hasten.native.kernels.requantise import Requantise
from hasten.native.kernels.spatial import Window, axis_of, channels_last, window_of
from hasten.native.lower_shape import static
from hasten.native.program import View, contiguous_strides
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.lower import Lowering

__all__ = ["byte_conv", "byte_max", "byte_mean", "byte_product", "byte_transposed"]


def byte_conv(
    low: Lowering,
    node: ir.Node,
    given: tuple[View, int | View],
    weight: Array,
    requantise: Requantise | None,
    dtype: str,
) -> View | None:
    """A byte convolution; None where it is not 1-D or 2-D."""
    x, zero = given
    groups = node.attributes.get_int("group", 1)
    if x.rank not in (3, 4):
        return None
    window, shape = window_of(node, x.shape[2:], weight.shape[2:]), static(node, node.outputs[0])
    lead = (1,) * (4 - x.rank)  # a line is an image one row high
    image = pixels(low, x)
    y = low.new(shape, dtype, channels_last(len(shape)))
    target = View.whole(y.tensor, (shape[0], *lead, *shape[2:], shape[1]))
    kernel = weight.reshape(*weight.shape[:2], *lead, *weight.shape[2:])
    taps = np.ascontiguousarray(kernel.transpose(2, 3, 1, 0))
    geometry = Geometry.of(window)
    if groups == 1:
        low.add(ByteConv.of(low, image, target, taps, geometry, zero, requantise))
    elif groups == x.shape[1] and requantise is not None and isinstance(zero, int):
        image = _repeated(low, image, shape[1] // groups)
        low.add(ByteDepthwise.of(low, image, target, taps[:, :, 0], geometry, zero, requantise))
    else:
        _grouped(low, (image, zero, target), _joined(taps, groups, low.lanes), geometry, requantise)
    return y


def _repeated(low: Lowering, image: View, times: int) -> View:
    """Every channel so many times in a row: what a convolution with several filters a channel reads."""
    if times == 1:
        return image
    return low.reshape(
        View(image.tensor, (*image.shape, 1), (*image.strides, 0), image.offset).broadcast((*image.shape, times)),
        (*image.shape[:3], image.shape[3] * times),
    )


def _joined(taps: Array, groups: int, lanes: int) -> Array:
    """Groups of channels as matrices of their own; several as one with zeros where they alone would fill no vector.

    Shapes:  taps (kh, kw, C / groups, M) · returns (blocks, kh, kw, channels of a block, filters of a block)
    """
    *kernel, depth, count = taps.shape
    each = count // groups
    together = next(n for n in range(1, groups + 1) if groups % n == 0 and (n * each >= lanes or n == groups))
    split = np.moveaxis(taps.reshape(*kernel, depth, groups // together, together, each), 3, 0)
    done = np.zeros((groups // together, *kernel, together, depth, together, each), taps.dtype)
    for i in range(together):
        done[:, :, :, i, :, i] = split[:, :, :, :, i]
    return done.reshape(groups // together, *kernel, together * depth, together * each)


def _grouped(
    low: Lowering, what: tuple[View, int | View, View], taps: Array, geometry: Geometry, requantise: Requantise | None
) -> None:
    """A convolution for every block of channels, each with an image and a result of its own.

    Shapes:  what: x (N, H, W, C), its zero point, y (N, OH, OW, M) · taps (blocks, kh, kw, C / blocks, M / blocks)
    """
    image, zero, target = what
    blocks, depth, each = len(taps), taps.shape[3], taps.shape[4]
    split = low.reshape(image, (*image.shape[:3], blocks, depth)).transpose((3, 0, 1, 2, 4))
    given, made = low.contiguous(split), low.new((blocks, *target.shape[:3], each), target.dtype)
    for i, kernel in enumerate(taps):
        x, y = (View.whole(v.tensor, v.shape[1:]) for v in (given, made))
        x, y = replace(x, offset=given.offset + i * x.size), replace(y, offset=i * y.size)
        part = requantise
        if requantise is not None:
            own = slice(i * each, (i + 1) * each)
            part = replace(requantise, factor=requantise.factor[own], offset=requantise.offset[own])
        low.add(ByteConv.of(low, x, y, np.ascontiguousarray(kernel), geometry, zero, part))
    low.copy(made.transpose((1, 2, 3, 0, 4)), low.reshape(target, (*target.shape[:3], blocks, each)))


def byte_transposed(
    low: Lowering, node: ir.Node, given: tuple[View, int], weight: Array, requantise: Requantise, dtype: str
) -> View | None:
    """A transposed convolution: one of its own for every remainder of the stride, their results side by side.

    None where it has groups or holes, is not 1-D or 2-D, or cuts off more than a kernel's worth of border.
    Shapes:  weight (C, M, kernel…)
    """
    x, zero = given
    if x.rank not in (3, 4) or node.attributes.get_int("group", 1) != 1:
        return None
    shape = static(node, node.outputs[0])
    window = transposed_window(node, x, weight.shape[2:], shape[2:])
    geometry, lead = Geometry.of(window), (1,) * (4 - x.rank)
    taps = np.moveaxis(weight.reshape(*weight.shape[:2], *lead, *weight.shape[2:]), (0, 1), (2, 3))
    phases = [_phases(taps.shape[i], geometry.strides[i], geometry.pads[i]) for i in range(2)]
    if geometry.dilations != (1, 1) or any(p is None for p in phases):
        return None
    (sh, sw), (ph, pw), sizes = geometry.strides, geometry.pads, (*lead, *shape[2:])
    rows, columns = (-(-(n + p % s) // s) for n, p, s in zip(sizes, (ph, pw), (sh, sw), strict=True))
    made = low.new((sh, sw, shape[0], rows, columns, shape[1]), dtype)
    image = pixels(low, x)
    for i, (down, top) in enumerate(phases[0] or ()):
        for j, (along, left) in enumerate(phases[1] or ()):
            y = View.whole(made.tensor, made.shape[2:])
            y = replace(y, offset=(i * sw + j) * y.size)
            kernel = np.ascontiguousarray(taps[down][:, along]) if down and along else np.zeros_like(taps[:1, :1])
            still = Geometry((1, 1), (1, 1), (top, left) if down and along else (0, 0))
            low.add(ByteConv.of(low, image, y, kernel, still, zero, requantise))
    whole = low.contiguous(made.transpose((2, 3, 0, 4, 1, 5)))
    whole = low.reshape(whole, (shape[0], rows * sh, columns * sw, shape[1]))
    whole = whole.slice(1, ph % sh, sizes[0]).slice(2, pw % sw, sizes[1]).transpose((0, 3, 1, 2))
    return low.reshape(whole, shape) if x.rank == 3 else whole


def _phases(kernel: int, stride: int, pad: int) -> list[tuple[list[int], int]] | None:
    """For every remainder of the stride its taps, backwards, and the border before; None where that would be cut off.

    Output ``o`` takes input ``i`` with tap ``k`` where ``o + pad = i · stride + k``.
    """
    found = []
    for phase in range(stride):
        taps = list(range(phase, kernel, stride))[::-1]
        found.append((taps, len(taps) - 1 - pad // stride))
    return None if any(taps and before < 0 for taps, before in found) else found


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
    """A pool of the largest bytes; None where it also returns places, or has more than three dimensions."""
    if len(node.outputs) > 1 and low.has(node.outputs[1]):
        return None
    if x.rank == 5 and not node.op_type.startswith("Global"):
        return _deep_max(low, node, x, dtype)
    found = _pooled(low, node, x, dtype)
    if found is None:
        return None
    step, y, _ = found
    low.add(step)
    return y


def _deep_max(low: Lowering, node: ir.Node, x: View, dtype: str) -> View | None:
    """The largest under a window of three dimensions: within every slice, then across slices."""
    shape = static(node, node.outputs[0])
    window = window_of(node, x.shape[2:], node.attributes.get_ints("kernel_shape"))
    y = low.new(shape, dtype, channels_last(5))
    if _beside(x, y, window):
        return None
    x = low.contiguous(x, channels_last(5))
    (batch, channels, depth, *sizes), (deep, high, wide) = x.shape, shape[2:]
    within = low.new((batch * depth, high, wide, channels), x.dtype)
    images = (batch * depth, *sizes, channels)
    flat = Geometry.of(Window(*(values[1:] for values in astuple(window))))
    low.add(
        BytePool(
            View(x.tensor, images, contiguous_strides(images), x.offset),
            within,
            (window.kernel[1], window.kernel[2]),
            flat,
        )
    )
    slices = low.reshape(within, (batch, depth, high * wide, channels))
    target = View.whole(y.tensor, (batch, deep, high * wide, channels))
    across = Geometry((window.strides[0], 1), (window.dilations[0], 1), (window.pads_begin[0], 0))
    low.add(BytePool(slices, target, (window.kernel[0], 1), across))
    return y


def _beside(x: View, y: View, window: Window) -> bool:
    """True where some window lies wholly outside its input."""
    axes = [axis_of(x, y, window, i) for i in range(len(window.kernel))]
    return any(not len(axis.taps(p)) for axis in axes for p in range(axis.size))


def byte_mean(low: Lowering, node: ir.Node, given: tuple[View, int], requantise: Requantise, dtype: str) -> View | None:
    """A mean of bytes; None where windows count differently many positions, and where few means fill no vector."""
    zero, found = given[1], (_reduced if node.op_type == "ReduceMean" else _pooled)(low, node, given[0], dtype)
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
    count = step.y.shape[3]
    factor = np.full(count, requantise.factor[0].astype(np.float64) / prod(step.taps), np.float32)
    requantise = replace(requantise, factor=factor, offset=np.zeros(count, np.float32))
    low.add(replace(step, zero=zero, requantise=requantise))
    return y


def _reduced(low: Lowering, node: ir.Node, x: View, dtype: str) -> tuple[BytePool, View, None] | None:
    """A mean over some axes as one window over them: what stays is channels, and images where the first axis does."""
    axes = sorted(reduced_axes(low, node, x.rank))
    kept = [d for d in range(x.rank) if d not in axes]
    lead = [0] if kept[:1] == [0] else []
    batch, count, channels = (prod(x.shape[d] for d in part) for part in (lead, axes, kept[len(lead) :]))
    if not axes or channels < low.lanes or x.size == 0:
        return None
    image = low.contiguous(x.transpose((*lead, *axes, *kept[len(lead) :])))
    y = low.new((batch, channels), dtype)
    step = BytePool(
        View.whole(image.tensor, (batch, 1, count, channels)), View.whole(y.tensor, (batch, 1, 1, channels)),
        (1, count), Geometry((1, 1), (1, 1), (0, 0)),
    )  # fmt: skip
    return replace(step, x=replace(step.x, offset=image.offset)), low.reshape(y, static(node, node.outputs[0])), None


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
    if _beside(x, y, window):
        return None
    lead = (1,) * (4 - x.rank)
    kernel = (*lead, *window.kernel)
    target = View.whole(y.tensor, (shape[0], *lead, *shape[2:], shape[1]))
    return BytePool(pixels(low, x), target, (kernel[0], kernel[1]), Geometry.of(window)), y, window
