"""One row times weights, or a state times its own, that no cache next to the core holds: stored in 24 bits.

Reading them is all there is to such a product. ``three_words`` says how they lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from hasten.native.epilogue import Epilogue
from hasten.native.kernels.dense import Dense, Panel
from hasten.native.kernels.recurrent import Recurrent
from hasten.native.kernels.three_words import fits, four_terms, packed, scales
from hasten.native.program import Program, Step
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.isa import Isa

__all__ = ["FarDense", "kept_far"]

_LEAST_WEIGHTS = 1 << 14
_LEAST_STATE_BYTES = 192 << 10  # of fewer, the first cache still has many from the step before


def kept_far(program: Program, isa: Isa, threads: int) -> Program:
    """The program with the weights of single rows and of states in 24 bits, where the near caches do not hold them.

    Measured on x86-64 alone: elsewhere nothing changes.
    """
    held = program.weight_bytes <= threads * isa.near_bytes
    if isa.arch != "x86_64" or "fma" not in isa.features or held:
        return program
    return replace(program, steps=[_far(step, isa, threads) for step in program.steps])


def _far(step: Step, isa: Isa, threads: int) -> Step:
    near = threads * isa.near_bytes
    if type(step) is Dense:
        large = step.weight.size >= _LEAST_WEIGHTS and step.weight.shape[1] >= 4 * isa.lanes
        if step.rows == 1 and step.storage == "float32" and large and fits(step.weight):
            return FarDense(step.x, step.y, step.weight, step.bias, step.epilogue, nodes=step.nodes)
    # They are read at every step; the gates of a unit are the four vectors.
    elif type(step) is Recurrent and step.cell.kind == "LSTM" and step.storage == "float32" and step.scale is None:
        far = step.hidden.nbytes > max(near, threads * _LEAST_STATE_BYTES)
        return replace(step, storage="int24") if far and fits(step.hidden.reshape(step.units, -1)) else step
    return step


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

    def _kept(self, values: Array, runs: tuple[Panel, ...], isa: Isa) -> Array:
        found: list[Array] = []
        done = 0
        for run in runs:
            size = super()._panel_size(run, isa.lanes)
            for _ in range(run.count):
                panel = values[done : done + size]
                if self._packed(run):
                    bias, *_ = rows = panel.reshape(len(self.weight) + 1, -1)
                    words = packed(rows[1:], isa.lanes, isa)
                    found += [bias, scales(rows[1:]), words.reshape(-1).view(np.float32)]
                else:
                    found.append(panel)
                done += size
        return np.concatenate(found)

    def _row(self, out: Emitter, run: Panel, depth: int, epilogue: Epilogue) -> Iterator[str]:
        if not self._packed(run):
            yield from super()._row(out, run, depth, epilogue)
            return
        width, stride = run.width, self._stride(run, out.lanes)
        parts = max(1, min(8 // width, depth))
        out.need("v_load", "v_set1")
        yield "        const float *restrict first = b; /* the bias, then the scale */"
        yield f"        b += {2 * width * out.lanes};"
        yield f"        vf a[{parts * width}];"
        yield f"        for (int j = 0; j < {parts * width}; j++) a[j] = v_set1(0.0f);"
        for start, stop in ((0, depth // parts * parts), (depth // parts * parts, depth)):
            if start < stop:
                yield f"        for (int k = {start}; k < {stop}; k += {parts}) {{"
                yield from self._fetch(out, stride, parts)
                yield from self._terms(out, width, stride, min(parts, stop - start))
                yield "        }"
        if parts > 1:
            yield f"        for (int s = 1; s < {parts}; s++)"
            yield f"            for (int j = 0; j < {width}; j++) a[j] += a[s * {width} + j];"
        scaled = f"a[j] * v_load(first + {width * out.lanes} + j * VL) + v_load(first + j * VL)"
        yield f"        for (int j = 0; j < {width}; j++) a[j] = {scaled};"
        yield from epilogue.store(out, "a", 1, width, run.tail, "p", row="0", indent="        ")

    def _terms(self, out: Emitter, width: int, stride: int, parts: int) -> Iterator[str]:
        yield f"            for (int s = 0; s < {parts}; s++)"
        yield f"                for (int j = 0; j < {width}; j += 4) {{"
        yield f"                    const int32_t *q = (const int32_t *)(b + (k + s) * {stride} + j / 4 * 3 * VL);"
        yield "                    const vf xk = v_set1(x[k + s]);"
        sums = [f"a[s * {width} + j + {i}]" for i in range(4)]
        yield from (f"                    {line}" for line in four_terms(out, "q", "xk", sums))
        yield "                }"


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
