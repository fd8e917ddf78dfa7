"""MatMul, Gemm and Einsum: ``Dense`` where the right-hand side is constant, ``Product`` where both come at run time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.native.epilogue import Finished
from hasten.native.expr import ACC, Expr, const
from hasten.native.kernels.arithmetic import apply
from hasten.native.kernels.dense import Dense
from hasten.native.kernels.elementwise import Elementwise
from hasten.native.kernels.reduce import reduce
from hasten.native.kernels.typed import c_type, operation
from hasten.native.program import C_TYPES, View
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.lower import Lowering

__all__ = ["LOWER", "Product", "constant_product", "product"]


@dataclass(eq=False)
class Product(Finished):
    """``y = epilogue(a · b)`` for every batch; either side may repeat over a batch dimension.

    Shapes:  a (batch…, M, K) · b (batch…, K, N) · y (batch…, M, N), dense
             float32: b's columns dense, or both a's rows and b's columns dense along K
    """

    a: View
    b: View
    y: View
    epilogue: Expr = ACC
    READS = ("a", "b", "operands")
    WRITES = ("y",)

    @property
    def _row_length(self) -> int:
        return self.y.shape[-1]

    @property
    def title(self) -> str:
        """Sizes and epilogue."""
        batch = "x".join(map(str, self.y.shape[:-2]))
        sizes = f"{self.a.shape[-2]} x {self.a.shape[-1]} x {self.y.shape[-1]}"
        return f"{batch + ' of ' if batch else ''}{sizes}{self._epilogue.title}"

    def macs(self) -> int:
        """Batch · M · K · N."""
        return self.y.size * self.a.shape[-1]

    def emit(self, out: Emitter) -> None:
        """A loop a batch dimension; inside, tiles of rows × vectors, or dot products along K."""
        kind = C_TYPES[self.y.dtype]
        signature = [
            (f"const {kind} *restrict a", out.pointer(self.a)),
            (f"const {kind} *restrict b", out.pointer(self.b)),
        ]
        signature.append((f"{kind} *restrict y", out.pointer(self.y)))
        lines, indent = [], "    "
        for d, n in enumerate(self.y.shape[:-2]):
            if n != 1:
                lines.append(f"{indent}for (int n{d} = 0; n{d} < {n}; n{d}++) {{")
                indent += "    "
        lines.append(
            f"{indent}const {kind} *restrict p = a{self._batch(self.a)}, *restrict q = b{self._batch(self.b)};"
        )
        lines.append(f"{indent}const int base = {self._batch(self.y)[3:] or '0'};")
        if self.y.dtype != "float32":
            body = self._scalars(out)
        elif self.b.strides[-1] == 1 or (self.b.shape[-1] == 1 and self.b.strides[-2] != 1):
            body = self._tiles(out)
        else:
            body = self._dots(out)
        lines += [indent + line for line in body]
        lines += ["    " * d + "}" for d in range(len(indent) // 4 - 1, 0, -1)]
        if self.y.dtype == "float32":
            signature += self._epilogue.signature(out)
        out.function("product", self.title, signature, "\n".join(lines))

    def _batch(self, view: View) -> str:
        terms = [
            f"n{d} * {s}" for d, (n, s) in enumerate(zip(self.y.shape[:-2], view.strides, strict=False)) if n != 1 and s
        ]
        return "".join(f" + {t}" for t in terms)

    def _tiles(self, out: Emitter) -> Iterator[str]:
        rows, depth, columns = *self.a.shape[-2:], self.y.shape[-1]
        vectors, tail = -(-columns // out.lanes), columns % out.lanes
        width = min(4 if out.isa.registers == 32 else 2, vectors)
        tall = max(1, min(rows, (out.isa.registers - width - 2) // width))
        tall = -(-rows // -(-rows // tall))
        out.need("v_set1", "unroll")
        full = (vectors - (1 if tail else 0)) // width
        runs = [(0, full, width, 0)] if full else []
        rest = vectors - full * width
        if rest:
            runs.append((full * width * out.lanes, 1, rest, tail))
        for start, count, wide, odd in runs:
            yield f"for (int c = {start}; c < {start + count * wide * out.lanes}; c += {wide * out.lanes}) {{"
            whole = rows // tall * tall
            yield f"    for (int m = 0; m < {whole}; m += {tall}) {{"
            yield from self._tile(out, tall, wide, odd, depth)
            yield "    }"
            if rows > whole:
                yield "    {"
                yield f"        const int m = {whole};"
                yield from self._tile(out, rows - whole, wide, odd, depth)
                yield "    }"
            yield "}"

    def _tile(self, out: Emitter, tall: int, wide: int, odd: int, depth: int) -> Iterator[str]:
        (am, ak), bk = self.a.strides[-2:], self.b.strides[-2]
        yield f"        vf s[{tall * wide}];"
        yield f"        UNROLL for (int i = 0; i < {tall * wide}; i++) s[i] = v_set1(0.0f);"
        yield f"        for (int k = 0; k < {depth}; k++) {{"
        yield f"            vf w[{wide}];"
        whole = wide - 1 if odd else wide
        if whole:
            out.need("v_load")
            yield f"            for (int j = 0; j < {whole}; j++) w[j] = v_load(q + k * {bk} + c + j * VL);"
        if odd:
            out.need("v_load_n")
            yield f"            w[{whole}] = v_load_n(q + k * {bk} + c + {whole} * VL, {odd});"
        yield f"            UNROLL for (int i = 0; i < {tall}; i++) {{"
        yield f"                const vf v = v_set1(p[(m + i) * {am} + k * {ak}]);"
        yield f"                for (int j = 0; j < {wide}; j++) s[i * {wide} + j] += v * w[j];"
        yield "            }"
        yield "        }"
        yield f"        for (int i = 0; i < {tall}; i++) {{"
        for low, high, count in ((0, whole, None), (whole, wide, odd)):
            if low == high:
                continue
            row = f"base + (m + i) * {self.y.shape[-1]} + c + j * VL"
            column = self._column("c + j * VL", "m + i")
            lines, value = self._epilogue.apply(
                out, f"s[i * {wide} + j]", column=column, element=row, count=count, indent="                "
            )
            yield f"            for (int j = {low}; j < {high}; j++) {{"
            yield from lines
            out.need("v_store" if count is None else "v_store_n")
            stored = f"v_store(y + {row}, {value})" if count is None else f"v_store_n(y + {row}, {value}, {count})"
            yield f"                {stored};"
            yield "            }"
        yield "        }"

    def _column(self, column: str, row: str) -> str:
        """The index along y's last dimension that is not one, which column operands run along."""
        wide = [d for d, n in enumerate(self.y.shape) if n != 1]
        if not wide or wide[-1] == self.y.rank - 1:
            return column
        return row if wide[-1] == self.y.rank - 2 else f"n{wide[-1]}"

    def _dots(self, out: Emitter) -> Iterator[str]:
        rows, depth, columns = *self.a.shape[-2:], self.y.shape[-1]
        full, tail = depth // out.lanes * out.lanes, depth % out.lanes
        tall = next(t for t in (4, 3, 2, 1) if columns % t == 0)  # columns at a time share what is loaded of a
        out.need("v_set1", "v_sum", "v_store_n", *(("v_load",) if full else ()), *(("v_load_n",) if tail else ()))
        yield f"for (int m = 0; m < {rows}; m++)"
        yield f"    for (int c = 0; c < {columns}; c += {tall}) {{"
        yield f"        const float *x = p + m * {self.a.strides[-2]}, *w = q + c * {self.b.strides[-1]};"
        yield f"        vf s[{tall}];"
        yield f"        for (int j = 0; j < {tall}; j++) s[j] = v_set1(0.0f);"
        if full:
            yield f"        for (int k = 0; k < {full}; k += VL) {{"
            yield "            const vf v = v_load(x + k);"
            yield f"            for (int j = 0; j < {tall}; j++) s[j] += v * v_load(w + j * {self.b.strides[-1]} + k);"
            yield "        }"
        if tail:
            yield f"        const vf last = v_load_n(x + {full}, {tail});"
            at = f"w + j * {self.b.strides[-1]} + {full}"
            yield f"        for (int j = 0; j < {tall}; j++) s[j] += last * v_load_n({at}, {tail});"
        yield f"        for (int j = 0; j < {tall}; j++) {{"
        element = f"base + m * {columns} + c + j"
        lines, value = self._epilogue.apply(
            out,
            "v_set1(v_sum(s[j]))",
            column=self._column("c + j", "m"),
            element=element,
            count=1,
            indent="            ",
        )
        yield from lines
        yield f"            v_store_n(y + {element}, {value}, 1);"
        yield "        }"
        yield "    }"

    def _scalars(self, out: Emitter) -> Iterator[str]:
        rows, depth, columns = *self.a.shape[-2:], self.y.shape[-1]
        (am, ak), (bk, bn) = self.a.strides[-2:], self.b.strides[-2:]
        dtype = self.y.dtype
        one = operation("mul", dtype, out, f"p[m * {am} + k * {ak}]", f"q[k * {bk} + c * {bn}]")
        yield f"for (int m = 0; m < {rows}; m++)"
        yield f"    for (int c = 0; c < {columns}; c++) {{"
        yield f"        {c_type(dtype)} s = 0;"
        yield f"        for (int k = 0; k < {depth}; k++) s = {operation('add', dtype, out, 's', one)};"
        yield f"        y[base + m * {columns} + c] = s;"
        yield "    }"


