"""``keras.ops`` over whole axes: sums, means, extremes, norms, positions, running sums, sorting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hasten.sources.keras.build import Tensor, Unsupported
from hasten.sources.keras.scope import Call, Converter, Scope

__all__ = ["OPERATIONS", "axes_of", "moments"]


def axes_of(x: Tensor, axis: Any) -> list[int]:
    """The axes that a Keras ``axis`` argument means, counted from the front."""
    if axis is None:
        return list(range(x.rank))
    return [int(a) % x.rank for a in (axis if isinstance(axis, (list, tuple)) else (axis,))]


def moments(g: Scope, x: Tensor, axes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Mean and variance over ``axes``, dimensions kept."""
    mean = g.reduce("ReduceMean", x, axes, keepdims=True)
    gap = g.sub(x, mean)
    return mean, g.reduce("ReduceMean", g.mul(gap, gap), axes, keepdims=True)


def _reduce(kind: str) -> Converter:
    def convert(g: Scope, call: Call) -> Tensor:
        x = g.tensor(call.first, call.dtype)
        wide = g.cast(x, "int32") if x.dtype == "bool" else x
        found = g.reduce(kind, wide, axes_of(x, call.setting("axis")), keepdims=bool(call.setting("keepdims")))
        return g.cast(found, call.dtype)

    return convert


def _spread(*, root: bool) -> Converter:
    def convert(g: Scope, call: Call) -> Tensor:
        x = g.tensor(call.first, call.dtype)
        axes = axes_of(x, call.setting("axis"))
        found = moments(g, x, axes)[1]
        found = g.unary("Sqrt", found) if root else found
        return found if call.setting("keepdims") else g.squeeze(found, axes)

    return convert


def _truth(kind: str) -> Converter:
    def convert(g: Scope, call: Call) -> Tensor:
        x = g.cast(g.tensor(call.first, "bool"), "int32")
        found = g.reduce(kind, x, axes_of(x, call.setting("axis")), keepdims=bool(call.setting("keepdims")))
        return g.cast(found, "bool")

    return convert


def _position(kind: str) -> Converter:
    def convert(g: Scope, call: Call) -> Tensor:
        x = g.tensor(call.first)
        x = g.cast(x, "int32") if x.dtype == "bool" else x
        axis, keep = call.setting("axis"), bool(call.setting("keepdims"))
        if axis is None:
            raise Unsupported("the position in the whole batch")
        axis = int(axis) % x.rank
        shape = tuple(1 if i == axis else d for i, d in enumerate(x.shape) if keep or i != axis)
        found = g.op(kind, [x], shape, dtype="int64", attributes={"axis": axis, "keepdims": int(keep)})
        return g.cast(found, call.dtype)

    return convert


def _logsumexp(g: Scope, call: Call) -> Tensor:
    x = g.tensor(call.first, call.dtype)
    return g.reduce("ReduceLogSumExp", x, axes_of(x, call.setting("axis")), keepdims=bool(call.setting("keepdims")))


def _cumsum(g: Scope, call: Call) -> Tensor:
    x = g.tensor(call.first, call.dtype)
    axis = call.setting("axis")
    if axis is None:
        raise Unsupported("a running sum over the whole batch")
    return g.op("CumSum", [x, g.constant(np.int64(axis % x.rank))], x.shape)


def _top_k(g: Scope, call: Call) -> tuple[Tensor, Tensor]:
    x = g.tensor(call.first)
    return top_k(g, x, int(call.setting("k")), call.dtypes[1])


def top_k(
    g: Scope, x: Tensor, k: int, index_dtype: str, *, largest: bool = True, axis: int = -1
) -> tuple[Tensor, Tensor]:
    """The ``k`` largest (or smallest) along an axis, in order, and where they stand."""
    attributes = {"axis": axis, "largest": int(largest), "sorted": 1}
    count = g.constant(np.array([k], np.int64))
    values = g.nodes_of("TopK", [x, count], 2, attributes)
    shape = tuple(k if i == axis % x.rank else d for i, d in enumerate(x.shape))
    return Tensor(values[0], shape, x.dtype), g.cast(Tensor(values[1], shape, "int64"), index_dtype)


