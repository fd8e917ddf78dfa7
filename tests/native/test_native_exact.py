"""Weights that are exactly int8 or half-wide are found, proved, and multiplied without loss; or with 16-bit rows."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from exact_cases import int8_weights, pointwise, shrunk, shrunk_recurrent
from hypothesis import given, settings
from hypothesis import strategies as st
from native_cases import HERE, RUNNABLE, Built, graph, mlp, recurrent
from onnx import helper
from spatial_cases import build, call
from test_native_realtime import _watched

from hasten.engines import BuildRequest, Offer
from hasten.engines.native import ENGINE
from hasten.graph.reference import run
from hasten.native.compile import program_of
from hasten.native.emit import emit
from hasten.native.exact import half_of, int8_of
from hasten.native.isa import isa
from hasten.native.kernels.recurrent import Recurrent
from hasten.native.kernels.word_product import WordProduct, sums
from hasten.native.precision import as_they_are
from hasten.records import Candidate
from hasten.types import TensorSpec

ROUNDED = 0.5 / 32767  # of a row's largest value


def words(model, name, target, *, count=1):
    """The program with every product that can be one of words, ``count`` to a value."""
    program = program_of(model, name, target, activations="int16")
    steps = [replace(s, words=count) if isinstance(s, WordProduct) else s for s in program.steps]
    return replace(program, steps=steps)


@pytest.fixture
def in_words(monkeypatch):
    """``Built`` compiles with 16-bit activations."""
    monkeypatch.setattr("native_cases.program_of", words)


# ---- the proof -----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 70), st.integers(1, 20), st.booleans(), st.floats(-20, 6), st.integers(0, 2**31), st.integers(1, 128)
)
def test_int8_is_found_again(depth, columns, apart, size, seed, most):
    rng = np.random.default_rng(seed)
    values = rng.integers(-most, min(most, 127) + 1, (depth, columns)).astype(np.int8)
    scale = np.exp(size + rng.standard_normal(columns if apart else 1)).astype(np.float32)
    weight = values * np.broadcast_to(scale, (columns,))
    found = int8_of(weight)
    assert found is not None
    assert found.values.dtype == np.int8 and found.scale.dtype == np.float32
    np.testing.assert_array_equal(found.values * found.scale, weight)


@settings(max_examples=60, deadline=None)
@given(st.integers(40, 90), st.integers(1, 9), st.integers(0, 2**31), st.booleans())
def test_one_weight_beside_the_grid_fails_the_proof(depth, columns, seed, up):
    rng = np.random.default_rng(seed)
    weight = (rng.integers(-127, 128, (depth, columns)) * np.float32(0.0371)).astype(np.float32)
    weight[0] = np.float32(127) * np.float32(0.0371)
    weight[1] = np.float32(-126) * np.float32(0.0371)
    place = int(rng.integers(2, depth)), int(rng.integers(columns))
    weight[place] = np.nextafter(weight[place] or np.float32(1), np.float32(np.inf if up else -np.inf))
    assert int8_of(weight) is None


@pytest.mark.parametrize(
    "weight",
    [
        np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32),
        np.full((4, 4), np.nan, np.float32),
        np.array([[np.inf], [1]], np.float32),
        np.zeros((0, 4), np.float32),
        np.linspace(-1, 1, 257, dtype=np.float32)[:, None],  # nine bits
        np.full((2, 2), 1e-38, np.float32),  # a scale would be denormal
        np.ones((4, 4)),  # float64
    ],
)
def test_what_is_not_int8(weight):
    assert int8_of(weight) is None


def test_zeros_are_int8():
    found = int8_of(np.zeros((3, 2), np.float32))
    assert found is not None and not found.values.any()


def test_half_wide_weights():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((9, 7)).astype(np.float32)
    rounded = (weight.view(np.uint32) & 0xFFFF0000).view(np.float32)
    assert half_of(weight) is None
    assert half_of(weight.astype(np.float16).astype(np.float32)) == "float16"
    assert half_of(rounded) == "bfloat16"
    assert half_of(np.array([[1023 * 2.0**-24]], np.float32)) is None  # denormal as float16: counts as zero
    assert half_of(np.array([[1e30]], np.float32)) is None


def test_sums_never_leave_32_bits():
    assert sums(np.full((516, 3), 127, np.int8)) == 1
    assert sums(np.full((517, 3), 127, np.int8)) == 2
    assert sums(np.full((5, 1), -128, np.int8)) == 1
    assert sums(np.full((2048, 2), -128, np.int8)) == 4
    assert sums(np.ones((2048, 2), np.int8)) == 1


# ---- the products --------------------------------------------------------------------------------------------------

SHAPES = [(1, 64, 64), (1, 131, 100), (5, 24, 24), (16, 40, 33), (17, 65, 24), (37, 64, 130), (3, 700, 25)]


def reference(model, x):
    """relu(x · w + b) in float64, and the largest error that 16-bit rows may leave."""
    arrays = {name: v.const_value.numpy().astype(np.float64) for name, v in model.graph.initializers.items()}
    x = x.astype(np.float64)
    most = np.abs(x).max(axis=1, keepdims=True) * np.abs(arrays["w"]).sum(axis=0)
    return np.maximum(x @ arrays["w"] + arrays["b"], 0), most + np.abs(arrays["b"])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("target", RUNNABLE)
def test_rows_of_16_bits(shape, target, in_words):
    rows, depth, columns = shape
    model = shrunk(rows, depth, columns, full=depth > 516)
    built = Built(model, isa(target))
    assert [type(s) for s in built.program.steps] == [WordProduct]
    rng = np.random.default_rng(3)
    x = rng.standard_normal((rows, depth)).astype(np.float32)
    x[0] *= np.exp(rng.standard_normal(depth) * 8).astype(np.float32)  # from 1e-10 to 1e10 in one row
    if rows > 2:
        x[1], x[2, 1:] = 0, 0
    expected, most = reference(model, x)
    found = built(x)[0]
    assert (np.abs(found - expected) <= (1.01 * ROUNDED + 4e-7) * most).all()
    np.testing.assert_array_equal(found, built(x)[0])


@pytest.mark.parametrize("shape", [s for s in SHAPES if s[0] == 1], ids=str)
@pytest.mark.parametrize("target", RUNNABLE)
def test_two_words_lose_nothing(shape, target, monkeypatch):
    monkeypatch.setattr("native_cases.program_of", lambda m, n, t: words(m, n, t, count=2))
    model = shrunk(*shape)
    built, plain = Built(model, isa(target)), program_of(mlp([9, 5]), "m", isa(target))
    assert built.program.steps[0].words == 2 and plain.steps[0].storage == "float32"
    rng = np.random.default_rng(4)
    for spread in (0, 4):
        x = (rng.standard_normal(shape[:2]) * np.exp(rng.standard_normal(shape[:2]) * spread)).astype(np.float32)
        expected, most = reference(model, x)
        assert (np.abs(built(x)[0] - expected) <= 3e-7 * most).all()


def onnxruntime_says(model, x):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    return session.run(None, {session.get_inputs()[0].name: x})[0]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("values", [(np.inf,), (-np.inf,), (np.nan,), (np.inf, -np.inf), (np.inf, 3e38)], ids=str)
def test_what_is_not_finite_is_what_float32_has(values, target, count, monkeypatch):
    """Infinities where the weights are not zero, NaN where they are or where two of them meet; other rows unmoved."""
    monkeypatch.setattr("native_cases.program_of", lambda m, n, t: words(m, n, t, count=count))
    rows, columns = (1, 67) if count == 2 else (18, 67)
    model = shrunk(rows, 65, columns)
    built = Built(model, isa(target))
    x = np.random.default_rng(5).standard_normal((rows, 65)).astype(np.float32)
    good = built(x)[0]
    for row in {rows - 1, rows // 2}:
        x[row, [7, 64][: len(values)]] = values
    found, expected = built(x)[0], onnxruntime_says(model, x)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_array_equal(np.isposinf(found), np.isposinf(expected))
    if not np.isnan(values).any():
        assert 0 < np.isnan(found[-1]).sum() < columns  # the column of zeros, and others where they meet
    kept = np.isfinite(x).all(axis=1)
    np.testing.assert_array_equal(found[kept], good[kept])
    np.testing.assert_allclose(found[~kept], expected[~kept], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e-33, 1e-20, 1e30, 5e37])
@pytest.mark.parametrize("count", [1, 2])
def test_tiny_and_huge_rows(size, count, monkeypatch):
    monkeypatch.setattr("native_cases.program_of", lambda m, n, t: words(m, n, t, count=count))
    model = shrunk(1, 64, 64)
    x = (np.random.default_rng(6).uniform(-1, 1, (1, 64)) * size).astype(np.float32)
    expected, most = reference(model, x)
    for target in RUNNABLE:
        assert (np.abs(Built(model, isa(target))(x)[0] - expected) <= (1.01 * ROUNDED + 1e-6) * most).all(), target


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("batch", [1, 2])
def test_pointwise_convolutions(target, batch, in_words):
    model = pointwise(64, 40, (5, 7), batch=batch)
    built = Built(model, isa(target))
    assert sum(isinstance(s, WordProduct) for s in built.program.steps) == 1
    x = np.random.default_rng(7).standard_normal((batch, 5, 7, 64)).astype(np.float32)
    rows = x.reshape(-1, 64).astype(np.float64)
    weight, bias = (model.graph.initializers[n].const_value.numpy().astype(np.float64) for n in ("w", "b"))
    expected = np.maximum(rows @ weight.reshape(40, 64).T + bias, 0).reshape(batch, 5, 7, 40)
    np.testing.assert_allclose(built(x)[0], expected, atol=3e-5 * np.abs(expected).max())


def test_what_stays_as_it_is():
    for model in (pointwise(64, 40, (6, 7), stride=2), mlp([64, 64]), shrunk(20, 64, 8), shrunk(2, 16, 64)):
        found = program_of(model, "m", HERE, activations="int16")
        assert not any(isinstance(s, WordProduct) for s in found.steps)


def test_single_rows_keep_narrow_weights_by_themselves():
    model = shrunk(1, 128, 128)
    step = program_of(model, "m", isa("zen4")).steps[0]
    assert isinstance(step, WordProduct) and "int8 weights, exact" in step.title
    step = program_of(model, "m", isa("x86-64-v3")).steps[0]
    assert step.storage == "bfloat16" and "bfloat16" in step.title  # holds all int8, and is quicker to widen
    assert program_of(shrunk(1, 32, 32), "m", isa("zen4")).steps[0].storage == "float32"  # not worth it
    assert program_of(shrunk(9, 128, 128), "m", isa("zen4")).steps[0].storage == "float32"  # would round


@pytest.mark.parametrize("target", RUNNABLE)
def test_narrow_weights_lose_nothing(target):
    model = shrunk(1, 128, 100)
    x = np.random.default_rng(8).standard_normal((1, 128)).astype(np.float32)
    expected, most = reference(model, x)
    assert (np.abs(Built(model, isa(target))(x)[0] - expected) <= 3e-7 * most).all()


@pytest.mark.parametrize("storage", ["bfloat16", "float16"])
def test_exactly_half_wide_weights_are_stored_so(storage):
    sizes = [128, 64] if storage == "bfloat16" else [512, 256]
    model = mlp(sizes)
    tensor = model.graph.initializers["w0"]
    weight = tensor.const_value.numpy()
    half = (weight.view(np.uint32) & 0xFFFF0000).view(np.float32)
    half = half if storage == "bfloat16" else np.where(np.abs(weight) < 1e-4, 0, weight).astype(np.float16)
    tensor.const_value = ir.tensor(half.astype(np.float32), name="w0")
    target = isa("x86-64-v3")
    program = program_of(model, "m", target)
    assert program.steps[0].storage == storage
    assert len(emit(program, target).weights) < weight.nbytes * 0.6
    bias = model.graph.initializers["b0"].const_value.numpy()
    x = np.random.default_rng(9).standard_normal((1, sizes[0])).astype(np.float32)
    expected = x.astype(np.float64) @ half.astype(np.float64) + bias
    if target.name in RUNNABLE:
        np.testing.assert_allclose(Built(model, target)(x)[0], expected, atol=2e-6 * np.abs(expected).max())


@pytest.mark.skipif(HERE.arch == "any", reason="plain C has no team")
@pytest.mark.parametrize("shape", [(125, 64, 64), (1, 512, 200), (4, 128, 130)], ids=str)
def test_a_team_gives_the_same_bits(shape, monkeypatch):
    monkeypatch.setattr("hasten.native.compile.program_of", lambda m, n, t, **_: words(m, n, t))
    team = build(shrunk(*shape), HERE.name, threads=2)
    assert team.emitted.splits == 1
    x = np.random.default_rng(10).standard_normal(shape[:2]).astype(np.float32)
    alone = call(team, x)[0]
    for parts in (2, 3):
        np.testing.assert_array_equal(call(team, x, parts=parts)[0], alone)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here")
@pytest.mark.parametrize("count", [1, 2])
def test_words_touch_nothing_beyond_an_array(count, tmp_path, monkeypatch):
    monkeypatch.setattr("test_native_realtime.program_of", lambda m, n, t: words(m, n, t, count=count))
    model = shrunk(1, 101, 67) if count == 2 else shrunk(18, 101, 67)
    assert _watched(model, HERE, tmp_path, ("-O1", "-Wall", "-Wextra", "-Werror")) == 0


def test_weights_take_a_quarter_of_the_room():
    model = shrunk(1, 256, 128)
    assert len(emit(program_of(model, "m", isa("zen4")), isa("zen4")).weights) < int8_weights(256, 128).nbytes * 0.3


# ---- recurrent layers ----------------------------------------------------------------------------------------------

LAYERS = {
    "LSTM": lambda: shrunk_recurrent("LSTM", 67, batch=2),
    "LSTM both ways": lambda: shrunk_recurrent("LSTM", 64, direction="bidirectional"),
    "GRU": lambda: shrunk_recurrent("GRU", 75, linear_before_reset=1),
    "RNN": lambda: shrunk_recurrent("RNN", 131),
}


def kept(model, name, target):
    """The program as for a processor with the instructions that make narrow weights pay."""
    able = replace(target, arch="x86_64", features=target.features | {"fma", "vnni"})
    return as_they_are(program_of(model, name, target), able)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("target", RUNNABLE)
def test_states_keep_narrow_weights(name, target, monkeypatch):
    monkeypatch.setattr("native_cases.program_of", kept)
    model = LAYERS[name]()
    built = Built(model, isa(target))
    layers = [s for s in built.program.steps if isinstance(s, Recurrent)]
    assert layers and all(s.scale is not None and "int8 weights" in s.title for s in layers)
    shape = model.graph.inputs[0].shape.numpy()
    x = np.random.default_rng(11).standard_normal(shape).astype(np.float32)
    for found, again, expected in zip(built(x), built(x), run(model, [x]), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-6)
        np.testing.assert_array_equal(found, again)


@pytest.mark.parametrize(("kind", "units"), [("LSTM", 67), ("RNN", 131)])
@pytest.mark.parametrize("target", RUNNABLE)
def test_states_that_are_not_finite_are_what_float32_has(kind, units, target, monkeypatch):
    plain = shrunk_recurrent(kind, units, batch=2)
    arrays = {name: value.const_value.numpy() for name, value in plain.graph.initializers.items()}
    node = helper.make_node(kind, ["x", "w", "r", "b", "", "first"], ["y", ""], hidden_size=units)
    model = graph([node], {"x": (3, 2, 5), "first": (1, 2, units)}, {"y": (3, 1, 2, units)}, arrays)
    rng = np.random.default_rng(13)
    x, first = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 2, 5), (1, 2, units)))
    first[0, 0, 5], first[0, 1, units - 1] = np.inf, -np.inf
    expected = Built(model, isa(target))(x, first)[0]
    monkeypatch.setattr("native_cases.program_of", kept)
    narrow = Built(model, isa(target))
    assert any(isinstance(s, Recurrent) and s.scale is not None for s in narrow.program.steps)
    assert 0 < np.isfinite(expected[0]).sum() < expected[0].size
    np.testing.assert_allclose(narrow(x, first)[0], expected, atol=2e-6)


def test_states_that_stay_as_they_are():
    for model in (
        recurrent("LSTM", 6, 5, 67),  # float weights
        shrunk_recurrent("LSTM", 32),  # too few of them
        shrunk_recurrent("GRU", 80),  # its reset gates come first
    ):
        steps = kept(model, "m", isa("zen4")).steps
        assert all(s.scale is None for s in steps if isinstance(s, Recurrent))


@pytest.mark.skipif(HERE.arch == "any", reason="plain C has no team")
def test_a_team_walks_narrow_weights_to_the_same_bits(monkeypatch):
    monkeypatch.setattr("hasten.native.compile.program_of", lambda m, n, t, **_: kept(m, n, t))
    team = build(shrunk_recurrent("LSTM", 96), HERE.name, threads=2)
    assert team.emitted.splits >= 1
    x = np.random.default_rng(12).standard_normal((6, 1, 5)).astype(np.float32)
    alone = call(team, x)
    for parts in (2, 3):
        for expected, found in zip(alone, call(team, x, parts=parts), strict=True):
            np.testing.assert_array_equal(found, expected)


# ---- as candidates -------------------------------------------------------------------------------------------------


def offered(model, folder):
    path = folder / "model.onnx"
    ir.save(model, path)
    return ENGINE.candidates(Offer("onnx", ".onnx", has_graph=True, threads=(1, 2), graph=path))


@pytest.mark.skipif("vnni" not in HERE.features, reason="rounding pays where one instruction does two products")
def test_rounded_activations_are_one_more_candidate(tmp_path):
    found = offered(pointwise(64, 40, (5, 7)), tmp_path)
    assert [c.label for c in found] == ["native", "native 2t", "native int16", "native int16 2t"]
    spec = TensorSpec("x", "float32", (1, 5, 7, 64)), TensorSpec("y", "float32", (1, 5, 7, 40))
    path = tmp_path / "model.onnx"
    request = BuildRequest(found[2], path, path, "onnx", spec[:1], spec[1:], tmp_path / "built")
    artefact = ENGINE.build(request)
    assert "int8 weights, int16 inputs" in artefact.path(".c").read_text()
    assert offered(mlp([64, 64], rows=9), tmp_path) == found[:2]
    assert offered(ir.Model(ir.Graph((), (), nodes=(), name="empty"), ir_version=10), tmp_path) == found[:2]


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_a_dynamically_quantised_layer_of_a_quantiser_is_compiled(kind, tmp_path):
    """ONNX Runtime's quantiser makes an operator of its own of an LSTM."""
    model = recurrent(kind, 6, 5, 32)
    path = tmp_path / "model.onnx"
    ir.save(model, path)
    spec = tuple(
        TensorSpec(v.name, "float32", tuple(v.shape.numpy())) for v in (*model.graph.inputs, *model.graph.outputs)
    )
    count = len(model.graph.inputs)
    candidate, folder = Candidate("native", "int8-dynamic", 1, 1), tmp_path / "built"
    folder.mkdir()
    request = BuildRequest(candidate, path, path, "onnx", spec[:count], spec[count:], folder)
    assert ENGINE.build(request).path(".so").exists()
