"""A recurrent cell written out turn by turn becomes one node, whatever the spelling; anything else stays as it was."""

from __future__ import annotations

import re

import numpy as np
import onnx_ir as ir
import pytest
from graph_text import model_of, ops, optimise, probe_of, same_answers
from test_passes_recurrence import CELLS, GRU_LATE, LSTM

from hasten.passes.fix_shapes import fix_shapes

HIDDEN, INPUTS, TURNS = 3, 2, 5
SHARED = ("w", "r", "bias", "more", "both", "u1", "u2", "u3", "v1", "v2", "v3", "one", "axis", "num_outputs")

# Input and state side by side, one product for both; the state comes first.
CONCATENATED = LSTM.replace(
    "a = MatMul (xt, w) b = MatMul (h, r) s0 = Add (a, b)", "hx = Concat <axis = 1> (h, xt) s0 = MatMul (hx, both)"
)
# A product for each gate, the state reset before its product, and the update gate the other way round.
GATE_BY_GATE = """
    az = MatMul (xt, v1) bz = MatMul (h, u1) sz = Add (az, bz) z = Sigmoid (sz)
    ar = MatMul (xt, v2) br = MatMul (h, u2) sr = Add (br, ar) q = Sigmoid (sr)
    qh = Mul (q, h) ag = MatMul (xt, v3) bg = MatMul (qh, u3) sg = Add (ag, bg) g = Tanh (sg)
    k = Sub (one, z) kh = Mul (k, h) zg = Mul (z, g) hn = Add (kh, zg)"""
SPELLINGS = {**CELLS, "LSTM, concatenated": (CONCATENATED, 4), "GRU, gate by gate": (GATE_BY_GATE, 3)}


def weight(rng: np.random.Generator, name: str, *shape: int) -> str:
    numbers = ",".join(f"{n:.4f}" for n in rng.uniform(-0.8, 0.8, int(np.prod(shape))))
    return f"float[{','.join(map(str, shape))}] {name} = {{{numbers}}}"


def unrolled(
    step: str, gates: int, *, batch: str = "N", start: str = "h0 c0", outputs: str = "last", source: str = "x"
) -> ir.Model:
    """The step written out for every turn of ``source``; ``start``: the states before the first."""
    rng, wide = np.random.default_rng(3), gates * HIDDEN
    shapes = {"w": (INPUTS, wide), "r": (HIDDEN, wide), "bias": (wide,), "more": (wide,), "both": (5, wide)}
    shapes |= dict.fromkeys(("v1", "v2", "v3"), (INPUTS, HIDDEN))
    shapes |= dict.fromkeys(("u1", "u2", "u3"), (HIDDEN, HIDDEN))
    weights = [weight(rng, name, *shape) for name, shape in shapes.items()]
    weights += [f"int64 t{turn} = {{{turn}}}" for turn in range(TURNS)]
    h, c = start.split()
    lines = ["xw = MatMul (x, w) xs = Add (bias, xw)"]
    for turn in range(TURNS):
        kept = {"h": h, "c": c}
        written = re.sub(
            r"\b([a-z]\w*)\b(?!\s*=\s*\d)",
            lambda m, k=kept, t=turn: m[0] if m[0] in SHARED else k.get(m[0], f"{m[0]}_{t}"),  # type: ignore[misc]
            step,
        )
        lines.append(f"xt_{turn} = Gather <axis = 1> ({source}, t{turn}) {written}")
        h, c = f"hn_{turn}", f"cn_{turn}"
    states = [f"hn_{turn}" for turn in range(TURNS)]
    if outputs == "all":
        lines.append(" ".join(f"u_{s} = Unsqueeze (s, axes)".replace("(s,", f"({s},") for s in states))
        lines.append(f"y = Concat <axis = 1> ({', '.join('u_' + s for s in states)})")
    results = {"last": "y", "all": "y", "cell": f"y, float[{batch},3] {c}"}[outputs]
    if outputs != "all":
        lines.append(f"y = Identity ({h})")
    shape = f"float[{batch},{TURNS},3]" if outputs == "all" else f"float[{batch},3]"
    return model_of(
        f"""(float[{batch},{TURNS},2] x, float[{batch},3] h0, float[{batch},3] c0) => ({shape} {results})
        <{", ".join(weights)}, float one = {{1}}, int64[1] axes = {{1}}, float[{1 if batch == "N" else batch},3] zero =
        {{{",".join("0" * HIDDEN * (1 if batch == "N" else int(batch)))}}}> {{ {" ".join(lines)} }}"""
    )


def recurrent(model: ir.Model) -> dict[str, int]:
    found = ops(model)
    return {name: found[name] for name in ("LSTM", "GRU", "RNN") if found[name]}


@pytest.mark.parametrize("name", SPELLINGS)
@pytest.mark.parametrize("outputs", ["last", "all"])
def test_a_cell_written_out_becomes_one_node(name: str, outputs: str) -> None:
    model = unrolled(*SPELLINGS[name], outputs=outputs)
    for result in (optimise(model), optimise(model, fix_shapes({"N": 2}))):
        assert recurrent(result) == {name.split()[0].strip(","): 1}
        assert not {"MatMul", "Gemm", "Tanh", "Concat"} & set(ops(result))
        same_answers(model, result, probe_of(model))


def test_the_last_cell_state_is_there_as_well() -> None:
    model = unrolled(LSTM, 4, outputs="cell")
    result = optimise(model)
    assert recurrent(result) == {"LSTM": 1}
    same_answers(model, result, probe_of(model))


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM"])
def test_a_first_turn_from_which_zeros_were_folded_joins_the_others(name: str) -> None:
    model = unrolled(*CELLS[name], batch="1", start="zero zero", outputs="all")
    result = optimise(model)
    assert recurrent(result) == {name: 1}
    assert not {"MatMul", "Gemm", "Tanh", "Concat"} & set(ops(result))
    same_answers(model, result, probe_of(model))


@pytest.mark.parametrize("name", ["RNN", "LSTM"])
def test_inputs_multiplied_all_at_once_are_multiplied_inside(name: str) -> None:
    step, gates = CELLS[name]
    model = unrolled(step.replace("a = MatMul (xt, w)", "a = Identity (xt)"), gates, source="xs")
    result = optimise(model)
    assert recurrent(result) == {name: 1}
    assert not {"MatMul", "Gemm"} & set(ops(result))
    same_answers(model, result, probe_of(model))


def test_a_step_that_is_no_cell_stays() -> None:
    model = unrolled(GRU_LATE.replace("g = Tanh (g1)", "g = Sin (g1)"), 3)
    result = optimise(model)
    assert not recurrent(result)
    same_answers(model, result, probe_of(model))
