"""Along one axis in order: where the largest stands, running sums and products, the k largest.

All see their input as (outer, axis, inner).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.native.kernels.typed import number, operation
from hasten.native.lower_shape import known, static
from hasten.native.program import C_TYPES, Step, View

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.lower import Lowering

__all__ = ["LOWER", "argument"]

_KEYS = {"float32": ("int32_t", "s_order({0})"), "float64": ("int64_t", "d_order({0})")}
_ABREAST = 64  # columns that are compared at once: what is kept of them stays in the first cache


@dataclass(eq=False)
class ArgReduce(Step):
    """``y[a, b]`` = where along R the largest (or smallest) of ``x[a, :, b]`` stands; a NaN wins, as in numpy.

    Shapes:  x (A, R, B), dense · y (A, B) int64, dense
    """

    x: View
    y: View
    smallest: bool
    last: bool
    READS = ("x",)
    WRITES = ("y",)

    @property
    def title(self) -> str:
        """Kind and sizes."""
        a, r, b = self.x.shape
        return f"position of the {'smallest' if self.smallest else 'largest'} of {r}, {a} x {b} times"

    def emit(self, out: Emitter) -> None:
        """Two runs over dense values: what the largest is, then where; side by side where the axis is an outer one.

        Values are compared as integers, whose largest a compiler finds by vectors; that of floats has to wait for NaN.
        """
        outer, count, inner = self.x.shape
        ordered, key = _KEYS.get(self.x.dtype, (C_TYPES[self.x.dtype], "{0}"))
        if ordered != C_TYPES[self.x.dtype]:
            out.need(key[:7])
        head = [f"    for (int a = 0; a < {outer}; a++, x += {count * inner}, y += {inner}) {{"]
        lines = head + (self._dense(ordered, key) if inner == 1 else self._side_by_side(ordered, key)) + ["    }"]
        own = C_TYPES[self.x.dtype]
        signature = [(f"const {own} *restrict x", out.pointer(self.x)), ("int64_t *restrict y", out.pointer(self.y))]
        out.function("argument", self.title, signature, "\n".join(lines))

    def _key(self, key: str, text: str, ordered: str) -> str:
        """An integer that is the larger, the more the value is looked for."""
        if ordered == C_TYPES[self.x.dtype]:
            return f"({ordered})~{text}" if self.smallest else text
        return key.format(f"-{text}" if self.smallest else text)

    def _dense(self, ordered: str, key: str) -> list[str]:
        count, (none, sign) = self.x.shape[1], ("-1", ">") if self.last else (str(self.x.shape[1]), "<")
        value = self._key(key, "x[r]", ordered)
        return [
            f"        {ordered} best = {self._key(key, 'x[0]', ordered)};",
            f"        for (int r = 1; r < {count}; r++) {{",
            f"            const {ordered} k = {value};",
            "            best = k > best ? k : best;",
            "        }",
            f"        int at = {none};",
            f"        for (int r = 0; r < {count}; r++) {{",
            f"            const int here = {value} == best ? r : {none};",
            f"            at = here {sign} at ? here : at;",
            "        }",
            "        y[0] = at;",
        ]

    def _side_by_side(self, ordered: str, key: str) -> list[str]:
        _, count, inner = self.x.shape
        sign = ">=" if self.last else ">"
        return [
            f"        for (int first = 0; first < {inner}; first += {_ABREAST}) {{",
            f"            const int n = {inner} - first < {_ABREAST} ? {inner} - first : {_ABREAST};",
            f"            {ordered} best[{_ABREAST}];",
            f"            int at[{_ABREAST}];",
            "            for (int b = 0; b < n; b++) {",
            f"                best[b] = {self._key(key, 'x[first + b]', ordered)};",
            "                at[b] = 0;",
            "            }",
            f"            for (int r = 1; r < {count}; r++)",
            "                for (int b = 0; b < n; b++) {",
            f"                    const {ordered} k = {self._key(key, f'x[r * {inner} + first + b]', ordered)};",
            f"                    at[b] = k {sign} best[b] ? r : at[b];",
            f"                    best[b] = k {sign} best[b] ? k : best[b];",
            "                }",
            "            for (int b = 0; b < n; b++) y[first + b] = at[b];",
            "        }",
        ]


def _split_at(low: Lowering, view: View, axis: int) -> View:
    """The view as dense (outer, axis, inner)."""
    shape = (prod(view.shape[:axis]), view.shape[axis], prod(view.shape[axis + 1 :]))
    return low.reshape(low.contiguous(view), shape)


def argument(low: Lowering, x: View, axis: int, *, smallest: bool = False, last: bool = False) -> View:
    """Where along ``axis`` the largest or smallest stands, int64, with the axis kept at size one."""
    others = [d for d in range(x.rank) if d != axis]
    if x.is_contiguous([*others, axis]):  # channels last: the axis is dense, wherever it stands
        flat = low.reshape(x.transpose([*others, axis]), (prod(x.shape[d] for d in others), x.shape[axis], 1))
    else:
        flat = _split_at(low, x, axis)
    y = low.new((flat.shape[0], flat.shape[2]), "int64")
    low.add(ArgReduce(flat, y, smallest, last))
    return low.reshape(y, [1 if d == axis else n for d, n in enumerate(x.shape)])


def _argument(low: Lowering, node: ir.Node) -> None:
    x = low.view(node.inputs[0])
    axis = node.attributes.get_int("axis", 0) % max(x.rank, 1)
    if x.rank == 0 or x.shape[axis] == 0:
        raise UnsupportedOpError(f"op {node.op_type} (node '{node.name}') over nothing has no native kernel")
    last = bool(node.attributes.get_int("select_last_index", 0))
    y = argument(low, x, axis, smallest=node.op_type == "ArgMin", last=last)
    low.set(node.outputs[0], low.reshape(y, static(node, node.outputs[0])))


@dataclass(eq=False)
class Running(Step):
    """``y[a, r, b]`` = all of ``x[a, :, b]`` up to r combined.

    Shapes:  x, y (A, R, B), dense
    """

    x: View
    y: View
    combine: str
    exclusive: bool
    reverse: bool
    READS = ("x",)
    WRITES = ("y",)

    @property
    def title(self) -> str:
        """Kind and sizes."""
        return f"running {self.combine} over {'x'.join(map(str, self.x.shape))}"

    def emit(self, out: Emitter) -> None:
        """The inner loop runs over B, which is dense."""
        outer, count, inner = self.x.shape
        dtype = self.x.dtype
        first = number(1 if self.combine == "mul" else 0, dtype, out) if self.exclusive else "x[at + b]"
        value = operation(
            self.combine, dtype, out, "y[at - step + b]", f"x[at{' - step' if self.exclusive else ''} + b]"
        )
        step = -inner if self.reverse else inner
        start = (count - 1) * inner if self.reverse else 0
        lines = [
            f"    const int step = {step};",
            f"    for (int a = 0; a < {outer}; a++) {{",
            f"        int at = a * {count * inner} + {start};",
            f"        for (int b = 0; b < {inner}; b++) y[at + b] = {first};",
            f"        for (int r = 1; r < {count}; r++) {{",
            "            at += step;",
            f"            for (int b = 0; b < {inner}; b++) y[at + b] = {value};",
            "        }",
            "    }",
        ]
        own = C_TYPES[dtype]
        signature = [(f"const {own} *restrict x", out.pointer(self.x)), (f"{own} *restrict y", out.pointer(self.y))]
        out.function("running", self.title, signature, "\n".join(lines))


def _running(combine: str) -> Callable[[Lowering, ir.Node], None]:
    def lower(low: Lowering, node: ir.Node) -> None:
        x, axis = low.view(node.inputs[0]), known(low, node, 1)
        assert axis is not None
        flat = _split_at(low, x, int(axis.reshape(-1)[0]) % x.rank)
        y = low.new(flat.shape, x.dtype)
        exclusive, reverse = (bool(node.attributes.get_int(k, 0)) for k in ("exclusive", "reverse"))
        low.add(Running(flat, y, combine, exclusive, reverse))
        low.set(node.outputs[0], low.reshape(y, x.shape))

    return lower


@dataclass(eq=False)
class TopK(Step):
    """The k largest (or smallest) of ``x[a, :, b]`` in order, equal ones by position.

    Shapes:  x (A, R, B) · values (A, K, B) · indices (A, K, B) int64, all dense
    """

    x: View
    values: View
    indices: View
    smallest: bool
    READS = ("x",)
    WRITES = ("values", "indices")

    @property
    def title(self) -> str:
        """Sizes."""
        return f"{self.values.shape[1]} of {self.x.shape[1]}, {self.x.shape[0]} x {self.x.shape[2]} times"

    def emit(self, out: Emitter) -> None:
        """Insertion into the sorted results; what is no better than the last of them costs one comparison."""
        outer, count, inner = self.x.shape
        k, own, sign = self.values.shape[1], C_TYPES[self.x.dtype], "<" if self.smallest else ">"
        lines = [
            f"    for (int a = 0; a < {outer}; a++)",
            f"        for (int b = 0; b < {inner}; b++) {{",
            f"            const {own} *from = x + a * {count * inner} + b;",
            f"            {own} *v = values + a * {k * inner} + b;",
            f"            int64_t *at = indices + a * {k * inner} + b;",
            f"            for (int r = 0; r < {count}; r++) {{",
            f"                const {own} one = from[r * {inner}];",
            f"                int j = r < {k} ? r : {k};",
            f"                if (j == {k} && !(one {sign} v[{(k - 1) * inner}])) continue;",
            f"                if (j == {k}) j--;",
            f"                for (; j > 0 && one {sign} v[(j - 1) * {inner}]; j--) {{",
            f"                    v[j * {inner}] = v[(j - 1) * {inner}];",
            f"                    at[j * {inner}] = at[(j - 1) * {inner}];",
            "                }",
            f"                v[j * {inner}] = one;",
            f"                at[j * {inner}] = r;",
            "            }",
            "        }",
        ]
        signature = [(f"const {own} *restrict x", out.pointer(self.x))]
        signature += [(f"{own} *restrict values", out.pointer(self.values))]
        signature += [("int64_t *restrict indices", out.pointer(self.indices))]
        out.function("top_k", self.title, signature, "\n".join(lines))


def _top_k(low: Lowering, node: ir.Node) -> None:
    x, k = low.view(node.inputs[0]), known(low, node, 1)
    axis = node.attributes.get_int("axis", -1) % max(x.rank, 1)
    assert k is not None
    count = int(k.reshape(-1)[0])
    if not 0 < count <= x.shape[axis]:
        raise UnsupportedOpError(f"op TopK (node '{node.name}') with k={count} of {x.shape[axis]} has no native kernel")
    flat = _split_at(low, x, axis)
    shape = (flat.shape[0], count, flat.shape[2])
    values, indices = low.new(shape, x.dtype), low.new(shape, "int64")
    low.add(TopK(flat, values, indices, not node.attributes.get_int("largest", 1)))
    final = [count if d == axis else n for d, n in enumerate(x.shape)]
    for output, view in zip(node.outputs, (values, indices), strict=False):
        low.set(output, low.reshape(view, final))


LOWER: Mapping[str, Any] = {
    "ArgMax": _argument, "ArgMin": _argument, "CumSum": _running("add"), "CumProd": _running("mul"), "TopK": _top_k,
}  # fmt: skip
