"""A Loop over a recurrent cell becomes one node, whatever the spelling; a Loop over anything else stays."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graph_text import model_of, ops, optimise, probe_of, same_answers

from hasten.passes.fix_shapes import fix_shapes

HIDDEN, INPUTS, STEPS = 3, 2, 4

RNN = "a = MatMul (xt, w) b = MatMul (h, r) s = Add (a, b) d = Add (s, bias) hn = Tanh (d)"
GRU_LATE = """
    a0 = MatMul (xt, w) a = Add (a0, bias) b0 = Gemm (h, r, more)
    az, ar, ah = Split <axis = 1, num_outputs = 3> (a)
    bz, br, bh = Split <axis = 1, num_outputs = 3> (b0)
    z0 = Add (az, bz) z = Sigmoid (z0) r0 = Add (ar, br) rr = Sigmoid (r0)
    g0 = Mul (rr, bh) g1 = Add (g0, ah) g = Tanh (g1) d = Sub (h, g) e = Mul (z, d) hn = Add (e, g)"""
# torch's order of gates: reset, update, new
GRU_TORCH = GRU_LATE.replace("az, ar, ah", "ar, az, ah").replace("bz, br, bh", "br, bz, bh")
# Keras' order: input, forget, candidate, output
LSTM = """
    a = MatMul (xt, w) b = MatMul (h, r) s0 = Add (a, b) s1 = Add (bias, s0)
    ga, gb, gc, gd = Split <axis = 1, num_outputs = 4> (s1)
    i = Sigmoid (ga) f = Sigmoid (gb) g = Tanh (gc) o = Sigmoid (gd)
    ig = Mul (i, g) fc = Mul (f, c) cn = Add (fc, ig) ct = Tanh (cn) hn = Mul (o, ct)"""
CELLS = {"RNN": (RNN, 1), "GRU": (GRU_LATE, 3), "GRU of torch": (GRU_TORCH, 3), "LSTM": (LSTM, 4)}


def loop(step: str, gates: int, outputs: str = "y") -> ir.Model:
    """The step in a Loop over the first axis of ``x``; the cell state, if any, is carried first."""
    rng = np.random.default_rng(3)

    def weight(name: str, *shape: int) -> str:
        numbers = ",".join(f"{n:.4f}" for n in rng.uniform(-0.8, 0.8, int(np.prod(shape))))
        return f"float[{','.join(map(str, shape))}] {name} = {{{numbers}}}"

    wide = gates * HIDDEN
    weights = ", ".join(
        [weight("w", INPUTS, wide), weight("r", HIDDEN, wide), weight("bias", wide), weight("more", wide)]
    )
    taken, given, made, left = ("float[N,3] c,", "c0,", "float[N,3] cn,", "cf,") if gates == 4 else ("",) * 4
    types = {"y": "float[4,N,3] y", "hf": "float[N,3] hf", "cf": "float[N,3] cf"}
    body = f"""<body = step (int64 turn, bool go, {taken} float[N,3] h, int64 n)
        => (bool goon, {made} float[N,3] hn, int64 nn, float[N,3] out) <int64 one = {{1}}, int64 all = {{{STEPS}}}> {{
        xt = Gather <axis = 0> (x, n) {step} nn = Add (n, one) goon = Less (nn, all) out = Identity (hn) }}>"""
    return model_of(
        f"""(float[4,N,2] x, float[N,3] h0, float[N,3] c0) => ({", ".join(types[name] for name in outputs.split())})
        <{weights}, int64 trips = {{{STEPS}}}, bool yes = {{1}}, int64 zero = {{0}}>
        {{ {left} hf, k, y = Loop {body} (trips, yes, {given} h0, zero) }}"""
    )


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("outputs", ["y", "hf", "y hf"])
def test_loops_over_cells_become_one_node(name: str, outputs: str) -> None:
    model = loop(*CELLS[name], outputs=outputs)
    for result in (optimise(model), optimise(model, fix_shapes({"N": 2}))):
        found = ops(result)
        assert found["Loop"] == 0 and found[name.split()[0]] == 1
        same_answers(model, result, probe_of(model, 5))


def test_the_final_cell_state_is_kept() -> None:
    model = loop(LSTM, 4, outputs="y cf")
    result = optimise(model)
    assert ops(result)["LSTM"] == 1
    same_answers(model, result, probe_of(model, 5))


@pytest.mark.parametrize(
    ("step", "gates"),
    [
        (RNN.replace("hn = Tanh (d)", "t = Tanh (d) hn = Sin (t)"), 1),
        (GRU_LATE.replace("z = Sigmoid (z0)", "z = HardSigmoid (z0)"), 3),
        (LSTM.replace("cn = Add (fc, ig)", "cn = Sub (fc, ig)"), 4),
    ],
    ids=["another activation", "another gate", "another update"],
)
def test_other_arithmetic_stays_a_loop(step: str, gates: int) -> None:
    assert ops(optimise(loop(step, gates)))["Loop"] == 1


def test_a_loop_that_stops_early_stays_a_loop() -> None:
    model = loop(RNN, 1, outputs="hf").clone()
    body = next(node for node in model.graph if node.op_type == "Loop").attributes["body"].as_graph()
    body.initializers["all"].const_value = ir.tensor(np.int64(2), name="all")
    result = optimise(model)
    assert ops(result)["Loop"] == 1
    same_answers(model, result, probe_of(model))


def stacking(write: str, rows: int, *, seen: str = "", bend: str = "Tanh") -> ir.Model:
    """A Loop at a batch of 2 that carries along what its turns leave; ``write`` makes ``left`` of ``stack``."""
    rng = np.random.default_rng(3)
    w, r, b = (",".join(f"{n:.4f}" for n in rng.uniform(-0.8, 0.8, n)) for n in (24, 36, 12))
    step = LSTM.replace("g = Tanh", f"g = {bend}").replace("ct = Tanh", f"ct = {bend}")
    return model_of(
        f"""(float[4,2,2] x, float[2,3] h0, float[2,3] c0) => (float[{rows},2,3] y, float[2,3] hf {seen})
        <float[2,12] w = {{{w}}}, float[3,12] r = {{{r}}}, float[12] bias = {{{b}}}, int64 trips = {{{STEPS}}},
         bool yes = {{1}}, int64 zero = {{0}}, int64[3] shape = {{{rows}, 2, 3}}>
        {{ empty = ConstantOfShape (shape) k, y, cf, hf, other = Loop <body = step
            (int64 turn, bool go, int64 n, float[{rows},2,3] stack, float[2,3] c, float[2,3] h)
            => (bool goon, int64 nn, float[{rows},2,3] left, float[2,3] cn, float[2,3] hn, float[1,2,3] out)
            <int64 one = {{1}}, int64[1,1] first = {{0}}, int64[2] place = {{1, 1}}, int64[3] row = {{1, 2, 3}}> {{
            goon = Identity (go) xt = Gather <axis = 0> (x, n) {step} nn = Add (n, one)
            out = Reshape (hn, row) at = Reshape (n, place) {write} }}> (trips, yes, zero, empty, c0, h0) }}"""
    )


@pytest.mark.parametrize(
    ("write", "rows", "seen"),
    [
        ("left = ScatterND (stack, at, out)", STEPS, ""),
        ("left = ScatterND (stack, first, out)", 1, ""),
        ("left = Identity (out)", 1, ""),
        ("left = Identity (out)", 1, ", float[4,1,2,3] other"),
    ],
    ids=["every turn", "the last turn", "one row", "a scan of another shape"],
)
@pytest.mark.parametrize("bend", ["Tanh", "Relu"])
def test_what_a_loop_carries_along_is_every_state_or_the_last(write: str, rows: int, seen: str, bend: str) -> None:
    model = stacking(write, rows, seen=seen, bend=bend)
    result = optimise(model)
    assert ops(result)["Loop"] == 0 and ops(result)["LSTM"] == 1
    same_answers(model, result, probe_of(model, 5))


@pytest.mark.parametrize(
    ("write", "rows"),
    [
        ("left = ScatterND (stack, first, out)", STEPS),
        ("left = Add (stack, out)", 1),
        ("d2 = Add (hn, hn) twice = Reshape (d2, row) left = ScatterND (stack, at, twice)", STEPS),
        ("old = Reshape (h, row) left = ScatterND (stack, at, old)", STEPS),
    ],
    ids=["one row of many", "a sum of all", "another number", "the state before"],
)
def test_a_loop_that_carries_anything_else_along_stays(write: str, rows: int) -> None:
    model = stacking(write, rows)
    result = optimise(model)
    assert ops(result)["Loop"] == 1
    same_answers(model, result, probe_of(model, 5))


@pytest.mark.parametrize("backwards", [0, 1])
@pytest.mark.parametrize("axis", [0, 1])
def test_scans_over_cells_become_one_node(backwards: int, axis: int) -> None:
    shape = "4,N,2" if axis == 0 else "N,4,2"
    rng = np.random.default_rng(3)
    w, r, b = (",".join(f"{n:.4f}" for n in rng.uniform(-0.8, 0.8, n)) for n in (24, 36, 12))
    settings = f"num_scan_inputs = 1, scan_input_axes = [{axis}], scan_output_axes = [{axis}], "
    settings += f"scan_input_directions = [{backwards}], scan_output_directions = [{backwards}]"
    step = LSTM.replace("(bias, s0)", "(s0, bias)")
    model = model_of(
        f"""(float[{shape}] x, float[N,3] h0, float[N,3] c0) => (float[{shape[:-1]}3] y, float[N,3] cf)
        <float[2,12] w = {{{w}}}, float[3,12] r = {{{r}}}, float[12] bias = {{{b}}}> {{
        cf, hf, y = Scan <{settings}, body = step (float[N,3] c, float[N,3] h, float[N,2] xt)
            => (float[N,3] cn, float[N,3] hn, float[N,3] out) {{ {step} out = Identity (hn) }}> (c0, h0, x) }}"""
    )
    result = optimise(model)
    assert ops(result)["Scan"] == 0 and ops(result)["LSTM"] == 1
    same_answers(model, result, probe_of(model))
