"""Weights in float32 enter; narrower numbers that are exactly the same leave, where a model's author made them so.

Files shrunk by their framework (int8 weights of TFLite, half-wide ones of TFLite and torch) are read as float32, which
holds their values without loss. Here the way back is found, and proved weight by weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from hasten.types import Array

__all__ = ["Int8", "blocks_of", "half_of", "int8_of", "nearest_int8"]

_STEPS = np.array([127, 128, *range(126, 0, -1)])
"""What the largest weight of a column may be as an integer, the likeliest first."""
_FEW_BITS = (8, 7, *range(15, 8, -1), *range(6, 0, -1), 127, 128)
"""The same in a block: as 4 bits have it, with a zero point or none, and as 8 do."""
_BLOCKS = (256, 128, 64, 32, 16)
_SAMPLE = 8  # rows and columns that tell apart nearly all matrices that are not so
_NEAR = 2e-5  # two roundings of float32 in numbers up to 128
_LEAST_HALF = 2.0**-14  # below it float16 is denormal, which counts as zero
_RANGE = (2.0**-100, 2.0**90)  # of what is worth being int8: scales then neither vanish nor overflow


@dataclass(frozen=True)
class Int8:
    """``float32(values · scale)`` is the weight, everywhere.

    Shapes:  values (K, N) int8 · scale (N,) float32, or (blocks, N): one for every K / blocks inputs
    """

    values: Array
    scale: Array


def int8_of(weight: Array) -> Int8 | None:
    """The weights as int8 with one scale a column; None where that is not exact for every one of them.

    Shapes:  weight (K, N) float32
    """
    if weight.dtype != np.float32 or weight.size == 0 or not np.isfinite(weight).all():
        return None
    largest = np.abs(weight).max(axis=0)
    if not ((largest == 0) | ((largest >= _RANGE[0]) & (largest <= _RANGE[1]))).all():
        return None
    values, scale = np.zeros(weight.shape, np.int8), np.ones(weight.shape[1], np.float32)
    live = np.flatnonzero(largest)
    if not _likely(weight[:, live[:_SAMPLE]]).any(axis=0).all():
        return None
    for column, likely in zip(live, _likely(weight[:, live]).T, strict=True):
        tried = (_column(weight[:, column], most) for most in _STEPS[likely])
        found = next((one for one in tried if one is not None), None)
        if found is None:
            return None
        values[:, column], scale[column] = found
    return Int8(values, scale)


def nearest_int8(weight: Array) -> Int8:
    """The weights rounded to int8 with one scale a column.

    Shapes:  weight (K, N) float32, finite
    """
    largest = np.abs(weight).max(axis=0, initial=0)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return Int8(np.rint(weight / scale).astype(np.int8), scale)


def blocks_of(weight: Array) -> Int8 | None:
    """The weights as int8 with a scale for every block of inputs of each column; None where no blocks are exact.

    Shapes:  weight (K, N) float32 · returns values (K, N), scale (blocks, N)
    """
    depth, columns = weight.shape
    if weight.dtype != np.float32 or weight.size == 0 or not np.isfinite(weight).all():
        return None
    for size in _BLOCKS:
        if depth % size or depth == size:
            continue
        cut = weight.reshape(-1, size, columns).transpose(1, 0, 2).reshape(size, -1)
        largest = np.abs(cut).max(axis=0)
        live = np.flatnonzero(largest)
        if not ((largest[live] >= _RANGE[0]) & (largest[live] <= _RANGE[1])).all():
            return None
        some = cut[:, live[:: max(1, len(live) // _SAMPLE)]]
        if not _likely(some).any(axis=0).all() or _columns(some) is None:
            continue
        found = _columns(cut)
        if found is not None:
            values = found.values.reshape(size, -1, columns).transpose(1, 0, 2).reshape(weight.shape)
            return Int8(np.ascontiguousarray(values), found.scale.reshape(-1, columns))
    return None


def _columns(weight: Array) -> Int8 | None:
    """As ``int8_of``, for very many short columns: all are tried at once, those of few bits first."""
    values, scale = np.zeros(weight.shape, np.int8), np.ones(weight.shape[1], np.float32)
    largest = np.abs(weight).max(axis=0)
    left = np.flatnonzero(largest)
    for most, towards in product(_FEW_BITS, (None, 0, np.inf)):
        factor = largest[left] / np.float32(most)
        factor = factor if towards is None else np.nextafter(factor, np.float32(towards))
        wanted = weight[:, left]
        whole = np.rint(wanted / factor)
        done = (whole * factor == wanted).all(axis=0) & (whole.max(axis=0, initial=0) <= 127)
        values[:, left[done]], scale[left[done]] = whole[:, done], factor[done]
        left = left[~done]
        if not len(left):
            return Int8(values, scale)
    return None


def _likely(weight: Array) -> Array:
    """For each of ``_STEPS`` whether some rows of each column allow it to be the column's largest weight.

    Shapes:  weight (K, N), no column of zeros · returns (steps, N)
    """
    rows = np.linspace(0, len(weight) - 1, min(_SAMPLE, len(weight))).astype(int)
    ratio = weight[rows].astype(np.float64) / np.abs(weight).max(axis=0, initial=0).astype(np.float64)
    scaled = ratio * _STEPS[:, None, None]
    likely: Array = np.abs(scaled - np.rint(scaled)).max(axis=1, initial=0) < _NEAR
    return likely


def _column(weight: Array, most: int) -> tuple[Array, np.float32] | None:
    """A column's integers and scale, if its largest weight is ``most`` times the scale."""
    for scale in _near(np.float32(np.abs(weight).max() / np.float32(most))):
        values = np.rint(weight / scale)
        if values.min() >= -128 and values.max() <= 127 and np.array_equal(values * scale, weight):
            return values.astype(np.int8), scale
    return None


def _near(scale: np.float32) -> Iterator[np.float32]:
    """The scale and its neighbours: the division that found it was rounded."""
    yield scale
    for end in (np.float32(0), np.float32(np.inf)):
        yield np.nextafter(scale, end)


def half_of(weight: Array) -> str | None:
    """ "bfloat16" or "float16" where every weight is exactly one, the quicker to widen first; else None."""
    if weight.dtype != np.float32 or not np.isfinite(weight).all():
        return None
    if not (weight.view(np.uint32) & 0xFFFF).any():
        return "bfloat16"
    with np.errstate(over="ignore"):
        same = np.array_equal(weight.astype(np.float16), weight)
    return "float16" if same and not ((weight != 0) & (np.abs(weight) < _LEAST_HALF)).any() else None
