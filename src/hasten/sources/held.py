"""Integer inputs that obey a rule (offsets that rise, lengths, a shape): the values known to hold leave with a source.

Integers drawn at random break such a rule, and the source refuses them. Such inputs then keep the values of the user's
sample, and those variations of them that the source is seen to take: a rewrite that froze the sample's would show.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from hasten.errors import HastenError
from hasten.sources import Source, SourceRequest
from hasten.sources.samples import draw, index_limits
from hasten.types import Array, TensorSpec

__all__ = ["with_held"]

_TRIES, _KEPT = 8, 4


def with_held(source: Source, request: SourceRequest) -> Source:
    """The source, which says what its inputs keep where it refuses random integers but takes the request's sample."""
    names = [spec.name for spec in source.inputs if _counts(spec)]
    example = _example(source, request) if names else None
    if example is None:
        return source
    probes = _probes(source)
    if all(_takes(source, probe) for probe in probes):
        return source
    for chosen in [[name] for name in names] + [names]:
        held = {name: example[name] for name in chosen}
        if all(_takes(source, _with(source, probe, held)) for probe in probes):
            return replace(source, held=(held, *_varied(source, probes[0], held)))
    return source


def _counts(spec: TensorSpec) -> bool:
    """Whether the input may hold indices, lengths or sizes: one byte is a quantised value."""
    return np.issubdtype(np.dtype(spec.dtype), np.integer) and np.dtype(spec.dtype).itemsize > 1


def _example(source: Source, request: SourceRequest) -> dict[str, Array] | None:
    """The sample's first row, by input."""
    given: Mapping[str, Array] | Sequence[Array] | None = source.sample or request.sample or request.example
    names = [spec.name for spec in source.inputs]
    if given is not None and not isinstance(given, Mapping):
        given = dict(zip(names, given, strict=True)) if len(given) == len(names) else None
    if given is None or not all(isinstance(given.get(name), np.ndarray) for name in names):
        return None
    return {s.name: (given[s.name][:1] if s.is_batched else given[s.name]).astype(s.dtype) for s in source.inputs}


def _probes(source: Source) -> list[tuple[Array, ...]]:
    """A random input, and the same with every integer 1: what rises, adds up or is a length seldom is all ones."""
    limits = index_limits(source.model)
    drawn = draw(source.inputs, limits, np.random.default_rng(0))
    ones = (
        np.full_like(a, min(1, limits.get(s.name, 2) - 1)) if _counts(s) else a
        for s, a in zip(source.inputs, drawn, strict=True)
    )
    return [drawn, tuple(ones)]


def _with(source: Source, arrays: Sequence[Array], held: Mapping[str, Array]) -> tuple[Array, ...]:
    return tuple(held.get(spec.name, array) for spec, array in zip(source.inputs, arrays, strict=True))


def _takes(source: Source, arrays: Sequence[Array]) -> tuple[Array, ...]:
    """The answers; none where the source refuses."""
    try:
        return source.reference(arrays)
    except HastenError:
        return ()


def _varied(source: Source, probe: Sequence[Array], held: Mapping[str, Array]) -> Iterator[Mapping[str, Array]]:
    """Other values that the source takes, and answers in the same shapes."""
    rng = np.random.default_rng(0)
    shapes = [answer.shape for answer in _takes(source, _with(source, probe, held))]
    found = 0
    for _ in range(_TRIES):
        other = {name: _like(array, rng) for name, array in held.items()}
        same = all(np.array_equal(other[name], held[name]) for name in held)
        if not same and [a.shape for a in _takes(source, _with(source, probe, other))] == shapes:
            yield other
            found += 1
        if found == _KEPT:
            return


def _like(array: Array, rng: np.random.Generator) -> Array:
    """Rising values from the array's first to its last where its own rise; else its own in another order."""
    flat = array.reshape(-1)
    if flat.size < 2 or np.any(np.diff(flat) < 0):
        return rng.permutation(flat).reshape(array.shape)
    other = np.sort(rng.integers(flat[0], flat[-1], flat.size, endpoint=True)).astype(array.dtype)
    other[0], other[-1] = flat[0], flat[-1]
    return other.reshape(array.shape)
