"""Small Keras models, imported and held against Keras itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from hasten.graph import reference  # noqa: E402
from hasten.sources import Source, SourceRequest  # noqa: E402
from hasten.sources.keras import open_keras  # noqa: E402

__all__ = ["Residual", "agrees", "chain", "check", "graph", "kinds"]

L = keras.layers


def randomise(model: Any, seed: int = 0) -> None:
    """Weights that no symmetry hides: biases and statistics away from zero and one."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if "seed" in variable.path or not str(variable.dtype).startswith(("float", "bfloat")):
            continue
        values = rng.uniform(-0.6, 0.6, variable.shape)
        variable.assign(np.abs(values) + 0.3 if "variance" in variable.path else values)


def arrays(model: Any, batch: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    found = []
    for symbol in model.inputs:
        shape = [batch if d is None else d for d in symbol.shape]
        if "int" in symbol.dtype:
            found.append(rng.integers(0, 5, shape).astype(symbol.dtype))
        elif symbol.dtype == "bool":
            found.append(rng.random(shape) > 0.4)
        else:
            found.append(rng.standard_normal(shape).astype(symbol.dtype))
    return found


def check(model: Any, *, batches: Sequence[int] = (1, 3), tolerance: float = 1e-5, whole: bool = True) -> Any:
    """The imported graph answers as the model does; ``whole`` demands that our own importer read it."""
    randomise(model)
    source = open_keras(model, SourceRequest())
    assert source.model is not None
    if whole:
        assert not source.notes
    for batch in batches:
        values = arrays(model, batch, batch)
        wanted, got = source.reference(values), reference.run(source.model, values)
        assert len(wanted) == len(got) == len(source.outputs)
        for spec, want, have in zip(source.outputs, wanted, got, strict=True):
            assert have.shape == want.shape, spec
            assert have.dtype == want.dtype == np.dtype(spec.dtype), spec
            np.testing.assert_allclose(have, want, rtol=tolerance, atol=tolerance)
    return source


def chain(shape: tuple[int | None, ...], *layers: Any, dtype: str = "float32") -> Any:
    return keras.Sequential([keras.Input(shape, dtype=dtype), *layers])


def graph(*shapes: tuple[int | None, ...], to: Callable[..., Any], dtype: str = "float32") -> Any:
    inputs = [keras.Input(s, dtype=dtype) for s in shapes]
    return keras.Model(inputs, to(*inputs))


def agrees(source: Source, *, batches: tuple[int, ...] = (1, 3), tolerance: float = 1e-5) -> None:
    """The imported graph answers as its model does."""
    assert source.model is not None
    for batch in batches:
        rng = np.random.default_rng(batch)
        given = [
            rng.standard_normal([batch if d == "batch" else int(d) for d in s.shape]).astype(s.dtype)
            for s in source.inputs
        ]
        wanted, got = source.reference(given), reference.run(source.model, given)
        assert len(wanted) == len(got) == len(source.outputs)
        for want, have in zip(wanted, got, strict=True):
            np.testing.assert_allclose(have, want, rtol=tolerance, atol=tolerance)


def kinds(source: Source) -> list[str]:
    """The graph's operators, in order."""
    assert source.model is not None
    return [node.op_type for node in source.model.graph]


class Residual(keras.layers.Layer):
    """A user's layer, made of others and of ``keras.ops``."""

    def __init__(self, units: int = 6) -> None:
        super().__init__()
        self.inner = L.Dense(units, activation="gelu")
        self.norm = L.LayerNormalization()

    def call(self, x: Any, training: bool = False) -> Any:
        return self.norm(x + self.inner(x))
