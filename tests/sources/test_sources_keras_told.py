"""What a Keras model's own code raises, and what cannot be converted, is told in one line; converters say nothing."""

from __future__ import annotations

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
