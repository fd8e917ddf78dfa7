"""Convolutions of int8 weights with activations rounded to 16 bits: within what rounding allows, on every target."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from exact_cases import int8_weights
from native_cases import HERE, RUNNABLE, Built, graph
from onnx import helper
from spatial_cases import build, call
from test_native_realtime import _watched

from hasten.graph.reference import run
from hasten.native import precision
from hasten.native.compile import program_of
from hasten.native.isa import isa
from hasten.native.kernels.winograd import Winograd
from hasten.native.kernels.word_conv import WordConv, largest_word

# input (without the batch), output channels, kernel, attributes
SHAPES: dict[str, tuple[tuple[int, ...], int, tuple[int, ...], dict[str, list[int]]]] = {
    "line": ((33, 40), 24, (9,), {"pads": [4, 4]}),
    "line, stride 2, odd": ((31, 7), 17, (5,), {"pads": [0, 3], "strides": [2]}),
    "line, dilated": ((41, 16), 33, (3,), {"pads": [8, 0], "dilations": [4]}),
    "line, one input channel": ((50, 1), 32, (10,), {"strides": [3]}),
    "image": ((9, 11, 16), 16, (3, 3), {"pads": [1, 1, 1, 1]}),
    "image, one input channel, stride 2": ((49, 10, 1), 64, (10, 4), {"pads": [4, 1, 5, 1], "strides": [2, 2]}),
    "image, three channels, 130 results": ((12, 12, 3), 130, (5, 5), {"pads": [2, 0, 1, 3]}),
    "image, dilated": ((15, 13, 6), 20, (3, 3), {"pads": [2, 3, 2, 3], "dilations": [2, 3]}),
    "pointwise, stride 2": ((8, 9, 64), 40, (1, 1), {"strides": [2, 2]}),
    "two places": ((3, 4, 64), 24, (3, 3), {}),
}


def conv(name: str, *, batch: int = 1) -> ir.Model:
    """Channels last outside, a ReLU and a sum with the result's own square behind."""
    (*sizes, channels), count, kernel, attributes = SHAPES[name]
    weight = int8_weights(int(np.prod(kernel)) * channels, count).T.reshape(count, *kernel, channels)
    weight = np.ascontiguousarray(np.moveaxis(weight, -1, 1))
    bias = np.random.default_rng(3).standard_normal(count).astype(np.float32)
    last, first = [0, *range(2, len(sizes) + 2), 1], [0, len(sizes) + 1, *range(1, len(sizes) + 1)]
    nodes = [
        helper.make_node("Transpose", ["x"], ["planes"], perm=first),
        helper.make_node("Conv", ["planes", "w", "b"], ["c"], **attributes),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Transpose", ["r"], ["y"], perm=last),
    ]
    pads = attributes.get("pads", [0] * 2 * len(sizes))
    strides, dilations = (attributes.get(n, [1] * len(sizes)) for n in ("strides", "dilations"))
    out = [
        (n + pads[i] + pads[i + len(sizes)] - (kernel[i] - 1) * dilations[i] - 1) // strides[i] + 1
        for i, n in enumerate(sizes)
    ]
    return graph(nodes, {"x": (batch, *sizes, channels)}, {"y": (batch, *out, count)}, {"w": weight, "b": bias})


