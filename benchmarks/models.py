"""Models of our own in the families that small devices run, made from a seed, as Keras' own tools save them.

    python -m benchmarks.models NAME FOLDER

They stand beside real models: whoever lacks those can repeat the comparison, and kernels are not tuned to one set of
shapes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["FAMILIES", "make"]


def _dense(layers: Any, sizes: tuple[int, ...], activation: str, last: str) -> list[Any]:
    inner = [layers.Dense(n, activation) for n in sizes[1:-1]]
    return [layers.Input((sizes[0],)), *inner, layers.Dense(sizes[-1], last)]


def _pooled_convolutions(layers: Any) -> list[Any]:
    found = [layers.Input((40, 32, 1))]
    for channels in (12, 24):
        found += [layers.Conv2D(channels, 3, padding="same", use_bias=False), layers.BatchNormalization()]
        found += [layers.ReLU(), layers.MaxPooling2D()]
    return [*found, layers.Flatten(), layers.Dense(6, "softmax")]


def _separable(layers: Any) -> list[Any]:
    found = [layers.Input((40, 12, 1)), layers.Conv2D(48, (8, 4), strides=2, padding="same", activation="relu")]
    for _ in range(3):
        found += [layers.DepthwiseConv2D(3, padding="same", use_bias=False), layers.BatchNormalization(), layers.ReLU()]
        found += [layers.Conv2D(48, 1, use_bias=False), layers.BatchNormalization(), layers.ReLU()]
    return [*found, layers.GlobalAveragePooling2D(), layers.Dense(10, "softmax")]


def _residual(keras: Any) -> Any:
    layers = keras.layers
    x = inputs = layers.Input((24, 24, 3))
    for channels, stride in ((16, 1), (24, 2), (48, 2)):
        y = layers.Conv2D(channels, 3, strides=stride, padding="same", activation="relu")(x)
        y = layers.Conv2D(channels, 3, padding="same")(y)
        y = layers.BatchNormalization()(y)
        x = layers.ReLU()(layers.add([y, layers.Conv2D(channels, 1, strides=stride)(x)]))
    return keras.Model(inputs, layers.Dense(8, "softmax")(layers.GlobalAveragePooling2D()(x)))


def _sequence(layers: Any) -> list[Any]:
    found = [layers.Input((400, 1)), layers.Conv1D(32, 5, padding="same", activation="relu")]
    return [*found, layers.LSTM(64, return_sequences=True), layers.TimeDistributed(layers.Dense(1, "sigmoid"))]


FAMILIES: dict[str, Callable[[Any], Any]] = {
    "own_dense_small": lambda k: k.Sequential(_dense(k.layers, (24, 16, 8, 3), "relu", "softmax")),
    "own_dense_wide": lambda k: k.Sequential(_dense(k.layers, (512, 256, 256, 64), "elu", "tanh")),
    "own_autoencoder": lambda k: k.Sequential(_dense(k.layers, (400, 96, 96, 8, 96, 400), "relu", "linear")),
    "own_convolutions": lambda k: k.Sequential(_pooled_convolutions(k.layers)),
    "own_residual": _residual,
    "own_separable": lambda k: k.Sequential(_separable(k.layers)),
    "own_lstm": lambda k: k.Sequential([k.layers.Input((16, 6)), k.layers.LSTM(48), k.layers.Dense(2)]),
    "own_gru": lambda k: k.Sequential([k.layers.Input((20, 10)), k.layers.GRU(64), k.layers.Dense(4)]),
    "own_sequence": lambda k: k.Sequential(_sequence(k.layers)),
}


def make(name: str, folder: Path, seed: int = 7) -> list[Path]:
    """``name.keras`` and what Keras' and TensorFlow's own converters make of it; a conversion that fails is told."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    model = FAMILIES[name](keras)
    model(np.zeros((1, *model.inputs[0].shape[1:]), np.float32))  # Keras exports only what was called once
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder / f"{name}.keras")

    def onnx(path: Path) -> None:
        model.export(path, format="onnx", verbose=False)

    def tflite(path: Path) -> None:
        path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())

    for ending, write in ((".onnx", onnx), (".tflite", tflite)):
        try:
            write(folder / f"{name}{ending}")
        except Exception as error:  # the stock converters refuse some families; that is part of the picture
            print(f"  {name}{ending}: {type(error).__name__}: {str(error).strip().splitlines()[0][:120]}")
    return sorted(folder.glob(f"{name}.*"))


if __name__ == "__main__":
    make(sys.argv[1], Path(sys.argv[2]))