def product(low: Lowering, a: View, b: View) -> View:
    """``a · b`` as numpy's matmul of two arrays of at least two dimensions.

    Shapes:  a (batch…, M, K) · b (batch…, K, N) · returns (batch…, M, N)
    """
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    shape = (*batch, a.shape[-2], b.shape[-1])
    y = low.new(shape, a.dtype)
    if a.shape[-1] == 0 or y.size == 0:
        low.add(Elementwise(y, const(0, y.dtype)))
        return y
    if a.dtype == "float32":
        few = a.shape[-2] < 4 or b.shape[-1] < low.lanes
        if b.strides[-1] != 1 and not (b.strides[-2] == 1 and few):
            b = low.contiguous(b)
        if b.strides[-1] != 1 and a.strides[-1] != 1:
            a = low.contiguous(a)
    low.add(Product(a.broadcast((*batch, *a.shape[-2:])), b.broadcast((*batch, *b.shape[-2:])), y))
    return y


def _dense(low: Lowering, a: View, weight: Array, bias: Array) -> View:
    rows = prod(a.shape[:-1])
    y = low.new((rows, weight.shape[1]))
    low.add(Dense(low.reshape(low.contiguous(a), (rows, weight.shape[0])), y, np.ascontiguousarray(weight), bias))
    return y


