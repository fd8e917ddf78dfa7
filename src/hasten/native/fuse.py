"""Folds element-wise steps into the step before them: into another element-wise loop, or as the epilogue of a kernel.

A value that has one reader never needs to reach memory. What is folded runs in the reader's place, since by then all
its other operands are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

from hasten.native.epilogue import fits
from hasten.native.expr import Expr, call, depth, is_vector, loads, substitute, unshared
from hasten.native.kernels.elementwise import Elementwise
from hasten.native.kernels.typed import is_scalar, vectorised
from hasten.native.program import Program, Step, Tensor, View

__all__ = ["Uses", "fuse", "relocated"]

_DEEPEST = 100  # operations one within another: all that walks an expression recurses as deep
_LARGEST = 10_000  # a chain of x + sin(x) doubles with each: fifty of them in one expression would be named for years


def fuse(program: Program) -> Program:
    """The program with every element-wise step folded that can be."""
    steps = list(program.steps)
    _fold_all(steps)
    if _vectorise(steps):
        _fold_all(steps)
    return replace(program, steps=steps)


def _vectorise(steps: list[Step]) -> bool:
    """Comparisons that only choose between float32 values become selections of vectors."""
    changed = False
    for step in steps:
        if isinstance(step, Elementwise) and step.y.dtype == "float32" and not is_vector(step.expr):
            found = vectorised(step.expr)
            if found is not None:
                step.expr, changed = found, True
    return changed


class Uses:
    """Who reads and who makes each tensor, kept up to date while steps are folded."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.readers: dict[Tensor, list[Step]] = {}
        self.makers: dict[Tensor, list[Step]] = {}
        for step in steps:
            self._add(step)

    def _add(self, step: Step) -> None:
        for table, views in ((self.readers, step.reads()), (self.makers, step.writes())):
            for tensor in dict.fromkeys(v.tensor for v in views):
                table.setdefault(tensor, []).append(step)

    def drop(self, step: Step) -> None:
        """The step is gone."""
        for table, views in ((self.readers, step.reads()), (self.makers, step.writes())):
            for tensor in dict.fromkeys(v.tensor for v in views):
                table[tensor].remove(step)

    def swap(self, old: Step, new: Step) -> None:
        """One step stands for another."""
        self.drop(old)
        self._add(new)


def _fold_all(steps: list[Step]) -> None:
    uses, changed = Uses(steps), True
    while changed:
        changed, position = False, 0
        while position < len(steps):
            step = steps[position]
            if isinstance(step, Elementwise):
                if step.expr.op == "load" and _write_through(steps, step, uses):
                    changed = True
                    continue
                found = _fold(steps, step, position, uses)
                if found is not None:
                    producer, merged = found
                    uses.drop(producer)
                    uses.swap(step, merged)
                    steps[position] = merged
                    steps.remove(producer)
                    changed, position = True, steps.index(merged)
                    continue
            position += 1


def _fold(steps: list[Step], step: Elementwise, position: int, uses: Uses) -> tuple[Step, Step] | None:
    for tensor in dict.fromkeys(e.view.tensor for e in loads(step.expr) if e.view is not None):
        leaves = [e for e in loads(step.expr) if e.view is not None and e.view.tensor is tensor]
        if tensor.kind != "temporary" or not all(_same_place(e.view, step.y) for e in leaves if e.view is not None):
            continue
        users, makers = uses.readers.get(tensor, []), uses.makers.get(tensor, [])
        if len(users) != 1 or len(makers) != 1:
            continue
        merged = _merge(makers[0], step, leaves)
        # What the maker reads must still be there at the reader's place: nothing in between may write it.
        if merged is not None and not _overwritten(steps, steps.index(makers[0]), position, makers[0]):
            merged.nodes = (*makers[0].nodes, *step.nodes)
            return makers[0], merged
    return None


def _write_through(steps: list[Step], copy: Elementwise, uses: Uses) -> bool:
    """A copy of all of a tensor, to wherever: those who made it can write there themselves, and others read it there.

    Others must then find it as it was, only elsewhere: with the same strides.
    """
    source = copy.expr.view
    assert source is not None
    tensor = source.tensor
    makers, readers = list(uses.makers.get(tensor, [])), list(uses.readers.get(tensor, []))
    if tensor.kind != "temporary" or not makers or not source.is_whole:
        return False
    others = [(s, _reread(s, tensor, source, copy.y)) for s in readers if s is not copy]
    if any(found is None for _, found in others) or any(r in makers for r in readers):
        return False
    moved: list[tuple[Step, dict[str, View]]] = []
    for maker in makers:
        places: dict[str, View] = {}
        for name in maker.WRITES:
            view = getattr(maker, name)
            if not isinstance(view, View) or view.tensor is not tensor:
                continue
            place = relocated(view, source, copy.y)
            if place is None or not maker.accepts(name, place):
                return False
            places[name] = place
        if sum(v.tensor is tensor for v in maker.writes()) != len(places):
            return False
        moved.append((maker, places))
    swaps = [(m, replace(m, nodes=_joined(m, copy), **places)) for m, places in moved]
    for old, new in (*swaps, *((s, found) for s, found in others if found is not None)):
        steps[steps.index(old)] = new
        uses.swap(old, new)
    steps.remove(copy)
    uses.drop(copy)
    return True


