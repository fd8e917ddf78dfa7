"""Depthwise convolutions of bytes where there is no dot product of bytes: pairs of taps as 16-bit numbers.

One panel of channels at a time, some rows of the input become pairs: every column beside the one that the next tap of a
row sees. All windows that lie over a column then read the same pairs, and two taps are one multiplication.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from math import gcd
from typing import TYPE_CHECKING

import numpy as np

from hasten.native.kernels.byte_image import MET, by_all_parts, copy_image, stored
from hasten.native.kernels.byte_tile import TileStore
from hasten.native.kernels.requantise import Rounding
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.kernels.byte_depthwise import ByteDepthwise

__all__ = ["WordWriter"]

_WRITTEN_OUT = 16  # pairs of taps; more become loops
_NEAR = 24 << 10  # bytes of pairs, and of what they are made of, that the nearest cache holds beside the weights


class WordWriter:
    """Writes the C of one ``ByteDepthwise``."""

    def __init__(self, step: ByteDepthwise, out: Emitter) -> None:
        self.step, self.out = step, out
        self.kh, self.kw, self.channels = (int(n) for n in step.weight.shape)
        vectors = -(-self.channels // out.lanes)
        self.panels = -(-vectors // 2)
        self.width = -(-vectors // self.panels)
        self.pairs = -(-self.kw // 2)
        # Columns are kept where some window begins or some pair of taps does.
        self.stride, self.dilation = step.geometry.strides[1], step.geometry.dilations[1]
        self.apart = gcd(self.stride, 2 * self.dilation)
        last = (step.y.shape[2] - 1) * self.stride + (self.pairs - 1) * 2 * self.dilation
        self.columns = last // self.apart + 1
        room = (24 if out.isa.registers == 32 else 10) // self.width
        self.tile = -(-step.y.shape[2] // -(-step.y.shape[2] // room))

    @cached_property
    def zero(self) -> int:
        """What x holds where it means zero."""
        step = self.step
        return stored(step.zero, step.x.dtype, unsigned=True) if step.is_copied else step.zero

    @property
    def kind(self) -> str:
        """The type of x, or of its copy."""
        return "uint8" if self.step.is_copied else self.step.x.dtype

    @cached_property
    def rows(self) -> int:
        """Rows of outputs whose pairs are made together."""
        height, line = self.step.y.shape[1], int(np.prod(self.step.x.shape[2:]))
        each = max(self.columns * self.width * self.out.lanes * 4, line)
        most = max(1, (max(0, _NEAR // each - self._reach(1)) // self.step.geometry.strides[0]) + 1)
        return -(-height // -(-height // most))

    def _reach(self, rows: int) -> int:
        """Rows of the input under so many of outputs."""
        geometry = self.step.geometry
        return (rows - 1) * geometry.strides[0] + (self.kh - 1) * geometry.dilations[0] + 1

    @property
    def _whole(self) -> range:
        """Columns of pairs of which both taps lie within x."""
        left = self.step.geometry.pads[1]
        end = max(0, self.step.x.shape[2] - self.dilation + left - 1) // self.apart + 1
        first, last = min(-(-left // self.apart), self.columns), min(end, self.columns)
        return range(first, max(first, last))

    def write(self) -> None:
        """The function: chunks of rows, in each the panels of channels."""
        step, out = self.step, self.out
        out.need("v_loadi", "v_set1i", "v_dot2", "unroll")
        weight, padded = step.weight.astype(np.int64), self.panels * self.width * out.lanes
        starts = (-self.zero * weight.sum(axis=(0, 1))).astype(np.int32)
        signature = [
            ("const int16_t *restrict w", out.constant(self._pack())),
            ("const int32_t *restrict b", out.constant(_widen(starts, padded))),
            ("const float *restrict f", out.constant(_widen(step.requantise.factor, padded))),
            ("const float *restrict o", out.constant(_widen(step.requantise.offset, padded))),
            ("uint8_t *restrict y", f"(uint8_t *)({out.pointer(step.y)})"),
        ]
        split = out.splits(step.macs())
        lines = [] if split and step.is_copied else ["(void)flags;"] if split else []
        if step.is_copied:
            piece = by_all_parts(step.image) if split else None
            given, copying = copy_image(out, step.x, step.image, (0, 0), fill="0", piece=piece)
            lines += [*copying, *MET[:split], "const uint8_t *x = image;"]
        else:
            given = [(f"const {step.x.dtype}_t *restrict x", out.pointer(step.x))]
        if self._whole != range(self.columns):
            border = out.constant(np.full(out.lanes, self.zero & 0xFF, np.uint8))
            given.append((f"const {self.kind}_t *restrict border", f"(const {self.kind}_t *)({border})"))
        batch, height, chunks = step.y.shape[0], step.y.shape[1], -(-step.y.shape[1] // self.rows)
        total = batch * chunks
        low, high = (f"{total} * part / parts", f"{total} * (part + 1) / parts") if split else ("0", str(total))
        lines += [
            f"vi pairs[{self._reach(self.rows) * self.columns * self.width}]; /* [row][column][vector] */",
            f"for (int t = {low}; t < {high}; t++)",
            f"for (int n = 0; n < {self.panels}; n++) {{",
            f"    const int image = t / {chunks}, row = t % {chunks} * {self.rows};",
            *(f"    {line}" for line in self._gather()),
            f"    const int last = row + {self.rows} < {height} ? row + {self.rows} : {height};",
            "    for (int q = row; q < last; q++) {",
            f"        const int r = image * {height} + q;",
            f"        const vi *under = pairs + (q - row) * {step.geometry.strides[0] * self.columns * self.width};",
            *(f"        {line}" for line in self._row()),
            "    }",
            "}",
        ]
        out.function(
            "bytedepthwise", step.title, [*given, *signature], "\n".join(f"    {s}" for s in lines), split=split
        )

    def _gather(self) -> Iterator[str]:
        """The pairs of one panel under a chunk of rows; borders hold what means zero."""
        step, width, top = self.step, self.width, self.step.geometry.pads[0]
        height, columns, channels = step.x.shape[1:]
        pair = (self.zero & 0xFFFF) * 0x10001
        first, last = self._whole.start, self._whole.stop
        yield f"for (int h = 0; h < {self._reach(self.rows)}; h++) {{"
        yield f"    const int from = row * {step.geometry.strides[0]} + h - {top};"
        yield f"    vi *to = pairs + h * {self.columns * width};"
        yield f"    if ((unsigned)from >= {height}) {{"
        yield f"        for (int i = 0; i < {self.columns * width}; i++) to[i] = v_set1i({pair - (pair >> 31 << 32)});"
        yield "        continue;"
        yield "    }"
        place = f"(image * {height} + from) * {columns * channels} + n * {width} * VL"
        yield f"    const {self.kind}_t *line = x + {place};"
        for start, stop, whole in ((0, first, False), (first, last, True), (last, self.columns, False)):
            if start < stop:
                yield f"    for (int k = {start}; k < {stop}; k++) {{"
                yield from (f"        {line}" for line in self._pair(whole=whole))
                yield "    }"
        yield "}"

    def _pair(self, *, whole: bool) -> Iterator[str]:
        """One column; ``whole``: both its taps lie within x."""
        step, width = self.step, self.width
        columns, channels = step.x.shape[2:]
        yield f"const int c = k * {self.apart} - {step.geometry.pads[1]};"
        both = [f"line + (c + {d}) * {channels} + j * VL" for d in (0, self.dilation)]
        if not whole:
            both = [
                f"(unsigned)(c + {d}) < {columns} ? {place} : border"
                for d, place in zip((0, self.dilation), both, strict=True)
            ]
        name = "v_pair_u8" if self.kind == "uint8" else "v_pair_i8"
        self.out.need(name)
        yield f"UNROLL for (int j = 0; j < {width}; j++) to[k * {width} + j] = {name}({', '.join(both)});"

    def _row(self) -> Iterator[str]:
        """Tiles of columns of one row of outputs."""
        step, weight = self.step, self.step.weight.astype(np.int64)
        columns = step.y.shape[2]
        most = np.abs(weight).sum(axis=(0, 1)) * 255
        rounding = Rounding(self.out, step.requantise, step.y.dtype, most)
        store = TileStore(self.out, rounding, self.width, self.panels, columns, self.channels)
        count, left = divmod(columns, self.tile)
        if count:
            yield f"for (int i = 0; i < {count}; i++) {{"
            yield from (f"    {line}" for line in self._tile(store, self.tile, f"i * {self.tile}"))
            yield "}"
        if left:
            yield "{"
            yield from (f"    {line}" for line in self._tile(store, left, str(count * self.tile)))
            yield "}"

    def _tile(self, store: TileStore, tile: int, column: str) -> Iterator[str]:
        width, pairs, stride = self.width, self.pairs, self.stride // self.apart
        down = self.step.geometry.dilations[0] * self.columns
        unroll = "UNROLL " if self.kh * pairs <= _WRITTEN_OUT else ""
        yield f"const vi *at = under + ({column}) * {stride * width};"
        yield f"const int16_t *wk = w + n * {self.kh * pairs * width} * 2 * VL;"
        yield f"vi a[{tile * width}];"
        yield f"UNROLL for (int v = 0; v < {tile * width}; v++) a[v] = v_loadi(b + (n * {width} + v % {width}) * VL);"
        yield f"UNROLL for (int j = 0; j < {width}; j++)"
        yield f"{unroll}for (int k = 0; k < {self.kh}; k++)"
        yield f"{unroll}for (int p = 0; p < {pairs}; p++) {{"
        yield f"    const vi two = v_loadi((const int32_t *)wk + ((k * {pairs} + p) * {width} + j) * VL);"
        place = f"(k * {down} + p * {2 * self.dilation // self.apart} + i * {stride}) * {width} + j"
        acc = f"a[i * {width} + j]"
        yield f"    UNROLL for (int i = 0; i < {tile}; i++) {acc} = v_dot2({acc}, at[{place}], two);"
        yield "}"
        yield from store.lines(tile, column)

    def _pack(self) -> Array:
        """``[panel][row of the window][pair][vector][lane][2]``, zero where taps or channels run out."""
        lanes, width = self.out.lanes, self.width
        done = np.zeros((self.kh, 2 * self.pairs, self.panels * width * lanes), np.int16)
        done[:, : self.kw, : self.channels] = self.step.weight
        split = done.reshape(self.kh, self.pairs, 2, self.panels, width, lanes)
        return np.ascontiguousarray(split.transpose(3, 0, 1, 4, 5, 2))


def _widen(values: Array, padded: int) -> Array:
    done = np.zeros(padded, values.dtype)
    done[: len(values)] = values
    return done
