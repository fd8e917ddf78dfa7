"""SavedModels and tf.functions: signatures, several inputs and outputs, what tf2onnx cannot do, bad folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

import hasten  # noqa: E402
from hasten.engines import BuildRequest, Offer, engine  # noqa: E402
from hasten.errors import SourceError  # noqa: E402
from hasten.graph import reference  # noqa: E402
from hasten.sessions import open_session  # noqa: E402
from hasten.sources import Source, SourceRequest  # noqa: E402
from hasten.sources.tensorflow import open_saved_model, open_tf_function  # noqa: E402

pytestmark = pytest.mark.frameworks


class Net(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(tf.random.stateless_normal((4, 3), (1, 2)), name="w")

    @tf.function(
        input_signature=[tf.TensorSpec((None, 4), tf.float32, name="z"), tf.TensorSpec((None, 3), tf.float32, name="a")]
    )
    def __call__(self, z: Any, a: Any) -> Any:
        y = tf.nn.relu(tf.matmul(z, self.w)) + a
        return {"second": tf.reduce_sum(y, axis=-1), "first": y}


def agrees(source: Source) -> None:
    assert source.model is not None
    for batch in (1, 3):
        rng = np.random.default_rng(batch)
        given = [rng.standard_normal(s.fixed({"batch": batch}).static_shape).astype(s.dtype) for s in source.inputs]
        for want, have in zip(source.reference(given), reference.run(source.model, given), strict=True):
            np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-5)


def test_saved_model(tmp_path: Path) -> None:
    net = Net()
    tf.saved_model.save(net, str(tmp_path / "m"), signatures=net.__call__)
    source = open_saved_model(tmp_path / "m", SourceRequest())
    assert source.framework == "tensorflow" and source.path == tmp_path / "m" and not source.notes
    assert [(s.name, s.shape) for s in source.inputs] == [("a", ("batch", 3)), ("z", ("batch", 4))]
    assert [s.shape for s in source.outputs] == [("batch", 3), ("batch",)]
    assert source.model is not None
    names = sorted(net.__call__.get_concrete_function().structured_outputs)
    assert [s.name for s in source.outputs] == [v.name for v in source.model.graph.outputs] == names
    agrees(source)
    assert source.fingerprint == open_saved_model(tmp_path / "m", SourceRequest()).fingerprint


@pytest.mark.parametrize("path", ["signature", "xla"])
def test_call_paths_of_a_saved_model(path: str, tmp_path: Path) -> None:
    net = Net()
    tf.saved_model.save(net, str(tmp_path / "m"), signatures=net.__call__)
    source = open_saved_model(tmp_path / "m", SourceRequest())
    offered = engine("keras").candidates(Offer("tensorflow", "", has_graph=True, threads=(1,)))
    candidate = next(c for c in offered if c.option("path") == path)
    one = {"batch": 1}
    inputs, outputs = (tuple(s.fixed(one) for s in specs) for specs in (source.inputs, source.outputs))
    request = BuildRequest(candidate, None, source.path, "tensorflow", inputs, outputs, tmp_path / "built")
    session = open_session(engine("keras").build(request))
    given = [np.random.default_rng(0).standard_normal(s.static_shape).astype(np.float32) for s in inputs]
    for have, want in zip(session.call(*given), source.reference(given), strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-6, atol=1e-6)


def test_function_with_a_signature(tmp_path: Path) -> None:
    net = Net()
    source = open_tf_function(net.__call__, SourceRequest(work=tmp_path))
    assert source.path.is_dir() and len(source.inputs) == 2 and len(source.outputs) == 2
    agrees(source)


def test_function_by_its_sample() -> None:
    w = tf.constant(np.random.default_rng(0).standard_normal((4, 2)).astype(np.float32))

    @tf.function
    def f(x: Any) -> Any:
        return tf.nn.softmax(tf.matmul(x, w))

    with pytest.raises(SourceError, match="sample"):
        open_tf_function(f, SourceRequest())
    source = open_tf_function(f, SourceRequest(sample=(np.zeros((1, 4), np.float32),)))
    assert source.inputs[0].shape == ("batch", 4) and source.outputs[0].shape == ("batch", 2)
    agrees(source)


class Nested(tf.Module):
    @tf.function
    def __call__(self, x: Any, parts: Any, scale: float = 2.0) -> Any:
        return {"y": x * scale + parts[0], "z": [parts[1]["k"] * 3]}


def drawn(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("held", "taken"), [("float32", "float32"), ("float64", "float64")])
def test_float64_is_narrowed_where_the_function_does_not_take_it(held: str, taken: str) -> None:
    weights = tf.constant(np.ones((4, 2)), held)
    with hasten.compile(tf.function(lambda x: x @ weights), engine="onnxruntime", sample=np.ones((1, 4))) as fast:
        assert fast.inputs[0].dtype == taken
        assert fast(np.ones((1, 4), taken)).tolist() == [[4, 4]]


X, PARTS = drawn(1, 4), (drawn(1, 4) + 1, {"k": drawn(1, 2)})


@pytest.mark.parametrize("sample", [(X, PARTS), {"x": X, "parts": PARTS}], ids=["by place", "by name"])
def test_structures_are_named_by_their_keys_and_places(sample: Any) -> None:
    fast = hasten.compile(Nested(), engine="onnxruntime", sample=sample)
    assert [spec.name for spec in fast.inputs] == ["parts_0", "parts_1_k", "x"]
    y, z = fast.predict([PARTS[0], PARTS[1]["k"], X])
    np.testing.assert_allclose(y, X * 2 + PARTS[0], rtol=1e-6)
    np.testing.assert_allclose(z, PARTS[1]["k"] * 3, rtol=1e-6)


def test_answers_keep_their_keys() -> None:
    class Parts(NamedTuple):
        mean: Any
        spread: Any

    answers: dict[str, Callable[[Any], Any]] = {
        "logits, x_out": lambda x: {"x": x + 1, "logits": x * 2, "none": None},
        "mean, spread": lambda x: Parts(x, x * 2),
        "h_u, h_v, l_0, l_1": lambda x: {"l": [x, x * 2], "h": {"v": x * 3, "u": x * 4}},
        "output_0_a, output_1_a": lambda x: [{"a": x}, {"a": x * 2}],
        "output_000, output_001": lambda x: (x, x * 2),
    }
    for names, answer in answers.items():
        made = tf.function(answer, input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
        source = open_tf_function(made, SourceRequest())
        assert source.model is not None
        assert ", ".join(spec.name for spec in source.outputs) == names
        assert [value.name for value in source.model.graph.outputs] == names.split(", ")
        agrees(source)
    made = tf.function(lambda x: {"twice": x * 2, "more": x + 1}, input_signature=made.input_signature)
    fast = hasten.compile(made, engine="onnxruntime")
    assert fast.info()["outputs"] == ["more: float32[batch, 4]", "twice: float32[batch, 4]"]
    np.testing.assert_allclose(fast(X)[1], X * 2)


@pytest.mark.parametrize("signed", [False, True])
def test_a_module_of_one_dict_takes_its_keys(signed: bool) -> None:
    spec = {key: tf.TensorSpec((None, 4), tf.float32, name=key) for key in ("b", "a")}

    class Difference(tf.Module):
        @tf.function(input_signature=[spec] if signed else None)
        def __call__(self, parts: Any) -> Any:
            return parts["a"] - 2 * parts["b"]

    source = open_tf_function(Difference(), SourceRequest(example={"b": X, "a": PARTS[0]}))
    assert [spec.name for spec in source.inputs] == ["a", "b"]
    agrees(source)
    np.testing.assert_allclose(source.reference([PARTS[0], X])[0], PARTS[0] - 2 * X, rtol=1e-6)


def test_a_sample_in_the_function_s_own_order_is_told_apart_by_name() -> None:
    fast = hasten.compile(tf.function(lambda b, a: b - 2 * a), engine="onnxruntime", sample=(drawn(1, 3), drawn(1, 1)))
    assert [str(spec) for spec in fast.inputs] == ["a: float32[batch, 1]", "b: float32[batch, 3]"]


def test_concrete_function_at_a_fixed_batch() -> None:
    concrete = tf.function(lambda x: tf.sin(x)).get_concrete_function(tf.TensorSpec((2, 3), tf.float32))
    source = open_tf_function(concrete, SourceRequest())
    assert source.inputs[0].shape == (2, 3)
    agrees(source)


def test_free_dimensions_are_asked_for() -> None:
    f = tf.function(lambda x: x * 2.0, input_signature=[tf.TensorSpec((None, None, 3), tf.float32, name="x")])
    with pytest.raises(SourceError, match="--shape x="):
        open_tf_function(f, SourceRequest())
    assert open_tf_function(f, SourceRequest(shapes={"x": (1, 5, 3)})).inputs[0].shape == ("batch", 5, 3)
    for shapes, reason in (
        ({"z": (1, 5, 3)}, "unknown input 'z': expected one of x"),
        ({"x": (1, 5, 4)}, "expected 3"),
    ):
        with pytest.raises(SourceError, match=reason):
            open_tf_function(f, SourceRequest(shapes={"x": (1, 5, 3), **shapes}))


def test_what_tf2onnx_cannot_convert_keeps_its_own_candidates(tmp_path: Path) -> None:
    class Table(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            init = tf.lookup.KeyValueTensorInitializer(tf.constant([1, 2], tf.int64), tf.constant([0.5, 0.7]))
            self.table = tf.lookup.StaticHashTable(init, -1.0)

        @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.int64, name="x")])
        def __call__(self, x: Any) -> Any:
            return self.table.lookup(x)

    net = Table()
    tf.saved_model.save(net, str(tmp_path / "m"), signatures=net.__call__)
    source = open_saved_model(tmp_path / "m", SourceRequest())
    assert source.model is None and "tf2onnx" in source.notes[0]
    assert source.outputs[0].shape == ("batch", 3)
    np.testing.assert_allclose(source.reference([np.array([[1, 2, 3]])])[0], [[0.5, 0.7, -1.0]])


def test_an_operator_without_an_onnx_form_is_named() -> None:
    frames = tf.TensorSpec((None, 64), tf.float32)
    model = tf.function(lambda x: tf.abs(tf.signal.stft(x, 16, 8)), input_signature=[frames])
    source = open_tf_function(model, SourceRequest())
    assert source.model is None
    assert source.notes[0].endswith("(operators ComplexAbs have no ONNX form)"), source.notes


def test_signatures_without_a_default(tmp_path: Path) -> None:
    net = Net()
    tf.saved_model.save(net, str(tmp_path / "one"), signatures={"score": net.__call__})
    assert open_saved_model(tmp_path / "one", SourceRequest()).notes == ("signature 'score'",)
    tf.saved_model.save(net, str(tmp_path / "two"), signatures={"a": net.__call__, "b": net.__call__})
    with pytest.raises(SourceError, match="a, b"):
        open_saved_model(tmp_path / "two", SourceRequest())


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"saved_model\.pb"):
        open_saved_model(tmp_path, SourceRequest())
    (tmp_path / "saved_model.pb").write_bytes(b"cut off")
    with pytest.raises(SourceError, match="whole folder"):
        open_saved_model(tmp_path, SourceRequest())


def test_keras_export_is_a_saved_model(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((6, 3)), keras.layers.LSTM(4), keras.layers.Dense(2)])
    model.export(tmp_path / "m", verbose=False)
    agrees(open_saved_model(tmp_path / "m", SourceRequest()))
