"""Root-mean-square normalisation is one node, with a scale and without."""

from __future__ import annotations

import pytest
from graph_text import apply, model_of, ops, probe_of, same_answers

from hasten.passes.recognise_normalisation import recognise_inner_normalisation, recognise_normalisation


@pytest.mark.parametrize("last", ["y = Mul (x, i)", "n = Mul (i, x) y = Mul (g, n)"])
@pytest.mark.parametrize("square", ["q = Mul (x, x)", "q = Pow (x, two)"])
def test_rms_normalisation(square: str, last: str) -> None:
    model = model_of(
        f"""(float[2,5,4] x) => (float[2,5,4] y)
        <int64[1] axes = {{-1}}, float two = {{2}}, float e = {{0.001}}, float[4] g = {{1, 2, 3, 4}}> {{
        {square} m = ReduceMean (q, axes) v = Add (m, e) r = Sqrt (v) i = Reciprocal (r) {last} }}"""
    )
    result = apply(model, recognise_normalisation)
    assert ops(result) == {"RMSNormalization": 1}
    same_answers(model, result, probe_of(model))


def spelt(axes: str, shape: str, scale: str = "", sizes: str = "") -> str:
    """Layer normalisation in steps; with a scale and a shift where their contents and sizes are given."""
    given = f"float[{sizes}] g = {{{scale}}}, float[{sizes}] b = {{{scale}}}, " if scale else ""
    last = "n = Div (c, r) k = Mul (g, n) y = Add (k, b)" if scale else "y = Div (c, r)"
    return f"""(float[{shape}] x) => (float[{shape}] y)
        <int64[{axes.count(",") + 1}] axes = {{{axes}}}, {given}float two = {{2}}, float e = {{0.001}}> {{
        a = ReduceMean (x, axes) c = Sub (x, a) q = Pow (c, two) m = ReduceMean (q, axes) v = Add (m, e)
        r = Sqrt (v) {last} }}"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (spelt("-1", "2,5,4"), {"LayerNormalization": 1}),
        (spelt("0", "5,4"), {"LayerNormalization": 1, "Transpose": 2}),
        (spelt("1", "2,5,4,3"), {"LayerNormalization": 1, "Transpose": 2}),
        (spelt("1", "2,5,4,3", "1, 2, 3, 4, 5", "5,1,1"), {"LayerNormalization": 1, "Transpose": 2}),
        (spelt("1, 3", "2,2,4,3", "1, 2, 3, 4, 5, 6", "1,2,1,3"), {"LayerNormalization": 1, "Transpose": 2}),
        (spelt("-1", "2,5,4", "1, 2, 3, 4", "1,1,4"), {"LayerNormalization": 1}),
        (spelt("1", "2,5,4", "1, 2, 3, 4", "4"), {"LayerNormalization": 1, "Transpose": 2, "Mul": 1, "Add": 1}),
        (spelt("-1", "2,5,4", "1, 2", "2,1,1"), {"LayerNormalization": 1, "Mul": 1, "Add": 1}),
    ],
)
def test_layer_normalisation(text: str, expected: dict[str, int]) -> None:
    model = model_of(text)
    result = apply(model, recognise_inner_normalisation)
    assert ops(result) == expected
    same_answers(model, result, probe_of(model))


def test_inner_axes_wait_for_the_engine_that_gains() -> None:
    model = model_of(spelt("1", "2,5,4"))
    assert ops(apply(model, recognise_normalisation)) == ops(model)
