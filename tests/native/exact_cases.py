"""Models whose weights are exactly narrower than float32, as files that were shrunk have them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from native_cases import graph, recurrent
from onnx import helper

__all__ = ["few_bits", "int8_weights", "pointwise", "shrunk", "shrunk_recurrent"]


def int8_weights(depth: int, columns: int, seed: int = 0, *, full: bool = False) -> np.ndarray:
    """int8 times one scale a tensor, a column of zeros among them; ``full``: all of them 127 in size."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-127, 128, (depth, columns))
    values = np.where(values < 0, -127, 127) if full else values
    values[:, columns // 2], values[0, 0] = 0, 127
    return (values.astype(np.float32) * np.float32(0.0123 / np.sqrt(depth))).astype(np.float32)


def shrunk(rows: int, depth: int, columns: int, seed: int = 0, *, full: bool = False) -> ir.Model:
    """A dense layer with such weights, and a relu."""
    bias = np.random.default_rng(seed + 1).standard_normal(columns).astype(np.float32)
    weights = {"w": int8_weights(depth, columns, seed, full=full), "b": bias}
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    return graph(nodes, {"x": (rows, depth)}, {"y": (rows, columns)}, weights)


def few_bits(depth: int, columns: int, size: int, bits: int = 4, *, zero_points: bool = False) -> ir.Model:
    """A dense layer whose weights have so many bits and a scale for every block of inputs, and a relu."""
    rng = np.random.default_rng(depth)
    shape, most = (depth // size, size, columns), 2 ** (bits - 1)
    levels = rng.integers(-most, most, shape)
    levels[:, 0] = -most  # a scale is that of a block's largest
    if zero_points:
        levels = levels - rng.integers(1 - most, 1, (shape[0], 1, columns))
    levels[0, :, 1] = 0
    scale = rng.uniform(0.5, 1.5, (shape[0], 1, columns)).astype(np.float32) * np.float32(0.01)
    weight = (levels.astype(np.float32) * scale).astype(np.float32).reshape(depth, columns)
    weights = {"w": weight, "b": rng.standard_normal(columns).astype(np.float32)}
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    return graph(nodes, {"x": (1, depth)}, {"y": (1, columns)}, weights)


def pointwise(channels: int, columns: int, sizes: tuple[int, int], stride: int = 1, batch: int = 1) -> ir.Model:
    """A 1x1 convolution with such weights over images as a framework has them, channels last, a sum and a relu."""
    weight = int8_weights(channels, columns).T.reshape(columns, channels, 1, 1)
    out = tuple(-(-n // stride) for n in sizes)
    nodes = [
        helper.make_node("Transpose", ["x"], ["n"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["n", "w", "b"], ["c"], strides=[stride, stride]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Transpose", ["r"], ["y"], perm=[0, 2, 3, 1]),
    ]
    weights = {"w": np.ascontiguousarray(weight), "b": np.arange(columns, dtype=np.float32) / columns}
    return graph(nodes, {"x": (batch, *sizes, channels)}, {"y": (batch, *out, columns)}, weights)


def shrunk_recurrent(kind: str, units: int, batch: int = 1, **attributes) -> ir.Model:
    """A recurrent layer whose weights of the state are int8 times one scale."""
    model = recurrent(kind, 6, 5, units, batch, **attributes)
    weights = model.graph.initializers["r"]
    assert weights.const_value is not None
    values = weights.const_value.numpy()
    scale = np.float32(np.abs(values).max() / 127)
    weights.const_value = ir.tensor((np.rint(values / scale) * scale).astype(np.float32), name="r")
    return model
