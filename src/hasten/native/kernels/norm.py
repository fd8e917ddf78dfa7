"""Normalisations: LayerNormalization, RMSNormalization, Instance-, Group-, MeanVariance- and LpNormalization, LRN.

float32 rows take one kernel, ``Normalise``; its epilogue is where scale and bias land. Other dtypes, and axes that do
not lie together, are put together from reductions and element-wise loops.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.native.epilogue import Finished
from hasten.native.expr import ACC, Expr, call, const, load
from hasten.native.kernels.arithmetic import apply, batch_norm, cast, compute
from hasten.native.kernels.elementwise import Elementwise
from hasten.native.kernels.norm_channels import by_channels
from hasten.native.kernels.reduce import reduce
from hasten.native.program import View

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.lower import Lowering

__all__ = ["LOWER", "Normalise", "rms"]


@dataclass(eq=False)
class Normalise(Finished):
    """``y = epilogue((x - mean) / √(mean of squares + ε))`` for every row; without the mean for RMS.

    Shapes:  x, y (rows, columns), dense
    """

    x: View
    y: View
    epsilon: float
    centre: bool
    epilogue: Expr = ACC
    READS = ("x", "operands")
    WRITES = ("y",)

    @property
    def _row_length(self) -> int:
        return self.x.shape[1]

    @property
    def title(self) -> str:
        """Sizes."""
        return f"{self.x.shape[0]} rows of {self.x.shape[1]}{'' if self.centre else ', no mean'}{self._epilogue.title}"

    def emit(self, out: Emitter) -> None:
        """A pass for the mean, one for the squares around it, one to write."""
        rows, columns = self.x.shape
        full, tail = columns // out.lanes * out.lanes, columns % out.lanes
        out.need("v_sum", "v_sqrt", "v_set1", *(("v_load", "v_store") if full else ()))
        out.need(*(("v_load_n", "v_store_n", "v_lanes") if tail else ()))
        lines = [f"    for (int r = 0; r < {rows}; r++, x += {columns}) {{", "        vf sum = v_set1(0.0f);"]
        scale = out.number(1.0 / columns)
        if self.centre:
            lines += self._total(full, tail, "{0}", centre=False)
            lines.append(f"        const vf mean = v_set1(v_sum(sum) * {scale});")
            lines.append("        sum = v_set1(0.0f);")
        lines += self._total(full, tail, "{0} * {0}", centre=self.centre)
        spread = f"v_sqrt(v_set1(v_sum(sum) * {scale} + {out.number(self.epsilon)}))"
        lines.append(f"        const vf scale = v_set1(1.0f) / {spread};")
        minus = " - mean" if self.centre else ""
        if full:
            lines.append(f"        for (int i = 0; i < {full}; i += VL) {{")
            lines += self._write(out, f"(v_load(x + i){minus}) * scale", "i", None, "            ")
            lines.append("        }")
        if tail:
            value = f"(v_load_n(x + {full}, {tail}){minus}) * scale"
            lines += self._write(out, value, str(full), tail, "        ")
        lines.append("    }")
        signature = [("const float *x", out.pointer(self.x)), ("float *y", out.pointer(self.y))]
        out.function("normalise", self.title, [*signature, *self._epilogue.signature(out)], "\n".join(lines))

    def _total(self, full: int, tail: int, form: str, *, centre: bool) -> Iterator[str]:
        minus = " - mean" if centre else ""
        if full:
            yield f"        for (int i = 0; i < {full}; i += VL) {{"
            yield f"            const vf v = v_load(x + i){minus};"
            yield f"            sum += {form.format('v')};"
            yield "        }"
        if tail:
            yield "        {"
            yield f"            const vf v = v_lanes(v_load_n(x + {full}, {tail}){minus}, {tail}, 0.0f);"
            yield f"            sum += {form.format('v')};"
            yield "        }"

    def _write(self, out: Emitter, value: str, at: str, count: int | None, indent: str) -> list[str]:
        name, columns = out.fresh("n"), self.x.shape[1]
        element = f"r * {columns} + {at}"
        column = "r" if columns == 1 else at
        lines, result = self._epilogue.apply(out, name, column=column, element=element, count=count, indent=indent)
        store = (
            f"v_store(y + {element}, {result});" if count is None else f"v_store_n(y + {element}, {result}, {count});"
        )
        return [f"{indent}const vf {name} = {value};", *lines, f"{indent}{store}"]


def _rows(low: Lowering, x: View, epsilon: float, *, centre: bool) -> View:
    """Dense rows (R, C) normalised."""
    if x.dtype == "float32":
        y = low.new(x.shape)
        low.add(Normalise(x, y, epsilon, centre))
        return y
    return _composed(low, x, [1], epsilon, centre=centre)[0]


def _mean(low: Lowering, x: View, axes: Sequence[int]) -> View:
    return apply(low, "div", reduce(low, x, axes, "sum"), float(prod(x.shape[a] for a in axes)))


def _composed(
    low: Lowering, x: View, axes: Sequence[int], epsilon: float, *, centre: bool
) -> tuple[View, View | None, View]:
    """Normalised values, their mean, and one over the standard deviation, from reductions."""
    mean = _mean(low, x, axes) if centre else None
    centred = x if mean is None else apply(low, "sub", x, mean)
    spread = apply(low, "add", _mean(low, apply(low, "square", centred), axes), epsilon)
    inverse = apply(low, "reciprocal", apply(low, "sqrt", spread))
    return apply(low, "mul", centred, inverse), mean, inverse


def _layer_norm(low: Lowering, node: ir.Node) -> None:
    x = low.view(node.inputs[0])
    axis = node.attributes.get_int("axis", -1) % x.rank
    epsilon, centre = node.attributes.get_float("epsilon", 1e-5), node.op_type == "LayerNormalization"
    wanted = [o for o in node.outputs[1:] if o.name and (o.uses() or o.is_graph_output())]
    if wanted:
        y, mean, inverse = _composed(low, x, range(axis, x.rank), epsilon, centre=centre)
        for output, view in zip(node.outputs[1:], (mean, inverse), strict=False):
            if view is not None:
                low.set(output, view)
    else:
        y = rms(low, x, axis, epsilon, centre=centre)
    for index, op, without in ((1, "mul", 1), (2, "add", 0)):
        given = node.inputs[index] if index < len(node.inputs) else None
        known = low.constant(given)
        if low.has(given) and (known is None or np.any(known != without)):
            y = apply(low, op, y, cast(low, low.view(given), y.dtype))
    low.set(node.outputs[0], y)


def rms(low: Lowering, x: View, axis: int, epsilon: float, *, centre: bool = False) -> View:
    """Dimensions from ``axis`` on, normalised together."""
    if x.size == 0:
        return x
    if centre and axis in (1, 2):
        found = by_channels(low, x, 1 if axis == 1 else x.shape[1], epsilon)
        if found is not None:
            return found
    flat = low.reshape(low.contiguous(x), (prod(x.shape[:axis]), prod(x.shape[axis:])))
    return low.reshape(_rows(low, flat, epsilon, centre=centre), x.shape)


def _affine(low: Lowering, y: View, scale: View, bias: View) -> View:
    """y · scale + bias per channel, the second dimension."""
    channel = (1, y.shape[1], *(1,) * (y.rank - 2))
    for op, part, without in (("mul", scale, 1), ("add", bias, 0)):
        if part.tensor.data is None or np.any(part.tensor.data != without):
            y = apply(low, op, y, low.reshape(part, channel))
    return y


def _instance_norm(low: Lowering, node: ir.Node) -> None:
    x, scale, bias = (low.view(v) for v in node.inputs[:3])
    y = rms(low, x, 2, node.attributes.get_float("epsilon", 1e-5), centre=True)
    low.set(node.outputs[0], _affine(low, y, scale, bias))


def _group_norm(low: Lowering, node: ir.Node) -> None:
    x, scale, bias = (low.view(v) for v in node.inputs[:3])
    groups = node.attributes.get_int("num_groups", 1)
    shape = (x.shape[0], groups, x.size // (x.shape[0] * groups))
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    y = by_channels(low, x, groups, epsilon)
    if y is None:
        y = low.reshape(rms(low, low.reshape(x, shape), 2, epsilon, centre=True), x.shape)
    if scale.shape[0] == groups != x.shape[1]:  # opset 18: one number a group
        scale, bias = (_repeated(low, v, x.shape[1]) for v in (scale, bias))
    return low.set(node.outputs[0], _affine(low, y, scale, bias))


def _repeated(low: Lowering, of_groups: View, channels: int) -> View:
    """Each group's number for each of its channels."""
    each = low.reshape(of_groups, (of_groups.size, 1)).broadcast((of_groups.size, channels // of_groups.size))
    return low.reshape(low.contiguous(each), (channels,))


def _mean_variance(low: Lowering, node: ir.Node) -> None:
    x = low.view(node.inputs[0])
    axes = [a % x.rank for a in node.attributes.get_ints("axes", (0, 2, 3))]
    centred = apply(low, "sub", x, _mean(low, x, axes))
    spread = apply(low, "sqrt", _mean(low, apply(low, "square", centred), axes))
    low.set(node.outputs[0], apply(low, "div", centred, apply(low, "add", spread, 1e-9)))


def _lp_norm(low: Lowering, node: ir.Node) -> None:
    x = low.view(node.inputs[0])
    axis, order = node.attributes.get_int("axis", -1) % x.rank, node.attributes.get_int("p", 2)
    if order not in (1, 2):
        raise UnsupportedOpError(f"op LpNormalization (node '{node.name}') with p={order} has no native kernel")
    size = reduce(low, x, [axis], "l1" if order == 1 else "sum_square")
    size = size if order == 1 else apply(low, "sqrt", size)
    at, zero = load(size.broadcast(x.shape)), const(0.0, x.dtype)
    ratio = call("div", load(x), at, dtype=x.dtype)
    expr = call("where", call("eq", at, zero, dtype="bool"), zero, ratio, dtype=x.dtype)
    low.set(node.outputs[0], compute(low, expr, x.shape))


def _lrn(low: Lowering, node: ir.Node) -> None:
    """x / (bias + α / n · Σ x²)^β over n neighbouring channels: shifted reads of one padded copy of the squares."""
    x, attributes = low.view(node.inputs[0]), node.attributes
    size = attributes.get_int("size", 1)
    alpha, beta, bias = (attributes.get_float(k, d) for k, d in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))
    before, channels = (size - 1) // 2, x.shape[1]
    room = low.new((x.shape[0], channels + size - 1, *x.shape[2:]), x.dtype)
    for start, count in ((0, before), (before + channels, size - 1 - before)):
        if count:
            low.add(Elementwise(room.slice(1, start, count), const(0.0, x.dtype)))
    low.add(Elementwise(room.slice(1, before, channels), call("square", load(x), dtype=x.dtype)))
    total: Expr = load(room.slice(1, 0, channels))
    for shift in range(1, size):
        total = call("add", total, load(room.slice(1, shift, channels)), dtype=x.dtype)
    inside = call(
        "add", call("mul", total, const(alpha / size, x.dtype), dtype=x.dtype), const(bias, x.dtype), dtype=x.dtype
    )
    power = call("pow", inside, const(-beta, x.dtype), dtype=x.dtype)
    low.set(node.outputs[0], compute(low, call("mul", load(x), power, dtype=x.dtype), x.shape))


def _batch_norm(low: Lowering, node: ir.Node) -> None:
    """By the mean and variance that it was given; by those of the batch itself where the node is still training."""
    if not node.attributes.get_int("training_mode", 0):
        batch_norm(low, node)
        return
    x, scale, bias, *running = (low.view(v) for v in node.inputs[:5])
    axes = [d for d in range(x.rank) if d != 1]
    epsilon, momentum = node.attributes.get_float("epsilon", 1e-5), node.attributes.get_float("momentum", 0.9)
    mean = _mean(low, x, axes)
    centred = apply(low, "sub", x, mean)
    variance = _mean(low, apply(low, "square", centred), axes)
    y = apply(low, "div", centred, apply(low, "sqrt", apply(low, "add", variance, epsilon)))
    low.set(node.outputs[0], _affine(low, y, *(cast(low, v, x.dtype) for v in (scale, bias))))
    for output, before, found in zip(node.outputs[1:], running, (mean, variance), strict=False):
        share = apply(low, "mul", low.reshape(cast(low, found, before.dtype), before.shape), 1.0 - momentum)
        low.set(output, apply(low, "add", apply(low, "mul", before, momentum), share))


LOWER: Mapping[str, Any] = {
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm, "RMSNormalization": _layer_norm, "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm, "MeanVarianceNormalization": _mean_variance,
    "LpNormalization": _lp_norm, "LRN": _lrn,
}  # fmt: skip
