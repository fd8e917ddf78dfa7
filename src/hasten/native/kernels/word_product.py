"""Matrix products of int8 weights with whole numbers of 16 bits: two multiplications where float32 has one.

Every row of activations becomes whole numbers times a scale of its own, a block of rows at a time, on the stack; sums
are 32 bits wide and exact. With one word a value the rounding leaves 1.5e-5 of a row's largest value. With two, high
and low, it leaves no more than float32 itself does, at its rate and a quarter of its bytes: worth it where a single row
waits for its weights. The weights' scales and the bias are part of the epilogue.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hasten.native.epilogue import Finished
from hasten.native.expr import ACC, Expr
from hasten.native.kernels.dense import Panel, pack, panels
from hasten.native.program import View
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter

__all__ = ["DEEPEST", "LARGEST", "UNIT", "UNIT_C", "WordProduct", "sums"]

_BLOCK = 16  # rows that are rounded together: what ``v_words`` takes at most
LARGEST = 32767
DEEPEST = 2048  # rows of weights: a block of activations on the stack is then 64 KB
_INT32 = 2**31 - 1
UNIT = 2.0**-24  # of the sums that the epilogue sees, so that a huge row times whole numbers stays finite
UNIT_C = "0x1p-24f"


def sums(weight: Array) -> int:
    """In how many parts the rows must be summed so that no sum can leave 32 bits, whatever the activations.

    Shapes:  weight (K, N) int8
    """
    size = np.abs(weight.astype(np.int64))
    for parts in range(1, len(size) + 1):
        length = _length(len(size), parts)
        most = max(int(size[k : k + length].sum(axis=0).max()) for k in range(0, len(size), length))
        if most * LARGEST <= _INT32:
            return -(-len(size) // length)
    raise AssertionError("one product always fits")


def _length(depth: int, parts: int) -> int:
    """Rows summed together: pairs are never parted."""
    return -(-depth // (2 * parts)) * 2


@dataclass(eq=False)
class WordProduct(Finished):
    """``y = epilogue(x · weight · UNIT)``, x as whole numbers row by row.

    Shapes:  x (M, K), last dimension dense · weight (K, N) int8 · y: M · N values, dense, N the innermost
    """

    x: View
    y: View
    weight: Array
    words: int = 1
    """16-bit words of a value of x: 1, or 2 for a single row."""
    epilogue: Expr = ACC
    READS = ("x", "operands")
    WRITES = ("y",)

    @property
    def _row_length(self) -> int:
        return int(self.weight.shape[1])

    @property
    def kernel(self) -> str:
        """words."""
        return "words"

    @property
    def title(self) -> str:
        """Sizes and epilogue."""
        rows, (depth, columns) = self.x.shape[0], self.weight.shape
        many = f"{rows} rows of " if rows > 1 else ""
        kept = "int8 weights, exact" if self.words == 2 else "int8 weights, int16 inputs"
        return f"{many}{depth} -> {columns}, {kept}{self._epilogue.title}"

    def macs(self) -> int:
        """M · K · N."""
        return self.x.shape[0] * int(np.prod(self.weight.shape))

    def emit(self, out: Emitter) -> None:
        """Blocks of rows; in each the panels, in each tiles of rows. A team shares out blocks, or panels of few."""
        with out.vectors(out.isa.widths(self.weight.shape[1])[0].lanes):
            _Writer(self, out).write()


class _Writer:
    def __init__(self, step: WordProduct, out: Emitter) -> None:
        self.step, self.out = step, out
        self.rows, self.depth = step.x.shape
        columns = step.weight.shape[1]
        self.pitch = -(-self.depth // max(2, out.lanes)) * max(2, out.lanes)
        self.runs = panels(columns, out.lanes, self._widest(columns))
        self.blocks, self.left = divmod(self.rows, _BLOCK)
        if self.blocks == 0:
            self.blocks, self.block, self.left = 1, self.left, 0
        else:
            self.block = _BLOCK
        self.parts = sums(step.weight)
        self.length = _length(self.depth, self.parts) // 2  # pairs
        self.split = out.splits(step.macs())
        self.by_block = self.blocks >= out.threads

    def _widest(self, columns: int) -> int:
        """Vectors of a panel: sums of one row wait for each other, those of a tile of rows do not."""
        many = self.out.isa.registers == 32
        if self.rows > 1:
            return 4 if many else 2
        most = 12 if many else 8 // self.step.words
        share = -(-columns // (self.out.lanes * self.out.threads)) if self.out.splits(self.step.macs()) else 12
        return min(most, share)

    def write(self) -> None:
        step, out = self.step, self.out
        out.need("v_words" if step.words == 1 else "v_words_2")
        out.need("v_row", "unroll", "v_load_pairs", "v_dup2", "v_dot2", "v_set1i", "v_tofloat", "v_set1")
        signature = [
            ("const float *restrict x", out.pointer(step.x)),
            ("const int8_t *restrict w", out.constant(self._packed())),
            ("float *restrict y", out.pointer(step.y)),
            *step._epilogue.signature(out),
        ]
        lines = list(self._blocks())
        if self.split:
            lines.append("(void)flags;")
        body = "\n".join(f"    {line}" for line in lines)
        out.function(step.kernel, step.title, signature, body, split=self.split)

    def _blocks(self) -> Iterator[str]:
        low, high = "0", str(self.blocks)
        if self.split and self.by_block:
            low, high = f"{self.blocks} * part / parts", f"{self.blocks} * (part + 1) / parts"
        if self.blocks > 1:
            yield f"for (int t = {low}; t < {high}; t++) {{"
            yield f"    const int m = t * {_BLOCK};"
            yield from (f"    {line}" for line in self._block(self.block, "m"))
            yield "}"
        else:
            yield from self._block(self.block, "0")
        if self.left:
            yield "if (part == parts - 1) {" if self.split and self.by_block else "{"
            yield from (f"    {line}" for line in self._block(self.left, str(self.blocks * _BLOCK)))
            yield "}"

    def _block(self, rows: int, row: str) -> Iterator[str]:
        """Rounds a block of rows, then multiplies it with every panel."""
        step, lanes = self.step, self.out.lanes
        ldx = step.x.strides[0] if self.rows > 1 else 0
        if step.words == 2:
            yield f"int16_t q[{self.pitch}], low[{self.pitch}]; /* x in whole numbers, and what they leave */"
            yield f"const float scale[1] = {{v_words_2(x, {self.depth}, q, low)}}, odd = scale[0];"
        else:
            yield f"int16_t q[{rows * self.pitch}]; /* {rows} rows in whole numbers of their scales */"
            yield f"float scale[{_BLOCK}];"
            at = f"x + {row} * {ldx}" if row != "0" else "x"
            yield f"const float odd = v_words({at}, {ldx}, {self.depth}, {rows}, q, {self.pitch}, scale);"
        done = 0
        for run in self.runs:
            size = -(-self.depth // 2) * 2 * run.width * lanes
            low, high = "0", str(run.count)
            if self.split and not self.by_block:
                # A lone panel (the odd one out) goes to the last part.
                low = f"{run.count} * part / parts" if run.count > 1 else "part == parts - 1 ? 0 : 1"
                high = f"{run.count} * (part + 1) / parts" if run.count > 1 else "1"
            if run.count == 1 and low == "0":
                last = run.start + (run.width - 1) * lanes + (run.tail or lanes) - 1
                yield f"{{ /* columns {run.start} to {last} */"
                yield f"    const int p = {run.start};"
                yield f"    const int8_t *restrict b = {f'w + {done}' if done else 'w'};"
            else:
                yield f"for (int n = {low}; n < {high}; n++) {{"
                yield f"    const int p = {run.start} + n * {run.width * lanes};"
                yield f"    const int8_t *restrict b = w + {done} + (long)n * {size};"
            yield from (f"    {line}" for line in self._tiles(run, rows, row))
            yield "}"
            done += size * run.count

    def _tiles(self, run: Panel, rows: int, row: str) -> Iterator[str]:
        tile = min(rows, max(1, {1: 16, 2: 8}.get(run.width, 4) // (1 if self.out.isa.registers == 32 else 2)))
        count, left = divmod(rows, tile)
        if count > 1:
            yield f"for (int r = 0; r < {rows - left}; r += {tile}) {{"
            yield from (f"    {line}" for line in self._tile(run, tile, "r", row))
            yield "}"
        else:
            yield from self._tile(run, tile, "0", row)
        if left:
            yield "{"
            yield from (f"    {line}" for line in self._tile(run, left, str(rows - left), row))
            yield "}"

    def _tile(self, run: Panel, tile: int, first: str, row: str) -> Iterator[str]:
        """``tile`` rows from row ``first`` of the block, which begins at row ``row`` of x."""
        width, pairs = run.width, -(-self.depth // 2)
        count = tile * width
        two = self.step.words == 2
        yield f"vf s[{count}];"
        yield f"vi a[{count}], c[{count}];" if two else f"vi a[{count}];"
        each = f"UNROLL for (int j = 0; j < {count}; j++)"
        start = f"{each} a[j] = c[j] = v_set1i(0);" if two else f"{each} a[j] = v_set1i(0);"
        total = f"v_tofloat(a[j]) * {UNIT_C}" + (f" + v_tofloat(c[j]) * {UNIT_C} * 0x1p-15f" if two else "")
        if self.parts == 1:
            yield start
            yield from self._pairs(width, tile, first, ("0", str(pairs)))
            yield f"{each} s[j] = {total};"
        else:
            yield f"{each} s[j] = v_set1(0.0f);"
            yield f"for (int from = 0; from < {pairs}; from += {self.length}) {{ /* as many as 32 bits can sum */"
            yield f"    const int to = from + {self.length} < {pairs} ? from + {self.length} : {pairs};"
            yield f"    {start}"
            yield from (f"    {line}" for line in self._pairs(width, tile, first, ("from", "to")))
            yield f"    {each} s[j] += {total};"
            yield "}"
        if tile == 1:
            yield f"{each} s[j] *= v_set1(scale[{first}]);"
        else:
            at = f"i + {first}" if first != "0" else "i"
            yield f"UNROLL for (int i = 0; i < {tile}; i++)"
            yield f"    for (int j = 0; j < {width}; j++) s[i * {width} + j] *= v_set1(scale[{at}]);"
        yield from self._odd_rows(width, tile, first, row)
        place = " + ".join(t for t in (row, first) if t != "0") or "0"
        place = f"({place})" if " " in place else place
        yield from self.step._epilogue.store(self.out, "s", tile, width, run.tail, "p", row=place, indent="")

    def _odd_rows(self, width: int, tile: int, first: str, row: str) -> Iterator[str]:
        """Rows with a NaN or an infinity anew, in float32: only it tells which columns those reach."""
        ldx = self.step.x.strides[0] if self.rows > 1 else 0
        yield "if (__builtin_expect(odd != odd, 0))"
        yield f"    UNROLL for (int i = 0; i < {tile}; i++)"
        yield f"        if (scale[{first} + i] != scale[{first} + i]) {{"
        yield f"            vf found[{width}];"
        place = f"x + ({row} + {first} + i) * {ldx}"
        yield f"            v_row({place}, {self.depth}, b, {width}, {UNIT_C}, found);"
        yield f"            for (int j = 0; j < {width}; j++) s[i * {width} + j] = found[j];"
        yield "        }"

    def _pairs(self, width: int, tile: int, first: str, bounds: tuple[str, str]) -> Iterator[str]:
        yield f"for (int k = {bounds[0]}; k < {bounds[1]}; k++) {{"
        yield f"    vi v[{width}];"
        pair = 2 * self.out.lanes
        yield f"    UNROLL for (int j = 0; j < {width}; j++) v[j] = v_load_pairs(b + k * {width * pair} + j * {pair});"
        if tile == 1:
            at = f"{first} * {self.pitch} + " if first != "0" else ""
            each = f"    for (int j = 0; j < {width}; j++)"
            yield f"    const vi two = v_dup2(q + {at}2 * k);"
            yield f"{each} a[j] = v_dot2(a[j], two, v[j]);"
            if self.step.words == 2:
                yield "    const vi rest = v_dup2(low + 2 * k);"
                yield f"{each} c[j] = v_dot2(c[j], rest, v[j]);"
        else:
            at = f"({first} + i) * {self.pitch}" if first != "0" else f"i * {self.pitch}"
            acc = f"a[i * {width} + j]"
            yield f"    UNROLL for (int i = 0; i < {tile}; i++) {{"
            yield f"        const vi two = v_dup2(q + {at} + 2 * k);"
            yield f"        for (int j = 0; j < {width}; j++) {acc} = v_dot2({acc}, two, v[j]);"
            yield "    }"
        yield "}"

    def _packed(self) -> Array:
        """``[panel][pair][vector][lane][2]``, zeros where rows or columns run out."""
        lanes, depth = self.out.lanes, self.depth
        even = np.zeros((-(-depth // 2) * 2, self.step.weight.shape[1]), np.int8)
        even[:depth] = self.step.weight
        # ``pack`` wants one row before the others: here there is none, the bias being in the epilogue.
        blocks = pack(even[1:], even[0], lanes, self.runs)
        done, at = [], 0
        for run in self.runs:
            for _ in range(run.count):
                size = len(even) * run.width * lanes
                block = blocks[at : at + size].reshape(len(even) // 2, 2, run.width, lanes)
                done.append(block.transpose(0, 2, 3, 1).reshape(-1))
                at += size
        return np.concatenate(done)
