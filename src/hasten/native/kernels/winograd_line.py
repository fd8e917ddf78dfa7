"""Convolutions along one dimension, stride 1, by minimal filtering: with 3, 4 or 5 taps 6 products make 4, 3 or 2
outputs.

More taps are several such pieces side by side, whose products are summed before the transform back, as channels are.
The six interpolation points, blocks of tiles and products are those of ``winograd``; transforms run along one side.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from hasten.native.kernels.pieces import block
from hasten.native.kernels.spatial import Window, axis_of
from hasten.native.kernels.winograd import Blocking, Winograd, least_channels, reading
from hasten.native.kernels.winograd_transforms import FORWARD, INVERSE, TILES, Transforms, filter_of
from hasten.native.program import View
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.isa import Isa

__all__ = ["WinogradLine", "relative_cost"]

_REACH = 6


@dataclass(eq=False)
class WinogradLine(Winograd):
    """``y = epilogue(convolution along one dimension + bias)``, ``size`` outputs at a time.

    Shapes:  as ``Winograd``, any number of spatial dimensions; weight's kernel is 1 but along dimension ``dim``
    """

    dim: int = 2

    @property
    def taps(self) -> int:
        """Of one piece of the filter: as many as six products take."""
        return _REACH + 1 - self.size

    @property
    def pieces(self) -> int:
        """Parts of the filter."""
        return -(-int(self.weight.shape[self.dim]) // self.taps)

    @property
    def way(self) -> str:
        """How many outputs a tile makes, and of how many taps."""
        pieces = f"{self.pieces} x " if self.pieces > 1 else ""
        return f"{pieces}F({self.size}, {self.taps})"

    @property
    def title(self) -> str:
        """Sizes and epilogue."""
        sizes = "x".join(map(str, self.y.shape[2:]))
        return f"{self.way}, {self.x.shape[1]} -> {self.y.shape[1]}, {sizes}{self._epilogue.title}"

    @property
    def lines(self) -> tuple[int, ...]:
        """The other dimensions that positions have, batch first."""
        return tuple(d for d in range(self.y.rank) if d not in (1, self.dim))

    @property
    def grid(self) -> tuple[int, int]:
        """Lines of all images, and tiles along each."""
        return prod(self.y.shape[d] for d in self.lines), -(-self.y.shape[self.dim] // self.size)

    @property
    def tiles(self) -> int:
        """Tiles of all lines."""
        return prod(self.grid)

    @property
    def points(self) -> int:
        """Products for one tile."""
        return _REACH

    def transforms(self, out: Emitter, blocking: Blocking) -> Transforms:
        """What writes the step."""
        return _Line(self, out, *blocking)


@dataclass(frozen=True)
class _Line(Transforms):
    """Writes one step."""

    step: WinogradLine

    def points_of(self, weight: Array) -> Array:
        """Transformed weights (points, C, M); of several pieces (points, pieces · C in whole vectors, M)."""
        step, taps = self.step, self.step.taps
        columns, channels = weight.shape[:2]
        room = np.zeros((columns, self.channels // step.pieces, step.pieces * taps))
        room[:, :channels, : weight[0, 0].size] = weight.reshape(columns, channels, -1)
        pieces = room.reshape(*room.shape[:2], step.pieces, taps)
        points: Array = np.einsum("ak,mcpk->apcm", filter_of(_REACH, taps), pieces).reshape(_REACH, -1, columns)
        return points

    def place(self, view: View) -> list[str]:
        """Where tile ``t`` lies: its line's elements before it, and its first output."""
        across = self.step.grid[1]
        lines = [f"const int across = t % {across} * {self.step.size};"]
        terms, below = [], across
        for d in reversed(self.step.lines):
            if view.shape[d] > 1:
                terms.append(f"t / {below} % {view.shape[d]} * {view.strides[d]}")
                below *= view.shape[d]
        return [*lines, f"const int line = {' + '.join(terms) or '0'};"]

    def forward(self, tiles: int) -> list[str]:
        """Input tiles, transformed, one vector of channels at a time."""
        step, lanes = self.step, self.out.lanes
        channels, width, stride = step.x.shape[1], step.x.shape[step.dim], step.x.strides[step.dim]
        load = f"v_load(from + j * {stride})"
        # Between pieces zeros fill vectors up; the last piece's neighbour may not be the caller's to read.
        if (step.pieces > 1 or step.x.tensor.kind in ("input", "output")) and channels % lanes:
            self.out.need("v_load_n")
            part = f"v_load_n(from + j * {stride}, {channels % lanes})"
            load = f"(c < {channels - channels % lanes} ? {load} : {part})"
        turn = [f"const float *from = x + line + left * {stride} + c;", f"vf d[{_REACH}];"]
        turn.append(f"if (left >= 0 && left + {_REACH} <= {width}) {{")
        turn.append(f"    UNROLL for (int j = 0; j < {_REACH}; j++) d[j] = {load};")
        turn.append("} else {")
        edge = f"left + j >= 0 && left + j < {width} ? {load} : v_set1(0.0f)"
        turn.append(f"    UNROLL for (int j = 0; j < {_REACH}; j++) d[j] = {edge};")
        turn += ["}", f"vf r[{_REACH}];", *self.transform(FORWARD[_REACH], "r[{}]")]
        piece = f" + g * {self.piece}" if step.pieces > 1 else ""
        turn.append(f"float *to = v + (t - b * {tiles}) * {self.depth}{piece} + c;")
        store = f"v_store(to + j * {self.count * self.depth}, r[j]);"
        turn.append(f"UNROLL for (int j = 0; j < {_REACH}; j++) {store}")
        taps = f" + g * {step.taps}" if step.pieces > 1 else ""
        one = [f"const int left = across{taps} - {step.pads[1]};"]
        one += block(f"for (int c = 0; c < {channels}; c += VL)", turn)
        if step.pieces > 1:
            one = block(f"for (int g = 0; g < {step.pieces}; g++)", one)
        lines = [*self.place(step.x), *one]
        return block(f"for (int t = b * {tiles}; t < stop; t++)", lines)

    def outputs(self, tiles: int, count: int | None) -> list[str]:
        """The outputs of one tile and vector of channels."""
        step, size, columns = self.step, self.step.size, self.step.y.shape[self.step.dim]
        lines = [f"const float *from = m + (t - b * {tiles}) * {self.columns} + c;", f"vf d[{_REACH}], r[{size}];"]
        points = f"d[j] = v_load(from + j * {self.count * self.columns});"
        lines.append(f"UNROLL for (int j = 0; j < {_REACH}; j++) {points}")
        lines += self.transform(INVERSE[_REACH, size], "r[{}]")
        lines.append("const vf add = v_load(bias + c);")
        stride = step.y.strides[step.dim]
        lines.append(f"const int e = line + across * {stride} + c;")
        one = self.stored(f"e + j * {stride}", count)
        if columns % size:
            one = [f"if (across + j >= {columns}) break;", *one]
        return [*lines, *block(f"UNROLL for (int j = 0; j < {size}; j++)", one)]


