"""Loops of plain operators, as converters write recurrent layers today, become the layers' own nodes again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")
from tflite_builder import opened, same_answers

from hasten.graph import reference
from hasten.passes.phases import TIDY
from hasten.passes.run import run_phases
from hasten.sources import Source, SourceRequest
from hasten.sources.samples import samples
from hasten.sources.tflite import open_tflite

pytestmark = pytest.mark.frameworks


def tidied(source: Source) -> Counter[str]:
    """How often each operator occurs in the tidied graph, whose answers are held against LiteRT's."""
    assert source.model is not None, source.notes
    model, _ = run_phases(source.model, [TIDY], strict=True)
    for arrays in samples(source, SourceRequest(), 0, 3):
        for mine, theirs in zip(reference.run(model, arrays), source.reference(arrays), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=2e-6)
    return Counter(node.op_type for node in model.graph)


def test_a_loop_over_tensor_lists_runs_without_flex(shared_models: Path, tmp_path: Path) -> None:
    source = open_tflite(shared_models / "seeds" / "lstm.tflite", SourceRequest(work=tmp_path))
    assert any("tensor lists" in note for note in source.notes)
    assert source.inputs[0].shape == (1, 10, 8)
    found = tidied(source)
    assert found["LSTM"] == 1 and found["Loop"] == 0
    same_answers(source)
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(str(shared_models / "seeds" / "lstm.onnx"), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).standard_normal((1, 10, 8)).astype(np.float32)
    np.testing.assert_allclose(
        source.reference((x,))[0], session.run(None, {session.get_inputs()[0].name: x})[0], atol=1e-6
    )


@pytest.fixture(scope="module")
def looped_layers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Keras layers as TensorFlow's converter writes them at a fixed batch: loops of plain operators."""
    keras, tf = pytest.importorskip("keras"), pytest.importorskip("tensorflow")
    keras.utils.set_random_seed(0)
    more = {"return_sequences": True, "bias_initializer": "random_normal"}
    found = {}
    for name, layer in {
        "LSTM": keras.layers.LSTM(6, **more),
        "GRU": keras.layers.GRU(6, **more),
        "RNN": keras.layers.SimpleRNN(6, **more),
        "last": keras.layers.LSTM(6),
        "LSTM relu": keras.layers.LSTM(6, activation="relu", **more),
        "GRU relu": keras.layers.GRU(6, activation="relu"),
        "RNN relu": keras.layers.SimpleRNN(6, activation="relu", **more),
        "other": keras.layers.GRU(6, reset_after=False),
        "stacked": keras.Sequential(
            [keras.layers.GRU(6, **more), keras.layers.Dense(5), keras.layers.LSTM(7, **more), keras.layers.GRU(3)]
        ),
    }.items():
        call = tf.function(layer, input_signature=[tf.TensorSpec((1, 9, 4), tf.float32)])
        layer(np.zeros((1, 9, 4), np.float32))
        from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

        frozen = convert_variables_to_constants_v2(call.get_concrete_function(), lower_control_flow=False)
        found[name] = tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert()
    return found


@pytest.mark.parametrize(
    ("name", "node"),
    [
        ("LSTM", "LSTM"), ("GRU", "GRU"), ("RNN", "RNN"), ("last", "LSTM"),
        ("LSTM relu", "LSTM"), ("GRU relu", "GRU"), ("RNN relu", "RNN"),
    ],
)  # fmt: skip
def test_a_loop_of_plain_operators_is_recognised_as_its_layer(
    looped_layers: dict[str, bytes], tmp_path: Path, name: str, node: str
) -> None:
    source = opened(tmp_path, looped_layers[name])
    found = tidied(source)
    assert found[node] == 1 and found["Loop"] == 0
    same_answers(source)


def test_a_loop_that_steps_over_what_another_stacked_is_recognised(
    looped_layers: dict[str, bytes], tmp_path: Path
) -> None:
    source = opened(tmp_path, looped_layers["stacked"])
    found = tidied(source)
    assert found["GRU"] == 2 and found["LSTM"] == 1 and found["Loop"] == 0
    same_answers(source)


def test_a_loop_of_another_cell_stays_a_loop(looped_layers: dict[str, bytes], tmp_path: Path) -> None:
    source = opened(tmp_path, looped_layers["other"])
    found = tidied(source)
    assert found["Loop"] == 1 and found["GRU"] == 0
    same_answers(source)
