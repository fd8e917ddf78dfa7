"""Indices known only at run time: Gather, GatherElements, GatherND, ScatterElements, ScatterND.

Negative indices count from the end. ONNX leaves an index outside the axis undefined; here it is held to the nearest end
of the axis, so that nothing outside a tensor is ever read or written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.native.expr import Expr, call, const, load
from hasten.native.kernels.elementwise import Elementwise
from hasten.native.kernels.movement import take
from hasten.native.kernels.typed import HALVES, operation
from hasten.native.lower_shape import static
from hasten.native.program import C_TYPES, Step, View

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.lower import Lowering

__all__ = ["LOWER", "along"]


def _loops(names: str, sizes: tuple[int, ...], indent: str = "    ") -> Iterator[str]:
    for depth, (name, size) in enumerate(zip(names, sizes, strict=True)):
        yield f"{indent}{'    ' * depth}for (int {name} = 0; {name} < {size}; {name}++)"


def _copy(to: str, source: str, count: int, dtype: str) -> str:
    if count == 1:
        return f"*({to}) = *({source});"
    return f"__builtin_memcpy({to}, {source}, {count * np.dtype(dtype).itemsize});"


@dataclass(eq=False)
class Gather(Step):
    """``y[o, i, n] = x[o, index[i], n]``.

    Shapes:  x (A, R, B) · index (I,) int32 or int64 · y (A, I, B), all dense
    """

    x: View
    index: View
    y: View
    READS = ("x", "index")
    TABLE = "x"
    WRITES = ("y",)

    @property
    def title(self) -> str:
        """Sizes."""
        return f"{self.index.size} of {self.x.shape[1]} rows of {self.x.shape[2]}, {self.x.shape[0]} times"

    def emit(self, out: Emitter) -> None:
        """Rows are copied whole."""
        out.need("s_index")
        (outer, count, inner), own = self.x.shape, C_TYPES[self.x.dtype]
        source = f"x + (long)(a * {count} + s_index(index[i], {count})) * {inner}"
        lines = [*_loops("ai", (outer, self.index.size))]
        lines.append(
            f"            {_copy(f'y + (long)(a * {self.index.size} + i) * {inner}', source, inner, self.x.dtype)}"
        )
        signature = [(f"const {own} *restrict x", out.pointer(self.x))]
        signature.append((f"const {C_TYPES[self.index.dtype]} *restrict index", out.pointer(self.index)))
        signature.append((f"{own} *restrict y", out.pointer(self.y)))
        out.function("gather", self.title, signature, "\n".join(lines))


@dataclass(eq=False)
class GatherElements(Step):
    """``y[p] = x[p with its axis replaced by index[p]]``; the index may repeat (stride 0), x may be any view.

    Shapes:  x, index, y of one rank; y dense, of the index's shape
    """

    x: View
    index: View
    y: View
    axis: int
    READS = ("x", "index")
    TABLE = "x"
    WRITES = ("y",)

    @property
    def title(self) -> str:
        """Sizes."""
        return f"{'x'.join(map(str, self.y.shape))} along axis {self.axis}"

    def emit(self, out: Emitter) -> None:
        """One element at a time."""
        out.need("s_index")
        rank, own = self.y.rank, C_TYPES[self.x.dtype]
        at = " + ".join([f"i{d} * {s}" for d, s in enumerate(self.index.strides) if s]) or "0"
        terms = [f"i{d} * {s}" for d, s in enumerate(self.x.strides) if d != self.axis]
        terms.append(f"s_index(index[{at}], {self.x.shape[self.axis]}) * {self.x.strides[self.axis]}")
        lines = [f"{'    ' * (d + 1)}for (int i{d} = 0; i{d} < {self.y.shape[d]}; i{d}++)" for d in range(rank)]
        target = " + ".join(f"i{d} * {s}" for d, s in enumerate(self.y.strides))
        lines.append(f"{'    ' * (rank + 1)}y[{target}] = x[{' + '.join(terms)}];")
        signature = [(f"const {own} *restrict x", out.pointer(self.x))]
        signature.append((f"const {C_TYPES[self.index.dtype]} *restrict index", out.pointer(self.index)))
        signature.append((f"{own} *restrict y", out.pointer(self.y)))
        out.function("gather_elements", self.title, signature, "\n".join(lines))


def along(low: Lowering, x: View, index: View, axis: int) -> View:
    """``x`` with every position's axis replaced by ``index`` there."""
    y = low.new(index.shape, x.dtype)
    if y.size:
        low.add(GatherElements(x, index, y, axis))
    return y