def relative_cost(
    x: View, y: View, weight: Array, window: Window, isa: Isa
) -> tuple[int, int, tuple[float, int]] | None:
    """By a model of the machine: the dimension it runs along, outputs of a tile there, its cost over that of a direct
    convolution, and the lanes that take least.
    """
    long = [i for i, k in enumerate(window.kernel) if k > 1]
    if len(long) != 1 or window.kernel[long[0]] < 3 or any(n != 1 for n in (*window.strides, *window.dilations)):
        return None
    (i,) = long
    if any(window.pads_begin[k] or x.shape[k + 2] != y.shape[k + 2] for k in range(len(window.kernel)) if k != i):
        return None
    channels, columns = weight.shape[1], weight.shape[0]
    if min(channels, columns) < least_channels(isa):
        return None
    lines = y.size // columns // y.shape[i + 2]
    taps = sum(len(axis_of(x, y, window, i).taps(p)) for p in range(y.shape[i + 2])) * lines
    direct = taps * channels * isa.turns(columns) / 2 * 1.05
    costs = []
    for size in (4, 3, 2):
        tiles = lines * -(-y.shape[i + 2] // size)
        pieces = -(-window.kernel[i] // (_REACH + 1 - size))
        for unit in isa.widths(columns):
            vin, vout = pieces * unit.turns(channels), unit.turns(columns)
            loads = reading(-(-tiles // TILES), _REACH * pieces * channels, columns, unit)
            products = max(_REACH * tiles * pieces * channels * vout / 2 * 1.1, loads)
            costs.append(((products + tiles * (vin * 16 + vout * 14)) / direct, unit.lanes, size))
    cost, lanes, size = min(costs)
    return i + 2, size, (cost, lanes)
