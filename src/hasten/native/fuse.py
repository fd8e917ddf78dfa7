"""Folds element-wise steps into the step before them: into another element-wise loop, or as the epilogue of a kernel.

A value that has one reader never needs to reach memory. What is folded runs in the reader's place, since by then all its
other operands are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hasten.native.epilogue import fits
from hasten.native.expr import Expr, is_vector, load, loads, substitute
from hasten.native.kernels.elementwise import Elementwise
from hasten.native.kernels.typed import is_scalar, vectorised
from hasten.native.program import Program, Step, Tensor, View

__all__ = ["fuse"]


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


def _fold_all(steps: list[Step]) -> None:
    changed = True
    while changed:
        changed = False
        for position, step in enumerate(steps):
            if isinstance(step, Elementwise) and (found := _fold(steps, step, position)) is not None:
                producer, merged = found
                steps[position] = merged
                steps.remove(producer)
                changed = True
                break


def _fold(steps: list[Step], step: Elementwise, position: int) -> tuple[Step, Step] | None:
    if step.expr.op == "load" and (found := _write_through(steps, step, position)) is not None:
        return found
    for tensor in dict.fromkeys(e.view.tensor for e in loads(step.expr) if e.view is not None):
        leaves = [e for e in loads(step.expr) if e.view is not None and e.view.tensor is tensor]
        if tensor.kind != "temporary" or not all(_same_place(e.view, step.y) for e in leaves if e.view is not None):
            continue
        users = [s for s in steps if any(v.tensor is tensor for v in s.reads())]
        makers = [s for s in steps if any(v.tensor is tensor for v in s.writes())]
        if len(users) != 1 or len(makers) != 1:
            continue
        merged = _merge(makers[0], step, leaves)
        # What the maker reads must still be there at the reader's place: nothing in between may write it.
        if merged is not None and not _overwritten(steps, steps.index(makers[0]), position, makers[0]):
            merged.nodes = (*makers[0].nodes, *step.nodes)
            return makers[0], merged
    return None


def _write_through(steps: list[Step], copy: Elementwise, position: int) -> tuple[Step, Step] | None:
    """A copy of all that an element-wise step made, to wherever: that step can write there itself."""
    source = copy.expr.view
    assert source is not None
    tensor = source.tensor
    users = [s for s in steps if any(v.tensor is tensor for v in s.reads())]
    makers = [s for s in steps if any(v.tensor is tensor for v in s.writes())]
    if tensor.kind != "temporary" or users != [copy] or len(makers) != 1 or not source.is_whole:
        return None
    maker = makers[0]
    if not isinstance(maker, Elementwise) or not maker.y.is_whole:
        return None
    target = _like(copy.y, source, maker.y)
    if target is None or _overwritten(steps, steps.index(maker), position, maker):
        return None
    return maker, replace(maker, y=target, nodes=(*maker.nodes, *copy.nodes))


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
    swap: dict[int, Expr] = {id(leaf): maker.epilogue for leaf in leaves}
    for other in loads(step.expr):
        if id(other) in swap:
            continue
        assert other.view is not None
        moved = _like(other.view, step.y, y)
        if moved is None or fits(moved, y) is None:
            return None
        swap[id(other)] = load(moved)
    whole = substitute(step.expr, swap)
    if not is_vector(whole):
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
        swap[id(other)] = load(moved)
    whole = substitute(maker.expr, swap)
    expr = substitute(step.expr, {id(leaf): whole for leaf in leaves})
    return replace(step, expr=expr) if is_vector(expr) or is_scalar(expr) else None


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
