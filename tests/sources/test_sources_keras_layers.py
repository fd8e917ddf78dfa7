"""Every layer and option that the importer knows, one small model each, held against Keras itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

keras = pytest.importorskip("keras")

from keras_held import chain, check, graph  # noqa: E402

pytestmark = pytest.mark.frameworks

L = keras.layers
K = keras.ops


class Scaled(keras.layers.Layer):
    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(shape[-1],), name="scale")
        self.shift = self.add_weight(shape=(shape[-1],), name="shift")

    def call(self, x: Any) -> Any:
        rows = K.reshape(x, (K.shape(x)[0], -1, 3))
        mean = K.mean(self.shift / (1.0 + K.square(rows)[:, :1, :1]), axis=(1, 2), keepdims=True)
        return self.scale * x - self.shift + mean


ACTIVATIONS = [
    "relu",
    "leaky_relu",
    "relu6",
    "softmax",
    "celu",
    "elu",
    "selu",
    "softplus",
    "softsign",
    "squareplus",
    "soft_shrink",
    "sparse_plus",
    "silu",
    "gelu",
    "glu",
    "tanh",
    "tanh_shrink",
    "sigmoid",
    "sparse_sigmoid",
    "exponential",
    "hard_sigmoid",
    "hard_silu",
    "hard_tanh",
    "hard_shrink",
    "linear",
    "mish",
    "log_softmax",
    "log_sigmoid",
]

SIMPLE: dict[str, Callable[[], Any]] = {
    # dense and friends
    "dense": lambda: chain((5,), L.Dense(3)),
    "dense without bias": lambda: chain((5,), L.Dense(3, use_bias=False, activation="tanh")),
    "dense on rank 3": lambda: chain((4, 5), L.Dense(3, activation="relu")),
    "dense on rank 4": lambda: chain((2, 4, 5), L.Dense(3)),
    "einsum dense": lambda: chain((4, 6), L.EinsumDense("abc,cde->abde", output_shape=(None, 2, 3), bias_axes="de")),
    "einsum dense ellipsis": lambda: chain((4, 6), L.EinsumDense("...x,xy->...y", output_shape=7, bias_axes="y")),
    "einsum dense two axes": lambda: chain((4, 2, 3), L.EinsumDense("abcd,cde->abe", output_shape=(None, 5))),
    "embedding": lambda: chain((6,), L.Embedding(9, 4), dtype="int32"),
    "embedding of floats": lambda: chain((6,), L.Rescaling(0.0, 2.0), L.Embedding(9, 4)),
    "reversible embedding": lambda: chain((6,), L.ReversibleEmbedding(9, 4), dtype="int32"),
    # convolutions
    "conv1d": lambda: chain((9, 3), L.Conv1D(4, 3)),
    "conv1d same strided": lambda: chain((9, 3), L.Conv1D(4, 4, strides=2, padding="same", activation="relu")),
    "conv1d causal dilated": lambda: chain((9, 3), L.Conv1D(4, 3, padding="causal", dilation_rate=2)),
    "conv1d one channel": lambda: chain((9, 1), L.Conv1D(4, 3)),
    "conv1d to one channel": lambda: chain((9, 3), L.Conv1D(1, 3)),
    "conv2d": lambda: chain((8, 7, 3), L.Conv2D(4, (3, 2), use_bias=False)),
    "conv2d same strided even": lambda: chain((8, 7, 3), L.Conv2D(4, 3, strides=2, padding="same")),
    "conv2d dilated same": lambda: chain((8, 7, 3), L.Conv2D(4, 3, dilation_rate=(2, 1), padding="same")),
    "conv2d groups": lambda: chain((8, 7, 4), L.Conv2D(6, 3, groups=2)),
    "conv3d": lambda: chain((5, 6, 4, 2), L.Conv3D(3, 2, strides=(1, 2, 1), padding="same")),
    "conv1d transpose valid": lambda: chain((5, 3), L.Conv1DTranspose(4, 3, strides=2)),
    "conv1d transpose same": lambda: chain((5, 3), L.Conv1DTranspose(4, 3, strides=2, padding="same")),
    "conv1d transpose wide stride": lambda: chain((5, 3), L.Conv1DTranspose(4, 2, strides=3)),
    "conv1d transpose wide stride same": lambda: chain((5, 3), L.Conv1DTranspose(4, 2, strides=4, padding="same")),
    "conv1d transpose dilated": lambda: chain((5, 3), L.Conv1DTranspose(4, 3, dilation_rate=2)),
    "conv2d transpose": lambda: chain((4, 5, 3), L.Conv2DTranspose(2, (3, 4), strides=(2, 1), padding="same")),
    "conv2d transpose output padding": lambda: chain(
        (4, 5, 3), L.Conv2DTranspose(2, 3, strides=2, padding="same", output_padding=1)
    ),
    "conv2d transpose valid output padding": lambda: chain(
        (4, 5, 3), L.Conv2DTranspose(2, 3, strides=2, output_padding=1)
    ),
    "conv2d transpose dilated same": lambda: chain((4, 5, 3), L.Conv2DTranspose(2, 3, dilation_rate=2, padding="same")),
    "conv3d transpose": lambda: chain((3, 4, 2, 2), L.Conv3DTranspose(3, 3, strides=2, padding="same")),
    "separable conv1d": lambda: chain((9, 3), L.SeparableConv1D(4, 3, depth_multiplier=2, padding="same")),
    "separable conv2d": lambda: chain(
        (8, 7, 3), L.SeparableConv2D(4, 3, depth_multiplier=2, strides=2, activation="relu")
    ),
    "depthwise conv1d": lambda: chain((9, 3), L.DepthwiseConv1D(3, depth_multiplier=2)),
    "depthwise conv2d": lambda: chain((8, 7, 3), L.DepthwiseConv2D(3, strides=2, padding="same", activation="relu")),
    "depthwise conv2d multiplier": lambda: chain((8, 7, 3), L.DepthwiseConv2D(3, depth_multiplier=3)),
    "depthwise conv2d dilated": lambda: chain((9, 9, 3), L.DepthwiseConv2D(3, dilation_rate=2, padding="same")),
    # pooling
    "max pooling 1d": lambda: chain((9, 3), L.MaxPooling1D(3, strides=2, padding="same")),
    "max pooling 2d": lambda: chain((8, 7, 3), L.MaxPooling2D()),
    "max pooling 2d same": lambda: chain((8, 7, 3), L.MaxPooling2D(3, strides=2, padding="same")),
    "max pooling 3d": lambda: chain((5, 6, 4, 2), L.MaxPooling3D(2, padding="same")),
    "average pooling 1d": lambda: chain((9, 3), L.AveragePooling1D(2)),
    "average pooling 2d same": lambda: chain((8, 7, 3), L.AveragePooling2D(3, strides=2, padding="same")),
    "average pooling 3d same": lambda: chain((5, 6, 4, 2), L.AveragePooling3D(3, strides=2, padding="same")),
    "global average 1d": lambda: chain((9, 3), L.GlobalAveragePooling1D()),
    "global average 2d keep": lambda: chain((8, 7, 3), L.GlobalAveragePooling2D(keepdims=True)),
    "global average 3d": lambda: chain((5, 6, 4, 2), L.GlobalAveragePooling3D()),
    "global max 1d keep": lambda: chain((9, 3), L.GlobalMaxPooling1D(keepdims=True)),
    "global max 2d": lambda: chain((8, 7, 3), L.GlobalMaxPooling2D()),
    "global max 3d": lambda: chain((5, 6, 4, 2), L.GlobalMaxPooling3D()),
    "adaptive average 1d": lambda: chain((9, 3), L.AdaptiveAveragePooling1D(4)),
    "adaptive average 2d": lambda: chain((8, 7, 3), L.AdaptiveAveragePooling2D((4, 3))),
    "adaptive max 2d": lambda: chain((8, 7, 3), L.AdaptiveMaxPooling2D(3)),
    "adaptive max 3d": lambda: chain((5, 6, 4, 2), L.AdaptiveMaxPooling3D(2)),
    # normalisation
    "batch norm rank 2": lambda: chain((5,), L.BatchNormalization()),
    "batch norm rank 3": lambda: chain((4, 5), L.BatchNormalization(epsilon=1e-2)),
    "batch norm rank 4": lambda: chain((4, 3, 5), L.BatchNormalization(center=False)),
    "batch norm axis 1": lambda: chain((4, 3, 5), L.BatchNormalization(axis=1, scale=False)),
    "batch norm axis 2": lambda: chain((4, 3, 5), L.BatchNormalization(axis=2)),
    "layer norm": lambda: chain((4, 5), L.LayerNormalization()),
    "layer norm bare": lambda: chain((4, 5), L.LayerNormalization(center=False, scale=False)),
    "layer norm no scale": lambda: chain((4, 5), L.LayerNormalization(scale=False)),
    "layer norm axes": lambda: chain((4, 5, 3), L.LayerNormalization(axis=(2, 3))),
    "layer norm inner axis": lambda: chain((4, 5, 3), L.LayerNormalization(axis=1)),
    "layer norm rms": lambda: chain((4, 5), L.LayerNormalization(rms_scaling=True)),
    "rms norm": lambda: chain((4, 5), L.RMSNormalization()),
    "group norm": lambda: chain((4, 5, 6), L.GroupNormalization(groups=3)),
    "group norm channels first": lambda: chain((6, 5), L.GroupNormalization(groups=2, axis=1)),
    "instance norm": lambda: chain((4, 5, 6), L.GroupNormalization(groups=-1, scale=False)),
    "unit norm": lambda: chain((4, 5), L.UnitNormalization()),
    "unit norm axes": lambda: chain((4, 5), L.UnitNormalization(axis=(1, 2))),
    "spectral norm": lambda: chain((8, 7, 3), L.SpectralNormalization(L.Conv2D(4, 3))),
    # activation layers
    "relu layer": lambda: chain((6,), L.ReLU()),
    "relu bounded": lambda: chain((6,), L.ReLU(max_value=0.5)),
    "relu sloped": lambda: chain((6,), L.ReLU(negative_slope=0.2, max_value=0.5)),
    "relu threshold": lambda: chain((6,), L.ReLU(threshold=0.3, negative_slope=0.1)),
    "leaky relu layer": lambda: chain((6,), L.LeakyReLU(negative_slope=0.07)),
    "prelu": lambda: chain((4, 6), L.PReLU()),
    "prelu shared": lambda: chain((4, 5, 6), L.PReLU(shared_axes=[1, 2])),
    "elu layer": lambda: chain((6,), L.ELU(alpha=0.4)),
    "softmax layer": lambda: chain((4, 6), L.Softmax(axis=1)),
    "softmax axes": lambda: chain((4, 6), L.Softmax(axis=(1, 2))),
    "gelu tanh": lambda: chain((6,), L.Lambda(lambda x: keras.activations.gelu(x, approximate=True))),
    # shapes
    "reshape": lambda: chain((4, 6), L.Reshape((3, 8)), L.Reshape((-1, 2))),
    "permute": lambda: chain((4, 6, 2), L.Permute((3, 1, 2))),
    "flatten": lambda: chain((4, 6, 2), L.Flatten()),
    "flatten channels first": lambda: chain((4, 6, 2), L.Flatten(data_format="channels_first")),
    "flatten rank 2": lambda: chain((4,), L.Flatten()),
    "flatten scalar": lambda: chain((), L.Flatten()),
    "repeat vector": lambda: chain((4,), L.RepeatVector(3)),
    "cropping 1d": lambda: chain((9, 2), L.Cropping1D((2, 1))),
    "cropping 2d": lambda: chain((9, 8, 2), L.Cropping2D(((1, 2), (0, 3)))),
    "cropping 2d first": lambda: chain((2, 9, 8), L.Cropping2D(1, data_format="channels_first")),
    "cropping 3d": lambda: chain((5, 6, 4, 2), L.Cropping3D(1)),
    "zero padding 1d": lambda: chain((9, 2), L.ZeroPadding1D((2, 1))),
    "zero padding 2d": lambda: chain((4, 3, 2), L.ZeroPadding2D(((1, 2), (0, 3)))),
    "zero padding 2d first": lambda: chain((2, 4, 3), L.ZeroPadding2D(1, data_format="channels_first")),
    "zero padding 3d": lambda: chain((2, 3, 2, 2), L.ZeroPadding3D(1)),
    "up sampling 1d": lambda: chain((4, 2), L.UpSampling1D(3)),
    "up sampling 2d": lambda: chain((4, 3, 2), L.UpSampling2D((2, 3))),
    "up sampling 2d bilinear": lambda: chain((4, 3, 2), L.UpSampling2D((2, 3), interpolation="bilinear")),
    "up sampling 2d bicubic": lambda: chain((4, 5, 2), L.UpSampling2D(2, interpolation="bicubic")),
    "up sampling 2d first": lambda: chain((2, 4, 3), L.UpSampling2D(2, data_format="channels_first")),
    "up sampling 3d": lambda: chain((2, 3, 2, 2), L.UpSampling3D((2, 1, 2))),
    "resizing bilinear": lambda: chain((7, 9, 3), L.Resizing(5, 12)),
    "resizing nearest": lambda: chain((7, 9, 3), L.Resizing(14, 5, interpolation="nearest")),
    "resizing crop": lambda: chain((8, 12, 3), L.Resizing(6, 6, crop_to_aspect_ratio=True)),
    "center crop": lambda: chain((8, 9, 3), L.CenterCrop(4, 5)),
    # idle at inference
    "dropouts": lambda: chain(
        (4, 5), L.Dropout(0.4), L.SpatialDropout1D(0.2), L.GaussianNoise(0.3), L.AlphaDropout(0.2)
    ),
    "gaussian dropout": lambda: chain((4, 5), L.GaussianDropout(0.4), L.ActivityRegularization(), L.Identity()),
    # preprocessing
    "rescaling": lambda: chain((4, 5), L.Rescaling(1 / 127.5, -1.0)),
    "rescaling per channel": lambda: chain((4, 3), L.Rescaling([0.5, 0.2, 0.1], [1.0, 2.0, 3.0])),
    "normalization": lambda: chain((3,), L.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 0.5])),
    "normalization invert": lambda: chain((3,), L.Normalization(mean=0.5, variance=2.0, invert=True)),
    "discretization": lambda: chain((4,), L.Discretization(bin_boundaries=[-0.5, 0.0, 0.7])),
    "discretization one hot": lambda: chain(
        (1,), L.Discretization(bin_boundaries=[-0.5, 0.0, 0.7], output_mode="one_hot")
    ),
    "category one hot": lambda: chain((1,), L.CategoryEncoding(6, output_mode="one_hot"), dtype="int32"),
    "category multi hot": lambda: chain((4,), L.CategoryEncoding(6), dtype="int32"),
    "category count": lambda: chain((4,), L.CategoryEncoding(6, output_mode="count"), dtype="int32"),
    # merging
    "add": lambda: graph((4,), (4,), to=lambda a, b: L.Add()([a, b])),
    "add three broadcast": lambda: graph((3, 4), (1, 4), (3, 1), to=lambda a, b, c: L.Add()([a, b, c])),
    "subtract": lambda: graph((4,), (4,), to=lambda a, b: L.Subtract()([a, b])),
    "multiply": lambda: graph((4,), (4,), to=lambda a, b: L.Multiply()([a, b])),
    "average": lambda: graph((4,), (4,), to=lambda a, b: L.Average()([a, b])),
    "maximum": lambda: graph((4,), (4,), to=lambda a, b: L.Maximum()([a, b])),
    "minimum": lambda: graph((4,), (4,), to=lambda a, b: L.Minimum()([a, b])),
    "merge unlike ranks": lambda: graph((3, 4), (4,), to=lambda a, b: L.Add()([a, b])),
    "variables in a custom layer": lambda: chain((4, 6), Scaled()),
    "concatenate": lambda: graph((3, 4), (3, 2), to=lambda a, b: L.Concatenate()([a, b])),
    "concatenate axis 1": lambda: graph((3, 4), (2, 4), to=lambda a, b: L.Concatenate(axis=1)([a, b])),
    "dot": lambda: graph((4,), (4,), to=lambda a, b: L.Dot(axes=1)([a, b])),
    "dot rank 3": lambda: graph((3, 4), (5, 4), to=lambda a, b: L.Dot(axes=-1)([a, b])),
    "dot mixed axes": lambda: graph((3, 4), (4, 5), to=lambda a, b: L.Dot(axes=(2, 1))([a, b])),
    "dot cosine": lambda: graph((4,), (4,), to=lambda a, b: L.Dot(axes=1, normalize=True)([a, b])),
    # attention
    "attention": lambda: graph((3, 4), (5, 4), to=lambda q, v: L.Attention()([q, v])),
    "attention scaled causal": lambda: graph(
        (5, 4), (5, 4), (5, 4), to=lambda q, v, k: L.Attention(use_scale=True)([q, v, k], use_causal_mask=True)
    ),
    "attention concat": lambda: graph((3, 4), (5, 4), to=lambda q, v: L.Attention(score_mode="concat")([q, v])),
    "attention scores": lambda: graph(
        (3, 4), (5, 4), to=lambda q, v: list(L.Attention()([q, v], return_attention_scores=True))
    ),
    "additive attention": lambda: graph((3, 4), (5, 4), to=lambda q, v: L.AdditiveAttention()([q, v])),
    "multi head": lambda: graph((5, 6), to=lambda x: L.MultiHeadAttention(2, 3)(x, x)),
    "multi head cross": lambda: graph(
        (3, 6), (5, 4), to=lambda q, v: L.MultiHeadAttention(2, 3, value_dim=5, output_shape=7)(q, v)
    ),
    "multi head causal": lambda: graph((5, 6), to=lambda x: L.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True)),
    "multi head scores": lambda: graph(
        (5, 6), to=lambda x: list(L.MultiHeadAttention(2, 3, use_bias=False)(x, x, return_attention_scores=True))
    ),
    "multi head rank 4": lambda: graph((2, 5, 6), to=lambda x: L.MultiHeadAttention(2, 3, attention_axes=2)(x, x)),
    "multi head mask": lambda: graph(
        (5, 6), (5, 5), to=lambda x, m: L.MultiHeadAttention(2, 3)(x, x, attention_mask=m > -1.0)
    ),
    "multi head causal with dropout": lambda: graph(
        (5, 8), to=lambda x: L.MultiHeadAttention(2, 4, dropout=0.1)(x, x, use_causal_mask=True)
    ),
    "grouped query with dropout": lambda: graph((5, 6), to=lambda x: L.GroupQueryAttention(4, 4, 2, dropout=0.2)(x, x)),
    "random augmentation": lambda: chain((8, 8, 3), L.RandomFlip(), L.RandomRotation(0.1), L.RandomZoom(0.2)),
    "grouped query": lambda: graph((5, 6), to=lambda x: L.GroupQueryAttention(4, 4, 2)(x, x)),
    "grouped query causal": lambda: graph(
        (5, 6), to=lambda x: L.GroupQueryAttention(4, 4, 2)(x, x, use_causal_mask=True)
    ),
    # wrappers
    "time distributed dense": lambda: chain((6, 4), L.TimeDistributed(L.Dense(3, activation="sigmoid"))),
    "time distributed conv": lambda: chain(
        (3, 8, 7, 2), L.TimeDistributed(L.Conv2D(3, 3)), L.TimeDistributed(L.Flatten())
    ),
    "time distributed lstm": lambda: chain((3, 5, 2), L.TimeDistributed(L.LSTM(4))),
    "time distributed model": lambda: chain((3, 5), L.TimeDistributed(chain((5,), L.Dense(4), L.BatchNormalization()))),
    # whole models
    "nested shared": lambda: graph((5,), (5,), to=_siamese),
    "several outputs": lambda: graph((5,), to=lambda x: {"b": L.Dense(2)(x), "a": L.Dense(3)(x)}),
    "input as output": lambda: graph((5,), to=lambda x: [x, L.Dense(2)(x), x]),
    "channels first conv": lambda: chain(
        (3, 8, 7),
        L.Conv2D(4, 3, data_format="channels_first", padding="same"),
        L.MaxPooling2D(2, data_format="channels_first"),
        L.DepthwiseConv2D(2, data_format="channels_first", padding="same"),
        L.Conv2DTranspose(2, 3, strides=2, data_format="channels_first"),
    ),
    "channels first": lambda: chain(
        (3, 8, 7),
        L.ZeroPadding2D(1, data_format="channels_first"),
        L.BatchNormalization(axis=1),
        L.GlobalAveragePooling2D(data_format="channels_first"),
    ),
}


def _siamese(a: Any, b: Any) -> Any:
    shared = chain((5,), L.Dense(4, activation="relu"), L.Dense(3))
    return L.Concatenate()([shared(a), shared(b), L.Subtract()([shared(a), shared(b)])])


@pytest.mark.parametrize("name", SIMPLE)
def test_layer(name: str) -> None:
    check(SIMPLE[name]())


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name: str) -> None:
    check(chain((4, 6), L.Activation(name)))


@pytest.mark.parametrize("policy, tolerance", [("mixed_float16", 2e-2), ("float16", 5e-2)])
def test_dtype_policies(policy: str, tolerance: float) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        model = chain(
            (8, 6),
            L.Conv1D(4, 3, padding="same", activation="relu"),
            L.BatchNormalization(),
            L.LayerNormalization(),
            L.Dense(5, activation="gelu"),
            L.GlobalAveragePooling1D(),
            L.Dense(3, activation="softmax", dtype="float32" if policy.startswith("mixed") else None),
            dtype="float32",
        )
    finally:
        keras.config.set_dtype_policy("float32")
    check(model, tolerance=tolerance)


LAYERS_OF_SEQUENCES: list[Callable[[Any], Any]] = [
    lambda n: L.Dense(n + 1, activation="relu"),
    lambda n: L.Conv1D(n + 1, 3, padding="same", activation="tanh"),
    lambda n: L.Conv1D(n + 1, 2, padding="causal", dilation_rate=2),
    lambda n: L.BatchNormalization(),
    lambda n: L.LayerNormalization(),
    lambda n: L.MaxPooling1D(2, strides=1, padding="same"),
    lambda n: L.AveragePooling1D(3, strides=1, padding="same"),
    lambda n: L.LSTM(n + 1, return_sequences=True),
    lambda n: L.Bidirectional(L.GRU(n + 1, return_sequences=True)),
    lambda n: L.TimeDistributed(L.Dense(n + 1, activation="elu")),
    lambda n: L.Permute((2, 1)),
    lambda n: L.Dropout(0.5),
    lambda n: L.UpSampling1D(2),
    lambda n: L.ZeroPadding1D((n, 1)),
    lambda n: L.Conv1DTranspose(n + 1, 3, strides=2, padding="same"),
    lambda n: L.SeparableConv1D(n + 1, 3, padding="same"),
    lambda n: L.UnitNormalization(),
    lambda n: L.PReLU(),
]


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, len(LAYERS_OF_SEQUENCES) - 1), st.integers(1, 4)), min_size=1, max_size=5))
def test_random_chains(choice: list[tuple[int, int]]) -> None:
    check(chain((5, 3), *(LAYERS_OF_SEQUENCES[i](n) for i, n in choice)), batches=(2,), tolerance=1e-4)


OTHER_BACKEND = """
import numpy as np, keras
from hasten.graph import reference
from hasten.sources import SourceRequest
from hasten.sources.keras import open_keras
L = keras.layers
assert keras.backend.backend() == "torch"
x = keras.Input((8, 6, 3))
y = L.Conv2D(4, 3, strides=2, padding="same", activation="relu")(x)
y = L.BatchNormalization()(y)
y = L.AveragePooling2D(3, strides=2, padding="same")(y)
y = L.TimeDistributed(L.Dense(5, activation="gelu"))(y)
y = L.Reshape((4, 5))(y) * np.float32(2.0)
y = L.Bidirectional(L.LSTM(4, return_sequences=True))(L.Masking()(y))
y = L.MultiHeadAttention(2, 3)(y, y)
model = keras.Model(x, keras.ops.mean(y, axis=1))
source = open_keras(model, SourceRequest())
assert not source.notes, source.notes
given = [np.random.default_rng(0).standard_normal((3, 8, 6, 3)).astype("float32")]
for want, have in zip(source.reference(given), reference.run(source.model, given)):
    np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)
print("agrees")
"""


def test_another_backend() -> None:
    pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, "-c", OTHER_BACKEND],
        env={**os.environ, "KERAS_BACKEND": "torch"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert "agrees" in done.stdout, done.stderr[-2000:]


def test_double_precision() -> None:
    check(chain((4, 6), L.Dense(5, "relu", dtype="float64"), L.LayerNormalization(dtype="float64")), tolerance=1e-6)
