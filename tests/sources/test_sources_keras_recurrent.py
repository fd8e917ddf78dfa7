"""Recurrent layers against Keras: every option, masks of any pattern, states in and out, cells without an ONNX node."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from hasten.graph import reference  # noqa: E402
from hasten.sources import SourceRequest  # noqa: E402
from hasten.sources.keras import open_keras  # noqa: E402

pytestmark = pytest.mark.frameworks

L = keras.layers
KINDS = ("LSTM", "GRU", "SimpleRNN")


def randomise(model: Any) -> None:
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if "seed" not in variable.path:
            variable.assign(rng.uniform(-0.6, 0.6, variable.shape))


def check(model: Any, *, masked: bool = False, nodes: str | None = None) -> Any:
    randomise(model)
    source = open_keras(model, SourceRequest())
    assert source.model is not None and not source.notes
    if nodes is not None:
        kinds = [n.op_type for n in source.model.graph]
        assert kinds.count(nodes) == 1, kinds
    for batch in (1, 4):
        rng = np.random.default_rng(batch)
        given = [rng.standard_normal([batch, *s.shape[1:]]).astype(np.float32) for s in source.inputs]
        if masked:
            given[0][rng.random(given[0].shape[:2]) < 0.5] = 0.0
            given[0][0, -3:] = 0.0
            given[0][-1] = 0.0
        for want, have in zip(source.reference(given), reference.run(source.model, given), strict=True):
            np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-5)
    return source


def sequence(*layers: Any, features: int = 3, steps: int = 7) -> Any:
    return keras.Sequential([keras.Input((steps, features)), *layers])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sequences, backwards, bias", itertools.product((True, False), repeat=3))
def test_plain(kind: str, sequences: bool, backwards: bool, bias: bool) -> None:
    layer = getattr(L, kind)(5, return_sequences=sequences, go_backwards=backwards, use_bias=bias)
    check(sequence(layer), nodes={"SimpleRNN": "RNN"}.get(kind, kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sequences, backwards, zeros", itertools.product((True, False), repeat=3))
def test_masked(kind: str, sequences: bool, backwards: bool, zeros: bool) -> None:
    layer = getattr(L, kind)(5, return_sequences=sequences, go_backwards=backwards, zero_output_for_mask=zeros)
    check(sequence(L.Masking(), layer), masked=True)


def test_gru_reset_before() -> None:
    check(sequence(L.GRU(5, reset_after=False)), nodes="GRU")
    check(sequence(L.GRU(5, reset_after=False, use_bias=False, return_sequences=True)), nodes="GRU")


@pytest.mark.parametrize("name", ["relu", "hard_sigmoid", "softsign", "softplus", "elu", "leaky_relu", "linear"])
@pytest.mark.parametrize("kind", KINDS)
def test_activations_of_onnx(kind: str, name: str) -> None:
    gate = {} if kind == "SimpleRNN" else {"recurrent_activation": "hard_sigmoid"}
    check(sequence(getattr(L, kind)(4, activation=name, **gate)), nodes={"SimpleRNN": "RNN"}.get(kind, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_activations_that_onnx_lacks(kind: str) -> None:
    check(sequence(getattr(L, kind)(4, activation="gelu", return_sequences=True)), nodes="Scan")
    check(
        sequence(L.Masking(), getattr(L, kind)(4, activation="gelu", return_sequences=True)), masked=True, nodes="Scan"
    )


def functional(build: Callable[..., Any], *shapes: tuple[int, ...]) -> Any:
    inputs = [keras.Input(s) for s in shapes]
    return keras.Model(inputs, build(*inputs))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sequences, backwards, mask", itertools.product((True, False), repeat=3))
def test_states(kind: str, sequences: bool, backwards: bool, mask: bool) -> None:
    def build(x: Any, *states: Any) -> Any:
        layer = getattr(L, kind)(4, return_state=True, return_sequences=sequences, go_backwards=backwards)
        return list(layer(L.Masking()(x) if mask else x, initial_state=list(states)))

    count = 2 if kind == "LSTM" else 1
    check(functional(build, (7, 3), *[(4,)] * count), masked=mask)


def test_encoder_and_decoder() -> None:
    def build(x: Any, y: Any) -> Any:
        _, h, c = L.LSTM(4, return_state=True)(x)
        return L.LSTM(4, return_sequences=True)(y, initial_state=[h, c])

    check(functional(build, (7, 3), (5, 2)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["concat", "sum", "ave", "mul", None])
@pytest.mark.parametrize("sequences, mask", itertools.product((True, False), repeat=2))
def test_bidirectional(kind: str, mode: str | None, sequences: bool, mask: bool) -> None:
    def build(x: Any) -> Any:
        layer = L.Bidirectional(getattr(L, kind)(4, return_sequences=sequences), merge_mode=mode)
        result = layer(L.Masking()(x) if mask else x)
        return list(result) if mode is None else result

    check(functional(build, (6, 3)), masked=mask, nodes=None if mask else {"SimpleRNN": "RNN"}.get(kind, kind))


def test_bidirectional_states_and_unlike_directions() -> None:
    def states(x: Any) -> Any:
        return list(L.Bidirectional(L.LSTM(4, return_state=True, return_sequences=True))(x))

    check(functional(states, (6, 3)))

    def initial(x: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
        return L.Bidirectional(L.LSTM(4))(x, initial_state=[a, b, c, d])

    check(functional(initial, (6, 3), *[(4,)] * 4), nodes="LSTM")
    unlike = L.Bidirectional(
        L.LSTM(4, return_sequences=True), backward_layer=L.GRU(3, return_sequences=True, go_backwards=True)
    )
    check(sequence(unlike))


def test_cells() -> None:
    check(sequence(L.RNN(L.LSTMCell(4), return_sequences=True)), nodes="LSTM")
    check(sequence(L.RNN(L.GRUCell(4, reset_after=False))), nodes="GRU")
    check(sequence(L.RNN([L.LSTMCell(4), L.LSTMCell(3)])))
    check(sequence(L.RNN(L.StackedRNNCells([L.GRUCell(4), L.LSTMCell(3)]), return_sequences=True, go_backwards=True)))
    check(sequence(L.Masking(), L.RNN([L.GRUCell(4), L.SimpleRNNCell(3)], return_sequences=True)), masked=True)
    check(functional(lambda x: list(L.RNN([L.LSTMCell(4), L.GRUCell(3)], return_state=True)(x)), (6, 3)))


class Leaky(keras.layers.Layer):
    """A cell of the user's own."""

    state_size = 4
    output_size = 4

    def build(self, shape: Any) -> None:
        self.w = self.add_weight(shape=(shape[-1], 4), name="w")
        self.u = self.add_weight(shape=(4, 4), name="u")

    def call(self, x: Any, states: Any) -> Any:
        h = 0.7 * states[0] + keras.ops.tanh(keras.ops.matmul(x, self.w) + keras.ops.matmul(states[0], self.u))
        return h * 2.0, [h]


