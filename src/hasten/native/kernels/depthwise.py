"""Depthwise convolution: one filter a channel. Vectors run over channels; a tile slides along the inner axis."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from hasten.native.epilogue import Finished
from hasten.native.expr import ACC, Expr
from hasten.native.kernels.spatial import ConvSpec, Window, axes_of, channels_last, padded, reach_ends
from hasten.native.kernels.sweep import Schedule, Sweep, choose, kept_to_rows, pack, peels, ranked
from hasten.native.kernels.sweep_loops import Loops, columns_of
from hasten.native.program import C_TYPES, Step, View
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.isa import Isa
    from hasten.native.lower import Lowering

__all__ = ["Depthwise", "depthwise"]


@dataclass(eq=False)
class Depthwise(Finished):
    """``y = epilogue(Σ x · weight + bias)``, every channel apart.

    Shapes:  x (N, C, spatial…), channels dense · weight (C, 1, kernel…) · bias (C,) · y as x, channels last in memory
    """

    x: View
    y: View
    weight: Array
    bias: Array
    window: Window
    epilogue: Expr = ACC
    zero: float = 0.0
    """What x, where it holds bytes, holds for zero."""
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
        sizes = "x".join(map(str, self.y.shape[2:]))
        return f"{self.window.text}, {self.y.shape[1]} channels, {sizes}{self._epilogue.title}"

    def macs(self) -> int:
        """Output positions · taps."""
        return self.y.size * int(np.prod(self.weight.shape[1:]))

    @property
    def way(self) -> str:
        """The register tile."""
        return self.schedule.text if self.schedule else ""

    @property
    def _sweep(self) -> Sweep:
        axes = axes_of(self.x, self.y, self.window)
        masked = self.x.tensor.kind in ("input", "output")
        return Sweep(axes, self.y.shape[1], broadcast=False, masked=masked, source=self.x.dtype, zero=self.zero)

    def preferred(self, isa: Isa) -> Step:
        """The cheapest tile."""
        return replace(self, schedule=choose(self._sweep, isa))

    def shared(self, isa: Isa, threads: int) -> Step:
        """By rows, where that costs little."""
        assert self.schedule is not None
        return replace(self, schedule=kept_to_rows(self.schedule, [(isa, self._sweep)]))

    def others(self, isa: Isa) -> tuple[Step, ...]:
        """Other tiles."""
        return tuple(replace(self, schedule=schedule) for schedule in ranked(self._sweep, isa))

    def emit(self, out: Emitter) -> None:
        """One function: rows × panels × tiles."""
        channels, sweep = self.y.shape[1], self._sweep
        schedule = self.schedule or choose(sweep, out.isa)
        assert schedule is not None, "lowering pads what cannot be peeled"
        axes = sweep.axes
        taps = np.moveaxis(self.weight, 0, -1).reshape(1, *(a.kernel for a in axes), 1, channels)
        packed = partial(pack, taps, self.bias.reshape(1, channels), sweep, schedule)
        loops = Loops(sweep, schedule, out, self._epilogue)
        signature = [
            (f"const {C_TYPES[self.x.dtype]} *restrict x", out.pointer(self.x)),
            ("const float *restrict weight", out.constant(packed)),
            (f"{C_TYPES[self.y.dtype]} *y", out.pointer(self.y)),
            *self._epilogue.signature(out),
        ]
        loops.function("depthwise", self.title, signature, split=out.splits(self.macs()))


def depthwise(
    low: Lowering, x: View, weight: Array, window: Window, spec: ConvSpec, *, zero: float = 0.0
) -> Depthwise | None:
    """Adds the steps of one depthwise convolution; returns its last one, None for bytes that would need padding."""
    order = channels_last(x.rank)
    if x.strides[1] != 1:
        x = low.contiguous(x, order)
    y = low.new((x.shape[0], weight.shape[0], *spec.sizes), "float32", order)
    if not peels(axes_of(x, y, window)):
        if x.dtype != "float32":
            return None
        x, window = padded(low, x, window, reach_ends(x, spec.sizes, window), fill=0.0)
    step = Depthwise(x, y, weight, spec.bias, window, zero=zero)
    low.add(step)
    return step
