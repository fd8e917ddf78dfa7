"""What every convolution, depthwise convolution and pool shares: a window over pixels, and its register tile.

A tile of ``pixels`` output positions × ``vectors`` of output channels stays in registers while all taps pass by. Taps
along the inner axis are taken ``taps`` at a time, so that an input value, once loaded, serves every output position
under it.
Outer axes clip their taps per row; the inner axis has its border tiles peeled, so that no tap is tested in a loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from hasten.native.kernels.dense import Panel, panels
from hasten.native.kernels.spatial import Axis, segments
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.isa import Isa

__all__ = [
    "NEARLY", "STATIC_GROUPS", "Schedule", "Sweep", "choose", "kept_to_rows", "pack", "pack_dot", "peels", "ranked",
    "runs_of", "tap_groups",
]  # fmt: skip

_FEWEST_REGISTERS = 16
# Of two tiles with equally many products the one that loads less is faster, by about so many cycles for each load.
_LOAD = 0.05
# Two loads a cycle is what makers state; one value to all lanes goes at most this fast beside multiply-adds (Zen 3).
_LOAD_CYCLES = 0.6
NEARLY = 1.25  # what may cost so much more by the model is worth trying
STATIC_GROUPS = 4  # groups of taps written out one after the other; more become a loop


@dataclass(frozen=True)
class Schedule:
    """Sizes of one register tile.

    Units:   cost: estimated cycles of the whole step
    """

    inner: int
    """Which axis the pixels of a tile follow."""
    pixels: int
    vectors: int
    taps: int
    cost: float
    dot: int
    """As of its ``Sweep``."""
    lanes: int
    """Of its vectors: all that the instruction set has, or half as many."""

    @property
    def text(self) -> str:
        """The tile in words."""
        dot = f", {self.dot} input channels at a time" if self.dot else ""
        size = f"{self.pixels} x {self.vectors} vectors of {self.lanes}"
        return f"{size} along axis {self.inner}, {self.taps} taps at a time{dot}"


@dataclass(frozen=True)
class Sweep:
    """What slides over what.

    Shapes:  columns: output channels of one group · depth: input channels summed into each (1: channels apart)
    """

    axes: tuple[Axis, ...]
    columns: int
    groups: int = 1
    depth: int = 1
    depth_stride: int = 0
    broadcast: bool = True
    """Input values are scalars that meet a vector of weights; else vectors of channels."""
    weighted: bool = True
    update: str = "{a} += {b} * {w};"
    start: str = "v_load(w + j * VL)"
    needs: tuple[str, ...] = ()
    """Vector functions that ``update`` and ``start`` call."""
    masked: bool = False
    """The last vector of input channels must not be read past its tail."""
    source: str = "float32"
    """The dtype of the input; bytes only where channels stay apart."""
    zero: float = 0.0
    """What the input holds where it means zero."""
    dot: int = 0
    """Not 0: so many lanes hold input channels, and every output channel has an accumulator, summed over at the end."""

    @property
    def steps(self) -> int:
        """Steps that walk the input channels."""
        return -(-self.depth // self.dot) if self.dot else self.depth


def tap_groups(kernel: int, taps: int) -> tuple[int, ...]:
    """Sizes of the groups that ``kernel`` taps are taken in."""
    count = -(-kernel // taps)
    return tuple(kernel // count + (1 if i < kernel % count else 0) for i in range(count))


def _costs(sweep: Sweep, inner: Axis, outer_taps: float, tile: tuple[int, int, int], passes: int) -> float:
    """Cycles of all tiles along the inner axis for one panel: two FMAs and two loads a cycle and pass, latency 4.

    Shapes:  tile: pixels, vectors, taps at a time
    """
    pixels, width, taps = tile
    total = 0.0
    for tiles, wide, met in _met(inner, pixels, taps):
        step = 0.0
        for group, used, pairs in met:
            # One value for all lanes takes a single pass, whatever the width.
            loads = used * (1 if sweep.broadcast else width * passes)
            loads += group * width * passes if sweep.weighted else 0
            step += max(pairs * width * passes / 2, loads * _LOAD_CYCLES, 4.0 * group) + 2.0 - passes + loads * _LOAD
        total += tiles * (step * sweep.steps * outer_taps + _around(sweep, wide, width, passes))
    return total


@lru_cache(maxsize=4096)
def _met(inner: Axis, pixels: int, taps: int) -> tuple[tuple[int, int, tuple[tuple[int, int, int], ...]], ...]:
    """For each segment: its tiles, their pixels, and each group's taps with the values and the pairs that they meet."""
    found = []
    for s in segments(inner, pixels):
        groups, done = [], 0
        for group in tap_groups(inner.kernel, taps):
            places = [i * inner.stride + k * inner.dilation for k in range(done, done + group) for i in range(s.pixels)]
            inside = [place for place in places if s.first <= place < s.stop]
            groups.append((group, len(set(inside)), len(inside)))
            done += group
        found.append((s.tiles, s.pixels, tuple(groups)))
    return tuple(found)


