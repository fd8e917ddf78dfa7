"""Images in TFLite files lie channels last: what tf2onnx gets wrong when it arranges them anew is converted again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hasten.graph.reference import run
from hasten.sources import SourceRequest
from hasten.sources.tflite import open_tflite

pytest.importorskip("ai_edge_litert")
keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.frameworks
L = keras.layers


def test_a_reduction_over_channels_keeps_its_axes(tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    layers = [L.Conv2D(3, 3, activation="swish"), L.Resizing(7, 5), L.UnitNormalization()]
    model = keras.Sequential([keras.Input((8, 9, 2)), *layers])
    path = tmp_path / "model.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    source = open_tflite(path, SourceRequest(work=tmp_path / "work"))
    assert source.model is not None, source.notes
    for rows in (1, 3):
        x = np.random.default_rng(rows).standard_normal((rows, 8, 9, 2)).astype(np.float32)
        np.testing.assert_allclose(run(source.model, [x])[0], source.reference([x])[0], rtol=1e-4, atol=1e-5)
