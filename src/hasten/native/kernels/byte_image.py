"""Images of bytes as the dot products read them: with borders, and of the signedness that they take.

x86 multiplies unsigned by signed bytes, Arm signed by signed ones: bytes of the other kind are moved by 128 on the way.
x86 without VNNI multiplies 16-bit numbers: there an image is widened once, and holds x without its zero point.
Columns may lie apart by their remainder, so that a window's steps of two read neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from hasten.native.kernels.spatial import Window, channels_last
from hasten.native.program import Tensor, View, contiguous_strides
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.isa import Isa
    from hasten.native.lower import Lowering

__all__ = [
    "MET",
    "Geometry",
    "Piece",
    "bordered",
    "by_all_parts",
    "copy_image",
    "copy_of",
    "copy_words",
    "flips",
    "image_of",
    "in_words",
    "int8_parts",
    "loaded",
    "pixels",
    "stored",
    "word_image",
]

MET = ("meet(flags, part, parts);",)


@dataclass(frozen=True)
class Geometry:
    """How a window slides, for height and width: strides, dilations, and padding before."""

    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int]

    @staticmethod
    def of(window: Window) -> Geometry:
        """The same for a window over lines, which are images one row high, or images."""
        lead = (1,) * (2 - len(window.kernel))
        (sh, sw), (dh, dw) = (*lead, *window.strides), (*lead, *window.dilations)
        ph, pw = (*(0 for _ in lead), *window.pads_begin)
        return Geometry((sh, sw), (dh, dw), (ph, pw))

    def reach(self, sizes: tuple[int, int], kernel: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns, borders included, that all windows together see."""
        (sh, sw), (dh, dw), (kh, kw) = self.strides, self.dilations, kernel
        return (sizes[0] - 1) * sh + (kh - 1) * dh + 1, (sizes[1] - 1) * sw + (kw - 1) * dw + 1


def flips(dtype: str, *, unsigned: bool) -> bool:
    """True where bytes of this type are moved by 128 to meet the dot product."""
    return (dtype == "uint8") != unsigned


def stored(zero: int, dtype: str, *, unsigned: bool) -> int:
    """What the dot product sees where x means zero."""
    return zero + (0 if not flips(dtype, unsigned=unsigned) else 128 if dtype == "int8" else -128)


def int8_parts(weight: Array) -> list[Array]:
    """int8 arrays whose sum the weights are: one, or more where a zero point made them wider than a byte."""
    parts: list[Array] = []
    left = weight.astype(np.int16)
    while not parts or left.any():
        parts.append(np.clip(left, -128, 127).astype(np.int8))
        left = left - parts[-1]
    return parts


def in_words(isa: Isa) -> bool:
    """True where sums of byte products go through 16-bit numbers: images and weights then are such."""
    return isa.arch == "x86_64" and "vnni" not in isa.features


def pixels(low: Lowering, x: View) -> View:
    """Lines or images, channels last and dense.

    Shapes:  x (N, C, W) or (N, C, H, W) · returns (N, H, W, C)
    """
    x = low.contiguous(x, channels_last(x.rank))
    shape = (x.shape[0], *(1,) * (4 - x.rank), *x.shape[2:], x.shape[1])
    return View(x.tensor, shape, contiguous_strides(shape), x.offset)


def loaded(out: Emitter, x: View, place: str, *, flip: bool) -> str:
    """A vector of the bytes of channels ``c`` and on at a C address; none are touched beyond what the caller gave."""
    channels, wide = x.shape[3], 4 * out.lanes
    value = f"v_loadb({place})"
    if x.tensor.kind != "temporary" and channels % wide:
        out.need("v_loadb_n")
        value = f"v_loadb_n({place}, {channels} - c < {wide} ? {channels} - c : {wide})"
    if flip:
        out.need("v_flip")
    return f"v_flip({value})" if flip else value


