"""ConvTranspose by output phase: with stride s, every s-th output is a plain convolution with some of the taps.

Along one axis, output ``o`` takes input ``i`` with tap ``k`` where ``o + pad = i · stride + k · dilation``. Positions
with equal ``(o + pad) mod stride`` take the same taps, in steps of ``stride / gcd`` and met backwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from math import gcd, prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.native.epilogue import Finished
from hasten.native.expr import ACC, Expr
from hasten.native.kernels.conv import convolution, planned
from hasten.native.kernels.pieces import block
from hasten.native.kernels.spatial import Axis, ConvSpec, Window, bias_of, channels_last, finish, padded
from hasten.native.kernels.sweep import peels
from hasten.native.kernels.sweep_loops import columns_of
from hasten.native.lower_shape import static
from hasten.native.program import View
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.lower import Lowering

__all__ = ["LOWER", "ConvTranspose", "transposed_window"]

_PLANAR_CHANNELS = 8  # as in conv.py
# Beyond so many phases there is more code than time to compile it.
_MOST_PHASES = 16


@dataclass(frozen=True)
class Phase:
    """One convolution among those that make up a transposed one.

    Units:   origin: elements of y before its first output
    """

    axes: tuple[Axis, ...]
    taps: tuple[range, ...]
    """Which taps of the whole kernel it takes along every spatial dimension, in the order of its own."""
    origin: int


@dataclass(eq=False)
class ConvTranspose(Finished):
    """``y = epilogue(transposed convolution of x + bias)``.

    Shapes:  x (N, C, spatial…) with ``lead`` zeros before the input proper · weight (M, C / groups, kernel…)
             bias (M,) · y (N, M, spatial…), channels last in memory
    """

    x: View
    y: View
    weight: Array
    bias: Array
    window: Window
    groups: int = 1
    lead: int = 0
    epilogue: Expr = ACC
    READS = ("x", "operands")
    WRITES = ("y",)

    @property
    def _row_length(self) -> int:
        return columns_of(self.y)

    @property
    def title(self) -> str:
        """Sizes and epilogue."""
        groups = f" in {self.groups} groups" if self.groups > 1 else ""
        sizes = "x".join(map(str, self.y.shape[2:]))
        return f"{self.window.text}, {self.x.shape[1]} -> {self.y.shape[1]}{groups}, {sizes}{self._epilogue.title}"

    def macs(self) -> int:
        """Input positions · taps · output channels of a group."""
        positions = prod(n - 2 * self.lead for n in self.x.shape[2:])
        return self.x.shape[0] * positions * self.weight.size

    def phases(self) -> Iterator[Phase]:
        """The convolutions that make it up."""
        rank = len(self.window.kernel)
        each = [list(self._along(i)) for i in range(rank)]
        batch = Axis(self.y.shape[0], self.x.shape[0], 1, 1, 1, 0, self.x.strides[0], self.y.strides[0])
        for parts in product(*each):
            axes = (batch, *(axis for axis, _, _ in parts))
            kept = tuple(a for a in axes if not (a.size == 1 and a.kernel == 1 and a.pad == 0)) or axes[-1:]
            yield Phase(kept, tuple(taps for _, taps, _ in parts), sum(origin for _, _, origin in parts))

    def _along(self, i: int) -> Iterator[tuple[Axis, range, int]]:
        window, ys = self.window, self.y.strides[i + 2]
        size, stride, dilation, pad = self.y.shape[i + 2], window.strides[i], window.dilations[i], window.pads_begin[i]
        common = gcd(stride, dilation)
        for first in range(min(stride, size)):
            phase, m = (first + pad) % stride, (first + pad) // stride
            count = -(-(size - first) // stride)
            found = [k for k in range(window.kernel[i]) if (k * dilation - phase) % stride == 0]
            xs, extent = self.x.strides[i + 2], self.x.shape[i + 2]
            if not found:  # nothing reaches this phase: a window that is always outside
                yield Axis(count, extent, 1, 1, 1, extent + count + 1, xs, stride * ys, i), range(0, 1), first * ys
                continue
            step = stride // common
            last = (found[-1] * dilation - phase) // stride
            taps = range(found[-1], found[0] - 1, -step)
            axis = Axis(count, extent, len(taps), 1, dilation // common, last - m - self.lead, xs, stride * ys, i)
            yield axis, taps, first * ys

    def emit(self, out: Emitter) -> None:
        """One function; a block of loops for each phase, all with vectors of one width."""
        unit = out.isa.widths(self.y.shape[1] if self.groups == 1 else 1)[0]
        with out.vectors(unit.lanes):
            self._emit(out)

    def _emit(self, out: Emitter) -> None:
        split = out.splits(self.macs())
        lines: list[str] = []
        blocks: list[Array] = []
        for phase in self.phases():
            weight = self.weight
            for i, taps in enumerate(phase.taps):
                weight = np.take(weight, taps, axis=i + 2)
            loops, pack = planned(self, phase.axes, weight, out)
            packed = pack()
            start = sum(b.size for b in blocks)
            body = replace(loops, origin=phase.origin).body(split)
            lines += block("", [f"const float *weight = weights + {start};", *body])
            blocks.append(np.concatenate([packed, np.zeros(-packed.size % 16, np.float32)]))
        signature = [
            ("const float *restrict x", out.pointer(self.x)),
            ("const float *restrict weights", out.constant(np.concatenate(blocks))),
            ("float *y", out.pointer(self.y)),
            *self._epilogue.signature(out),
        ]
        if split:
            lines.append("(void)part, (void)parts, (void)flags;")
        out.function("conv_transpose", self.title, signature, "\n".join(f"    {line}" for line in lines), split=split)


def transposed_window(node: ir.Node, x: View, kernel: tuple[int, ...], sizes: tuple[int, ...]) -> Window:
    """The window with its pads, which may be given by ``auto_pad`` or by the output's size alone."""
    rank, attributes = len(kernel), node.attributes
    strides = tuple(attributes.get_ints("strides", (1,) * rank))
    dilations = tuple(attributes.get_ints("dilations", (1,) * rank))
    extra = tuple(attributes.get_ints("output_padding", (0,) * rank))
    mode = attributes.get_string("auto_pad", "NOTSET")
    pads = tuple(attributes.get_ints("pads", (0,) * (2 * rank)))
    if "output_shape" in attributes or mode in ("SAME_UPPER", "SAME_LOWER"):
        total = [
            max(0, (n - 1) * s + e + (k - 1) * d + 1 - size)
            for n, s, e, k, d, size in zip(x.shape[2:], strides, extra, kernel, dilations, sizes, strict=True)
        ]
        small = tuple(t // 2 for t in total)
        large = tuple(t - t // 2 for t in total)
        pads = small + large if mode == "SAME_UPPER" else large + small
    elif mode == "VALID":
        pads = (0,) * (2 * rank)
    return Window(kernel, strides, dilations, pads[:rank], pads[rank:])


def _as_convolution(window: Window) -> Window | None:
    """With stride 1 it is a convolution with the kernel turned around: that window, or None."""
    pads = tuple((k - 1) * d - p for k, d, p in zip(window.kernel, window.dilations, window.pads_begin, strict=True))
    if any(s != 1 for s in window.strides) or min(pads) < 0:
        return None
    return replace(window, pads_begin=pads, pads_end=(0,) * len(pads))


def _is_merged(low: Lowering, x: View, weight: Array, window: Window, sizes: tuple[int, ...]) -> bool:
    """True where the phases along the last dimension are better taken for channels of one position.

    Output ``p · stride + phase`` takes inputs p, p - 1, … by taps ``phase``, ``phase + stride``, …: its phases are as
    many channels of a convolution with stride 1, and lie where they belong when channels lie last. That fills the
    vectors where channels are few, and is one loop where strides are long. A kernel of no whole number of strides is
    filled up with zeros, which an infinity would make NaN of: only where there is no other way.
    """
    kernel, stride = window.kernel[-1], window.strides[-1]
    if stride == 1 or window.dilations[-1] != 1:
        return False
    few = 2 * len(weight) <= low.isa.widths(len(weight))[0].lanes
    whole = _taps(window, x.shape[-1], sizes[-1]) * stride == kernel
    return (few and whole) or prod(window.strides) > _MOST_PHASES


def _taps(window: Window, extent: int, size: int) -> int:
    """Taps of every phase, so that all outputs asked for are made."""
    reached = size + window.pads_begin[-1] - (extent - 1) * window.strides[-1]
    return -(-max(window.kernel[-1], reached) // window.strides[-1])


def _merged(low: Lowering, x: View, weight: Array, bias: Array, window: Window, sizes: tuple[int, ...]) -> View:
    """The transposed convolution with its phases along the last dimension as channels."""
    stride, taps, rank = window.strides[-1], _taps(window, x.shape[-1], sizes[-1]), len(sizes)
    room = np.zeros((*weight.shape[:-1], taps * stride), np.float32)
    room[..., : weight.shape[-1]] = weight
    each = np.moveaxis(room.reshape(*weight.shape[:-1], taps, stride), -1, 0)
    weight, count = np.ascontiguousarray(each).reshape(-1, *each.shape[2:]), len(weight)
    inner = Window(
        weight.shape[2:], (*window.strides[:-1], 1), window.dilations, (*window.pads_begin[:-1], 0),
        (*window.pads_end[:-1], 0),
    )  # fmt: skip
    wide = (*sizes[:-1], x.shape[-1] + taps - 1)
    y = _made(low, x, weight, np.tile(bias, stride), inner, (wide, 1))
    apart = y.split(1, count).transpose((0, 2, *range(3, rank + 3), 1))  # N, M, spatial…, phase
    whole = apart.reshape((*apart.shape[:-2], wide[-1] * stride))
    assert whole is not None, "channels lie last"
    return whole.slice(rank + 1, window.pads_begin[-1], sizes[-1])


def _conv_transpose(low: Lowering, node: ir.Node) -> None:
    x, weight = low.view(node.inputs[0]), low.constant(node.inputs[1])
    if weight is None or weight.dtype != np.float32 or x.dtype != "float32":
        raise UnsupportedOpError(
            f"op ConvTranspose (node '{node.name}') without constant float32 weights has no native kernel"
        )
    groups = node.attributes.get_int("group", 1)
    # (C, M / groups, kernel…) → (M, C / groups, kernel…)
    parts = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    weight = np.swapaxes(parts, 1, 2).reshape(-1, weight.shape[0] // groups, *weight.shape[2:])
    shape = static(node, node.outputs[0])
    window = transposed_window(node, x, weight.shape[2:], shape[2:])
    bias, late = bias_of(low, node, shape[1], x.rank)
    if groups == 1 and _is_merged(low, x, weight, window, shape[2:]):
        y = _merged(low, x, weight, bias, window, shape[2:])
    else:
        y = _made(low, x, weight, bias, window, (shape[2:], groups))
    finish(low, node, y, late)


def _made(low: Lowering, x: View, weight: Array, bias: Array, window: Window, how: tuple[tuple[int, ...], int]) -> View:
    """Adds the steps; ``how``: sizes of the result, groups. Returns where it lies."""
    sizes, groups = how
    if plain := _as_convolution(window):
        axes = tuple(range(2, weight.ndim))
        spec = ConvSpec(sizes, bias, groups)
        return convolution(low, x, np.ascontiguousarray(np.flip(weight, axes)), plain, spec)
    if x.shape[1] > _PLANAR_CHANNELS and x.strides[1] != 1:
        x = low.contiguous(x, channels_last(x.rank))
    y = low.new((x.shape[0], len(weight), *sizes), "float32", channels_last(x.rank))
    step = ConvTranspose(x, y, weight, bias, window, groups)
    if not all(peels(phase.axes) for phase in step.phases()):
        lead = max(max(a.pad, a.size + (a.kernel - 1) * a.dilation - a.extent) for p in step.phases() for a in p.axes)
        around = Window(window.kernel, window.strides, window.dilations, (lead,) * (x.rank - 2), (0,) * (x.rank - 2))
        x, _ = padded(low, x, around, (lead,) * (x.rank - 2), fill=0.0)
        step = ConvTranspose(x, y, weight, bias, window, groups, lead)
    low.add(step)
    return y


LOWER: Mapping[str, Any] = {"ConvTranspose": _conv_transpose}
