"""Convolutions of int8 weights with whole numbers of 16 bits: two multiplications where float32 has one.

A chunk of the input, one for each thread, is rounded once, into an image with borders: whole numbers times its largest
magnitude. Each row of a window is then one run of neighbouring numbers, taken two at a time; sums are 32 bits wide and
exact. The weights' scales and the bias are part of the epilogue.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from hasten.native.epilogue import Finished
from hasten.native.expr import ACC, Expr
from hasten.native.kernels.byte_image import Geometry
from hasten.native.kernels.dense import Panel, panels
from hasten.native.kernels.spatial import Window
from hasten.native.kernels.word_product import LARGEST, UNIT_C
from hasten.native.program import Tensor, View
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.kernels.conv import Conv

__all__ = ["WordConv", "largest_word", "word_conv"]

_ROOM, _WIDEST, _LONGEST = 24, 4, 12  # vectors of sums that registers hold, of one position, and positions of a tile
_SPARE = 128  # numbers that may be read or written behind an image, and what puts the next on a line of its own
_LEAST_WORD = 1 << 13  # numbers of fewer bits would lose too much


@dataclass(frozen=True)
class _Chunk:
    """Output rows and columns that one thread computes, and what it reads for them: half-open."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    read_rows: tuple[int, int]
    read_columns: tuple[int, int]
    image: tuple[int, int]
    """Rows and columns of the image, with its borders."""
    corner: tuple[int, int]
    """Where in the image the first number that is read belongs."""


@dataclass(eq=False)
class WordConv(Finished):
    """``y = epilogue(Σ x · weight · UNIT)``, a chunk of x as whole numbers up to ``largest`` times a scale of its own.

    Shapes:  x (N, C, spatial…), y (N, M, spatial…), dense, channels last in memory · weight (M, C, kernel…) int8
             image: room for the rounded chunks of ``parts`` threads
    """

    x: View
    y: View
    weight: Array
    window: Window
    largest: int
    parts: int
    image: View
    epilogue: Expr = ACC
    READS = ("x", "operands")
    WRITES = ("y", "image")

    @property
    def _row_length(self) -> int:
        return int(self.weight.shape[0])

    @property
    def kernel(self) -> str:
        """words."""
        return "words"

    @property
    def title(self) -> str:
        """Sizes and epilogue."""
        sizes = "x".join(map(str, self.y.shape[2:]))
        channels = f"{self.weight.shape[1]} -> {self.weight.shape[0]}"
        return f"{self.window.text}, {channels}, {sizes}, int8 weights, int16 inputs{self._epilogue.title}"

    def macs(self) -> int:
        """Output positions · taps · input channels."""
        return self.y.size * int(np.prod(self.weight.shape[1:]))

    def emit(self, out: Emitter) -> None:
        """Rounds each chunk, then walks over tiles of positions and panels of channels."""
        with out.vectors(out.isa.widths(len(self.weight))[0].lanes):
            _Writer(self, out).write()


