"""Products of a recurrent layer's state with its weights: how these are kept, and the C of one block of units.

A block is one vector of units with all its gates. Its sums are ``a[gate]``, begun with what the inputs gave; ``h`` is
the state, ``depth`` its length (0 at a first step from zero), ``back`` whether this step walks the weights backwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hasten.native.kernels.few_words import FOUR_IN_THREE
from hasten.native.kernels.recurrent_weights import interleave, pack_hidden
from hasten.native.kernels.storage import LOADS, WEIGHT_TYPES, stored
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.kernels.recurrent import Recurrent

__all__ = ["Products", "products_of"]


def products_of(step: Recurrent, out: Emitter, gates: int, padded: int) -> Products:
    """Those for the way in which the step's weights are kept."""
    if step.scale is not None:
        return _Bytes(step, out, gates, padded)
    if step.storage == "bfloat16" and not step.resets_before:
        return _Halves(step, out, gates, padded)
    return (_ThreeWords if step.storage == "int24" else Products)(step, out, gates, padded)


@dataclass
class Products:
    """Weights one by one, ``[vector of units][from][gate][lane]``: float32, or widened while they are loaded."""

    step: Recurrent
    out: Emitter
    gates: int
    padded: int
    """Units up to a whole vector."""

    @property
    def kept(self) -> str:
        """The C type of the weights."""
        return WEIGHT_TYPES[self.step.storage]

    @property
    def each(self) -> str:
        """C that walks over the gates."""
        return f"for (int j = 0; j < {self.gates}; j++)"

    def unit_weights(self) -> int:
        """Elements that one unit's weights take."""
        return self.gates * self.step.units

    def scale(self) -> Array | None:
        """What the sums are to be multiplied with, one by one, gate-major; None where they are whole.

        Shapes:  (G · H,)
        """
        return None

    def weights(self) -> Array:
        """The weights of the state as they are kept."""
        return stored(pack_hidden(self.step.hidden, self.gates, self.padded, self.out.lanes), self.step.storage)

    def before(self) -> list[str]:
        """C ahead of all blocks of a time step."""
        return []

    def lines(self) -> list[str]:
        """C that adds h · R to ``a``, two k at a time so that sums need not wait for each other."""
        last = self._terms("a", "v_set1(*hk)", "rk")
        return [*self._walk("a", last), f"        {self.each} a[j] += o[j];"]

    def _walk(self, sums: str, last: list[str]) -> list[str]:
        row = self.unit_weights() // self.step.units
        return [
            "        const float *hk = back ? h + depth - 1 : h;",
            f"        const {self.kept} *rk = back ? r + (depth - 1) * {row} * VL : r;",
            f"        const long hop = back ? -1 : 1, skip = hop * {row} * VL;",
            f"        vf o[{self.gates}]{f', {sums}[{self.gates}]' if sums != 'a' else ''};",
            f"        {self.each} o[j] = {f'{sums}[j] = ' if sums != 'a' else ''}v_set1(0.0f);",
            "        for (int k = 0; k < depth / 2; k++, hk += 2 * hop, rk += 2 * skip) {",
            "            const vf v = v_set1(hk[0]), u = v_set1(hk[hop]);",
            *(f"            {line}" for line in self._terms(sums, "v", "rk")),
            *(f"            {line}" for line in self._terms("o", "u", "rk + skip")),
            "        }",
            f"        if (depth & 1) {last[0]}",
            *(f"        {line}" for line in last[1:]),
        ]

    def _terms(self, sums: str, factor: str, place: str) -> list[str]:
        """C that adds ``factor`` times the weights at ``place`` to ``sums``, as one statement."""
        load = LOADS[self.step.storage]
        self.out.need(load)
        return [f"{self.each} {sums}[j] += {factor} * {load}({place} + j * VL);"]


