"""ONNX nodes for torch's distances and medians, which its exporter lacks."""

from __future__ import annotations

from typing import Any

from hasten.errors import SourceError

__all__ = ["cdist", "median"]


def cdist(x1: Any, x2: Any, p: float, compute_mode: int | None) -> Any:
    """The distance of each row of ``x1`` from each of ``x2``.

    Shapes:  x1 (…, P, M); x2 (…, R, M); returns (…, P, R)
    Raises:  SourceError: of an order other than 1, 2 and infinity
    """
    from onnxscript import opset18 as op  # noqa: PLC0415 - only while exporting

    gap = op.Sub(op.Unsqueeze(x1, [-2]), op.Unsqueeze(x2, [-3]))
    if p == 1:
        return op.ReduceL1(gap, [-1], keepdims=0)
    if p == 2:
        return op.ReduceL2(gap, [-1], keepdims=0)
    if p == float("inf"):
        return op.ReduceMax(op.Abs(gap), [-1], keepdims=0)
    raise SourceError(f"torch.cdist of order {p} has no ONNX form: expected 1, 2 or inf")


def median(self: Any, dim: int, keepdim: bool = False) -> tuple[Any, Any]:
    """The lower median along one axis, and where it stands."""
    from onnxscript import opset18 as op  # noqa: PLC0415 - only while exporting

    count = op.Div(op.Add(op.Slice(op.Shape(self), [dim], [dim + 1 or 2**31]), [1]), [2])
    values, places = op.TopK(self, count, axis=dim, largest=0, sorted=1)
    # The last of the smaller half is the median.
    last = [op.Slice(found, [-1], [2**31], [dim]) for found in (values, places)]
    if keepdim:
        return last[0], last[1]
    return op.Squeeze(last[0], [dim]), op.Squeeze(last[1], [dim])
