"""Weights in float32 enter; narrower numbers that are exactly the same leave, where a model's author made them so.

Files shrunk by their framework (int8 weights of TFLite, half-wide ones of TFLite and torch) are read as float32, which
holds their values without loss. Here the way back is found, and proved weight by weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hasten.types import Array

__all__ = ["Int8", "half_of", "int8_of"]

_STEPS = np.array([127, 128, *range(126, 0, -1)])
"""What the largest weight of a column may be as an integer, the likeliest first."""
_SAMPLE = 8  # rows and columns that tell apart nearly all matrices that are not so
_NEAR = 2e-5  # two roundings of float32 in numbers up to 128
_LEAST_HALF = 2.0**-14  # below it float16 is denormal, which counts as zero
_RANGE = (2.0**-100, 2.0**90)  # of what is worth being int8: scales then neither vanish nor overflow


@dataclass(frozen=True)
class Int8:
    """``float32(values · scale)`` is the weight, everywhere.

    Shapes:  values (K, N) int8 · scale (N,) float32
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
