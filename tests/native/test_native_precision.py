"""Weights stored in fewer bits: results near those of float32, on every instruction set, the same every time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from native_cases import HERE, RUNNABLE, Built, graph, mlp, recurrent
from onnx import helper

from hasten.engines import Offer
from hasten.engines.native import ENGINE
from hasten.errors import SettingsError
from hasten.graph import reference
from hasten.native.compile import program_of
from hasten.native.emit import emit
from hasten.native.isa import Isa, isa
from hasten.native.kernels.conv import Conv
from hasten.native.kernels.dense import Dense
from hasten.native.kernels.recurrent import Recurrent
from hasten.native.kernels.word_conv import WordConv
from hasten.native.kernels.word_product import WordProduct
from hasten.native.precision import STORED, reduce_weights


def filtered(kernel: int, stride: int = 1, channels: int = 24, columns: int = 33) -> ir.Model:
    """A convolution with a bias over an image, channels last."""
    rng = np.random.default_rng(kernel)
    weight = rng.standard_normal((columns, channels, kernel, kernel)) / (kernel * np.sqrt(channels))
    weights = {"w": weight.astype(np.float32), "b": rng.standard_normal(columns).astype(np.float32)}
    nodes = [
        helper.make_node("Transpose", ["x"], ["n"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["n", "w", "b"], ["c"], auto_pad="SAME_UPPER", strides=[stride, stride]),
        helper.make_node("Transpose", ["c"], ["y"], perm=[0, 2, 3, 1]),
    ]
    sizes = -(-11 // stride), -(-9 // stride)
    return graph(nodes, {"x": (1, 11, 9, channels)}, {"y": (1, *sizes, columns)}, weights)


BOUNDS = {"int11-weights": 4e-3, "bfloat16": 1e-2, "float16": 2e-3, "int8-weights": 2e-2}
MODELS = {
    "mlp": mlp([70, 130, 37, 5], activation="Tanh"),
    "wide": mlp([301, 97, 131, 7], activation="Tanh"),
    "rows": mlp([19, 33, 8], rows=7),
    "LSTM": recurrent("LSTM", 5, 9, 37),
    "LSTM, large state": recurrent("LSTM", 5, 30, 67, batch=2),
    "GRU, large state": recurrent("GRU", 4, 9, 75, linear_before_reset=1),
    "LSTM backwards": recurrent("LSTM", 5, 8, 66, direction="reverse"),
    "windows": filtered(3, 2),
    "pointwise": filtered(1),
    "GRU": recurrent("GRU", 4, 9, 21, linear_before_reset=1),
    "GRU before": recurrent("GRU", 4, 9, 21),
    "RNN": recurrent("RNN", 4, 3, 17, direction="bidirectional"),
}


@pytest.mark.parametrize("precision", list(STORED))
@pytest.mark.parametrize("name", list(MODELS))
def test_answers_stay_near(name, precision, monkeypatch):
    model = MODELS[name]
    shape = next(tuple(v.shape) for v in model.graph.inputs if v.name not in model.graph.initializers)
    x = np.random.default_rng(1).standard_normal(tuple(int(d) for d in shape)).astype(np.float32)
    wanted = reference.run(model, [x])
    monkeypatch.setattr("native_cases.program_of", lambda m, n, t: program_of(m, n, t, precision=precision))
    for target in RUNNABLE:
        built = Built(model, isa(target))
        found, again = built(x), built(x)
        for f, a, w in zip(found, again, wanted, strict=True):
            assert np.array_equal(f, a)
            assert np.abs(f - w).max() <= BOUNDS[precision] * max(1.0, np.abs(w).max()), target


@pytest.mark.parametrize("precision", list(STORED))
def test_weights_take_less_room(precision):
    target = isa("x86-64-v3")
    whole, less = (emit(program_of(MODELS["mlp"], "m", target, precision=p), target) for p in ("float32", precision))
    assert len(less.weights) < len(whole.weights) * (0.45 if precision == "int8-weights" else 0.65)


def kinds(model: ir.Model, target: str) -> list[type]:
    """Of the steps that multiply."""
    steps = program_of(model, "m", isa(target), precision="int8-weights").steps
    return [type(s) for s in steps if isinstance(s, (Dense, Conv, Recurrent, WordConv, WordProduct))]


def test_many_int8_weights_are_multiplied_as_whole_numbers():
    assert kinds(MODELS["wide"], "zen4") == kinds(MODELS["wide"], "c") == [WordProduct, WordProduct, Dense]
    assert kinds(filtered(3, 2), "zen4") == [WordConv]
    assert kinds(filtered(3), "zen4") == []  # minimal filtering of float32 needs no more arithmetic
    assert kinds(filtered(1), "zen4") == [WordProduct]
    program = program_of(MODELS["LSTM, large state"], "m", isa("zen4"), precision="int8-weights")
    assert [s.scale is not None for s in program.steps if isinstance(s, Recurrent)] == [True]


def eleven(model: ir.Model, target: Isa, threads: int = 1) -> Built:
    built = Built(model, target, threads=threads)
    assert "weights in 11 bits" in built.emitted.source
    return built


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("depth", [384, 385, 386, 387, 388, 389])
def test_eleven_bits_sum_whole_numbers_however_deep(depth, threads, monkeypatch):
    """Each input as large as the next, each weight as large as its column's largest: 32 bits hold a few groups."""
    monkeypatch.setattr(
        "native_cases.program_of", lambda m, n, t: program_of(m, n, t, precision="int11-weights", threads=threads)
    )
    model = mlp([depth, 150])
    weight = model.graph.initializers["w0"].const_value.numpy().copy()
    weight[:, 0], weight[:, 1] = 1.5, np.where(np.arange(depth) % 2, 0.25, -0.25)
    model.graph.initializers["w0"].const_value = ir.tensor(weight)
    bias = model.graph.initializers["b0"].const_value.numpy()
    random = np.random.default_rng(depth).standard_normal((1, depth)).astype(np.float32)
    for x in (np.ones((1, depth), np.float32), np.full((1, depth), -3e20, np.float32), random, 0 * random):
        wanted = x.astype(np.float64) @ weight + bias
        largest = np.abs(x).max() * np.abs(weight).max(axis=0)
        bound = 2e-3 * largest * np.sqrt(depth) + 1e-5
        bound[:2] = 1e-3 * largest[:2] * depth + 1e-5  # equal weights are all rounded the same way
        for target in RUNNABLE:
            (found,) = eleven(model, isa(target), threads)(x)
            assert (np.abs(found - wanted) <= bound).all(), target


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_infinities_reach_in_eleven_bits_whom_they_reach_in_float32(value, monkeypatch):
    monkeypatch.setattr("native_cases.program_of", lambda m, n, t: program_of(m, n, t, precision="int11-weights"))
    model = mlp([100, 97])
    weight = model.graph.initializers["w0"].const_value.numpy().copy()
    weight[3] = np.where(np.arange(97) % 2, 1e-20, -1e-20)
    weight[7, 5] = 1e-30
    model.graph.initializers["w0"].const_value = ir.tensor(weight)
    x = np.full((1, 100), 1e30, np.float32)
    for place in (3, 7):
        odd = x.copy()
        odd[0, place] = value
        wanted = odd @ weight
        for target in RUNNABLE:
            (found,) = eleven(model, isa(target))(odd)
            assert np.array_equal(np.isnan(found), np.isnan(wanted))
            assert np.array_equal(np.isinf(found), np.isinf(wanted)) and np.array_equal(found > 0, wanted > 0)


