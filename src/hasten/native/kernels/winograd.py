"""Convolutions of 3x3 to 5x5 taps and stride 1 by Winograd's minimal filtering: F(2x2, 3x3) takes 16 products for 4
outputs, F(4x4, 3x3) 36 for 16, where a direct convolution takes 36 and 144; F(3x3, 4x4) and F(2x2, 5x5) 36 for 9 and 4
instead of 144 and 100.

A block of tiles is transformed into scratch memory, multiplied point by point (one small matrix product for each of the
16 or 36 points) and transformed back, the epilogue in registers.

Source:  Lavin and Gray 2015, arXiv:1509.09308
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from hasten.native.epilogue import Finished
from hasten.native.expr import ACC, Expr
from hasten.native.kernels.spatial import Window, axis_of
from hasten.native.kernels.sweep_loops import columns_of
from hasten.native.kernels.winograd_transforms import PARTS, TILES, Square, Transforms, block_tiles
from hasten.native.program import C_TYPES, Tensor, View
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.isa import Isa

__all__ = ["CLEARLY", "Blocking", "Winograd", "least_channels", "reading", "relative_costs", "with_scratch"]

CLEARLY = 0.85  # below so much of a direct convolution's cost, minimal filtering clearly pays

Step_ = TypeVar("Step_", bound="Winograd")
Blocking = tuple[int, int, int, bool]
"""As ``Transforms`` takes it: tiles of a block, tiles and vectors of a register tile, whether channels are shared."""

_SIZES = {3: (2, 4), 4: (3,), 5: (2,)}
"""Taps along a side → outputs there that four or six products make."""

_FEW_TILES = 8  # of each part of a team
_OF_SECOND = 0.7  # of the second cache may hold weights
_SECOND, _LAST, _MEMORY = 24, 16, 6  # bytes a cycle from either cache and from memory, beside the products


@dataclass(eq=False)
class Winograd(Finished):
    """``y = epilogue(convolution of x + bias)``, ``size`` x ``size`` outputs at a time.

    Shapes:  x (N, C, H, W), channels dense · weight (M, C, taps, taps) · bias (M,) · y (N, M, H', W'), channels last
             pads: rows above, columns left · scratch: transformed tiles and products, one block for each part of a team
    """

    x: View
    y: View
    weight: Array
    bias: Array
    pads: tuple[int, int]
    size: int
    scratch: View
    epilogue: Expr = ACC
    lanes: int = field(default=0, kw_only=True)
    """Of its vectors: all that the instruction set has, or half as many."""
    READS = ("x", "operands")
    STORES_BYTES = True
    WRITES = ("y", "scratch")

    @property
    def _row_length(self) -> int:
        return columns_of(self.y)

    @property
    def way(self) -> str:
        """How many outputs a tile makes, and of what filter."""
        return f"F({self.size}x{self.size}, {self.taps}x{self.taps})"

    @property
    def title(self) -> str:
        """Sizes and epilogue."""
        sizes = "x".join(map(str, self.y.shape[2:]))
        return f"{self.way}, {self.x.shape[1]} -> {self.y.shape[1]}, {sizes}{self._epilogue.title}"

    def macs(self) -> int:
        """Multiply-accumulates of the convolution, however it is computed."""
        return self.y.size * int(np.prod(self.weight.shape[1:]))

    def products(self) -> int:
        """Those between the transforms, which are left out."""
        return self.tiles * self.points * self.pieces * int(np.prod(self.weight.shape[:2]))

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles down and across."""
        return -(-self.y.shape[2] // self.size), -(-self.y.shape[3] // self.size)

    @property
    def tiles(self) -> int:
        """Tiles of all images."""
        return self.x.shape[0] * self.grid[0] * self.grid[1]

    @property
    def taps(self) -> int:
        """Of the filter, along a side."""
        return int(self.weight.shape[2])

    @property
    def pieces(self) -> int:
        """Parts of the filter that are transformed each on its own."""
        return 1

    @property
    def points(self) -> int:
        """Products for one tile."""
        return (self.size + self.taps - 1) ** 2

    def transforms(self, out: Emitter, blocking: Blocking) -> Transforms:
        """What writes the step."""
        return Square(self, out, *blocking)

    def emit(self, out: Emitter) -> None:
        """One function: per block of tiles the transform, the products, the inverse transform."""
        with out.vectors(self.lanes):
            self._emit(out)

    def _emit(self, out: Emitter) -> None:
        split = out.splits(self.macs())
        team = min(out.threads, PARTS) if split else 1
        made = self.transforms(out, _blocking(self, out.lanes, out.isa.registers, team))
        out.need("unroll", "v_load", "v_store", "v_set1")
        signature = [
            ("const float *restrict x", out.pointer(self.x)),
            ("const float *restrict u", out.constant(made.packed)),
            ("const float *restrict bias", out.constant(made.bias())),
            ("float *restrict scratch", out.pointer(self.scratch)),
            (f"{C_TYPES[self.y.dtype]} *y", out.pointer(self.y)),
            *self._epilogue.signature(out),
        ]
        lines = made.body(split)
        if split:
            lines.append("(void)flags;")
        text = "\n".join(f"    {line}" for line in lines)
        out.function("winograd", self.title, signature, text, split=split)


def _blocking(step: Winograd, lanes: int, registers: int, team: int) -> Blocking:
    """Tiles of a block, tiles and vectors of a register tile, and whether a team shares out channels.

    A team shares out blocks. Of few tiles each part would read all weights for hardly any arithmetic: then channels.
    """
    vectors = -(-step.y.shape[1] // lanes)
    by_channels = 1 < team <= vectors and step.tiles < _FEW_TILES * team
    tiles = block_tiles(step.tiles, 1 if by_channels else team)
    return (tiles, *_product_tile(tiles, vectors, registers, vectors // team if by_channels else vectors), by_channels)


def _product_tile(tiles: int, vectors: int, registers: int, widest: int) -> tuple[int, int]:
    """Tiles and vectors of output channels of one register tile."""
    best, least = (1, 1), float("inf")
    for width in range(1, min(widest, 6) + 1):
        for rows in range(1, tiles + 1):
            if rows * width + width + 2 > registers:
                break
            turns = -(-tiles // rows) * -(-vectors // width)
            cost = turns * (max(rows * width / 2, (rows + width) / 2, 4.0) + 0.5)
            if cost < least:
                best, least = (rows, width), cost
    return best


def _scratch_elements(step: Winograd, lanes: int, registers: int, team: int) -> int:
    """Elements that one part of a team needs."""
    tiles, rows, width, _ = _blocking(step, lanes, registers, team)
    vectors = -(-step.y.shape[1] // lanes)
    depth = step.pieces * -(-step.x.shape[1] // lanes) * lanes
    columns = -(-vectors // width) * width * lanes
    return step.points * -(-tiles // rows) * rows * (depth + columns)


def relative_costs(x: View, y: View, weight: Array, window: Window, isa: Isa) -> dict[int, tuple[float, int]]:
    """By a model of the machine: outputs along a side of a tile (2 or 4) → cost over that of a direct convolution, and
    the lanes that take least.
    """
    kernel = window.kernel[0]
    if window.kernel != (kernel, kernel) or kernel not in _SIZES or {*window.strides, *window.dilations} != {1}:
        return {}
    channels, columns = weight.shape[1], weight.shape[0]
    if min(channels, columns) < least_channels(isa):
        return {}
    rows, width = y.shape[2:]
    taps = [sum(len(axis_of(x, y, window, i).taps(p)) for p in range(y.shape[i + 2])) for i in (0, 1)]
    direct = taps[0] * taps[1] * channels * isa.turns(columns) / 2 * 1.05
    found = {}
    for size in _SIZES[kernel]:
        reach = size + kernel - 1
        points = reach**2
        tiles = -(-rows // size) * -(-width // size)
        around = (34, 26) if reach == 4 else (85, 17 * size)
        costs = []
        for unit in isa.widths(columns):
            vin, vout = unit.turns(channels), unit.turns(columns)
            loads = reading(-(-tiles // TILES), points * channels, columns, unit)
            products = max(points * tiles * channels * vout / 2 * 1.1, loads)
            costs.append(((products + tiles * (vin * around[0] + vout * around[1])) / direct, unit.lanes))
        found[size] = min(costs)
    return found


def reading(blocks: int, products: int, columns: int, unit: Isa) -> float:
    """Cycles in which every block of tiles reads all transformed weights: from the second cache while they fit, from
    the last, of which others have a part, or from memory.
    """
    weights = products * -(-columns // unit.lanes) * unit.lanes * 4
    if weights < unit.second_bytes * _OF_SECOND:
        return blocks * weights / _SECOND
    return blocks * weights / (_LAST if weights < unit.last_bytes / 2 else _MEMORY)


def least_channels(isa: Isa) -> int:
    """Fewer channels than these do not fill vectors enough."""
    return max(8, isa.widths(1)[0].lanes // 2)


def with_scratch(step: Step_) -> Step_:
    """The step with scratch memory for every part, whatever the number of registers and threads."""
    teams = range(1, PARTS + 1)
    elements = max(_scratch_elements(step, step.lanes, registers, team) for registers in (16, 32) for team in teams)
    elements *= PARTS
    step.scratch = View.whole(Tensor("scratch", elements), (elements,))
    return step
