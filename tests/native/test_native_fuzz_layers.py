"""Random graphs of layers against ONNX Runtime: convolutions, pools, recurrence, lookups between all else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_cases import HERE, RUNNABLE
from test_native_fuzz import Graph, agree


class Layers(Graph):
    """A graph that grows by layers as often as by simpler nodes; what has another rank is reshaped for them."""

    def grow(self) -> None:
        """One more node or layer of a random kind."""
        kinds = [self._conv, self._transposed, self._pool, self._recurrent, self._gather, self._resize, self._norm]
        if self.rng.integers(2):
            kinds[int(self.rng.integers(len(kinds)))](self.pick())
        else:
            super().grow()

    def _random(self, *shape: int) -> str:
        scale = np.sqrt(max(1, np.prod(shape[1:])))
        return self.weight((self.rng.standard_normal(shape) / scale).astype(np.float32))

    def _shaped(self, x: str, rank: int) -> str:
        """The value with so many dimensions, the first of them 1 for images."""
        size = int(np.prod(self.shapes[x]))
        factors = []
        for _ in range(rank - 2):
            factors.append(int(self.rng.choice([d for d in range(1, size + 1) if size % d == 0 and d < 12])))
            size //= factors[-1]
        shape = (1, *factors, size) if rank == 4 else (*factors, 1, size)
        return self.add("Reshape", [x, self.weight(np.array(shape, np.int64))], shape)

    def _conv(self, x: str) -> None:
        x = self._shaped(x, 4)
        _, channels, height, width = self.shapes[x]
        group = channels if self.rng.integers(3) == 0 else 1
        count, (kh, kw) = group * int(self.rng.integers(1, 5)), self.rng.integers(1, 4, 2)
        strides, pads = self.rng.integers(1, 3, 2), self.rng.integers(1, 3, 4)
        sizes = [
            (n + pads[d] + pads[d + 2] - k) // strides[d] + 1 for d, (n, k) in enumerate(((height, kh), (width, kw)))
        ]
        if min(sizes) < 1 or count * np.prod(sizes) > 20000:
            return
        given = [x, self._random(count, channels // group, int(kh), int(kw)), self._random(count)]
        self.add("Conv", given, (1, count, *sizes), group=group, strides=strides.tolist(), pads=pads.tolist())

    def _transposed(self, x: str) -> None:
        x = self._shaped(x, 4)
        _, channels, *sizes = self.shapes[x]
        count, kernel, strides = int(self.rng.integers(1, 5)), self.rng.integers(1, 4, 2), self.rng.integers(1, 3, 2)
        made = [int((n - 1) * s + k) for n, s, k in zip(sizes, strides, kernel, strict=True)]
        if count * np.prod(made) < 20000:
            given = [x, self._random(channels, count, *map(int, kernel))]
            self.add("ConvTranspose", given, (1, count, *made), strides=strides.tolist())

    def _pool(self, x: str) -> None:
        x = self._shaped(x, 4)
        _, channels, *sizes = self.shapes[x]
        if self.rng.integers(3) == 0:
            self.add("GlobalAveragePool", [x], (1, channels, 1, 1))
            return
        made = [n // 2 + 1 for n in sizes]
        op = str(self.rng.choice(["MaxPool", "AveragePool"]))
        self.add(op, [x], (1, channels, *made), kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1])

    def _recurrent(self, x: str) -> None:
        x = self._shaped(x, 3)
        steps, batch, inputs = self.shapes[x]
        kind, units = str(self.rng.choice(["LSTM", "GRU", "RNN"])), int(self.rng.integers(1, 18))
        gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
        direction = str(self.rng.choice(["forward", "reverse", "bidirectional"]))
        both = 2 if direction == "bidirectional" else 1
        given = [x, self._random(both, gates * units, inputs), self._random(both, gates * units, units)]
        self.add(kind, given, (steps, both, batch, units), hidden_size=units, direction=direction)

    def _gather(self, x: str) -> None:
        shape = self.shapes[x]
        axis = int(self.rng.integers(len(shape)))
        index = self.rng.integers(-shape[axis], shape[axis], int(self.rng.integers(1, 6)))
        made = tuple(len(index) if d == axis else n for d, n in enumerate(shape))
        if np.prod(made) < 5000:
            self.add("Gather", [x, self.weight(index)], made, axis=axis)

    def _resize(self, x: str) -> None:
        x = self._shaped(x, 4)
        made = [*self.shapes[x][:2], *(int(n) for n in self.rng.integers(1, 9, 2))]
        mode = str(self.rng.choice(["nearest", "linear"]))
        self.add("Resize", [x, "", "", self.weight(np.array(made, np.int64))], tuple(made), mode=mode)

    def _norm(self, x: str) -> None:
        x = self._shaped(x, 4)
        channels = self.shapes[x][1]
        given = [x, self._random(channels), self._random(channels)]
        if self.rng.integers(2):
            self.add("InstanceNormalization", given, self.shapes[x], epsilon=0.1)
        else:
            spread = self.weight(self.rng.uniform(0.5, 2, channels).astype(np.float32))
            self.add("BatchNormalization", [*given, self._random(channels), spread], self.shapes[x])


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**31), size=st.integers(1, 10))
def test_random_layers_agree_with_onnxruntime(seed, size):
    agree(seed, size, HERE.name, Layers)


@pytest.mark.parametrize("target", [n for n in RUNNABLE if n != HERE.name])
def test_random_layers_on_every_instruction_set(target):
    for seed in range(3):
        agree(2000 + seed, 8, target, Layers)
