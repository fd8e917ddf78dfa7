"""The C of the taps of one tile: loops over those of the outer axes around those of the inner one.

It depends on sizes alone, and a network has few of those many times: what was written once is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from hasten.native.kernels.dense import Panel
from hasten.native.kernels.pieces import block, each, plus, slot, times, total
from hasten.native.kernels.spatial import Axis, Segment
from hasten.native.kernels.sweep import STATIC_GROUPS, Schedule, Sweep, tap_groups
from hasten.native.program import C_TYPES

__all__ = ["first_tap", "outer_axes", "taps_of"]

# A turn of a loop over so few products is worth less than four together: counting and jumping take their share of what
# a core can issue, above all where another program runs on its other hyper-thread.
_FEW_PRODUCTS = 16


@lru_cache(maxsize=4096)
def taps_of(
    sweep: Sweep, schedule: Schedule, segment: Segment, run: Panel, place: str, zero: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Lines that add a tile's taps to its accumulators, and the vector functions that they call.

    ``place``: the tile's first output position in C; ``zero``: ``sweep.zero`` in C.
    """
    taps = _Taps(sweep, schedule, zero)
    lines = taps.lines(segment, run, place)
    return tuple(lines), tuple(sorted(taps.needs))


def outer_axes(sweep: Sweep, schedule: Schedule) -> tuple[Axis, ...]:
    """The axes that tiles do not follow, outermost first."""
    return tuple(a for i, a in enumerate(sweep.axes) if i != schedule.inner)


def first_tap(axis: Axis, i: int) -> str:
    """The input position of the first tap of an outer axis, whose output position is ``o<i>``."""
    return plus("0" if axis.size == 1 else times(f"o{i}", axis.stride), -axis.pad)


