"""One row times weights, or a state times its own, that no cache next to the core holds: stored in fewer bits.

Reading them is all there is to such a product. ``few_words`` says how they lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hasten.native.epilogue import Epilogue
from hasten.native.kernels.dense import AHEAD_BYTES, Dense, Panel
from hasten.native.kernels.few_words import FOUR_IN_THREE, PACKINGS, Packing, fits
from hasten.native.kernels.recurrent import Recurrent
from hasten.native.plan import ALIGNMENT
from hasten.native.program import Program, Step
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.isa import Isa

__all__ = ["FarDense", "kept_far"]

_LEAST_WEIGHTS = 1 << 14
_LEAST_STATE_BYTES = 192 << 10  # of fewer, the first cache still has many from the step before


def kept_far(program: Program, isa: Isa, threads: int, bits: int = 24) -> Program:
    """The program with the weights of single rows and of states in fewer bits, where the near caches do not hold them.

    ``bits``: of the weights of single rows, one of ``PACKINGS``. Measured on x86-64 alone: elsewhere nothing changes.
    """
    held = program.weight_bytes <= threads * isa.near_bytes
    if isa.arch != "x86_64" or "fma" not in isa.features or held:
        return program
    return replace(program, steps=[_far(step, isa, threads, PACKINGS[bits]) for step in program.steps])


def _far(step: Step, isa: Isa, threads: int, packing: Packing) -> Step:
    near = threads * isa.near_bytes
    if type(step) is Dense:
        large = step.weight.size >= _LEAST_WEIGHTS and step.weight.shape[1] >= 4 * isa.lanes
        if step.rows == 1 and step.storage == "float32" and large and fits(step.weight):
            return FarDense(step.x, step.y, step.weight, step.bias, step.epilogue, packing=packing, nodes=step.nodes)
    # They are read at every step; the gates of a unit are the four vectors.
    elif type(step) is Recurrent and step.cell.kind == "LSTM" and step.storage == "float32" and step.scale is None:
        far = step.hidden.nbytes > max(near, threads * _LEAST_STATE_BYTES)
        return replace(step, storage="int24") if far and fits(step.hidden.reshape(step.units, -1)) else step
    return step


@dataclass(eq=False)
class FarDense(Dense):
    """``y = epilogue(x · weight + bias)``; what several inputs weigh shares the words of one input less.

    A panel is ``[bias][scale][group of inputs][vector][word]``; the last group may have fewer inputs, each a word.

    Shapes:  x (1, K) · weight (K, N), no zero among them
    """

    packing: Packing = FOUR_IN_THREE

    @property
    def title(self) -> str:
        """Sizes and epilogue."""
        depth, columns = self.weight.shape
        return f"{depth} -> {columns}, weights in {self.packing.bits} bits{self._epilogue.title}"

    def others(self, isa: Isa) -> tuple[Step, ...]:
        """None: timed alone, it would run from the near caches."""
        return ()

    def _words(self) -> int:
        """Words of one column."""
        groups, rest = divmod(len(self.weight), self.packing.terms)
        return groups * self.packing.words + rest

    def _panel_size(self, run: Panel, lanes: int) -> int:
        return (2 + self._words()) * run.width * lanes

    def _kept(self, values: Array, runs: tuple[Panel, ...], isa: Isa) -> Array:
        found: list[Array] = []
        done = 0
        for run in runs:
            size = super()._panel_size(run, isa.lanes)
            for _ in range(run.count):
                bias, *_ = rows = values[done : done + size].reshape(len(self.weight) + 1, -1)
                words = self._packed(rows[1:], isa)
                found += [bias, self._scales(rows[1:]), words.view(np.float32)]
                done += size
        return np.concatenate(found)

    def _scales(self, weight: Array) -> Array:
        """Of a panel's sums."""
        return self.packing.scales(weight)

    def _packed(self, weight: Array, isa: Isa) -> Array:
        """A panel's weights as words."""
        terms, lanes = self.packing.terms, isa.lanes
        even = np.zeros((-(-len(weight) // terms) * terms, weight.shape[1]), np.int64)
        even[: len(weight)] = self.packing.whole_numbers(weight)
        groups = even.reshape(-1, terms, weight.shape[1] // lanes, lanes).swapaxes(1, 2)
        words = self.packing.packed(groups, isa)
        whole, rest = divmod(len(weight), terms)
        return np.concatenate([words[:whole].reshape(-1), words[whole:, :, :rest].reshape(-1)])

    def _row(self, out: Emitter, run: Panel, depth: int, epilogue: Epilogue) -> Iterator[str]:
        width, terms = run.width, self.packing.terms
        whole, rest = divmod(depth, terms)
        sums = min(terms, max(1, 8 // width))
        stride = self.packing.words * width * out.lanes
        out.need("v_load", "v_set1", "unroll")
        yield "        const float *restrict first = b; /* the bias, then the scale */"
        yield f"        const int32_t *restrict q = (const int32_t *)(b + {2 * width * out.lanes});"
        yield f"        vf a[{sums * width}];"
        yield f"        for (int j = 0; j < {sums * width}; j++) a[j] = v_set1(0.0f);"
        if whole:
            yield f"        for (int k = 0; k < {whole * terms}; k += {terms}, q += {stride}) {{"
            if self._reads_ahead(out):
                ahead, line = AHEAD_BYTES // 4, ALIGNMENT // 4
                yield f"            for (int j = 0; j < {stride}; j += {line}) __builtin_prefetch(q + {ahead} + j);"
            yield from self._terms(out, width, sums, ["k", *(f"k + {t}" for t in range(1, terms))])
            yield "        }"
        if rest:
            yield "        {"
            yield from self._terms(out, width, sums, [str(whole * terms + t) for t in range(rest)])
            yield "        }"
        if sums > 1:
            yield f"        for (int s = 1; s < {sums}; s++)"
            yield f"            for (int j = 0; j < {width}; j++) a[j] += a[s * {width} + j];"
        scaled = f"a[j] * v_load(first + {width * out.lanes} + j * VL) + v_load(first + j * VL)"
        yield f"        for (int j = 0; j < {width}; j++) a[j] = {scaled};"
        yield from epilogue.store(out, "a", 1, width, run.tail, "p", row="0", indent="        ")

    def _terms(self, out: Emitter, width: int, sums: int, inputs: list[str]) -> Iterator[str]:
        """Adds what so many inputs weigh, one group."""
        factors = [f"x{i}" for i in range(len(inputs))]
        made = (f"{factor} = v_set1(x[{k}])" for factor, k in zip(factors, inputs, strict=True))
        yield f"            const vf {', '.join(made)};"
        yield f"            UNROLL for (int j = 0; j < {width}; j++) {{"
        yield f"                const int32_t *const w = q + j * {min(len(inputs), self.packing.words)} * VL;"
        places = [f"a[{t % sums * width} + j]" if t % sums else "a[j]" for t in range(len(inputs))]
        yield from (f"                {line}" for line in self.packing.lines(out, "w", factors, places))
        yield "            }"
