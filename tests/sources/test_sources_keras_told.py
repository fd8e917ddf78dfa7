"""What a Keras model's own code raises, and what cannot be converted, is told in one line; converters say nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hasten
from hasten.errors import SourceError
from hasten.sources import SourceRequest
from hasten.sources.keras import open_keras

keras = pytest.importorskip("keras")
pytestmark = pytest.mark.frameworks

L = keras.layers


class Broken(L.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        raise ValueError("my own words\nand more of them")

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor(x.shape)


class Unfitting(Broken):
    def call(self, x: Any) -> Any:
        return keras.ops.matmul(x, np.ones((5, 4), np.float32))


@pytest.mark.parametrize(
    ("layer", "words"),
    [(Broken, "Broken: my own words"), (Unfitting, r"Unfitting: \w+")],
    ids=["own code", "backend"],
)
def test_a_model_that_fails_is_one_line(layer: Any, words: str) -> None:
    model = keras.Sequential([keras.Input((4,)), layer()])
    with pytest.raises(SourceError, match=f"cannot run the Keras model: {words}") as refused:
        hasten.compile(model, engine="onnxruntime", sample=np.ones((1, 4), np.float32))
    assert "\n" not in str(refused.value) and "\x1b" not in str(refused.value)


def test_converters_log_nothing(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    weights, x = keras.Input((4,)), keras.Input((4,), dtype="int32")
    model = keras.Model([x, weights], L.CategoryEncoding(6, output_mode="count")(x, count_weights=weights))
    with pytest.raises(SourceError, match=r"'category_encoding.*weights; Keras' own ONNX export failed too"):
        open_keras(model, SourceRequest())
    assert not [record for record in caplog.records if record.name.startswith("tf2onnx")]
    assert capfd.readouterr() == ("", "")


class Transforming(L.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        import tensorflow as tf

        return tf.math.betainc(tf.sort(tf.sigmoid(x)), 0.5, 0.5)


def test_an_operation_that_onnx_lacks_is_named_with_its_layer() -> None:
    model = keras.Sequential([keras.Input((4,)), L.Dense(3, name="first"), Transforming(name="own"), L.Dense(2)])
    with pytest.raises(SourceError, match="ONNX has no operation 'Betainc', which layer 'own' calls") as refused:
        open_keras(model, SourceRequest())
    assert "ONNXRuntime" not in str(refused.value)


class Decomposing(L.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return keras.ops.eigh(x[:, :, None] * x[:, None, :])[0]


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (Transforming, "pip install jax2onnx$"),
        (Decomposing, "pip install jax2onnx, or run with KERAS_BACKEND=tensorflow$"),
    ],
    ids=["own code", "keras.ops"],
)
def test_on_jax_the_stock_export_wants_another_package(layer: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(*args: Any, **named: Any) -> None:
        raise ImportError("This requires the jax2onnx module. You can install it via `pip install jax2onnx`")

    model = keras.Sequential([keras.Input((4,)), layer()])
    monkeypatch.setattr(model, "export", export)
    with pytest.raises(SourceError, match=words) as refused:
        open_keras(model, SourceRequest())
    assert "`" not in str(refused.value)


ON_TORCH = """
import keras, torch
from hasten.errors import SourceError
from hasten.sources import SourceRequest
from hasten.sources.keras import open_keras

class Raw(keras.layers.Layer):
    def call(self, x):
        return torch.cumsum(x, -1) if self.name == "raw" else keras.ops.eigh(x[:, :, None] * x[:, None, :])[0]

for name in ("raw", "eigen"):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), Raw(name=name)])
    try:
        told = open_keras(model, SourceRequest()).notes[0]
    except SourceError as error:
        told = str(error)
    print(told)
"""


def test_what_torch_says_of_its_export_stays_off_the_terminal() -> None:
    pytest.importorskip("torch")
    run = subprocess.run(
        [sys.executable, "-c", ON_TORCH],
        env={**os.environ, "KERAS_BACKEND": "torch"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    raw, eigen = run.stdout.splitlines()
    assert "because layer 'raw' (Raw): its code calls the backend itself" in raw
    assert "aten::linalg_eigh" in eigen
    assert "Warning" not in run.stderr


class Answering(keras.Model):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        import tensorflow as tf

        return {"total": tf.reduce_sum(tf.sort(x), -1), "doubled": tf.sort(x) * 2}


def test_the_stock_export_keeps_the_names_of_the_answer() -> None:
    model = Answering()
    model(np.zeros((1, 4), np.float32))
    source = open_keras(model, SourceRequest())
    assert source.model is not None and "own ONNX export" in source.notes[0]
    assert [spec.name for spec in source.outputs] == ["doubled", "total"]
    assert [value.name for value in source.model.graph.outputs] == ["doubled", "total"]


class Normalising(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.normal = L.Normalization(mean=[0.5, 1.0, 2.0], variance=[1.0, 2.0, 3.0])
        self.normal.build((None, 3))

    def call(self, x: Any) -> Any:
        import tensorflow as tf

        return tf.sort(self.normal(x))


def test_arrays_that_a_layer_holds_become_weights_of_the_stock_export() -> None:
    model = Normalising()
    model(np.zeros((1, 3), np.float32))
    source = open_keras(model, SourceRequest())
    assert source.model is not None and "own ONNX export" in source.notes[0]
    assert [spec.name for spec in source.inputs] == [value.name for value in source.model.graph.inputs]


class Looking(keras.Model):  # type: ignore[misc]
    """Says nothing of its inputs but what its first call showed."""

    def call(self, x: Any) -> Any:
        return keras.ops.cast(x, "float32") * 2


def test_a_dtype_that_was_taken_for_granted_is_told(tmp_path: Path) -> None:
    model = Looking()
    model(np.zeros((1, 4), np.int32))
    source = open_keras(model, SourceRequest(work=tmp_path))
    assert source.inputs[0].dtype == "float32"
    assert [note for note in source.notes if "no dtypes: input 'input_0' is taken for float32; a sample" in note]
    told = open_keras(model, SourceRequest(work=tmp_path, sample=(np.zeros((1, 4), np.int32),)))
    assert told.inputs[0].dtype == "int32" and not told.notes
    declared = keras.Sequential([keras.Input((4,)), L.Dense(2)])
    assert not open_keras(declared, SourceRequest(work=tmp_path)).notes