def constant_product(low: Lowering, a: View, weight: Array) -> View:
    """``a · weight`` of a matrix known now, of a's dtype.

    Shapes:  a (…, K) · weight (K, N) · returns (…, N)
    """
    shape = (*a.shape[:-1], weight.shape[1])
    if a.dtype == "float32" and a.size and weight.size:
        return low.reshape(_dense(low, a, weight, np.zeros(weight.shape[1], np.float32)), shape)
    return low.reshape(product(low, low.reshape(a, (prod(shape[:-1]), a.shape[-1])), low.data(weight)), shape)


def _matmul(low: Lowering, node: ir.Node) -> None:
    a, weight = low.view(node.inputs[0]), low.constant(node.inputs[1])
    if weight is not None and weight.ndim >= 2 and weight.dtype.name == a.dtype == "float32" and a.size and weight.size:
        columns, extra = weight.shape[-1], max(weight.ndim - a.rank, 0)
        if prod(weight.shape[:-2]) == 1 and (not extra or a.rank > 1):
            y = _dense(low, a, weight.reshape(weight.shape[-2:]), np.zeros(columns, np.float32))
            return low.set(node.outputs[0], low.reshape(y, (*(1,) * extra, *a.shape[:-1], columns)))
    b = low.view(node.inputs[1])
    if a.dtype != b.dtype or a.dtype == "bool":
        raise UnsupportedOpError(f"op MatMul (node '{node.name}') of {a.dtype} and {b.dtype} has no native kernel")
    left = a if a.rank > 1 else low.reshape(a, (1, *a.shape))
    right = b if b.rank > 1 else low.reshape(b, (*b.shape, 1))
    y = product(low, left, right)
    shape = list(y.shape)
    if b.rank == 1:
        shape.pop()
    if a.rank == 1:
        shape.pop(-1 if b.rank == 1 else -2)
    return low.set(node.outputs[0], low.reshape(y, shape))


def _gemm(low: Lowering, node: ir.Node) -> None:
    attr = node.attributes
    alpha, beta = (attr.get_float(k, 1.0) for k in ("alpha", "beta"))
    a, weight = low.view(node.inputs[0]), low.constant(node.inputs[1])
    if attr.get_int("transA", 0):
        a = a.transpose((1, 0))
    extra = low.view(node.inputs[2]) if len(node.inputs) > 2 and low.has(node.inputs[2]) else None
    if weight is not None and weight.dtype.name == a.dtype == "float32" and a.size and weight.size:
        y, rest = _constant_gemm(low, node, a, (weight.T if attr.get_int("transB", 0) else weight) * np.float32(alpha))
        extra = extra if rest else None
    else:
        b = low.view(node.inputs[1])
        y = product(low, a, b.transpose((1, 0)) if attr.get_int("transB", 0) else b)
        if alpha != 1.0:
            y = _scaled(low, node, y, alpha)
    if extra is not None:
        y = apply(low, "add", y, extra if beta == 1.0 else _scaled(low, node, extra, beta))
    low.set(node.outputs[0], y)


def _scaled(low: Lowering, node: ir.Node, view: View, factor: float) -> View:
    if not view.dtype.startswith("float") and factor != int(factor):
        raise UnsupportedOpError(f"op Gemm (node '{node.name}') scales {view.dtype} by {factor}: no native kernel")
    return apply(low, "mul", view, factor)


