"""Reductions over any axes and dtype: all see their input as (outer, reduced, inner)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.native.epilogue import Finished
from hasten.native.expr import ACC, Expr, call, const, load
from hasten.native.kernels.arithmetic import apply, compute
from hasten.native.kernels.typed import FLOATS, INTEGERS, c_type, number, operation
from hasten.native.lower_shape import known, static
from hasten.native.program import C_TYPES, View, contiguous_strides

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.lower import Lowering

__all__ = ["LOWER", "Reduce", "reduce"]

# How a value is changed first, how two are combined, what an empty set gives.
_KINDS: Mapping[str, tuple[str, str]] = {
    "sum": ("", "add"), "sum_square": ("square", "add"), "l1": ("abs", "add"), "prod": ("", "mul"),
    "max": ("", "maximum"), "min": ("", "minimum"),
}  # fmt: skip


# Neighbours to be combined, up to which a vector of results beats a vector of neighbours.
_FEW = 4


def identity(kind: str, dtype: str) -> float:
    """What the reduction of an empty set gives."""
    if kind not in ("max", "min"):
        return 1 if kind == "prod" else 0
    if dtype in FLOATS:
        return -np.inf if kind == "max" else np.inf
    if dtype == "bool":
        return int(kind == "min")
    info = np.iinfo(dtype)
    return int(info.min if kind == "max" else info.max)


@dataclass(eq=False)
class Reduce(Finished):
    """``y[a, b] = epilogue(x[a, :, b] combined)``; the epilogue only for float32.

    Shapes:  x (A, R, B), dense · y (A, B), dense
    """

    x: View
    y: View
    kind: str
    epilogue: Expr = ACC
    READS = ("x", "operands")
    WRITES = ("y",)

    @property
    def _row_length(self) -> int:
        return max(self.x.shape[0] if self.x.shape[2] == 1 else self.x.shape[2], 1)

    @property
    def title(self) -> str:
        """Kind and sizes."""
        return f"{self.kind} of {self.x.shape[1]}, {self.x.shape[0]} x {self.x.shape[2]} times{self._epilogue.title}"

    def macs(self) -> int:
        """One per element."""
        return self.x.size

    def emit(self, out: Emitter) -> None:
        """float32 in vectors along whichever of R and B is dense; others one value at a time."""
        own = C_TYPES[self.x.dtype]
        signature = [(f"const {own} *restrict x", out.pointer(self.x)), (f"{own} *restrict y", out.pointer(self.y))]
        if self.x.dtype != "float32":
            lines = list(self._scalars(out))
        elif self.x.shape[2] == 1:
            lines = list(self._rows(out))
            signature += self._epilogue.signature(out)
        else:
            lines = list(self._columns(out))
            signature += self._epilogue.signature(out)
        out.function("reduce", self.title, signature, "\n".join(lines))

    def _changed(self, out: Emitter, text: str) -> str:
        if self.kind == "l1":
            out.need("v_abs")
            return f"v_abs({text})"
        return text

    def _combined(self, out: Emitter, acc: str, text: str) -> str:
        """``acc`` with one more vector taken in."""
        if self.kind == "sum_square":
            return f"{acc} += {text} * {text};"
        if self.kind in ("sum", "l1"):
            return f"{acc} += {self._changed(out, text)};"
        if self.kind == "prod":
            return f"{acc} *= {text};"
        name = "v_maximum" if self.kind == "max" else "v_minimum"
        out.need(name)
        return f"{acc} = {name}({acc}, {text});"

    def _rows(self, out: Emitter) -> Iterator[str]:
        rows, count, _ = self.x.shape
        lanes, start = out.lanes, out.number(identity(self.kind, "float32"))
        wide = 4 if count >= 4 * lanes else 1
        full, tail = count // (wide * lanes) * wide * lanes, count % lanes
        out.need("v_set1", "v_load", "v_store_n")
        yield f"    for (int a = 0; a < {rows}; a++, x += {count}) {{"
        yield f"        vf s[{wide}];"
        yield f"        for (int j = 0; j < {wide}; j++) s[j] = v_set1({start});"
        if full:
            yield f"        for (int i = 0; i < {full}; i += {wide} * VL)"
            yield f"            for (int j = 0; j < {wide}; j++) {{"
            yield "                const vf v = v_load(x + i + j * VL);"
            yield f"                {self._combined(out, 's[j]', 'v')}"
            yield "            }"
        for at in range(full, count - tail, lanes):
            yield f"        {{ const vf v = v_load(x + {at}); {self._combined(out, 's[0]', 'v')} }}"
        if tail:
            out.need("v_load_n", "v_lanes")
            found = f"v_lanes(v_load_n(x + {count - tail}, {tail}), {tail}, {start})"
            yield f"        {{ const vf v = {found}; {self._combined(out, 's[0]', 'v')} }}"
        again = {"sum_square": "sum", "l1": "sum"}.get(self.kind, self.kind)
        merged = Reduce(self.x, self.y, again)._combined(out, "s[0]", "s[j]")
        if wide > 1:
            yield f"        for (int j = 1; j < {wide}; j++) {{ {merged} }}"
        if again == "sum":
            out.need("v_sum")
            yield "        const float total = v_sum(s[0]);"
        else:
            out.need("v_store")
            combined = operation(_KINDS[again][1], "float32", out, "total", "lane[j]")
            yield "        float lane[VL];"
            yield "        v_store(lane, s[0]);"
            yield "        float total = lane[0];"
            yield f"        for (int j = 1; j < VL; j++) total = {combined};"
        lines, value = self._epilogue.apply(out, "v_set1(total)", column="a", element="a", count=1, indent="        ")
        yield from lines
        yield f"        v_store_n(y + a, {value}, 1);"
        yield "    }"

    def _columns(self, out: Emitter) -> Iterator[str]:
        outer, count, inner = self.x.shape
        lanes, start = out.lanes, out.number(identity(self.kind, "float32"))
        yield f"    for (int a = 0; a < {outer}; a++, x += {count * inner}) {{"
        for first, width in _blocks(inner, lanes):
            whole = width >= lanes
            vectors = width // lanes if whole else 1
            out.need("v_set1", *(("v_load", "v_store") if whole else ("v_load_n", "v_store_n")))
            repeat = (inner // lanes) // vectors if whole else 1
            loop = f"for (int b = {first}; b < {first + repeat * vectors * lanes}; b += {vectors} * VL) {{"
            yield f"        {loop if whole else '{'}"
            at = "b" if whole else str(first)
            yield f"            vf s[{vectors}];"
            yield f"            for (int j = 0; j < {vectors}; j++) s[j] = v_set1({start});"
            yield f"            for (int r = 0; r < {count}; r++)"
            yield f"                for (int j = 0; j < {vectors}; j++) {{"
            place = f"x + r * {inner} + {at} + j * VL"
            yield f"                    const vf v = {f'v_load({place})' if whole else f'v_load_n({place}, {width})'};"
            yield f"                    {self._combined(out, 's[j]', 'v')}"
            yield "                }"
            yield f"            for (int j = 0; j < {vectors}; j++) {{"
            lines, value = self._epilogue.apply(
                out, "s[j]", column=f"{at} + j * VL", element=f"a * {inner} + {at} + j * VL",
                count=None if whole else width, indent="                ",
            )  # fmt: skip
            yield from lines
            target = f"y + a * {inner} + {at} + j * VL"
            stored = f"v_store({target}, {value})" if whole else f"v_store_n({target}, {value}, {width})"
            yield f"                {stored};"
            yield "            }"
            yield "        }"
        yield "    }"

    def _scalars(self, out: Emitter) -> Iterator[str]:
        outer, count, inner = self.x.shape
        dtype, (first, combine) = self.x.dtype, _KINDS[self.kind]
        start = number(identity(self.kind, dtype), dtype, out)
        value = "v" if not first else operation(first, dtype, out, "v")
        yield f"    for (int a = 0; a < {outer}; a++, x += {count * inner})"
        yield f"        for (int b = 0; b < {inner}; b++) {{"
        yield f"            {c_type(dtype)} s = {start};"
        yield f"            for (int r = 0; r < {count}; r++) {{"
        yield f"                const {c_type(dtype)} v = x[r * {inner} + b];"
        yield f"                s = {operation(combine, dtype, out, 's', value)};"
        yield "            }"
        yield f"            y[a * {inner} + b] = s;"
        yield "        }"


def _blocks(inner: int, lanes: int) -> Iterator[tuple[int, int]]:
    """Runs of columns as (start, width of a block): whole blocks of up to 4 vectors, whole vectors, the tail."""
    vectors, tail = divmod(inner, lanes)
    if vectors:
        best = max(w for w in (4, 3, 2, 1) if vectors % w == 0)
        yield 0, best * lanes
    if tail:
        yield vectors * lanes, tail


def reduce(low: Lowering, view: View, axes: Sequence[int], kind: str) -> View:
    """The view with ``axes`` combined to size one."""
    axes = sorted({a % view.rank for a in axes}) if view.rank else []
    shape = [1 if d in axes else n for d, n in enumerate(view.shape)]
    if view.size == 0:
        return compute(low, const(identity(kind, view.dtype), view.dtype), shape)
    order, sizes = _grouped(view, axes)
    if sizes is not None and sizes[2] == 1 and 1 < sizes[1] <= _FEW and sizes[0] >= 4 * low.lanes:
        along = [d for d in axes if view.shape[d] != 1]
        if len(along) == 1 and view.dtype == "float32":
            return _one_by_one(low, [view.slice(along[0], k, 1) for k in range(sizes[1])], kind)
    if sizes is None:
        order = [d for d in range(view.rank) if d not in axes] + axes
        view = low.contiguous(view, order)
        sizes = (prod(shape), view.size // prod(shape), 1)
    y = low.new(shape, view.dtype, order)
    flat = View(view.tensor, sizes, contiguous_strides(sizes), view.offset)
    low.add(Reduce(flat, View.whole(y.tensor, (sizes[0], sizes[2])), kind))
    return y


def _one_by_one(low: Lowering, parts: Sequence[View], kind: str) -> View:
    """The parts combined element by element: where they are few their vectors hold many results instead of one."""
    before, combine = _KINDS[kind]
    terms = [call(before, load(part)) if before else load(part) for part in parts]
    found = terms[0]
    for term in terms[1:]:
        found = call(combine, found, term)
    return compute(low, found, parts[0].shape)


def _grouped(view: View, axes: Sequence[int]) -> tuple[list[int], tuple[int, int, int] | None]:
    """The view's order in memory and its sizes as (kept, reduced, kept), where that is how it lies."""
    order = list(range(view.rank)) if view.is_contiguous() else list(view.order or ())
    if not order and view.rank:
        return [], None
    groups: list[list[int]] = [[], [], []]
    at = 0
    for d in order:
        if view.shape[d] == 1:
            continue
        reduced = d in axes
        if reduced and at == 0:
            at = 1
        elif not reduced and at == 1:
            at = 2
        elif reduced and at == 2:
            return order, None
        groups[at].append(view.shape[d])
    a, r, b = (prod(g) for g in groups)
    return order, (a, r, b)


