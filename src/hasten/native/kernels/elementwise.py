"""Element-wise chains as one loop, any dtype, any broadcast, any strides: the loop follows the output's memory.

float32 runs in vectors; an expression that holds another dtype runs as a plain C loop (``typed``).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from hasten.native.epilogue import put
from hasten.native.expr import Expr, emit_vector, is_vector, load_name, loads
from hasten.native.kernels.typed import emit_scalar
from hasten.native.program import C_TYPES, Step, View

if TYPE_CHECKING:
    from hasten.native.emit import Emitter

__all__ = ["Elementwise", "collapse"]


@dataclass(eq=False)
class Elementwise(Step):
    """``y = expr`` at every position; loads have y's logical shape (stride 0 where they repeat)."""

    y: View
    expr: Expr
    WRITES = ("y",)

    def reads(self):  # type: ignore[no-untyped-def]
        """The views that the expression loads."""
        return (e.view for e in loads(self.expr) if e.view is not None)

    def accepts(self, name: str, view: View) -> bool:
        """Any view will do."""
        return name == "y"

    @property
    def title(self) -> str:
        """The operations, innermost first."""
        return f"{_names(self.expr)} over {'x'.join(map(str, self.y.shape))}"

    def emit(self, out: Emitter) -> None:
        """Loops over collapsed dimensions, the innermost one in vectors."""
        leaves = list(loads(self.expr))
        views = [self.y, *(e.view for e in leaves if e.view is not None)]
        dims = collapse(views)
        count, strides = (dims[-1][0], dims[-1][1]) if dims else (1, (1,) * len(views))
        if not is_vector(self.expr):
            self._emit_scalars(out, leaves, dims)
            return
        signature = [(f"{C_TYPES[self.y.dtype]} *y", out.pointer(self.y))]
        signature += [(f"const {C_TYPES[v.dtype]} *x{i}", out.pointer(v)) for i, v in enumerate(views[1:])]
        lines, indent = [], "    "
        for d, (n, _) in enumerate(dims[:-1]):
            lines.append(f"{indent}for (int i{d} = 0; i{d} < {n}; i{d}++) {{")
            indent += "    "
        bases = []
        for k in range(len(views)):
            terms = [f"i{d} * {s[k]}" for d, (_, s) in enumerate(dims[:-1]) if s[k]]
            bases.append(" + ".join(terms))
        body = _Body(self.expr, leaves, bases, strides, out, self.y.dtype)
        full, rest = divmod(count, out.lanes)
        if full:
            lines.append(f"{indent}for (int i = 0; i < {full * out.lanes}; i += VL) {{")
            lines += body.lines("i", None, indent + "    ")
            lines.append(f"{indent}}}")
        if rest:
            lines.append(f"{indent}{{")
            lines += body.lines(str(full * out.lanes), rest, indent + "    ")
            lines.append(f"{indent}}}")
        for d in range(len(dims) - 1):
            indent = "    " * (len(dims) - 1 - d)
            lines.append(f"{indent}}}")
        out.function("elementwise", self.title, signature, "\n".join(lines))

    def _emit_scalars(self, out: Emitter, leaves: list[Expr], dims: list[tuple[int, tuple[int, ...]]]) -> None:
        def at(k: int) -> str:
            terms = [f"i{d}" + (f" * {s[k]}" if s[k] != 1 else "") for d, (_, s) in enumerate(dims) if s[k]]
            return " + ".join(terms) or "0"

        own, types = C_TYPES[self.y.dtype], [C_TYPES[v.dtype] for v in (e.view for e in leaves) if v is not None]
        expr = self.expr
        if expr.op == "bits":  # the same bytes under another name
            own, expr = types[0], expr.args[0]
        pointer = out.pointer(self.y)
        signature = [(f"{own} *restrict y", f"({own} *)({pointer})" if expr is not self.expr else pointer)]
        signature += [
            (f"const {t} *restrict x{i}", out.pointer(e.view))
            for i, (t, e) in enumerate(zip(types, leaves, strict=True))
            if e.view
        ]
        lines = [f"{'    ' * (d + 1)}for (int i{d} = 0; i{d} < {n}; i{d}++) {{" for d, (n, _) in enumerate(dims)]
        indent = "    " * (len(dims) + 1)
        numbers = {id(e): i for i, e in enumerate(leaves)}
        found, value = emit_scalar(expr, out, lambda e: f"x{numbers[id(e)]}[{at(numbers[id(e)] + 1)}]", indent)
        lines += [*found, f"{indent}y[{at(0)}] = {value};"]
        lines += [f"{'    ' * (d + 1)}}}" for d in reversed(range(len(dims)))]
        out.function("elementwise", self.title, signature, "\n".join(lines))


