"""Sums of two tensors of bytes, each with its own scale, as bytes: what a residual connection is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hasten.native.kernels.requantise import packed
from hasten.native.program import Step, View

if TYPE_CHECKING:
    from hasten.native.emit import Emitter

__all__ = ["Blend", "ByteSum"]


@dataclass(frozen=True)
class Blend:
    """``y = clamp(round(x · first + other · second + offset) + zero, low, high)``, x and other as they are held."""

    first: float
    second: float
    offset: float
    zero: int
    low: int
    high: int


@dataclass(eq=False)
class ByteSum(Step):
    """``y`` = a blend of x and other.

    Shapes:  x, other, y dense in the same order
    """

    x: View
    other: View
    y: View
    blend: Blend
    READS = ("x", "other")
    WRITES = ("y",)

    @property
    def title(self) -> str:
        """How many."""
        return f"int8 sums of two times {self.y.size}"

    def emit(self, out: Emitter) -> None:
        """One loop over vectors of bytes, and what is left."""
        out.need("v_set1", "v_toint", "v_storeb")
        size, wide, blend = self.y.size, 4 * out.lanes, self.blend
        signature = [
            (f"const {self.x.dtype}_t *restrict x", out.pointer(self.x)),
            (f"const {self.other.dtype}_t *restrict other", out.pointer(self.other)),
            ("uint8_t *restrict y", f"(uint8_t *)({out.pointer(self.y)})"),
        ]
        count, left = size // wide, size % wide
        split = out.splits(2 * size)
        low, high = (f"{count} * part / parts", f"{count} * (part + 1) / parts") if split else ("0", str(count))
        numbers = (("first", blend.first), ("second", blend.second), ("offset", blend.offset))
        lines = [
            *(["(void)flags;"] if split else []),
            *(f"const vf {name} = v_set1({out.number(value)});" for name, value in numbers),
        ]
        if count:
            lines += [f"for (int i = {low}; i < {high}; i++) {{", f"    const int at = i * {wide};"]
            lines += [f"    v_storeb(y + at, {self._packed(out, 'at', wide)});", "}"]
        if left:
            out.need("v_storeb_n")
            start = str(count * wide)
            guard = "if (part == parts - 1) " if split else ""
            lines.append(f"{guard}v_storeb_n(y + {start}, {self._packed(out, start, left)}, {left});")
        out.function("bytesum", self.title, signature, "\n".join(f"    {line}" for line in lines), split=split)

    def _packed(self, out: Emitter, at: str, count: int) -> str:
        """A vector of results, ``count`` bytes of it asked for."""
        blend, sums = self.blend, []
        for j in range(4):
            given = min(max(count - j * out.lanes, 0), out.lanes)
            x, other = (self._loaded(out, v, f"{n} + {at} + {j} * VL", given) for n, v in self._named())
            sums.append(f"v_toint({x} * first + ({other} * second + offset))" if given else "v_toint(offset)")
        return packed(out, self.y.dtype, sums, (blend.zero, blend.low, blend.high), in_line=True)

    def _named(self) -> tuple[tuple[str, View], tuple[str, View]]:
        return ("x", self.x), ("other", self.other)

    @staticmethod
    def _loaded(out: Emitter, view: View, place: str, given: int) -> str:
        name = "v_load_u8" if view.dtype == "uint8" else "v_load_i8"
        name += "" if given == out.lanes else "_n"
        if given:
            out.need(name)
        return f"{name}({place})" if given == out.lanes else f"{name}({place}, {given})"
