"""Rows over the compiled batch sizes: split, run, joined again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hasten.errors import InputError
from hasten.runtime.lanes import Lane, split
from hasten.types import Array, TensorSpec

__all__ = ["Layout", "layout"]


@dataclass(frozen=True)
class Layout:
    """Where a model's rows lie.

    Shapes:  inputs: as the source had them, but with dimension 0 free wherever it counts rows; outputs: likewise;
             appended: True for an output without such a dimension, of a model that sees one row a call
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    appended: tuple[bool, ...]
    splits: bool
    """False for a model of one fixed size whose dimension 0 cannot be taken for rows."""
    mix: bool = False
    """True where the answer to a row depends on those beside it: one at a time they would be answered otherwise."""

    def run(self, lanes: Sequence[Lane], arrays: Sequence[Array], rows: int) -> tuple[Array, ...]:
        """The outputs for all rows.

        Raises:  InputError: the rows had to be split, and they mix, or an output does not say which row it belongs to
        """
        sizes = {lane.batch: lane for lane in lanes if lane.usable()}
        plan = split(rows, [(size, lane.cost) for size, lane in sizes.items()])
        if plan == [rows] and not any(self.appended):
            return _tuple(sizes[rows].runner.call(*arrays))
        if self.mix and len(plan) > 1:
            raise InputError(
                f"cannot split {rows} rows: in this model the answer to a row depends on those beside it; expected "
                f"{' or '.join(map(str, sorted(sizes)))}, or optimise with a sample of {rows} rows"
            )
        self._must_join(rows, sorted(sizes))
        results = tuple(np.empty(spec.fixed({"batch": rows}).static_shape, spec.dtype) for spec in self.outputs)
        start = 0
        for size in sorted(set(plan), reverse=True):
            stop = min(rows, start + size * plan.count(size))
            self._fill(sizes[size], results, arrays, (start, stop))
            start = stop
        return results

    def _fill(self, lane: Lane, results: Sequence[Array], arrays: Sequence[Array], span: tuple[int, int]) -> None:
        """Rows ``span`` of ``results``, in calls of the lane's one size."""
        (start, end), size, call = span, lane.batch, lane.runner.call
        batched = [spec.is_batched for spec in self.inputs]
        loop = getattr(lane.runner.session, "rows", None)
        if loop is not None and lane.runner.session.thread_safe and all(batched) and not any(self.appended):
            whole = (end - start) // size
            stop = start + whole * size
            loop(tuple(a[start:stop] for a in arrays), tuple(r[start:stop] for r in results), whole)
            start = stop
        for at in range(start, end, size):
            stop = min(at + size, end)
            part = [a[at:stop] if cut else a for a, cut in zip(arrays, batched, strict=True)]
            if stop - at < size:
                part = [_padded(a, size) if cut else a for a, cut in zip(part, batched, strict=True)]
            for result, found, alone in zip(results, _tuple(call(*part)), self.appended, strict=True):
                result[at:stop] = found if alone else found[: stop - at]

    def _must_join(self, rows: int, sizes: list[int]) -> None:
        for spec in self.outputs:
            if not spec.is_batched or not all(isinstance(d, int) for d in spec.shape[1:]):
                raise InputError(
                    f"cannot split {rows} rows: output '{spec.name}' {list(spec.shape)} does not hold one result per "
                    f"row; expected a batch of {' or '.join(map(str, sizes))}, or optimise with --batch {rows}"
                )


def layout(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], mix: bool = False) -> Layout:
    """Where rows lie, from the source's own specs: in the free batch, or in dimensions 0 that are all 1."""
    if any(spec.is_batched for spec in inputs):
        return Layout(tuple(inputs), tuple(outputs), (False,) * len(outputs), splits=True)
    if inputs and all(spec.shape[:1] == (1,) for spec in inputs):
        appended = tuple(spec.shape[:1] != (1,) for spec in outputs)
        by_row = tuple(_free(spec, 0 if alone else 1) for spec, alone in zip(outputs, appended, strict=True))
        return Layout(tuple(_free(spec, 1) for spec in inputs), by_row, appended, splits=True, mix=mix)
    return Layout(tuple(inputs), tuple(outputs), (False,) * len(outputs), splits=False)


def _free(spec: TensorSpec, dropped: int) -> TensorSpec:
    return replace(spec, shape=("batch", *spec.shape[dropped:]))


def _padded(rows: Array, size: int) -> Array:
    """Filled up with copies of the last row, whose values the model is known to accept."""
    return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])


def _tuple(found: Array | tuple[Array, ...]) -> tuple[Array, ...]:
    return found if isinstance(found, tuple) else (found,)
