"""Inputs on which users rarely look and rewrites most often go wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hasten.types import Array, TensorSpec

__all__ = ["edge_inputs", "nearby_inputs"]


def edge_inputs(
    specs: Sequence[TensorSpec],
    rng: np.random.Generator,
    index_bounds: Mapping[str, tuple[int, int]] | None = None,
    randoms: int = 4,
) -> dict[str, tuple[Array, ...]]:
    """Named inputs of static shapes on which a wrong rewrite shows: zeros, ones, large, tiny, and random ones.

    Shapes:  specs: static (``TensorSpec.fixed`` sets the batch); index_bounds: input name → lowest and highest value,
             for inputs that index a table or are limited otherwise
    """
    bounds = index_bounds or {}
    found = {
        kind: tuple(_edge(spec, kind, rng, bounds.get(spec.name)) for spec in specs)
        for kind in ("zeros", "ones", "large", "tiny", "negative")
    }
    for k in range(randoms):
        kind = "uniform" if k % 3 == 2 else "random"
        found[f"{kind} {k}"] = tuple(_edge(spec, kind, rng, bounds.get(spec.name)) for spec in specs)
    return found


def nearby_inputs(arrays: Sequence[Array], rng: np.random.Generator, precision: str = "float32") -> tuple[Array, ...]:
    """The arrays with every float one rounding up or down; whole numbers stay, since they may count or index.

    What a model answers to them and to ``arrays`` differs by as much as its answers mean nothing. ``precision``: whose
    rounding, by the names of ``Tolerance.named``; never finer than that of an array's own dtype.
    """
    return tuple(_nearby(np.asarray(array), rng, precision) for array in arrays)


# At most so far does rounding to nearest take a value: as a part of it, or of the largest of its array.
_ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
_ROUNDING_OF_LARGEST = {"int11": 0.5 / 1023, "int8": 0.5 / 127}


def _nearby(array: Array, rng: np.random.Generator, precision: str) -> Array:
    if array.dtype.kind != "f" or array.size == 0:
        return array
    size = np.abs(array.astype(np.float64)) * max(float(np.finfo(array.dtype).eps), _ROUNDING.get(precision, 0.0))
    if precision in _ROUNDING_OF_LARGEST:
        size = np.maximum(size, np.abs(array[np.isfinite(array)]).max(initial=0.0) * _ROUNDING_OF_LARGEST[precision])
    with np.errstate(invalid="ignore"):  # infinities stay as well
        moved = array + size * rng.choice((-1.0, 1.0), array.shape)
    return np.where(array == np.rint(array), array, moved).astype(array.dtype)


# Large drives exp, tanh and softmax into their clamps; larger still would only compare overflow with overflow.
_SIZES = {"zeros": 0.0, "ones": 1.0, "large": 100.0, "tiny": 1e-6, "negative": -1.0, "random": 1.0}


def _edge(spec: TensorSpec, kind: str, rng: np.random.Generator, bounds: tuple[int, int] | None) -> Array:
    shape, dtype = spec.static_shape, _dtype(spec.dtype)
    if dtype.kind == "b":
        fixed = {"zeros": False, "ones": True}
        return np.full(shape, fixed[kind]) if kind in fixed else np.asarray(rng.random(shape) < 0.5)
    if dtype.kind in "iu":
        return _integers(shape, dtype, kind, rng, bounds)
    if kind == "uniform":
        values = rng.random(shape)
    elif kind in ("large", "tiny", "random"):
        values = rng.standard_normal(shape) * _SIZES[kind]
    else:
        values = np.full(shape, _SIZES[kind])
    if bounds is not None:
        values = np.clip(values, *bounds)
    return np.asarray(values).astype(dtype)


def _integers(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    kind: str,
    rng: np.random.Generator,
    bounds: tuple[int, int] | None,
) -> Array:
    info = np.iinfo(dtype.name)
    # wide integers are nearly always indices or counts: without bounds stay where a small table still has rows
    low, high = bounds or ((int(info.min), int(info.max)) if dtype.itemsize == 1 else (0, 1))
    fixed = {"zeros": 0, "ones": 1, "large": high, "tiny": low, "negative": -1}
    if kind in fixed:
        return np.full(shape, min(max(fixed[kind], low), high), dtype)
    return rng.integers(
        low, high, shape, dtype=np.int64 if low < 0 or high < 2**62 else np.uint64, endpoint=True
    ).astype(dtype)


def _dtype(name: str) -> np.dtype[Any]:
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes  # noqa: PLC0415  (comes with onnx; only models of such dtypes need it)

        extension: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return extension