def reduced_axes(low: Lowering, node: ir.Node, rank: int) -> list[int]:
    if "axes" in node.attributes:
        found = list(node.attributes.get_ints("axes", ()))
    else:
        given = known(low, node, 1)
        found = [] if given is None else [int(a) for a in given.reshape(-1)]
    if not found and not node.attributes.get_int("noop_with_empty_axes", 0):
        return list(range(rank))
    return [a % rank for a in found]


def _lower(kind: str, before: str = "", after: str = "") -> Callable[[Lowering, ir.Node], None]:
    def lower(low: Lowering, node: ir.Node) -> None:
        x = low.view(node.inputs[0])
        if (x.dtype == "bool" and kind not in ("max", "min")) or (x.dtype in INTEGERS and after in ("log", "sqrt")):
            raise UnsupportedOpError(f"op {node.op_type} (node '{node.name}') on {x.dtype} has no native kernel")
        axes = reduced_axes(low, node, x.rank)
        if before == "exp":
            y = _log_sum_exp(low, x, axes)
        else:
            y = reduce(low, x, axes, kind)
            if after == "mean":
                y = _divided(low, y, prod(x.shape[a] for a in axes))
            elif after:
                y = apply(low, after, y)
        low.set(node.outputs[0], low.reshape(y, static(node, node.outputs[0])))

    return lower


