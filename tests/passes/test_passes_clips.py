"""Bounds on bounds become one, with the answers of both."""

from __future__ import annotations

import numpy as np
import pytest
from graph_text import apply, model_of, ops, same_answers

from hasten.passes.merge_clips import merge_clips

BOUNDS = "<float a = {-1}, float b = {1}, float c = {0.25}, float d = {2}>"


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("r = Relu (x) y = Clip (r, a, b)", {"Clip": 1}),
        ("r = Clip (x, a, b) y = Relu (r)", {"Clip": 1}),
        ("r = Clip (x, a, b) y = Clip (r, c, d)", {"Clip": 1}),
        ("r = Clip (x, c, d) y = Clip (r, a, c)", {"Clip": 1}),
        ("r = Clip (x, b, a) y = Clip (r, a, d)", {"Clip": 1}),
        ("r = Relu (x) y = Relu (r)", {"Relu": 1}),
        ("r = Relu (x) q = Clip (r, a) y = Clip (q, , d)", {"Clip": 1}),
        ("r = Relu (x) q = Clip (r, a) y = Neg (q)", {"Relu": 1, "Neg": 1}),
    ],
)
def test_bounds_are_merged(text: str, after: dict[str, int]) -> None:
    model = model_of(f"(float[1,9] x) => (float[1,9] y) {BOUNDS} {{ {text} }}")
    result = model
    for _ in range(2):
        result = apply(result, merge_clips)
    assert ops(result) == after
    edges = np.asarray([[-np.inf, -3, -1, 0, 0.1, 0.25, 1.5, 3, np.inf]], np.float32)
    same_answers(model, result, [np.nan_to_num(edges, posinf=1e30, neginf=-1e30)], tolerance=0)


def test_what_others_read_or_callers_set_stays() -> None:
    shared = model_of(f"(float[4] x) => (float[4] y, float[4] r) {BOUNDS} {{ r = Relu (x) y = Clip (r, a, b) }}")
    assert ops(apply(shared, merge_clips)) == {"Relu": 1, "Clip": 1}
    free = model_of("(float[4] x, float top) => (float[4] y) { r = Relu (x) y = Clip (r, , top) }")
    assert ops(apply(free, merge_clips)) == {"Relu": 1, "Clip": 1}