def test_a_weight_of_zero_keeps_its_layer_whole():
    model = mlp([100, 97])
    weight = model.graph.initializers["w0"].const_value.numpy().copy()
    weight[3, 4] = 0
    model.graph.initializers["w0"].const_value = ir.tensor(weight)
    (step,) = program_of(model, "m", isa("c"), precision="int11-weights").steps
    assert type(step) is Dense


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_wide_weights_that_gain_nothing_stay_whole(precision):
    def stored(name, target="x86-64-v3"):
        steps = program_of(MODELS[name], "m", isa(target), precision=precision).steps
        return {s.storage for s in steps if isinstance(s, Recurrent) or type(s) is Dense}

    assert stored("rows") == stored("LSTM") == {"float32"}  # few weights, or several rows of them
    assert stored("mlp") == {precision}
    assert precision in stored("LSTM, large state")
    # zen4 widens 24 bits more quickly than float16
    assert (precision in stored("mlp", "zen4")) == (precision == "bfloat16")
    assert (precision in stored("LSTM, large state", "zen4")) == (precision == "bfloat16")


@pytest.mark.parametrize("precision", [p for p in STORED if p != "int11-weights"])
def test_weights_from_memory_take_fewer_bits_whatever_meets_them(precision, monkeypatch):
    """Where no cache holds a model, fewer bits are quicker for several rows too."""
    target = replace(isa("x86-64-v3"), second_bytes=0, last_bytes=0)
    monkeypatch.setattr("native_cases.program_of", lambda m, n, t: program_of(m, n, t, precision=precision))
    x = np.random.default_rng(1).standard_normal((7, 19)).astype(np.float32)
    (wanted,) = reference.run(MODELS["rows"], [x])
    program = program_of(MODELS["rows"], "m", target, precision=precision)
    assert {s.storage for s in program.steps} == {STORED[precision]}
    if target.features <= HERE.features:
        (found,) = Built(MODELS["rows"], target)(x)
        assert np.abs(found - wanted).max() <= BOUNDS[precision] * np.abs(wanted).max()


