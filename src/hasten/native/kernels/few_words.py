"""Weights as whole numbers times their column's scale: several vectors lie in the words of one less.

All but the last are the words as they are, converted to float: the few bits at their ends are too small to matter, and
are allowed for when the weights are rounded. Those ends are the last vector, so that nothing has to be unpacked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.isa import Isa

__all__ = ["ELEVEN_BITS", "FOUR_IN_THREE", "PACKINGS", "THREE_IN_TWO", "Packing", "fits"]

_LEAST = np.float32(2.0**-69)  # so that sums of numbers of usual size are no denormals
_UNEVEN = 8.0  # times its root mean square: a column's largest weight, beyond which the others lose too much


@dataclass(frozen=True)
class Packing:
    """How so many ``terms`` share one word less; ``end``: so many bits of each word are the last term's."""

    bits: int
    terms: int
    end: int
    side_by_side: str
    """The C function that gathers the ends where shifts take in bits of a second word; and elsewhere: what the shifts
    bring along of the words' other bits is known when the ends are chosen."""
    added_up: str
    size: int = 32
    """Bits of a word."""

    @property
    def words(self) -> int:
        """Words that hold all terms."""
        return self.terms - 1

    @property
    def largest(self) -> int:
        """What is rounded to another end of its word still fits."""
        return (1 << self.size - 1) - (2 << self.end)

    def scales(self, weight: Array) -> Array:
        """Of every column: its weights over it are whole numbers.

        Shapes:  weight (K, N) → (N,)
        """
        return np.asarray(np.abs(weight).max(axis=0).astype(np.float64) / self.largest, np.float32)

    def whole_numbers(self, weight: Array) -> NDArray[np.int64]:
        """Weights over their scales, none of them zero that was not.

        Shapes:  weight (K, N) → the same
        """
        scale = self.scales(weight).astype(np.float64)
        whole = weight / np.where(scale > 0, scale, 1)
        whole = np.sign(whole) * np.maximum(np.abs(np.rint(whole)), 1)
        return np.clip(whole, -self.largest, self.largest).astype(np.int64)

    def packed(self, numbers: NDArray[np.int64], isa: Isa) -> Array:
        """Whole numbers up to ``largest`` → the words that hold all but their last bits.

        Shapes:  numbers (…, terms, lanes) → (…, words, lanes) int32 or int16
        """
        along, mask = 0 if _shifts_two(isa) else -1, (1 << self.end) - 1
        wanted = _rounded(numbers[..., -1, :], 0, self.size - self.words * self.end) & (1 << self.size) - 1
        words: list[NDArray[np.int64]] = []
        for i in range(self.words - 1, -1, -1):
            below = np.zeros_like(wanted)  # what the later words' shifts bring to where this one's end belongs
            for distance, word in enumerate(words, 1):
                below ^= word >> distance * self.end
            end = wanted >> self.size - (i + 1) * self.end ^ below & along
            words.insert(0, _rounded(numbers[..., i, :], end & mask, self.end))
        return np.stack(words, axis=-2).astype(f"int{self.size}")

    def lines(
        self, out: Emitter, place: str, factors: Sequence[str], sums: Sequence[str], term: str = ""
    ) -> Iterator[str]:
        """C that adds each factor times a vector to its sum; the words are at ``place``.

        ``term``: C of one sum, of {total}, {factor} and {vector}; else all are floats but the vectors. Fewer factors
        than terms, for the rest of a division: the words are only as many.
        """
        names = ("one", "two", "three")[: min(self.words, len(factors))]
        loads = (f"{name} = v_loadi({place}{('', ' + VL', ' + 2 * VL')[i]})" for i, name in enumerate(names))
        out.need("v_loadi", "v_tofloat")
        yield f"const vi {', '.join(loads)};"
        vectors = list(names)
        if len(factors) == self.terms:
            last = self.side_by_side if _shifts_two(out.isa) else self.added_up
            out.need(last)
            vectors.append(f"{last}({', '.join(names)})")
        for total, factor, vector in zip(sums, factors, vectors, strict=True):
            yield (term or "{total} += {factor} * v_tofloat({vector});").format(
                total=total, factor=factor, vector=vector
            )


FOUR_IN_THREE = Packing(24, 4, 8, "v_last_bytes", "v_fourth")
"""Off by about what float32 rounds a number as large as the column's largest: a sum is off by about what its additions
are off anyway."""
THREE_IN_TWO = Packing(21, 3, 11, "v_ends", "v_third")
"""Off by eight times as much, for an eighth less to read: answers are off by two to four times what float32's are."""
PACKINGS = {packing.bits: packing for packing in (FOUR_IN_THREE, THREE_IN_TWO)}
ELEVEN_BITS = Packing(11, 3, 5, "v_third_16", "v_third_16", size=16)
"""Another precision: off by 5e-4 of the column's largest, every third weight by 1e-3."""


def fits(weight: Array) -> bool:
    """True where no weight of ``PACKINGS`` loses much of itself.

    Shapes:  weight (K, N)
    """
    # a weight of zero would have to stay zero: an infinity times it is no number
    if not weight.size or not weight.all():
        return False
    largest, usual = np.abs(weight).max(axis=0), np.sqrt(np.square(weight, dtype=np.float64).mean(axis=0))
    even = bool(np.isfinite(usual).all() and (largest <= _UNEVEN * usual).all())
    return even and largest.min() >= _LEAST


def _shifts_two(isa: Isa) -> bool:
    """True where shifts take in bits of a second word."""
    return "vbmi2" in isa.features


def _rounded(numbers: NDArray[np.int64], end: NDArray[np.int64] | int, bits: int) -> NDArray[np.int64]:
    """The nearest numbers of the same sign whose last ``bits`` are ``end``; an infinity makes the same of them."""
    step = 1 << bits
    found: NDArray[np.int64] = ((numbers - end + step // 2) >> bits << bits) + end
    found += step * ((numbers > 0) & (found <= 0))
    found -= step * ((numbers < 0) & (found >= 0))
    return found
