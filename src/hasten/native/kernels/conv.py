"""Conv: direct, one to three spatial dimensions, any stride, dilation, padding and grouping, in float32.

The input is read a scalar at a time, so that its memory order hardly matters; the output lies channels last. Groups too
narrow to fill a vector are joined, block-diagonal: the same number of instructions, whole vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.native.epilogue import Epilogue, Finished
from hasten.native.expr import ACC, Expr
from hasten.native.kernels.dense import Dense
from hasten.native.kernels.depthwise import depthwise
from hasten.native.kernels.spatial import (
    ConvSpec,
    Window,
    axes_of,
    axis_of,
    bias_of,
    channels_last,
    finish,
    padded,
    reach_ends,
    undilated,
    window_of,
)
from hasten.native.kernels.sweep import NEARLY, Schedule, Sweep, choose, kept_to_rows, pack, pack_dot, peels, ranked
from hasten.native.kernels.sweep_loops import Loops, columns_of
from hasten.native.kernels.winograd import CLEARLY, Winograd, relative_costs, with_scratch
from hasten.native.kernels.winograd_line import WinogradLine, relative_cost
from hasten.native.lower_shape import static
from hasten.native.program import C_TYPES, Step, View
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.isa import Isa
    from hasten.native.kernels.conv_transpose import ConvTranspose
    from hasten.native.kernels.spatial import Axis
    from hasten.native.lower import Lowering

__all__ = ["LOWER", "Conv", "convolution", "planned"]

_PLANAR_CHANNELS = 8
"""Up to so many input channels are read where they lie, plane by plane; more are copied to channels last first."""


@dataclass(eq=False)
class Conv(Finished):
    """``y = epilogue(Σ x · weight + bias)``, the window sliding over the spatial dimensions.

    Shapes:  x (N, C, spatial…) · weight (M, C / groups, kernel…) · bias (M,)
             y (N, M, spatial…), channels last in memory
    """

    x: View
    y: View
    weight: Array
    bias: Array
    window: Window
    groups: int = 1
    epilogue: Expr = ACC
    schedule: Schedule | None = None
    """The register tile; None: the model's choice."""
    READS = ("x", "operands")
    STORES_BYTES = True
    WRITES = ("y",)

    @property
    def _row_length(self) -> int:
        return columns_of(self.y)

    @property
    def title(self) -> str:
        """Sizes and epilogue."""
        groups = f" in {self.groups} groups" if self.groups > 1 else ""
        sizes = "x".join(map(str, self.y.shape[2:]))
        return f"{self.window.text}, {self.x.shape[1]} -> {self.y.shape[1]}{groups}, {sizes}{self._epilogue.title}"

    def macs(self) -> int:
        """Output positions · taps · input channels of a group."""
        return self.y.size * int(np.prod(self.weight.shape[1:]))

    @property
    def way(self) -> str:
        """The register tile."""
        return self.schedule.text if self.schedule else ""

    def preferred(self, isa: Isa) -> Step:
        """Minimal filtering where that clearly pays by the model, else direct."""
        filtered = _filtered(self, isa)
        if filtered and filtered[0][0] < CLEARLY:
            return filtered[0][1]
        return replace(self, schedule=_cheapest(_sweeps(self, axes_of(self.x, self.y, self.window), self.weight, isa)))

    def shared(self, isa: Isa, threads: int) -> Step:
        """By rows, where that costs little."""
        assert self.schedule is not None
        sweeps = _sweeps(self, axes_of(self.x, self.y, self.window), self.weight, isa)
        return replace(self, schedule=kept_to_rows(self.schedule, sweeps))

    def others(self, isa: Isa) -> tuple[Step, ...]:
        """Direct with other tiles, and by minimal filtering, as far as the model sees no great loss in it."""
        sweeps = _sweeps(self, axes_of(self.x, self.y, self.window), self.weight, isa)
        tiles = [s for unit, sweep in sweeps for s in ranked(sweep, unit)]
        direct = min(s.cost for s in tiles)
        found: list[tuple[float, Step]] = [(s.cost / direct, replace(self, schedule=s)) for s in tiles]
        found += _filtered(self, isa)
        least = min(cost for cost, _ in found)
        return tuple(step for cost, step in found if cost <= least * NEARLY)

    def emit(self, out: Emitter) -> None:
        """One function: rows × panels × tiles."""
        axes = axes_of(self.x, self.y, self.window)
        loops, packed = planned(self, axes, self.weight, out, self.schedule)
        signature = [
            ("const float *restrict x", out.pointer(self.x)),
            ("const float *restrict weight", out.constant(packed)),
            (f"{C_TYPES[self.y.dtype]} *y", out.pointer(self.y)),
            *self._epilogue.signature(out),
        ]
        loops.function("conv", self.title, signature, split=out.splits(self.macs()))


