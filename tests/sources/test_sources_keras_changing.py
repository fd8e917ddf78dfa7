"""A Keras model that answers differently each time is refused with the layer that does it, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hasten
from hasten.errors import NondeterministicError

keras = pytest.importorskip("keras")
pytestmark = pytest.mark.frameworks

L = keras.layers


class Noisy(L.Layer):  # type: ignore[misc]
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seed = keras.random.SeedGenerator(1)

    def call(self, x: Any) -> Any:
        return x + keras.random.normal((4,), seed=self.seed)


class Drawing(L.Layer):  # type: ignore[misc]
    """From the generator that Keras keeps for all."""

    def call(self, x: Any) -> Any:
        return x + keras.random.normal((4,))


class Counting(L.Layer):  # type: ignore[misc]
    def build(self, _: Any) -> None:
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x: Any) -> Any:
        self.count.assign_add(1.0)
        return x + self.count


class Whole(keras.Model):  # type: ignore[misc]
    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.head = inner, L.Dense(2)

    def call(self, x: Any) -> Any:
        return self.head(self.inner(x))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Noisy, r"it is random, in layer 'this_one', which draws random numbers: answers differ"),
        (Drawing, r"it is random, in layer 'this_one', which draws random numbers: answers differ"),
        (Counting, r"state kept inside, in layer 'this_one': answers differ"),
    ],
)
def test_the_layer_is_named(tmp_path: Path, layer: Any, message: str, nested: bool) -> None:
    x, inner = keras.Input((4,)), layer(name="this_one")
    model = Whole(inner) if nested else keras.Model(x, L.Dense(2)(inner(x)))
    with pytest.raises(NondeterministicError, match=message):
        hasten.compile(model, engine="onnxruntime", sample=np.ones((1, 4), np.float32))


def test_a_recurrent_layer_that_keeps_its_state_is_named() -> None:
    lstm = L.LSTM(3, stateful=True, name="memory")
    model = keras.Sequential([keras.Input((6, 4), batch_size=1), lstm, L.Dense(2)])
    with pytest.raises(NondeterministicError, match="state kept inside, in layer 'memory'"):
        hasten.compile(model, engine="onnxruntime")
