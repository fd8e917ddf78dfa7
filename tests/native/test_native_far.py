"""Weights that no near cache holds: 24 bits each, answers as exact as those of float32; or 21, and nearly so."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.extra.numpy as made
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_cases import HERE, RUNNABLE, Built, mlp, recurrent

from hasten.engines import BuildRequest, Offer
from hasten.engines.native import ENGINE, numerics
from hasten.native.compile import program_of
from hasten.native.emit import emit
from hasten.native.isa import Isa, isa
from hasten.native.kernels.dense import Dense
from hasten.native.kernels.far_dense import FarDense
from hasten.native.kernels.few_words import FOUR_IN_THREE, THREE_IN_TWO, Packing
from hasten.types import TensorSpec

LARGEST = 2**31 - 2**12
TARGETS = [name for name in RUNNABLE if isa(name).arch == "x86_64" and "fma" in isa(name).features]


def isa_with(*, side_by_side: bool) -> Isa:
    return isa("zen4" if side_by_side else "x86-64-v3")


def numbers_in(words: np.ndarray, packing: Packing, *, side_by_side: bool) -> np.ndarray:
    """All vectors from the words of one less, as the C has them."""
    given = [words.view(np.uint32)[..., i, :] for i in range(packing.words)]
    last = np.zeros_like(given[0])
    for i, word in enumerate(given, 1):
        last ^= (word & (1 << packing.end) - 1 if side_by_side else word) << np.uint32(32 - i * packing.end)
    return np.stack([*given, last], axis=-2).view(np.int32).astype(np.int64)


def numbers(terms: int):
    few, any_size = st.integers(-3000, 3000), st.integers(-LARGEST, LARGEST)
    return made.arrays(np.int64, (3, terms, 8), elements=any_size | few, fill=st.nothing())


@given(
    st.sampled_from([FOUR_IN_THREE, THREE_IN_TWO]).flatmap(lambda p: st.tuples(st.just(p), numbers(p.terms))),
    st.booleans(),
)
@settings(deadline=None, max_examples=500)
def test_vectors_in_the_words_of_one_less(given_numbers, side_by_side):
    packing, wanted = given_numbers
    words = packing.packed(wanted, isa_with(side_by_side=side_by_side))
    assert words.shape == (3, packing.terms - 1, 8) and words.dtype == np.int32
    found, step = numbers_in(words, packing, side_by_side=side_by_side), 1 << packing.end
    assert np.abs(found - wanted).max() <= step
    assert (np.abs(found - wanted) <= step / 2)[np.abs(wanted) > step].all()
    assert (np.sign(found) == np.sign(wanted))[wanted != 0].all()


def with_weight(sizes):
    """A model and its first weight, which can be written to."""
    model = mlp(sizes)
    weight = model.graph.initializers["w0"].const_value.numpy().copy()
    model.graph.initializers["w0"].const_value = ir.tensor(weight)
    return model, weight


def error(model, x: np.ndarray, found: np.ndarray) -> float:
    """The largest, as a share of the largest answer; the reference computes in float64."""
    weights = {v.name: v.const_value.numpy().astype(np.float64) for v in model.graph.initializers.values()}
    y, layers = x.astype(np.float64), sum(name.startswith("w") for name in weights)
    for i in range(layers):
        y = y @ weights[f"w{i}"] + weights[f"b{i}"]
        y = y if i == layers - 1 else np.maximum(y, 0)
    return float(np.abs(found - y).max() / np.abs(y).max())


@pytest.mark.skipif(not TARGETS, reason="measured on x86-64 with FMA alone")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("sizes", [[300, 512, 517, 301], [512, 1024, 40], [700, 1031], [64, 2500, 97, 33]])
def test_answers_are_as_exact_as_those_of_float32(sizes, threads, monkeypatch):
    monkeypatch.setattr("native_cases.program_of", lambda m, n, t: program_of(m, n, t, threads=threads))
    model = mlp(sizes)
    x = np.random.default_rng(1).standard_normal((1, sizes[0])).astype(np.float32)
    plain = error(model, x, Built(model, isa("c"))(x)[0])
    for name in TARGETS:
        built = Built(model, isa(name), threads=threads)
        found, again = built(x)[0], built(x)[0]
        assert np.array_equal(found, again)
        assert error(model, x, found) <= max(1e-6, 2 * plain), name
        large = threads == 1 or built.program.weight_bytes > threads * isa(name).near_bytes
        assert any(isinstance(step, FarDense) for step in built.program.steps) == large


@pytest.mark.skipif(not TARGETS, reason="measured on x86-64 with FMA alone")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("sizes", [[300, 512, 517, 301], [512, 1024, 40], [700, 1031], [64, 2500, 97, 33]])
def test_answers_of_21_bits_keep_well_within_the_tolerance(sizes, threads, monkeypatch):
    monkeypatch.setattr(
        "native_cases.program_of", lambda m, n, t: program_of(m, n, t, threads=threads, weights="int21")
    )
    model = mlp(sizes)
    for seed in range(3):
        x = np.random.default_rng(seed).standard_normal((1, sizes[0])).astype(np.float32)
        for name in TARGETS:
            built = Built(model, isa(name), threads=threads)
            found, again = built(x)[0], built(x)[0]
            assert np.array_equal(found, again)
            assert error(model, x, found) <= 4e-6, name
            titles = [step.title for step in built.program.steps if isinstance(step, FarDense)]
            assert all("21 bits" in title for title in titles)
            assert titles or (threads == 2 and built.program.weight_bytes <= 2 * isa(name).near_bytes)


@pytest.mark.skipif(not TARGETS, reason="measured on x86-64 with FMA alone")
@pytest.mark.parametrize("weights", ["float32", "int21"])
@pytest.mark.parametrize("depth", [256, 257, 258, 259])
def test_every_rest_of_a_group(depth, weights, monkeypatch):
    monkeypatch.setattr("native_cases.program_of", lambda m, n, t: program_of(m, n, t, weights=weights))
    model = mlp([depth, 1027])
    x = np.random.default_rng(depth).standard_normal((1, depth)).astype(np.float32)
    for name in TARGETS:
        target = replace(isa(name), near_bytes=1 << 16)
        built = Built(model, target)
        assert isinstance(built.program.steps[0], FarDense)
        assert error(model, x, built(x)[0]) <= (1e-6 if weights == "float32" else 4e-6), name


@pytest.mark.skipif(not TARGETS, reason="measured on x86-64 with FMA alone")
@pytest.mark.parametrize("weights", ["float32", "int21"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_infinities_come_out_as_float32_has_them(value, weights, monkeypatch):
    monkeypatch.setattr("native_cases.program_of", lambda m, n, t: program_of(m, n, t, weights=weights))
    model, weight = with_weight([600, 600])
    weight[3] = np.where(np.arange(600) % 2, 1e-20, -1e-20)
    x = np.ones((1, 600), np.float32)
    x[0, 3] = value
    wanted = x @ weight
    for name in TARGETS:
        built = Built(model, isa(name))
        assert isinstance(built.program.steps[0], FarDense)
        assert np.array_equal(built(x)[0], wanted, equal_nan=True)


@pytest.mark.skipif(not TARGETS, reason="measured on x86-64 with FMA alone")
@pytest.mark.parametrize("how", ["zero", "uneven", "tiny", "near"])
def test_weights_that_would_lose_stay_as_they_are(how):
    model, weight = with_weight([600, 600])
    target = isa(TARGETS[0]) if how != "near" else replace(isa(TARGETS[0]), near_bytes=2 << 20)
    if how == "zero":
        weight[5, 7] = 0
    elif how == "uneven":
        weight[5, 7] = 100
    elif how == "tiny":
        weight[:, 7] *= 1e-32
    steps = program_of(model, "case", target).steps
    assert {type(step) for step in steps} == {Dense}


@pytest.mark.skipif(not TARGETS, reason="measured on x86-64 with FMA alone")
@pytest.mark.parametrize(("weights", "share"), [("float32", 0.77), ("int21", 0.685)])
def test_a_quarter_less_is_read(weights, share):
    model = mlp([512, 1024, 512])
    target = isa(TARGETS[0])
    far = emit(program_of(model, "case", target, weights=weights), target)
    assert len(far.weights) < share * 4 * (512 * 1024 * 2)
    assert HERE.near_bytes >= 32 << 10


def lstm(x: np.ndarray, w: np.ndarray, r: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The last state, in float64.

    Shapes:  x (T, I) · w (4 H, I) · r (4 H, H) · b (8 H,)
    """
    h = c = np.zeros(r.shape[1])
    for row in x.astype(np.float64):
        i, o, f, g = np.split(w @ row + r @ h + b[: len(r)] + b[len(r) :], 4)
        i, o, f = (1 / (1 + np.exp(-gate)) for gate in (i, o, f))
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(c)
    return h


