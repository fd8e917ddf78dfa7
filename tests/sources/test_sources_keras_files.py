"""Files of models: old and new, with weights beside them, with code in them, damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from keras_held import Residual, agrees, kinds  # noqa: E402

from hasten.errors import SourceError, TrustError  # noqa: E402
from hasten.sources import SourceRequest  # noqa: E402
from hasten.sources.keras import open_keras  # noqa: E402

pytestmark = pytest.mark.frameworks

L = keras.layers


def test_seeds(shared_models: Path) -> None:
    for path in sorted((shared_models / "seeds").glob("*.keras")):
        source = open_keras(path, SourceRequest())
        assert not source.notes and source.path == path
        agrees(source, batches=(2,))
        assert kinds(source).count("MatMul") < 10


def test_old_files(shared_models: Path, tmp_path: Path) -> None:
    for path in sorted((shared_models / "real").glob("*.h5")):
        source = open_keras(path, SourceRequest(work=tmp_path / path.stem))
        assert not source.notes
        agrees(source, batches=(2,))
        again = open_keras(source.path, SourceRequest())
        given = [np.full((1, *map(int, source.inputs[0].shape[1:])), 0.3, np.float32)]
        np.testing.assert_allclose(again.reference(given)[0], source.reference(given)[0], rtol=1e-4, atol=1e-5)


def test_old_file_answers_as_its_tflite_sibling(shared_models: Path) -> None:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(
        str(shared_models / "real/resnet8.tflite")
    )
    interpreter.allocate_tensors()
    x = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype(np.float32)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    wanted = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    source = open_keras(shared_models / "real/resnet8.h5", SourceRequest())
    np.testing.assert_allclose(source.reference([x])[0], wanted, atol=1e-4)


def old_config(layers: list[dict[str, Any]]) -> dict[str, Any]:
    return {"class_name": "Sequential", "config": {"name": "old", "layers": layers}, "keras_version": "2.4.0"}


def test_architecture_with_weights_beside_it(tmp_path: Path) -> None:
    layers = [
        {
            "class_name": "Dense",
            "config": {"name": "block/a", "batch_input_shape": [None, 4], "units": 3, "activation": "relu"},
        },
        {"class_name": "LSTM", "config": {"name": "b", "units": 2, "implementation": 2, "time_major": False}},
    ]
    layers.insert(1, {"class_name": "Reshape", "config": {"name": "r", "target_shape": [3, 1]}})
    (tmp_path / "model.json").write_text(json.dumps(old_config(layers)))
    twin = keras.Sequential([keras.Input((4,)), L.Dense(3, "relu"), L.Reshape((3, 1)), L.LSTM(2)])
    twin.save(tmp_path / "model.h5")
    source = open_keras(tmp_path / "model.json", SourceRequest())
    given = [np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)]
    np.testing.assert_allclose(source.reference(given)[0], np.asarray(twin(given[0])), atol=1e-6)
    agrees(source)


def test_architecture_and_weights_of_keras_3(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), L.Dense(3)])
    (tmp_path / "net.json").write_text(model.to_json())
    model.save_weights(tmp_path / "net.weights.h5")
    agrees(open_keras(tmp_path / "net.json", SourceRequest()))


def test_architecture_alone_asks_for_its_weights(tmp_path: Path) -> None:
    (tmp_path / "net.json").write_text(keras.Sequential([keras.Input((4,)), L.Dense(3)]).to_json())
    with pytest.raises(SourceError, match="weights"):
        open_keras(tmp_path / "net.json", SourceRequest())


def test_old_functional_model_with_tensorflow_operators(tmp_path: Path) -> None:
    dense = {"units": 3, "activation": "linear", "use_bias": True}
    layers = [
        {
            "class_name": "InputLayer",
            "name": "x",
            "config": {"batch_input_shape": [None, 4], "name": "x"},
            "inbound_nodes": [],
        },
        {"class_name": "Dense", "name": "d", "config": {"name": "d", **dense}, "inbound_nodes": [[["x", 0, 0, {}]]]},
        {
            "class_name": "TFOpLambda",
            "name": "tf.math.multiply",
            "config": {"name": "tf.math.multiply", "function": "math.multiply"},
            "inbound_nodes": [["d", 0, 0, {"y": 2.0, "name": None}]],
        },
        {
            "class_name": "TFOpLambda",
            "name": "tf.add",
            "config": {"name": "tf.add", "function": "__operators__.add"},
            "inbound_nodes": [["tf.math.multiply", 0, 0, {"y": ["d", 0, 0], "name": None}]],
        },
        {
            "class_name": "SlicingOpLambda",
            "name": "cut",
            "config": {"name": "cut", "function": "__operators__.getitem"},
            "inbound_nodes": [
                [
                    "tf.add",
                    0,
                    0,
                    {
                        "slice_spec": {
                            "class_name": "__tuple__",
                            "items": [
                                {"start": None, "stop": None, "step": None},
                                {"start": 1, "stop": None, "step": None},
                            ],
                        }
                    },
                ]
            ],
        },
        {
            "class_name": "TFOpLambda",
            "name": "mean",
            "config": {"name": "mean", "function": "math.reduce_mean"},
            "inbound_nodes": [["cut", 0, 0, {"axis": -1, "keepdims": True}]],
        },
    ]
    config = {"name": "m", "layers": layers, "input_layers": [["x", 0, 0]], "output_layers": [["mean", 0, 0]]}
    (tmp_path / "m.json").write_text(
        json.dumps({"class_name": "Functional", "config": config, "keras_version": "2.9.0"})
    )
    keras.Sequential([keras.Input((4,)), L.Dense(3)]).save(tmp_path / "m.h5")
    source = open_keras(tmp_path / "m.json", SourceRequest())
    agrees(source)
    assert source.outputs[0].shape == ("batch", 1)


def test_argument_that_keras_3_lost_is_refused_where_it_matters(tmp_path: Path) -> None:
    layer = {"name": "d", "batch_input_shape": [None, 8, 8, 4], "kernel_size": [3, 3], "groups": 2}
    (tmp_path / "m.json").write_text(json.dumps(old_config([{"class_name": "DepthwiseConv2D", "config": layer}])))
    keras.Sequential([keras.Input((4,)), L.Dense(3)]).save(tmp_path / "m.h5")
    with pytest.raises(SourceError, match="groups=2"):
        open_keras(tmp_path / "m.json", SourceRequest())


def test_code_in_a_file_needs_trust(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), L.Lambda(lambda x: x * 2.0)])
    for name in ("m.keras", "m.h5"):
        model.save(tmp_path / name)
        with pytest.raises(TrustError, match="trust=True"):
            open_keras(tmp_path / name, SourceRequest())
        agrees(open_keras(tmp_path / name, SourceRequest(trust=True)))
    old = {
        "class_name": "Lambda",
        "config": {"name": "f", "batch_input_shape": [None, 4], "function": ["4wE=", None, None]},
    }
    (tmp_path / "old.json").write_text(json.dumps(old_config([old])))
    with pytest.raises(TrustError, match="Lambda"):
        open_keras(tmp_path / "old.json", SourceRequest())


def test_custom_layer_without_its_code(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((6,)), Residual()])
    model.save(tmp_path / "m.keras")
    with pytest.raises(SourceError, match=r"'Residual'.*register_keras_serializable"):
        open_keras(tmp_path / "m.keras", SourceRequest())


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"PK\x03\x04 cut off", b"\x89HDF\r\n\x1a\n cut off", b"{}", b"{ not json"]
)
def test_damaged_files_say_so_on_one_line(content: bytes, tmp_path: Path) -> None:
    for name in ("m.keras", "m.h5", "m.json"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SourceError) as caught:
            open_keras(tmp_path / name, SourceRequest())
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_truncated_archive(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), L.Dense(3)])
    for name in ("m.keras", "m.h5"):
        path = tmp_path / name
        model.save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        with pytest.raises(SourceError, match="m\\."):
            open_keras(path, SourceRequest())


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        open_keras(tmp_path / "none.keras", SourceRequest())
