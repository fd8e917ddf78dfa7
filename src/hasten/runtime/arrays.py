"""What a caller hands in becomes arrays the engine takes, or one clear line says why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hasten.errors import InputError
from hasten.types import Array, TensorSpec

__all__ = ["by_name", "convert", "in_place", "per_input", "rows_of", "strict"]

_RANK = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}
"""Kinds of numbers; a value may become its own or a later kind without losing what it means."""


def strict(spec: TensorSpec, value: Any) -> Array:
    """``value`` itself, laid out as engines need it, when it is an array of exactly the spec's dtype and shape.

    Raises:  InputError: anything else
    """
    if not isinstance(value, np.ndarray):
        raise InputError(
            f"cannot run on input '{spec.name}': expected a numpy array {_text(spec)}, received "
            f"{type(value).__module__}.{type(value).__qualname__}; pass an array, or call predict(), which converts"
        )
    if value.dtype != np.dtype(spec.dtype):
        raise InputError(
            f"cannot run on input '{spec.name}': expected {_text(spec)}, received {_text(value)}; "
            f"use .astype('{spec.dtype}'), or call predict(), which converts"
        )
    check_shape(spec, value)
    return np.require(value, np.dtype(spec.dtype), ["C", "A"])


def in_place(spec: TensorSpec, value: Any, role: str) -> Array:
    """``value`` itself, where an engine can read or write it as it lies; ``role``: "input" or "output".

    A copy would be made once and then go stale.

    Raises:  InputError: anything but a contiguous, aligned array of exactly the spec's dtype and shape
    """
    wanted = f"cannot bind {role} '{spec.name}': expected a numpy array {_text(spec)}"
    if not isinstance(value, np.ndarray):
        kind = type(value)
        raise InputError(f"{wanted}, received {kind.__module__}.{kind.__qualname__}; its memory is used at every call")
    try:
        array = strict(spec, value)
    except InputError:
        raise InputError(f"{wanted}, received {_text(value)}; its memory is used as it is, unconverted") from None
    if array is not value:
        raise InputError(f"{wanted}, C-contiguous and aligned, received strides {value.strides}")
    return value


def convert(spec: TensorSpec, value: Any) -> Array:
    """``value`` as an array of the spec's dtype: lists and numbers of the same or a simpler kind are converted.

    Raises:  InputError: ragged, not numbers, a kind that would lose its meaning (1.5 as an integer), or out of range
    """
    want = np.dtype(spec.dtype)
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"cannot run on input '{spec.name}': expected {_text(spec)}, received rows of unlike length or "
            "values that are not numbers"
        ) from error
    if array.dtype != want and array.size:
        array = _cast(spec, array, want)
    return np.require(array, want, ["C", "A"])


def _cast(spec: TensorSpec, array: Array, want: np.dtype[Any]) -> Array:
    known = array.dtype.kind in _RANK and want.kind in _RANK
    same_kind = _RANK[array.dtype.kind] <= _RANK[want.kind] if known else np.can_cast(array.dtype, want, "same_kind")
    if not same_kind:
        raise InputError(f"cannot run on input '{spec.name}': expected {_text(spec)}, received {_text(array)}")
    with np.errstate(over="ignore"):
        cast: Array = array.astype(want)
    if want.kind in "iu" and not np.array_equal(cast, array):
        raise InputError(
            f"cannot run on input '{spec.name}': expected values that fit {want}, "
            f"received {array.min()} to {array.max()}"
        )
    return cast


def check_shape(spec: TensorSpec, array: Array) -> None:
    """Raises InputError when the array's shape is not the spec's; a free dimension takes any size."""
    shape = array.shape
    if shape != spec.shape and (
        len(shape) != len(spec.shape)
        or any(want != got for want, got in zip(spec.shape, shape, strict=True) if isinstance(want, int))
    ):
        raise InputError(f"cannot run on input '{spec.name}': expected {_text(spec)}, received {_text(array)}")


def rows_of(specs: Sequence[TensorSpec], arrays: Sequence[Array]) -> int | None:
    """How many rows the batched inputs hold; None where no input has a free batch.

    Raises:  InputError: two inputs of unlike batch
    """
    found = [(spec.name, len(array)) for spec, array in zip(specs, arrays, strict=True) if spec.is_batched]
    for name, rows in found:
        if rows != found[0][1]:
            raise InputError(
                f"inputs disagree on the batch: '{found[0][0]}' has {found[0][1]} rows, '{name}' has {rows}; "
                "give every input the same number"
            )
    return found[0][1] if found else None


def by_name(specs: Sequence[TensorSpec], values: Mapping[str, Any]) -> list[Any]:
    """The mapping's values in the order of the inputs.

    Raises:  InputError: a name is missing or unknown
    """
    names = [spec.name for spec in specs]
    wrong = [f"'{name}' is missing" for name in names if name not in values]
    wrong += [f"no input is called '{name}'" for name in values if name not in names]
    if wrong:
        raise InputError(
            f"wrong inputs: expected {', '.join(map(str, specs))}, received "
            f"{', '.join(map(str, values)) or 'none'}: {', '.join(wrong)}"
        )
    return [values[name] for name in names]


def per_input(specs: Sequence[TensorSpec], value: Any) -> list[Any]:
    """One value per input, from a mapping, from a sequence where there are several, else ``value`` itself.

    Raises:  InputError: another number of them
    """
    if isinstance(value, Mapping):
        return by_name(specs, value)
    if len(specs) == 1:
        return [value]
    if not isinstance(value, (list, tuple)) or len(value) != len(specs):
        received = len(value) if isinstance(value, (list, tuple)) else f"one {type(value).__name__}"
        raise InputError(
            f"wrong number of inputs: expected {len(specs)} ({', '.join(map(str, specs))}), received {received}; "
            "give a list or a dict of arrays"
        )
    return list(value)


def _text(value: TensorSpec | Array) -> str:
    kind = "text" if isinstance(value, np.ndarray) and value.dtype.kind in "US" else value.dtype
    return f"{kind}[{', '.join(map(str, value.shape))}]"
