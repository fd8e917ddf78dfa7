"""Convolutions and matrix products of bytes into 32-bit sums, one scale a channel, rounded back to bytes.

An input with borders, or of the signedness that the dot product does not take, is copied once into a padded image.
Each row of a window is then one run of neighbouring bytes, taken four at a time: four bytes go to all lanes, meet
``[vector][lane][4]`` weights, and a tile of output positions × vectors of channels stays in registers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hasten.native.kernels.byte_image import Geometry, copy_image, image_of, in_words, int8_parts, stored, words
from hasten.native.kernels.requantise import Requantise, Rounding
from hasten.native.program import Step, View
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.lower import Lowering

__all__ = ["ByteConv"]


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
        image = image_of(low, x, sizes, kernel, geometry)
        known, late = (zero, None) if isinstance(zero, int) else (0, zero)
        return ByteConv(x, y, image, weight, geometry, known, requantise, late)

    @property
    def title(self) -> str:
        """Sizes."""
        kh, kw, channels, count = self.weight.shape
        size = "x".join(map(str, self.y.shape[1:3]))
        return f"int8 {kh}x{kw}, {channels} -> {count}, {size}"

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
        # Steps of four bytes: neighbouring columns are neighbouring bytes unless the window is dilated.
        self.weights = int8_parts(step.weight)
        self.once = kh * kw if dilated else kh
        self.runs = self.once * len(self.weights)
        self.length = channels if dilated else kw * channels
        self.fours = -(-self.length // 4)
        self.split_weights = in_words(self.out.isa)
        self.kind = "int16_t" if self.split_weights else "int8_t"
        vectors = -(-count // lanes)
        room = 24 if self.out.isa.registers == 32 else 8
        panels = -(-vectors // 4)
        self.width = -(-vectors // panels)
        self.panels = -(-vectors // self.width)
        self.tile = max(1, min(room // self.width, step.y.shape[2], 12))
        self.tile = -(-step.y.shape[2] // -(-step.y.shape[2] // self.tile))
        # Four vectors of sums, one after the other, are one of bytes; not where channels are left over.
        whole = self.panels * self.width * lanes == count
        self.packs = whole and (self.panels == 1 or self.width == 4)

    def write(self) -> None:
        step, out = self.step, self.out
        out.need("v_loadi", "v_dup4", "v_dot4_split" if self.split_weights else "v_dot4", "unroll")
        padded = self.panels * self.width * out.lanes
        zero = stored(step.zero, step.x.dtype, unsigned=out.isa.arch != "aarch64")
        split = out.splits(step.macs())
        sums = step.weight.astype(np.int64).sum(axis=(0, 1, 2))
        signature = [
            *(
                []
                if step.is_copied
                else [("const uint8_t *restrict p", f"(const uint8_t *)({out.pointer(step.image)})")]
            ),
            (f"const {self.kind} *restrict w", out.constant(self._pack())),
            ("const int32_t *restrict b", out.constant(_widen((-zero * sums).astype(np.int32), padded))),
        ]
        if step.requantise is not None:
            signature.append(("const float *restrict f", out.constant(_widen(step.requantise.factor, padded))))
            signature.append(("const float *restrict o", out.constant(_widen(step.requantise.offset, padded))))
            signature.append(("uint8_t *restrict y", f"(uint8_t *)({out.pointer(step.y)})"))
        else:
            out.need("v_store_i")
            signature.append(("int32_t *restrict y", out.pointer(step.y)))
        lines, fill = list(self._rows(split=split)), str(zero & 0xFF)
        if step.late is not None:
            out.need("v_set1i")
            signature.append((f"const {step.late.dtype}_t *late", out.pointer(step.late)))
            signature.append(("const int32_t *restrict s", out.constant(_widen(sums.astype(np.int32), padded))))
            fill = f"(uint8_t)({zero} + *late)"
        if step.is_copied:
            given, copying = copy_image(out, step.x, step.image, step.geometry.pads, fill=fill, split=split)
            signature = [*given, *signature]
            lines = [*(f"    {line}" for line in copying), "    const uint8_t *p = image;", *lines]
        if split:
            lines.append("    (void)flags;")
        out.function(step.kernel, step.title, signature, "\n".join(lines), split=split)

    def _rows(self, *, split: bool) -> Iterator[str]:
        """Rows × tiles × panels; a team shares out whichever there are enough of, rows first."""
        step, tile, image = self.step, self.tile, self.step.image.shape
        batch, rows, columns, _ = step.y.shape
        tiles, left, team = columns // tile, columns % tile, self.out.threads
        shared = "rows" if batch * rows >= 2 * team else "tiles" if tiles >= max(2, self.panels) else "panels"
        counts = {"rows": batch * rows, "tiles": tiles, "panels": self.panels}
        bounds = {name: ("0", str(count)) for name, count in counts.items()}
        if split:
            count = counts[shared]
            bounds[shared] = f"{count} * part / parts", f"{count} * (part + 1) / parts"
        yield f"    for (int r = {bounds['rows'][0]}; r < {bounds['rows'][1]}; r++) {{"
        row = f"r * {step.geometry.strides[0]}"
        if batch > 1:
            row = f"(r / {rows}) * {image[1]} + (r % {rows}) * {step.geometry.strides[0]}"
        yield f"        const uint8_t *row = p + ({row}) * {image[2] * image[3]};"
        yield f"        for (int t = {bounds['tiles'][0]}; t < {bounds['tiles'][1]}; t++) {{"
        yield from self._tile(tile, f"t * {tile}", bounds["panels"])
        yield "        }"
        if left:
            yield "        if (part == parts - 1) {" if split and shared == "tiles" else "        {"
            yield from self._tile(left, str(tiles * tile), bounds["panels"])
            yield "        }"
        yield "    }"

    def _tile(self, tile: int, column: str, panels: tuple[str, str]) -> Iterator[str]:
        step, width, indent, inner = self.step, self.width, " " * 12, " " * 16
        _, _, columns, channels = step.image.shape
        stride, (dh, dw), kw = step.geometry.strides[1], step.geometry.dilations, step.weight.shape[1]
        unit = width * self.out.lanes * 4
        start = f"v_loadi(b + (n * {width} + j) * VL)"
        if step.late is not None:
            start += f" - v_set1i(*late) * v_loadi(s + (n * {width} + j) * VL)"
        yield f"{indent}const uint8_t *at = row + ({column}) * {stride * channels};"
        yield f"{indent}for (int n = {panels[0]}; n < {panels[1]}; n++) {{"
        yield f"{inner}vi a[{tile * width}];"
        yield f"{inner}UNROLL for (int i = 0; i < {tile}; i++)"
        yield f"{inner}    for (int j = 0; j < {width}; j++) a[i * {width} + j] = {start};"
        yield f"{inner}const {self.kind} *wk = w + (long)n * {self.runs * self.fours * unit};"
        place, run = f"run * {dh * columns * channels}", "run"
        if self.runs != self.once:
            run = f"(run % {self.once})"
            place = f"{run} * {dh * columns * channels}"
        if self.once != step.weight.shape[0]:
            place = f"({run} / {kw}) * {dh * columns * channels} + ({run} % {kw}) * {dw * channels}"
        yield f"{inner}for (int run = 0; run < {self.runs}; run++) {{"
        yield f"{inner}    const uint8_t *from = at + {place};"
        yield f"{inner}    for (int k = 0; k < {self.fours}; k++, wk += {unit}) {{"
        loads = 2 * width if self.split_weights else width
        each, acc = f"for (int j = 0; j < {width}; j++)", f"a[i * {width} + j]"
        dot = (
            f"v_dot4_split({acc}, four, v[2 * j], v[2 * j + 1])" if self.split_weights else f"v_dot4({acc}, four, v[j])"
        )
        yield f"{inner}        vi v[{loads}];"
        yield f"{inner}        for (int j = 0; j < {loads}; j++) v[j] = v_loadi((const int32_t *)wk + j * VL);"
        yield f"{inner}        UNROLL for (int i = 0; i < {tile}; i++) {{"
        yield f"{inner}            const vi four = v_dup4(from + i * {stride * channels} + 4 * k);"
        yield f"{inner}            {each} {acc} = {dot};"
        yield f"{inner}        }}"
        yield f"{inner}    }}"
        yield f"{inner}}}"
        yield from self._store(tile, column, inner)
        yield f"{indent}}}"

    def _store(self, tile: int, column: str, indent: str) -> Iterator[str]:
        """Whole vectors of bytes as far as the tile has them, then vectors of sums one by one."""
        step, width, count = self.step, self.width, self.step.weight.shape[3]
        columns, done = step.y.shape[2], 0
        rounding = None
        if step.requantise is not None:
            most = np.abs(step.weight.astype(np.int64)).sum(axis=(0, 1, 2)) * 255
            rounding = Rounding(self.out, step.requantise, step.y.dtype, most)
        if self.packs and rounding is not None:
            self.out.need("v_storeb")
            done = tile * width // 4 * 4
            at = [f"(n * {width} + (v + {j}) % {width}) * VL" for j in range(4)]
            found = rounding.four([f"a[v + {j}]" for j in range(4)], at, in_line=True)
            place = f"y + (r * {columns} + {column} + v / {width}) * {count} + (n * {width} + v % {width}) * VL"
            if done:
                yield f"{indent}UNROLL for (int v = 0; v < {done}; v += 4)"
                yield f"{indent}    v_storeb({place}, {found});"
        if done < tile * width:
            yield f"{indent}UNROLL for (int v = {done}; v < {tile * width}; v++) {{"
            yield from (f"{indent}    {line}" for line in self._single(column, rounding))
            yield f"{indent}}}"

    def _single(self, column: str, rounding: Rounding | None) -> Iterator[str]:
        """One vector of sums, the last of them maybe in part."""
        step, width, count = self.step, self.width, self.step.weight.shape[3]
        yield f"const int c = (n * {width} + v % {width}) * VL;"
        left = "VL"
        if self.panels * width * self.out.lanes != count:
            yield f"const int left = {count} - c < VL ? {count} - c : VL;"
            yield "if (left <= 0) continue;"
            left = "left"
        place = f"y + (r * {step.y.shape[2]} + {column} + v / {width}) * {count} + c"
        if rounding is None:
            yield f"v_store_i({place}, a[v], {left});"
        else:
            yield from rounding.one("a[v]", "c", place, left)

    def _pack(self) -> Array:
        """``[panel][run][four][vector][lane][4]``, zero where channels or bytes run out."""
        step, lanes, width = self.step, self.out.lanes, self.width
        count = step.weight.shape[3]
        done = np.zeros((self.runs, self.fours * 4, self.panels * width * lanes), np.int8)
        done[:, : self.length, :count] = np.concatenate(self.weights).reshape(self.runs, self.length, count)
        split = done.reshape(self.runs, self.fours, 4, self.panels, width, lanes)
        packed = np.ascontiguousarray(split.transpose(3, 0, 1, 4, 5, 2))
        return words(packed) if self.split_weights else packed


def _widen(values: Array, padded: int) -> Array:
    done = np.zeros(padded, values.dtype)
    done[: len(values)] = values
    return done
