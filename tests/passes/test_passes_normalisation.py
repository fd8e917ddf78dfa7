"""Root-mean-square normalisation is one node, with a scale and without."""

from __future__ import annotations

import pytest
from graph_text import apply, model_of, ops, probe_of, same_answers

from hasten.passes.recognise_normalisation import recognise_normalisation


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
