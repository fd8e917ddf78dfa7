"""Convolutions and matrix products of bytes into 32-bit sums, one scale a channel, rounded back to bytes.

An input with borders, or of the signedness that the dot product does not take, is copied once into a padded image.
Each row of a window is then one run of neighbouring bytes, taken four at a time: four bytes go to all lanes, meet
``[vector][lane][4]`` weights, and a tile of output positions × vectors of channels stays in registers. Where there is
no dot product of bytes, the image is of 16-bit numbers, taken two at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from hasten.native.kernels.byte_image import (
    MET,
    Geometry,
    Piece,
    bordered,
    by_all_parts,
    copy_image,
    copy_of,
    copy_words,
    image_of,
    in_words,
    int8_parts,
    stored,
    word_image,
)
from hasten.native.kernels.byte_tile import TileStore
from hasten.native.kernels.requantise import Requantise, Rounding
from hasten.native.program import Step, Tensor, View
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.isa import Isa
    from hasten.native.lower import Lowering

__all__ = ["ByteConv"]

_SPARE = 128  # numbers between the images of two threads: steps read a little behind the end, and lines are apart


@dataclass(eq=False)
class ByteConv(Step):
    """``y = requantise(Σ (x - zero) · weight)``; without ``requantise`` y holds the int32 sums.

    Shapes:  x (N, H, W, C) · y (N, OH, OW, M), dense · weight (kh, kw, C, M), maybe of nine bits
             image: the padded copy of x
    """

    x: View
    y: View
    image: View
    weight: Array
    geometry: Geometry
    zero: int
    requantise: Requantise | None
    late: View | None = None
    """A scalar of x's type to be added to ``zero``: known at run time only."""
    images: int = 1
    """Pieces that the image is in, one for each thread of a team: neighbours have in common what both need."""
    READS = ("x", "late")

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
        low: Lowering,
        x: View,
        y: View,
        weight: Array,
        geometry: Geometry,
        zero: int | View,
        requantise: Requantise | None,
    ) -> ByteConv:
        """The step with room for its padded image; ``zero``: a number, or where it lies at run time."""
        batch, height, width, channels = x.shape
        kernel, sizes = (weight.shape[0], weight.shape[1]), (y.shape[1], y.shape[2])
        plain = (kernel, geometry.strides, geometry.pads) == ((1, 1), (1, 1), (0, 0)) and sizes == (height, width)
        if plain:
            # A 1x1 convolution does not know rows: one long row tiles better.
            positions = batch * height * width
            x = View(x.tensor, (1, 1, positions, channels), (0, 0, channels, 1), x.offset)
            y = View(y.tensor, (1, 1, positions, y.shape[3]), (0, 0, y.shape[3], 1), y.offset)
            sizes = (1, positions)
        image = (word_image if in_words(low.isa) else image_of)(low, x, sizes, kernel, geometry)
        known, late = (zero, None) if isinstance(zero, int) else (0, zero)
        return ByteConv(x, y, image, weight, geometry, known, requantise, late)

    @property
    def title(self) -> str:
        """Sizes."""
        kh, kw, channels, count = self.weight.shape
        size = "x".join(map(str, self.y.shape[1:3]))
        return f"int8 {kh}x{kw}, {channels} -> {count}, {size}"

    def shared(self, isa: Isa, threads: int) -> Step:
        """With an image for each thread: none then waits for what another one copies."""
        batch, rows, *_ = self.y.shape
        alone = batch * self.image.shape[1] == 1
        if not self.is_copied or (batch * rows < 2 * threads and not alone):
            return self
        size = self.image.size + (threads - 1) * self.apart
        tensor = Tensor(self.image.tensor.name, size, self.image.dtype)
        return replace(self, image=View(tensor, self.image.shape, self.image.strides), images=threads)

    def over(self, x: View, y: View, geometry: Geometry) -> ByteConv:
        """The same layer over some rows alone."""
        image = x
        if self.is_copied:
            kernel = int(self.weight.shape[0]), int(self.weight.shape[1])
            image = copy_of(self.image, bordered(x, (y.shape[1], y.shape[2]), kernel, geometry))
        return replace(self, x=x, y=y, geometry=geometry, image=image, images=1)

    @property
    def apart(self) -> int:
        """How much further apart than in one image neighbouring pieces lie."""
        g, (*_, columns, channels) = self.geometry, self.image.shape
        kh, kw = map(int, self.weight.shape[:2])
        if self.image.shape[0] * self.image.shape[1] == 1:
            return max(0, (kw - 1) * g.dilations[1] + 1 - g.strides[1]) * channels + _SPARE
        return max(0, (kh - 1) * g.dilations[0] + 1 - g.strides[0]) * columns * channels + _SPARE

    def macs(self) -> int:
        """N · OH · OW · kh · kw · C · M."""
        return int(np.prod(self.y.shape[:3])) * int(np.prod(self.weight.shape))

    def emit(self, out: Emitter) -> None:
        """Copies the image, then walks over tiles of positions and panels of channels."""
        with out.vectors(out.isa.widths(self.weight.shape[3])[0].lanes):
            _Writer(self, out).write()


