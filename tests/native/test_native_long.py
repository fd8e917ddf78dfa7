"""Windows of hundreds of taps: short-time Fourier transforms written as convolutions, and back; long strides."""

from __future__ import annotations

import numpy as np
import pytest
from native_cases import graph
from onnx import helper
from spatial_cases import Slide, assert_close, build, call, conv, conv_transpose, host_isas, model_of, numbers

from hasten.graph.reference import run
from hasten.native.isa import isa
from hasten.native.kernels.spatial import Axis
from hasten.native.kernels.sweep import Sweep, choose

LONG = {
    # name: input, weights, slide
    "transform": ((1, 1, 1152), (258, 1, 256), Slide((128,), (1,), (0, 0))),
    "prime": ((1, 1, 900), (20, 1, 401), Slide((160,), (1,), (0, 0))),
    "prime, padded": ((1, 1, 900), (20, 1, 401), Slide((160,), (1,), (200, 200))),
    "several channels": ((2, 3, 1500), (9, 3, 512), Slide((100,), (1,), (256, 255))),
    "dilated": ((1, 2, 1500), (5, 2, 450), Slide((7,), (3,), (20, 0))),
    "on a plane": ((1, 1, 40, 61), (3, 1, 21, 31), Slide((2, 3), (1, 1), (10, 15, 10, 15))),
    "channels apart": ((1, 24, 1300), (24, 1, 600), Slide((50,), (1,), (300, 299), 24)),
}


@pytest.mark.parametrize("case", LONG)
@pytest.mark.parametrize("name", host_isas())
def test_a_long_window_slides(case: str, name: str) -> None:
    shape, kernel, slide = LONG[case]
    x, w, b = numbers(1, *shape), numbers(2, *kernel), numbers(3, kernel[0])
    model = model_of("Conv", x, {"w": w, "b": b}, {**slide.attributes, "group": slide.groups})
    want = conv(x, w, b, slide)
    assert_close(call(build(model, name), x)[0], want, float(np.abs(want).max()) + 1, tolerance=2e-5)


BACK = {
    # name: input, weights, slide, output_padding
    "transform": ((1, 20, 9), (20, 1, 512), Slide((128,), (1,), (0, 0)), (0,)),
    "cut": ((2, 20, 9), (20, 2, 400), Slide((160,), (1,), (200, 200)), (3,)),
    "upsampled": ((1, 3, 5, 6), (3, 3, 16, 16), Slide((8, 8), (1, 1), (4, 4, 4, 4)), (0, 0)),
    "many channels": ((1, 9, 7), (9, 40, 64), Slide((32,), (1,), (16, 16)), (0,)),
    "few channels": ((1, 24, 13), (24, 2, 4), Slide((2,), (1,), (1, 1)), (1,)),
    "few channels on a plane": ((1, 24, 6, 7), (24, 1, 3, 4), Slide((2, 2), (1, 1), (1, 1, 1, 1)), (1, 0)),
    "odd": ((1, 24, 13), (24, 2, 5), Slide((2,), (1,), (0, 3)), (0,)),
}


@pytest.mark.parametrize("case", BACK)
@pytest.mark.parametrize("name", host_isas())
def test_a_long_window_goes_back(case: str, name: str) -> None:
    shape, kernel, slide, extra = BACK[case]
    x, w, b = numbers(1, *shape), numbers(2, *kernel), numbers(3, kernel[1])
    want = np.maximum(conv_transpose(x, w, b, slide, extra), 0)
    model = model_of("ConvTranspose", x, {"w": w, "b": b}, {**slide.attributes, "output_padding": extra}, "Relu")
    built = build(model, name)
    assert len(built.emitted.source) < 100_000
    assert_close(call(built, x)[0], want, float(np.abs(want).max()) + 1, tolerance=2e-5)


def test_an_infinity_reaches_no_place_that_its_taps_do_not() -> None:
    x = numbers(1, 1, 24, 13)
    x[0, 3, 6] = np.inf
    w, b, slide = np.abs(numbers(2, 24, 2, 5)) + 0.1, numbers(3, 2), Slide((2,), (1,), (0, 0))
    model = model_of("ConvTranspose", x, {"w": w, "b": b}, slide.attributes)
    for name in host_isas():
        assert np.flatnonzero(~np.isfinite(call(build(model, name), x)[0][0, 0])).tolist() == [12, 13, 14, 15, 16]


@pytest.mark.parametrize("op", ["AveragePool", "MaxPool"])
@pytest.mark.parametrize("name", host_isas())
def test_a_long_window_is_pooled(op: str, name: str) -> None:
    x = numbers(1, 1, 18, 1700)
    node = helper.make_node(op, ["x"], ["y"], kernel_shape=[700], strides=[90], pads=[100, 20])
    model = graph([node], {"x": x.shape}, {"y": (1, 18, 13)}, {})
    np.testing.assert_allclose(call(build(model, name), x)[0], run(model, [x])[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["x86-64-v3", "zen4", "aarch64"])
def test_a_weight_of_a_long_window_serves_several_places(name: str) -> None:
    """One place at a time would fetch all weights anew for each."""
    chosen = choose(Sweep((Axis(8, 1152, 256, 128, 1, 0, 1, 258),), 258), isa(name))
    assert chosen is not None and chosen.pixels >= 4
