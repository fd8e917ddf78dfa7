"""Convolutions of every kind against float64, on every instruction set that runs here."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_cases import RUNNABLE, Built, graph
from onnx import helper
from spatial_cases import (
    Slide,
    assert_close,
    build,
    call,
    conv,
    conv_transpose,
    host_isas,
    model_of,
    numbers,
    sanitised,
)  # fmt: skip

from hasten.errors import UnsupportedOpError
from hasten.native.compile import program_of
from hasten.native.fuse import fuse
from hasten.native.isa import isa
from hasten.native.kernels import conv as conv_module
from hasten.native.kernels.conv import Conv
from hasten.native.kernels.depthwise import Depthwise
from hasten.native.kernels.winograd import Winograd
from hasten.native.lower import lower

CHANNELS = st.sampled_from([1, 2, 3, 5, 7, 8, 13, 16, 17, 31, 32, 33, 48, 64, 65])
SMALL = st.sampled_from([1, 2, 3, 4, 7, 8, 9, 13, 16, 17, 23])


@st.composite
def slides(draw: st.DrawFn, rank: int, kernel: tuple[int, ...], groups: int = 1) -> Slide:
    each = range(rank)
    pads = tuple(draw(st.integers(0, kernel[i % rank])) for i in range(2 * rank))
    strides = tuple(draw(st.integers(1, 3)) for _ in each)
    dilations = tuple(draw(st.sampled_from([1, 1, 1, 2, 3])) for _ in each)
    return Slide(strides, dilations, pads, groups)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, Slide]:
    rank = draw(st.sampled_from([1, 2, 2, 2, 3]))
    largest = {1: 40, 2: 5, 3: 3}[rank]
    kernel = tuple(draw(st.integers(1, largest)) for _ in range(rank))
    groups = draw(st.sampled_from([1, 1, 1, 2, 3, 8]))
    slide = draw(slides(rank, kernel, groups))
    least = [
        max(1, (k - 1) * d + 1 - slide.pads[i] - slide.pads[rank + i])
        for i, (k, d) in enumerate(zip(kernel, slide.dilations, strict=True))
    ]
    sizes = [n + draw(SMALL if rank < 3 else st.integers(0, 4)) for n in least]
    depth, columns = (
        draw(CHANNELS if rank < 3 else st.integers(1, 5)),
        draw(CHANNELS if rank < 3 else st.integers(1, 20)),
    )
    seed = draw(st.integers(0, 99))
    x = numbers(seed, draw(st.sampled_from([1, 1, 2, 3])), depth * groups, *sizes)
    return x, numbers(seed + 1, columns * groups, depth, *kernel), numbers(seed + 2, columns * groups), slide


def check_conv(x: np.ndarray, w: np.ndarray, b: np.ndarray, slide: Slide, name: str) -> None:
    model = model_of("Conv", x, {"w": w, "b": b}, {**slide.attributes, "group": slide.groups})
    built = build(model, name)
    (got,) = call(built, x)
    assert_close(got, conv(x, w, b, slide), float(conv(np.abs(x), np.abs(w), np.abs(b), slide).max()))
    assert np.array_equal(call(built, x)[0], got)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=convolutions(), name=st.sampled_from(host_isas()))
def test_conv(case: tuple[np.ndarray, np.ndarray, np.ndarray, Slide], name: str) -> None:
    check_conv(*case, name)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(data=st.data(), channels=CHANNELS, many=st.sampled_from([1, 1, 1, 2, 3]), name=st.sampled_from(host_isas()))
def test_depthwise(data: st.DataObject, channels: int, many: int, name: str) -> None:
    rank = data.draw(st.sampled_from([1, 2]))
    kernel = tuple(data.draw(st.integers(1, 5)) for _ in range(rank))
    slide = data.draw(slides(rank, kernel, channels))
    sizes = [(k - 1) * d + data.draw(SMALL) for k, d in zip(kernel, slide.dilations, strict=True)]
    x = numbers(1, data.draw(st.sampled_from([1, 2])), channels, *sizes)
    check_conv(x, numbers(2, channels * many, 1, *kernel), numbers(3, channels * many), slide, name)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data(), depth=CHANNELS, columns=CHANNELS, name=st.sampled_from(host_isas()))
def test_conv_transpose(data: st.DataObject, depth: int, columns: int, name: str) -> None:
    rank = data.draw(st.sampled_from([1, 1, 2, 2, 3]))
    if rank == 3:
        depth, columns = min(depth, 3), min(columns, 5)
    kernel = tuple(data.draw(st.integers(1, {1: 20, 2: 5, 3: 3}[rank])) for _ in range(rank))
    groups = data.draw(st.sampled_from([1, 1, 2]))
    slide = data.draw(slides(rank, kernel, groups))
    extra = tuple(data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(slide.strides, slide.dilations, strict=True))
    sizes = [data.draw(st.integers(1, 9)) for _ in range(rank)]
    full = [
        (n - 1) * s + (k - 1) * d + 1 + e
        for n, s, k, d, e in zip(sizes, slide.strides, kernel, slide.dilations, extra, strict=True)
    ]
    pads = tuple(min(p, (n - 1) // 2) for p, n in zip(slide.pads, full * 2, strict=True))
    slide = Slide(slide.strides, slide.dilations, pads, groups)
    x = numbers(1, data.draw(st.sampled_from([1, 2])), depth * groups, *sizes)
    w, b = numbers(2, depth * groups, columns, *kernel), numbers(3, columns * groups)
    attributes = {**slide.attributes, "group": groups, "output_padding": extra}
    built = build(model_of("ConvTranspose", x, {"w": w, "b": b}, attributes), name)
    (got,) = call(built, x)
    scale = float(conv_transpose(np.abs(x), np.abs(w), np.abs(b), slide, extra).max())
    assert_close(got, conv_transpose(x, w, b, slide, extra), max(scale, 1e-6))
    assert np.array_equal(call(built, x)[0], got)


@pytest.mark.parametrize("name", host_isas())
@pytest.mark.parametrize("then", ["Relu", "Tanh", "Sigmoid"])
def test_activation_runs_in_registers(name: str, then: str) -> None:
    x, w, b = numbers(1, 1, 3, 11, 13), numbers(2, 19, 3, 3, 3) / 4, numbers(3, 19)
    slide = Slide((1, 1), (1, 1), (1, 1, 1, 1))
    model = model_of("Conv", x, {"w": w, "b": b}, slide.attributes, then)
    kernels = [type(s) for s in fuse(lower(model, "case", isa("x86-64-v4"))).steps if isinstance(s, Conv)]
    assert kernels == [Conv]
    found = {"Relu": lambda v: np.maximum(v, 0), "Tanh": np.tanh, "Sigmoid": lambda v: 1 / (1 + np.exp(-v))}[then]
    assert_close(call(build(model, name), x)[0], found(conv(x, w, b, slide)), 10.0)


def test_residual_and_channel_scale_join_the_convolution() -> None:
    x, w = numbers(1, 1, 16, 6, 6), numbers(2, 16, 16, 3, 3) / 8
    scale = numbers(3, 1, 16, 1, 1)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Mul", ["a", "scale"], ["m"]),
        helper.make_node("Conv", ["m", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["m", "c"], ["s"]),
        helper.make_node("Relu", ["s"], ["y"]),
    ]
    model = graph(nodes, {"x": x.shape}, {"y": x.shape}, {"w": w, "scale": scale})
    slide, none = Slide((1, 1), (1, 1), (1, 1, 1, 1)), np.zeros(16, np.float32)
    m = conv(x, w, none, slide) * scale
    want = np.maximum(m + conv(m, w, none, slide), 0)
    for name in host_isas():
        built = build(model, name)
        assert [type(s).__name__ for s in built.program.steps].count("Elementwise") <= 2  # layout in and out alone
        assert_close(call(built, x)[0], want, float(np.abs(want).max()) * 4)


def test_one_channel_of_output_reads_a_row_operand_in_place() -> None:
    x, w, row = numbers(1, 2, 3, 5, 7), numbers(2, 1, 3, 3, 3), numbers(3, 7)
    nodes = [helper.make_node("Conv", ["x", "w"], ["a"], pads=[1] * 4), helper.make_node("Add", ["a", "row"], ["y"])]
    model = graph(nodes, {"x": x.shape}, {"y": (2, 1, 5, 7)}, {"w": w, "row": row})
    want = conv(x, w, np.zeros(1, np.float32), Slide((1, 1), (1, 1), (1,) * 4)) + row
    for name in host_isas():
        assert_close(call(build(model, name), x)[0], want, 20.0)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_auto_pad(mode: str) -> None:
    x, w, b = numbers(1, 1, 3, 10, 11), numbers(2, 5, 3, 4, 3), numbers(3, 5)
    sizes = [-(-n // 2) for n in (10, 11)]
    total = [max(0, (o - 1) * 2 + k - n) for o, n, k in zip(sizes, (10, 11), (4, 3), strict=True)]
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    pads = {"SAME_UPPER": small + large, "SAME_LOWER": large + small, "VALID": [0] * 4}[mode]
    want = conv(x, w, b, Slide((2, 2), (1, 1), tuple(pads)))
    built = build(model_of("Conv", x, {"w": w, "b": b}, {"strides": [2, 2], "auto_pad": mode}), host_isas()[-1])
    assert_close(call(built, x)[0], want, 20.0)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(data=st.data(), way=st.sampled_from([(2, 3), (4, 3), (3, 4), (2, 5)]), name=st.sampled_from(host_isas()))
def test_winograd(data: st.DataObject, way: tuple[int, int], name: str) -> None:
    size, taps = way
    depth, columns = data.draw(st.integers(9, 40)), data.draw(CHANNELS)
    pads = tuple(data.draw(st.integers(0, 3)) for _ in range(4))
    sizes = [max(taps - pads[i] - pads[i + 2], 1) + data.draw(st.integers(0, 20)) for i in (0, 1)]
    slide = Slide((1, 1), (1, 1), pads)
    x = numbers(1, data.draw(st.sampled_from([1, 2])), depth, *sizes)
    w, b = numbers(2, columns, depth, taps, taps), numbers(3, columns)
    then = data.draw(st.sampled_from(["", "Relu"]))
    with pytest.MonkeyPatch.context() as patch:
        cheap = {size: (0.0, isa(name).widths(1)[0].lanes)}
        patch.setattr(conv_module, "relative_costs", lambda *given: cheap if given[3].kernel == (taps, taps) else {})
        built = build(model_of("Conv", x, {"w": w, "b": b}, slide.attributes, then), name)
    want, (got,) = conv(x, w, b, slide), call(built, x)
    if min(sizes) >= taps:
        assert any(isinstance(step, Winograd) for step in built.program.steps) or got.size == columns * x.shape[0]
    assert_close(got, np.maximum(want, 0) if then else want, float(np.abs(want).max()) + 1, tolerance=5e-6)
    assert np.array_equal(call(built, x)[0], got)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    data=st.data(),
    way=st.sampled_from([(4, 3), (3, 4), (2, 5), (4, 7), (3, 7), (4, 9), (2, 8), (3, 11), (4, 16)]),
    name=st.sampled_from(host_isas()),
)
def test_winograd_along_a_line(data: st.DataObject, way: tuple[int, int], name: str) -> None:
    size, taps = way
    rank, dim = data.draw(st.sampled_from([(1, 2), (2, 2), (2, 3), (3, 3)]))
    kernel = [1] * rank
    kernel[dim - 2] = taps
    pads = [0] * (2 * rank)
    pads[dim - 2], pads[dim - 2 + rank] = data.draw(st.integers(0, 4)), data.draw(st.integers(0, 4))
    sizes = [data.draw(st.integers(1, 5)) for _ in range(rank)]
    sizes[dim - 2] = taps + data.draw(st.integers(0, 30))
    depth, columns = data.draw(st.integers(9, 40)), data.draw(CHANNELS)
    slide = Slide((1,) * rank, (1,) * rank, tuple(pads))
    x = numbers(1, data.draw(st.sampled_from([1, 2])), depth, *sizes)
    w, b = numbers(2, columns, depth, *kernel), numbers(3, columns)
    with pytest.MonkeyPatch.context() as patch:
        cheap = (dim, size, (0.0, isa(name).widths(1)[0].lanes))
        patch.setattr(conv_module, "relative_cost", lambda *given: cheap if max(given[3].kernel) == taps else None)
        built = build(model_of("Conv", x, {"w": w, "b": b}, slide.attributes, "Relu"), name)
    assert all(step.points == size + step.taps - 1 for step in built.program.steps if isinstance(step, Winograd))
    want, (got,) = np.maximum(conv(x, w, b, slide), 0), call(built, x)
    assert_close(got, want, float(np.abs(want).max()) + 1, tolerance=5e-6)
    assert np.array_equal(call(built, x)[0], got)


def test_winograd_is_chosen_where_it_pays() -> None:
    slide = Slide((1, 1), (1, 1), (1, 1, 1, 1))
    for channels, strides, chosen in [(32, (1, 1), True), (32, (2, 2), False), (4, (1, 1), False)]:
        x, w = numbers(1, 1, channels, 16, 16), numbers(2, channels, channels, 3, 3)
        model = model_of("Conv", x, {"w": w}, {"pads": slide.pads, "strides": strides})
        program = program_of(model, "case", isa("x86-64-v4"))
        assert any(isinstance(step, Winograd) for step in program.steps) is chosen


# One vector of 16 for nine channels makes a tile of more than a few products.
@pytest.mark.parametrize("name", [name for name in host_isas() if isa(name).widths(9)[0].lanes <= 8])
@pytest.mark.parametrize("depth", [2, 3, 4, 6, 7, 33])
def test_short_turns_over_channels_are_taken_four_at_a_time(name: str, depth: int) -> None:
    x, w, b = numbers(1, 1, depth, 5, 7), numbers(2, 9, depth, 1, 1), numbers(3, 9)
    built = build(model_of("Conv", x, {"w": w, "b": b}, {}), name)
    assert f"UNROLL_4 for (int c = 0; c < {depth}; c++)" in built.emitted.source
    want = conv(x, w, b, Slide((1, 1), (1, 1), (0, 0, 0, 0)))
    assert_close(call(built, x)[0], want, float(np.abs(want).max()) + 1)


def test_a_narrow_last_panel_counts_as_what_it_takes() -> None:
    x, w = numbers(1, 1, 256, 3, 3), numbers(2, 256, 256, 1, 1)
    program = program_of(model_of("Conv", x, {"w": w}, {}), "case", isa("x86-64-v3"))
    # 32 vectors by threes leave two, which keep too few accumulators busy
    assert [s.schedule.vectors for s in program.steps if isinstance(s, Conv) and s.schedule] == [2]


def test_depthwise_has_its_own_kernel() -> None:
    x, w = numbers(1, 1, 24, 9, 9), numbers(2, 24, 1, 3, 3)
    program = lower(model_of("Conv", x, {"w": w}, {"group": 24}), "case", isa("x86-64-v4"))
    assert any(isinstance(step, Depthwise) for step in program.steps)


TEAMS = [
    ((1, 16, 17, 19), (35, 16, 3, 3), (1, 1, 1, 1)),  # rows
    ((1, 33, 400), (35, 33, 7), (3, 3)),  # tiles of one row
    ((1, 64, 3, 3), (260, 64, 5, 5), (2, 2, 2, 2)),  # panels of output channels
    ((1, 64, 8, 8), (64, 64, 3, 3), (1, 1, 1, 1)),  # Winograd, by output channels
    ((1, 24, 40, 40), (24, 24, 3, 3), (1, 1, 1, 1)),  # Winograd, by blocks
    ((2, 24, 90), (40, 24, 3), (1, 1)),  # along a line
    ((2, 20, 90), (40, 20, 9), (4, 4)),  # along a line, in pieces
    ((1, 24, 24, 20), (24, 24, 5, 5), (2, 2, 2, 2)),  # Winograd of wider filters
]


@pytest.mark.parametrize("parts", [2, 3, 7])
@pytest.mark.parametrize(("shape", "kernel", "pads"), TEAMS)
def test_a_team_gives_the_same_bits(
    shape: tuple[int, ...], kernel: tuple[int, ...], pads: tuple[int, ...], parts: int
) -> None:
    rank = len(shape) - 2
    slide = Slide((1,) * rank, (1,) * rank, pads)
    x, w, b = numbers(1, *shape), numbers(2, *kernel), numbers(3, kernel[0])
    model = model_of("Conv", x, {"w": w, "b": b}, slide.attributes, "Relu")
    team = build(model, host_isas()[-1], threads=parts)
    assert team.emitted.splits
    alone = call(build(model, host_isas()[-1]), x)[0]
    assert np.array_equal(call(team, x, parts=parts)[0], alone)
    assert np.array_equal(call(team, x)[0], alone)


@pytest.mark.parametrize("parts", [2, 5])
def test_a_team_gives_the_same_bits_of_a_transposed_convolution(parts: int) -> None:
    x, w, b = numbers(1, 1, 64, 5, 40), numbers(2, 64, 20, 4, 4), numbers(3, 20)
    model = model_of("ConvTranspose", x, {"w": w, "b": b}, {"strides": [2, 2], "pads": [1, 1, 1, 1]})
    team = build(model, host_isas()[-1], threads=parts)
    alone = call(build(model, host_isas()[-1]), x)[0]
    assert np.array_equal(call(team, x, parts=parts)[0], alone)


def test_places_between_the_taps_need_no_bounds_of_them() -> None:
    """Every other output meets no tap at all: what bounds the taps would be declared for nobody."""
    x, w, way = numbers(1, 1, 2, 3, 11), numbers(2, 2, 3, 3, 2), Slide((2, 2), (2, 2), (1, 1, 1, 1), 1)
    options = {"kernel_shape": [3, 2], "dilations": [2, 2], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    model, expected = model_of("ConvTranspose", x, {"w": w}, options), conv_transpose(x, w, np.zeros(3), way, (0, 0))
    for target in RUNNABLE:
        assert_close(Built(model, isa(target), extra=("-Werror",))(x)[0], expected, float(np.abs(expected).max()))


def test_a_window_that_meets_padding_alone_gives_the_bias() -> None:
    x, w, b = numbers(1, 1, 2, 1, 1), numbers(2, 3, 2, 2, 2), numbers(3, 3)
    options = {"kernel_shape": [2, 2], "dilations": [2, 2], "pads": [1, 1, 1, 1]}
    model = model_of("Conv", x, {"w": w, "b": b}, options)
    for target in RUNNABLE:
        np.testing.assert_array_equal(Built(model, isa(target), extra=("-Werror",))(x)[0].reshape(3), b)


def test_weights_computed_at_run_time_are_refused() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="first")
    model = graph([node], {"x": (1, 3, 8, 8), "w": (4, 3, 3, 3)}, {"y": (1, 4, 6, 6)}, {})
    with pytest.raises(UnsupportedOpError, match=r"Conv \(node 'first'\) without constant"):
        lower(model, "case", isa("x86-64-v4"))


SANITISED = [
    ("Conv", (1, 3, 9, 11), (19, 3, 3, 3), Slide((1, 1), (1, 1), (1, 1, 1, 1))),
    ("Conv", (2, 17, 8, 7), (33, 17, 3, 3), Slide((2, 2), (1, 1), (0, 0, 1, 1))),
    ("Conv", (1, 19, 7, 7), (19, 1, 3, 3), Slide((1, 1), (1, 1), (1, 1, 1, 1), 19)),
    ("Conv", (1, 5, 100), (7, 5, 25), Slide((1,), (2,), (10, 7))),
    ("Conv", (2, 17, 11, 9), (21, 17, 3, 3), Slide((1, 1), (1, 1), (1, 1, 1, 1))),
    ("Conv", (2, 17, 31), (21, 17, 3), Slide((1,), (1,), (1, 1))),
    ("Conv", (1, 19, 8, 8), (3, 19, 3, 3), Slide((1, 1), (1, 1), (1, 1, 1, 1))),
    ("ConvTranspose", (1, 5, 6, 5), (5, 3, 4, 3), Slide((2, 3), (1, 2), (1, 1, 1, 1))),
]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="sanitisers need gcc")
@pytest.mark.parametrize(
    ("op", "shape", "kernel", "slide"), SANITISED, ids=lambda v: str(v) if isinstance(v, str) else ""
)
@pytest.mark.parametrize("name", ["c", host_isas()[-1]])
def test_sanitisers_find_nothing(
    op: str, shape: tuple[int, ...], kernel: tuple[int, ...], slide: Slide, name: str, tmp_path: Path
) -> None:
    x, w, b = numbers(1, *shape), numbers(2, *kernel), numbers(3, kernel[0 if op == "Conv" else 1])
    built = build(model_of(op, x, {"w": w, "b": b}, {**slide.attributes, "group": slide.groups}, "Relu"), name)
    want = conv(x, w, b, slide) if op == "Conv" else conv_transpose(x, w, b, slide, (0,) * (x.ndim - 2))
    assert_close(sanitised("gcc", built, x, tmp_path, name), np.maximum(want, 0), 500.0)