@dataclass
class _Body:
    """The innermost statements: load, compute, store, for whole vectors or the first ``rest`` lanes of one."""

    expr: Expr
    leaves: list[Expr]
    bases: list[str]
    strides: tuple[int, ...]
    out: Emitter
    dtype: str = "float32"

    def lines(self, i: str, rest: int | None, indent: str) -> list[str]:
        def leaf(e: Expr) -> str:
            k = 1 + next(n for n, have in enumerate(self.leaves) if have is e)
            stride = self.strides[k]
            assert e.view is not None
            name = load_name(e.view)
            if stride == 0:
                self.out.need("v_set1")
                wide = "" if name == "v_load" else "(float)"
                return f"v_set1({wide}x{k - 1}[{self.bases[k] or '0'}])"
            if stride == 1:
                at = " + ".join(filter(None, (f"x{k - 1}", self.bases[k], i if i != "0" else "")))
                self.out.need(name if rest is None else f"{name}_n")
                return f"{name}({at})" if rest is None else f"{name}_n({at}, {rest})"
            at = " + ".join(filter(None, (f"x{k - 1}", self.bases[k], f"({i}) * {stride}")))
            name = name.replace("load", "gather")
            self.out.need(name)
            return f"{name}({at}, {stride}, {'VL' if rest is None else rest})"

        lines, result = emit_vector(self.expr, self.out, leaf, indent=indent)
        stride = self.strides[0]
        if stride == 1:
            at = " + ".join(filter(None, ("y", self.bases[0], i if i != "0" else "")))
            store = put(self.out, self.dtype, at, result, rest)
        else:
            at = " + ".join(filter(None, ("y", self.bases[0], f"({i}) * {stride}")))
            lanes = "VL" if rest is None else rest
            if self.dtype == "float32":
                self.out.need("v_scatter")
                store = f"v_scatter({at}, {stride}, {result}, {lanes});"
            else:
                self.out.need("v_scatter_b", "v_toint")
                store = f"v_scatter_b((uint8_t *)({at}), {stride}, v_toint({result}), {lanes});"
        return [*lines, f"{indent}{store}"]


def collapse(views: list[View]) -> list[tuple[int, tuple[int, ...]]]:
    """Dimensions as (count, stride per view), outermost first in the first view's memory, merged where all allow."""
    first = views[0]
    order = sorted((d for d in range(first.rank) if first.shape[d] != 1), key=lambda d: -abs(first.strides[d]))
    dims: list[tuple[int, tuple[int, ...]]] = []
    for d in order:
        n, s = first.shape[d], tuple(v.strides[d] if v.shape[d] != 1 else 0 for v in views)
        if dims and all(outer == n * inner for outer, inner in zip(dims[-1][1], s, strict=True)):
            dims[-1] = (dims[-1][0] * n, s)
        else:
            dims.append((n, s))
    if prod(first.shape) == 0:
        return [(0, (1,) * len(views))]
    return dims


def _names(expr: Expr) -> str:
    found: list[str] = []

    def walk(e: Expr) -> None:
        for a in e.args:
            walk(a)
        if e.op not in ("load", "const", "acc"):
            found.append(e.op)

    walk(expr)
    return ", ".join(dict.fromkeys(found)) or "copy"
