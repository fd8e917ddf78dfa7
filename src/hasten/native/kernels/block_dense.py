"""One row times weights of few bits: int8 with a scale for every block of inputs, as files of 4-bit weights have them.

A block's sum is taken as a plain product with int8 weights takes it, then scaled and added to the sum so far.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from hasten.native.epilogue import Epilogue
from hasten.native.kernels.dense import Dense, Panel
from hasten.native.kernels.storage import LOADS
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.isa import Isa

__all__ = ["BlockDense"]


@dataclass(eq=False)
class BlockDense(Dense):
    """``y = epilogue(x · (weight · scale))``, the weights whole numbers; the bias is part of the epilogue.

    Shapes:  x (1, K) · weight (K, N) · scale (blocks, N): one for every K / blocks inputs
    """

    scale: Array = field(kw_only=True)

    @property
    def _size(self) -> int:
        return len(self.weight) // len(self.scale)

    @property
    def title(self) -> str:
        """Sizes, blocks and epilogue."""
        depth, columns = self.weight.shape
        return f"{depth} -> {columns}, int8 weights in blocks of {self._size}, exact{self._epilogue.title}"

    def _widest(self, isa: Isa) -> int:
        return 4  # two sums of each column are in flight

    def _beside(self, out: Emitter) -> list[tuple[str, str]]:
        padded = np.pad(self.scale, ((0, 0), (0, -self.scale.shape[1] % out.lanes)))
        return [("const float *restrict scale", out.constant(padded))]

    def _row(self, out: Emitter, run: Panel, depth: int, epilogue: Epilogue) -> Iterator[str]:
        width, stride, size = run.width, run.width * out.lanes, self._size
        wanted = self.blocking.parts if self.blocking and self.blocking.parts else 8 // width
        parts = next(n for n in (8, 4, 2, 1) if n <= max(1, wanted))  # blocks are powers of two
        pitch = -(-self.weight.shape[1] // out.lanes) * out.lanes
        out.need("v_load")
        load = f"{LOADS[self.storage]}(b + (k + s + 1) * {stride} + j * VL)"
        yield f"        vf t[{width}], a[{parts * width}];"
        yield f"        for (int j = 0; j < {width}; j++) t[j] = v_set1(0.0f);"
        yield f"        for (int n = 0; n < {len(self.scale)}; n++) {{"
        yield f"            for (int j = 0; j < {parts * width}; j++) a[j] = v_set1(0.0f);"
        yield f"            for (int k = n * {size}; k < (n + 1) * {size}; k += {parts}) {{"
        yield from (f"    {line}" for line in self._fetch(out, stride, parts))
        yield f"                for (int s = 0; s < {parts}; s++)"
        yield f"                    for (int j = 0; j < {width}; j++) a[s * {width} + j] += v_set1(x[k + s]) * {load};"
        yield "            }"
        for half in (n for n in (4, 2, 1) if n < parts):
            yield f"            for (int j = 0; j < {half * width}; j++) a[j] += a[{half * width} + j];"
        yield f"            const float *f = scale + (long)n * {pitch} + p;"
        yield f"            for (int j = 0; j < {width}; j++) t[j] += a[j] * v_load(f + j * VL);"
        yield "        }"
        yield from epilogue.store(out, "t", 1, width, run.tail, "p", row="0", indent="        ")
