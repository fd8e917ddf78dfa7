"""TimeDistributed layers are traced once for all steps, and only those that may be."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")
import keras
import tensorflow as tf

import hasten
from hasten.errors import SourceError
from hasten.sources import SourceRequest
from hasten.sources.keras import open_keras
from hasten.sources.keras import reference as module
from hasten.sources.keras.reference import flat_call
from hasten.sources.keras.signature import signature
from hasten.sources.keras.steps import steps_merged

pytestmark = pytest.mark.frameworks
STEPS = 40


@keras.saving.register_keras_serializable("hasten_tests")
class AgainstTheBatch(keras.layers.Layer):
    """Its answer to a row depends on all rows."""

    def call(self, x: Any) -> Any:
        return x - keras.ops.mean(x, axis=0, keepdims=True)


def model_of(layer: Any, *shape: int) -> Any:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.function traces TensorFlow's backend alone")
    return keras.Sequential([keras.Input((STEPS, *shape)), keras.layers.TimeDistributed(layer)])


def traced(model: Any, *shape: int) -> Any:
    def call(x: Any) -> Any:
        with steps_merged():
            return model(x, training=False)

    return tf.function(call, input_signature=[tf.TensorSpec([None, STEPS, *shape])], autograph=False)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: keras.layers.Dense(3, activation="tanh"), (5,)),
        (lambda: keras.layers.Conv1D(4, 3), (8, 2)),
        (lambda: keras.layers.BatchNormalization(), (5,)),
        (lambda: keras.layers.LayerNormalization(), (5,)),
        (lambda: keras.layers.Flatten(), (3, 2)),
        (lambda: keras.layers.Dropout(0.5), (5,)),
    ],
    ids=["Dense", "Conv1D", "BatchNormalization", "LayerNormalization", "Flatten", "Dropout"],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_all_steps_are_one_call_with_the_same_answers(layer: Any, shape: tuple[int, ...], batch: int) -> None:
    model = model_of(layer(), *shape)
    x = np.random.default_rng(0).standard_normal((batch, STEPS, *shape)).astype(np.float32)
    merged = traced(model, *shape)
    np.testing.assert_allclose(merged(x), model(x, training=False), rtol=1e-5, atol=1e-6)
    assert len(merged.get_concrete_function().graph.get_operations()) < STEPS


def test_a_layer_of_ones_own_is_asked_step_by_step() -> None:
    model = model_of(AgainstTheBatch(), 5)
    x = np.random.default_rng(0).standard_normal((3, STEPS, 5)).astype(np.float32)
    np.testing.assert_allclose(traced(model, 5)(x), model(x, training=False), atol=1e-6)


class Counting(keras.layers.Layer):
    """Keeps in Python how often it was called."""

    calls = 0

    def call(self, x: Any) -> Any:
        self.calls += 1
        return x + self.calls


def over_time(*layers: Any) -> Any:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.function traces TensorFlow's backend alone")
    dense = keras.layers.TimeDistributed(keras.layers.Dense(2))
    return keras.Sequential([keras.Input((150, 3)), keras.layers.LSTM(4, return_sequences=True), *layers, dense])


def test_many_steps_are_answered_as_predict_answers_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model = over_time()
    x = np.random.default_rng(0).standard_normal((3, 150, 3)).astype(np.float32)
    expected, eager = model(x, training=False), []
    written_out = keras.layers.LSTMCell.call
    monkeypatch.setattr(
        keras.layers.LSTMCell, "call", lambda self, *a, **k: eager.append(1) or written_out(self, *a, **k)
    )
    reference = flat_call(model, signature(model, SourceRequest()))
    np.testing.assert_allclose(reference([x])[0], expected, rtol=1e-5, atol=1e-6)
    assert 0 < len(eager) < 10  # traced, not walked
    with pytest.raises(SourceError, match="cannot run the Keras model"):
        reference([x[:, :, :2]])


def test_code_of_ones_own_is_asked_as_it_is_called() -> None:
    model = over_time(Counting())
    reference = flat_call(model, signature(model, SourceRequest()))
    x = np.zeros((1, 150, 3), np.float32)
    first, second = reference([x])[0], reference([x])[0]
    assert not np.allclose(first, second)


def test_afterwards_keras_is_as_it_was() -> None:
    before = keras.layers.TimeDistributed.call
    with pytest.raises(ValueError, match="mine"), steps_merged():
        assert keras.layers.TimeDistributed.call is not before
        raise ValueError("mine")
    assert keras.layers.TimeDistributed.call is before


LOOPS, EACH_ONCE = (keras.layers.ReLU,), ()


@pytest.mark.parametrize(
    ("looping", "layers", "took", "walked"),
    [
        *((LOOPS, 5, 1.2, 1), (LOOPS, 5, 0.4, 2), (LOOPS, 200, 0.9, 3), (LOOPS, 200, 0.2, 6)),
        *((EACH_ONCE, 5, 0.4, 5), (EACH_ONCE, 5, 9.0, 5), (EACH_ONCE, 200, 9.0, 5), (EACH_ONCE, 5, 0.2, 6)),
    ],
)
def test_a_slow_model_is_traced_once_that_pays(
    looping: tuple[type, ...], layers: int, took: float, walked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.function traces TensorFlow's backend alone")
    clock = iter(np.arange(0, 100, took))
    monkeypatch.setattr(module, "_looping", lambda: looping)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    model = keras.Sequential([keras.Input((3,)), *(keras.layers.ReLU() for _ in range(layers))])
    calls, relu = [], keras.layers.ReLU.call
    monkeypatch.setattr(keras.layers.ReLU, "call", lambda self, x: calls.append(1) or relu(self, x))
    reference = flat_call(model, signature(model, SourceRequest()))
    x = np.ones((1, 3), np.float32)
    for _ in range(6):
        np.testing.assert_array_equal(reference([x])[0], x)
    traced = 0 if walked == 6 else 1
    assert len(calls) == layers * (walked + traced)


def test_a_model_is_saved_only_for_who_opens_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    assert open_keras(model, SourceRequest(work=tmp_path)).path.is_file()
    monkeypatch.setattr(keras.Model, "save", lambda *_: pytest.fail("it was saved"))
    fast = hasten.compile(model, engine="onnxruntime")
    x = np.ones((1, 3), np.float32)
    np.testing.assert_allclose(fast(x), model(x), rtol=1e-5)
