"""The user's sample enters, in whatever form; arrays that fit the model's inputs leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hasten.api.settings import Settings
from hasten.errors import InputError
from hasten.runtime.arrays import by_name, convert
from hasten.sources import Source, SourceRequest
from hasten.sources.structure import named
from hasten.types import Array, TensorSpec

__all__ = ["loose_arrays", "ordered", "request"]


def request(sample: Any, settings: Settings, work: Path) -> SourceRequest:
    """What the importer needs to know: the sample gives free dimensions by name, or by place.

    Raises:  InputError: the sample is not numbers, or holds NaN
    """
    if sample is None:
        return SourceRequest(settings.shapes, settings.trust, None, work)
    if isinstance(sample, Mapping):
        example = _numbers_in("", sample)
        shapes = {name: array.shape for name, array in named(example).items()}
        return SourceRequest({**shapes, **settings.shapes}, settings.trust, None, work, example=example)
    loose = tuple(_numbers_in(str(k), v) for k, v in enumerate(loose_arrays(sample)))
    flat = tuple(loose) if all(isinstance(v, np.ndarray) for v in loose) else None
    return SourceRequest(settings.shapes, settings.trust, flat, work, example=loose)


def loose_arrays(given: Any) -> tuple[Any, ...]:
    """The user's sample as a tuple, before the model's inputs are known.

    Shapes:  given: a tuple, or a list of arrays, holds one value per input; anything else is the one input
    """
    several = isinstance(given, tuple) or (isinstance(given, list) and any(map(_is_part, given)))
    return tuple(given) if several else (given,)


def ordered(source: Source, given: Any) -> tuple[Array, ...] | None:
    """The user's sample as one array per input, of its dtype; None without a sample.

    Arrays and lists alike are converted as ``predict`` converts them: float64 to float32, int64 to int32 that holds it.

    Shapes:  given: an array for one input; a list, tuple or dict of arrays for several
    Raises:  InputError: another count or other names, or values that would lose their meaning
    """
    if given is None:
        return None
    inputs = source.inputs
    if source.sample is not None:
        values: list[Any] = list(source.sample)
    else:
        values = by_name(inputs, _flat(inputs, given)) if isinstance(given, Mapping) else list(loose_arrays(given))
    if len(values) != len(inputs):
        raise InputError(
            f"sample: expected {len(inputs)} arrays ({', '.join(map(str, inputs))}), received {len(values)}"
        )
    return tuple(_fitting(spec, value) for spec, value in zip(inputs, values, strict=True))


def _fitting(spec: TensorSpec, value: Any) -> Array:
    array = convert(spec, value)
    if array.dtype.kind in "fc" and not np.isfinite(array).all():
        raise InputError(
            f"sample for input {spec}: expected numbers that {spec.dtype} holds, received some beyond its range"
        )
    return array


def _flat(inputs: Sequence[TensorSpec], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The dict itself where its keys are the inputs; else its ends by name, where it is nested."""
    if set(given) == {spec.name for spec in inputs} or not any(isinstance(v, Mapping) for v in given.values()):
        return given
    return named(given)


def _numbers_in(name: str, value: Any) -> Any:
    """The same structure with an array in place of each array, tensor, number or list of numbers."""
    if value is None and name:
        return None
    if isinstance(value, Mapping):
        return {str(key): _numbers_in(f"{name}.{key}".lstrip("."), part) for key, part in value.items()}
    if isinstance(value, (list, tuple)) and any(_is_part(part) for part in value):
        parts = [_numbers_in(f"{name}.{k}", part) for k, part in enumerate(value)]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return _numbers(name, value)


def _is_part(value: Any) -> bool:
    """Whether a list that holds it is a structure, not an array written as lists."""
    if isinstance(value, (list, tuple)):
        return any(_is_part(part) for part in value)
    return (
        value is None or isinstance(value, (Mapping, np.ndarray)) or (hasattr(value, "shape") and len(value.shape) > 0)
    )


def _numbers(name: str, value: Any) -> Array:
    try:
        # A torch tensor that is part of a gradient's path does not become an array by itself.
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    except ValueError as error:
        raise InputError(f"sample '{name}': expected an array, received rows of unlike length") from error
    except (TypeError, RuntimeError) as error:
        raise InputError(
            f"sample '{name}': expected an array that numpy takes, received {type(value).__name__}"
        ) from error
    if not hasattr(value, "dtype") and array.dtype == np.float64:
        array = array.astype(np.float32)  # plain numbers, as every framework takes them
    if array.dtype.kind == "O":
        raise InputError(f"sample '{name}': expected an array, received {type(value).__name__}")
    if array.dtype.kind not in "biufcV":
        raise InputError(f"sample '{name}': expected numbers, received dtype {array.dtype}")
    if array.dtype.kind in "fc" and not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise InputError(f"sample '{name}': expected finite numbers, received {count} NaN or infinite; clean it first")
    return array
