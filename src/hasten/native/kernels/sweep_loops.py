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
from hasten.native.kernels.sweep import STATIC_GROUPS, Schedule, Sweep, runs_of, tap_groups
from hasten.native.program import C_TYPES, View

if TYPE_CHECKING:
    from hasten.native.emit import Emitter

__all__ = ["Loops", "columns_of"]

_L1_BYTES = 24 * 1024  # weights that may stay in the first cache beside the pixels
# A turn of a loop over so few products is worth less than four together: counting and jumping take their share of what
# a core can issue, above all where another program runs on its other hyper-thread.
_FEW_PRODUCTS = 16
_CHEAP = frozenset(
    {"acc", "const", "load", "add", "sub", "mul", "neg", "abs", "square", "round", "maximum", "minimum"}
    | {"relu", "leaky_relu", "prelu", "clip_low", "clip_high"}
)


def _channels_loop(out: Emitter, count: int, products: int) -> str:
    """The head of a loop over input channels, of so many products each; few are taken four channels at a time."""
    short = products <= _FEW_PRODUCTS and count > 1
    if short:
        out.need("unroll_4")
    return f"{'UNROLL_4 ' if short else ''}for (int c = 0; c < {count}; c++)"


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
        return tuple(a for i, a in enumerate(self.sweep.axes) if i != self.schedule.inner)

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
                at, reach = self._at(i), a.extent - (a.kernel - 1) * a.dilation
                low = f"{at} < 0 ? {ceil(f'-({at})', a.dilation)} : 0" if a.pad > 0 else "0"
                high = f"{at} >= {reach} ? {ceil(f'{a.extent} - ({at})', a.dilation)} : {a.kernel}"
                yield f"const int low{i} = {low};"
                yield f"const int high{i} = {high}; /* taps within the input */"
        yield f"const int row = {total(*(times(f'o{i}', self.outer[i].ys) for i in live))}; /* output */"

    def _at(self, i: int) -> str:
        """The input position of the first tap of outer axis ``i``."""
        a = self.outer[i]
        return plus("0" if a.size == 1 else times(f"o{i}", a.stride), -a.pad)

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
            body += self._taps(s, run, place)
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

    def _taps(self, s: Segment, run: Panel, place: str) -> list[str]:
        """Loops over the taps of the outer axes around those of the inner axis."""
        sweep, axis, wide = self.sweep, self.inner, run.width * self.schedule.lanes
        terms = ["x"]
        loops = []
        index = ""
        for i, a in enumerate(self.outer):
            at = self._at(i)
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
                self.out.need("v_load")
                lines.append(f"vf b[{size * width}];")
                lines += each("j", size * width, ["b[j] = v_load(v + j * VL);"])
            lines += self._one_tap(s, run, done, tail) if size == 1 else self._many_taps(s, run, (done, size), tail)
            return [*lines, f"v += {step};"] if sweep.weighted else lines

        tail = sweep.depth % sweep.dot if sweep.dot else 0
        whole = sweep.steps - 1 if tail else sweep.steps
        head = _channels_loop(self.out, whole, s.pixels * size * width) if sweep.depth > 1 else ""
        lines = block(head, once(0)) if whole else []
        return [*lines, *block("", once(tail))] if tail else lines

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
            self.out.need("v_load_n")
            return [f"const vf in = v_load_n(at + {total(index, str((sweep.steps - 1) * sweep.dot))}, {tail});"]
        channel = times("c", sweep.dot or sweep.depth_stride) if sweep.depth > 1 else ""
        self.out.need("v_load" if sweep.dot else "v_set1")
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
        self.out.need(name)
        found = f"{name}(at + {index}{count})"
        if sweep.zero:
            self.out.need("v_set1")
            found = f"({found} - v_set1({self.out.number(sweep.zero)}))"
        return found

    def _meets(self, s: Segment, q: int, done: int, size: int) -> bool:
        axis = self.inner
        lags = (q - k * axis.dilation for k in range(done, done + size))
        return any(n >= 0 and n % axis.stride == 0 and n // axis.stride < s.pixels for n in lags)

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
