"""Instance, group and layer normalisation of images whose channels lie innermost: no channel is moved to be summed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from hasten.native.epilogue import Finished
from hasten.native.expr import ACC, Expr
from hasten.native.program import View

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.lower import Lowering

__all__ = ["NormaliseChannels", "by_channels"]

_WIDTH = 4  # vectors of channels side by side
_SUMS = 8  # at a time, so that each waits for no other
_MOST_CHANNELS = 1024  # their sums lie on the stack


@dataclass(eq=False)
class NormaliseChannels(Finished):
    """``y = epilogue((x - mean) / √(mean of squares + ε))`` over the positions and channels of each group of an image.

    Shapes:  x, y (images, channels, …), dense, channels innermost
    """

    x: View
    y: View
    groups: int
    epsilon: float
    epilogue: Expr = ACC
    READS = ("x", "operands")
    WRITES = ("y",)

    @property
    def _row_length(self) -> int:
        return self.x.shape[1]

    @property
    def _positions(self) -> int:
        return prod(self.x.shape[2:])

    @property
    def title(self) -> str:
        """Sizes."""
        images, channels = self.x.shape[:2]
        of = f"{images} times " if images > 1 else ""
        grouped = "" if self.groups == channels else f" in {self.groups} groups"
        return f"{of}{channels} channels{grouped} over {self._positions}{self._epilogue.title}"

    def emit(self, out: Emitter) -> None:
        """A pass for the means, one for the squares around them, one to write."""
        images, channels = self.x.shape[:2]
        room = -(-channels // out.lanes) * out.lanes
        share = out.number(1.0 / (self._positions * (channels // self.groups)))
        out.need("unroll", "v_load", "v_store", "v_set1", "v_sqrt")
        lines = [
            f"    for (int n = 0; n < {images}; n++, x += {self._positions * channels}) {{",
            f"        float mean[{room}] = {{0}}, scale[{room}] = {{0}}; /* of each channel */",
            *self._sums(out, "mean", "{0}", ""),
            *self._grouped(out, "mean", f" * {share}"),
            *self._sums(out, "scale", "{0} * {0}", "mean"),
            *self._grouped(out, "scale", ""),
            f"        for (int c = 0; c < {room}; c += VL) {{",
            f"            const vf spread = v_load(scale + c) * v_set1({share}) + v_set1({out.number(self.epsilon)});",
            "            v_store(scale + c, v_set1(1.0f) / v_sqrt(spread));",
            "        }",
            f"        for (int p = 0; p < {self._positions}; p++) {{",
            *self._write(out),
            "        }",
            "    }",
        ]
        signature = [("const float *x", out.pointer(self.x)), ("float *y", out.pointer(self.y))]
        out.function("normalise", self.title, [*signature, *self._epilogue.signature(out)], "\n".join(lines))

    def _sums(self, out: Emitter, into: str, form: str, minus: str) -> Iterator[str]:
        """``into[c]`` = the sum over positions of ``form`` of x less ``minus[c]``."""
        whole, tail = divmod(self.x.shape[1], out.lanes)
        many, rest = divmod(whole, _WIDTH)
        if many:
            yield f"        for (int c = 0; c < {many * _WIDTH * out.lanes}; c += {_WIDTH} * VL) {{"
            yield from self._block(into, form, minus, _WIDTH)
            yield "        }"
        for width, at, count in ((rest, many * _WIDTH, None), (1 if tail else 0, whole, tail)):
            if width:
                yield "        {"
                yield f"            const int c = {at * out.lanes};"
                yield from self._block(into, form, minus, width, count)
                yield "        }"
        if tail:
            out.need("v_load_n")

    def _block(self, into: str, form: str, minus: str, width: int, count: int | None = None) -> Iterator[str]:
        rows, channels = min(_SUMS // width, self._positions), self.x.shape[1]
        beside = " + j * VL" if width > 1 else ""
        place = f"x + p * {channels} + c{beside}"
        value = f"v_load({place})" if count is None else f"v_load_n({place}, {count})"
        value += f" - v_load({minus} + c{beside})" if minus else ""
        vectors = f"UNROLL for (int j = 0; j < {width}; j++) " if width > 1 else ""
        at, of = (f"i / {width}", f", j = i % {width}") if width > 1 else ("i", "")
        yield f"            vf sum[{rows * width}]; /* {rows} positions x {width} vectors of channels */"
        yield f"            UNROLL for (int i = 0; i < {rows * width}; i++) sum[i] = v_set1(0.0f);"
        yield f"            for (int p0 = 0; p0 < {self._positions // rows * rows}; p0 += {rows})"
        yield f"                UNROLL for (int i = 0; i < {rows * width}; i++) {{"
        yield f"                    const int p = p0 + {at}{of};"
        yield f"                    const vf v = {value};"
        yield f"                    sum[i] += {form.format('v')};"
        yield "                }"
        if self._positions % rows:
            yield f"            for (int p = {self._positions // rows * rows}; p < {self._positions}; p++)"
            yield f"                {vectors}{{"
            yield f"                    const vf v = {value};"
            yield f"                    sum[{'j' if width > 1 else '0'}] += {form.format('v')};"
            yield "                }"
        if rows > 1:
            first = f"i % {width}" if width > 1 else "0"
            yield f"            UNROLL for (int i = {width}; i < {rows * width}; i++) sum[{first}] += sum[i];"
        yield f"            {vectors}v_store({into} + c{beside}, sum[{'j' if width > 1 else '0'}]);"

    def _grouped(self, out: Emitter, sums: str, scaled: str) -> Iterator[str]:
        """Each channel gets the sum of its group's channels."""
        channels, each = self.x.shape[1], self.x.shape[1] // self.groups
        if each == 1:
            if scaled:
                yield f"        for (int c = 0; c < {channels}; c++) {sums}[c] = {sums}[c]{scaled};"
            return
        yield f"        for (int g = 0; g < {channels}; g += {each}) {{"
        if each % out.lanes:
            yield "            float all = 0.0f;"
            yield f"            for (int c = g; c < g + {each}; c++) all += {sums}[c];"
            yield f"            for (int c = g; c < g + {each}; c++) {sums}[c] = all{scaled};"
        else:
            out.need("v_sum")
            yield "            vf all = v_set1(0.0f);"
            yield f"            for (int c = g; c < g + {each}; c += VL) all += v_load({sums} + c);"
            yield f"            all = v_set1(v_sum(all){scaled});"
            yield f"            for (int c = g; c < g + {each}; c += VL) v_store({sums} + c, all);"
        yield "        }"

    def _write(self, out: Emitter) -> Iterator[str]:
        channels = self.x.shape[1]
        full, tail = channels // out.lanes * out.lanes, channels % out.lanes
        if full:
            yield f"            for (int c = 0; c < {full}; c += VL) {{"
            yield from self._vector(out, "c", None, "                ")
            yield "            }"
        if tail:
            yield "            {"
            yield from self._vector(out, str(full), tail, "                ")
            yield "            }"

    def _vector(self, out: Emitter, at: str, count: int | None, indent: str) -> Iterator[str]:
        name, channels = out.fresh("n"), self.x.shape[1]
        element = f"(n * {self._positions} + p) * {channels} + {at}"
        lines, result = self._epilogue.apply(out, name, column=at, element=element, count=count, indent=indent)
        value = (
            f"v_load(x + p * {channels} + {at})" if count is None else f"v_load_n(x + p * {channels} + {at}, {count})"
        )
        yield f"{indent}const vf {name} = ({value} - v_load(mean + {at})) * v_load(scale + {at});"
        yield from lines
        yield f"{indent}{self._epilogue.put(out, element, result, count)}"


def by_channels(low: Lowering, x: View, groups: int, epsilon: float) -> View | None:
    """``x`` (images, channels, …) normalised by groups of channels; None where its channels do not lie innermost."""
    order = (0, *range(2, x.rank), 1)
    fits = x.dtype == "float32" and x.size and x.rank > 2 and low.lanes <= x.shape[1] <= _MOST_CHANNELS
    if not fits or x.is_contiguous() or not x.is_contiguous(order):
        return None
    y = low.new(x.shape, order=order)
    low.add(NormaliseChannels(x, y, groups, epsilon))
    return y
