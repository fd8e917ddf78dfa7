"""The C of a sweep: rows, panels, tiles and taps as loops around one tile of accumulators.

Outer axes clip their taps row by row; the inner axis has its border tiles written out apart, so that no tap is tested
while the arithmetic runs. Conditions inside ``UNROLL`` loops are all decided by the C compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from hasten.native.epilogue import Epilogue
from hasten.native.expr import Expr
from hasten.native.kernels.dense import Panel
from hasten.native.kernels.pieces import block, ceil, each, plus, share, slot, times, total
from hasten.native.kernels.spatial import Axis, Segment, segments
from hasten.native.kernels.sweep import Schedule, Sweep, runs_of
from hasten.native.kernels.sweep_taps import first_tap, outer_axes, taps_of
from hasten.native.program import View

if TYPE_CHECKING:
    from hasten.native.emit import Emitter

__all__ = ["Loops", "columns_of"]

_L1_BYTES = 24 * 1024  # weights that may stay in the first cache beside the pixels
_CHEAP = frozenset(
    {"acc", "const", "load", "add", "sub", "mul", "neg", "abs", "square", "round", "maximum", "minimum"}
    | {"relu", "leaky_relu", "prelu", "clip_low", "clip_high"}
)


def columns_of(y: View) -> int:
    """What an epilogue over ``y`` takes for columns: the innermost dimension that is not 1."""
    dims = [d for d in (y.order or range(y.rank)) if y.shape[d] != 1]
    return y.shape[dims[-1]] if dims else 1


@dataclass(frozen=True)
class Loops:
    """Writes the loops of one step as a function.

    ``finish`` gives statements on an accumulator, by its C name, the C position on every axis, before the epilogue.
    """

    sweep: Sweep
    schedule: Schedule
    out: Emitter
    epilogue: Epilogue
    finish: Callable[[str, tuple[str, ...]], list[str]] | None = None
    origin: int = 0
    """Where in y the first output position lies."""

    @property
    def inner(self) -> Axis:
        """The axis that tiles follow."""
        return self.sweep.axes[self.schedule.inner]

    @property
    def outer(self) -> tuple[Axis, ...]:
        """The other axes, outermost first."""
        return outer_axes(self.sweep, self.schedule)

    @property
    def rows(self) -> int:
        """Positions of all outer axes: what a team of threads may share out."""
        return prod(a.size for a in self.outer)

    def function(self, name: str, title: str, signature: Sequence[tuple[str, str]], *, split: bool) -> None:
        """Emits the function; ``split`` ones compute the share of one part of a team."""
        split = split and self._sharing() != "nothing"
        with self.out.vectors(self.schedule.lanes):
            lines = self.body(split)
            if split:
                lines.append("(void)flags;")
            self.out.function(name, title, signature, "\n".join(f"    {line}" for line in lines), split=split)

    def _sharing(self) -> str:
        """What a team shares out: rows where there are enough, else tiles, else panels of output channels."""
        team = self.out.threads
        tiles = sum(s.tiles for s in segments(self.inner, self.schedule.pixels))
        count = sum(run.count for run in runs_of(self.sweep, self.schedule))
        if self.rows >= 2 * team:
            return "rows"
        if tiles >= 2 * team or tiles >= max(2, count):
            return "tiles"
        return "panels" if count > 1 else "rows" if self.rows > 1 else "nothing"

    def body(self, split: bool) -> list[str]:
        """The function's statements, for vectors as the schedule has them."""
        sharing = self._sharing() if split else ""
        self.out.need("unroll", *self.sweep.needs, *(("v_load",) if self.sweep.start.startswith("v_load") else ()))
        sweep, lanes = self.sweep, self.schedule.lanes
        runs = runs_of(sweep, self.schedule)
        taps = prod(a.kernel for a in sweep.axes) * sweep.steps
        sizes = [(1 + taps) * run.width * lanes for run in runs]
        group = sum(size * run.count for size, run in zip(sizes, runs, strict=True))
        by_row = not sweep.weighted or group * sweep.groups * 4 <= _L1_BYTES
        low, high = share(self.rows) if sharing == "rows" else ("0", str(self.rows))
        rows = f"for (int r = {low}; r < {high}; r++)"
        lines: list[str] = []
        done = 0
        for run, size in zip(runs, sizes, strict=True):
            tiles = [
                line
                for s in segments(self.inner, self.schedule.pixels)
                for line in self._segment(s, run, sharing == "tiles")
            ]
            if not by_row and self.rows > 1:
                tiles = block(rows, [*self._row(), *tiles])
            low, high = share(run.count) if sharing == "panels" else ("0", str(run.count))
            head = f"for (int p = {low}; p < {high}; p++)" if run.count > 1 else ""
            if sharing == "panels" and not head:
                head = "if (part == parts - 1)"
            lines += block(head, [*self._panel(run, size, done, group), *tiles])
            done += size * run.count
        if sweep.groups > 1:
            lines = block(f"for (int g = 0; g < {sweep.groups}; g++)", lines)
        if by_row and self.rows > 1:
            lines = block(rows, [*self._row(), *lines])
        lines = block("if (part == 0)", lines) if sharing == "nothing" else lines
        return lines if self._is_tapped else ["(void)x;", *lines]

    def _panel(self, run: Panel, size: int, done: int, group: int) -> Iterator[str]:
        sweep, many = self.sweep, run.count > 1
        g = f"g * {sweep.columns}" if sweep.groups > 1 else ""
        p = f"p * {run.width * self.schedule.lanes}" if many else ""
        yield f"const int column = {total(g, p, str(run.start))}; /* first output channel */"
        if sweep.weighted:
            g = f"g * {group}" if sweep.groups > 1 else ""
            yield f"const float *w = {total('weight', g, f'p * {size}' if many else '', str(done))};"

    @property
    def _is_tapped(self) -> bool:
        """False where every tap of the inner axis lies in the padding."""
        return any(s.first < s.stop for s in segments(self.inner, self.schedule.pixels))

    def _row(self) -> Iterator[str]:
        """Positions on the outer axes, their taps within the input, and where the row's output starts."""
        live = [i for i, a in enumerate(self.outer) if a.size > 1]
        below = 1
        for i in reversed(live):
            place = f"r / {below}" if below > 1 else "r"
            yield f"const int o{i} = {place}{f' % {self.outer[i].size}' if i != live[0] else ''};"
            below *= self.outer[i].size
        for i, a in enumerate(self.outer):
            if a.size > 1 and a.clipped and self._is_tapped:
                at, reach = first_tap(a, i), a.extent - (a.kernel - 1) * a.dilation
                low = f"{at} < 0 ? {ceil(f'-({at})', a.dilation)} : 0" if a.pad > 0 else "0"
                high = f"{at} >= {reach} ? {ceil(f'{a.extent} - ({at})', a.dilation)} : {a.kernel}"
                yield f"const int low{i} = {low};"
                yield f"const int high{i} = {high}; /* taps within the input */"
        yield f"const int row = {total(*(times(f'o{i}', self.outer[i].ys) for i in live))}; /* output */"

    def _segment(self, s: Segment, run: Panel, by_tile: bool) -> list[str]:
        """The tiles of one segment. A team that shares out tiles leaves lone ones to its first and last part."""
        place, head = "o" if s.tiles > 1 else str(s.start), ""
        if s.tiles > 1:
            low, high = ("t0", "t1") if by_tile else ("0", str(s.tiles))
            head = f"for (int t = {low}; t < {high}; t++)"
        elif by_tile:
            head = f"if (part == {'0' if s.start == 0 else 'parts - 1'})"
        body = [f"const int o = {plus(times('t', s.pixels), s.start)}; /* first pixel */"] if s.tiles > 1 else []
        body.append(f"vf a[{s.pixels * run.width}]; /* {s.pixels} pixels x {run.width} vectors */")
        body += each("i", s.pixels, each("j", run.width, [f"a[{slot('i', run.width, 'j')}] = {self.sweep.start};"]))
        if s.first < s.stop:
            zero = self.out.number(self.sweep.zero) if self.sweep.zero else ""
            taps, needs = taps_of(self.sweep, self.schedule, s, run, place, zero)
            self.out.need(*needs)
            body += taps
        name, stored = "a", run
        if self.sweep.dot:
            name, stored = "r", Panel(0, 1, 1, self.sweep.columns)
            body += self._summed(s, run)
        lines = block(head, [*body, *self._store(s, stored, place, name)])
        return block("", [*self._tile_share(s), *lines]) if by_tile and s.tiles > 1 else lines

    def _summed(self, s: Segment, run: Panel) -> list[str]:
        """Every accumulator's lanes summed, so that ``r`` holds the output channels of each pixel."""
        self.out.need("v_sum", "v_load")
        one = ["float sums[VL] = {0};"]
        one += each("j", run.width, [f"sums[j] = v_sum(a[{slot('i', run.width, 'j')}]);"])
        return [f"vf r[{s.pixels}];", *each("i", s.pixels, [*one, "r[i] = v_load(sums);"])]

    def _tile_share(self, s: Segment) -> list[str]:
        """Bounds ``t0`` and ``t1`` of a part's tiles: all parts get nearly as many pixels of the whole axis."""
        lines = []
        for name, part in (("t0", "part"), ("t1", "(part + 1)")):
            lines.append(f"int {name} = ({self.inner.size} * {part} / parts + {s.pixels // 2 - s.start}) / {s.pixels};")
            lines.append(f"{name} = {name} < 0 ? 0 : {name} > {s.tiles} ? {s.tiles} : {name};")
        lines[0] = f"{lines[0]} /* this part's tiles */"
        return [*lines, "if (part == 0) t0 = 0;", f"if (part == parts - 1) t1 = {s.tiles};"]

    def _store(self, s: Segment, run: Panel, place: str, name: str) -> Iterator[str]:
        """The epilogue; a long one is a loop over results set down first, so that its code appears once."""
        width, unroll = run.width, "UNROLL "
        if _heavy(self.epilogue.expr) and s.pixels * width > 2:
            yield f"vf held[{s.pixels * width}];"
            yield f"UNROLL for (int i = 0; i < {s.pixels * width}; i++) held[i] = {name}[i];"
            name, unroll = "held", ""
        position = total(place, "i")
        whole = width - 1 if run.tail else width
        row = "row" if self.rows > 1 else ""
        lines = [f"const int e = {total(row, str(self.origin), times(position, self.inner.ys), 'column')};"]
        if whole:
            one = list(self._store_one(f"{name}[{slot('i', width, 'j')}]", "j * VL", None, position))
            lines += each("j", whole, one, unroll)
        if run.tail:
            acc, skip = f"{name}[{slot('i', width, str(whole))}]", str(whole * self.schedule.lanes)
            lines += self._store_one(acc, skip, run.tail, position)
        yield from each("i", s.pixels, lines, unroll)

    def _store_one(self, acc: str, skip: str, count: int | None, position: str) -> Iterator[str]:
        if self.finish:
            outer = iter(f"o{i}" if a.size > 1 else "0" for i, a in enumerate(self.outer))
            places = tuple(position if i == self.schedule.inner else next(outer) for i in range(len(self.sweep.axes)))
            yield from self.finish(acc, places)
        # With one channel in all, the innermost dimension is a spatial one.
        channels = self.sweep.columns * self.sweep.groups
        column = total("column", skip) if channels > 1 else f"e % {self.epilogue.columns}"
        element = total("e", skip)
        lines, value = self.epilogue.apply(self.out, acc, column=column, element=element, count=count, indent="")
        yield from lines
        yield self.epilogue.put(self.out, element, value, count)


def _heavy(expr: Expr) -> bool:
    return expr.op not in _CHEAP or any(map(_heavy, expr.args))