def _sorted(which: int) -> Converter:
    def convert(g: Scope, call: Call) -> Tensor:
        x = g.tensor(call.first)
        axis = call.setting("axis")
        if axis is None:
            raise Unsupported("sorting the whole batch")
        return top_k(g, x, x.size(axis), call.dtype if which else "int64", largest=False, axis=axis)[which]

    return convert


def _median(g: Scope, call: Call) -> Tensor:
    x = g.tensor(call.first, call.dtype)
    axes = axes_of(x, call.setting("axis"))
    if len(axes) != 1:
        raise Unsupported("a median over several axes")
    axis = axes[0]
    size = x.size(axis)
    middle = g.slice(top_k(g, x, size, "int64", largest=False, axis=axis)[0], axis, (size - 1) // 2, size // 2 + 1)
    return g.reduce("ReduceMean", middle, axes, keepdims=bool(call.setting("keepdims")))


def _differences(g: Scope, call: Call) -> Tensor:
    x: Tensor = g.tensor(call.first)
    if x.dtype == "bool":
        raise Unsupported("differences of truths")
    axis = axes_of(x, call.setting("axis"))[0]
    for _ in range(int(call.setting("n"))):
        x = g.sub(g.slice(x, axis, 1, x.size(axis)), g.slice(x, axis, 0, x.size(axis) - 1))
    return x


def _nonzero_count(g: Scope, call: Call) -> Tensor:
    x = g.cast(g.tensor(call.first), "bool")
    return g.cast(g.reduce("ReduceSum", g.cast(x, "int32"), axes_of(x, call.setting("axis"))), call.dtype)


def _norm(g: Scope, call: Call) -> Tensor:
    x = g.tensor(call.first, call.dtype)
    order, axis, keep = call.setting("ord"), call.setting("axis"), bool(call.setting("keepdims"))
    axes = axes_of(x, axis)
    if len(axes) > 1 and order not in (None, "fro"):
        raise Unsupported(f"a matrix norm of order {order}")
    kinds = {None: "ReduceL2", 2: "ReduceL2", "fro": "ReduceL2", 1: "ReduceL1"}
    if order in kinds:
        return g.reduce(kinds[order], x, axes, keepdims=keep)
    extremes = {np.inf: "ReduceMax", -np.inf: "ReduceMin"}
    if order in extremes:
        return g.reduce(extremes[order], g.unary("Abs", x), axes, keepdims=keep)
    raise Unsupported(f"a norm of order {order}")


def _moments(g: Scope, call: Call) -> tuple[Tensor, Tensor]:
    x = g.tensor(call.first, call.dtype)
    axes = axes_of(x, call.setting("axes"))
    mean, variance = moments(g, x, axes)
    return (mean, variance) if call.setting("keepdims") else (g.squeeze(mean, axes), g.squeeze(variance, axes))


def _average(g: Scope, call: Call) -> Tensor:
    x = g.tensor(call.first, call.dtype)
    axes = axes_of(x, call.setting("axis"))
    if call["weights"] is None:
        return g.reduce("ReduceMean", x, axes)
    weights = g.tensor(call["weights"], call.dtype)
    if weights.rank == 1 and len(axes) == 1:
        weights = g.reshape(weights, tuple(weights.size(0) if i == axes[0] else 1 for i in range(x.rank)))
    total = g.reduce("ReduceSum", g.add(weights, g.mul(x, 0.0)), axes)
    return g.div(g.reduce("ReduceSum", g.mul(x, weights), axes), total)


OPERATIONS: dict[str, Converter] = {
    "Sum": _reduce("ReduceSum"),
    "Mean": _reduce("ReduceMean"),
    "Max": _reduce("ReduceMax"),
    "Amax": _reduce("ReduceMax"),
    "Min": _reduce("ReduceMin"),
    "Amin": _reduce("ReduceMin"),
    "Prod": _reduce("ReduceProd"),
    "Var": _spread(root=False),
    "Std": _spread(root=True),
    "Any": _truth("ReduceMax"),
    "All": _truth("ReduceMin"),
    "Argmax": _position("ArgMax"),
    "Argmin": _position("ArgMin"),
    "Logsumexp": _logsumexp,
    "Cumsum": _cumsum,
    "TopK": _top_k,
    "Sort": _sorted(0),
    "Argsort": _sorted(1),
    "Median": _median,
    "Diff": _differences,
    "CountNonzero": _nonzero_count,
    "Norm": _norm,
    "Moments": _moments,
    "Average": _average,
}
