"""Models unlike those of the suite, from whole families, through the native compiler: right, and rewritten as promised.

What a family promises is written as operators that must be gone, and as how often one must be there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import hasten
from hasten import graph
from hasten.api import prepare
from hasten.verify import compare

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")

pytestmark = pytest.mark.frameworks

L, K, nn = keras.layers, keras.ops, torch.nn
RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class Family:
    """``make`` gives the model and a sample; ``gone`` must not be left, ``kept`` must be there so often."""

    make: Callable[[], tuple[Any, Any]]
    gone: tuple[str, ...] = ("BatchNormalization", "Loop", "Scan")
    kept: Mapping[str, int] = field(default_factory=dict)


def _keras(outputs: Callable[[Any], Any], *shape: int, dtype: str = "float32") -> Callable[[], tuple[Any, Any]]:
    def make() -> tuple[Any, Any]:
        i = keras.Input(shape, dtype=dtype)
        model = keras.Model(i, outputs(i))
        for variable in model.weights:
            if "variance" in variable.path:
                variable.assign(RNG.uniform(0.5, 1.5, variable.shape))
        return model, None

    return make


def _torch(module: Callable[[], Any], *shape: int) -> Callable[[], tuple[Any, Any]]:
    return lambda: (module().eval(), RNG.standard_normal(shape).astype(np.float32))


def _wavenet(x: Any) -> Any:
    x, skips = L.Conv1D(8, 2, padding="causal")(x), []
    for step in (1, 2, 4):
        gate = L.Conv1D(8, 2, padding="causal", dilation_rate=step, activation="sigmoid")(x)
        z = L.Conv1D(8, 2, padding="causal", dilation_rate=step, activation="tanh")(x) * gate
        skips.append(L.Conv1D(8, 1)(z))
        x = x + skips[-1]
    return L.Conv1D(4, 1, activation="softmax")(L.ReLU()(L.Add()(skips)))


def _shuffled(x: Any) -> Any:
    y = L.BatchNormalization()(L.Conv2D(12, 1, groups=3, use_bias=False)(x))
    y = L.Reshape((8, 8, 12))(L.Permute((1, 2, 4, 3))(L.Reshape((8, 8, 3, 4))(y)))
    y = L.BatchNormalization()(L.DepthwiseConv2D(3, padding="same", use_bias=False)(y))
    return L.GlobalAveragePooling2D()(L.ReLU()(L.Add()([x, L.Conv2D(12, 1, groups=3)(y)])))


def _table(x: Any) -> Any:
    codes = L.Flatten()(L.Embedding(6, 3)(L.IntegerLookup(vocabulary=[3, 5, 7, 9, 11])(x)))
    return L.Dense(2, activation="sigmoid")(L.Dense(8, activation="relu")(codes))


def _spoken(x: Any) -> Any:
    real, imaginary = K.stft(x, 60, 30, 64)
    logs = K.log(real**2 + imaginary**2 + 1e-3)
    return L.Dense(3)(L.GRU(6)(logs))


class _Cells(nn.Module):  # type: ignore[misc,name-defined]
    """Two layers of cells stepped by hand, and a head at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.LSTMCell(4, 6), nn.GRUCell(6, 5), nn.Linear(5, 2)

    def forward(self, x):
        h = c = x.new_zeros(x.shape[0], 6)
        g = x.new_zeros(x.shape[0], 5)
        answers = []
        for turn in range(x.shape[1]):
            h, c = self.one(x[:, turn], (h, c))
            g = self.two(h, g)
            answers.append(self.head(g))
        return torch.stack(answers, 1)


class _Policy(nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm
        self.body = nn.Sequential(norm(nn.Linear(12, 16)), nn.ELU(), nn.Linear(16, 6))

    def forward(self, x):
        return torch.tanh(self.body(x.clamp(-5, 5).relu().clamp(max=3)))


FAMILIES = {
    "wavenet": Family(_keras(_wavenet, 24, 1)),
    "channel shuffle": Family(_keras(_shuffled, 8, 8, 12)),
    "table of categories": Family(_keras(_table, 4, dtype="int64")),
    "speech": Family(_keras(_spoken, 300), kept={"Conv": 1, "GRU": 1}),
    "convolutional recurrence": Family(
        _keras(lambda x: L.ConvLSTM2D(3, 3, padding="same")(x), 3, 6, 6, 2), gone=(), kept={"Scan": 1}
    ),
    "cells stepped by hand": Family(_torch(_Cells, 1, 4, 4), kept={"LSTM": 1, "GRU": 1}),
    "policy": Family(_torch(_Policy, 1, 12), kept={"Clip": 1, "Relu": 0}),
    "decoder": Family(
        _torch(lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True, norm_first=True), 1, 5, 8),
        kept={"LayerNormalization": 2, "Softmax": 1},
    ),
    "squeeze and excite": Family(
        _keras(
            lambda x: x * L.Conv2D(4, 1, activation="hard_sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(x)), 6, 6, 4
        )
    ),
}


@pytest.fixture
def optimised(monkeypatch: pytest.MonkeyPatch) -> list[ir.Model]:
    """The graphs that engines were given, as they are made."""
    seen: list[ir.Model] = []
    make = prepare.graphs

    def watched(*given: Any) -> prepare.Graphs:
        made = make(*given)
        seen.extend(graph.read(Path(path)) for path in made.by_batch.values())
        return made

    monkeypatch.setattr(prepare, "graphs", watched)
    return seen


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_runs_natively(name: str, optimised: list[ir.Model]) -> None:
    family = FAMILIES[name]
    model, sample = family.make()
    fast = hasten.compile(model, engine="native", sample=sample)
    found = Counter(node.op_type for node in optimised[0].graph)
    assert not [op for op in family.gone if found[op]]
    assert {op: found[op] for op in family.kept} == dict(family.kept)
    spec = fast.inputs[0]
    shape = [1 if isinstance(d, str) else d for d in spec.shape]
    x = RNG.integers(0, 12, shape) if spec.dtype == "int64" else RNG.standard_normal(shape).astype(spec.dtype)
    if sample is None:
        wanted = [np.asarray(keras.ops.convert_to_numpy(model(x)))]
    else:
        with torch.no_grad():
            wanted = [model(torch.from_numpy(x)).numpy()]
    assert compare([wanted], [[np.asarray(fast(x))]], None).passed