def _constant_gemm(low: Lowering, node: ir.Node, a: View, weight: Array) -> tuple[View, bool]:
    """The product, and whether the third input is still to be added."""
    beta, columns = node.attributes.get_float("beta", 1.0), weight.shape[1]
    c = low.constant(node.inputs[2]) if len(node.inputs) > 2 and low.has(node.inputs[2]) else None
    if c is not None and c.size in (1, columns) and (c.ndim < 2 or c.shape[0] == 1):
        bias = np.broadcast_to(c.reshape(-1) * np.float32(beta), (columns,)).astype(np.float32)
        return _dense(low, a, weight, bias), False
    return _dense(low, a, weight, np.zeros(columns, np.float32)), True


def _einsum(low: Lowering, node: ir.Node) -> None:
    """Operands from left to right: diagonals as views, sums of labels used once, then one batched product a pair."""
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    sides = equation.split("->")
    views = [low.view(v) for v in node.inputs]
    labels = [_spelled(t, v.rank) for t, v in zip(sides[0].split(","), views, strict=True)]
    if len(sides) > 1:
        dots = max((t for t in labels), key=lambda t: sum(c < "A" for c in t))
        final = _spelled(sides[1], None, [c for c in dots if c < "A"])
    else:
        every = "".join("".join(t) for t in labels)
        final = [c for c in sorted(set(every)) if c < "A"] + [
            c for c in sorted(set(every)) if c >= "A" and every.count(c) == 1
        ]
    operands = [_diagonal(v, t) for v, t in zip(views, labels, strict=True)]
    (view, names), rest = operands[0], operands[1:]
    for i, (other, others) in enumerate(rest):
        later = {c for _, t in rest[i + 1 :] for c in t} | set(final)
        view, names = _contract(low, (view, names), (other, others), later)
    gone = [names.index(c) for c in names if c not in final]
    if gone:
        view = reduce(low, view, gone, "sum")
        view = low.reshape(view, [n for d, n in enumerate(view.shape) if d not in gone])
        names = [c for c in names if c in final]
    low.set(node.outputs[0], view.transpose([names.index(c) for c in final]))


def _spelled(text: str, rank: int | None, dots: Sequence[str] | None = None) -> list[str]:
    """One label a dimension; those of an ellipsis are digits, counted from its end."""
    if "..." not in text:
        return list(text)
    before, after = text.split("...")
    if dots is None:
        assert rank is not None
        count = rank - len(before) - len(after)
        dots = [str(count - 1 - i) for i in range(count)]
    return [*before, *dots, *after]


def _diagonal(view: View, labels: Sequence[str]) -> tuple[View, list[str]]:
    """Repeated labels become one dimension that walks along both."""
    names = list(dict.fromkeys(labels))
    shape, strides = [], []
    for name in names:
        at = [d for d, c in enumerate(labels) if c == name]
        shape.append(max(view.shape[d] for d in at))
        strides.append(sum(view.strides[d] for d in at))
    return View(view.tensor, tuple(shape), tuple(strides), view.offset), names


def _contract(
    low: Lowering, left: tuple[View, list[str]], right: tuple[View, list[str]], later: set[str]
) -> tuple[View, list[str]]:
    (a, an), (b, bn) = left, right
    sizes = {c: max(n, 1) for c, n in zip([*an, *bn], [*a.shape, *b.shape], strict=True) if n != 1} | {}
    for only, view, names in ((set(an) - set(bn) - later, a, an), (set(bn) - set(an) - later, b, bn)):
        if only:
            axes = [names.index(c) for c in only]
            found = reduce(low, view, axes, "sum")
            found = low.reshape(found, [n for d, n in enumerate(found.shape) if d not in axes])
            if view is a:
                a, an = found, [c for c in an if c not in only]
            else:
                b, bn = found, [c for c in bn if c not in only]
    both = [c for c in an if c in bn]
    batch, inner = [c for c in both if c in later], [c for c in both if c not in later]
    rows, columns = [c for c in an if c not in both], [c for c in bn if c not in both]

    def sized(names: Sequence[str]) -> tuple[int, ...]:
        return tuple(sizes.get(c, 1) for c in names)

    def arranged(view: View, names: list[str], first: list[str], second: list[str]) -> View:
        order = [*batch, *first, *second]
        view = view.transpose([names.index(c) for c in order]).broadcast(sized(order))
        return low.reshape(view, (*sized(batch), prod(sized(first)), prod(sized(second))))

    one, other = arranged(a, an, rows, inner), arranged(b, bn, inner, columns)
    if other.rank == 2 and other.tensor.data is not None:
        other = low.contiguous(other)
    data = other.tensor.data
    if other.rank == 2 and data is not None and other.dtype == "float32" and other.is_whole:
        y = constant_product(low, one, data.reshape(other.shape))
    else:
        y = product(low, one, other)
    names = [*batch, *rows, *columns]
    return low.reshape(y, sized(names)), names


LOWER: Mapping[str, Any] = {"MatMul": _matmul, "Gemm": _gemm, "Einsum": _einsum}
