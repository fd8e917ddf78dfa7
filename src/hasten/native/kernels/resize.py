"""Resize and Upsample, one axis after the other: a fixed choice of positions (nearest), or a fixed blend of a few.

Source: ONNX operator Resize-19 and its reference evaluator (coordinates, neighbours and coefficients).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.native.expr import call, const, load
from hasten.native.kernels.arithmetic import cast, compute
from hasten.native.kernels.movement import take
from hasten.native.kernels.quantised_values import BYTES
from hasten.native.lower_shape import known, static
from hasten.native.program import Step, View, contiguous_strides
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.lower import Lowering

__all__ = ["LOWER", "Blend"]


@dataclass(eq=False)
class Blend(Step):
    """``y[a, o, b] = Σ_t weight[o, t] · x[a, table[o, t], b]``.

    Shapes:  x (A, R, B), y (A, O, B), dense float32 · table, weight (O, T)
    """

    x: View
    y: View
    table: Array
    weight: Array
    READS = ("x",)
    WRITES = ("y",)

    @property
    def title(self) -> str:
        """Sizes."""
        a, r, b = self.x.shape
        return f"{r} -> {self.y.shape[1]} from {self.table.shape[1]} each, {a} x {b} times"

    def macs(self) -> int:
        """Taps of every output."""
        return self.y.size * int(self.table.shape[1])

    def emit(self, out: Emitter) -> None:
        """Vectors along B, single values where it is narrow."""
        (outer, count, inner), (outputs, taps) = self.x.shape, self.table.shape
        table, weight = (self.table * inner).astype(np.int32), self.weight.astype(np.float32)
        lines = [f"    for (int a = 0; a < {outer}; a++, x += {count * inner})"]
        lines.append(f"        for (int o = 0; o < {outputs}; o++, y += {inner}) {{")
        lines.append(f"            const int32_t *at = table + o * {taps};")
        lines.append(f"            const float *w = weight + o * {taps};")
        full = inner // out.lanes * out.lanes
        if full:
            out.need("v_load", "v_store", "v_set1")
            lines.append(f"            for (int b = 0; b < {full}; b += VL) {{")
            lines.append("                vf s = v_set1(0.0f);")
            lines.append(f"                for (int t = 0; t < {taps}; t++) s += v_set1(w[t]) * v_load(x + at[t] + b);")
            lines.append("                v_store(y + b, s);")
            lines.append("            }")
        if inner > full:
            lines.append(f"            for (int b = {full}; b < {inner}; b++) {{")
            lines.append("                float s = 0.0f;")
            lines.append(f"                for (int t = 0; t < {taps}; t++) s += w[t] * x[at[t] + b];")
            lines.append("                y[b] = s;")
            lines.append("            }")
        lines.append("        }")
        signature = [("const float *x", out.pointer(self.x)), ("const int32_t *table", out.constant(table))]
        signature += [("const float *weight", out.constant(weight)), ("float *y", out.pointer(self.y))]
        out.function("blend", self.title, signature, "\n".join(lines))


@dataclass(frozen=True)
class _Axis:
    """One axis to resize.

    Units:   size, outputs: positions; scale: outputs per input; span: start and end of the region, as fractions
    """

    size: int
    outputs: int
    scale: float
    span: tuple[float, float] = (0.0, 1.0)

    def place(self, o: int, mode: str) -> float:
        """Where output ``o`` lies among the inputs."""
        wide = self.scale * self.size
        if mode == "align_corners":
            return 0.0 if wide == 1 else o * (self.size - 1) / (wide - 1)
        if mode == "asymmetric":
            return o / self.scale
        if mode == "tf_crop_and_resize":
            start, end = self.span
            if wide == 1:
                return (end - start) * (self.size - 1) / 2
            return o * (end - start) * (self.size - 1) / (wide - 1) + start * (self.size - 1)
        if mode == "pytorch_half_pixel" and wide == 1:
            return -0.5
        if mode == "tf_half_pixel_for_nn":
            return (o + 0.5) / self.scale
        if mode == "half_pixel_symmetric":
            return self.size / 2 * (1 - self.outputs / wide) + (o + 0.5) / self.scale - 0.5
        return (o + 0.5) / self.scale - 0.5


@dataclass(frozen=True)
class _Method:
    """How outputs come from inputs."""

    mode: str
    places: str
    nearest: str
    cubic: float
    antialias: bool
    exclude: bool

    def coefficients(self, ratio: float, scale: float) -> Array:
        """Weights of the neighbours, left to right; ``ratio`` in (0, 1] is the way from the left one to the right."""
        if self.mode == "nearest":
            first = {
                "round_prefer_floor": ratio <= 0.5, "round_prefer_ceil": ratio < 0.5, "floor": True, "ceil": False,
            }[self.nearest]  # fmt: skip
            return np.array([1.0, 0.0] if first and ratio != 1 else [0.0, 1.0])
        scale = min(scale, 1.0) if self.antialias else 1.0
        reach = 1 if self.mode == "linear" else 2
        start = floor(-reach / scale) + 1
        away = np.abs((np.arange(start, 2 - start if reach == 2 else start + 2 - 2 * start) - ratio) * scale)
        found = np.clip(1 - away, 0, 1) if reach == 1 else _cubic(away, self.cubic)
        return found / found.sum() if self.antialias else found

    def matrix(self, axis: _Axis) -> tuple[Array, Array]:
        """How much of every input is in every output, and which outputs lie outside the input."""
        made, outside = np.zeros((axis.outputs, axis.size)), np.zeros(axis.outputs, bool)
        for o in range(axis.outputs):
            x = axis.place(o, self.places)
            outside[o] = not 0 <= x <= axis.size - 1
            ratio = 1.0 if x == floor(x) else x - floor(x)
            weights = self.coefficients(ratio, axis.scale)
            # The nearest positions, the left one of two as near; x itself is the right neighbour of the middle pair.
            first = ceil(x) - len(weights) // 2
            at = np.arange(first, first + len(weights))
            if self.exclude:
                weights = np.where((at < 0) | (at >= axis.size), 0.0, weights)
                weights = weights / weights.sum()
            np.add.at(made[o], np.clip(at, 0, axis.size - 1), weights)
        return made, outside


def _cubic(away: Array, a: float) -> Array:
    near = ((a + 2) * away - (a + 3)) * away**2 + 1
    far = ((a * away - 5 * a) * away + 8 * a) * away - 4 * a
    return np.where(away <= 1, near, np.where(away < 2, far, 0.0))


def _truncates(node: ir.Node) -> bool:
    """True where ONNX Runtime blends bytes as float32 and cuts off what is behind the point; the rest it lacks."""
    return node.attributes.get_string("mode", "nearest") == "linear" and not node.attributes.get_int("antialias", 0)


def _blended(low: Lowering, node: ir.Node, view: View, axis: int, matrix: Array) -> View:
    largest = matrix.argmax(axis=1)
    if (matrix == np.eye(matrix.shape[1])[largest]).all():
        return take(low, view, axis, largest)
    if view.dtype in BYTES and _truncates(node):
        view = cast(low, view, "float32")
    if view.dtype != "float32":
        raise UnsupportedOpError(f"op {node.op_type} (node '{node.name}') between {view.dtype} has no native kernel")
    taps = max(1, int((matrix != 0).sum(axis=1).max()))
    table = np.zeros((len(matrix), taps), np.int64)
    weight = np.zeros((len(matrix), taps))
    for o, row in enumerate(matrix):
        (used,) = np.nonzero(row)
        table[o, : len(used)], weight[o, : len(used)] = used, row[used]
    shape = [len(matrix) if d == axis else n for d, n in enumerate(view.shape)]
    order = list(view.order or range(view.rank))
    x, y = low.contiguous(view, order), low.new(shape, view.dtype, order)
    at = order.index(axis)
    flat, made = (
        (prod(s[:at]), s[at], prod(s[at + 1 :])) for s in ([v[d] for d in order] for v in (view.shape, shape))
    )
    low.add(Blend(View(x.tensor, flat, contiguous_strides(flat), x.offset), View.whole(y.tensor, made), table, weight))
    return y


def _axes(low: Lowering, node: ir.Node, view: View, method: _Method) -> dict[int, _Axis]:
    """Every axis that changes, with its scale: as given, or from the sizes."""
    shape = static(node, node.outputs[0])
    picked = [a % view.rank for a in node.attributes.get_ints("axes", tuple(range(view.rank)))]
    upsample = node.op_type == "Upsample"
    scales = known(low, node, 1 if upsample else 2)
    sizes = None if upsample else known(low, node, 3)
    roi = None if upsample or method.places != "tf_crop_and_resize" else known(low, node, 1)
    found = {}
    for i, axis in enumerate(picked):
        n, m = view.shape[axis], shape[axis]
        if scales is not None and scales.size:
            scale = float(scales.reshape(-1)[i])
        else:
            scale = _scale(node, sizes, i, [view.shape[a] for a in picked]) if sizes is not None else m / n
        span = (0.0, 1.0) if roi is None else (float(roi.reshape(-1)[i]), float(roi.reshape(-1)[i + len(picked)]))
        if n != m or scale != 1.0 or span != (0.0, 1.0):
            found[axis] = _Axis(n, m, scale, span)
    return found


def _scale(node: ir.Node, sizes: Array, i: int, shape: Sequence[int]) -> float:
    ratios = [int(s) / n for s, n in zip(sizes.reshape(-1), shape, strict=True)]
    policy = node.attributes.get_string("keep_aspect_ratio_policy", "stretch")
    return ratios[i] if policy == "stretch" else min(ratios) if policy == "not_larger" else max(ratios)


def _resize(low: Lowering, node: ir.Node) -> None:
    attributes, given = node.attributes, low.view(node.inputs[0])
    view, upsample = given, node.op_type == "Upsample"
    method = _Method(
        attributes.get_string("mode", "nearest"),
        attributes.get_string("coordinate_transformation_mode", "asymmetric" if upsample else "half_pixel"),
        attributes.get_string("nearest_mode", "floor" if upsample else "round_prefer_floor"),
        attributes.get_float("cubic_coeff_a", -0.75),
        bool(attributes.get_int("antialias", 0)),
        bool(attributes.get_int("exclude_outside", 0)),
    )
    if method.mode not in ("nearest", "linear", "cubic") or view.size == 0:
        raise UnsupportedOpError(f"op {node.op_type} (node '{node.name}') with mode={method.mode} has no native kernel")
    outside = np.zeros((1,) * view.rank, bool)
    for axis, plan in _axes(low, node, view, method).items():
        matrix, out = method.matrix(plan)
        view = _blended(low, node, view, axis, matrix)
        outside = outside | out.reshape([-1 if d == axis else 1 for d in range(view.rank)])
    if method.places == "tf_crop_and_resize" and outside.any():
        fill = const(attributes.get_float("extrapolation_value", 0.0), view.dtype)
        test = load(low.data(outside).broadcast(view.shape))
        view = compute(low, call("where", test, fill, load(view), dtype=view.dtype), view.shape)
    low.set(node.outputs[0], cast(low, view, given.dtype))


LOWER: Mapping[str, Any] = {"Resize": _resize, "Upsample": _resize}