def _gather(low: Lowering, node: ir.Node) -> None:
    x, constant = low.view(node.inputs[0]), low.constant(node.inputs[1])
    axis = node.attributes.get_int("axis", 0) % max(x.rank, 1)
    shape = static(node, node.outputs[0])
    if constant is not None:
        n = x.shape[axis]
        inside = np.where(constant < 0, constant + n, constant)
        if constant.size and (inside.min() < 0 or inside.max() >= n):
            raise UnsupportedOpError(f"op Gather (node '{node.name}') has an index outside its axis of {n}")
        if low.constant(node.inputs[0]) is not None and x.tensor.data is not None:
            found = low.constant(node.inputs[0])
            assert found is not None
            return low.know(node.outputs[0], np.take(found, inside, axis))
        return low.set(node.outputs[0], low.reshape(take(low, x, axis, inside), shape))
    index = low.contiguous(low.view(node.inputs[1]))
    y = low.new(shape, x.dtype)
    if y.size:
        flat = (prod(x.shape[:axis]), x.shape[axis], prod(x.shape[axis + 1 :]))
        table = low.reshape(low.contiguous(x), flat)
        low.add(Gather(table, low.reshape(index, (index.size,)), low.reshape(y, (flat[0], index.size, flat[2]))))
    return low.set(node.outputs[0], y)


def _gather_elements(low: Lowering, node: ir.Node) -> None:
    x, index = low.view(node.inputs[0]), low.view(node.inputs[1])
    low.set(node.outputs[0], along(low, x, index, node.attributes.get_int("axis", 0) % x.rank))


@dataclass(eq=False)
class GatherND(Step):
    """``y[b, i] = x[b, index[b, i]…]``: an index of K numbers picks a row.

    Shapes:  x (B, d1 … dK, inner) · index (B, I, K) · y (B, I, inner), all dense
    """

    x: View
    index: View
    y: View
    READS = ("x", "index")
    TABLE = "x"
    WRITES = ("y",)

    @property
    def title(self) -> str:
        """Sizes."""
        return f"{'x'.join(map(str, self.y.shape))} by {self.index.shape[2]} numbers"

    def emit(self, out: Emitter) -> None:
        """Rows are copied whole."""
        batch, count, inner = self.y.shape
        own = C_TYPES[self.x.dtype]
        lines = [*_loops("bi", (batch, count))][:-1]
        lines += [f"        for (int i = 0; i < {count}; i++) {{"]
        lines += _row(self.x, self.index, out, f"(b * {count} + i)", "b")
        lines.append(
            f"            {_copy(f'y + (long)(b * {count} + i) * {inner}', f'x + row * {inner}', inner, self.x.dtype)}"
        )
        lines.append("        }")
        signature = [(f"const {own} *restrict x", out.pointer(self.x))]
        signature.append((f"const {C_TYPES[self.index.dtype]} *restrict index", out.pointer(self.index)))
        signature.append((f"{own} *restrict y", out.pointer(self.y)))
        out.function("gather_nd", self.title, signature, "\n".join(lines))


def _row(x: View, index: View, out: Emitter, at: str, batch: str) -> Iterator[str]:
    """``row``: which row of x the numbers of index ``at`` mean."""
    yield f"            long row = {batch};"
    for k, size in enumerate(x.shape[1:-1]):
        out.need("s_index")
        yield f"            row = row * {size} + (long)s_index(index[{at} * {index.shape[2]} + {k}], {size});"