class _ThreeWords(Products):
    """The four gates of an LSTM in 24 bits, ``[vector of units][from][three words][lane]``."""

    def unit_weights(self) -> int:
        return 3 * self.step.units

    def scale(self) -> Array:
        return FOUR_IN_THREE.scales(self.step.hidden.reshape(self.step.units, -1))

    def weights(self) -> Array:
        step, lanes = self.step, self.out.lanes
        flat = interleave(step.hidden.reshape(step.units, -1), self.gates, self.padded, lanes)
        numbers = FOUR_IN_THREE.whole_numbers(flat).reshape(step.units, self.padded // lanes, self.gates, lanes)
        words = FOUR_IN_THREE.packed(numbers, self.out.isa)
        return np.ascontiguousarray(words.swapaxes(0, 1))

    def lines(self) -> list[str]:
        last = self._terms("m", "v_set1(*hk)", "rk")
        scaled = f"a[j] += v_load(f + u * {self.gates} + j * VL) * (m[j] + o[j]);"
        return [*self._walk("m", last), f"        {self.each} {scaled}"]

    def _terms(self, sums: str, factor: str, place: str) -> list[str]:
        terms = FOUR_IN_THREE.lines(self.out, place, [factor] * 4, [f"{sums}[{j}]" for j in range(4)])
        return ["{", *(f"    {line}" for line in terms), "}"]


class _Paired(Products):
    """Two k side by side, ``[vector of units][pair][gate][lane][2]``; a zero after an odd last one."""

    def unit_weights(self) -> int:
        return self.gates * (self.step.units + self.step.units % 2)

    def _pairs(self) -> Array:
        step, lanes = self.step, self.out.lanes
        pairs = -(-step.units // 2)
        even = np.zeros((2 * pairs, *step.hidden.shape[1:]), np.float32)
        even[: step.units] = step.hidden
        two = pack_hidden(even, self.gates, self.padded, lanes).reshape(self.padded // lanes, pairs, 2, -1)
        return np.ascontiguousarray(two.transpose(0, 1, 3, 2))


class _Halves(_Paired):
    """bfloat16: two of a word are cheaper to widen than halves of a vector."""

    def weights(self) -> Array:
        return stored(self._pairs(), "bfloat16")

    def lines(self) -> list[str]:
        self.out.need("v_loadi", "v_low_bf16", "v_high_bf16")
        row = 2 * self.gates
        last = f"const vi two = v_loadi((const int32_t *)(r + (depth / 2 * {row} + 2 * j) * VL));"
        return [
            "        const float *hk = back ? h + depth / 2 * 2 - 2 : h;",
            f"        const uint16_t *rk = back ? r + (depth / 2 - 1) * {row} * VL : r;",
            f"        const long hop = back ? -2 : 2, skip = hop * {self.gates} * VL;",
            f"        vf o[{self.gates}];",
            f"        {self.each} o[j] = v_set1(0.0f);",
            "        for (int k = 0; k < depth / 2; k++, hk += hop, rk += skip) {",
            "            const vf v = v_set1(hk[0]), u = v_set1(hk[1]);",
            f"            {self.each} {{",
            "                const vi two = v_loadi((const int32_t *)(rk + 2 * j * VL));",
            "                a[j] += v * v_low_bf16(two);",
            "                o[j] += u * v_high_bf16(two);",
            "            }",
            "        }",
            "        if (depth & 1)",
            f"            {self.each} {{",
            f"                {last}",
            "                a[j] += v_set1(h[depth - 1]) * v_low_bf16(two);",
            "            }",
            f"        {self.each} a[j] += o[j];",
        ]


class _Bytes(_Paired):
    """int8 with one scale a gate and unit; the state as two whole numbers a value, as exact as float32 is."""

    @property
    def kept(self) -> str:
        return WEIGHT_TYPES["int8"]

    def scale(self) -> Array | None:
        return self.step.scale

    def weights(self) -> Array:
        return self._pairs().astype(np.int8)

    def before(self) -> list[str]:
        """The state as sums of two 16-bit words times ``size``."""
        self.out.need("v_words_2", "v_row", "v_load_pairs", "v_dup2", "v_dot2", "v_set1i", "v_tofloat")
        room = -(-self.step.units // max(2, self.out.lanes)) * max(2, self.out.lanes)
        return [f"    int16_t high[{room}], low[{room}];", "    const float size = v_words_2(h, depth, high, low);"]

    def lines(self) -> list[str]:
        each, width = self.each, self.gates
        scale = f"v_load(f + u * {width} + j * VL)"
        return [
            "        if (__builtin_expect(size != size, 0)) { /* only float32 tells whom an infinity reaches */",
            f"            vf found[{width}];",
            f"            v_row(h, depth, r, {width}, 0x1p-24f, found);",
            f"            {each} a[j] += {scale} * found[j] * 0x1p24f;",
            "        } else {",
            f"            vi o[{width}], m[{width}];",
            f"            {each} o[j] = m[j] = v_set1i(0);",
            f"            for (int k = 0; k < (depth + 1) / 2; k++, r += {2 * width} * VL) {{",
            "                const vi two = v_dup2(high + 2 * k), small = v_dup2(low + 2 * k);",
            f"                {each} o[j] = v_dot2(o[j], two, v_load_pairs(r + j * 2 * VL));",
            f"                {each} m[j] = v_dot2(m[j], small, v_load_pairs(r + j * 2 * VL));",
            "            }",
            f"            {each} {{",
            "                const vf sum = v_tofloat(o[j]) + v_tofloat(m[j]) * 0x1p-15f;",
            f"                a[j] += {scale} * sum * size;",
            "            }",
            "        }",
        ]