def _around(sweep: Sweep, pixels: int, width: int, passes: int) -> float:
    """Cycles of a tile besides its taps: bias, epilogue, stores."""
    if passes == 2 and sweep.broadcast and not sweep.dot and all(a.kernel == 1 for a in sweep.axes):
        # As measured on Zen 4: all of it passes beside the next tile's arithmetic, until there is too much to store.
        return 3.0 * max(0, pixels * width - 16) + (12 if width > 1 else 2)
    return pixels * width * (6.0 if sweep.dot else 0.75 * passes) + width + 12


@lru_cache(maxsize=1024)
def choose(sweep: Sweep, isa: Isa, *, by_rows: bool = False) -> Schedule | None:
    """The cheapest tile that fits the registers, by a model of the machine; None where borders need padding first.

    ``by_rows``: of those that do not follow the outermost axis, which is left to be shared out; None where there is
    none.
    """
    live = [i for i, a in enumerate(sweep.axes) if a.size > 1]
    found = _candidates(sweep, isa)
    if by_rows:
        found = (s for s in found if len(live) > 1 and s.inner != live[0])
    return _cheapest(found)


def kept_to_rows(schedule: Schedule, sweeps: Iterable[tuple[Isa, Sweep]]) -> Schedule:
    """The same, or a tile nearly as cheap with which a team shares out whole rows of the outermost axis.

    All steps then give a part the same rows, which its own core still has from the step before.
    """
    found = [choose(sweep, unit, by_rows=True) for unit, sweep in sweeps]
    least = min((s for s in found if s is not None), key=lambda s: s.cost, default=None)
    return schedule if least is None or least.cost > schedule.cost * NEARLY else least


def _cheapest(candidates: Iterable[Schedule]) -> Schedule | None:
    best: Schedule | None = None
    for found in candidates:
        if best is None or found.cost < best.cost * (0.97 if found.inner != best.inner else 1.0):
            best = found
    return best


def ranked(sweep: Sweep, isa: Isa) -> tuple[Schedule, ...]:
    """The model's choice, then what it finds nearly as cheap: one for each width of panel and each number of taps."""
    candidates = list(_candidates(sweep, isa))
    best = _cheapest(candidates)
    if best is None:
        return ()
    near: dict[tuple[int, int, int], Schedule] = {(best.lanes, best.vectors, best.taps): best}
    for found in sorted(candidates, key=lambda s: s.cost):
        if found.cost <= best.cost * NEARLY:
            near.setdefault((found.lanes, found.vectors, found.taps), found)
    first = {(s.lanes, s.vectors): s for s in reversed(near.values())}  # what differs most comes first
    return tuple(dict.fromkeys((best, *reversed(first.values()), *near.values())))


def _candidates(sweep: Sweep, isa: Isa) -> Iterator[Schedule]:
    for unit in isa.widths(sweep.columns):
        if sweep.dot in (0, unit.lanes):
            yield from _tiles(sweep, unit)


