"""A source and sample inputs enter; the source leaves with the answers, unless it answers one input in two ways.

The second call on the same input finds randomness; a call on another input in between finds state kept inside. Where
every part of a model is known to answer by its inputs alone, its graph is asked instead: cheaper than the framework.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import onnx_ir as ir

from hasten.errors import NondeterministicError, SourceError
from hasten.graph.reference import runner
from hasten.sources import Reference, Source
from hasten.types import Array

__all__ = ["DRAWS", "REPEATS", "Where", "check_calls", "check_deterministic"]

Where = Callable[[], str | None]

_RANDOM_OPS = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
DRAWS = "draws random numbers"
"""How the name of a part ends that keeps nothing but where its generator is."""
REPEATS = 24
"""Calls of what is known to draw random numbers: a few outputs dropped at random are often dropped alike."""
_STRIDE = 6
_ROUNDING = 1e-3
"""Of the largest answer: how far the framework and the graph of a model that is known to repeat itself may lie apart;
models of half-wide floats lie further, and are called as often as any."""


def check_deterministic(source: Source, samples: Sequence[Sequence[Array]]) -> Source:
    """The source once its reference has repeated its answers; those on the first two samples need no further call.

    Raises:  NondeterministicError: it does not; the message says whether it is random or keeps state inside
    """
    node = None if source.model is None else _random_node(source.model)
    if node is not None:
        where: Where | None = partial(_called, node)
    else:
        where = None if source.changing is None else partial(source.changing, samples[0])
    other = samples[1] if len(samples) > 1 else [np.flip(a) for a in samples[0]]
    known = samples[0], other
    if source.repeats and node is None:
        settled = _by_graph(source, *known)
        if settled is not None:
            return settled
    random, repeats = (None, 0) if node is None else (True, REPEATS)
    answers = check_calls(source.reference, *known, random=random, where=where, repeats=repeats)
    return replace(source, reference=_remembering(source.reference, list(zip(known, answers, strict=True))))


def _by_graph(source: Source, sample: Sequence[Array], other: Sequence[Array]) -> Source | None:
    """The source with its answers to both, where its graph gives the same; None where it does not, or cannot run."""
    assert source.model is not None
    known = [(arrays, source.reference(arrays)) for arrays in (sample, other)]
    try:
        call = runner(source.model)
        given = [call(arrays) for arrays in (sample, other)]
    except SourceError:
        return None
    if not all(_near(answer, found) for (_, answer), found in zip(known, given, strict=True)):
        return None
    return replace(source, reference=_remembering(source.reference, known), answered=(tuple(sample), given[0]))


def _near(left: Sequence[Array], right: Sequence[Array]) -> bool:
    return len(left) == len(right) and all(
        a.shape == b.shape and np.allclose(a, b, rtol=_ROUNDING, atol=1e-7 + _ROUNDING * _scale(a), equal_nan=True)
        for a, b in zip(left, right, strict=True)
    )


def _remembering(call: Reference, known: Sequence[tuple[Sequence[Array], tuple[Array, ...]]]) -> Reference:
    """``call``, but for inputs whose answers are known."""

    def reference(arrays: Sequence[Array]) -> tuple[Array, ...]:
        for given, answer in known:
            if _identical(given, arrays):
                return answer
        return call(arrays)

    return reference


def _identical(left: Sequence[Array], right: Sequence[Array]) -> bool:
    """Whether they are the same bit by bit: NaN is NaN, and -0 is not 0."""
    return len(left) == len(right) and all(
        a is b or (a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())
        for a, b in zip(left, right, strict=True)
    )


def _random_node(model: ir.Model) -> ir.Node | None:
    nodes = ir.traversal.RecursiveGraphIterator(model.graph)
    return next((node for node in nodes if node.op_type in _RANDOM_OPS), None)


def _called(node: ir.Node) -> str:
    return f"node '{node.name}' ({node.op_type})" if node.name else f"a node {node.op_type}"


def check_calls(
    call: Reference,
    sample: Sequence[Array],
    other: Sequence[Array],
    *,
    random: bool | None = None,
    where: Where | None = None,
    repeats: int = 0,
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """The answers to ``sample`` and ``other`` of a bare call that repeats them.

    ``random`` says what a difference means where that is known. ``where`` names the part of the model that differs,
    asked only when one does; a part that draws random numbers settles ``random``. ``repeats`` is how many more calls on
    ``sample`` are made where the first agree.

    Raises:  NondeterministicError: as ``check_deterministic``
    """
    first, second, beside, third = call(sample), call(sample), call(other), call(sample)
    while repeats > 0 and _equal(first, second) and _equal(first, third):
        repeats, third = repeats - 1, call(sample)
    if _equal(first, second) and _equal(first, third):
        return first, beside
    gap = max(_distance(first, second), _distance(first, third))
    part = None if where is None else where()
    if random is None:
        draws = part is not None and part.endswith(DRAWS)
        random = draws or (part is None and not _looks_stateful(call, sample, repeated=_equal(first, second)))
    by = f", in {part}" if part else ""
    if random:
        raise NondeterministicError(
            f"the model answers the same input in different ways (it is random{by}: answers differ by {gap:.1e}): "
            "expected the same answer twice; export it in inference mode, with dropout and sampling off"
        )
    raise NondeterministicError(
        f"the model answers the same input in different ways (state kept inside{by}: answers differ by {gap:.1e}): "
        "expected the same answer twice; export it with its state as an input and an output"
    )


def _looks_stateful(call: Reference, sample: Sequence[Array], *, repeated: bool) -> bool:
    """Whether a run of equal calls moves along a path (state) rather than scattering around a point (random).

    Answers scattered around a point are as far from their neighbours as from those ``_STRIDE`` calls later.
    """
    if repeated:
        return True  # equal back to back, unlike after another input: only memory does that
    answers = [call(sample) for _ in range(REPEATS)]
    steps = [_distance(a, b) for a, b in itertools.pairwise(answers)]
    strides = [_distance(a, b) for a, b in zip(answers, answers[_STRIDE:], strict=False)]
    third = len(steps) // 3
    settling = float(np.mean(steps[-third:])) < 0.5 * float(np.mean(steps[:third]))
    return settling or float(np.mean(strides)) > 1.6 * float(np.mean(steps))


def _equal(left: Sequence[Array], right: Sequence[Array]) -> bool:
    return len(left) == len(right) and all(
        a.shape == b.shape and np.allclose(a, b, rtol=1e-5, atol=1e-7 + 1e-6 * _scale(a), equal_nan=True)
        for a, b in zip(left, right, strict=True)
    )


def _scale(array: Array) -> float:
    finite = np.abs(array[np.isfinite(array)]) if np.issubdtype(array.dtype, np.number) else np.zeros(0)
    return float(np.max(finite, initial=0))


def _distance(left: Sequence[Array], right: Sequence[Array]) -> float:
    """Mean absolute difference; infinite between unlike shapes."""
    if any(a.shape != b.shape for a, b in zip(left, right, strict=False)):
        return float("inf")
    pairs = ((a.astype(np.float64), b.astype(np.float64)) for a, b in zip(left, right, strict=False))
    return max((float(np.nan_to_num(np.abs(a - b)).mean()) for a, b in pairs if a.size), default=0.0)