def _divided(low: Lowering, y: View, count: int) -> View:
    if y.dtype == "float32" and count:
        return apply(low, "mul", y, 1.0 / count)
    return apply(low, "div", y, float(count)) if y.dtype in FLOATS else apply(low, "div", y, count)


def _log_sum_exp(low: Lowering, x: View, axes: Sequence[int]) -> View:
    """max + log Σ exp(x - max); an infinite maximum is left out, so that no infinity meets its negative."""
    top = reduce(low, x, axes, "max")
    e, inf, zero = load(top), const(np.inf, x.dtype), const(0.0, x.dtype)
    if x.dtype == "float32":
        expr = call("select_lt", call("abs", e), inf, e, zero)
    else:
        finite = call("lt", call("abs", e, dtype=x.dtype), inf, dtype="bool")
        expr = call("where", finite, e, zero, dtype=x.dtype)
    base = compute(low, expr, top.shape)
    total = reduce(low, apply(low, "exp", apply(low, "sub", x, base)), axes, "sum")
    return apply(low, "add", apply(low, "log", total), base)


LOWER: Mapping[str, Any] = {
    "ReduceSum": _lower("sum"), "ReduceMean": _lower("sum", after="mean"), "ReduceProd": _lower("prod"),
    "ReduceMax": _lower("max"), "ReduceMin": _lower("min"), "ReduceL1": _lower("l1"),
    "ReduceL2": _lower("sum_square", after="sqrt"), "ReduceSumSquare": _lower("sum_square"),
    "ReduceLogSum": _lower("sum", after="log"), "ReduceLogSumExp": _lower("sum", before="exp"),
}  # fmt: skip
