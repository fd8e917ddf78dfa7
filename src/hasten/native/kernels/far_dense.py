"""One row times weights that no cache next to the core holds: stored in 24 bits, since reading them is all there is.

A weight is a whole number of about 24 bits times its column's scale, a power of two. It differs from the float32 that
it was by about what float32 rounds a number as large as the column's largest, so that a sum is off by about what its
additions are off anyway. Four vectors lie in the words of three: three of them as they are, whose last eight bits are
the fourth's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hasten.native.epilogue import Epilogue
from hasten.native.kernels.dense import Dense, Panel
from hasten.native.program import Program, Step
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.isa import Isa

__all__ = ["FarDense", "in_three_words", "kept_far"]

_LARGEST = 2**31 - 2**8  # what is rounded to another last byte still fits
_LEAST_EXPONENT = -100  # so that sums of numbers of usual size are no denormals
_LEAST_WEIGHTS = 1 << 14
_UNEVEN = 6.0  # times its root mean square: a column's largest weight, beyond which the others lose too much


def kept_far(program: Program, isa: Isa, threads: int) -> Program:
    """The program with the products of single rows in 24 bits, where its weights are too many for the near caches.

    Measured on x86-64 alone: elsewhere nothing changes.
    """
    if isa.arch != "x86_64" or "fma" not in isa.features or program.weight_bytes <= threads * isa.near_bytes:
        return program
    return replace(program, steps=[_far(step, isa) if type(step) is Dense else step for step in program.steps])


def _far(step: Dense, isa: Isa) -> Step:
    large = step.weight.size >= _LEAST_WEIGHTS and step.weight.shape[1] >= 4 * isa.lanes
    # a weight of zero would have to stay zero: an infinity times it is no number
    if step.rows != 1 or step.storage != "float32" or not large or not step.weight.all():
        return step
    largest, usual = np.abs(step.weight).max(axis=0), np.sqrt(np.square(step.weight, dtype=np.float64).mean(axis=0))
    if not np.isfinite(usual).all() or (largest > _UNEVEN * usual).any() or _exponent(largest).min() < _LEAST_EXPONENT:
        return step
    return FarDense(step.x, step.y, step.weight, step.bias, step.epilogue, nodes=step.nodes)


def _exponent(largest: Array) -> NDArray[np.int64]:
    """Of the scale by which numbers up to ``largest`` become whole ones of 32 bits."""
    return np.frexp(largest)[1].astype(np.int64) - 31


def in_three_words(four: NDArray[np.int64]) -> NDArray[np.int32]:
    """Numbers of 32 bits, four vectors → the three vectors of words that hold all but their last bits.

    The fourth is what the words' last bytes add up to without carry, shifted by 24, 16 and 8 bits: what the shifts
    bring along of the other bytes is known when the last bytes are chosen.

    Shapes:  four (…, 4, lanes), each within ±(2**31 - 2**8) → (…, 3, lanes)
    """
    first, second, third, fourth = (four[..., i, :] for i in range(4))
    wanted = _rounded(fourth, 0) & 0xFFFFFFFF
    third = _rounded(third, wanted >> 8 & 0xFF)
    second = _rounded(second, (wanted >> 16 ^ third >> 8) & 0xFF)
    first = _rounded(first, (wanted >> 24 ^ second >> 8 ^ third >> 16) & 0xFF)
    return np.stack([first, second, third], axis=-2).astype(np.int32)


def _rounded(numbers: NDArray[np.int64], last: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """The nearest numbers of the same sign that end in the byte ``last``; an infinity makes the same of them."""
    found: NDArray[np.int64] = ((numbers - last + 128) >> 8 << 8) + last
    found += 256 * ((numbers > 0) & (found <= 0))
    found -= 256 * ((numbers < 0) & (found >= 0))
    return found


@dataclass(eq=False)
class FarDense(Dense):
    """``y = epilogue(x · weight + bias)``; weights are stored in 24 bits where four vectors lie side by side.

    Such a panel is ``[bias][scale][K][groups of four vectors][three words]``, others are those of ``Dense``.

    Shapes:  x (1, K) · weight (K, N), no zero among them
    """

    @property
    def title(self) -> str:
        """Sizes and epilogue."""
        depth, columns = self.weight.shape
        return f"{depth} -> {columns}, weights in 24 bits{self._epilogue.title}"

    def others(self, isa: Isa) -> tuple[Step, ...]:
        """None: timed alone, it would run from the near caches."""
        return ()

    def _cut(self, lanes: int, widest: int) -> tuple[Panel, ...]:
        """Panels of whole groups of four vectors, the rest in one."""
        columns = self.weight.shape[1]
        vectors = -(-columns // lanes)
        width = max(4, min(widest, vectors) // 4 * 4)
        edges = [*range(0, vectors, width), vectors]
        groups = [(start, stop - start) for start, stop in pairwise(edges)]
        if groups[-1][1] > 4 and groups[-1][1] % 4:
            start, rest = groups.pop()
            groups += [(start, rest // 4 * 4), (start + rest // 4 * 4, rest % 4)]
        tail = columns % lanes
        return _runs(groups, lanes, tail)

    def _packed(self, run: Panel) -> bool:
        return run.width % 4 == 0

    def _stride(self, run: Panel, lanes: int) -> int:
        """Words of one row of a packed panel."""
        return run.width * lanes * 3 // 4

    def _panel_size(self, run: Panel, lanes: int) -> int:
        if not self._packed(run):
            return super()._panel_size(run, lanes)
        return 2 * run.width * lanes + len(self.weight) * self._stride(run, lanes)

    def _kept(self, packed: Array, runs: tuple[Panel, ...], lanes: int) -> Array:
        found, done = [], 0
        for run in runs:
            size = super()._panel_size(run, lanes)
            for _ in range(run.count):
                panel = packed[done : done + size]
                found.append(_in_words(panel.reshape(len(self.weight) + 1, -1), lanes) if self._packed(run) else panel)
                done += size
        return np.concatenate(found)

    def _row(self, out: Emitter, run: Panel, depth: int, epilogue: Epilogue) -> Iterator[str]:
        if not self._packed(run):
            yield from super()._row(out, run, depth, epilogue)
            return
        width, stride = run.width, self._stride(run, out.lanes)
        parts = max(1, min(8 // width, depth))
        out.need("v_load", "v_loadi", "v_fourth", "v_tofloat", "v_set1")
        yield "        const float *restrict first = b; /* the bias, then the scale */"
        yield f"        b += {2 * width * out.lanes};"
        yield f"        vf a[{parts * width}];"
        yield f"        for (int j = 0; j < {parts * width}; j++) a[j] = v_set1(0.0f);"
        for start, stop in ((0, depth // parts * parts), (depth // parts * parts, depth)):
            if start < stop:
                yield f"        for (int k = {start}; k < {stop}; k += {parts}) {{"
                yield from self._fetch(out, stride, parts)
                yield from self._terms(width, stride, min(parts, stop - start))
                yield "        }"
        if parts > 1:
            yield f"        for (int s = 1; s < {parts}; s++)"
            yield f"            for (int j = 0; j < {width}; j++) a[j] += a[s * {width} + j];"
        scaled = f"a[j] * v_load(first + {width * out.lanes} + j * VL) + v_load(first + j * VL)"
        yield f"        for (int j = 0; j < {width}; j++) a[j] = {scaled};"
        yield from epilogue.store(out, "a", 1, width, run.tail, "p", row="0", indent="        ")

    def _terms(self, width: int, stride: int, parts: int) -> Iterator[str]:
        yield f"            for (int s = 0; s < {parts}; s++)"
        yield f"                for (int j = 0; j < {width}; j += 4) {{"
        yield f"                    const int32_t *q = (const int32_t *)(b + (k + s) * {stride} + j / 4 * 3 * VL);"
        yield "                    const vi u = v_loadi(q), v = v_loadi(q + VL), w = v_loadi(q + 2 * VL);"
        yield "                    const vf xk = v_set1(x[k + s]);"
        for i, name in enumerate("uvw"):
            yield f"                    a[s * {width} + j + {i}] += xk * v_tofloat({name});"
        yield f"                    a[s * {width} + j + 3] += xk * v_tofloat(v_fourth(u, v, w));"
        yield "                }"


def _in_words(panel: Array, lanes: int) -> Array:
    """A panel of bias and weights as it is stored.

    Shapes:  panel (1 + K, width · lanes) → 1-D
    """
    bias, weight = panel[0], panel[1:]
    exponent = _exponent(np.abs(weight).max(axis=0))
    whole = np.ldexp(weight, -exponent)
    whole = np.clip(np.sign(whole) * np.maximum(np.abs(np.rint(whole)), 1), -_LARGEST, _LARGEST)
    words = in_three_words(whole.astype(np.int64).reshape(-1, 4, lanes))
    return np.concatenate([bias, np.ldexp(np.float32(1), exponent), words.reshape(-1).view(np.float32)])


def _runs(groups: Sequence[tuple[int, int]], lanes: int, tail: int) -> tuple[Panel, ...]:
    """(start, width) in vectors → runs of equal panels; the last panel has the tail."""
    runs: list[Panel] = []
    for i, (start, width) in enumerate(groups):
        own_tail = tail if i == len(groups) - 1 else 0
        if runs and runs[-1].width == width and not own_tail:
            runs[-1] = replace(runs[-1], count=runs[-1].count + 1)
        else:
            runs.append(Panel(start * lanes, 1, width, own_tail))
    return tuple(runs)
