"""MaxPool, AveragePool, LpPool and their global forms: vectors over channels, channels last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.native.epilogue import Finished
from hasten.native.expr import ACC, Expr, call, const
from hasten.native.kernels.byte_nodes import byte_max
from hasten.native.kernels.pool_places import with_places
from hasten.native.kernels.quantised_values import BYTES
from hasten.native.kernels.spatial import Axis, Window, axes_of, axis_of, channels_last, padded, reach_ends, window_of
from hasten.native.kernels.sweep import Sweep, choose, peels
from hasten.native.kernels.sweep_loops import Loops, columns_of
from hasten.native.lower_shape import static
from hasten.native.program import C_TYPES, View
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.lower import Lowering

__all__ = ["LOWER", "GlobalPool", "Pool", "Reduction"]


@dataclass(frozen=True)
class Reduction:
    """How values are brought together, as C over vectors ``{a}`` (so far) and ``{b}`` (the next)."""

    name: str
    start: float
    update: str
    join: str
    """Two partial results into one."""
    needs: tuple[str, ...]


MAX = Reduction("max", float("-inf"), "{a} = v_max({a}, {b});", "{a} = v_max({a}, {b});", ("v_max", "v_set1"))
SUM = Reduction("sum", 0.0, "{a} += {b};", "{a} += {b};", ("v_set1",))


def _power(p: float) -> Reduction:
    update = {1.0: "{a} += v_abs({b});", 2.0: "{a} += {b} * {b};"}.get(
        p, f"{{a}} += v_pow(v_abs({{b}}), v_set1({p}f));"
    )
    needs = {1.0: ("v_abs",), 2.0: ()}.get(p, ("v_abs", "v_pow"))
    return Reduction(f"sum of |x|^{p:g}", 0.0, update, "{a} += {b};", ("v_set1", *needs))


@dataclass(eq=False)
class Pool(Finished):
    """``y = epilogue(scale · reduction of x under the window)``.

    Shapes:  x (N, C, spatial…), channels dense · y (N, C, spatial…), channels last in memory
             scales: per spatial dimension the factor of every output position, or empty
    """

    x: View
    y: View
    window: Window
    reduction: Reduction
    scales: tuple[Array, ...] = ()
    epilogue: Expr = ACC
    READS = ("x", "operands")
    STORES_BYTES = True
    WRITES = ("y",)

    @property
    def _row_length(self) -> int:
        return columns_of(self.y)

    @property
    def title(self) -> str:
        """What, sizes and epilogue."""
        sizes = "x".join(map(str, self.y.shape[2:]))
        what = "mean" if self.scales else self.reduction.name
        return f"{what} of {self.window.text}, {self.y.shape[1]} channels, {sizes}{self._epilogue.title}"

    def emit(self, out: Emitter) -> None:
        """One function: rows × panels × tiles."""
        sweep = Sweep(
            axes_of(self.x, self.y, self.window), self.y.shape[1], broadcast=False, weighted=False,
            update=self.reduction.update, start=f"v_set1({out.number(self.reduction.start)})",
            needs=self.reduction.needs, masked=self.x.tensor.kind in ("input", "output"),
        )  # fmt: skip
        schedule = choose(sweep, out.isa)
        assert schedule is not None, "lowering pads what cannot be peeled"
        signature = [
            ("const float *restrict x", out.pointer(self.x)),
            (f"{C_TYPES[self.y.dtype]} *y", out.pointer(self.y)),
        ]
        uneven = [i for i, s in enumerate(self.scales) if len(set(s.tolist())) > 1]
        signature += [(f"const float *scale{i}", out.constant(self.scales[i])) for i in uneven]
        finish = partial(_scale, out, sweep.axes, self.scales) if self.scales else None
        loops = Loops(sweep, schedule, out, self._epilogue, finish)
        signature += self._epilogue.signature(out)
        loops.function("pool", self.title, signature, split=out.splits(self.y.size * prod(self.window.kernel)))


def _scale(
    out: Emitter, axes: tuple[Axis, ...], scales: tuple[Array, ...], acc: str, places: tuple[str, ...]
) -> list[str]:
    """The accumulator times the factor of its position."""
    even, terms = 1.0, []
    for i, scale in enumerate(scales):
        if len(set(scale.tolist())) == 1:
            even *= float(scale[0])
            continue
        place = next(p for p, a in zip(places, axes, strict=True) if a.dim == i)
        terms.append(f"scale{i}[{place}]")
    if even != 1.0 or not terms:
        terms.insert(0, out.number(even))
    return [f"{acc} *= v_set1({' * '.join(terms)});"]


@dataclass(eq=False)
class GlobalPool(Finished):
    """``y = epilogue(scale · reduction of x over all positions)``.

    Shapes:  x (N, C, positions), channels dense · y (N, C, 1…)
    """

    x: View
    y: View
    reduction: Reduction
    scale: float = 1.0
    epilogue: Expr = ACC
    READS = ("x", "operands")
    STORES_BYTES = True
    WRITES = ("y",)

    @property
    def _row_length(self) -> int:
        return columns_of(self.y)

    @property
    def title(self) -> str:
        """What and sizes."""
        what = "mean" if self.scale != 1.0 else self.reduction.name
        return f"{what} of {self.x.shape[2]} positions, {self.x.shape[1]} channels{self._epilogue.title}"

    def emit(self, out: Emitter) -> None:
        """Every vector of channels by itself, with eight partial results in flight."""
        batch, channels, positions = self.x.shape
        lanes, parts = out.lanes, min(8, positions)
        whole, tail = channels // lanes * lanes, channels % lanes
        out.need("unroll", *self.reduction.needs)
        body = []
        if batch > 1:
            body.append(f"    for (int n = 0; n < {batch}; n++) {{")
        if whole:
            body.append(f"    for (int column = 0; column < {whole}; column += VL) {{")
            body += self._channels(out, "column", None, parts)
            body.append("    }")
        if tail:
            body.append("    {")
            body += self._channels(out, str(whole), tail, parts)
            body.append("    }")
        if batch > 1:
            body.append("    }")
        signature = [
            ("const float *restrict x", out.pointer(self.x)),
            (f"{C_TYPES[self.y.dtype]} *y", out.pointer(self.y)),
        ]
        out.function("globalpool", self.title, [*signature, *self._epilogue.signature(out)], "\n".join(body))

    def _channels(self, out: Emitter, column: str, count: int | None, parts: int) -> list[str]:
        batch, channels, positions = self.x.shape
        xs = self.x.strides[2]
        base = f"x + {column}" + (f" + n * {self.x.strides[0]}" if batch > 1 else "")
        load = f"v_load(at + {{}} * {xs})" if count is None else f"v_load_n(at + {{}} * {xs}, {count})"
        out.need("v_load" if count is None else "v_load_n")
        update = self.reduction.update.format(a="a[i]", b=load.format("(p + i)"))
        rounds = positions // parts * parts
        lines = [f"        const float *at = {base};", f"        vf a[{parts}];"]
        start = out.number(self.reduction.start)
        lines.append(f"        UNROLL for (int i = 0; i < {parts}; i++) a[i] = v_set1({start});")
        lines.append(f"        for (int p = 0; p < {rounds}; p += {parts})")
        lines.append(f"            UNROLL for (int i = 0; i < {parts}; i++) {update}")
        for p in range(rounds, positions):
            lines.append(f"        {self.reduction.update.format(a=f'a[{p - rounds}]', b=load.format(p))}")
        width = parts
        while width > 1:
            half = width // 2
            join = self.reduction.join.format(a="a[i]", b=f"a[{width - half} + i]")
            lines.append(f"        UNROLL for (int i = 0; i < {half}; i++) {join}")
            width -= half
        if self.scale != 1.0:
            lines.append(f"        a[0] *= v_set1({out.number(self.scale)});")
        element = column + (f" + n * {channels}" if batch > 1 else "")
        place = column if channels > 1 else "n" if batch > 1 else "0"
        found, value = self._epilogue.apply(out, "a[0]", column=place, element=element, count=count, indent="        ")
        lines += [*found, f"        {self._epilogue.put(out, element, value, count)}"]
        return lines


def _input(low: Lowering, node: ir.Node) -> View:
    x = low.view(node.inputs[0])
    if x.dtype != "float32":
        raise UnsupportedOpError(f"op {node.op_type} (node '{node.name}') on {x.dtype} has no native kernel")
    return x if x.strides[1] == 1 or x.shape[1] == 1 else low.contiguous(x, channels_last(x.rank))


def _pool(low: Lowering, node: ir.Node, reduction: Reduction, epilogue: Expr, *, mean: bool) -> None:
    if len(node.outputs) > 1 and low.has(node.outputs[1]):
        with_places(low, node)
        return
    if reduction is MAX and (given := low.view(node.inputs[0])).dtype in BYTES:
        largest = byte_max(low, node, given, given.dtype)
        if largest is not None:
            low.set(node.outputs[0], largest)
            return
    x = _input(low, node)
    window = window_of(node, x.shape[2:], node.attributes.get_ints("kernel_shape"))
    y = low.new(static(node, node.outputs[0]), "float32", channels_last(x.rank))
    inside = bool(node.attributes.get_int("count_include_pad", 0))
    # A sum over padding alone is 0; what is the largest, or the mean of no value at all, engines do not agree on.
    if (reduction is MAX or (mean and not inside)) and any(
        not len(axis.taps(p)) for axis in _spatial(x, y, window) for p in range(axis.size)
    ):
        raise UnsupportedOpError(f"op {node.op_type} (node '{node.name}') with a window wholly outside its input")
    scales: tuple[Array, ...] = ()
    if mean:
        scales = tuple(1 / _counts(axis, window.pads_end[axis.dim], inside) for axis in _spatial(x, y, window))
    if not peels(axes_of(x, y, window)):
        x, window = padded(low, x, window, reach_ends(x, y.shape[2:], window), fill=reduction.start)
    low.add(Pool(x, y, window, reduction, scales, epilogue))
    low.set(node.outputs[0], y)


def _spatial(x: View, y: View, window: Window) -> list[Axis]:
    return [axis_of(x, y, window, i) for i in range(len(window.kernel))]


def _counts(axis: Axis, pad_end: int, inside: bool) -> Array:
    """How many taps count at every output position: those within the input, or within the input and its pads.

    Shapes:  returns (output positions,) float32
    """
    if not inside:
        return np.array([max(1, len(axis.taps(p))) for p in range(axis.size)], np.float32)
    reach = axis.extent + axis.pad + pad_end
    taps = np.arange(axis.kernel) * axis.dilation
    positions = np.arange(axis.size)[:, None] * axis.stride + taps
    counts: Array = np.maximum(1, (positions < reach).sum(1)).astype(np.float32)
    return counts


def _global(low: Lowering, node: ir.Node, reduction: Reduction, epilogue: Expr, *, mean: bool) -> None:
    x = _input(low, node)
    batch, channels, *sizes = x.shape
    order = channels_last(x.rank)
    flat = x.transpose(order).reshape((batch, prod(sizes), channels))
    if flat is None:
        flat = low.contiguous(x, order).transpose(order).reshape((batch, prod(sizes), channels))
    assert flat is not None
    y = low.new((batch, channels, *(1 for _ in sizes)), "float32", order)
    low.add(GlobalPool(flat.transpose((0, 2, 1)), y, reduction, 1.0 / prod(sizes) if mean else 1.0, epilogue))
    low.set(node.outputs[0], y)


def _plain(
    lower: Callable[..., None], reduction: Reduction, *, mean: bool = False
) -> Callable[[Lowering, ir.Node], None]:
    def apply(low: Lowering, node: ir.Node) -> None:
        lower(low, node, reduction, ACC, mean=mean)

    return apply


def _lp(lower: Callable[..., None]) -> Callable[[Lowering, ir.Node], None]:
    def apply(low: Lowering, node: ir.Node) -> None:
        p = float(node.attributes.get_int("p", 2))
        root = {1.0: ACC, 2.0: call("sqrt", ACC)}.get(p, call("pow", ACC, const(1.0 / p)))
        lower(low, node, _power(p), root, mean=False)

    return apply


LOWER: Mapping[str, Any] = {
    "MaxPool": _plain(_pool, MAX),
    "AveragePool": _plain(_pool, SUM, mean=True),
    "LpPool": _lp(_pool),
    "GlobalMaxPool": _plain(_global, MAX),
    "GlobalAveragePool": _plain(_global, SUM, mean=True),
    "GlobalLpPool": _lp(_global),
}