@pytest.mark.skipif(not TARGETS, reason="measured on x86-64 with FMA alone")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("units", [200, 233])
def test_a_state_is_as_exact_as_that_of_float32(units, threads, monkeypatch):
    monkeypatch.setattr("native_cases.program_of", lambda m, n, t: program_of(m, n, t, threads=threads))
    model = recurrent("LSTM", 12, 7, units)
    x = np.random.default_rng(1).standard_normal((12, 1, 7)).astype(np.float32)
    weights = {name: v.const_value.numpy().astype(np.float64)[0] for name, v in model.graph.initializers.items()}
    wanted = lstm(x[:, 0], *weights.values())

    def error(target: Isa) -> float:
        built = Built(model, target, threads=threads)
        assert any("24 bits" in step.title for step in built.program.steps) == (target.arch == "x86_64")
        found, again = (built(x)[-1].reshape(-1) for _ in range(2))
        assert np.array_equal(found, again)
        return float(np.abs(found - wanted).max())

    plain = error(isa("c"))
    for name in TARGETS:
        assert error(replace(isa(name), near_bytes=64 << 10)) <= max(5e-7, 2 * plain), name


@pytest.mark.skipif(HERE.name not in TARGETS, reason="measured on x86-64 with FMA alone")
@pytest.mark.parametrize("sizes", [[300, 1024, 700], [40, 30, 20]])
def test_21_bits_are_one_more_candidate_where_weights_are_far(sizes, tmp_path, monkeypatch):
    monkeypatch.setattr("hasten.engines.native.for_host", lambda: replace(HERE, near_bytes=1 << 20))
    path = tmp_path / "model.onnx"
    ir.save(mlp(sizes), path)
    found = ENGINE.candidates(Offer("onnx", ".onnx", has_graph=True, threads=(1, 2), graph=path))
    far = sizes[0] == 300
    assert [c.label for c in found] == ["native", "native 2t", *(["native int21", "native int21 2t"] if far else [])]
    if far:
        specs = TensorSpec("x", "float32", (1, 300)), TensorSpec("y", "float32", (1, 700))
        request = BuildRequest(found[2], path, path, "onnx", specs[:1], specs[1:], tmp_path / "built")
        assert "weights in 21 bits" in ENGINE.build(request).path(".c").read_text()
        assert numerics(found[2]).weights == "int21" and found[2].precision == "float32"