@dataclass
class _Writer:
    step: ByteConv
    out: Emitter

    def __post_init__(self) -> None:
        step, lanes = self.step, self.out.lanes
        kh, kw, channels, count = step.weight.shape
        dilated = step.geometry.dilations[1] != 1
        # Steps of four bytes or two words: neighbouring columns lie side by side unless the window is dilated.
        self.words = in_words(self.out.isa)
        self.weights = [step.weight.astype(np.int16)] if self.words else int8_parts(step.weight)
        self.once = kh * kw if dilated else kh
        self.runs = self.once * len(self.weights)
        self.length = channels if dilated else kw * channels
        self.taken, self.image, self.kind = (2, "int16_t", "int16_t") if self.words else (4, "uint8_t", "int8_t")
        self.steps = -(-self.length // self.taken)
        vectors, (room, widest) = -(-count // lanes), self._room()
        panels = -(-vectors // widest)
        self.width = -(-vectors // panels)
        self.panels = -(-vectors // self.width)
        self.tile = max(1, min(room // self.width, step.y.shape[2], 12))
        self.tile = -(-step.y.shape[2] // -(-step.y.shape[2] // self.tile))
        rounding = None
        if step.requantise is not None:
            most = np.abs(step.weight.astype(np.int64)).sum(axis=(0, 1, 2)) * 255
            rounding = Rounding(self.out, step.requantise, step.y.dtype, most)
        self.store = TileStore(self.out, rounding, self.width, self.panels, step.y.shape[2], count)

    def _room(self) -> tuple[int, int]:
        """Vectors of sums that registers hold, and the most of one position."""
        if self.out.isa.registers == 32:
            return 24, 4
        return (12, 2) if self.words else (8, 4)

    def write(self) -> None:
        step, out = self.step, self.out
        out.need("v_loadi", f"v_dup{self.taken}", f"v_dot{self.taken}", "unroll")
        padded = self.panels * self.width * out.lanes
        split = out.splits(step.macs())
        signature = [(f"const {self.kind} *restrict w", out.constant(self._pack())), *self._starts(padded)]
        if step.requantise is not None:
            signature.append(("const float *restrict f", out.constant(_widen(step.requantise.factor, padded))))
            signature.append(("const float *restrict o", out.constant(_widen(step.requantise.offset, padded))))
            signature.append(("uint8_t *restrict y", f"(uint8_t *)({out.pointer(step.y)})"))
        else:
            signature.append(("int32_t *restrict y", out.pointer(step.y)))
        if step.late is not None:
            signature.append((f"const {step.late.dtype}_t *late", out.pointer(step.late)))
        shared = self._shared if split else ""
        apart = split and self._is_apart(shared)
        share = ("k", str(step.images)) if apart else ("part", "parts") if split else None
        lines: list[str] = []
        if apart:
            piece = Piece("own", *self._read(shared), columns=shared == "tiles")
            given, lines = self._copied(piece)
            shift = f"(long)k * {step.apart}"
            lines = [f"{self.image} *restrict own = image + {shift};", *lines, f"const {self.image} *p = own;"]
        elif step.is_copied:
            given, lines = self._copied(by_all_parts(step.image) if split else None)
            lines = [*lines, *MET[:split], f"const {self.image} *p = image;"]
        else:
            given = [("const uint8_t *restrict p", f"(const uint8_t *)({out.pointer(step.image)})")]
        lines += self._rows(shared, share)
        if apart:
            inner = (f"    {line}" for line in lines)
            lines = [f"for (int k = part; k < {step.images}; k += parts) {{", *inner, "}", "(void)flags;"]
        elif split and not step.is_copied:
            lines.append("(void)flags;")
        out.function(
            step.kernel, step.title, [*given, *signature], "\n".join(f"    {line}" for line in lines), split=split
        )

    @cached_property
    def _shared(self) -> str:
        """What a team shares out: whichever there is enough of, rows first."""
        batch, rows, columns, _ = self.step.y.shape
        if batch * rows >= 2 * self.out.threads:
            return "rows"
        return "tiles" if columns // self.tile >= max(2, self.panels) else "panels"

    def _counts(self) -> dict[str, int]:
        batch, rows, columns, _ = self.step.y.shape
        return {"rows": batch * rows, "tiles": columns // self.tile, "panels": self.panels}

    def _is_apart(self, shared: str) -> bool:
        """True where each thread copies what it alone reads."""
        if self.step.images == 1 or not self.step.is_copied:
            return False
        return shared == "rows" or (shared == "tiles" and self._counts()["tiles"] >= self.step.images)

    def _read(self, shared: str) -> tuple[str, str]:
        """Rows of the image that piece ``k`` reads, or columns: half-open, in C."""
        (kh, kw), g, count, n = self.step.weight.shape[:2], self.step.geometry, self._counts()[shared], self.step.images
        if shared == "tiles":
            columns, (*_, full, _) = self.step.y.shape[2], self.step.image.shape
            reach, stride = (kw - 1) * g.dilations[1] + 1, g.strides[1] * self.tile
            end = f"{count} * (k + 1) / {n} * {stride} + {reach - g.strides[1]}"
            return (
                f"{count} * k / {n} * {stride}",
                f"k == {n - 1} ? {min(full, (columns - 1) * g.strides[1] + reach)} : {end}",
            )
        reach = (kh - 1) * g.dilations[0] + 1
        first, last = (self._row(row) for row in (f"({count} * k / {n})", f"({count} * (k + 1) / {n} - 1)"))
        return first, f"{last} + {reach}"

    def _row(self, row: str) -> str:
        """The first row of the image under a row of y."""
        batch, rows = self.step.y.shape[:2]
        stride = self.step.geometry.strides[0]
        if batch == 1:
            return f"{row} * {stride}"
        return f"({row} / {rows}) * {self.step.image.shape[1]} + ({row} % {rows}) * {stride}"

    @cached_property
    def _zero(self) -> int:
        """What bytes hold where x means zero."""
        return stored(self.step.zero, self.step.x.dtype, unsigned=self.out.isa.arch != "aarch64")

    def _starts(self, padded: int) -> list[tuple[str, str]]:
        """Parameters: what sums of bytes begin with, and what they change by with a late zero point."""
        self.out.need("v_set1i")
        if self.words:
            return []
        sums, out = self.step.weight.astype(np.int64).sum(axis=(0, 1, 2)), self.out
        starts = out.constant(_widen((-self._zero * sums).astype(np.int32), padded))
        found = [("const int32_t *restrict b", starts)]
        if self.step.late is not None:
            found.append(("const int32_t *restrict s", out.constant(_widen(sums.astype(np.int32), padded))))
        return found

    def _copied(self, piece: Piece | None) -> tuple[list[tuple[str, str]], list[str]]:
        """Parameters and statements of the copy."""
        step, late = self.step, " + *late" if self.step.late is not None else ""
        if self.words:
            zero = f"({step.zero}{late})" if late else str(step.zero)
            return copy_words(self.out, step.x, step.image, step.geometry.pads, zero=zero, piece=piece)
        fill = f"(uint8_t)({self._zero}{late})" if late else str(self._zero & 0xFF)
        return copy_image(self.out, step.x, step.image, step.geometry.pads, fill=fill, piece=piece)

    def _rows(self, shared: str, share: tuple[str, str] | None) -> Iterator[str]:
        """Rows × tiles × panels; ``share``: which part this is of how many, in C."""
        step, tile, image, counts = self.step, self.tile, self.step.image.shape, self._counts()
        bounds = {name: ("0", str(count)) for name, count in counts.items()}
        if share:
            part, parts = share
            bounds[shared] = f"{counts[shared]} * {part} / {parts}", f"{counts[shared]} * ({part} + 1) / {parts}"
        left = step.y.shape[2] % tile
        yield f"for (int r = {bounds['rows'][0]}; r < {bounds['rows'][1]}; r++) {{"
        yield f"    const {self.image} *row = p + ({self._row('r')}) * {image[2] * image[3]};"
        yield f"    for (int t = {bounds['tiles'][0]}; t < {bounds['tiles'][1]}; t++) {{"
        yield from self._tile(tile, f"t * {tile}", bounds["panels"])
        yield "    }"
        if left:
            yield f"    if ({part} == {parts} - 1) {{" if share and shared == "tiles" else "    {"
            yield from self._tile(left, str(counts["tiles"] * tile), bounds["panels"])
            yield "    }"
        yield "}"

    def _tile(self, tile: int, column: str, panels: tuple[str, str]) -> Iterator[str]:
        step, width, indent, inner = self.step, self.width, " " * 8, " " * 12
        _, _, columns, channels = step.image.shape
        stride, (dh, dw), kw = step.geometry.strides[1], step.geometry.dilations, step.weight.shape[1]
        unit = width * self.out.lanes * self.taken
        start = "v_set1i(0)" if self.words else f"v_loadi(b + (n * {width} + j) * VL)"
        if step.late is not None and not self.words:
            start += f" - v_set1i(*late) * v_loadi(s + (n * {width} + j) * VL)"
        yield f"{indent}const {self.image} *at = row + ({column}) * {stride * channels};"
        yield f"{indent}for (int n = {panels[0]}; n < {panels[1]}; n++) {{"
        yield f"{inner}vi a[{tile * width}];"
        yield f"{inner}UNROLL for (int i = 0; i < {tile}; i++)"
        yield f"{inner}    for (int j = 0; j < {width}; j++) a[i * {width} + j] = {start};"
        yield f"{inner}const {self.kind} *wk = w + (long)n * {self.runs * self.steps * unit};"
        place, run = f"run * {dh * columns * channels}", "run"
        if self.runs != self.once:
            run = f"(run % {self.once})"
            place = f"{run} * {dh * columns * channels}"
        if self.once != step.weight.shape[0]:
            place = f"({run} / {kw}) * {dh * columns * channels} + ({run} % {kw}) * {dw * channels}"
        yield f"{inner}for (int run = 0; run < {self.runs}; run++) {{"
        yield f"{inner}    const {self.image} *from = at + {place};"
        # Written out, windows that overlap would share what they load, in more registers than there are.
        overlap = self.words and stride * channels < self.length and self.out.isa.registers == 16
        rolled = '_Pragma("GCC unroll 1") ' if overlap else ""
        yield f"{inner}    {rolled}for (int k = 0; k < {self.steps}; k++, wk += {unit}) {{"
        acc, few = f"a[i * {width} + j]", "two" if self.words else "four"
        yield f"{inner}        vi v[{width}];"
        yield f"{inner}        for (int j = 0; j < {width}; j++) v[j] = v_loadi((const int32_t *)wk + j * VL);"
        yield f"{inner}        UNROLL for (int i = 0; i < {tile}; i++) {{"
        lead = f"{inner}            "
        yield f"{lead}const vi {few} = v_dup{self.taken}(from + i * {stride * channels} + {self.taken} * k);"
        yield f"{lead}for (int j = 0; j < {width}; j++) {acc} = v_dot{self.taken}({acc}, {few}, v[j]);"
        yield f"{inner}        }}"
        yield f"{inner}    }}"
        yield f"{inner}}}"
        yield from (f"{inner}{line}" for line in self.store.lines(tile, column))
        yield f"{indent}}}"

    def _pack(self) -> Array:
        """``[panel][run][step][vector][lane][taken]``, zero where channels or bytes run out."""
        step, lanes, width = self.step, self.out.lanes, self.width
        count = step.weight.shape[3]
        done = np.zeros((self.runs, self.steps * self.taken, self.panels * width * lanes), self.weights[0].dtype)
        done[:, : self.length, :count] = np.concatenate(self.weights).reshape(self.runs, self.length, count)
        split = done.reshape(self.runs, self.steps, self.taken, self.panels, width, lanes)
        return np.ascontiguousarray(split.transpose(3, 0, 1, 4, 5, 2))


def _widen(values: Array, padded: int) -> Array:
    done = np.zeros(padded, values.dtype)
    done[: len(values)] = values
    return done