def bound(model: ir.Model, x: np.ndarray) -> tuple[np.ndarray, float]:
    """The answer of float64 arithmetic, and what a word's last bit times all weights of a result makes at most."""
    weight = model.graph.initializers["w"].const_value
    assert weight is not None
    wide = weight.numpy().astype(np.float64)
    expected = run(model, [x])[0]
    most = np.abs(wide).reshape(len(wide), -1).sum(axis=1).max() * np.abs(x).max()
    return expected, float(most)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where float32 would be about as fast."""
    monkeypatch.setattr(precision, "_CLEARLY_LESS", 1e9)
    monkeypatch.setattr("native_cases.program_of", lambda m, n, t: program_of(m, n, t, activations="int16"))
    monkeypatch.setattr(
        "hasten.native.compile.program_of",
        lambda m, n, t, **given: program_of(m, n, t, **{**given, "activations": "int16"}),
    )


def input_of(name: str, batch: int = 1) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((batch, *SHAPES[name][0])).astype(np.float32)


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("name", SHAPES)
def test_convolutions_of_words(name: str, target: str, always: None) -> None:
    model, x = conv(name), input_of(name)
    built = Built(model, isa(target))
    (step,) = (s for s in built.program.steps if isinstance(s, WordConv))
    expected, most = bound(model, x)
    assert np.abs(built(x)[0] - expected).max() <= (0.51 / step.largest + 1e-6) * most


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_reaches_what_it_reaches_in_float32(value: float, target: str, always: None) -> None:
    for name in ("line", "image, dilated"):
        model, x = conv(name), input_of(name)
        x[(0, *(n // 2 for n in x.shape[1:]))] = value
        with np.errstate(invalid="ignore"):
            expected = run(model, [x])[0]
        found = Built(model, isa(target))(x)[0]
        np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("size", [0.0, 1e-42, 1e-30, 1e30])
def test_any_size(size: float, always: None) -> None:
    model, x = conv("image"), (input_of("image") * size).astype(np.float32)
    expected, most = bound(model, x)
    assert np.abs(Built(model, HERE)(x)[0] - expected).max() <= 1e-4 * most + 1e-30


@pytest.mark.skipif(HERE.arch == "any", reason="plain C has no team")
@pytest.mark.parametrize("name", SHAPES)
def test_a_team_gives_the_same_bits(name: str, always: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hasten.native.emit.SPLIT_MACS", 1)
    for batch in (1, 3):
        model, x = conv(name, batch=batch), input_of(name, batch)
        built = build(model, HERE.name, threads=2)
        (step,) = (s for s in built.program.steps if isinstance(s, WordConv))
        assert step.parts == 2
        alone = call(built, x)[0]
        expected, most = bound(model, x)
        assert np.abs(alone - expected).max() <= (0.51 / step.largest + 1e-6) * most
        for parts in (2, 3):
            for _ in range(5):
                np.testing.assert_array_equal(call(built, x, parts=parts)[0], alone)


@pytest.mark.skipif(HERE.arch == "any", reason="plain C has no team")
def test_room_for_one_thread_to_do_all(always: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strides longer than the kernel: the image of all rows is larger than those of both halves together."""
    monkeypatch.setitem(SHAPES, "apart", ((57, 40, 8), 16, (1, 1), {"strides": [8, 8]}))
    model, x = conv("apart"), input_of("apart")
    for threads in (1, 2, 3):
        (step,) = (s for s in program_of(model, "m", HERE, threads=threads, activations="int16").steps)
        assert isinstance(step, WordConv)
        assert step.image.size >= (57 // 8 * 8 + 1) * (39 // 8 * 8 + 1) * 8
    built = build(model, HERE.name, threads=2)
    expected, most = bound(model, x)
    assert np.abs(call(built, x)[0] - expected).max() <= 1e-4 * most


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here")
@pytest.mark.parametrize("name", SHAPES)
def test_nothing_beyond_an_array_is_touched(name: str, tmp_path, monkeypatch: pytest.MonkeyPatch, always: None) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("test_native_realtime.program_of", lambda m, n, t: program_of(m, n, t, activations="int16"))
    assert _watched(conv(name), HERE, tmp_path, ("-O1", "-Wall", "-Wextra", "-Werror")) == 0


def test_sums_never_leave_32_bits(always: None) -> None:
    weight = np.full((2, 64, 9), 127, np.int8)
    assert largest_word(weight) * 64 * 9 * 127 <= 2**31 - 1
    assert largest_word(np.full((1, 64, 3), 127, np.int8)) == 32767
    assert largest_word(np.full((2, 512, 9), 127, np.int8)) == 0
    name = "two places"
    model = conv(name)
    tensor = model.graph.initializers["w"]
    tensor.const_value = ir.tensor(np.full((24, 64, 3, 3), 127 * 0.5, np.float32), name="w")
    x = np.full((1, *SHAPES[name][0]), 3.0, np.float32)
    built = Built(model, HERE)
    assert any(isinstance(s, WordConv) for s in built.program.steps)
    np.testing.assert_allclose(built(x)[0], run(model, [x])[0], rtol=1e-4)


def test_what_float32_does_with_less_arithmetic_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    zen4 = isa("zen4")
    for name in ("line, stride 2, odd", "image, three channels, 130 results"):
        made = program_of(conv(name), "m", zen4, activations="int16").steps
        assert any(isinstance(s, WordConv) for s in made)
        assert not any(isinstance(s, WordConv) for s in program_of(conv(name), "m", zen4).steps)
    SHAPES["filtered"] = ((32, 32, 32), 32, (3, 3), {"pads": [1, 1, 1, 1]})
    steps = program_of(conv("filtered"), "m", zen4, activations="int16").steps
    del SHAPES["filtered"]
    assert any(isinstance(s, Winograd) for s in steps)


def test_weights_that_are_not_int8_stay(always: None) -> None:
    model = conv("line")
    tensor = model.graph.initializers["w"]
    assert tensor.const_value is not None
    values = tensor.const_value.numpy() + np.random.default_rng(0).standard_normal((24, 40, 9)).astype(np.float32)
    tensor.const_value = ir.tensor(values, name="w")
    steps = program_of(model, "m", HERE, activations="int16").steps
    assert not any(isinstance(replace(s), WordConv) for s in steps)
