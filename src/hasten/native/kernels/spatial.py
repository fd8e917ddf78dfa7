"""The geometry of convolutions and pools: a node's attributes enter, axes and the tiles of output positions leave.

A window slides over *axes*: the batch and every spatial dimension, each with its sizes and its strides in memory, so
that 1-D, 2-D and 3-D, any memory order and any border are one case for the kernels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.native.expr import call, const, load
from hasten.native.kernels.elementwise import Elementwise
from hasten.native.program import View
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.lower import Lowering

__all__ = [
    "Axis", "ConvSpec", "Segment", "Window", "axes_of", "axis_of", "bias_of", "channels_last", "finish", "padded",
    "reach_ends", "segments", "undilated", "window_of",
]  # fmt: skip


@dataclass(frozen=True)
class ConvSpec:
    """What a convolution is told beside its weights.

    Shapes:  sizes: spatial sizes of the output · bias (M,)
    """

    sizes: tuple[int, ...]
    bias: Array
    groups: int = 1


@dataclass(frozen=True)
class Window:
    """What slides, one entry a spatial dimension. ``pads_end`` matters to averages alone: sizes are the tensors'."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads_begin: tuple[int, ...]
    pads_end: tuple[int, ...]

    @property
    def text(self) -> str:
        """Kernel size, and stride and dilation where they are not one."""
        found = "x".join(map(str, self.kernel))
        for word, values in (("stride", self.strides), ("dilation", self.dilations)):
            if any(v != 1 for v in values):
                found += f" {word} {'x'.join(map(str, dict.fromkeys(values) if len(set(values)) == 1 else values))}"
        return found


