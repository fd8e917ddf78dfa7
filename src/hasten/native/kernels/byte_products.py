"""Convolutions and matrix products of bytes into 32-bit sums, one scale a channel, rounded back to bytes.

An input with borders, or of the signedness that the dot product does not take, is copied once into a padded image
(shifted by 128). Each row of a window is then one run of neighbouring bytes, taken four at a time: four bytes go to all
lanes, meet ``[vector][lane][4]`` weights, and a tile of output positions × vectors of channels stays in registers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hasten.native.program import Step, View
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.lower import Lowering

__all__ = ["ByteConv", "Requantise"]


@dataclass(frozen=True)
class Requantise:
    """``y = clamp(round(sum · factor + offset) + zero, low, high)``.

    Shapes:  factor, offset (channels,)
    """

    factor: Array
    offset: Array
    zero: int
    low: int
    high: int


@dataclass(eq=False)
class ByteConv(Step):
    """``y = requantise(Σ (x - zero) · weight)``; without ``requantise`` y holds the int32 sums.

    Shapes:  x (N, H, W, C) · y (N, OH, OW, M), dense · weight (kh, kw, C, M) int8 · image: the padded copy of x
    """

    x: View
    y: View
    image: View
    weight: Array
    geometry: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    """Strides, dilations, and padding before, each for height and width."""
    zero: int
    requantise: Requantise | None
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
        low: Lowering, x: View, y: View, weight: Array, geometry: tuple[tuple[int, ...], ...], zero: int,
        requantise: Requantise | None,
    ) -> ByteConv:  # fmt: skip
        """The step with room for its padded image."""
        (sh, sw), (dh, dw), (ph, pw) = geometry
        batch, height, width, channels = x.shape
        kh, kw = weight.shape[:2]
        rows = max(height + ph, (y.shape[1] - 1) * sh + (kh - 1) * dh + 1)
        columns = max(width + pw, (y.shape[2] - 1) * sw + (kw - 1) * dw + 1)
        if (kh, kw, sh, sw, ph, pw) == (1, 1, 1, 1, 0, 0) and batch * rows * columns == x.size // channels:
            # A 1x1 convolution does not know rows: one long row tiles better.
            positions = batch * rows * columns
            x = View(x.tensor, (1, 1, positions, channels), (0, 0, channels, 1), x.offset)
            y = View(y.tensor, (1, 1, positions, y.shape[3]), (0, 0, y.shape[3], 1), y.offset)
            batch, rows, columns = 1, 1, positions
        # Read where it lies: nothing to pad nor to shift, and its last four bytes have readable ones behind them.
        plain = (rows, columns) == x.shape[1:3] and (x.dtype == "uint8") == low.unsigned_bytes
        if plain and (x.tensor.kind == "temporary" or channels % 4 == 0):
            image = replace(x, tensor=x.tensor)
        else:
            image = low.new((batch, rows, columns, channels), "uint8")
        return ByteConv(x, y, image, weight, ((sh, sw), (dh, dw), (ph, pw)), zero, requantise)

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
        _Writer(self, out).write()


@dataclass
class _Writer:
    step: ByteConv
    out: Emitter

    def __post_init__(self) -> None:
        step, lanes = self.step, self.out.lanes
        kh, kw, channels, count = step.weight.shape
        dilated = step.geometry[1][1] != 1
        # (row of the window, column, bytes): neighbouring columns are neighbouring bytes unless the window is dilated.
        self.runs = (
            [(i, j, channels) for i in range(kh) for j in range(kw)]
            if dilated
            else [(i, 0, kw * channels) for i in range(kh)]
        )
        self.fours = -(-self.runs[0][2] // 4)
        vectors = -(-count // lanes)
        room = 24 if self.out.isa.registers == 32 else 8
        panels = -(-vectors // 4)
        self.width = -(-vectors // panels)
        self.panels = -(-vectors // self.width)
        self.tile = max(1, min(room // self.width, step.y.shape[2], 12))
        self.tile = -(-step.y.shape[2] // -(-step.y.shape[2] // self.tile))
        # x86 multiplies unsigned by signed bytes, Arm signed by signed.
        self.signed = self.out.isa.arch == "aarch64"
        self.shifted = (step.x.dtype == "int8") != self.signed
        stored_zero = step.zero + (0 if not self.shifted else 128 if step.x.dtype == "int8" else -128)
        self.fill = stored_zero & 0xFF
        self.stored_zero = stored_zero

    def write(self) -> None:
        step, out = self.step, self.out
        out.need("v_loadi", "v_dup4", "v_dot4", "unroll")
        padded = self.panels * self.width * out.lanes
        sums = -self.stored_zero * step.weight.astype(np.int64).sum(axis=(0, 1, 2))
        signature = [
            *self._images(),
            ("const int8_t *restrict w", out.constant(self._pack())),
            ("const int32_t *restrict b", out.constant(_widen(sums.astype(np.int32), padded))),
        ]
        if step.requantise is not None:
            out.need("v_tofloat", "v_toint", "v_load", "v_min", "v_max", "v_set1", "v_set1i", "v_store_b")
            signature.append(("const float *restrict f", out.constant(_widen(step.requantise.factor, padded))))
            signature.append(("const float *restrict o", out.constant(_widen(step.requantise.offset, padded))))
            signature.append(("uint8_t *restrict y", f"(uint8_t *)({out.pointer(step.y)})"))
        else:
            out.need("v_store_i")
            signature.append(("int32_t *restrict y", out.pointer(step.y)))
        batch, rows, columns, _ = step.y.shape
        tile, image = self.tile, step.image.shape
        tiles = columns // tile
        copy = self._copy() if step.is_copied else ()
        lines = [*copy, f"    for (int r = 0; r < {batch * rows}; r++) {{"]
        row = (
            f"((r / {rows}) * {image[1]} + (r % {rows}) * {step.geometry[0][0]})"
            if batch > 1
            else f"(r * {step.geometry[0][0]})"
        )
        lines.append(f"        const uint8_t *row = p + {row} * {image[2] * image[3]};")
        lines.append(f"        for (int t = 0; t < {tiles}; t++) {{")
        lines += self._tile(tile, f"t * {tile}", "            ")
        lines.append("        }")
        if columns > tiles * tile:
            lines.append("        {")
            lines += self._tile(columns - tiles * tile, str(tiles * tile), "            ")
            lines.append("        }")
        lines.append("    }")
        out.function(step.kernel, step.title, signature, "\n".join(lines))

    def _images(self) -> list[tuple[str, str]]:
        step, out = self.step, self.out
        if not step.is_copied:
            return [("const uint8_t *restrict p", f"(const uint8_t *)({out.pointer(step.x)})")]
        return [
            (f"const {step.x.dtype}_t *restrict x", out.pointer(step.x)),
            ("uint8_t *restrict p", out.pointer(step.image)),
        ]

    def _copy(self) -> Iterator[str]:
        step = self.step
        batch, height, width, channels = step.x.shape
        _, rows, columns, _ = step.image.shape
        top, left = step.geometry[2]
        put = "x[i] ^ 0x80" if self.shifted else "x[i]"
        line, full = width * channels, columns * channels
        if (height, width) == (rows, columns):
            yield f"    for (long i = 0; i < {batch * height * line}; i++) p[i] = (uint8_t)({put});"
            return
        size = rows * full
        yield f"    __builtin_memset(p, {self.fill}, {batch * size});"
        yield f"    for (int n = 0; n < {batch}; n++)"
        yield f"        for (int h = 0; h < {height}; h++, x += {line}) {{"
        yield f"            uint8_t *to = p + n * {size} + (h + {top}) * {full} + {left * channels};"
        yield f"            for (int i = 0; i < {line}; i++) to[i] = (uint8_t)({put});"
        yield "        }"

    def _tile(self, tile: int, column: str, indent: str) -> Iterator[str]:
        step, width, lanes = self.step, self.width, self.out.lanes
        _, _, columns, channels = step.image.shape
        stride, (dh, dw) = step.geometry[0][1], step.geometry[1]
        yield f"{indent}const uint8_t *at = row + ({column}) * {stride * channels};"
        yield f"{indent}for (int n = 0; n < {self.panels}; n++) {{"
        inner = indent + "    "
        yield f"{inner}vi a[{tile * width}];"
        yield f"{inner}UNROLL for (int i = 0; i < {tile}; i++)"
        yield f"{inner}    for (int j = 0; j < {width}; j++) a[i * {width} + j] = v_loadi(b + (n * {width} + j) * VL);"
        yield f"{inner}const int8_t *wk = w + (long)n * {len(self.runs) * self.fours * width * lanes * 4};"
        if len(self.runs) == len({r[0] for r in self.runs}):
            yield f"{inner}for (int run = 0; run < {len(self.runs)}; run++) {{"
            yield f"{inner}    const uint8_t *from = at + run * {dh * columns * channels};"
        else:
            kw = step.weight.shape[1]
            yield f"{inner}for (int run = 0; run < {len(self.runs)}; run++) {{"
            place = f"(run / {kw}) * {dh * columns * channels} + (run % {kw}) * {dw * channels}"
            yield f"{inner}    const uint8_t *from = at + {place};"
        yield f"{inner}    for (int k = 0; k < {self.fours}; k++, wk += {width * lanes * 4}) {{"
        yield f"{inner}        vi v[{width}];"
        each, acc = f"for (int j = 0; j < {width}; j++)", f"a[i * {width} + j]"
        yield f"{inner}        {each} v[j] = v_loadi((const int32_t *)(wk + j * {lanes * 4}));"
        yield f"{inner}        UNROLL for (int i = 0; i < {tile}; i++) {{"
        yield f"{inner}            const vi four = v_dup4(from + i * {stride * channels} + 4 * k);"
        yield f"{inner}            {each} {acc} = v_dot4({acc}, four, v[j]);"
        yield f"{inner}        }}"
        yield f"{inner}    }}"
        yield f"{inner}}}"
        yield from self._store(tile, column, inner)
        yield f"{indent}}}"

    def _store(self, tile: int, column: str, indent: str) -> Iterator[str]:
        step, width, lanes = self.step, self.width, self.out.lanes
        count = step.weight.shape[3]
        yield f"{indent}UNROLL for (int i = 0; i < {tile}; i++)"
        yield f"{indent}    for (int j = 0; j < {width}; j++) {{"
        body = indent + "        "
        yield f"{body}const int c = (n * {width} + j) * VL;"
        if self.panels * width * lanes == count:
            left = "VL"
        else:
            yield f"{body}const int left = {count} - c < VL ? {count} - c : VL;"
            yield f"{body}if (left <= 0) continue;"
            left = "left"
        place = f"y + (r * {step.y.shape[2]} + {column} + i) * {count} + c"
        found = step.requantise
        if found is None:
            yield f"{body}v_store_i({place}, a[i * {width} + j], {left});"
        else:
            yield f"{body}vf v = v_tofloat(a[i * {width} + j]) * v_load(f + c) + v_load(o + c);"
            low, high = (f"v_set1({bound - found.zero}.0f)" for bound in (found.low, found.high))
            yield f"{body}v = v_max({low}, v_min({high}, v));"
            yield f"{body}v_store_b({place}, v_toint(v) + v_set1i({found.zero}), {left});"
        yield f"{indent}    }}"

    def _pack(self) -> Array:
        """``[panel][run][four][vector][lane][4]``, zero where channels or bytes run out."""
        step, lanes, width = self.step, self.out.lanes, self.width
        count = step.weight.shape[3]
        length = self.runs[0][2]
        runs = step.weight.reshape(len(self.runs), length, count)
        done = np.zeros((len(self.runs), self.fours * 4, self.panels * width * lanes), np.int8)
        done[:, :length, :count] = runs
        split = done.reshape(len(self.runs), self.fours, 4, self.panels, width, lanes)
        return np.ascontiguousarray(split.transpose(3, 0, 1, 4, 5, 2))


def _widen(values: Array, padded: int) -> Array:
    done = np.zeros(padded, values.dtype)
    done[: len(values)] = values
    return done