def planned(
    step: Conv | ConvTranspose, axes: tuple[Axis, ...], weight: Array, out: Emitter, schedule: Schedule | None = None
) -> tuple[Loops, Callable[[], Array]]:
    """The loops that slide ``weight`` along the axes, and what packs its values for them.

    Shapes:  weight (M, C / groups, kernel…)
    """
    sweeps = list(_sweeps(step, axes, weight, out.isa))
    schedule = schedule or _cheapest(sweeps)
    sweep = next(s for unit, s in sweeps if (unit.lanes, s.dot) == (schedule.lanes, schedule.dot))
    loops = Loops(sweep, schedule, out, Epilogue(step.epilogue, step.y, columns_of(step.y)))
    return loops, partial(_packed, step, weight, sweep, schedule)


def _packed(step: Conv | ConvTranspose, weight: Array, sweep: Sweep, schedule: Schedule) -> Array:
    """Weights and bias in the order in which the loops read them."""
    groups, weight = joined(weight, step.groups, schedule.lanes)
    columns, depth = weight.shape[0] // groups, weight.shape[1]
    bias = step.bias.reshape(groups, columns)
    taps = weight.reshape(groups, columns, depth, *weight.shape[2:])
    taps = np.moveaxis(taps, (1, 2), (-1, -2)).reshape(groups, *(a.kernel for a in sweep.axes), depth, columns)
    if schedule.dot:
        taps, bias = pack_dot(taps, bias, schedule.lanes)
    return pack(taps, bias, sweep, schedule)


def _sweeps(step: Conv | ConvTranspose, axes: tuple[Axis, ...], weight: Array, isa: Isa) -> Iterator[tuple[Isa, Sweep]]:
    """What slides, for every width of vectors: lanes hold output channels, or input channels where they are many and
    the others few.

    Shapes:  weight (M, C / groups, kernel…)
    """
    for unit in isa.widths(weight.shape[0] if step.groups == 1 else 1):
        groups, wide = joined(weight, step.groups, unit.lanes)
        columns, depth = wide.shape[0] // groups, wide.shape[1]
        sweep = Sweep(axes, columns, groups, depth, step.x.strides[1])
        yield unit, sweep
        if groups == 1 and columns * 2 <= unit.lanes and depth * 2 >= unit.lanes and step.x.strides[1] == 1:
            yield unit, replace(sweep, dot=unit.lanes)


def _cheapest(sweeps: Iterable[tuple[Isa, Sweep]]) -> Schedule:
    """The model's choice; there is one, since lowering pads what cannot be peeled."""
    found = [choose(sweep, unit) for unit, sweep in sweeps]
    return min((s for s in found if s is not None), key=lambda s: s.cost)


def _filtered(step: Conv, isa: Isa) -> list[tuple[float, Winograd]]:
    """The same by minimal filtering, each with its cost over that of a direct convolution, the cheapest first."""
    if step.groups != 1 or step.x.strides[1] != 1:
        return []
    given = (step.x, step.y, step.weight, step.bias)
    found: list[tuple[float, Winograd]] = []
    begin = step.window.pads_begin
    after = (step.y, step.epilogue)
    for size, (cost, lanes) in relative_costs(step.x, step.y, step.weight, step.window, isa).items():
        made = Winograd(*given, (begin[0], begin[1]), size, *after, lanes=lanes, nodes=step.nodes)
        found.append((cost, made))
    line = relative_cost(step.x, step.y, step.weight, step.window, isa)
    if line is not None:
        dim, size, (cost, lanes) = line
        pads = (0, begin[dim - 2])
        found.append((cost, WinogradLine(*given, pads, size, *after, dim=dim, lanes=lanes, nodes=step.nodes)))
    return [(cost, with_scratch(filtered)) for cost, filtered in sorted(found, key=lambda f: f[0])]


