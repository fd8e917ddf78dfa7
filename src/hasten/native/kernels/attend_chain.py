"""Finds attention spelt out, product, softmax, product with scale and mask between, and makes it one ``Attend`` step.

What only moved or scaled queries, keys and values on the way there is looked through: ``Attend`` reads any strides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hasten.native.expr import ACC, Expr, call, const, is_vector, load, loads, substitute
from hasten.native.fuse import Uses, relocated
from hasten.native.kernels.attend import Attend, Empty, worth
from hasten.native.kernels.elementwise import Elementwise
from hasten.native.kernels.matmul import Product
from hasten.native.kernels.rows import Softmax
from hasten.native.kernels.typed import is_scalar, vectorised
from hasten.native.program import Program, Step, Tensor, View

__all__ = ["Scores", "attentions", "scores", "squeezed", "with_views"]


def attentions(program: Program, lanes: int) -> Program:
    """The program with every chain that pays as one step; what they made superfluous stays, unread."""
    steps = list(program.steps)
    for softmax in [s for s in steps if isinstance(s, Softmax) and not s.log]:
        found = _Chain(steps, Uses(steps), softmax).found(lanes)
        if found is not None:
            last, covered, made = found
            at = steps.index(last)
            steps[at : at + 1] = made
            for step in covered:
                steps.remove(step)
    return replace(program, steps=steps)


@dataclass(frozen=True)
class Scores:
    """The scores as ``Attend`` takes them, and the steps that make the masks they read."""

    expr: Expr
    scale: float
    steps: tuple[Step, ...]


@dataclass
class _Chain:
    steps: list[Step]
    uses: Uses
    softmax: Softmax
    between: list[Step] = field(default_factory=list)
    """Steps between the products, the softmax among them."""

    def found(self, lanes: int) -> tuple[Step, list[Step], list[Step]] | None:
        """The second product, the other steps covered, and the steps that take their place."""
        before, after = self._before(), self._after()
        if before is None or after is None:
            return None
        (first, expr), (second, empty) = before, after
        batch, (rows, keys) = _wide(first.y.shape[:-2]), first.y.shape[-2:]
        if _wide(second.y.shape[:-2]) != batch or second.a.shape[-2:] != (rows, keys):
            return None
        if not worth((rows, keys), (first.a.shape[-1], second.y.shape[-1]), lanes):
            return None
        (q, by_q), (k, by_k), (v, by_v) = (self._source(squeezed(x)) for x in (first.a, first.b, second.b))
        v = v if by_v == 1.0 else squeezed(second.b)
        taken = scores(expr)
        if taken is None or not self._settled([e.view for e in loads(taken.expr)], first):
            return None
        covered = [first, *self.between]
        nodes = tuple(dict.fromkeys(n for s in (*covered, second) for n in s.nodes))
        y, final = squeezed(second.y), second.epilogue
        if final is not ACC:
            y = View.whole(Tensor("attended", y.size), y.shape)
        step = Attend(q, k, v, y, taken.scale * by_q * by_k, taken.expr, empty, nodes=nodes)
        made: list[Step] = [*taken.steps, step]
        for mask in taken.steps:
            mask.nodes = nodes
        if final is not ACC:
            whole = View.whole(y.tensor, second.y.shape)
            made.append(Elementwise(second.y, substitute(final, {id(ACC): load(whole)}), nodes=second.nodes))
        return second, covered, made

    def _before(self) -> tuple[Product, Expr] | None:
        """The product that the softmax reads, and the scores made of it: dimensions of size one dropped."""
        view, expr = self.softmax.x, None
        self.between.append(self.softmax)
        for _ in range(4):
            maker = self._maker(view)
            if isinstance(maker, Product) and maker.y.shape[-1] == self.softmax.x.shape[-1]:
                own = with_views(maker.epilogue, squeezed)
                return maker, own if expr is None else substitute(expr, {id(ACC): own})
            if not isinstance(maker, Elementwise) or maker.y.shape[-1] != self.softmax.x.shape[-1]:
                return None
            inner = [e for e in loads(maker.expr) if e.view is not None and self._maker(e.view) is not None]
            inner = [e for e in inner if e.view is not None and _alike(e.view, maker.y)]
            if len(inner) != 1 or inner[0].view is None:
                return None
            own = with_views(substitute(maker.expr, {id(inner[0]): ACC}), squeezed)
            expr = own if expr is None else substitute(expr, {id(ACC): own})
            self.between.append(maker)
            view = inner[0].view
        return None

    def _maker(self, view: View) -> Step | None:
        """The one step that makes all of a row-major tensor which one step reads."""
        tensor = view.tensor
        makers, readers = self.uses.makers.get(tensor, []), self.uses.readers.get(tensor, [])
        if tensor.kind != "temporary" or len(makers) != 1 or len(readers) != 1 or view.size != tensor.size:
            return None
        y = getattr(makers[0], "y", None)
        return makers[0] if isinstance(y, View) and y.is_whole and y.is_contiguous() and y.dtype == "float32" else None

    def _after(self) -> tuple[Product, Empty] | None:
        """The product that reads the softmax, and what becomes of rows without weights."""
        y, empty = self.softmax.y, "nan"
        for _ in range(2):
            readers = self.uses.readers.get(y.tensor, [])
            if y.tensor.kind != "temporary" or len(readers) != 1 or not (y.is_whole and y.is_contiguous()):
                return None
            reader = readers[0]
            if isinstance(reader, Product) and reader.y.dtype == "float32":
                a = reader.a
                if a.tensor is y.tensor and a.is_contiguous() and reader.b.tensor is not y.tensor:
                    return reader, empty  # type: ignore[return-value]
                return None
            if not isinstance(reader, Elementwise) or not _drops_nan(reader.expr):
                return None
            self.between.append(reader)
            y, empty = reader.y, "any"
        return None

    def _source(self, view: View) -> tuple[View, float]:
        """Where the values come from, before they were copied and scaled."""
        scale = 1.0
        while view.tensor.kind == "temporary":
            makers = self.uses.makers.get(view.tensor, [])
            if len(makers) != 1 or not isinstance(makers[0], Elementwise) or not makers[0].y.is_whole:
                break
            found = _scaled(makers[0].expr)
            if found is None or not self._settled([found[0]], makers[0]):
                break
            before = _through(view, makers[0].y, found[0])
            if before is None:
                break
            view, scale = before, scale * found[1]
        return view, scale

    def _settled(self, views: Sequence[View | None], before: Step) -> bool:
        """True where all of these are made before that step, and stay."""
        position = self.steps.index(before)
        return all(
            self.steps.index(maker) < position
            for view in views
            if view is not None and view.tensor.kind == "temporary"
            for maker in self.uses.makers.get(view.tensor, [])
        )


def _wide(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)


def squeezed(view: View) -> View:
    """The view without batch dimensions of size one."""
    kept = [d for d in range(view.rank) if view.shape[d] != 1 or d >= view.rank - 2]
    return View(view.tensor, tuple(view.shape[d] for d in kept), tuple(view.strides[d] for d in kept), view.offset)


def with_views(expr: Expr, change: Callable[[View], View]) -> Expr:
    """The expression with all its views changed."""
    return substitute(expr, {id(e): replace(e, view=change(e.view)) for e in loads(expr) if e.view is not None})


def _alike(view: View, y: View) -> bool:
    """True where both walk one whole row-major tensor."""
    return view.size == y.size and view.is_whole and view.is_contiguous() and y.is_whole and y.is_contiguous()


def _drops_nan(expr: Expr) -> bool:
    """``isnan(p) ? 0 : p``."""
    if expr.op != "select_ne" or expr.args[0].op != "isnan":
        return False
    test, zero, instead, p = expr.args
    numbers = all(e.op == "const" and e.value == 0 for e in (zero, instead))
    return numbers and p.op == "load" and test.args[0].op == "load" and len({e.view for e in loads(expr)}) <= 2


def _scaled(expr: Expr) -> tuple[View, float] | None:
    """A float32 view times a number."""
    if expr.op == "mul" and expr.args[1].op == "const":
        inner, factor = expr.args[0], expr.args[1].value
    elif expr.op == "mul" and expr.args[0].op == "const":
        inner, factor = expr.args[1], expr.args[0].value
    else:
        inner, factor = expr, 1.0
    return (inner.view, factor) if inner.op == "load" and inner.view is not None and inner.dtype == "float32" else None


def _through(view: View, copied: View, source: View) -> View | None:
    """``view`` of a copy as a view of what was copied."""
    if source.dtype != "float32":
        return None
    once = [1 if s == 0 else n for n, s in zip(view.shape, view.strides, strict=True)]
    found = relocated(replace(view, shape=tuple(once)), copied, source)
    if found is None:
        return None
    strides = tuple(s if n != 1 else 0 for n, s in zip(once, found.strides, strict=True))
    return View(found.tensor, view.shape, strides, found.offset)


def scores(expr: Expr) -> Scores | None:
    """An expression over ``ACC`` and views (batch…, M, N) in the form ``Attend`` takes; None where there is none."""
    steps: list[Step] = []
    expr, scale = _factor(expr)
    swap: dict[int, Expr] = {}
    for test in _tests(expr):
        mask = _mask(test, steps)
        if mask is None:
            return None
        swap[id(test)] = call("ne", load(mask), const(0.0), dtype="bool")
    vector = vectorised(substitute(expr, swap))
    if vector is None or not is_vector(vector):
        return None
    return Scores(with_views(vector, lambda view: _laid(view, steps)), scale, tuple(steps))


def _parents(expr: Expr) -> Iterator[Expr]:
    """Every node, once."""
    seen: set[int] = set()

    def walk(e: Expr) -> Iterator[Expr]:
        if id(e) not in seen:
            seen.add(id(e))
            yield e
            for a in e.args:
                yield from walk(a)

    yield from walk(expr)


def _factor(expr: Expr) -> tuple[Expr, float]:
    """A number that the product alone is multiplied by, taken out."""
    parents = [e for e in _parents(expr) if any(a.op == "acc" for a in e.args)]
    if len(parents) != 1 or parents[0].op not in ("mul", "div") or parents[0].args[0].op != "acc":
        return expr, 1.0
    other = parents[0].args[1]
    if other.op != "const" or not other.value or not np.isfinite(other.value):
        return expr, 1.0
    return substitute(expr, {id(parents[0]): ACC}), other.value if parents[0].op == "mul" else 1.0 / other.value


def _tests(expr: Expr) -> Iterator[Expr]:
    """Conditions that know nothing of the product and are no comparison of float32 values."""
    for e in _parents(expr):
        if e.op == "where" and vectorised(e.args[0]) is None:
            yield e.args[0]


def _mask(test: Expr, steps: list[Step]) -> View | None:
    """A condition as numbers, 1 or 0, over the dimensions that it runs along."""
    views = [e.view for e in loads(test) if e.view is not None]
    if not views or any(e.op == "acc" for e in _parents(test)):
        return None
    if test.op == "load" and views[0].tensor.data is not None:
        return _constant(_values(views[0]).astype(bool).astype(np.float32), views[0])
    expr = call("where", test, const(1.0), const(0.0))
    if not is_scalar(expr):
        return None
    return _made(expr, views, steps)


def _made(expr: Expr, views: Sequence[View], steps: list[Step]) -> View:
    """The expression in a tensor of its own, as long as its views run and dense along the queries."""
    shape = [n if any(v.strides[d] for v in views) else 1 for d, n in enumerate(views[0].shape)]
    y = _fresh(shape)
    steps.append(Elementwise(y, with_views(expr, lambda v: replace(v, shape=tuple(shape)))))
    return y.broadcast(views[0].shape)


def _fresh(shape: Sequence[int]) -> View:
    """A new tensor (batch…, M, N) that is dense along M."""
    swapped = (*shape[:-2], shape[-1], shape[-2])
    order = (*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)
    return View.whole(Tensor("mask", int(np.prod(shape))), swapped).transpose(order)


def _values(view: View) -> np.ndarray:
    """What a view of a constant holds, repeated dimensions once."""
    assert view.tensor.data is not None
    data = np.ascontiguousarray(view.tensor.data).reshape(-1)[view.offset :]
    shape = tuple(n if s else 1 for n, s in zip(view.shape, view.strides, strict=True))
    return np.lib.stride_tricks.as_strided(data, shape, [s * data.itemsize for s in view.strides]).copy()


def _constant(values: np.ndarray, like: View) -> View:
    """A constant, dense along the queries."""
    turned = np.ascontiguousarray(np.swapaxes(values, -1, -2))
    tensor = Tensor("mask", turned.size, turned.dtype.name, "constant", data=turned)
    order = (*range(turned.ndim - 2), turned.ndim - 1, turned.ndim - 2)
    return View.whole(tensor, turned.shape).transpose(order).broadcast(like.shape)


def _laid(view: View, steps: list[Step]) -> View:
    """The view, or a copy: the same for all queries, or dense along them."""
    if view.strides[-2] in (0, 1):
        return view
    if view.tensor.data is not None:
        return _constant(_values(view), view)
    return _made(load(view), [view], steps)