def window_of(node: ir.Node, extents: Sequence[int], kernel: Sequence[int]) -> Window:
    """The node's window with ``auto_pad`` resolved.

    Raises:  UnsupportedOpError: an ``auto_pad`` that ONNX does not know, or of a pool where engines do not agree on it
    """
    rank, attributes = len(extents), node.attributes
    strides = tuple(attributes.get_ints("strides", (1,) * rank))
    dilations = tuple(attributes.get_ints("dilations", (1,) * rank))
    mode = attributes.get_string("auto_pad", "NOTSET")
    pads = tuple(attributes.get_ints("pads", (0,) * (2 * rank)))
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        needed = [
            (-(-n // s) - 1) * s + (k - 1) * d + 1 - n
            for n, s, k, d in zip(extents, strides, kernel, dilations, strict=True)
        ]
        # Where strides are longer than a pool's window, ONNX Runtime moves the first window into the input, TensorFlow
        # does not, and ONNX's text allows either; what dilations add ONNX Runtime leaves out.
        moved = min(needed) + (mode == "SAME_LOWER") < -1
        holes = any(k > 1 and d > 1 for k, d in zip(kernel, dilations, strict=True))
        if node.op_type.endswith("Pool") and (moved or holes):
            why = "strides beyond its window" if moved else "dilations"
            raise UnsupportedOpError(f"op {node.op_type} (node '{node.name}') with auto_pad={mode} and {why}")
        total = [max(0, n) for n in needed]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = tuple(small + large if mode == "SAME_UPPER" else large + small)
    elif mode == "VALID":
        pads = (0,) * (2 * rank)
    elif mode not in ("NOTSET", ""):
        raise UnsupportedOpError(f"op {node.op_type} (node '{node.name}') with auto_pad={mode} has no native kernel")
    return Window(tuple(kernel), strides, dilations, pads[:rank], pads[rank:])


def bias_of(low: Lowering, node: ir.Node, count: int, rank: int) -> tuple[Array, View | None]:
    """The constant bias of a convolution (zeros where there is none), or the view of one computed at run time."""
    none = np.zeros(count, np.float32)
    if len(node.inputs) < 3 or not low.has(node.inputs[2]):
        return none, None
    bias = low.constant(node.inputs[2])
    if bias is None:
        return none, low.reshape(low.view(node.inputs[2]), (1, count, *(1,) * (rank - 2)))
    return bias.astype(np.float32), None


def finish(low: Lowering, node: ir.Node, y: View, extra: View | None) -> None:
    """Names ``y`` the node's result, after adding a bias computed at run time."""
    if extra is not None:
        total = low.new(y.shape, "float32", channels_last(y.rank))
        low.add(Elementwise(total, call("add", load(y), load(extra.broadcast(y.shape)))))
        y = total
    low.set(node.outputs[0], y)


def reach_ends(x: View, sizes: Sequence[int], window: Window) -> list[int]:
    """Positions that the window reaches past the end of each spatial dimension."""
    found = []
    for i, size in enumerate(sizes):
        last = (size - 1) * window.strides[i] + (window.kernel[i] - 1) * window.dilations[i] - window.pads_begin[i]
        found.append(max(0, last + 1 - x.shape[i + 2]))
    return found


def channels_last(rank: int) -> tuple[int, ...]:
    """The dimension order that holds (N, C, spatial…) with channels innermost."""
    return (0, *range(2, rank), 1)


def padded(low: Lowering, x: View, window: Window, ends: Sequence[int], *, fill: float) -> tuple[View, Window]:
    """A channels-last copy of ``x`` with ``fill`` around it, and the window that then needs no pads."""
    begin = window.pads_begin
    sizes = [n + b + e for n, b, e in zip(x.shape[2:], begin, ends, strict=True)]
    copy = low.new((*x.shape[:2], *sizes), x.dtype, channels_last(x.rank))
    inner = copy
    for d, (b, n) in enumerate(zip(begin, x.shape[2:], strict=True), 2):
        after = inner.shape[d] - b - n
        for start, count in ((0, b), (b + n, after)):
            if count > 0:
                low.add(Elementwise(inner.slice(d, start, count), const(fill)))
        inner = inner.slice(d, b, n)
    low.copy(x, inner)
    none = (0,) * len(begin)
    return copy, replace(window, pads_begin=none, pads_end=none)


def undilated(x: View, y: View, weight: Array, window: Window) -> tuple[View, View, Array, Window]:
    """The same convolution with every dilated dimension seen as two where its positions divide evenly: those that
    share taps lie ``dilation`` apart, so a plain window slides along each such line and neighbours are lines apart.

    Shapes:  x (N, C, spatial…) · y (N, M, spatial…) · weight (M, C / groups, kernel…); returned with a dimension more
             for each that was split: position = first of the two · dilation + second
    """
    i = 0
    while i < len(window.kernel):
        d, kernel, pad, size = window.dilations[i], window.kernel[i], window.pads_begin[i], y.shape[i + 2]
        extent = min(x.shape[i + 2], size + (kernel - 1) * d - pad)
        if kernel > 1 and d > 1 and window.strides[i] == 1 and not (pad % d or size % d or extent % d):
            x, y = x.slice(i + 2, 0, extent).split(i + 2, d), y.split(i + 2, d)
            weight = np.expand_dims(weight, i + 3)
            window = Window(
                _with(window.kernel, i, kernel, 1),
                _with(window.strides, i, 1, 1),
                _with(window.dilations, i, 1, 1),
                _with(window.pads_begin, i, pad // d, 0),
                _with(window.pads_end, i, window.pads_end[i] // d, 0),
            )
            i += 1
        i += 1
    return x, y, weight, window


def _with(values: tuple[int, ...], i: int, *instead: int) -> tuple[int, ...]:
    return (*values[:i], *instead, *values[i + 1 :])


@dataclass(frozen=True)
class Axis:
    """One dimension that the window slides along.

    Units:   size: output positions; extent: input positions; pad: positions before the first; xs, ys: elements in
             memory per input and per output position
    """

    size: int
    extent: int
    kernel: int
    stride: int
    dilation: int
    pad: int
    xs: int
    ys: int
    dim: int = -1
    """Which spatial dimension it is; -1: the batch."""

    @property
    def plain(self) -> bool:
        """True where input and output positions are the same."""
        return self.kernel == 1 and self.stride == 1 and self.pad == 0 and self.extent == self.size

    @property
    def clipped(self) -> bool:
        """True where some tap of some position falls outside the input."""
        return (
            self.pad > 0 or (self.size - 1) * self.stride - self.pad + (self.kernel - 1) * self.dilation >= self.extent
        )

    def taps(self, position: int) -> range:
        """The taps of one output position that lie within the input."""
        base, d = position * self.stride - self.pad, self.dilation
        low = max(0, -(base // d)) if base < 0 else 0
        return range(low, max(low, min(self.kernel, -(-(self.extent - base) // d))))


def axis_of(x: View, y: View, window: Window, i: int) -> Axis:
    """Spatial axis ``i``."""
    return Axis(
        y.shape[i + 2], x.shape[i + 2], window.kernel[i], window.strides[i], window.dilations[i],
        window.pads_begin[i], x.strides[i + 2], y.strides[i + 2], i,
    )  # fmt: skip


def axes_of(x: View, y: View, window: Window) -> tuple[Axis, ...]:
    """Batch and spatial axes, outermost first; those without effect dropped, those that walk memory as one merged."""
    rank = len(window.kernel)
    axes = [Axis(y.shape[0], x.shape[0], 1, 1, 1, 0, x.strides[0], y.strides[0])]
    axes += [axis_of(x, y, window, i) for i in range(rank)]
    axes = [a for a in axes if not (a.size == 1 and a.kernel == 1 and a.pad == 0)]
    merged: list[Axis] = []
    for axis in axes:
        last = merged[-1] if merged else None
        if last and last.plain and axis.plain and last.xs == axis.xs * axis.size and last.ys == axis.ys * axis.size:
            size = last.size * axis.size
            merged[-1] = replace(axis, size=size, extent=size)
        else:
            merged.append(axis)
    return tuple(merged) or (Axis(1, 1, 1, 1, 1, 0, 0, 0),)


@dataclass(frozen=True)
class Segment:
    """``tiles`` equal tiles of ``pixels`` output positions from ``start``.

    ``first`` and ``stop`` bound the input positions that a tile reads, counted from its first position's first tap.
    """

    start: int
    tiles: int
    pixels: int
    first: int
    stop: int


@lru_cache(maxsize=1024)
def segments(axis: Axis, pixels: int) -> tuple[Segment, ...]:
    """The axis cut into tiles; equal neighbours share a segment: borders are peeled, the middle is a loop."""
    count, step, span = axis.size // pixels, pixels * axis.stride, _span(axis, pixels)
    # Tiles from ``first`` to before ``stop`` lie wholly within the input, so that all of them are alike.
    first = min(-(-axis.pad // step), count)
    stop = max(first, min((axis.extent - span + axis.pad) // step + 1, count))
    inside = [Segment(first * pixels, stop - first, pixels, 0, span)] if stop > first else []
    ends = _tiles(axis, pixels, range(first * pixels)), _tiles(axis, pixels, range(stop * pixels, axis.size))
    return tuple(_merge([*ends[0], *inside, *ends[1]]))


def _span(axis: Axis, pixels: int) -> int:
    return (pixels - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1


def _tiles(axis: Axis, pixels: int, places: range) -> Iterator[Segment]:
    for start in places[::pixels]:
        count = min(pixels, axis.size - start)
        base = start * axis.stride - axis.pad
        first, stop = max(0, -base), min(_span(axis, count), axis.extent - base)
        yield Segment(start, 1, count, *((first, stop) if first < stop else (0, 0)))


def _merge(tiles: Iterable[Segment]) -> Iterator[Segment]:
    held: Segment | None = None
    for tile in tiles:
        if held and (held.pixels, held.first, held.stop) == (tile.pixels, tile.first, tile.stop):
            held = replace(held, tiles=held.tiles + tile.tiles)
            continue
        if held:
            yield held
        held = tile
    if held:
        yield held
