"""TFLite files become graphs that answer as LiteRT does; where one can't, LiteRT still runs it and a note says why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")
from tflite_builder import FileOf, counts, opened, same_answers

from hasten.errors import SourceError
from hasten.graph.reference import run
from hasten.sources import SourceRequest
from hasten.sources.determinism import check_deterministic
from hasten.sources.samples import samples
from hasten.sources.tflite import open_tflite

pytestmark = pytest.mark.frameworks

STEPS, WIDTH, UNITS = 7, 5, 6
TANH, RELU, RELU6 = 4, 1, 3


@dataclass
class Weights:
    """Random weights of one file, stored as float or as int8 with a scale."""

    file: FileOf
    rng: np.random.Generator
    int8: bool = False

    def matrix(self, *shape: int) -> int:
        values = (self.rng.standard_normal(shape) * 0.4).astype(np.float32)
        if not self.int8:
            return self.file.constant(values)
        scale = float(np.abs(values).max() / 127)
        return self.file.constant(np.round(values / scale).astype(np.int8), scale=scale)

    def vector(self, length: int, around: float = 0.0) -> int:
        return self.file.constant((around + self.rng.standard_normal(length) * 0.4).astype(np.float32))


def lstm(
    *,
    cifg: bool = False,
    peephole: bool = False,
    projection: int = 0,
    projection_bias: bool = False,
    norm: bool = False,
    cell_clip: float = 0.0,
    projection_clip: float = 0.0,
    time_major: bool = False,
    activation: int = TANH,
    int8: bool = False,
) -> bytes:
    file = FileOf()
    w = Weights(file, np.random.default_rng(0), int8)
    out = projection or UNITS
    shape = (STEPS, 1) if time_major else (1, STEPS)
    x, y = file.tensor((*shape, WIDTH)), file.tensor((*shape, out))
    gates = [-1 if cifg and gate == 0 else 0 for gate in range(4)]
    inputs = [x]
    inputs += [g or w.matrix(UNITS, WIDTH) for g in gates]
    inputs += [g or w.matrix(UNITS, out) for g in gates]
    inputs += [(g or w.vector(UNITS)) if peephole else -1 for g in gates[:3]]
    inputs += [g or w.vector(UNITS) for g in gates]
    inputs += [w.matrix(projection, UNITS) if projection else -1, w.vector(projection) if projection_bias else -1]
    inputs += [file.tensor((1, out), variable=True), file.tensor((1, UNITS), variable=True)]
    inputs += [(g or w.vector(UNITS, around=1.0)) if norm else -1 for g in gates]
    options = {
        "fusedActivationFunction": activation,
        "cellClip": cell_clip,
        "projClip": projection_clip,
        "timeMajor": time_major,
    }
    file.operator("UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, [y], ("UnidirectionalSequenceLSTMOptions", options))
    return file.to_bytes([x], [y])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cifg": True},
        {"peephole": True},
        {"cifg": True, "peephole": True},
        {"projection": 4},
        {"time_major": True},
        {"activation": RELU},
        {"cell_clip": 10.0},
        {"int8": True},
    ],
    ids=str,
)
def test_an_lstm_that_onnx_knows_is_one_node(tmp_path: Path, options: dict[str, Any]) -> None:
    source = opened(tmp_path, lstm(**options))
    assert counts(source)["LSTM"] == 1
    assert counts(source)["Scan"] == 0
    same_answers(source)
    check_deterministic(source, samples(source, SourceRequest(), 0, 2))


@pytest.mark.parametrize(
    "options",
    [
        {"cell_clip": 0.3},
        {"norm": True},
        {"norm": True, "cifg": True, "peephole": True, "projection": 3},
        {"projection": 4, "projection_bias": True},
        {"projection": 4, "projection_clip": 0.2},
        {"activation": RELU6},
    ],
    ids=str,
)
def test_an_lstm_that_onnx_does_not_know_is_a_scan(tmp_path: Path, options: dict[str, Any]) -> None:
    source = opened(tmp_path, lstm(**options))
    assert counts(source)["Scan"] == 1
    assert counts(source)["LSTM"] == 0
    same_answers(source)


def test_a_hybrid_lstm_is_answered_by_the_float_graph(tmp_path: Path) -> None:
    source = opened(tmp_path, lstm(int8=True))
    assert any("LiteRT itself rounds the activations" in note for note in source.notes)


def bidirectional(*, cell: str, merge: bool, auxiliary: str = "", time_major: bool = False) -> bytes:
    file = FileOf()
    w = Weights(file, np.random.default_rng(1))
    shape = (STEPS, 1) if time_major else (1, STEPS)
    x = file.tensor((*shape, WIDTH))
    inputs, given = [x], [x]
    gates = 4 if cell == "LSTM" else 1
    for _ in range(2):
        inputs += [w.matrix(UNITS, WIDTH) for _ in range(gates)] + [w.matrix(UNITS, UNITS) for _ in range(gates)]
        if cell == "LSTM":
            inputs += [-1] * 3 + [w.vector(UNITS) for _ in range(4)] + [-1, -1]
        else:
            inputs += [w.vector(UNITS), file.tensor((1, UNITS), variable=True)]
    if cell == "LSTM":
        inputs += [file.tensor((1, UNITS), variable=True) for _ in range(4)]
    if auxiliary:
        width = WIDTH if auxiliary == "parallel" else 3
        given.append(file.tensor((*shape, width)))
        inputs.append(given[-1])
        inputs += [-1 if auxiliary == "parallel" else w.matrix(UNITS, width) for _ in range(2 * gates)]
    else:
        inputs += [-1] * (1 + 2 * gates)
    answers = [file.tensor((*shape, 2 * UNITS))] if merge else [file.tensor((*shape, UNITS)) for _ in range(2)]
    options = {"fusedActivationFunction": TANH, "mergeOutputs": merge, "timeMajor": time_major}
    file.operator(f"BIDIRECTIONAL_SEQUENCE_{cell}", inputs, answers, (f"BidirectionalSequence{cell}Options", options))
    return file.to_bytes(given, answers)


@pytest.mark.parametrize("cell", ["LSTM", "RNN"])
@pytest.mark.parametrize(
    "options",
    [
        {"merge": True},
        {"merge": False},
        {"merge": True, "auxiliary": "parallel"},
        {"merge": True, "auxiliary": "parallel", "time_major": True},
        {"merge": True, "auxiliary": "cross"},
    ],
    ids=str,
)
def test_bidirectional_layers_are_two_nodes(tmp_path: Path, cell: str, options: dict[str, Any]) -> None:
    source = opened(tmp_path, bidirectional(cell=cell, **options))
    assert counts(source)[cell] == 2
    same_answers(source)


@pytest.mark.parametrize(("activation", "time_major"), [(TANH, False), (RELU, True), (0, False)])
def test_a_sequence_rnn_is_one_node(tmp_path: Path, activation: int, time_major: bool) -> None:
    file = FileOf()
    w = Weights(file, np.random.default_rng(2))
    shape = (STEPS, 1) if time_major else (1, STEPS)
    x, y = file.tensor((*shape, WIDTH)), file.tensor((*shape, UNITS))
    state = file.tensor((1, UNITS), variable=True)
    inputs = [x, w.matrix(UNITS, WIDTH), w.matrix(UNITS, UNITS), w.vector(UNITS), state]
    options = {"timeMajor": time_major, "fusedActivationFunction": activation}
    file.operator("UNIDIRECTIONAL_SEQUENCE_RNN", inputs, [y], ("SequenceRNNOptions", options))
    source = opened(tmp_path, file.to_bytes([x], [y]))
    assert counts(source)["RNN"] == 1
    same_answers(source)


def svdf(rank: int, activation: int, bias: bool) -> bytes:
    file = FileOf()
    w = Weights(file, np.random.default_rng(3))
    units, memory = 4, 5
    filters = units * rank
    x, y = file.tensor((1, WIDTH)), file.tensor((1, units))
    state = file.tensor((1, memory * filters), variable=True)
    inputs = [x, w.matrix(filters, WIDTH), w.matrix(filters, memory), w.vector(units) if bias else -1, state]
    file.operator("SVDF", inputs, [y], ("SVDFOptions", {"rank": rank, "fusedActivationFunction": activation}))
    return file.to_bytes([x], [y])


@pytest.mark.parametrize(("rank", "activation", "bias"), [(2, RELU, True), (1, 0, False), (2, RELU6, True)])
def test_svdf_shows_its_memory_as_an_input_and_an_output(
    tmp_path: Path, rank: int, activation: int, bias: bool
) -> None:
    source = opened(tmp_path, svdf(rank, activation, bias))
    assert [s.shape for s in source.inputs] == [(1, WIDTH), (1, 20 * rank)]
    assert source.outputs[1].name == f"{source.inputs[1].name}_next"
    assert any("state kept inside is now input" in note for note in source.notes)
    same_answers(source)
    check_deterministic(source, samples(source, SourceRequest(), 0, 2))


def test_svdf_stepped_by_its_caller_is_svdf_left_to_itself(tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    data = svdf(2, RELU, bias=True)
    source = opened(tmp_path, data)
    assert source.model is not None
    own = Interpreter(model_content=data)
    own.allocate_tensors()
    rng, state = np.random.default_rng(4), np.zeros(source.inputs[1].static_shape, np.float32)
    for _ in range(12):
        x = rng.standard_normal((1, WIDTH)).astype(np.float32)
        own.set_tensor(own.get_input_details()[0]["index"], x)
        own.invoke()
        answer, state = run(source.model, [x, state])
        np.testing.assert_allclose(answer, own.get_tensor(own.get_output_details()[0]["index"]), atol=1e-5)


@pytest.mark.parametrize("name", ["RNN", "LSTM"])
def test_single_step_cells_show_their_state(tmp_path: Path, name: str) -> None:
    file = FileOf()
    w = Weights(file, np.random.default_rng(5))
    x, y = file.tensor((1, WIDTH)), file.tensor((1, UNITS))
    states = [file.tensor((1, UNITS), variable=True) for _ in range(2 if name == "LSTM" else 1)]
    gates = 4 if name == "LSTM" else 1
    inputs = [x, *(w.matrix(UNITS, WIDTH) for _ in range(gates)), *(w.matrix(UNITS, UNITS) for _ in range(gates))]
    inputs += [-1] * 3 if name == "LSTM" else []
    inputs += [*(w.vector(UNITS) for _ in range(gates)), *([-1, -1] if name == "LSTM" else []), *states]
    file.operator(name, inputs, [y], (f"{name}Options", {"fusedActivationFunction": TANH}))
    source = opened(tmp_path, file.to_bytes([x], [y]))
    assert len(source.inputs) == len(source.outputs) == 1 + len(states)
    same_answers(source)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("GELU", ("GeluOptions", {"approximate": False})),
        ("GELU", ("GeluOptions", {"approximate": True})),
        ("RELU_N1_TO_1", ("", {})),
        ("RELU_0_TO_1", ("", {})),
    ],
)
def test_pointwise_operators_that_tf2onnx_lacks(tmp_path: Path, name: str, options: Any) -> None:
    file = FileOf()
    x, y = file.tensor((1, 9)), file.tensor((1, 9))
    file.operator(name, [x], [y], options)
    same_answers(opened(tmp_path, file.to_bytes([x], [y])), atol=1e-4 if name == "GELU" else 2e-6)


def gelu_of(dtype: str, *, approximate: bool = False) -> bytes:
    file = FileOf()
    x, y = (file.tensor((1, 256), dtype=dtype) for _ in range(2))
    symmetric = dtype == "int16"
    file.quantise(x, 0.03, 0 if symmetric else 4)
    file.quantise(y, 0.015, 0 if symmetric else -117)
    file.operator("GELU", [x], [y], ("GeluOptions", {"approximate": approximate}))
    return file.to_bytes([x], [y])


@pytest.mark.parametrize("approximate", [False, True])
def test_gelu_of_bytes_is_a_step_off_at_most(tmp_path: Path, approximate: bool) -> None:
    source = opened(tmp_path, gelu_of("int8", approximate=approximate))
    every = np.arange(-128, 128, dtype=np.int8)[None]
    assert source.model is not None, source.notes
    (mine,), (theirs,) = run(source.model, [every]), source.reference([every])
    assert mine.dtype == theirs.dtype == np.int8
    assert np.abs(mine.astype(int) - theirs).max() <= 1


def test_activations_of_16_bits_are_left_to_litert(tmp_path: Path) -> None:
    source = opened(tmp_path, gelu_of("int16"))
    assert source.model is None
    assert "quantised to 16 bits (tensor 't0'), which LiteRT rounds in its own way" in source.notes[-1]
    assert source.reference([np.full((1, 256), 100, np.int16)])[0].dtype == np.int16


def test_an_operator_without_importer_leaves_litert_to_run_the_file(tmp_path: Path) -> None:
    source = opened(tmp_path, lstm(activation=0))
    assert source.model is None
    assert any("only LiteRT runs this file" in note for note in source.notes)
    assert source.reference(samples(source, SourceRequest(), 0, 1)[0])[0].shape == (1, STEPS, UNITS)


def test_resource_variables_become_ports(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")

    class Accumulator(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.h = tf.Variable(np.full((1, 4), 0.5, np.float32), name="h")

        @tf.function(input_signature=[tf.TensorSpec((1, 4), tf.float32, name="x")])  # type: ignore[misc]
        def __call__(self, x: Any) -> Any:
            self.h.assign(tf.tanh(self.h * 0.7 + x))
            return self.h * 2.0

    model = Accumulator()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([model.__call__.get_concrete_function()], model)
    converter.experimental_enable_resource_variables = True
    source = opened(tmp_path, converter.convert())
    assert [s.shape for s in source.inputs] == [(1, 4), (1, 4)]
    assert any("it starts from the value stored in the file" in note for note in source.notes)
    x, h = np.ones((1, 4), np.float32), np.full((1, 4), 0.5, np.float32)
    answer, after = source.reference((x, h))
    np.testing.assert_allclose(after, np.tanh(h * 0.7 + x), rtol=1e-6)
    np.testing.assert_allclose(answer, after * 2, rtol=1e-6)
    same_answers(source)


def test_a_file_converted_without_its_weights_is_refused(tmp_path: Path) -> None:
    keras, tf = pytest.importorskip("keras"), pytest.importorskip("tensorflow")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    call = tf.function(model, input_signature=[tf.TensorSpec((1, 4), tf.float32)]).get_concrete_function()
    data = tf.lite.TFLiteConverter.from_concrete_functions([call], model).convert()
    with pytest.raises(SourceError, match=r"2 of its 2 variables are never set.*without its weights; convert again"):
        opened(tmp_path, data)


REAL = ["ad01_fp32", "kws", "kws_int8", "mnist_lstm", "resnet8", "vww_96"]


@pytest.mark.parametrize("name", REAL)
def test_real_files_are_imported(shared_models: Path, tmp_path: Path, name: str) -> None:
    source = open_tflite(shared_models / "real" / f"{name}.tflite", SourceRequest(work=tmp_path))
    assert source.inputs[0].is_batched == (name != "mnist_lstm")
    assert source.inputs[0].dtype == ("int8" if name.endswith("int8") else "float32")
    assert ("LSTM" in counts(source)) == (name == "mnist_lstm")
    check_deterministic(source, samples(source, SourceRequest(), 0, 2))
    same_answers(source, atol=1.0 if name.endswith("int8") else 5e-5)


@pytest.mark.parametrize("kept", [8, 100, 0.5, 0.9])
def test_a_file_cut_short_is_told_with_what_failed(tmp_path: Path, kept: float) -> None:
    whole = lstm()
    part = whole[: kept if isinstance(kept, int) else int(kept * len(whole))]
    with pytest.raises(SourceError, match=f"received {len(part)} bytes that are cut short") as raised:
        opened(tmp_path, part)
    assert len(str(raised.value).splitlines()) == 1
    assert "(error)" not in str(raised.value)


def _flipped(*, free: bool) -> bytes:
    """A file whose input's batch lost its one for 2**26; ``free``: its signature says that any number will do."""
    file = FileOf()
    x, w, y = file.tensor((1, 4)), file.constant(np.ones((8, 4), np.float32)), file.tensor((1, 8))
    file.operator("FULLY_CONNECTED", [x, w, -1], [y], ("FullyConnectedOptions", {}))
    tensor = file.graph.tensors[x]
    tensor.shape = [1 << 26, 4]
    if free:
        tensor.shapeSignature = [-1, 4]
    return file.to_bytes([x], [y])


def test_a_batch_that_damage_made_huge_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="GiB more in all than the file says; it is damaged") as raised:
        opened(tmp_path, _flipped(free=False))
    assert len(str(raised.value).splitlines()) == 1


def test_a_free_batch_is_taken_for_one_whatever_is_stored(tmp_path: Path) -> None:
    source = opened(tmp_path, _flipped(free=True))
    assert source.inputs[0].shape == ("batch", 4)
    same_answers(source, atol=1e-6)
