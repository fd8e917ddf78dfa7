"""Weights as whole numbers of about 24 bits times their column's scale, a power of two: four vectors in three words.

Such a weight differs from the float32 that it was by about what float32 rounds a number as large as the column's
largest, so that a sum is off by about what its additions are off anyway. Three vectors are the words as they are: the
last eight bits are too small to matter. They are the fourth vector's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.isa import Isa

__all__ = ["fits", "four_terms", "in_three_words", "packed", "scales"]

_LARGEST = 2**31 - 2**8  # what is rounded to another last byte still fits
_LEAST_EXPONENT = -100  # so that sums of numbers of usual size are no denormals
_UNEVEN = 8.0  # times its root mean square: a column's largest weight, beyond which the others lose too much


def fits(weight: Array) -> bool:
    """True where answers stay as exact as those of float32.

    Shapes:  weight (K, N)
    """
    # a weight of zero would have to stay zero: an infinity times it is no number
    if not weight.size or not weight.all():
        return False
    largest, usual = np.abs(weight).max(axis=0), np.sqrt(np.square(weight, dtype=np.float64).mean(axis=0))
    even = bool(np.isfinite(usual).all() and (largest <= _UNEVEN * usual).all())
    return even and _exponent(largest).min() >= _LEAST_EXPONENT


def scales(weight: Array) -> Array:
    """Of every column: its weights over it are whole numbers of 32 bits.

    Shapes:  weight (K, N) → (N,)
    """
    return np.ldexp(np.float32(1), _exponent(np.abs(weight).max(axis=0)))


def packed(weight: Array, lanes: int, isa: Isa) -> NDArray[np.int32]:
    """Weights over their scales as words, four vectors next to each other in the words of three.

    Shapes:  weight (K, N), N a multiple of 4 · lanes → (K, N · 3 / 4)
    """
    whole = np.ldexp(weight, -_exponent(np.abs(weight).max(axis=0)))
    whole = np.clip(np.sign(whole) * np.maximum(np.abs(np.rint(whole)), 1), -_LARGEST, _LARGEST)
    four = whole.astype(np.int64).reshape(len(weight), -1, 4, lanes)
    return in_three_words(four, side_by_side=_side_by_side(isa)).reshape(len(weight), -1)


def four_terms(out: Emitter, place: str, factor: str, sums: Sequence[str]) -> Iterator[str]:
    """C that adds ``factor`` times four vectors to ``sums``; their words are at ``place``, whole numbers of 32 bits."""
    fourth = "v_last_bytes" if _side_by_side(out.isa) else "v_fourth"
    out.need("v_loadi", "v_tofloat", fourth)
    yield f"const vi one = v_loadi({place}), two = v_loadi({place} + VL), three = v_loadi({place} + 2 * VL);"
    for total, word in zip(sums, ("one", "two", "three", f"{fourth}(one, two, three)"), strict=True):
        yield f"{total} += {factor} * v_tofloat({word});"


def in_three_words(four: NDArray[np.int64], *, side_by_side: bool) -> NDArray[np.int32]:
    """Numbers of 32 bits, four vectors → the three vectors of words that hold all but their last bits.

    The fourth is the words' last bytes, ``side_by_side``; or what they add up to without carry, shifted by 24, 16 and
    8 bits, where taking single bytes costs more: what the shifts bring along of the other bytes is known when the last
    bytes are chosen.

    Shapes:  four (…, 4, lanes), each within ±(2**31 - 2**8) → (…, 3, lanes)
    """
    first, second, third, fourth = (four[..., i, :] for i in range(4))
    wanted = _rounded(fourth, 0) & 0xFFFFFFFF
    along = 0 if side_by_side else -1
    third = _rounded(third, wanted >> 8 & 0xFF)
    second = _rounded(second, (wanted >> 16 ^ third >> 8 & along) & 0xFF)
    first = _rounded(first, (wanted >> 24 ^ (second >> 8 ^ third >> 16) & along) & 0xFF)
    return np.stack([first, second, third], axis=-2).astype(np.int32)


def _side_by_side(isa: Isa) -> bool:
    """True where shifts take in bytes of a second word."""
    return "vbmi2" in isa.features


def _exponent(largest: Array) -> NDArray[np.int64]:
    """Of the scale by which numbers up to ``largest`` become whole ones of 32 bits."""
    return np.frexp(largest)[1].astype(np.int64) - 31


def _rounded(numbers: NDArray[np.int64], last: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """The nearest numbers of the same sign that end in the byte ``last``; an infinity makes the same of them."""
    found: NDArray[np.int64] = ((numbers - last + 128) >> 8 << 8) + last
    found += 256 * ((numbers > 0) & (found <= 0))
    found -= 256 * ((numbers < 0) & (found >= 0))
    return found
