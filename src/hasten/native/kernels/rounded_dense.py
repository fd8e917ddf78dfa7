"""One row times weights of 11 bits: whole numbers of 16 bits, three in two words, meet activations rounded to 12 bits.

For a model whose tolerance int8 misses: a fifth of its error, for a third more to read; and less of both than bfloat16.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hasten.native.epilogue import Epilogue
from hasten.native.kernels.dense import AHEAD_BYTES, Panel
from hasten.native.kernels.far_dense import FarDense
from hasten.native.kernels.few_words import ELEVEN_BITS, Packing
from hasten.native.kernels.word_product import UNIT, UNIT_C
from hasten.native.plan import ALIGNMENT
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.isa import Isa

__all__ = ["RoundedDense"]

_MOST = 2047  # of an activation as a whole number
_INT32 = 2**31 - 1


@dataclass(eq=False)
class RoundedDense(FarDense):
    """``y = epilogue(x · weight + bias)``, x as whole numbers up to ±2047 times a scale of the row.

    A panel is ``[bias][scale][group of three pairs of inputs][vector][word][lane][2]``.

    Shapes:  x (1, K) · weight (K, N)
    """

    packing: Packing = ELEVEN_BITS

    def _words(self) -> int:
        return self._groups() * self.packing.words

    def _groups(self) -> int:
        return -(-len(self.weight) // (2 * self.packing.terms))

    def _scales(self, weight: Array) -> Array:
        return super()._scales(weight) / np.float32(UNIT)

    def _packed(self, weight: Array, isa: Isa) -> Array:
        groups, terms, lanes = self._groups(), self.packing.terms, isa.lanes
        even = np.zeros((groups * terms * 2, weight.shape[1]), np.int64)
        even[: len(weight)] = self.packing.whole_numbers(weight)
        pairs = even.reshape(groups, terms, 2, -1, lanes).transpose(0, 3, 1, 4, 2)
        words = self.packing.packed(pairs.reshape(*pairs.shape[:3], 2 * lanes), isa)
        return np.ascontiguousarray(words).reshape(-1).view(np.int32)

    def _together(self) -> int:
        """Groups that 32 bits can sum, whatever the activations."""
        inputs = 2 * self.packing.terms
        size = np.zeros((self._groups() * inputs, self.weight.shape[1]), np.int64)
        size[: len(self.weight)] = np.abs(self.packing.whole_numbers(self.weight)) + (1 << self.packing.end)
        total = size.reshape(self._groups(), inputs, -1).sum(axis=1).cumsum(axis=0)
        for count in range(len(total), 0, -1):
            until = total[[*range(count - 1, len(total) - 1, count), -1]]
            if int(np.diff(until, axis=0, prepend=0).max(initial=0)) * _MOST <= _INT32:
                return count
        raise AssertionError("six products always fit")

    def _opening(self, out: Emitter) -> Iterator[str]:
        depth, lanes, inputs = len(self.weight), out.lanes, 2 * self.packing.terms * self._groups()
        room = max(inputs, -(-depth // lanes) * lanes)
        out.need("v_row_words")
        yield f"    int16_t q[{room}]; /* x in whole numbers of its scale */"
        yield f"    const float size = v_row_words(x, {depth}, {_MOST}, q);"
        rounded = -(-depth // lanes) * lanes
        if inputs > rounded:
            yield f"    for (int k = {rounded}; k < {inputs}; k++) q[k] = 0;"

    def _row(self, out: Emitter, run: Panel, depth: int, epilogue: Epilogue) -> Iterator[str]:
        width, terms, groups, together = run.width, self.packing.terms, self._groups(), self._together()
        sums, stride = min(terms, max(1, 8 // width)), self.packing.words * width * out.lanes
        out.need("v_load", "v_set1", "v_set1i", "v_dup2", "v_dot2", "v_row_thirds", "unroll")
        yield "        const float *restrict first = b; /* the bias, then the scale */"
        yield f"        const int32_t *const words = (const int32_t *)(b + {2 * width * out.lanes}), *w = words;"
        yield f"        vf s[{width}];"
        yield f"        for (int j = 0; j < {width}; j++) s[j] = v_set1(0.0f);"
        yield f"        for (int from = 0; from < {groups}; from += {together}) {{ /* as many as 32 bits can sum */"
        yield f"            const int to = from + {together} < {groups} ? from + {together} : {groups};"
        yield f"            vi a[{sums * width}];"
        yield f"            for (int j = 0; j < {sums * width}; j++) a[j] = v_set1i(0);"
        yield f"            for (int k = from; k < to; k++, w += {stride}) {{"
        if self._reads_ahead(out):
            ahead, line = AHEAD_BYTES // 4, ALIGNMENT // 4
            yield f"                for (int j = 0; j < {stride}; j += {line}) __builtin_prefetch(w + {ahead} + j);"
        names = [f"x{t}" for t in range(terms)]
        pairs = (f"{name} = v_dup2(q + {2 * terms} * k{f' + {2 * t}' if t else ''})" for t, name in enumerate(names))
        yield f"                const vi {', '.join(pairs)};"
        yield f"                UNROLL for (int j = 0; j < {width}; j++) {{"
        totals = [f"a[{t % sums * width} + j]" if t % sums else "a[j]" for t in range(terms)]
        place = f"w + {self.packing.words} * j * VL"
        term = "{total} = v_dot2({total}, {factor}, {vector});"
        yield from (f"                    {line}" for line in self.packing.lines(out, place, names, totals, term))
        yield "                }"
        yield "            }"
        if sums > 1:
            yield f"            for (int t = 1; t < {sums}; t++)"
            yield f"                for (int j = 0; j < {width}; j++) a[j] += a[t * {width} + j];"
        yield f"            for (int j = 0; j < {width}; j++) s[j] += v_tofloat(a[j]) * {UNIT_C};"
        yield "        }"
        yield f"        for (int j = 0; j < {width}; j++) s[j] *= v_set1(size);"
        yield "        if (__builtin_expect(size != size, 0)) /* only float32 tells whom an infinity reaches */"
        yield f"            v_row_thirds(x, {depth}, words, {width}, {UNIT_C}, s);"
        scaled = f"s[j] * v_load(first + {width * out.lanes} + j * VL) + v_load(first + j * VL)"
        yield f"        for (int j = 0; j < {width}; j++) s[j] = {scaled};"
        yield from epilogue.store(out, "s", 1, width, run.tail, "p", row="0", indent="        ")