def _tiles(sweep: Sweep, isa: Isa) -> Iterator[Schedule]:
    spatial = [i for i, a in enumerate(sweep.axes) if a.size > 1] or [len(sweep.axes) - 1]
    vectors = sweep.columns if sweep.dot else -(-sweep.columns // isa.lanes)
    for inner in reversed(spatial):
        axis = sweep.axes[inner]
        outer = [a for i, a in enumerate(sweep.axes) if i != inner]
        taps = prod(sum(len(a.taps(p)) for p in range(a.size)) / a.size for a in outer)
        rows = prod(a.size for a in outer)
        for width in (vectors,) if sweep.dot else range(1, min(vectors, 12) + 1):
            count = -(-vectors // width)
            if count > 1 and -(-vectors // count) != width:
                continue  # the same number of panels takes narrower ones
            for group in _group_choices(axis.kernel):
                most = (isa.registers - 2 - (group * width if sweep.weighted else 0)) // width
                for pixels in range(1, min(axis.size, most, 28) + 1):
                    if not _fits(axis, pixels, group):
                        continue
                    panel = _costs(sweep, axis, taps, (pixels, width, group), isa.passes)
                    narrow = vectors - (count - 1) * width
                    last = panel if narrow == width else _costs(sweep, axis, taps, (pixels, narrow, group), isa.passes)
                    used = ((count - 1) * panel + last) * rows * sweep.groups
                    yield Schedule(inner, pixels, width, group, used, sweep.dot, isa.lanes)


def _group_choices(kernel: int) -> tuple[int, ...]:
    if kernel <= STATIC_GROUPS * 3:
        return tuple(sorted({-(-kernel // n) for n in range(1, kernel + 1) if -(-kernel // n) <= 7}))
    return tuple(k for k in range(1, 8) if kernel % k == 0)


def _fits(axis: Axis, pixels: int, group: int) -> bool:
    """True where the unrolled code stays small and a loop over groups of taps meets no border."""
    found, loops = segments(axis, pixels), len(tap_groups(axis.kernel, group)) > STATIC_GROUPS
    written = sum(min(s.pixels, 28) for s in found) * (group if loops else axis.kernel)
    return len(found) <= 5 and written <= 400 and not (loops and axis.clipped)


def peels(axes: tuple[Axis, ...]) -> bool:
    """True where some axis can be the inner one on every machine without padding its input first."""
    spatial = [a for a in axes if a.size > 1] or [axes[-1]]
    return any(
        _fits(axis, pixels, group)
        for axis in spatial
        for group in _group_choices(axis.kernel)
        for pixels in range(1, min(axis.size, _FEWEST_REGISTERS - 2 - group) + 1)
    )


def runs_of(sweep: Sweep, schedule: Schedule) -> tuple[Panel, ...]:
    """Panels of output channels of one group."""
    if sweep.dot:
        return (Panel(0, 1, sweep.columns, 0),)
    return panels(sweep.columns, schedule.lanes, schedule.vectors)


def pack(weight: Array, bias: Array, sweep: Sweep, schedule: Schedule) -> Array:
    """Weights in the order of use: ``[group][panel][bias; outer taps][tap group][depth][tap][vectors · lanes]``.

    Shapes:  weight (groups, taps of every axis…, depth, columns) · bias (groups, columns)
    """
    weight, lanes = np.moveaxis(weight, 1 + schedule.inner, -3), schedule.lanes
    groups, kernel, depth, columns = sweep.groups, *weight.shape[-3:]
    flat = weight.reshape(groups, -1, kernel, depth, columns)
    blocks = []
    for g in range(groups):
        for run in runs_of(sweep, schedule):
            for p in range(run.count):
                start = run.start + p * run.width * lanes
                wide = run.width * lanes
                blocks.append(_fill(bias[g, start : start + wide], wide))
                for taps in flat[g]:
                    done = 0
                    for size in tap_groups(kernel, schedule.taps):
                        part = taps[done : done + size, :, start : start + wide].transpose(1, 0, 2)
                        blocks.append(_fill(part, wide).reshape(-1))
                        done += size
    return np.concatenate(blocks).astype(np.float32)


def pack_dot(weight: Array, bias: Array, lanes: int) -> tuple[Array, Array]:
    """Weights and bias as a sweep with ``dot`` sees them: a vector of input channels for every output channel.

    Shapes:  weight (groups, taps of every axis…, depth, columns) · bias (groups, columns)
             returns (groups, taps…, steps, columns · lanes) · (groups, columns · lanes)
    """
    depth, columns = weight.shape[-2:]
    steps = -(-depth // lanes)
    room = np.zeros((*weight.shape[:-2], steps * lanes, columns), np.float32)
    room[..., :depth, :] = weight
    apart = room.reshape(*weight.shape[:-2], steps, lanes, columns)
    first = np.zeros((*bias.shape, lanes), np.float32)
    first[..., 0] = bias
    return np.swapaxes(apart, -1, -2).reshape(*weight.shape[:-2], steps, columns * lanes), first.reshape(len(bias), -1)


def _fill(part: Array, wide: int) -> Array:
    room = np.zeros((*part.shape[:-1], wide), np.float32)
    room[..., : part.shape[-1]] = part
    return room
