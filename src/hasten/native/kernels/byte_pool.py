"""Pools of bytes that stay bytes: the largest value, or a mean as 32-bit sums rounded once.

A mean is a dot product with ones: four positions are brought together in lanes and added by one instruction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from hasten.native.kernels.byte_depthwise import lane_order
from hasten.native.kernels.byte_image import Geometry, flips, loaded, stored
from hasten.native.kernels.requantise import Requantise, Rounding
from hasten.native.program import Step, View
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter

__all__ = ["BytePool"]

_WRITTEN_OUT = 16  # positions of a window; more become a loop


@dataclass(eq=False)
class BytePool(Step):
    """``y`` = the largest x under the window; with ``requantise`` ``requantise(Σ (x - zero))``, borders holding zero.

    Shapes:  x (N, H, W, C), dense · y (N, OH, OW, C), dense
    """

    x: View
    y: View
    taps: tuple[int, int]
    geometry: Geometry
    zero: int = 0
    requantise: Requantise | None = None
    READS = ("x",)
    WRITES = ("y",)

    @property
    def title(self) -> str:
        """What and sizes."""
        what, sizes = "max" if self.requantise is None else "mean", "x".join(map(str, self.y.shape[1:3]))
        return f"int8 {what} of {'x'.join(map(str, self.taps))}, {self.y.shape[3]} channels, {sizes}"

    def emit(self, out: Emitter) -> None:
        """One function: output positions × vectors of channels."""
        _Writer(self, out).write()


@dataclass
class _Writer:
    step: BytePool
    out: Emitter

    @cached_property
    def wide(self) -> int:
        """Bytes of a vector."""
        return 4 * self.out.lanes

    @cached_property
    def clipped(self) -> bool:
        """True where a position of some window lies outside x."""
        step = self.step
        reach = step.geometry.reach((step.y.shape[1], step.y.shape[2]), step.taps)
        return step.geometry.pads != (0, 0) or any(n > h for n, h in zip(reach, step.x.shape[1:3], strict=True))

    def write(self) -> None:
        step, out = self.step, self.out
        _, height, width, channels = step.y.shape
        out.need("v_loadb", "v_storeb", "unroll")
        signature = [
            (f"const {step.x.dtype}_t *restrict x", out.pointer(step.x)),
            (f"{step.y.dtype}_t *restrict y", out.pointer(step.y)),
        ]
        body = self._largest()
        if step.requantise is not None:
            signature += self._constants(step.requantise)
            body = self._mean(step.requantise)
        (sh, sw), (top, left) = step.geometry.strides, step.geometry.pads
        rows = step.y.shape[0] * height
        split = out.splits(step.y.size * int(np.prod(step.taps)))
        low, high = (f"{rows} * part / parts", f"{rows} * (part + 1) / parts") if split else ("0", str(rows))
        lines = [
            *(["(void)flags;"] if split else []),
            f"for (int r = {low}; r < {high}; r++)",
            f"for (int q = 0; q < {width}; q++)",
            f"for (int c = 0; c < {channels}; c += {self.wide}) {{",
            f"    const int h = r % {height} * {sh} - {top}, w = q * {sw} - {left}; /* the window's first position */",
            f"    const int image = r / {height} * {int(np.prod(step.x.shape[1:]))} + c;",
            *(f"    {line}" for line in body),
            f"    uint8_t *to = (uint8_t *)y + (r * {width} + q) * {channels} + c;",
            *self._store(channels),
            "}",
        ]
        out.function("bytepool", step.title, signature, "\n".join(f"    {line}" for line in lines), split=split)

    def _store(self, channels: int) -> Iterator[str]:
        if channels >= self.wide:
            yield f"    if (c <= {channels - self.wide}) v_storeb(to, m);"
        if channels % self.wide:
            self.out.need("v_storeb_n")
            yield f"    {'else ' if channels > self.wide else ''}v_storeb_n(to, m, {channels % self.wide});"

    def _place(self, row: str, column: str) -> str:
        _, _, width, channels = self.step.x.shape
        return f"(const uint8_t *)x + image + (({row}) * {width} + {column}) * {channels}"

    def _largest(self) -> Iterator[str]:
        step, (kh, kw), (dh, dw) = self.step, self.step.taps, self.step.geometry.dilations
        kind = "u8" if step.x.dtype == "uint8" else "i8"
        self.out.need(f"v_max_{kind}", "v_set1b")
        unroll = "UNROLL " if kh * kw <= _WRITTEN_OUT else ""
        yield f"vb m = v_set1b({np.iinfo(step.x.dtype).min});"
        yield f"{unroll}for (int i = 0; i < {kh}; i++)"
        yield f"    {unroll}for (int j = 0; j < {kw}; j++) {{"
        yield f"        const int row = h + i * {dh}, column = w + j * {dw};"
        if self.clipped:
            _, height, width, _ = step.x.shape
            yield f"        if ((unsigned)row >= {height} || (unsigned)column >= {width}) continue;"
        yield f"        m = v_max_{kind}(m, {loaded(self.out, step.x, self._place('row', 'column'), flip=False)});"
        yield "    }"
        if step.x.dtype != step.y.dtype:
            self.out.need("v_flip")
            yield "m = v_flip(m);"

    def _constants(self, found: Requantise) -> list[tuple[str, str]]:
        """Factors and offsets by lane."""
        channels = self.step.y.shape[3]
        order = np.arange(-(-channels // self.wide))[:, None, None] * self.wide + lane_order(self.out.lanes)
        placed: list[Array] = []
        for values in (found.factor, found.offset):
            padded = np.zeros(order.size, np.float32)
            padded[:channels] = values
            placed.append(padded[order])
        names = ("const float *restrict f", "const float *restrict o")
        return [(name, self.out.constant(array)) for name, array in zip(names, placed, strict=True)]

    def _mean(self, found: Requantise) -> Iterator[str]:
        step, out, (kh, kw) = self.step, self.out, self.step.taps
        out.need("v_set1i", "v_quads", "v_dot4", "v_set1b")
        unsigned = out.isa.arch != "aarch64"
        zero, count = stored(step.zero, step.x.dtype, unsigned=unsigned), kh * kw
        yield f"vi a[4], four[4]; /* sums of {count} positions */"
        yield f"UNROLL for (int i = 0; i < 4; i++) a[i] = v_set1i({-zero * count});"
        if self.clipped:
            yield f"const vb border = v_set1b({zero & 0xFF});"
        if kw % 4:
            yield "const vb none = v_set1b(0);"
        yield f"for (int i = 0; i < {kh}; i++) {{"
        yield f"    const int row = h + i * {step.geometry.dilations[0]};"
        for start, stop, taps in ((0, kw // 4 * 4, 4), (kw // 4 * 4, kw, kw % 4)):
            if start < stop:
                yield f"    for (int j = {start}; j < {stop}; j += 4) {{"
                yield from (f"        {line}" for line in self._four(taps))
                yield "    }"
        yield "}"
        rounding = Rounding(out, found, step.y.dtype, np.full(step.y.shape[3], 255 * count))
        at = [f"c + {j} * VL" for j in range(4)]
        yield f"const vb m = {rounding.four([f'a[{j}]' for j in range(4)], at, in_line=False)};"

    def _four(self, taps: int) -> Iterator[str]:
        """Four positions of a row of the window, or its last ``taps``, added to the sums."""
        step, dilation = self.step, self.step.geometry.dilations[1]
        _, height, width, _ = step.x.shape
        flip = flips(step.x.dtype, unsigned=self.out.isa.arch != "aarch64")
        given = []
        for k in range(taps):
            column = f"w + (j + {k}) * {dilation}"
            value = loaded(self.out, step.x, self._place("row", column), flip=flip)
            inside = f"(unsigned)row < {height} && (unsigned)({column}) < {width}"
            yield f"const vb x{k} = {f'{inside} ? {value} : border' if self.clipped else value};"
            given.append(f"x{k}")
        yield f"v_quads({', '.join(given + ['none'] * (4 - taps))}, four);"
        ones = f"v_set1i({0x01010101})"
        yield f"UNROLL for (int i = 0; i < 4; i++) a[i] = v_dot4(a[i], four[i], {ones});"