def bordered(
    x: View, sizes: tuple[int, int], kernel: tuple[int, int], geometry: Geometry, phases: int = 1
) -> tuple[int, ...]:
    """The shape of an image of x with its borders, its columns a multiple of ``phases``.

    Shapes:  x (N, H, W, C) · returns (N, rows, columns, C)
    """
    reach, (top, left) = geometry.reach(sizes, kernel), geometry.pads
    rows, columns = max(x.shape[1] + top, reach[0]), max(x.shape[2] + left, reach[1])
    return x.shape[0], rows, -(-columns // phases) * phases, x.shape[3]


def copy_of(image: View, shape: tuple[int, ...]) -> View:
    """Room for another image of the same kind."""
    return View.whole(Tensor(image.tensor.name, prod(shape), image.dtype), shape)


def image_of(
    low: Lowering, x: View, sizes: tuple[int, int], kernel: tuple[int, int], geometry: Geometry, *, apart: bool = False
) -> View:
    """x itself where it can be read as it lies, else room for a copy with borders.

    ``apart``: columns lie by their remainder of the stride, and whole vectors are read across them.
    Shapes:  x (N, H, W, C) · returns (N, rows, columns, C)
    """
    channels, phases = x.shape[3], geometry.strides[1] if apart else 1
    shape = bordered(x, sizes, kernel, geometry, phases)
    plain = shape == x.shape and not flips(x.dtype, unsigned=low.unsigned_bytes) and phases == 1
    # A last step of four bytes, or a vector, reads past the end: there must be bytes behind it.
    if plain and (x.tensor.kind == "temporary" or (channels % 4 == 0 and not apart)):
        return View(x.tensor, x.shape, x.strides, x.offset)
    return low.new(shape, "uint8")


def word_image(low: Lowering, x: View, sizes: tuple[int, int], kernel: tuple[int, int], geometry: Geometry) -> View:
    """Room for a copy with borders in 16-bit numbers.

    Shapes:  x (N, H, W, C) · returns (N, rows, columns, C)
    """
    return low.new(bordered(x, sizes, kernel, geometry), "int16")


@dataclass(frozen=True)
class Piece:
    """What of an image is filled, in C, half-open: rows of all images below each other, or columns of one alone."""

    image: str
    first: str
    last: str
    columns: bool = False


def copy_words(
    out: Emitter, x: View, image: View, pads: tuple[int, int], *, zero: str, piece: Piece | None = None
) -> tuple[list[tuple[str, str]], list[str]]:
    """The like of ``copy_image`` for an image of 16-bit numbers: x less ``zero``, in C, and zeros as borders."""
    signature = [
        ("int16_t *restrict image", out.pointer(image)),
        (f"const {x.dtype}_t *restrict from", out.pointer(x)),
    ]
    value = "from[i]" if zero == "0" else f"(int16_t)(from[i] - {zero})"
    return signature, list(_Copy(x, image, pads, "0", value).lines(piece or whole(image)))


def copy_image(
    out: Emitter, x: View, image: View, pads: tuple[int, int], *, fill: str, phases: int = 1, piece: Piece | None = None
) -> tuple[list[tuple[str, str]], list[str]]:
    """Parameters ``image`` and ``from``, and the statements that copy x into its image, or a ``piece`` of it.

    ``fill``: what the borders hold, in C.
    """
    value = "(uint8_t)(from[i] ^ 0x80)" if flips(x.dtype, unsigned=out.isa.arch != "aarch64") else "from[i]"
    signature = [
        ("uint8_t *restrict image", out.pointer(image)),
        ("const uint8_t *restrict from", f"(const uint8_t *)({out.pointer(x)})"),
    ]
    return signature, list(_Copy(x, image, pads, fill, value, phases).lines(piece or whole(image)))


def whole(image: View) -> Piece:
    """All rows of an image."""
    return Piece("image", "0", str(image.shape[0] * image.shape[1]))


def by_all_parts(image: View) -> Piece:
    """Rows of an image, shared out to a team; all of them are there when its parts have met."""
    rows = image.shape[0] * image.shape[1]
    return Piece("image", f"{rows} * part / parts", f"{rows} * (part + 1) / parts")


@dataclass(frozen=True)
class _Copy:
    """Writes the C that fills an image from ``from``; ``value``: C of number ``i``."""

    x: View
    image: View
    pads: tuple[int, int]
    fill: str
    value: str
    phases: int = 1

    def lines(self, piece: Piece) -> Iterator[str]:
        (batch, height, width, channels), (_, rows, columns, _) = self.x.shape, self.image.shape
        (top, left), full = self.pads, columns * channels
        if piece.columns:
            yield from self._columns(piece)
        elif (height, width) == (rows, columns) and self.phases == 1:
            bounds = f"long i = {_times(piece.first, full)}; i < {_times(piece.last, full)}; i++"
            yield f"for ({bounds}) {piece.image}[i] = {self.value};"
        else:
            yield f"for (int g = {piece.first}; g < {piece.last}; g++) {{"
            h = f"g % {rows}" if batch > 1 else "g"
            yield f"    const int h = {h}{f' - {top}' if top else ''};"
            yield f"    {self.image.dtype}_t *to = {piece.image} + g * {full};"
            if height != rows:
                yield f"    if ((unsigned)h >= {height}) {{"
                yield f"        {self._filled('to', str(full))}"
                yield "        continue;"
                yield "    }"
            row = f"(g / {rows} * {height} + h)" if batch > 1 else "h"
            yield f"    const {_held(self.x, self.image)} *line = from + {row} * {width * channels};"
            yield from (f"    {line}" for line in (self._apart() if self.phases > 1 else self._row(left)))
            yield "}"

    def _row(self, left: int) -> Iterator[str]:
        """One row with its borders."""
        (*_, width, channels), columns = self.x.shape, self.image.shape[2]
        before, line, behind = left * channels, width * channels, (columns - left - width) * channels
        if before:
            yield self._filled("to", str(before))
        yield f"for (int i = 0; i < {line}; i++) to[{f'{before} + ' if before else ''}i] = {self._of('line')};"
        if behind:
            yield self._filled(f"to + {before + line}", str(behind))

    def _apart(self) -> Iterator[str]:
        """One row, columns of equal remainder beside each other."""
        (*_, width, channels), columns, left = self.x.shape, self.image.shape[2], self.pads[1]
        if width != columns:
            yield self._filled("to", str(columns * channels))
        at = f"(w + {left})" if left else "w"
        yield f"for (int w = 0; w < {width}; w++, line += {channels}) {{"
        place = f"{at} % {self.phases} * {columns // self.phases * channels} + {at} / {self.phases} * {channels}"
        yield f"    {self.image.dtype}_t *there = to + {place};"
        yield f"    for (int i = 0; i < {channels}; i++) there[i] = {self._of('line')};"
        yield "}"

    def _columns(self, piece: Piece) -> Iterator[str]:
        """Columns of the one row that there is."""
        (*_, width, channels), columns, left = self.x.shape, self.image.shape[2], self.pads[1]
        end = left + width
        yield f"const int first = {piece.first}, last = {piece.last};"
        if left:
            yield f"if (first < {left})"
            count = f"((last < {left} ? last : {left}) - first) * {channels}"
            yield f"    {self._filled(f'{piece.image} + first * {channels}', count)}"
        low = f"(first > {left} ? first : {left})" if left else "first"
        high = f"(last < {end} ? last : {end})" if end < columns else "last"
        shifted = self.value.replace("from[i]", f"from[i - {left * channels}]") if left else self.value
        yield f"for (int i = {low} * {channels}; i < {high} * {channels}; i++) {piece.image}[i] = {shifted};"
        if end < columns:
            yield f"if (last > {end}) {{"
            yield f"    const int start = first > {end} ? first : {end};"
            yield f"    {self._filled(f'{piece.image} + start * {channels}', f'(last - start) * {channels}')}"
            yield "}"

    def _of(self, name: str) -> str:
        return self.value.replace("from[i]", f"{name}[i]")

    def _filled(self, place: str, count: str) -> str:
        size = np.dtype(self.image.dtype).itemsize
        return f"__builtin_memset({place}, {self.fill}, {_times(count, size)});"


def _held(x: View, image: View) -> str:
    """The C type of the numbers of x that an image is filled from."""
    return f"{x.dtype}_t" if image.dtype == "int16" else "uint8_t"


def _times(count: str, size: int) -> str:
    if count.isdigit():
        return str(int(count) * size)
    return count if size == 1 else f"({count}) * {size}"