def _parts(low: Lowering, x: View, index: View, batch: int) -> tuple[View, View]:
    """Both operands of an ND operator as dense (B, d1 … dK, inner) and (B, I, K)."""
    count = index.shape[-1]
    outer = prod(x.shape[:batch])
    data = low.reshape(low.contiguous(x), (outer, *x.shape[batch : batch + count], prod(x.shape[batch + count :])))
    rows = low.reshape(low.contiguous(index), (outer, prod(index.shape[batch:-1]), count))
    return data, rows


def _gather_nd(low: Lowering, node: ir.Node) -> None:
    x, index = low.view(node.inputs[0]), low.view(node.inputs[1])
    data, rows = _parts(low, x, index, node.attributes.get_int("batch_dims", 0))
    y = low.new((*rows.shape[:2], data.shape[-1]), x.dtype)
    if y.size:
        low.add(GatherND(data, rows, y))
    low.set(node.outputs[0], low.reshape(y, static(node, node.outputs[0])))


_COMBINES = {"none": "", "add": "add", "mul": "mul", "max": "maximum", "min": "minimum"}


@dataclass(eq=False)
class Scatter(Step):
    """``y = x``, then every row ``y[index[i]…]`` takes ``updates[i]``, in order.

    Shapes:  x, y (1, d1 … dK, inner) · index (1, I, K) · updates (I, inner), all dense
    """

    x: View
    index: View
    updates: View
    y: View
    combine: str
    READS = ("x", "index", "updates")
    WRITES = ("y",)

    @property
    def title(self) -> str:
        """Sizes."""
        return f"{self.updates.shape[0]} rows of {self.updates.shape[1]}{', ' + self.combine if self.combine else ''}"

    def emit(self, out: Emitter) -> None:
        """A copy of x, then one row after the other."""
        count, inner = self.updates.shape
        own = C_TYPES[self.x.dtype]
        lines = [f"    __builtin_memcpy(y, x, {self.x.size * np.dtype(self.x.dtype).itemsize});"]
        lines.append(f"    for (int i = 0; i < {count}; i++) {{")
        lines += [line[4:] for line in _row(self.x, self.index, out, "i", "0")]
        value = f"updates[i * {inner} + n]"
        if self.combine:
            value = operation(self.combine, self.x.dtype, out, f"y[row * {inner} + n]", value)
        lines.append(f"        for (int n = 0; n < {inner}; n++) y[row * {inner} + n] = {value};")
        lines.append("    }")
        signature = [(f"const {own} *restrict x", out.pointer(self.x))]
        signature.append((f"const {C_TYPES[self.index.dtype]} *restrict index", out.pointer(self.index)))
        signature += [(f"const {own} *restrict updates", out.pointer(self.updates))]
        signature += [(f"{own} *restrict y", out.pointer(self.y))]
        out.function("scatter", self.title, signature, "\n".join(lines))


def _combine(node: ir.Node, dtype: str) -> str:
    name = node.attributes.get_string("reduction", "none")
    if name not in _COMBINES or (name != "none" and (dtype in HALVES or dtype == "bool")):
        raise UnsupportedOpError(f"op {node.op_type} (node '{node.name}'), {name} on {dtype}, has no native kernel")
    return _COMBINES[name]


def _scatter_nd(low: Lowering, node: ir.Node) -> None:
    x, index, updates = (low.view(v) for v in node.inputs[:3])
    data, rows = _parts(low, x, index, 0)
    flat = low.reshape(low.contiguous(updates), (rows.shape[1], data.shape[-1]))
    y = low.new(x.shape, x.dtype)
    low.add(Scatter(data, rows, flat, y, _combine(node, x.dtype)))
    low.set(node.outputs[0], y)


