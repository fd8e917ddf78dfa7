"""The C of a Winograd step: what takes tiles into the domain of products and back, and the products between.

``Winograd`` says what to compute; the kinds of ``Transforms`` know the shape of its tiles.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hasten.native.kernels.pieces import block
from hasten.native.program import View
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.kernels.winograd import Winograd

__all__ = ["FORWARD", "INVERSE", "PARTS", "TILES", "Square", "Transforms", "block_tiles", "filter_of"]

PARTS = 4  # of a team that get scratch memory; more stay idle here
TILES = 14  # at most so many in a block

# Six products: the interpolation points 0, ±A, ±2A and ∞. With A² = 1/2 rounding costs hardly more than a direct
# convolution (1e-6 of the largest output; the usual 0, ±1, ±2 cost five times that).
_A = 0.5**0.5
_POINTS = (0.0, _A, -_A, 2 * _A, -2 * _A)
_SCALE = (1.0, -2 / 3, -2 / 3, 1 / 6, 1 / 6)

FORWARD = {
    4: (
        "{r}0 = d[0] - d[2];",
        "{r}1 = d[1] + d[2];",
        "{r}2 = d[2] - d[1];",
        "{r}3 = d[1] - d[3];",
    ),
    6: (
        "const vf p = d[4] - 2.0f * d[2], q = d[3] - 2.0f * d[1];",
        "const vf s = d[4] - 0.5f * d[2], h = d[3] - 0.5f * d[1];",
        "{r}0 = d[0] - 2.5f * d[2] + d[4];",
        "{r}1 = p + 0.70710678f * q;",
        "{r}2 = p - 0.70710678f * q;",
        "{r}3 = s + 1.41421356f * h;",
        "{r}4 = s - 1.41421356f * h;",
        "{r}5 = d[1] - 2.5f * d[3] + d[5];",
    ),
}
"""Products of a tile along one side → C that takes as many inputs there."""

_SUMS = "const vf p = d[1] + d[2], q = d[1] - d[2], s = d[3] + d[4], h = d[3] - d[4];"

INVERSE = {
    (4, 2): ("{r}0 = d[0] + d[1] + d[2];", "{r}1 = d[1] - d[2] - d[3];"),
    (6, 2): (_SUMS, "{r}0 = d[0] + p + s;", "{r}1 = 0.70710678f * q + 1.41421356f * h + d[5];"),
    (6, 3): (
        _SUMS,
        "{r}0 = d[0] + p + s;",
        "{r}1 = 0.70710678f * q + 1.41421356f * h;",
        "{r}2 = 0.5f * p + 2.0f * s + d[5];",
    ),
    (6, 4): (
        _SUMS,
        "{r}0 = d[0] + p + s;",
        "{r}1 = 0.70710678f * q + 1.41421356f * h;",
        "{r}2 = 0.5f * p + 2.0f * s;",
        "{r}3 = 0.35355339f * q + 2.82842712f * h + d[5];",
    ),
}
"""Products and outputs of a tile along one side → C that takes one to the other."""


def filter_of(reach: int, taps: int) -> Array:
    """The filter's transform.

    Shapes:  returns (products along one side, taps) float64
    """
    if reach == 4:
        return np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    rows = [[scale * point**k for k in range(taps)] for scale, point in zip(_SCALE, _POINTS, strict=True)]
    return np.array([*rows, [0.0] * (taps - 1) + [1.0]])


def block_tiles(tiles: int, team: int = 1) -> int:
    """Tiles of one block: as equal as possible, and as many blocks for each of a team."""
    blocks = -(-tiles // (TILES * team)) * team
    return -(-tiles // min(blocks, tiles))


@dataclass(frozen=True)
class Transforms(ABC):
    """Writes one step; what depends on the shape of tiles is left to its kinds.

    Units:   tiles: in a block · rows, width: tiles and vectors of output channels of a register tile
    """

    step: Winograd
    out: Emitter
    tiles: int
    rows: int
    width: int
    by_channels: bool = False
    """Every part of a team transforms all of the input and computes some of the output channels; else some blocks."""

    @abstractmethod
    def points_of(self, weight: Array) -> Array:
        """Transformed weights (points, C, M)."""

    @abstractmethod
    def place(self, view: View) -> list[str]:
        """Statements that say where tile ``t`` lies in x or y."""

    @abstractmethod
    def forward(self, tiles: int) -> list[str]:
        """Statements that transform a block's input."""

    @abstractmethod
    def outputs(self, tiles: int, count: int | None) -> list[str]:
        """Statements that make the outputs of one tile and vector of channels (``count`` lanes of it)."""

    @staticmethod
    def transform(lines: tuple[str, ...], place: str) -> list[str]:
        """The statements with every ``{r}n`` as ``place`` of n."""
        return [place.format(line[3]) + line[4:] if line.startswith("{r}") else line for line in lines]

    def stored(self, element: str, count: int | None) -> list[str]:
        """The epilogue on output ``r[j]`` and its store."""
        step = self.step
        column = "c" if step.y.shape[1] > 1 else f"({element}) % {step._epilogue.columns}"
        found, value = step._epilogue.apply(
            self.out, "(r[j] + add)", column=column, element=element, count=count, indent=""
        )
        return [*found, step._epilogue.put(self.out, element, value, count)]

    @property
    def count(self) -> int:
        """Tiles of one block, in whole register tiles."""
        return -(-self.tiles // self.rows) * self.rows

    @property
    def piece(self) -> int:
        """Input channels, in whole vectors."""
        return -(-self.step.x.shape[1] // self.out.lanes) * self.out.lanes

    @property
    def depth(self) -> int:
        """Values that a tile has for each product: input channels for every piece of the filter."""
        return self.step.pieces * self.piece

    @property
    def channels(self) -> int:
        """Of these, those that are multiplied; what fills vectors up between pieces is zero."""
        return self.step.x.shape[1] if self.step.pieces == 1 else self.depth

    @property
    def columns(self) -> int:
        """Output channels, in whole panels."""
        wide = self.width * self.out.lanes
        return -(-self.step.y.shape[1] // wide) * wide

    def packed(self) -> Array:
        """Transformed weights ``[panel][point][C][width · lanes]``."""
        points = self.points_of(self.step.weight.astype(np.float64))
        room = np.zeros((*points.shape[:2], self.columns))
        room[..., : points.shape[2]] = points
        panels = room.reshape(*points.shape[:2], -1, self.width * self.out.lanes)
        return np.ascontiguousarray(panels.transpose(2, 0, 1, 3)).astype(np.float32)

    def bias(self) -> Array:
        """Bias in whole panels."""
        room = np.zeros(self.columns, np.float32)
        room[: self.step.bias.size] = self.step.bias
        return room

    def body(self, split: bool) -> list[str]:
        """The function's statements."""
        step, points = self.step, self.step.points
        tiles, panels = self.tiles, self.columns // (self.width * self.out.lanes)
        blocks = -(-step.tiles // tiles)
        share, lines, offset = ("0", str(blocks)), [], ""
        channels = ("0", str(panels))
        if split:
            lines += [f"const int share = parts < {PARTS} ? parts : {PARTS};", "if (part >= share) return;"]
            offset = f" + part * {points * self.count * (self.depth + self.columns)}"
            if self.by_channels:
                channels = (f"{panels} * part / share", f"{panels} * (part + 1) / share")
            else:
                share = (f"{blocks} * part / share", f"{blocks} * (part + 1) / share")
        lines.append(
            f"float *v = scratch{offset}; /* {points} points x {self.count} tiles x {self.depth} channels in */"
        )
        lines.append(f"float *m = v + {points * self.count * self.depth}; /* x {self.columns} channels out */")
        lines.append(f"const int p0 = {channels[0]}, p1 = {channels[1]}; /* panels of output channels */")
        inside = [f"const int stop = (b + 1) * {tiles} < {step.tiles} ? (b + 1) * {tiles} : {step.tiles};"]
        inside += self.forward(tiles)
        inside += self._products()
        inside += self._inverse(tiles)
        return [*lines, *block(f"for (int b = {share[0]}; b < {share[1]}; b++)", inside)]

    def _products(self) -> list[str]:
        """For every point: (tiles x channels in) times (channels in x channels out)."""
        rows, width = self.rows, self.width
        points, channels, wide = self.step.points, self.channels, self.width * self.out.lanes
        kernel = [f"vf a[{rows * width}]; /* {rows} tiles x {width} vectors */"]
        kernel.append(f"UNROLL for (int i = 0; i < {rows * width}; i++) a[i] = v_set1(0.0f);")
        kernel.append(f"const float *at = v + (e * {self.count} + t) * {self.depth};")
        kernel.append(f"const float *k = u + (p * {points} + e) * {channels * wide};")
        inner = [
            f"vf k_[{width}];",
            f"UNROLL for (int j = 0; j < {width}; j++) k_[j] = v_load(k + c * {wide} + j * VL);",
        ]
        inner += block(
            f"UNROLL for (int i = 0; i < {rows}; i++)",
            [
                f"const vf in = v_set1(at[i * {self.depth} + c]);",
                f"UNROLL for (int j = 0; j < {width}; j++) a[i * {width} + j] += in * k_[j];",
            ],
        )
        kernel += block(f"for (int c = 0; c < {channels}; c++)", inner)
        kernel.append(f"float *to = m + (e * {self.count} + t) * {self.columns} + p * {wide};")
        store = f"v_store(to + i * {self.columns} + j * VL, a[i * {width} + j]);"
        kernel.append(f"UNROLL for (int i = 0; i < {rows}; i++)")
        kernel.append(f"    UNROLL for (int j = 0; j < {width}; j++) {store}")
        lines = block(f"for (int t = 0; t < {self.count}; t += {rows})", kernel)
        lines = block(f"for (int e = 0; e < {points}; e++)", lines)
        return block("for (int p = p0; p < p1; p++)", lines)

    def _inverse(self, tiles: int) -> list[str]:
        """Products back to outputs, one vector of channels at a time; what lies outside the image is not stored."""
        channels, lanes, wide = self.step.y.shape[1], self.out.lanes, self.width * self.out.lanes
        whole, tail = channels // lanes * lanes, channels % lanes
        lines = self.place(self.step.y)
        if whole:
            last = f"p1 * {wide} < {whole} ? p1 * {wide} : {whole}"
            lines.append(f"const int last = {last};")
            lines += block(f"for (int c = p0 * {wide}; c < last; c += VL)", self.outputs(tiles, None))
        if tail:
            head = f"if (p1 == {self.columns // wide})"
            lines += block(head, [f"const int c = {whole};", *self.outputs(tiles, tail)])
        return block(f"for (int t = b * {tiles}; t < stop; t++)", lines)


@dataclass(frozen=True)
class Square(Transforms):
    """Tiles with as many rows as columns."""

    @property
    def reach(self) -> int:
        """Input positions of a tile along one side."""
        return self.step.size + self.step.taps - 1

    def points_of(self, weight: Array) -> Array:
        """Transformed weights (points, C, M)."""
        g = filter_of(self.reach, self.step.taps)
        points: Array = np.einsum("ai,bj,mcij->abcm", g, g, weight).reshape(self.reach**2, *weight.shape[1::-1])
        return points

    def place(self, view: View) -> list[str]:
        """Where tile ``t`` lies."""
        down, across = self.step.grid
        lines = [
            f"const int across = t % {across} * {self.step.size}, down = t / {across} % {down} * {self.step.size};"
        ]
        if view.shape[0] > 1:
            lines.append(f"const int n = t / {down * across};")
        return lines

    def forward(self, tiles: int) -> list[str]:
        """Input tiles, transformed along both sides, one vector of channels at a time."""
        step, reach, lanes = self.step, self.reach, self.out.lanes
        channels, extent, width = step.x.shape[1], step.x.shape[2], step.x.shape[3]
        image = f" + n * {step.x.strides[0]}" if step.x.shape[0] > 1 else ""
        lines = self.place(step.x)
        lines.append(f"const int top = down - {step.pads[0]}, left = across - {step.pads[1]};")
        careful = step.x.tensor.kind in ("input", "output") and channels % lanes
        if careful:
            self.out.need("v_load_n")
        turn = [f"vf w[{reach * reach}];"]
        load = f"v_load(at + j * {step.x.strides[3]})"
        if careful:
            part = f"v_load_n(at + j * {step.x.strides[3]}, {channels % lanes})"
            load = f"(c < {channels - channels % lanes} ? {load} : {part})"
        row = [f"vf d[{reach}];", f"const float *at = from + i * {step.x.strides[2]};"]
        row.append(f"if (top + i < 0 || top + i >= {extent}) {{")
        row.append(f"    UNROLL for (int j = 0; j < {reach}; j++) d[j] = v_set1(0.0f);")
        row.append(f"}} else if (left >= 0 && left + {reach} <= {width}) {{")
        row.append(f"    UNROLL for (int j = 0; j < {reach}; j++) d[j] = {load};")
        row.append("} else {")
        edge = f"left + j >= 0 && left + j < {width} ? {load} : v_set1(0.0f)"
        row.append(f"    UNROLL for (int j = 0; j < {reach}; j++) d[j] = {edge};")
        row.append("}")
        row += self.transform(FORWARD[reach], f"w[i * {reach} + {{}}]")
        from_ = f"x{image} + top * {step.x.strides[2]} + left * {step.x.strides[3]} + c"
        turn.append(f"const float *from = {from_};")
        turn += block(f"for (int i = 0; i < {reach}; i++)", row)
        turn.append(f"float *to = v + (t - b * {tiles}) * {self.depth} + c;")
        side = [f"vf d[{reach}];", f"UNROLL for (int i = 0; i < {reach}; i++) d[i] = w[i * {reach} + j];"]
        side += [f"vf r[{reach}];", *self.transform(FORWARD[reach], "r[{}]")]
        store = f"v_store(to + (i * {reach} + j) * {self.count * self.depth}, r[i]);"
        side.append(f"UNROLL for (int i = 0; i < {reach}; i++) {store}")
        turn += block(f"for (int j = 0; j < {reach}; j++)", side)
        lines += block(f"for (int c = 0; c < {channels}; c += VL)", turn)
        return block(f"for (int t = b * {tiles}; t < stop; t++)", lines)

    def outputs(self, tiles: int, count: int | None) -> list[str]:
        """The outputs of one tile and vector of channels."""
        step, reach, size = self.step, self.reach, self.step.size
        rows, columns = step.y.shape[2:]
        image = f" + n * {step.y.strides[0]}" if step.y.shape[0] > 1 else ""
        lines = [f"const float *from = m + (t - b * {tiles}) * {self.columns} + c;", f"vf w[{size * reach}];"]
        points = f"d[i] = v_load(from + (i * {reach} + j) * {self.count * self.columns});"
        side = [f"vf d[{reach}];", f"UNROLL for (int i = 0; i < {reach}; i++) {points}"]
        side += self.transform(INVERSE[reach, size], f"w[{{}} * {reach} + j]")
        lines += block(f"for (int j = 0; j < {reach}; j++)", side)
        lines.append("const vf add = v_load(bias + c);")
        row = [f"vf d[{reach}];", f"UNROLL for (int j = 0; j < {reach}; j++) d[j] = w[i * {reach} + j];"]
        row += [f"vf r[{size}];", *self.transform(INVERSE[reach, size], "r[{}]")]
        row.append(f"const int e = (down + i) * {step.y.strides[2]} + across * {step.y.strides[3]} + c{image};")
        element = f"e + j * {step.y.strides[3]}"
        one = self.stored(element, count)
        if columns % size:
            one = [f"if (across + j >= {columns}) break;", *one]
        row += block(f"UNROLL for (int j = 0; j < {size}; j++)", one)
        head = f"for (int i = 0; i < {size}; i++)"
        if rows % size:
            head = f"for (int i = 0; i < {size} && down + i < {rows}; i++)"
        return [*lines, *block(head, row)]