def test_int8_that_gains_nothing_is_not_rounded():
    for target in ("x86-64-v3", "aarch64", "c"):
        step, plain = (
            next(s for s in program_of(filtered(3, 2), "m", isa(target), precision=p).steps if isinstance(s, Conv))
            for p in ("int8-weights", "float32")
        )
        assert np.array_equal(step.weight, plain.weight)


def test_weights_that_are_not_finite_are_not_rounded():
    program = program_of(mlp([301, 97]), "m", isa("c"))
    program.steps[0].weight = np.where(program.steps[0].weight > 0.15, np.inf, program.steps[0].weight)
    kept = reduce_weights(program, "int8-weights", isa("c")).steps[0]
    assert type(kept) is Dense and kept.storage == "float32"


def test_weights_beyond_float16_stay_float32():
    model = mlp([4, 3])
    program = program_of(model, "m", isa("c"))
    program.steps[0].weight = program.steps[0].weight * 1e6
    assert reduce_weights(program, "float16", isa("c")).steps[0].storage == "float32"


def test_unknown_precision_is_named():
    with pytest.raises(SettingsError, match="int3"):
        reduce_weights(program_of(MODELS["mlp"], "m", isa("c")), "int3", isa("c"))


@pytest.mark.parametrize(
    ("name", "target", "expected"),
    [
        ("mlp", "zen4", ["float32", "bfloat16", "int11-weights", "int8-weights"]),
        ("mlp", "x86-64-v3", ["float32", "bfloat16", "float16", "int11-weights", "int8-weights"]),
        ("RNN", "c", ["float32"]),
    ],
)
def test_precisions_that_change_nothing_are_no_candidates(name, target, expected, tmp_path, monkeypatch):
    monkeypatch.setattr("hasten.engines.native.for_host", lambda: isa(target))
    path = tmp_path / "model.onnx"
    ir.save(MODELS[name], path)
    offer = Offer("onnx", ".onnx", has_graph=True, precisions=("float32", *STORED), threads=(1,), graph=path)
    assert [c.precision for c in ENGINE.candidates(offer)] == expected
    # asked for alone, it is built all the same
    alone = Offer("onnx", ".onnx", has_graph=True, precisions=("float16",), threads=(1,), graph=path)
    assert [c.precision for c in ENGINE.candidates(alone)] == ["float16"]
