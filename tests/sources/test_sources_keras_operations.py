"""Every operation of ``keras.ops`` that the importer knows, held against Keras itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from keras_held import check, graph  # noqa: E402

pytestmark = pytest.mark.frameworks

K = keras.ops

OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "arithmetic": lambda x: (1.0 - x) * 2 / (x**2 + 1) - (-x),
    "powers": lambda x: K.sqrt(K.abs(x)) + K.rsqrt(K.abs(x) + 1) + K.exp(x) + K.log1p(K.square(x)) + K.expm1(x),
    "trigonometry": lambda x: K.sin(x) + K.cos(x) + K.tan(x * 0.1) + K.arctan(x) + K.arctan2(x, K.cos(x)) + K.sinh(x),
    "rounding": lambda x: K.floor(x) + K.ceil(x) + K.round(x * 3) + K.sign(x) + K.trunc(x * 4) + x % 1.5 + x // 0.7,
    "comparisons": lambda x: K.where(K.logical_and(x > 0, x <= 1), x, K.cast(K.not_equal(x, 0.5), "float32")),
    "extremes": lambda x: K.maximum(x, 0.1) + K.minimum(x, 0.4) + K.clip(x, -0.5, 0.5) + K.relu6(x),
    "nothing by zero": lambda x: K.divide_no_nan(x, K.relu(x)),
    "sums": lambda x: K.sum(x, axis=1) + K.mean(x, axis=1) + K.max(x, axis=1) + K.min(x, axis=1) + K.prod(x, axis=1),
    "spread": lambda x: K.var(x, axis=-1, keepdims=True) + K.std(x, axis=(1, 2), keepdims=True),
    "truth": lambda x: [K.any(x > 1, axis=1), K.all(x > -1, axis=-1)],
    "positions": lambda x: [K.argmax(x, axis=-1), K.argmin(x, axis=1)],
    "logsumexp": lambda x: K.logsumexp(x, axis=-1),
    "running sum": lambda x: K.cumsum(x, axis=1),
    "top k": lambda x: list(K.top_k(x, 2)),
    "sorted": lambda x: [K.sort(x, axis=1), K.argsort(x, axis=1), K.sort(x)],
    "medians": lambda x: [K.median(x, axis=1), K.median(x[:, :3], axis=1, keepdims=True), K.median(x, axis=-1)],
    "differences": lambda x: [K.diff(x), K.diff(x, n=2, axis=1), K.diff(K.cast(x * 9, "int32"), axis=1)],
    "counts": lambda x: [K.count_nonzero(x > 0, axis=1), K.count_nonzero(K.relu(x), axis=(1, 2))],
    "norm": lambda x: K.norm(x, axis=-1) + K.norm(x, ord=1, axis=-1),
    "reshape": lambda x: K.reshape(x, (-1, 3, 8)),
    "moves": lambda x: K.transpose(K.swapaxes(K.moveaxis(x, 2, 1), 1, 2), (0, 2, 1)),
    "rank": lambda x: K.squeeze(K.expand_dims(x, 2), 2),
    "joins": lambda x: K.concatenate([x, x * 2], axis=1) + K.reshape(K.stack([x, x], axis=1), (-1, 8, 6)),
    "splits": lambda x: [*K.split(x, 2, axis=-1), *K.split(x, [1, 3], axis=1), K.unstack(x, axis=1)[2]],
    "items": lambda x: [x[:, 0], x[:, -1, 2:], x[..., None], x[:, ::2, ::-1], x[:, 1:3, -2]],
    "rolls": lambda x: K.roll(x, 1, axis=1) + K.flip(x, axis=2) + K.roll(x, -2, axis=2),
    "repeats": lambda x: K.repeat(x, 2, axis=1) + K.tile(x, [1, 2, 1]),
    "takes": lambda x: K.take(x, np.array([2, 0, 1]), axis=1) + K.take(x, [0, 0, 3], axis=1),
    "pads": lambda x: [K.pad(x, [[0, 0], [1, 2], [0, 1]]), K.pad(x, [[0, 0], [1, 2], [0, 1]], mode="reflect")],
    "triangles": lambda x: K.tril(x) + K.triu(x, 1),
    "one hot": lambda x: K.one_hot(K.argmax(x, axis=-1), 6),
    "matmul": lambda x: K.matmul(x, K.transpose(x, (0, 2, 1))),
    "einsum": lambda x: K.einsum("bij,bkj->bik", x, x) + K.sum(K.einsum("bij->bji", x), axis=(1, 2), keepdims=True),
    "tensordot": lambda x: K.tensordot(x, np.ones((6, 3), "float32"), axes=1),
    "likes": lambda x: K.ones_like(x) + K.zeros_like(x) + K.full_like(x, 2.0),
    "broadcast": lambda x: x + K.broadcast_to(np.arange(6, dtype="float32"), (4, 6)),
    "softmaxes": lambda x: K.softmax(x, axis=1) + K.log_softmax(x, axis=-1) + K.gelu(x, approximate=False),
    "constants": lambda x: x * np.arange(6, dtype="float32") + K.convert_to_tensor(np.ones((4, 1), "float32")),
    "average": lambda x: K.average(x, axis=1, weights=np.array([0.1, 0.2, 0.3, 0.4], "float32")),
    "integers": lambda x: K.cast(x * 4, "int32") // 2 + K.cast(x, "int32") * 3,
    "moments": lambda x: list(K.moments(x, axes=[1])),
    "normalize": lambda x: K.normalize(x, axis=-1) + K.normalize(x, axis=1, order=1),
    "layer norm": lambda x: K.layer_normalization(x),
    "convolution": lambda x: K.conv(x, np.ones((2, 6, 3), "float32") * 0.1, padding="same"),
    "pooling": lambda x: K.max_pool(x, 2) + K.average_pool(x, 2, padding="same"),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(name: str) -> None:
    check(graph((4, 6), to=OPERATIONS[name]))