def joined(weight: Array, groups: int, lanes: int) -> tuple[int, Array]:
    """Fewer, wider groups: neighbours joined with zeros between them while all their outputs fit one vector.

    Shapes:  weight (M, C / groups, kernel…) · returns (M, C / new groups, kernel…)
    """
    columns, depth = weight.shape[0] // groups, weight.shape[1]
    join = max((j for j in range(1, groups + 1) if groups % j == 0 and j * columns <= lanes), default=1)
    if groups == 1 or join == 1:
        return groups, weight
    wide = np.zeros((weight.shape[0], depth * join, *weight.shape[2:]), np.float32)
    for m in range(weight.shape[0]):
        start = m // columns % join * depth
        wide[m, start : start + depth] = weight[m]
    return groups // join, wide


def trimmed(weight: Array, window: Window, x: View, y: View) -> tuple[Array, Window]:
    """Without the taps that meet the input at no output position (padding wider than the input)."""
    kernel, pads = list(window.kernel), list(window.pads_begin)
    for i in range(len(kernel)):
        axis = axis_of(x, y, window, i)
        found = [axis.taps(p) for p in range(axis.size)]
        used = [t for t in found if len(t)]
        low, high = (min(t.start for t in used), max(t.stop for t in used)) if used else (0, 1)
        weight = weight[(slice(None),) * (i + 2) + (slice(low, high),)]
        kernel[i], pads[i] = high - low, pads[i] - low * axis.dilation
    fixed = Window(tuple(kernel), window.strides, window.dilations, tuple(pads), window.pads_end)
    return np.ascontiguousarray(weight), fixed  # itself where no tap is cut off


def convolution(low: Lowering, x: View, weight: Array, window: Window, spec: ConvSpec) -> View:
    """Adds the steps of one convolution; returns where its result lies, of logical shape (N, M, spatial…)."""
    if x.shape[1] > _PLANAR_CHANNELS and x.strides[1] != 1:
        x = low.contiguous(x, channels_last(x.rank))
    y = low.new((x.shape[0], weight.shape[0], *spec.sizes), "float32", channels_last(x.rank))
    weight, window = trimmed(weight, window, x, y)
    if spec.groups == 1 and _is_product(x, y, window):
        return _product(low, x, weight, spec)
    if not peels(axes_of(x, y, window)):
        ends = reach_ends(x, spec.sizes, window)
        x, window = padded(low, x, window, ends, fill=0.0)
    plain = undilated(x, y, weight, window)
    low.add(Conv(*plain[:3], spec.bias, plain[3], spec.groups))
    return y


def _is_product(x: View, y: View, window: Window) -> bool:
    """True where one window covers the whole input: a product of its values with the weights."""
    return y.size == y.shape[0] * y.shape[1] and x.shape[2:] == window.kernel and not any(window.pads_begin)


def _product(low: Lowering, x: View, weight: Array, spec: ConvSpec) -> View:
    flat = low.reshape(x.transpose(channels_last(x.rank)), (x.shape[0], weight[0].size))
    y = low.new((x.shape[0], weight.shape[0]))
    matrix = np.moveaxis(weight, 1, -1).reshape(weight.shape[0], -1).T
    low.add(Dense(low.contiguous(flat), y, np.ascontiguousarray(matrix), spec.bias))
    return low.reshape(y, (*y.shape, *spec.sizes))


def _conv(low: Lowering, node: ir.Node) -> None:
    x, weight = low.view(node.inputs[0]), low.constant(node.inputs[1])
    if weight is None or weight.dtype != np.float32 or x.dtype != "float32":
        raise UnsupportedOpError(f"op Conv (node '{node.name}') without constant float32 weights has no native kernel")
    window = window_of(node, x.shape[2:], weight.shape[2:])
    bias, extra = bias_of(low, node, weight.shape[0], x.rank)
    spec = ConvSpec(static(node, node.outputs[0])[2:], bias, node.attributes.get_int("group", 1))
    if spec.groups > 1 and spec.groups == weight.shape[0] == x.shape[1]:
        step = depthwise(low, x, weight, window, spec)
        assert step is not None
        y = step.y
    else:
        y = convolution(low, x, weight, window, spec)
    finish(low, node, y, extra)


LOWER: Mapping[str, Any] = {"Conv": _conv}
