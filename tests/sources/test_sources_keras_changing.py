"""A Keras model that answers differently each time is refused with the layer that does it, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hasten
from hasten.api import single
from hasten.errors import NondeterministicError
from hasten.sources import Source, SourceRequest
from hasten.sources.determinism import check_deterministic
from hasten.sources.keras.source import open_keras
from hasten.sources.samples import samples

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


def slightly(x: Any) -> Any:
    return x + 1e-4 * keras.random.normal((4,))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: L.Activation(slightly),
        lambda: L.Dense(4, activation=slightly),
        lambda: L.Lambda(slightly),
        lambda: Whole(L.Activation(slightly)),
    ],
)
def test_numbers_that_hardly_change_an_answer_are_found(layer: Any) -> None:
    x = keras.Input((4,))
    with pytest.raises(NondeterministicError, match="it is random"):
        hasten.compile(keras.Model(x, layer()(x)), engine="onnxruntime", sample=np.ones((1, 4), np.float32))


def test_state_that_hardly_changes_an_answer_is_found() -> None:
    faint = keras.initializers.Constant(1e-4)
    rnn = L.SimpleRNN(3, stateful=True, recurrent_initializer=faint, name="memory")
    model = keras.Sequential([keras.Input((1, 4), batch_size=1), rnn])
    with pytest.raises(NondeterministicError, match="state kept inside, in layer 'memory'"):
        hasten.compile(model, engine="onnxruntime")


def test_of_layers_that_repeat_themselves_the_graph_answers_the_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    plain = single.open_source

    def counted(*given: Any) -> Source:
        source = plain(*given)
        return replace(source, reference=lambda arrays: calls.append(arrays) or source.reference(arrays))  # type: ignore[func-returns-value]

    monkeypatch.setattr(single, "open_source", counted)
    chain = [keras.Input((6, 6, 1)), L.Conv2D(2, 3, activation="relu"), L.Dropout(0.5), L.Flatten(), L.Dense(2)]
    hasten.compile(keras.Sequential(chain), engine="onnxruntime")
    assert len(calls) == 2


def test_a_graph_that_answers_otherwise_tells_nothing_of_its_model() -> None:
    source = open_keras(keras.Sequential([keras.Input((4,)), L.Dense(2)]), SourceRequest())
    count = 0

    def counts(arrays: Sequence[Any]) -> tuple[Any, ...]:
        nonlocal count
        count += 1
        return (source.reference(arrays)[0] + count,)

    with pytest.raises(NondeterministicError):
        check_deterministic(replace(source, reference=counts), samples(source, SourceRequest(), 0, 2))