@pytest.mark.parametrize("sequences, backwards, mask", itertools.product((True, False), repeat=3))
def test_a_cell_of_ones_own_is_a_scan(sequences: bool, backwards: bool, mask: bool) -> None:
    front = [L.Masking()] if mask else []
    layer = L.RNN(Leaky(), return_sequences=sequences, go_backwards=backwards)
    check(sequence(*front, layer), masked=mask, nodes="Scan")


@pytest.mark.parametrize("sequences", [True, False])
def test_convolutional_lstm(sequences: bool) -> None:
    layer = L.ConvLSTM2D(3, 2, padding="same", return_sequences=sequences)
    check(keras.Sequential([keras.Input((4, 5, 6, 2)), layer]), nodes="Scan")
    check(keras.Sequential([keras.Input((4, 6, 2)), L.ConvLSTM1D(3, 3, strides=2, return_sequences=sequences)]))


def test_masks_travel_and_count() -> None:
    x = keras.Input((7, 3))
    masked = L.Masking()(x)
    deep = L.LSTM(4, return_sequences=True)(L.Dropout(0.1)(L.Dense(5)(masked)))
    check(keras.Model(x, L.GRU(3)(deep)), masked=True)
    check(keras.Model(x, L.GlobalAveragePooling1D()(masked)), masked=True)
    check(keras.Model(x, L.LSTM(3)(L.Concatenate()([masked, deep]))), masked=True)
    check(keras.Model(x, L.LSTM(3)(L.Add()([masked, masked]))), masked=True)
    check(keras.Model(x, L.MultiHeadAttention(2, 3)(masked, masked)), masked=True)
    check(keras.Model(x, L.Attention()([L.Dense(4)(masked), deep])), masked=True)
    check(keras.Model(x, L.LSTM(3)(L.TimeDistributed(L.Dense(4))(masked))), masked=True)


def test_embedding_masks_zero() -> None:
    tokens = keras.Input((8,), dtype="int32")
    model = keras.Model(tokens, L.Bidirectional(L.LSTM(4))(L.Embedding(9, 5, mask_zero=True)(tokens)))
    randomise(model)
    source = open_keras(model, SourceRequest())
    assert source.model is not None
    given = [np.array([[1, 2, 3, 0, 0, 0, 0, 0], [0, 0, 4, 0, 5, 0, 6, 7], [0] * 8, [8] * 8], np.int32)]
    np.testing.assert_allclose(reference.run(source.model, given)[0], source.reference(given)[0], atol=1e-5)


def test_stateful_is_imported_at_zero_with_a_note() -> None:
    model = keras.Sequential([keras.Input(batch_shape=(2, 5, 3)), L.LSTM(4, stateful=True, name="keeper")])
    source = open_keras(model, SourceRequest())
    assert source.model is not None
    assert "'keeper'" in source.notes[0]
    assert source.inputs[0].shape == (2, 5, 3)
    given = [np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)]
    np.testing.assert_allclose(reference.run(source.model, given)[0], source.reference(given)[0], atol=1e-5)
