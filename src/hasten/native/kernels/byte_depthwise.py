"""Depthwise convolutions of bytes: four taps of a row of the window meet their weights in each 32-bit lane.

A vector of bytes holds neighbouring channels at one position, or, where there are few channels, several neighbouring
positions. The bytes of four taps are brought together in lanes; one dot product then takes all four. What was brought
together serves every row of outputs that lies under it, so a tile is several rows high.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import gcd
from typing import TYPE_CHECKING

import numpy as np

from hasten.native.kernels.byte_depthwise_words import WordWriter
from hasten.native.kernels.byte_image import (
    MET,
    Geometry,
    bordered,
    by_all_parts,
    copy_image,
    copy_of,
    flips,
    image_of,
    in_words,
    int8_parts,
    loaded,
    stored,
)
from hasten.native.kernels.requantise import Requantise, Rounding
from hasten.native.program import Step, View
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.lower import Lowering

__all__ = ["ByteDepthwise", "lane_order"]

_MOST_PHASES = 8
_LONGEST = 64  # dot products written out one after the other, a vector


def lane_order(lanes: int) -> Array:
    """The place among ``4 · lanes`` bytes of every lane of the four vectors of ``v_quads``.

    Shapes:  returns (4, lanes)
    """
    block = min(lanes, 4)
    vector, lane = np.arange(4)[:, None], np.arange(lanes)[None, :]
    return np.asarray(4 * block * (lane // block) + block * vector + lane % block)


@dataclass(eq=False)
class ByteDepthwise(Step):
    """``y = requantise(Σ (x - zero) · weight)``, every channel apart.

    Shapes:  x (N, H, W, C), dense · y (N, OH, OW, C), dense · weight (kh, kw, C), maybe of nine bits
             image: the padded copy of x
    """

    x: View
    y: View
    image: View
    weight: Array
    geometry: Geometry
    zero: int
    requantise: Requantise
    joined: bool
    """A vector spans several positions; else it holds channels of one alone."""
    READS = ("x",)

    @property
    def is_copied(self) -> bool:
        """True where the image is not x itself."""
        return self.image.tensor is not self.x.tensor

    def writes(self) -> Iterator[View]:
        """y, and the image where there is one of its own."""
        yield self.y
        if self.is_copied:
            yield self.image

    @staticmethod
    def of(
        low: Lowering, x: View, y: View, weight: Array, geometry: Geometry, zero: int, requantise: Requantise
    ) -> ByteDepthwise:
        """The step with its image: x itself where a vector holds one position, whose borders are constants then."""
        wide, (kh, kw, channels) = 4 * low.lanes, weight.shape
        joined = channels < wide and channels // gcd(channels, wide) <= _MOST_PHASES
        image = View(x.tensor, x.shape, x.strides, x.offset)
        if in_words(low.isa):
            # Vectors of the last channels must not be read from beyond what the caller gave.
            whole = channels == low.lanes or channels % (2 * low.lanes) == 0
            image = image if whole or x.tensor.kind == "temporary" else low.new(x.shape, "uint8")
        elif joined:
            image = image_of(low, x, (y.shape[1], y.shape[2]), (kh, kw), geometry, apart=True)
        return ByteDepthwise(x, y, image, weight, geometry, zero, requantise, joined)

    def over(self, x: View, y: View, geometry: Geometry) -> ByteDepthwise:
        """The same layer over some rows alone."""
        image, kernel = x, (int(self.weight.shape[0]), int(self.weight.shape[1]))
        if self.is_copied and self.joined:
            shape = bordered(x, (y.shape[1], y.shape[2]), kernel, geometry, geometry.strides[1])
            image = copy_of(self.image, shape)
        elif self.is_copied:
            image = copy_of(self.image, x.shape)
        return replace(self, x=x, y=y, geometry=geometry, image=image)

    @property
    def title(self) -> str:
        """Sizes."""
        kh, kw, channels = self.weight.shape
        return f"int8 {kh}x{kw}, {channels} channels apart, {'x'.join(map(str, self.y.shape[1:3]))}"

    def macs(self) -> int:
        """Output values · taps."""
        return self.y.size * int(np.prod(self.weight.shape[:2]))

    def emit(self, out: Emitter) -> None:
        """Copies the image where there is one, then walks over tiles of rows."""
        (WordWriter if in_words(out.isa) else _Writer)(self, out).write()


def _shifted(text: str, number: int) -> str:
    return f"{text} + {number}" if number > 0 else f"{text} - {-number}" if number else text


@dataclass
class _Writer:
    step: ByteDepthwise
    out: Emitter

    @cached_property
    def unsigned(self) -> bool:
        return self.out.isa.arch != "aarch64"

    @cached_property
    def wide(self) -> int:
        """Bytes of a vector."""
        return 4 * self.out.lanes

    @cached_property
    def flipped(self) -> bool:
        """True where bytes are moved by 128 as they are loaded: an image has them as they should be."""
        return not self.step.is_copied and flips(self.step.x.dtype, unsigned=self.unsigned)

    @cached_property
    def phases(self) -> int:
        """Vectors after which the weights repeat: along positions where they are joined, else along channels."""
        channels = int(self.step.weight.shape[2])
        return channels // gcd(channels, self.wide) if self.step.joined else -(-channels // self.wide)

    @cached_property
    def groups(self) -> int:
        """Steps of four taps in a row of the window."""
        return -(-int(self.step.weight.shape[1]) // 4)

    @cached_property
    def weights(self) -> Array:
        """Rows of the window one below the other, once for every part that their weights are the sum of."""
        return np.concatenate(int8_parts(self.step.weight))

    @cached_property
    def rows(self) -> int:
        """Rows of outputs in a tile: what was brought together serves them all."""
        height, kh = self.step.y.shape[1], len(self.weights)

        def cost(rows: int) -> int:
            each = ((height // rows, rows), (1, height % rows))
            work = [
                (n, len(self._under(size)) * 8 * self.groups, size * (4 * kh * self.groups + 16)) for n, size in each
            ]
            return sum(n * (gathered + summed) for n, gathered, summed in work)

        most = max(1, (self.out.isa.registers - 10) // 4)
        fits = [r for r in range(1, min(most, height) + 1) if r * kh * self.groups * 4 <= _LONGEST] or [1]
        return min(fits, key=cost)

    def _under(self, rows: int) -> Mapping[int, list[tuple[int, int]]]:
        """Rows of the input under ``rows`` of outputs: offset → (row of outputs, row of the window)."""
        stride, dilation = self.step.geometry.strides[0], self.step.geometry.dilations[0]
        found: dict[int, list[tuple[int, int]]] = {}
        for i in range(rows):
            for k in range(len(self.weights)):
                below = k % self.step.weight.shape[0]
                found.setdefault(i * stride + below * dilation, []).append((i, k))
        return dict(sorted(found.items()))

    def write(self) -> None:
        step, out = self.step, self.out
        out.need("v_loadi", "v_loadb", "v_quads", "v_dot4", "v_storeb", "unroll")
        zero = stored(step.zero, step.x.dtype, unsigned=self.unsigned)
        taps = step.weight.astype(np.int64).sum(axis=(0, 1))
        most = np.abs(step.weight.astype(np.int64)).sum(axis=(0, 1)) * 255
        rounding = Rounding(out, step.requantise, step.y.dtype, most)
        signature = [
            *([] if step.is_copied else [("const uint8_t *restrict x", f"(const uint8_t *)({out.pointer(step.x)})")]),
            ("const int8_t *restrict w", out.constant(self._pack())),
            ("const int32_t *restrict b", out.constant(self._lanes((-zero * taps).astype(np.int32)))),
            ("const float *restrict f", out.constant(self._lanes(step.requantise.factor))),
            ("const float *restrict o", out.constant(self._lanes(step.requantise.offset))),
            ("uint8_t *restrict y", f"(uint8_t *)({out.pointer(step.y)})"),
        ]
        if self._clipped():
            border = np.full(step.x.shape[2] * step.x.shape[3] + self.wide, step.zero & 0xFF, np.uint8)
            signature.append(("const uint8_t *restrict border", out.constant(border)))
        batch, height = step.y.shape[:2]
        split = out.splits(step.macs())
        lines = [] if split and step.is_copied else ["(void)flags;"] if split else []
        if step.is_copied:
            piece = by_all_parts(step.image) if split else None
            pads, phases = step.geometry.pads, step.geometry.strides[1]
            given, copying = copy_image(
                out, step.x, step.image, pads, fill=str(zero & 0xFF), phases=phases, piece=piece
            )
            signature = [*given, *signature]
            lines += [*copying, *MET[:split], "const uint8_t *x = image;"]
        tiles, left = height // self.rows, height % self.rows
        for count, size, first in ((tiles, self.rows, 0), (1, left, tiles * self.rows)):
            if count and size:
                lines += self._tiles((batch, count, size, first), rounding, split=split)
        out.function("bytedepthwise", step.title, signature, "\n".join(f"    {s}" for s in lines), split=split)

    def _clipped(self) -> bool:
        """True where taps are tested for being within x."""
        step = self.step
        (kh, kw, _), sizes = step.weight.shape, (step.y.shape[1], step.y.shape[2])
        reach = step.geometry.reach(sizes, (kh, kw))
        inside = all(n <= have for n, have in zip(reach, step.x.shape[1:3], strict=True))
        return not step.joined and not (inside and step.geometry.pads == (0, 0))

    def _tiles(self, what: tuple[int, int, int, int], rounding: Rounding, *, split: bool) -> Iterator[str]:
        """All tiles of ``size`` rows from row ``first`` of every image."""
        step, (batch, count, size, first) = self.step, what
        total = batch * count
        low, high = (f"{total} * part / parts", f"{total} * (part + 1) / parts") if split else ("0", str(total))
        yield f"for (int t = {low}; t < {high}; t++) {{"
        start = f"t % {count}" if batch > 1 else "t"
        place = _shifted(f"{start} * {size}", first) if count > 1 else str(first)
        yield f"    const int {f'n = t / {count}, ' if batch > 1 else ''}row = {place};"
        height, (_, rows, columns, channels) = step.x.shape[1], step.image.shape
        stride, pad = step.geometry.strides[0], 0 if step.joined else step.geometry.pads[0]
        for at in self._under(size):
            inner = _shifted("row" if stride == 1 else f"row * {stride}", at - pad)
            found = f"x + ({f'n * {rows} + ' if batch > 1 else ''}{inner}) * {columns * channels}"
            if self._clipped():
                found = f"(unsigned)({inner}) < {height} ? {found} : border"
            yield f"    const uint8_t *r{at} = {found};"
        yield from (f"    {line}" for line in self._vectors(size, rounding))
        yield "}"

    def _vectors(self, size: int, rounding: Rounding) -> Iterator[str]:
        """Every vector along the rows."""
        step, wide = self.step, self.wide
        batch, height, width, channels = step.y.shape
        line = width * channels
        unit = len(self.weights) * self.groups * wide * 4
        if step.joined:
            count = -(-line // wide)
            yield f"for (int v = 0; v < {count}; v++) {{"
            phase, at, left = f"v % {self.phases}", f"v * {wide}", f"{line} - v * {wide}"
            whole = line % wide == 0
        else:
            yield f"for (int c = 0; c < {channels}; c += {wide})"
            yield f"for (int q = 0; q < {width}; q++) {{"
            phase, at, left = f"c / {wide}", f"q * {channels} + c", f"{channels} - c"
            whole = channels % wide == 0
        if self.phases > 1:
            yield f"    const int phase = {phase}, from = phase * {wide}; /* where its channels' constants begin */"
        yield f"    const int8_t *wv = w{f' + phase * {unit}' if self.phases > 1 else ''};"
        base = "from + " if self.phases > 1 else ""
        yield f"    vi a[{4 * size}];"
        yield f"    UNROLL for (int i = 0; i < {4 * size}; i++) a[i] = v_loadi(b + {base}i % 4 * VL);"
        for group in range(self.groups):
            yield from (f"    {s}" for s in self._taps(group))
            for row, pairs in self._under(size).items():
                yield from (f"    {s}" for s in self._dots(group, row, pairs))
        found = rounding.four([f"a[i + {j}]" for j in range(4)], [f"{base}{j} * VL" for j in range(4)], in_line=False)
        yield f"    UNROLL for (int i = 0; i < {4 * size}; i += 4) {{"
        yield f"        uint8_t *to = y + ({f'n * {height} + ' if batch > 1 else ''}row + i / 4) * {line} + {at};"
        yield f"        const vb r = {found};"
        if whole:
            yield "        v_storeb(to, r);"
        else:
            self.out.need("v_storeb_n")
            yield f"        const int left = {left};"
            yield f"        if (left < {wide}) v_storeb_n(to, r, left);"
            yield "        else v_storeb(to, r);"
        yield "    }"
        yield "}"

    def _columns(self, group: int) -> list[int]:
        """The taps of one step; the last again where there are fewer than four."""
        last = self.step.weight.shape[1] - 1
        return [min(4 * group + i, last) for i in range(4)]

    def _taps(self, group: int) -> Iterator[str]:
        """Where each tap's bytes start within a row, and whether it lies within x."""
        step, taps = self.step, list(dict.fromkeys(self._columns(group)))
        stride, dilation, pad = step.geometry.strides[1], step.geometry.dilations[1], step.geometry.pads[1]
        channels = step.image.shape[3]
        for k in () if step.joined else taps:
            column = _shifted("q" if stride == 1 else f"q * {stride}", k * dilation - pad)
            yield f"const int k{k} = ({column}) * {channels} + c;"
            if self._clipped():
                yield f"const int in{k} = (unsigned)({column}) < {step.x.shape[2]};"

    def _dots(self, group: int, row: int, pairs: list[tuple[int, int]]) -> Iterator[str]:
        """One row of the input: its bytes brought together, met by every row of the window that lies over it."""
        step, columns = self.step, self._columns(group)
        stride, dilation = step.geometry.strides[1], step.geometry.dilations[1]
        channels, plane = step.image.shape[3], step.image.shape[2] // stride * step.image.shape[3]
        yield "{"
        for k in dict.fromkeys(columns):
            if step.joined:
                offset = k * dilation % stride * plane + k * dilation // stride * channels
                place = _shifted(f"r{row} + v * {self.wide}", offset)
            else:
                place = f"in{k} ? r{row} + k{k} : border + c" if self._clipped() else f"r{row} + k{k}"
            value = f"v_loadb({place})" if step.joined else loaded(self.out, step.x, f"({place})", flip=self.flipped)
            yield f"    const vb x{k} = {value};"
        yield "    vi four[4];"
        yield f"    v_quads({', '.join(f'x{k}' for k in columns)}, four);"
        for i, k in pairs:
            first, acc = (k * self.groups + group) * 4, f"a[{4 * i} + j]"
            given = f"v_loadi((const int32_t *)wv + ({first} + j) * VL)"
            yield f"    UNROLL for (int j = 0; j < 4; j++) {acc} = v_dot4({acc}, four[j], {given});"
        yield "}"

    def _order(self) -> Array:
        """The channel of every lane.

        Shapes:  returns (phases, 4, lanes)
        """
        place = np.arange(self.phases)[:, None, None] * self.wide + lane_order(self.out.lanes)
        channels = self.step.weight.shape[2]
        return np.asarray(place % channels if self.step.joined else place)

    def _lanes(self, values: Array) -> Array:
        """One value a channel, in the order of the lanes; zero where channels run out."""
        order = self._order()
        done = np.zeros(max(int(order.max()) + 1, len(values)), values.dtype)
        done[: len(values)] = values
        return done[order]

    def _pack(self) -> Array:
        """``[phase][row of the window][group][vector][lane][4]``."""
        order, (kh, kw, channels) = self._order(), self.weights.shape
        done = np.zeros((kh, self.groups * 4, max(int(order.max()) + 1, channels)), np.int8)
        done[:, :kw, :channels] = self.weights
        split = done.reshape(kh, self.groups, 4, -1)[..., order]  # kh, groups, 4, phases, vector, lane
        return np.ascontiguousarray(split.transpose(3, 0, 1, 4, 5, 2))