@dataclass(eq=False)
class ScatterElements(Step):
    """``y = x``, then ``y[p with its axis replaced by index[p]]`` takes ``updates[p]``, in order.

    Shapes:  x, y of one shape · index, updates of one shape, all dense
    """

    x: View
    index: View
    updates: View
    y: View
    axis: int
    combine: str
    READS = ("x", "index", "updates")
    WRITES = ("y",)

    @property
    def title(self) -> str:
        """Sizes."""
        return f"{'x'.join(map(str, self.index.shape))} along axis {self.axis}"

    def emit(self, out: Emitter) -> None:
        """A copy of x, then one element after the other."""
        out.need("s_index")
        rank, own = self.y.rank, C_TYPES[self.x.dtype]
        at = " + ".join(f"i{d} * {s}" for d, s in enumerate(self.index.strides))
        terms = [f"i{d} * {s}" for d, s in enumerate(self.y.strides) if d != self.axis]
        terms.append(f"s_index(index[{at}], {self.x.shape[self.axis]}) * {self.y.strides[self.axis]}")
        target = f"y[{' + '.join(terms)}]"
        value = f"updates[{at}]"
        if self.combine:
            value = operation(self.combine, self.x.dtype, out, target, value)
        lines = [f"    __builtin_memcpy(y, x, {self.x.size * np.dtype(self.x.dtype).itemsize});"]
        lines += [f"{'    ' * (d + 1)}for (int i{d} = 0; i{d} < {self.index.shape[d]}; i{d}++)" for d in range(rank)]
        lines.append(f"{'    ' * (rank + 1)}{target} = {value};")
        signature = [(f"const {own} *restrict x", out.pointer(self.x))]
        signature.append((f"const {C_TYPES[self.index.dtype]} *restrict index", out.pointer(self.index)))
        signature += [(f"const {own} *restrict updates", out.pointer(self.updates))]
        signature += [(f"{own} *restrict y", out.pointer(self.y))]
        out.function("scatter_elements", self.title, signature, "\n".join(lines))


def _scatter_elements(low: Lowering, node: ir.Node) -> None:
    x, index, updates = (low.contiguous(low.view(v)) for v in node.inputs[:3])
    y = low.new(x.shape, x.dtype)
    axis = node.attributes.get_int("axis", 0) % x.rank
    low.add(ScatterElements(x, index, updates, y, axis, _combine(node, x.dtype)))
    low.set(node.outputs[0], y)


def _tensor_scatter(low: Lowering, node: ir.Node) -> None:
    """A cache with new rows written from where each batch row says: every position names its place on the axis."""
    cache, update = low.view(node.inputs[0]), low.contiguous(low.view(node.inputs[1]))
    axis, most = node.attributes.get_int("axis", -2) % cache.rank, cache.shape[node.attributes.get_int("axis", -2)]
    count = low.data(np.arange(update.shape[axis]).reshape(-1, *(1,) * (cache.rank - axis - 1)))
    place: Expr = load(count.broadcast(update.shape))
    if len(node.inputs) > 2 and low.has(node.inputs[2]):
        first = low.reshape(low.view(node.inputs[2]), (update.shape[0], *(1,) * (cache.rank - 1)))
        start = load(first.broadcast(update.shape))
        place = call("add", place, call("cast", start, dtype="int64"), dtype="int64")
    if node.attributes.get_string("mode", "linear") == "circular":
        place = call("mod", place, const(most, "int64"), dtype="int64")
    index, y = low.new(update.shape, "int64"), low.new(cache.shape, cache.dtype)
    low.add(Elementwise(index, place))
    low.add(ScatterElements(low.contiguous(cache), index, update, y, axis, ""))
    low.set(node.outputs[0], y)


LOWER: Mapping[str, Any] = {
    "TensorScatter": _tensor_scatter,
    "Gather": _gather, "GatherElements": _gather_elements, "GatherND": _gather_nd, "ScatterElements": _scatter_elements,
    "Scatter": _scatter_elements, "ScatterND": _scatter_nd,
}  # fmt: skip