def _reread(step: Step, tensor: Tensor, source: View, target: View) -> Step | None:
    """The step, reading in ``target`` what it read in ``tensor``; None where that lies in another order there."""

    def move(view: View) -> View:
        place = relocated(view, source, target)
        same = place is not None and all(
            a == b or n == 1 for n, a, b in zip(view.shape, view.strides, place.strides, strict=True)
        )
        return place if place is not None and same else view

    changed: dict[str, object] = {}
    for field in fields(step):
        value = getattr(step, field.name)
        if isinstance(value, View) and value.tensor is tensor:
            changed[field.name] = move(value)
        elif isinstance(value, Expr):
            swap = {
                id(e): replace(e, view=move(e.view))
                for e in loads(value)
                if e.view is not None and e.view.tensor is tensor
            }
            changed[field.name] = substitute(value, swap)
    made = replace(step, **changed)  # type: ignore[arg-type]
    return None if any(v.tensor is tensor for v in made.reads()) else made


def _joined(first: Step, second: Step) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first.nodes, *second.nodes)))


def relocated(view: View, source: View, target: View) -> View | None:
    """Where a part of source's tensor lies in ``target``, of which ``source``, the whole tensor, is copied."""
    dims = [(n, s, t) for n, s, t in zip(source.shape, source.strides, target.strides, strict=True) if n != 1]
    merged: list[tuple[int, int, int]] = []
    for n, s, t in sorted(dims, key=lambda d: -d[1]):
        if merged and merged[-1][1] == n * s and merged[-1][2] == n * t:
            merged[-1] = (merged[-1][0] * n, s, t)
        else:
            merged.append((n, s, t))
    offset, rest = target.offset, view.offset
    room: list[int] = []
    for n, s, t in merged:
        offset, rest, room = offset + rest // s * t, rest % s, [*room, n - 1 - rest // s]
    strides = []
    for n, stride in zip(view.shape, view.strides, strict=True):
        found = 0
        if n > 1:
            for d, (_, s, t) in enumerate(merged):
                if stride and stride % s == 0 and stride // s * (n - 1) <= room[d]:
                    room[d] -= stride // s * (n - 1)
                    found = stride // s * t
                    break
            else:
                return None
        strides.append(found)
    return View(target.tensor, view.shape, tuple(strides), offset)


def _same_place(view: View, y: View) -> bool:
    """True when reading ``view`` and writing ``y`` walk memory in the same order, both dense and whole."""
    if not (view.is_whole and y.is_whole and view.size == y.size):
        return False
    return all(a == b or n == 1 for a, b, n in zip(view.strides, y.strides, view.shape, strict=True))


def _overwritten(steps: list[Step], start: int, end: int, maker: Step) -> bool:
    read = {id(v.tensor) for v in maker.reads()}
    return any(id(v.tensor) in read for s in steps[start + 1 : end] for v in s.writes())


def _merge(maker: Step, step: Elementwise, leaves: Sequence[Expr]) -> Step | None:
    if isinstance(maker, Elementwise):
        return _merge_loops(maker, step, leaves)
    y = getattr(maker, "y", None)
    if not hasattr(maker, "epilogue") or not isinstance(y, View) or not y.is_whole or y.dtype != "float32":
        return None
    if step.y.dtype != "float32" and not maker.STORES_BYTES:
        return None
    swap: dict[int, Expr] = {id(leaf): maker.epilogue for leaf in leaves}
    for other in loads(step.expr):
        if id(other) in swap:
            continue
        assert other.view is not None
        moved = _like(other.view, step.y, y)
        if moved is None or fits(moved, y) is None:
            return None
        swap[id(other)] = replace(other, view=moved)
    whole = substitute(step.expr, swap)
    if _too_large(whole) or not is_vector(whole):
        return None
    return replace(maker, y=_retarget(y, step.y.tensor), epilogue=whole)  # type: ignore[call-arg]


def _merge_loops(maker: Elementwise, step: Elementwise, leaves: Sequence[Expr]) -> Step | None:
    if not maker.y.is_whole:
        return None
    swap: dict[int, Expr] = {}
    for other in loads(maker.expr):
        assert other.view is not None
        moved = _like(other.view, maker.y, step.y)
        if moved is None:
            return None
        swap[id(other)] = replace(other, view=moved)
    whole = substitute(maker.expr, swap)
    expr = substitute(step.expr, {id(leaf): _read_as(leaf.dtype, whole) for leaf in leaves})
    if _too_large(expr):
        return None
    return replace(step, expr=expr) if is_vector(expr) or is_scalar(expr) else None


def _too_large(expr: Expr) -> bool:
    return depth(expr) > _DEEPEST or unshared(expr) > _LARGEST


def _read_as(dtype: str, expr: Expr) -> Expr:
    """The expression as those have it who load its result; bytes may be widened on the way."""
    if expr.dtype == dtype:
        return expr
    return replace(expr, dtype=dtype) if expr.op == "load" else call("cast", expr, dtype=dtype)


def _retarget(view: View, tensor: Tensor) -> View:
    return replace(view, tensor=tensor)


def _like(view: View, old: View, new: View) -> View | None:
    """``view``, given for positions of ``old``, for the same memory positions of ``new`` (both dense and whole)."""
    if old.shape == new.shape and old.strides == new.strides:
        return view
    old_order, new_order = old.order, new.order
    if old_order is None or new_order is None:
        return None
    flat = view.transpose(old_order).reshape([new.shape[d] for d in new_order])
    if flat is None:
        return None
    inverse = sorted(range(new.rank), key=lambda i: new_order[i])
    return flat.transpose(inverse)
