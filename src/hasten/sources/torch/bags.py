"""ONNX nodes for torch's sums, means and maxima over bags of embeddings, of which its exporter makes a loop."""

from __future__ import annotations

from typing import Any

__all__ = ["embedding_bag"]

_SUM, _MEAN = 0, 1


def embedding_bag(
    weight: Any,
    indices: Any,
    offsets: Any,
    scale_grad_by_freq: bool = False,
    mode: int = _SUM,
    sparse: bool = False,
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: int | None = -1,
) -> tuple[Any, Any, Any, Any]:
    """One row for each bag, zeros for an empty one: bag k holds the indices from offset k up to the next one.

    Shapes:  weight (W, D); indices, per_sample_weights (N,); offsets (B,), or (B + 1,) with the last; returns (B, D),
             and three that only gradients need: anything
    """
    from onnxscript import opset18 as op  # noqa: PLC0415 - only while exporting

    unused = [op.Identity(offsets) for _ in range(3)]
    length = None if include_last_offset else _length(offsets)
    if length is not None:
        indices = op.Reshape(indices, op.Concat(op.Constant(value_ints=[-1]), op.Reshape(length, [1]), axis=0))
    rows = op.Gather(weight, indices)
    if per_sample_weights is not None:
        rows = op.Mul(rows, op.Unsqueeze(op.Reshape(per_sample_weights, op.Shape(indices)), [-1]))
    full = None
    if padding_idx is not None and padding_idx >= 0:
        full = op.Not(op.Equal(indices, op.Constant(value_ints=[padding_idx])))
    if length is not None:
        return _of_rows(rows, full, mode), *unused
    within = _within(indices, offsets, last=include_last_offset)
    within = within if full is None else op.And(within, full)
    return _of_bags(rows, within, mode), *unused


def _length(offsets: Any) -> Any:
    """How long every bag is where the rows of a matrix are the bags: torch then counts their offsets itself."""
    made = offsets.producer()
    return made.inputs[2] if made is not None and made.op_type == "Range" else None


def _within(indices: Any, offsets: Any, *, last: bool) -> Any:
    """Which index is in which bag.

    Shapes:  returns (B, N)
    """
    from onnxscript import opset18 as op  # noqa: PLC0415 - only while exporting

    count = op.Shape(indices)
    places = op.Range(op.Constant(value_int=0), op.Squeeze(count), op.Constant(value_int=1))
    starts = op.Slice(offsets, [0], [-1], [0]) if last else offsets
    ends = op.Concat(op.Slice(starts, [1], [2**31], [0]), count, axis=0)
    after = op.GreaterOrEqual(places, op.Unsqueeze(starts, [1]))
    return op.And(after, op.Less(places, op.Unsqueeze(ends, [1])))


def _of_bags(rows: Any, within: Any, mode: int) -> Any:
    """Shapes:  rows (N, D); within (B, N); returns (B, D)."""
    from onnxscript import opset18 as op  # noqa: PLC0415 - only while exporting

    if mode not in (_SUM, _MEAN):
        return _largest(op.Unsqueeze(rows, [0]), within)
    total = op.MatMul(op.CastLike(within, rows), rows)
    return total if mode == _SUM else _shared(total, within)


def _of_rows(rows: Any, full: Any, mode: int) -> Any:
    """Shapes:  rows (B, L, D); full (B, L), none for all; returns (B, D)."""
    from onnxscript import opset18 as op  # noqa: PLC0415 - only while exporting

    if full is None:
        reduce = {_SUM: op.ReduceSum, _MEAN: op.ReduceMean}.get(mode, op.ReduceMax)
        return reduce(rows, [1], keepdims=0)
    if mode not in (_SUM, _MEAN):
        return _largest(rows, full)
    total = op.ReduceSum(op.Mul(rows, op.Unsqueeze(op.CastLike(full, rows), [2])), [1], keepdims=0)
    return total if mode == _SUM else _shared(total, full)


def _shared(total: Any, held: Any) -> Any:
    from onnxscript import opset18 as op  # noqa: PLC0415 - only while exporting

    count = op.ReduceSum(op.CastLike(held, total), [1], keepdims=1)
    return op.Div(total, op.Max(count, op.CastLike(op.Constant(value_float=1.0), total)))


def _largest(rows: Any, held: Any) -> Any:
    from onnxscript import opset18 as op  # noqa: PLC0415 - only while exporting

    kept = op.Where(op.Unsqueeze(held, [2]), rows, op.CastLike(op.Constant(value_float=float("-inf")), rows))
    some = op.Cast(op.ReduceMax(op.Cast(held, to=6), [1], keepdims=1), to=9)
    return op.Where(some, op.ReduceMax(kept, [1], keepdims=0), op.CastLike(op.Constant(value_float=0.0), rows))