def largest_word(weight: Array) -> int:
    """The largest whole number that activations may be, so that no sum leaves 32 bits; 0 where too few bits are left.

    Shapes:  weight (M, C, kernel…) int8
    """
    most = int(np.abs(weight.astype(np.int64)).reshape(len(weight), -1).sum(axis=1).max(initial=1))
    found = min(LARGEST, (2**31 - 1) // max(1, most))
    return found if found >= _LEAST_WORD else 0


def word_conv(conv: Conv, weight: Array, epilogue: Expr, parts: int) -> WordConv:
    """The step with room for its images, of a ``conv`` in one group.

    Shapes:  weight (M, C, kernel…) int8; its ``largest_word`` is not 0
    """
    x, y = conv.x, conv.y
    step = WordConv(x, y, weight, conv.window, largest_word(weight), parts, y, epilogue, nodes=conv.nodes)
    # Of little work one thread does all; strides longer than the kernel make one image larger than its halves.
    each, whole = (max(prod(chunk.image) for chunk in _chunks(step, n)) for n in (parts, 1))
    size = max(parts * each, whole) * x.shape[1] + parts * _SPARE
    step.image = View.whole(Tensor("words", size, "int16"), (size,))
    return step


def _chunks(step: WordConv, parts: int) -> list[_Chunk]:
    """As many as there are ``parts``, of whole rows, or of columns where rows are few."""
    height, width = _sizes(step.x)
    rows, columns = _sizes(step.y)
    g, (kh, kw) = Geometry.of(step.window), _kernel(step)
    by_row = rows >= 2 * parts
    found = []
    for p in range(parts):
        r = (rows * p // parts, rows * (p + 1) // parts) if by_row else (0, rows)
        c = (0, columns) if by_row else (columns * p // parts, columns * (p + 1) // parts)
        if r[0] == r[1] or c[0] == c[1]:
            continue
        image = g.reach((r[1] - r[0], c[1] - c[0]), (kh, kw))
        first = r[0] * g.strides[0] - g.pads[0], c[0] * g.strides[1] - g.pads[1]
        reads = [
            (min(max(0, a), n), max(0, min(n, a + count)))
            for a, count, n in zip(first, image, (height, width), strict=True)
        ]
        corner = reads[0][0] - first[0], reads[1][0] - first[1]
        found.append(_Chunk(r, c, reads[0], reads[1], image, corner))
    return found


def _sizes(view: View) -> tuple[int, int]:
    """Height and width; a line is an image one row high."""
    height, width = (1, *view.shape[2:])[-2:]
    return height, width


def _kernel(step: WordConv) -> tuple[int, int]:
    kh, kw = (1, *step.weight.shape[2:])[-2:]
    return kh, kw


class _Writer:
    def __init__(self, step: WordConv, out: Emitter) -> None:
        self.step, self.out = step, out
        self.batch, self.channels = step.x.shape[:2]
        self.count = len(step.weight)
        self.geometry, (kh, kw) = Geometry.of(step.window), _kernel(step)
        # Neighbouring columns lie side by side unless the window is dilated.
        dilated = self.geometry.dilations[1] != 1
        self.kw, self.taps = kw, kh * kw if dilated else kh
        self.length = self.channels if dilated else kw * self.channels
        self.steps = -(-self.length // 2)
        many = out.isa.registers == 32
        self.room = _ROOM if many else _ROOM // 2
        self.runs = panels(self.count, out.lanes, _WIDEST if many else _WIDEST // 2)

    def write(self) -> None:
        step, out = self.step, self.out
        out.need("v_largest", "v_store_words", "v_load", "v_load_n", "v_set1", "v_set1i", "v_tofloat", "unroll")
        out.need("v_load_pairs", "v_dup2", "v_dot2")
        signature = [
            ("const float *x", out.pointer(step.x)),
            ("int16_t *restrict image", out.pointer(step.image)),
            ("const int8_t *restrict w", out.constant(self._packed())),
            ("const int8_t *restrict plain", out.constant(self._plain())),
            ("float *restrict y", out.pointer(step.y)),
            *step._epilogue.signature(out),
        ]
        split = out.splits(step.macs())
        chunks = _chunks(step, step.parts if split else 1)
        lines: list[str] = []
        room = step.image.size // len(chunks) // 64 * 64
        for p, chunk in enumerate(chunks):
            if len(chunks) > 1:
                lines.append(f"if (part == {p} * parts / {len(chunks)}) {{")
            lines.append(f"for (int n = 0; n < {self.batch}; n++) {{")
            lines += (f"    {line}" for line in self._chunk(chunk, p * room))
            lines.append("}")
            if len(chunks) > 1:
                lines.append("}")
        if split:
            lines.append("(void)flags, (void)part, (void)parts;")
        out.function(step.kernel, step.title, signature, "\n".join(f"    {ln}" for ln in lines), split=split)

    def _chunk(self, chunk: _Chunk, place: int) -> Iterator[str]:
        (height, width), channels = _sizes(self.step.x), self.channels
        (h0, h1), (w0, w1) = chunk.read_rows, chunk.read_columns
        rows, line = h1 - h0, (w1 - w0) * channels
        yield f"const float *all = x + n * {height * width * channels}, *from = all + {(h0 * width + w0) * channels};"
        given = (1, rows * line) if (w0, w1) == (0, width) else (rows, line)
        yield f"const float most = v_largest(from, {width * channels}, {given[1]}, {given[0]});"
        yield "if (__builtin_expect(!(most < __builtin_inff()), 0)) { /* only float32 knows what these reach */"
        yield from (f"    {line}" for line in self._exact(chunk))
        yield "    continue;"
        yield "}"
        yield "const float divisor = most > 0x1p-111f ? most : 0x1p-111f;"
        yield f"const vf to_words = v_set1({self.step.largest}.0f / divisor);"
        yield f"const vf scale = v_set1(divisor / {self.step.largest}.0f);"
        yield f"int16_t *words = image{f' + {place}' if place else ''};"
        full = chunk.image[1] * channels
        if (rows, w1 - w0) != chunk.image:
            yield f"__builtin_memset(words, 0, {chunk.image[0] * full * 2});"
        yield f"for (int h = 0; h < {rows}; h++) {{"
        yield f"    int16_t *to = words + (h + {chunk.corner[0]}) * {full} + {chunk.corner[1] * channels};"
        yield f"    const float *row = from + h * {width * channels};"
        yield from (f"    {text}" for text in self._rounded(line))
        yield "}"
        yield from self._tiles(chunk, full)

    def _rounded(self, line: int) -> Iterator[str]:
        """One row; the zeros stored behind it are a border, the next row's place, or room to spare."""
        whole, rest = line // self.out.lanes * self.out.lanes, line % self.out.lanes
        if whole:
            yield f"for (int i = 0; i < {whole}; i += VL) v_store_words(to + i, v_load(row + i) * to_words);"
        if rest:
            at = f" + {whole}" if whole else ""
            yield f"v_store_words(to{at}, v_load_n(row{at}, {rest}) * to_words);"

    def _tiles(self, chunk: _Chunk, full: int) -> Iterator[str]:
        (r0, r1), (c0, c1) = chunk.rows, chunk.columns
        (sh, sw), total = self.geometry.strides, _sizes(self.step.y)
        done = 0
        for run in self.runs:
            tile = max(1, min(self.room // run.width, c1 - c0, _LONGEST))
            tile = -(-(c1 - c0) // -(-(c1 - c0) // tile))
            size = self.taps * self.steps * run.width * self.out.lanes * 2
            yield f"for (int i = 0; i < {run.count}; i++) {{"
            yield f"    const int p = {run.start} + i * {run.width * self.out.lanes};"
            yield f"    const int8_t *restrict b = w + {done} + (long)i * {size};"
            yield f"    for (int r = {r0}; r < {r1}; r++) {{"
            yield f"        const int16_t *line = words + (r - {r0}) * {sh * full};"
            left = (c1 - c0) % tile
            place = f"(n * {total[0]} + r) * {total[1]}"
            yield f"        for (int c = {c0}; c < {c1 - left}; c += {tile}) {{"
            at = f"line + (c - {c0}) * {sw * self.channels}"
            yield from (f"            {text}" for text in self._tile(run, tile, at, f"({place} + c)", full))
            yield "        }"
            if left:
                yield "        {"
                at = f"line + {(c1 - c0 - left) * sw * self.channels}"
                where = f"({place} + {c1 - left})"
                yield from (f"            {text}" for text in self._tile(run, left, at, where, full))
                yield "        }"
            yield "    }"
            yield "}"
            done += size * run.count

    def _tile(self, run: Panel, tile: int, at: str, place: str, full: int) -> Iterator[str]:
        """``tile`` neighbouring positions, the first one's window at ``at``."""
        width, pair, (dh, dw) = run.width, 2 * self.out.lanes, self.geometry.dilations
        move = self.geometry.strides[1] * self.channels
        yield f"const int16_t *at = {at};"
        yield "const int8_t *restrict wk = b;"
        yield f"vi a[{tile * width}];"
        yield f"UNROLL for (int j = 0; j < {tile * width}; j++) a[j] = v_set1i(0);"
        offset = f"t * {dh * full}"
        if self.geometry.dilations[1] != 1:
            offset = f"t / {self.kw} * {dh * full} + t % {self.kw} * {dw * self.channels}"
        yield f"for (int t = 0; t < {self.taps}; t++) {{"
        yield f"    const int16_t *q = at + {offset};"
        yield f"    for (int k = 0; k < {self.steps}; k++, wk += {width * pair}) {{"
        yield f"        vi v[{width}];"
        yield f"        UNROLL for (int j = 0; j < {width}; j++) v[j] = v_load_pairs(wk + j * {pair});"
        yield f"        UNROLL for (int m = 0; m < {tile}; m++) {{"
        yield f"            const vi two = v_dup2(q + m * {move} + 2 * k);"
        total = f"a[m * {width} + j]"
        yield f"            for (int j = 0; j < {width}; j++) {total} = v_dot2({total}, two, v[j]);"
        yield "        }"
        yield "    }"
        yield "}"
        yield f"vf s[{tile * width}];"
        yield f"UNROLL for (int j = 0; j < {tile * width}; j++) s[j] = v_tofloat(a[j]) * {UNIT_C} * scale;"
        yield from self.step._epilogue.store(self.out, "s", tile, width, run.tail, "p", row=place, indent="")

    def _exact(self, chunk: _Chunk) -> Iterator[str]:
        """The chunk in float32, one number at a time."""
        (height, width), (rows, columns) = _sizes(self.step.x), _sizes(self.step.y)
        (sh, sw), (dh, dw), (top, left) = self.geometry.strides, self.geometry.dilations, self.geometry.pads
        kh, kw = _kernel(self.step)
        room = -(-self.count // self.out.lanes) * self.out.lanes
        yield f"for (int r = {chunk.rows[0]}; r < {chunk.rows[1]}; r++)"
        yield f"    for (int c = {chunk.columns[0]}; c < {chunk.columns[1]}; c++) {{"
        yield f"        float sums[{room}];"
        yield f"        for (int j = 0; j < {room}; j++) sums[j] = 0.0f;"
        yield f"        for (int t = 0; t < {kh * kw}; t++) {{"
        yield f"            const int h = r * {sh} + t / {kw} * {dh} - {top}, v = c * {sw} + t % {kw} * {dw} - {left};"
        yield f"            if (h < 0 || h >= {height} || v < 0 || v >= {width}) continue;"
        yield f"            for (int k = 0; k < {self.channels}; k++)"
        yield f"                for (int j = 0; j < {self.count}; j++)"
        value = f"all[(h * {width} + v) * {self.channels} + k]"
        yield f"                    sums[j] += {value} * (float)plain[(t * {self.channels} + k) * {self.count} + j];"
        yield "        }"
        for run in self.runs:
            yield f"        for (int i = 0; i < {run.count}; i++) {{"
            yield f"            const int p = {run.start} + i * {run.width * self.out.lanes};"
            yield f"            vf s[{run.width}];"
            yield f"            for (int j = 0; j < {run.width}; j++) s[j] = v_load(sums + p + j * VL) * {UNIT_C};"
            row = f"((n * {rows} + r) * {columns} + c)"
            store = self.step._epilogue.store
            yield from store(self.out, "s", 1, run.width, run.tail, "p", row=row, indent=" " * 12)
            yield "        }"
        yield "    }"

    def _plain(self) -> Array:
        """``[taps][C][M]``."""
        return np.ascontiguousarray(self.step.weight.reshape(*self.step.weight.shape[:2], -1).transpose(2, 1, 0))

    def _packed(self) -> Array:
        """``[panel][run of taps][pair][vector][lane][2]``, zeros where channels or numbers run out."""
        lanes, flat = self.out.lanes, self._plain().reshape(self.taps, self.length, self.count)
        done = []
        for run in self.runs:
            for i in range(run.count):
                start = run.start + i * run.width * lanes
                block = np.zeros((self.taps, self.steps * 2, run.width * lanes), np.int8)
                part = flat[:, :, start : start + run.width * lanes]
                block[:, : self.length, : part.shape[2]] = part
                pairs = block.reshape(self.taps, self.steps, 2, run.width, lanes)
                done.append(pairs.transpose(0, 1, 3, 4, 2).reshape(-1))
        return np.concatenate(done)
