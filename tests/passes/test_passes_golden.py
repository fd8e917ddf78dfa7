"""What each rewrite makes of a small graph, as text. HASTEN_UPDATE_GOLDEN=1 writes the files anew; read the diff."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from graph_text import lines, model_of, optimise

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "graphs"

CASES = {
    "conv_bn_relu": """(float[N,3,8,8] x) => (float[N,4,8,8] y)
        <float[4,3,3,3] w, float[4] g, float[4] b, float[4] m, float[4] v> {
            c = Conv <pads = [1,1,1,1]> (x, w)
            n = BatchNormalization (c, g, b, m, v)
            y = Relu (n)
        }""",
    "channels_last_block": """(float[N,8,8,3] x) => (float[N,8,8,4] y)
        <float[4,3,3,3] w, float[4,4,3,3] u, float[4] b, float[4] s> {
            t1 = Transpose <perm = [0,3,1,2]> (x)
            c1 = Conv <pads = [1,1,1,1]> (t1, w)
            t2 = Transpose <perm = [0,2,3,1]> (c1)
            m1 = Mul (t2, s)
            a1 = Add (m1, b)
            r1 = Relu (a1)
            t3 = Transpose <perm = [0,3,1,2]> (r1)
            c2 = Conv <pads = [1,1,1,1]> (t3, u)
            t4 = Transpose <perm = [0,2,3,1]> (c2)
            y = Add (t4, r1)
        }""",
    "channels_last_flatten_dense": """(float[N,1,6,6] x) => (float[N,5] y)
        <float[4,1,3,3] w, float[64,5] d, float[5] b, int64[2] shape = {-1, 64}> {
            c = Conv (x, w)
            t = Transpose <perm = [0,2,3,1]> (c)
            f = Reshape (t, shape)
            m = MatMul (f, d)
            y = Add (m, b)
        }""",
    "unrolled_dense": """(float[N,3,4] x) => (float[N,3,2] y)
        <float[4,2] w, float[2] b, int64 i0 = {0}, int64 i1 = {1}, int64 i2 = {2}, int64[1] one = {1}> {
            s0 = Gather <axis = 1> (x, i0)
            s1 = Gather <axis = 1> (x, i1)
            s2 = Gather <axis = 1> (x, i2)
            m0 = MatMul (s0, w)
            m1 = MatMul (s1, w)
            m2 = MatMul (s2, w)
            a0 = Add (m0, b)
            a1 = Add (m1, b)
            a2 = Add (m2, b)
            u0 = Unsqueeze (a0, one)
            u1 = Unsqueeze (a1, one)
            u2 = Unsqueeze (a2, one)
            y = Concat <axis = 1> (u0, u1, u2)
        }""",
    "lstm_last_step": """(float[N,5,3] x) => (float[N,2] y)
        <float[1,16,3] w, float[1,16,4] r, float[1,32] b, float[4,2] d, float zero = {0}, int64[1] i0 = {0},
         int64[1] i1 = {1}, int64[1] four = {4}, int64[1] one = {1}, int64[1] last = {-1},
         int64[1] end = {9223372036854775807}> {
            s = Shape (x)
            n = Slice (s, i0, i1, i0)
            hs = Concat <axis = 0> (one, n, four)
            h = Expand (zero, hs)
            t = Transpose <perm = [1,0,2]> (x)
            o, hh, cc = LSTM <hidden_size = 4> (t, w, r, b, , h, h)
            q = Squeeze (o, one)
            z = Slice (q, last, end, i0)
            l = Squeeze (z, i0)
            y = MatMul (l, d)
        }""",
    "gelu_and_layer_norm": """(float[N,6,8] x) => (float[N,6,8] y)
        <float[8] g, float[8] b, float two = {2}, float eps = {0.001}, float root = {1.4142135}, float one = {1},
         float half = {0.5}, int64[1] last = {-1}> {
            mean = ReduceMean (x, last)
            d = Sub (x, mean)
            sq = Pow (d, two)
            var = ReduceMean (sq, last)
            ve = Add (var, eps)
            sd = Sqrt (ve)
            n = Div (d, sd)
            ng = Mul (n, g)
            ln = Add (ng, b)
            r = Div (ln, root)
            e = Erf (r)
            e1 = Add (e, one)
            xe = Mul (ln, e1)
            y = Mul (xe, half)
        }""",
}


@pytest.mark.parametrize("name", CASES)
def test_graph_becomes_its_golden_text(name: str) -> None:
    model = model_of(_with_weights(CASES[name]))
    text = "\n".join(["before:", *lines(model), "", "after:", *lines(optimise(model)), ""])
    path = FOLDER / f"{name}.txt"
    if os.environ.get("HASTEN_UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def _with_weights(text: str) -> str:
    """Gives every weight without numbers some: 0.1, 0.2, … wrapping at 1.3."""

    def fill(match: re.Match[str]) -> str:
        count = int(np.prod([int(d) for d in match[1].split(",")]))
        numbers = ",".join(str((i % 13 + 1) / 10) for i in range(count))
        return f"float[{match[1]}] {match[2]} = {{{numbers}}}{match[3]}"

    before, weights, body = re.fullmatch(r"(.*?)<(.*?)(> \{.*)", text, re.DOTALL).groups()
    return before + "<" + re.sub(r"float\[([\d,]+)\] (\w+)(,|$)", fill, weights) + body
