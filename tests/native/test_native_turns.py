"""Scan and Loop: one loop in C over a body of its own, with states, slices either way, outer values and a counter."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from native_cases import RUNNABLE, Built

from hasten.errors import UnsupportedOpError
from hasten.graph import reference
from hasten.graph.shapes import infer
from hasten.native.compile import program_of
from hasten.native.isa import for_host, isa

WEIGHTS = "<float[4,4] w = {" + ",".join(f"{n / 9:.3f}" for n in range(-8, 8)) + "}, int64 n = {5}, float two = {2}>"
STEP = "(float[2,4] h, float[2,4] xt) => (float[2,4] hn, float[2,4] out)"
BODY = f"body = step {STEP} {{ a = MatMul (h, w) b = Add (a, xt) hn = Tanh (b) p = Mul (hn, scale) out = Neg (p) }}"
BACK = "scan_input_directions = [1], scan_output_directions = [1]"


def parse(text: str) -> ir.Model:
    model = ir.from_proto(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> case {text}'))
    infer(model)
    return model


def scan(settings: str, shape: str, steps: int = 5) -> ir.Model:
    attributes = f"num_scan_inputs = 1, {settings + ', ' if settings else ''}{BODY}"
    return parse(
        f"""(float[2,4] first, float[{shape}] x, float[4] scale) => (float[2,4] last, float[{shape}] y) {WEIGHTS}
        {{ last, y = Scan <{attributes}> (first, x) }}""".replace("#", str(steps))
    )


CASES = {
    "forwards": scan("", "#,2,4"),
    "backwards": scan(BACK, "#,2,4"),
    "out backwards": scan("scan_output_directions = [1]", "#,2,4", steps=6),
    "along another axis": scan("scan_input_axes = [1], scan_output_axes = [-2]", "2,#,4"),
    "one turn": scan("", "#,2,4", steps=1),
    "two states that change places": parse(
        f"""(float[3] a, float[3] b, float[7,3] x) => (float[3] c, float[3] d, float[7,3] y) {WEIGHTS} {{
        c, d, y = Scan <num_scan_inputs = 1, body = step (float[3] u, float[3] v, float[3] t)
        => (float[3] p, float[3] q, float[3] s) {{ p = Identity (v) q = Add (u, t) s = Mul (u, v) }}> (a, b, x) }}"""
    ),
    "axes and shapes that lie outside of the body": parse(
        """(float[2,3] h, float[5,2,3] x) => (float[2,3] last, float[5,3,2] y)
        <int64[1] axis = {-1}, int64[2] flat = {3, 2}> {
        last, y = Scan <num_scan_inputs = 1, body = step (float[2,3] a, float[2,3] t) => (float[2,3] p, q) {
        column = Unsqueeze (t, axis) row = Unsqueeze (a, axis) outer = Mul (column, row) p = Squeeze (outer, axis)
        q = Reshape (outer, flat) }> (h, x) }"""
    ),
    "a counted loop": parse(
        f"""(float[2,4] first, float[5,2,4] x) => (float[2,4] last, float[5,2,4] y) {WEIGHTS} {{
        last, y = Loop <body = step (int64 i, bool go, float[2,4] h) => (bool on, float[2,4] hn, float[2,4] out) {{
        on = Identity (go) xt = Gather <axis = 0> (x, i) a = MatMul (h, w) b = Add (a, xt) hn = Tanh (b)
        out = Mul (hn, two) }}> (n, , first) }}"""
    ),
}


@pytest.mark.parametrize("target", dict.fromkeys([RUNNABLE[0], "c"]))
@pytest.mark.parametrize("name", CASES)
def test_loops_give_the_reference_answers(name: str, target: str) -> None:
    model = CASES[name]
    rng = np.random.default_rng(1)
    given = [rng.standard_normal(v.shape.numpy()).astype(np.float32) for v in model.graph.inputs]
    received = Built(model, isa(target))(*given)
    for one, other in zip(reference.run(model, given), received, strict=True):
        np.testing.assert_allclose(other, one, atol=2e-5)


def test_a_body_is_one_function_a_step_whatever_the_number_of_turns() -> None:
    few, many = (Built(scan("", "#,2,4", steps=steps), for_host()).emitted.source for steps in (4, 400))
    assert len(many) - len(few) < 100


def test_a_loop_that_decides_when_to_stop_is_refused_with_its_reason() -> None:
    model = parse(
        f"""(float[4] x) => (float[4] y) {WEIGHTS} {{ y = Loop <body = step (int64 i, bool go, float[4] h)
        => (bool on, float[4] hn) {{ hn = Mul (h, h) s = ReduceMax <keepdims = 0> (hn)
        on = Less (s, two) }}> (n, , x) }}"""
    )
    with pytest.raises(UnsupportedOpError, match="number of turns depends on what it computes"):
        program_of(model, "case", for_host())