@dataclass(frozen=True)
class _Taps:
    """Writes them, and notes what they call."""

    sweep: Sweep
    schedule: Schedule
    zero: str
    needs: set[str] = field(default_factory=set)

    @property
    def inner(self) -> Axis:
        return self.sweep.axes[self.schedule.inner]

    def lines(self, s: Segment, run: Panel, place: str) -> list[str]:
        """Loops over the taps of the outer axes around those of the inner axis."""
        sweep, axis, wide = self.sweep, self.inner, run.width * self.schedule.lanes
        terms = ["x"]
        loops = []
        index = ""
        for i, a in enumerate(outer_axes(self.sweep, self.schedule)):
            at = first_tap(a, i)
            if a.kernel > 1 or a.clipped:
                static = a.taps(0) if a.size == 1 else range(a.kernel)
                low, high = (
                    (f"low{i}", f"high{i}") if a.clipped and a.size > 1 else (str(static.start), str(static.stop))
                )
                loops.append(f"for (int k{i} = {low}; k{i} < {high}; k{i}++)")
                at = total(at, times(f"k{i}", a.dilation)) if at != "0" else times(f"k{i}", a.dilation)
                index = f"({times(index, a.kernel)} + k{i})" if index else f"k{i}"
            terms.append(times(at, a.xs))
        offset = s.first - axis.pad
        if place == "o":
            terms.append(times(plus(times("o", axis.stride), offset), axis.xs))
        else:
            terms.append(str((s.start * axis.stride + offset) * axis.xs))
        if not sweep.broadcast:
            terms.append("column")
        elif sweep.groups > 1:
            terms.append(f"g * {sweep.depth * sweep.depth_stride}")
        lines = [f"const {C_TYPES[sweep.source]} *at = {total(*terms)};"]
        if sweep.weighted:
            inside = axis.kernel * sweep.steps * wide
            lines.append(f"const float *v = {total('w', str(wide), f'{index} * {inside}' if index else '')};")
        lines += self._groups(s, run)
        for head in reversed(loops):
            lines = block(head, lines)
        return lines if loops else block("", lines)

    def _groups(self, s: Segment, run: Panel) -> Iterator[str]:
        """The taps of the inner axis, group by group."""
        axis = self.inner
        sizes = tap_groups(axis.kernel, self.schedule.taps)
        if len(sizes) > STATIC_GROUPS:
            step = sizes[0] * axis.dilation * axis.xs
            head = f"for (int k = 0; k < {axis.kernel}; k += {sizes[0]}, at += {step})"
            yield from block(head, self._group(s, run, 0, sizes[0]))
            return
        done = 0
        for size in sizes:
            yield from self._group(s, run, done, size)
            done += size

    def _group(self, s: Segment, run: Panel, done: int, size: int) -> list[str]:
        """One group of inner taps: every input position under it is loaded once and meets all its taps."""
        sweep, width = self.sweep, run.width
        covered = [q for q in range(s.first, s.stop) if self._meets(s, q, done, size)]
        step = size * width * self.schedule.lanes
        if not covered:
            return [f"v += {step * sweep.steps};"] if sweep.weighted else []

        def once(tail: int) -> list[str]:
            lines = []
            if sweep.weighted:
                self.needs.add("v_load")
                lines.append(f"vf b[{size * width}];")
                lines += each("j", size * width, ["b[j] = v_load(v + j * VL);"])
            lines += self._one_tap(s, run, done, tail) if size == 1 else self._many_taps(s, run, (done, size), tail)
            return [*lines, f"v += {step};"] if sweep.weighted else lines

        tail = sweep.depth % sweep.dot if sweep.dot else 0
        whole = sweep.steps - 1 if tail else sweep.steps
        head = self._channels_loop(whole, s.pixels * size * width) if sweep.depth > 1 else ""
        lines = block(head, once(0)) if whole else []
        return [*lines, *block("", once(tail))] if tail else lines

    def _channels_loop(self, count: int, products: int) -> str:
        """The head of a loop over input channels, of so many products each; few are taken four channels at a time."""
        short = products <= _FEW_PRODUCTS and count > 1
        if short:
            self.needs.add("unroll_4")
        return f"{'UNROLL_4 ' if short else ''}for (int c = 0; c < {count}; c++)"

    def _one_tap(self, s: Segment, run: Panel, tap: int, tail: int) -> list[str]:
        axis = self.inner
        reached = [i for i in range(s.pixels) if s.first <= i * axis.stride + tap * axis.dilation < s.stop]
        index = times(plus(times("i", axis.stride), tap * axis.dilation - s.first), axis.xs)
        lines = [*self._input(index, tail), *self._update(run, index, "")]
        return block(f"UNROLL for (int i = {reached[0]}; i <= {reached[-1]}; i++)", lines)

    def _many_taps(self, s: Segment, run: Panel, taps: tuple[int, int], tail: int) -> list[str]:
        """``q`` counts the input positions under the tile; each is loaded once and meets its taps."""
        axis, (done, size) = self.inner, taps
        covered = [q for q in range(s.first, s.stop) if self._meets(s, q, done, size)]
        begin, count = covered[0], covered[-1] + 1 - covered[0]
        index = times(plus("q", begin - s.first), axis.xs)
        lag = f"{plus('q', begin - done * axis.dilation)} - {times('k', axis.dilation)}"
        if axis.stride == 1:
            find, inside = f"const int i = {lag};", f"i >= 0 && i < {s.pixels}"
        else:
            find = f"const int n = {lag}, i = n / {axis.stride};"
            inside = f"n >= 0 && n % {axis.stride} == 0 && i < {s.pixels}"
        update = block(f"if ({inside})", self._update(run, index, "k"))
        tried = each("k", size, [f"{find} /* the pixel whose tap k lies here */", *update])
        return each("q", count, [*self._input(index, tail), *tried])

    def _input(self, index: str, tail: int) -> list[str]:
        """The input at one position: a channel in all lanes, or with ``dot`` a vector of channels."""
        sweep = self.sweep
        if not sweep.broadcast:
            return []
        if tail:
            self.needs.add("v_load_n")
            return [f"const vf in = v_load_n(at + {total(index, str((sweep.steps - 1) * sweep.dot))}, {tail});"]
        channel = times("c", sweep.dot or sweep.depth_stride) if sweep.depth > 1 else ""
        self.needs.add("v_load" if sweep.dot else "v_set1")
        if sweep.dot:
            return [f"const vf in = v_load(at + {total(index, channel)});"]
        return [f"const vf in = v_set1(at[{total(index, channel)}]);"]

    def _update(self, run: Panel, index: str, k: str) -> list[str]:
        """Accumulates tap ``k`` of the group ("" where there is one alone) into pixel ``i``."""
        sweep, width = self.sweep, run.width

        def statement(j: str, value: str) -> str:
            weight = f"b[{slot(k, width, j) if k else j}]"
            return sweep.update.format(a=f"a[{slot('i', width, j)}]", b=value, w=weight)

        if sweep.broadcast:
            return each("j", width, [statement("j", "in")])
        whole = width - 1 if sweep.masked and run.tail else width
        lines = []
        if whole:
            lines += each("j", whole, [statement("j", self._channels(total(index, "j * VL"), ""))])
        if whole < width:
            at = total(index, str(whole * self.schedule.lanes))
            lines.append(statement(str(whole), self._channels(at, f", {run.tail}")))
        return lines

    def _channels(self, index: str, count: str) -> str:
        """A vector of channels of the input; bytes become floats, without their zero point."""
        sweep = self.sweep
        name = {"int8": "v_load_i8", "uint8": "v_load_u8"}.get(sweep.source, "v_load") + ("_n" if count else "")
        self.needs.add(name)
        found = f"{name}(at + {index}{count})"
        if sweep.zero:
            self.needs.add("v_set1")
            found = f"({found} - v_set1({self.zero}))"
        return found

    def _meets(self, s: Segment, q: int, done: int, size: int) -> bool:
        axis = self.inner
        lags = (q - k * axis.dilation for k in range(done, done + size))
        return any(n >= 0 and n % axis.stride == 0 and n // axis.stride < s.pixels for n in lags)
