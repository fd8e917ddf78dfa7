"""Dilated convolutions: as plain ones along lines that lie apart where positions divide evenly, else as they are."""

from __future__ import annotations

import numpy as np
import pytest
from native_cases import graph
from onnx import helper
from spatial_cases import Slide, assert_close, build, call, conv, host_isas, model_of, numbers

from hasten.native.kernels.conv import Conv
from hasten.native.kernels.winograd import Winograd

DILATED = {
    # name: input, weights, slide, whether lines lie apart
    "causal": ((1, 24, 48), (24, 24, 3), Slide((1,), (4,), (8, 0)), True),
    "padded before": ((1, 24, 56), (40, 24, 3), Slide((1,), (4,), (0, 0)), True),
    "longer than it reads": ((2, 24, 59), (24, 24, 3), Slide((1,), (8,), (5, 0)), False),
    "two images, same size": ((2, 3, 40), (5, 3, 5), Slide((1,), (2,), (4, 4)), True),
    "two dimensions": ((1, 20, 12, 18), (9, 20, 3, 3), Slide((1, 1), (2, 3), (2, 3, 2, 3)), True),
    "one dimension of two": ((1, 20, 12, 17), (9, 20, 3, 3), Slide((1, 1), (2, 3), (2, 3, 2, 3)), True),
    "groups": ((1, 20, 12, 18), (30, 10, 3, 3), Slide((1, 1), (2, 2), (2, 2, 2, 2), 2), True),
    "odd size": ((1, 24, 47), (24, 24, 3), Slide((1,), (4,), (8, 0)), False),
    "odd padding": ((1, 24, 48), (24, 24, 3), Slide((1,), (4,), (3, 5)), False),
    "stride": ((1, 24, 48), (24, 24, 3), Slide((2,), (4,), (4, 4)), False),
}


@pytest.mark.parametrize("case", DILATED)
@pytest.mark.parametrize("name", host_isas())
def test_a_dilated_window_slides_along_lines_that_lie_apart(case: str, name: str) -> None:
    shape, kernel, slide, apart = DILATED[case]
    x, w, b = numbers(1, *shape), numbers(2, *kernel), numbers(3, kernel[0])
    model = model_of("Conv", x, {"w": w, "b": b}, {**slide.attributes, "group": slide.groups}, "Relu")
    built, want = build(model, name), np.maximum(conv(x, w, b, slide), 0)
    (step,) = (step for step in built.program.steps if isinstance(step, Conv | Winograd))
    assert (step.y.rank > len(shape)) is apart
    assert_close(call(built, x)[0], want, float(np.abs(want).max()) + 1, tolerance=5e-6)
    team = build(model, name, threads=2)
    if team.emitted.splits:
        one, two = (call(team, x, parts=parts)[0] for parts in (1, 2))
        assert_close(one, want, float(np.abs(want).max()) + 1, tolerance=5e-6)
        assert np.array_equal(one, two)


def test_what_is_added_to_a_dilated_convolution_joins_it() -> None:
    x, w, scale = numbers(1, 1, 24, 48), numbers(2, 24, 24, 3), numbers(3, 48)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[4, 4], dilations=[4]),
        helper.make_node("Add", ["a", "x"], ["s"]),
        helper.make_node("Mul", ["s", "scale"], ["y"]),
    ]
    model = graph(nodes, {"x": x.shape}, {"y": x.shape}, {"w": w, "scale": scale})
    want = (conv(x, w, np.zeros(24, np.float32), Slide((1,), (4,), (4, 4))) + x) * scale
    for name in host_isas():
        built = build(model, name)
        assert sum(isinstance(step, Conv | Winograd) for step in built.program.steps) == 1
        assert_close(call(built, x)[0], want, float(np.abs(want).max()) + 1, tolerance=5e-6)
