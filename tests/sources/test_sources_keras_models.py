"""Whole models: subclassed, nested, shared, applications, the stock export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from keras_held import Residual, agrees, kinds  # noqa: E402

from hasten.errors import NondeterministicError, SourceError  # noqa: E402
from hasten.graph import reference  # noqa: E402
from hasten.sources import SourceRequest  # noqa: E402
from hasten.sources.keras import open_keras  # noqa: E402

pytestmark = pytest.mark.frameworks

L = keras.layers
K = keras.ops


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = [Residual(), Residual()]
        self.head = L.Dense(2)
        self.gain = self.add_weight(shape=(6,), name="gain")

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = inputs["x"]
        for block in self.blocks:
            x = block(x)
        return {"logits": self.head(self.gain * x), "pooled": K.mean(x, axis=-1), "given": inputs["y"] + 1.0}


class Slow(keras.layers.Layer):
    """What no converter knows: TensorFlow itself."""

    def call(self, x: Any) -> Any:
        import tensorflow as tf

        return tf.math.lgamma(tf.abs(x) + 1.0)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


def test_subclassed_model_with_a_dictionary_of_inputs() -> None:
    model = Subclassed()
    model({"x": np.zeros((2, 6), "float32"), "y": np.zeros((2, 1), "float32")})
    source = open_keras(model, SourceRequest(sample=(np.zeros((1, 6), "float32"), np.zeros((1, 1), "float32"))))
    agrees(source)
    assert [o.shape for o in source.outputs] == [("batch", 1), ("batch", 2), ("batch",)]
    assert not source.notes


def test_subclassed_model_never_called_asks_for_a_sample() -> None:
    with pytest.raises(SourceError, match="sample"):
        open_keras(Subclassed(), SourceRequest())


def test_importing_leaves_no_trace_in_the_model() -> None:
    model = keras.Sequential([keras.Input((4,)), L.Dense(3), L.Dense(2)])
    before = [len(layer._inbound_nodes) for layer in model.layers]
    open_keras(model, SourceRequest())
    assert [len(layer._inbound_nodes) for layer in model.layers] == before


def test_masks_cross_nested_models(tmp_path: Path) -> None:
    inner_in = keras.Input((7,), dtype="int32")
    inner = keras.Model(inner_in, L.Embedding(9, 4, mask_zero=True)(inner_in))
    outer_in = keras.Input((7,), dtype="int32")
    model = keras.Model(outer_in, L.Dense(2)(L.LSTM(5)(inner(outer_in))))
    source = open_keras(model, SourceRequest(work=tmp_path))
    assert source.model is not None
    for tokens in ([[1, 2, 0, 0, 3, 0, 0]], [[0, 0, 0, 0, 0, 0, 0]], [[0, 1, 0, 2, 0, 3, 4], [1, 1, 1, 1, 1, 1, 1]]):
        given = [np.array(tokens, np.int32)]
        np.testing.assert_allclose(reference.run(source.model, given)[0], source.reference(given)[0], atol=1e-5)
    assert source.path == tmp_path / "source.keras" and source.path.is_file()


def test_time_distributed_dense_is_one_product() -> None:
    model = keras.Sequential([keras.Input((50, 4)), L.TimeDistributed(L.Dense(3))])
    assert kinds(open_keras(model, SourceRequest())).count("MatMul") == 1


def test_free_dimensions_are_asked_for_by_name() -> None:
    model = keras.Sequential([keras.Input((None, 4), name="x"), L.LSTM(3, return_sequences=True)])
    with pytest.raises(SourceError, match="--shape x=1,"):
        open_keras(model, SourceRequest())
    source = open_keras(model, SourceRequest(shapes={"x": (1, 12, 4)}))
    assert source.inputs[0].shape == ("batch", 12, 4) and source.outputs[0].shape == ("batch", 12, 3)
    agrees(source)
    agrees(open_keras(model, SourceRequest(sample=(np.zeros((1, 5, 4), "float32"),))))
    for shapes, reason in (
        ({"z": (1, 12, 4)}, "unknown input 'z': expected one of x"),
        ({"x": (1, 12, 5)}, "expected 4"),
    ):
        with pytest.raises(SourceError, match=reason):
            open_keras(model, SourceRequest(shapes={"x": (1, 12, 4), **shapes}))


def test_unknown_code_goes_through_the_stock_export_with_a_note() -> None:
    model = keras.Sequential([keras.Input((4,)), L.Dense(3), Slow(name="gamma")])
    try:
        source = open_keras(model, SourceRequest())
    except SourceError as error:
        assert "'gamma' (Slow)" in str(error) and "\n" not in str(error)
    else:
        agrees(source, tolerance=1e-4)
        assert "'gamma' (Slow)" in source.notes[0]


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize` method")
@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_layers_that_keras_quantised_round_as_keras_does(mode: str) -> None:
    layers = [L.Embedding(20, 8), L.EinsumDense("abc,cd->abd", (None, 6), bias_axes="d"), L.Dense(3)]
    model = keras.Sequential([keras.Input((5,), dtype="int32"), *layers])
    model.quantize(mode)
    source = open_keras(model, SourceRequest())
    agrees(source, tolerance=1e-5)
    assert f"its weights are quantised to {mode}" in source.notes[0]


class Unsavable(keras.Model):
    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def call(self, x: Any) -> Any:
        return self.inner(x)

    def get_config(self) -> Any:
        raise NotImplementedError("no configuration")


def test_model_that_keras_cannot_save_is_still_imported(tmp_path: Path) -> None:
    model = Unsavable(L.Dense(3))
    model(np.zeros((2, 4), "float32"))
    source = open_keras(model, SourceRequest(work=tmp_path))
    agrees(source)
    assert source.path.is_file()
    if source.path.suffix == ".onnx":
        assert "cannot save" in source.notes[0]


def test_fingerprint_names_the_content() -> None:
    def made(seed: int) -> Any:
        keras.utils.set_random_seed(seed)
        return keras.Sequential([keras.Input((4,), name="x"), L.Dense(3, name="d")], name="m")

    prints = [open_keras(made(s), SourceRequest()).fingerprint for s in (1, 1, 2)]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize("name, size", [("MobileNetV2", 32), ("EfficientNetB0", 32), ("ResNet50", 32)])
def test_applications(name: str, size: int) -> None:
    model = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classes=10)
    source = open_keras(model, SourceRequest())
    assert not source.notes
    agrees(source, batches=(2,), tolerance=1e-4)


def test_lambda_of_an_object_needs_none() -> None:
    agrees(open_keras(keras.Sequential([keras.Input((4,)), L.Lambda(lambda x: x * 2.0)]), SourceRequest()))


def test_the_batch_of_a_first_call_is_not_the_only_one() -> None:
    model = keras.Sequential([L.Dense(8, activation="relu"), L.BatchNormalization(), L.Dense(3)])
    model(np.zeros((7, 4), np.float32))  # Keras notes (7, 4) as the shape of its input
    source = open_keras(model, SourceRequest())
    assert source.inputs[0].shape == ("batch", 4) and source.outputs[0].shape == ("batch", 3)
    agrees(source, batches=(1, 3, 7))


def test_a_batch_that_the_model_computes_across_stays_as_it_is() -> None:
    x = keras.Input(batch_shape=(4, 6))
    source = open_keras(keras.Model(x, x - K.mean(x, axis=0, keepdims=True)), SourceRequest())
    assert source.inputs[0].shape == (4, 6)


class Noisy(keras.layers.Layer):
    """Random whether it is trained or used."""

    def call(self, x: Any) -> Any:
        return x + keras.random.normal((1,))


def test_a_random_layer_is_told_as_the_reason() -> None:
    with pytest.raises(NondeterministicError, match="answers the same input in different ways"):
        open_keras(keras.Sequential([keras.Input((6,)), Noisy()]), SourceRequest())
