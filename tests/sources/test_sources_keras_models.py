"""Whole models: subclassed, nested, shared, applications, files old and new, bad files, the stock export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from hasten.errors import NondeterministicError, SourceError, TrustError  # noqa: E402
from hasten.graph import reference  # noqa: E402
from hasten.sources import Source, SourceRequest  # noqa: E402
from hasten.sources.keras import open_keras  # noqa: E402

pytestmark = pytest.mark.frameworks

L = keras.layers
K = keras.ops


def agrees(source: Source, *, batches: tuple[int, ...] = (1, 3), tolerance: float = 1e-5) -> None:
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


def test_lambda_of_an_object_needs_none() -> None:
    agrees(open_keras(keras.Sequential([keras.Input((4,)), L.Lambda(lambda x: x * 2.0)]), SourceRequest()))


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
