"""Matrix products with constant weights: one row (GEMV) up to a few thousand (small GEMM), epilogue in registers.

Weights are packed panel by panel, ``[panel][bias; K][vectors][lanes]``, so that every load is a whole aligned vector in
the order of use. One row keeps 8 or more accumulators in flight (FMA latency × ports), splitting K where N is narrow;
many rows take a tile of rows × vectors that fills the register file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hasten.native.epilogue import Epilogue, Finished
from hasten.native.expr import ACC, Expr
from hasten.native.kernels.storage import LOADS, WEIGHT_TYPES, stored
from hasten.native.plan import ALIGNMENT
from hasten.native.program import Step, View
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.isa import Isa

__all__ = ["Dense", "Panel", "pack", "panels"]

# A program with fewer weights runs from any first cache. Weights are asked for so long before their turn: 1 to 3 kB
# were found equally good.
_NEAR_BYTES, AHEAD_BYTES = 64 << 10, 1536


@dataclass(frozen=True)
class Panel:
    """A run of ``count`` equal panels of ``width`` vectors from column ``start``; ``tail``: lanes of the last one."""

    start: int
    count: int
    width: int
    tail: int


def panels(columns: int, lanes: int, widest: int, *, even: bool = False) -> tuple[Panel, ...]:
    """Columns cut into as few panels as possible of nearly equal width, the odd one (or one with a tail) last.

    ``even``: of several panels, all but the last have an even number of vectors where they may.
    """
    vectors = -(-columns // lanes)
    count = -(-vectors // widest)
    width = -(-vectors // count)
    if even and count > 1 and width < widest:
        width += width % 2
    tail = columns % lanes
    full = vectors // width
    rest = vectors - full * width
    runs = []
    if tail and not rest:
        full, rest = full - 1, width
    if full:
        runs.append(Panel(0, full, width, 0))
    if rest:
        runs.append(Panel(full * width * lanes, 1, rest, tail))
    return tuple(runs)


def pack(weight: Array, bias: Array, lanes: int, runs: tuple[Panel, ...]) -> Array:
    """``[bias; K][width · lanes]`` for every panel, one after the other, zero-padded.

    Shapes:  weight (K, N) · bias (N,) · returns 1-D
    """
    both = np.concatenate([bias[None, :], weight])
    total = sum(r.count * r.width for r in runs) * lanes
    padded = np.zeros((both.shape[0], total), both.dtype)
    padded[:, : both.shape[1]] = both
    blocks = []
    for run in runs:
        for p in range(run.count):
            start = run.start + p * run.width * lanes
            blocks.append(padded[:, start : start + run.width * lanes].reshape(-1))
    return np.concatenate(blocks)


@dataclass(frozen=True)
class Blocking:
    """How one product is cut.

    Units:   vectors: of output columns in a panel; parts: of the depth, summed apart (one row); 0: as the model has it
    """

    vectors: int
    parts: int = 0

    @property
    def text(self) -> str:
        """The sizes in words."""
        return f"up to {self.vectors} vectors a panel" + (f", {self.parts} sums of each" if self.parts else "")


@dataclass(eq=False)
class Dense(Finished):
    """``y = epilogue(x · weight + bias)``.

    Shapes:  x (M, K), last dimension dense · weight (K, N) · bias (N,) · y (M, N), last dimension dense
    """

    x: View
    y: View
    weight: Array
    bias: Array
    epilogue: Expr = ACC
    storage: str = "float32"
    """How the weights are kept; see ``LOADS``."""
    blocking: Blocking | None = None
    """The model's choice where None."""
    READS = ("x", "operands")
    WRITES = ("y",)

    @property
    def _row_length(self) -> int:
        return int(self.weight.shape[1])

    @property
    def rows(self) -> int:
        """M."""
        return self.x.shape[0]

    @property
    def title(self) -> str:
        """Sizes and epilogue."""
        rows = f"{self.rows} rows of " if self.rows > 1 else ""
        kept = "" if self.storage == "float32" else f", {self.storage} weights"
        return f"{rows}{self.weight.shape[0]} -> {self.weight.shape[1]}{kept}{self._epilogue.title}"

    def accepts(self, name: str, view: View) -> bool:
        """One dense row may lie anywhere."""
        return name == "y" and self.rows == 1 and (view.strides[1] == 1 or view.shape[1] == 1)

    def macs(self) -> int:
        """M · K · N."""
        return self.rows * int(np.prod(self.weight.shape))

    @property
    def way(self) -> str:
        """The panels."""
        return self.blocking.text if self.blocking else ""

    def preferred(self, isa: Isa) -> Step:
        """As wide panels as the registers allow."""
        return replace(self, blocking=Blocking(self._widest(isa), 0))

    def others(self, isa: Isa) -> tuple[Step, ...]:
        """Narrower panels; one row: its depth in as many parts as keep eight sums in flight, or fewer for one panel."""
        vectors = -(-self.weight.shape[1] // isa.widths(self.weight.shape[1])[0].lanes)
        if self.rows > 1:
            return tuple(replace(self, blocking=Blocking(width)) for width in (2, 3, 1, 4) if width <= vectors)
        found = [Blocking(width, 8 // width) for width in (8, 4, 2, 1) if width <= vectors]
        found += [Blocking(1, parts) for parts in (6, 4, 2) if vectors == 1]
        return tuple(replace(self, blocking=blocking) for blocking in found)

    def emit(self, out: Emitter) -> None:
        """One function; a block per run of equal panels. A team shares out panels, or rows where there are many."""
        with out.vectors(out.isa.widths(self.weight.shape[1])[0].lanes):
            self._emit(out)

    def _emit(self, out: Emitter) -> None:
        (depth, columns), isa = self.weight.shape, out.isa  # weights are packed later, when out may be at other vectors
        split = out.splits(2 * self.macs())  # what it feeds is often shared, and each part then has its own columns
        widest = self.blocking.vectors if self.blocking else self._widest(out.isa)
        if split and self.rows == 1:
            widest = min(widest, -(-columns // (out.lanes * out.threads)))
        runs = self._cut(out.lanes, widest)
        epilogue = self._epilogue
        signature = [
            ("const float *restrict x", out.pointer(self.x)),
            (f"const {WEIGHT_TYPES[self.storage]} *restrict w", out.constant(lambda: self._values(runs, isa))),
            *self._beside(out),
            ("float *restrict y", out.pointer(self.y)),
            *epilogue.signature(out),
        ]
        if self.rows == 0:  # an empty batch: nothing to compute
            out.function("dense", self.title, signature, "".join(f"    (void){n};\n" for n in ("x", "w", "y")))
            return
        out.need(LOADS[self.storage], "v_set1", *(("unroll",) if self.rows > 1 else ()))
        lines = list(self._opening(out))
        for run in runs:
            lines += list(self._run(out, run, runs[-1], depth, epilogue, split))
        if split:
            lines.append("    (void)flags;")
        out.function("dense", self.title, signature, "\n".join(lines), split=split)

    def _cut(self, lanes: int, widest: int) -> tuple[Panel, ...]:
        # Half a vector of bfloat16 too many, and every other row of a panel lies across cache lines.
        return panels(self.weight.shape[1], lanes, widest, even=self.storage == "bfloat16" and self.rows == 1)

    def _panel_size(self, run: Panel, lanes: int) -> int:
        """Stored values of one panel."""
        return (len(self.weight) + 1) * run.width * lanes

    def _beside(self, out: Emitter) -> list[tuple[str, str]]:
        """What a kind of product is given besides its weights."""
        return []

    def _opening(self, out: Emitter) -> Iterator[str]:
        """C before all panels."""
        return iter(())

    def _widest(self, isa: Isa) -> int:
        many = isa.registers == 32
        return (4 if many else 2) if self.rows > 1 else 12 if many else 8

    def _run(self, out: Emitter, run: Panel, last: Panel, depth: int, epilogue: Epilogue, split: bool) -> Iterator[str]:
        columns, size = run.width * out.lanes, self._panel_size(run, out.lanes)
        low, high = "0", str(run.count)
        by_panel = split and self.rows < 32
        if by_panel:
            # A lone panel (the odd one out) goes to the last part.
            low = f"{run.count} * part / parts" if run.count > 1 else "part == parts - 1 ? 0 : 1"
            high = f"{run.count} * (part + 1) / parts" if run.count > 1 else "1"
        if run.count == 1 and not by_panel:
            end = run.start + (run.width - 1) * out.lanes + (run.tail or out.lanes)
            yield f"    {{ /* columns {run.start} to {end - 1} */"
            yield f"        const int p = {run.start};"
            yield f"        const {WEIGHT_TYPES[self.storage]} *restrict b = w;"
        else:
            yield f"    for (int i = {low}; i < {high}; i++) {{"
            yield f"        const int p = {run.start} + i * {columns};"
            yield f"        const {WEIGHT_TYPES[self.storage]} *restrict b = w + (long)i * {size};"
        if self.rows == 1:
            yield from self._row(out, run, depth, epilogue)
        else:
            yield from self._tiles(out, run, depth, epilogue, split and not by_panel)
        yield "    }"
        if run is not last:
            yield f"    w += {run.count * size};"

    def _row(self, out: Emitter, run: Panel, depth: int, epilogue: Epilogue) -> Iterator[str]:
        """One row: ``split`` interleaved parts of K, each with its own accumulators, summed at the end."""
        width, stride = run.width, run.width * out.lanes
        split = max(1, min(8 // width, depth // 2)) if width < 8 else 1
        if self.blocking and self.blocking.parts:
            split = max(1, min(self.blocking.parts, depth // 2))
        whole = depth // split * split
        each = f"for (int j = 0; j < {width}; j++) " if width > 1 else ""
        lane = " + j * VL" if width > 1 else ""
        add = f"+= v_set1(x[{{x}}]) * {LOADS[self.storage]}(b + {{at}} * {stride}{lane});"
        if self._paired(run, out.lanes):
            yield from self._pairs(out, run, depth, epilogue)
            return
        yield f"        vf a[{split * width}];"
        yield f"        {each}a[{'j' if width > 1 else '0'}] = {LOADS[self.storage]}(b{lane}); /* the bias */"
        fetch = self._fetch(out, stride, split)
        opened, closed = (" {", ["        }"]) if fetch else ("", [])
        if split == 1:
            yield f"        for (int k = 0; k < {depth}; k++){opened}"
            yield from fetch
            yield f"            {each}a[{'j' if width > 1 else '0'}] {add.format(x='k', at='(k + 1)')}"
            yield from closed
        else:
            here = f"s * {width} + j" if width > 1 else "s"
            yield f"        for (int j = {width}; j < {split * width}; j++) a[j] = v_set1(0.0f);"
            yield f"        for (int k = 0; k < {whole}; k += {split}){opened}"
            yield from fetch
            yield f"            for (int s = 0; s < {split}; s++)"
            yield f"                {each}a[{here}] {add.format(x='k + s', at='(k + s + 1)')}"
            yield from closed
            if depth > whole:
                yield f"        for (int s = 0; s < {depth - whole}; s++)"
                yield f"            {each}a[{here}] {add.format(x=f'{whole} + s', at=f'({whole + 1} + s)')}"
        step = split
        while step > 1:
            half, keep = step // 2, step - step // 2
            yield f"        for (int j = 0; j < {half * width}; j++) a[j] += a[{keep * width} + j];"
            step = keep
        yield from epilogue.store(out, "a", 1, width, run.tail, "p", row="0", indent="        ")

    def _fetch(self, out: Emitter, stride: int, count: int) -> list[str]:
        """What asks the caches for weights that come later, ``count`` k at a time; none where the first has all."""
        if not self._reads_ahead(out):
            return []
        size = stored(np.zeros(1, np.float32), self.storage).itemsize
        place = f"b + (k + {-(-AHEAD_BYTES // (stride * size))}) * {stride}"
        line = ALIGNMENT // size
        if count * stride <= line:
            return [f"            __builtin_prefetch({place});"]
        return [f"            for (int j = 0; j < {count * stride}; j += {line}) __builtin_prefetch({place} + j);"]

    def _reads_ahead(self, out: Emitter) -> bool:
        """Whether asking for weights ahead of their turn repays.

        A processor's own reading ahead ends with a page of 4 kB, and what a panel's epilogue takes is time lost to it.
        Zen 4 reads on by itself; asking it to takes a fifth of what its third cache gives.
        """
        far = out.program.weight_bytes >= _NEAR_BYTES
        return out.isa.arch == "x86_64" and out.isa.name != "zen4" and far

    def _paired(self, run: Panel, lanes: int) -> bool:
        """True where two neighbouring vectors of bfloat16 share words: cheaper to widen than halves of a vector."""
        aligned = run.width * lanes % 2 == 0  # each row begins with a whole word
        return self.storage == "bfloat16" and self.rows == 1 and run.width > 1 and aligned

    def _pairs(self, out: Emitter, run: Panel, depth: int, epilogue: Epilogue) -> Iterator[str]:
        """One row of paired weights; K in as many interleaved parts as keep eight sums in flight."""
        width, stride, load = run.width, run.width * out.lanes, LOADS[self.storage]
        parts = max(1, min(8 // width, depth))
        out.need("v_loadi", "v_low_bf16", "v_high_bf16", "v_set1")
        yield f"        vf a[{parts * width}];"
        yield f"        for (int j = 0; j < {parts * width}; j++) a[j] = v_set1(0.0f);"
        for start, stop in ((0, depth // parts * parts), (depth // parts * parts, depth)):
            if start == stop:
                continue
            count = min(parts, stop - start)
            fetch = self._fetch(out, stride, parts)
            yield f"        for (int k = {start}; k < {stop}; k += {parts})" + (" {" if fetch else "")
            yield from fetch
            yield f"            for (int s = 0; s < {count}; s++) {{"
            yield f"                for (int j = 0; j < {width // 2 * 2}; j += 2) {{"
            yield f"                    const vi two = v_loadi((const int32_t *)(b + (k + s + 1) * {stride} + j * VL));"
            yield f"                    a[s * {width} + j] += v_set1(x[k + s]) * v_low_bf16(two);"
            yield f"                    a[s * {width} + j + 1] += v_set1(x[k + s]) * v_high_bf16(two);"
            yield "                }"
            if width % 2:  # the last one by itself
                at = f"(k + s + 1) * {stride} + {width - 1} * VL"
                yield f"                a[s * {width} + {width - 1}] += v_set1(x[k + s]) * {load}(b + {at});"
            yield "            }"
            if fetch:
                yield "        }"
        if parts > 1:
            yield f"        for (int s = 1; s < {parts}; s++)"
            yield f"            for (int j = 0; j < {width}; j++) a[j] += a[s * {width} + j];"
        yield from epilogue.store(out, "a", 1, width, run.tail, "p", row="0", indent="        ")

    def _values(self, runs: tuple[Panel, ...], isa: Isa) -> Array:
        values = pack(self.weight.astype(np.float32), self.bias.astype(np.float32), isa.lanes, runs)
        return self._kept(values, runs, isa)

    def _kept(self, values: Array, runs: tuple[Panel, ...], isa: Isa) -> Array:
        """The packed weights as they are stored; vectors of a pair lane by lane."""
        kept, done, depth = stored(values, self.storage), 0, self.weight.shape[0] + 1
        for run in runs:
            size = run.count * depth * run.width * isa.lanes
            if self._paired(run, isa.lanes):
                row = kept[done : done + size].reshape(-1, run.width * isa.lanes)
                even = run.width // 2 * 2 * isa.lanes
                pairs = row[:, :even].reshape(len(row), -1, 2, isa.lanes).transpose(0, 1, 3, 2)
                row[:, :even] = pairs.reshape(len(row), even)
            done += size
        return kept

    def _tiles(self, out: Emitter, run: Panel, depth: int, epilogue: Epilogue, split: bool) -> Iterator[str]:
        tile = max(1, (out.isa.registers - run.width - 2) // run.width)
        tile = min(tile, self.rows)
        tile = -(-self.rows // -(-self.rows // tile))  # as equal as possible
        whole = self.rows // tile * tile
        blocks = whole // tile
        low, high = (f"{blocks} * part / parts", f"{blocks} * (part + 1) / parts") if split else ("0", str(blocks))
        yield f"        for (int t = {low}; t < {high}; t++) {{"
        yield f"            const int m = t * {tile};"
        yield from self._tile(out, run, depth, epilogue, tile, "m")
        yield "        }"
        if self.rows > whole:
            yield "        if (part == parts - 1) {" if split else "        {"
            yield from self._tile(out, run, depth, epilogue, self.rows - whole, str(whole))
            yield "        }"

    def _tile(self, out: Emitter, run: Panel, depth: int, epilogue: Epilogue, tile: int, row: str) -> Iterator[str]:
        width, ldx = run.width, self.x.strides[0]
        yield f"            vf a[{tile * width}];"
        yield f"            UNROLL for (int i = 0; i < {tile}; i++)"
        bias = f"{LOADS[self.storage]}(b + j * VL)"
        yield f"                for (int j = 0; j < {width}; j++) a[i * {width} + j] = {bias};"
        yield f"            for (int k = 0; k < {depth}; k++) {{"
        yield f"                vf wk[{width}];"
        row_of = f"b + (k + 1) * {width * out.lanes}"
        yield f"                for (int j = 0; j < {width}; j++) wk[j] = {LOADS[self.storage]}({row_of} + j * VL);"
        yield f"                UNROLL for (int i = 0; i < {tile}; i++) {{"
        yield f"                    const vf xk = v_set1(x[({row} + i) * {ldx} + k]);"
        yield f"                    for (int j = 0; j < {width}; j++) a[i * {width} + j] += xk * wk[j];"
        yield "                }"
        yield "            }"
        yield from epilogue.store(out, "a", tile, width, run.tail, "p", row=row, indent="            ")
