"""Models whose rows depend on one another: the batch gets a number, and no other number of rows is answered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

import hasten
from hasten.api import Settings
from hasten.errors import InputError, SettingsError
from hasten.sources import SourceRequest
from hasten.sources.dims import rows_independent, rows_mix
from hasten.sources.keras.source import open_keras
from hasten.types import Array

X = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)


def _onnx() -> Any:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "m"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy"]
    graph = helper.make_graph(nodes, "centred", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _keras() -> Any:
    keras = pytest.importorskip("keras")

    class Centred(keras.layers.Layer):  # type: ignore[misc, name-defined]
        def call(self, x: Any) -> Any:
            return x - keras.ops.mean(x, axis=0, keepdims=True)

    return keras.Sequential([keras.Input((3,)), Centred()])


def _tensorflow() -> Any:
    tf = pytest.importorskip("tensorflow")
    spec = [tf.TensorSpec((None, 3), tf.float32)]
    return tf.function(lambda x: x - tf.reduce_mean(x, axis=0, keepdims=True), input_signature=spec)


def _torch() -> Any:
    torch = pytest.importorskip("torch")

    class Centred(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return x - x.mean(0, keepdim=True)

    return Centred()


MAKERS: list[Callable[[], Any]] = [_onnx, _keras, _tensorflow, _torch]


@pytest.mark.frameworks
@pytest.mark.parametrize("make", MAKERS)
def test_rows_that_mix_are_answered_as_by_the_source_or_refused(make: Callable[[], Any], tmp_path: Path) -> None:
    model = make()
    whole = hasten.compile(model, sample=X, engine="onnxruntime")
    assert whole.inputs[0].shape == (4, 3)
    np.testing.assert_allclose(whole.predict(X), X - X.mean(0), atol=1e-6)
    with pytest.raises(InputError, match=r"expected float32\[4, 3\], received float32\[2, 3\]"):
        whole.predict(X[:2])

    single = hasten.load(hasten.compile(model, sample=X[:1], engine="onnxruntime").save(tmp_path / "one.hasten"))
    np.testing.assert_array_equal(single.predict(X[:1]), np.zeros((1, 3)))
    np.testing.assert_array_equal(single.predict_single(X[0]), np.zeros(3))
    assert single.predict(X[:0]).shape == (0, 3)
    with pytest.raises(InputError, match="cannot split 4 rows: in this model the answer to a row depends on those"):
        single.predict(X)


@pytest.mark.frameworks
@pytest.mark.parametrize("make", MAKERS)
def test_another_batch_is_refused_with_the_way_to_it(make: Callable[[], Any]) -> None:
    wanted = (
        r"batch: expected none, received 4: in this model the answer to a row depends on the rows beside it, so it is "
        r"compiled for as many rows as its sample has \(.*float32\[1, 3\]\); give a sample of that many rows instead"
    )
    with pytest.raises(SettingsError, match=wanted):
        hasten.compile(make(), sample=X[:1], engine="onnxruntime", settings=Settings(batch=4))


@pytest.mark.frameworks
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_rounding_to_halves_is_no_mixing(policy: str, tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        layers = [keras.layers.Dense(64, activation="relu") for _ in range(6)]
        model = keras.Sequential([keras.Input((50,)), *layers, keras.layers.Dense(10, activation="softmax")])
    finally:
        keras.config.set_dtype_policy(before)
    source = open_keras(model, SourceRequest(work=tmp_path))
    assert not source.rows_mix and source.inputs[0].is_batched


def test_what_refuses_three_rows_is_neither() -> None:
    def refusing(arrays: Any) -> tuple[Array, ...]:
        if len(arrays[0]) > 1:
            raise InputError("one row at a time")
        return tuple(arrays)

    assert not rows_independent(refusing, [X[:3]])
    assert not rows_mix(refusing, [X[:3]])
    assert rows_independent(lambda arrays: arrays, [X[:3]])
    assert rows_mix(lambda arrays: [arrays[0].cumsum(0)], [X[:3]])


def test_what_may_be_rounding_is_not_called_mixing() -> None:
    apart = X[:3] * np.linspace(1, 1.005, 3, dtype=np.float32)[:, None]

    def rounding(arrays: Any) -> tuple[Array, ...]:
        return (apart,) if len(arrays[0]) == 3 else tuple(arrays)

    assert not rows_independent(rounding, [X[:3]])
    assert not rows_mix(rounding, [X[:3]])
