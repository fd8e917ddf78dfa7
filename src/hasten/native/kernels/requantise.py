"""32-bit sums of byte products back to bytes: one multiplication, one addition and two conversions a sum.

The conversion to whole numbers rounds to nearest, ties to even, as ONNX says; packing four vectors of sums into one of
bytes saturates, so that nothing else is needed where the bounds are those of the bytes.

Source: ONNX operators QuantizeLinear-24, QLinearConv-10.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter

__all__ = ["LARGEST", "Requantise", "Rounding", "packed"]

LARGEST = 2.0**31 - 2**8  # of all float32 below 2^31


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


@dataclass(frozen=True)
class Rounding:
    """Writes the C of one ``Requantise``, over vectors of sums; ``most``: the largest sum there can be, a channel.

    The arrays ``f`` and ``o`` of the function hold factors and offsets in the order of the vectors' lanes.
    """

    out: Emitter
    found: Requantise
    dtype: str
    most: Array

    @property
    def _wide(self) -> bool:
        """True where a scaled sum may leave int32."""
        scaled = np.abs(self.most * self.found.factor.astype(np.float64)) + np.abs(self.found.offset)
        return bool(scaled.max(initial=0) >= LARGEST)

    def _scaled(self, acc: str, at: str, bounds: tuple[float, float] | None) -> str:
        self.out.need("v_tofloat", "v_toint", "v_load")
        value = f"v_tofloat({acc}) * v_load(f + {at}) + v_load(o + {at})"
        if bounds is None:
            return f"v_toint({value})"
        self.out.need("v_min", "v_max", "v_set1")
        least, most = (f"v_set1({self.out.number(b)})" for b in bounds)
        return f"v_toint(v_max({least}, v_min({most}, {value})))"

    def four(self, accs: list[str], at: list[str], *, in_line: bool) -> str:
        """The vector of bytes of four vectors of sums; ``in_line``: in their own order, not that of ``v_quads``."""
        bounds = (-LARGEST, LARGEST) if self._wide else None
        values = [self._scaled(a, place, bounds) for a, place in zip(accs, at, strict=True)]
        found = self.found
        return packed(self.out, self.dtype, values, (found.zero, found.low, found.high), in_line=in_line)

    def one(self, acc: str, at: str, place: str, count: str) -> Iterator[str]:
        """Statements that store one vector of sums, ``count`` lanes of it."""
        found = self.found
        self.out.need("v_set1i", "v_store_b")
        bounds = float(found.low - found.zero), float(found.high - found.zero)
        value = self._scaled(acc, at, bounds)
        yield f"v_store_b({place}, {value} + v_set1i({found.zero}), {count});"


def packed(out: Emitter, dtype: str, values: list[str], ends: tuple[int, int, int], *, in_line: bool) -> str:
    """Four vectors of whole numbers, ``zero`` added, as a vector of bytes from ``low`` to ``high`` (together ``ends``).

    ``in_line``: in their own order, not that of ``v_quads``.
    """
    (zero, low, high), kind = ends, "u8" if dtype == "uint8" else "i8"
    out.need(f"v_pack_{kind}")
    value = f"v_pack_{kind}((const vi[4]){{{', '.join(values)}}}, {zero})"
    if in_line and out.lanes > 4:
        out.need("v_in_line")
        value = f"v_in_line({value})"
    limits = np.iinfo(dtype)
    for op, bound, end in (("max", low, limits.min), ("min", high, limits.max)):
        if bound != end:
            out.need(f"v_{op}_{kind}", "v_set1b")
            value = f"v_{op}_{kind}({value}, v_set1b({bound}))"
    return value
