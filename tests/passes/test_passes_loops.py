"""Loops as TensorFlow writes them, which carry all they need and ask after every turn, become loops that can be
planned: a number of turns, shapes for what is carried, and weights that are constants."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graph_text import model_of, ops, optimise, probe_of, same_answers

from hasten.graph import shapes
from hasten.graph.walk import all_nodes
from hasten.passes.surgery import scalar


def counting(goes_on: str, *, first: int = 0, limit: str = "", more: str = "") -> ir.Model:
    """Powers of a matrix times ``x``, while ``goes_on`` says so of the counter ``n``; the matrix is carried along."""
    return model_of(
        f"""(float[2,3] x) => (float[2,3] y, float[K,2,3] all)
        <int64 start = {{{first}}}, int64 many = {{9}}, bool yes = {{1}}, float[2,3] halves = {{0,0.5,1,1.5,2,2.5}},
         float[2,3] w = {{1,0.5,0.25,0.5,1,0.5}}>
        {{ k, y, wf, all = Loop <body = step (int64 turn, bool go, int64 n, float h, float wi)
            => (bool goon, int64 nn, float[2,3] hn, float wo, float[2,3] out)
            <int64 one = {{1}}, int64 six = {{6}}, int64 two = {{2}}, float tenth = {{0.1}}> {{
            nn = Add (n, one) {more} {goes_on}
            scaled = Mul (wi, tenth) bent = Tanh (h) hn = Add (bent, scaled)
            wo = Identity (wi) out = Identity (hn) }}> ({limit}, yes, start, x, w) }}"""
    )


def loops(model: ir.Model) -> list[ir.Node]:
    return [node for node in all_nodes(model.graph) if node.op_type == "Loop"]


@pytest.mark.parametrize(
    ("model", "turns"),
    [
        (counting("goon = Less (nn, six)"), 6),
        (counting("goon = Less (n, six)"), 7),
        (counting("goon = Less (nn, six)", limit="many"), 6),
        (counting("goon = Less (nn, many)", limit="many", first=4), 5),
        (counting("near = Less (nn, six) odd = Less (turn, two) goon = And (near, odd)"), 3),
        (counting("goon = Greater (many, nn)", first=20), 1),
        (counting("goon = Less (nn, six)", first=-300), 306),
    ],
)
def test_a_condition_that_counts_is_a_number_of_turns(model: ir.Model, turns: int) -> None:
    result = optimise(model)
    (loop,) = loops(result)
    body = loop.attributes["body"].as_graph()
    assert scalar(loop.inputs[0]) == turns
    assert body.outputs[0] is body.inputs[1]
    assert not {"Less", "Greater", "And"} & {node.op_type for node in body}
    same_answers(model, result, probe_of(model))


@pytest.mark.parametrize(
    "goes_on",
    [
        "sum = ReduceSum <keepdims = 0> (h) small = Abs (sum) goon = Less (small, tenth)",
        "goon = Identity (go)",
    ],
)
def test_a_condition_on_what_is_computed_stays(goes_on: str) -> None:
    model = counting(goes_on, limit="many")
    result = optimise(model)
    same_answers(model, result, probe_of(model))
    (loop,) = loops(result)
    assert scalar(loop.inputs[0]) == 9


def test_a_condition_that_never_fails_leaves_the_limit() -> None:
    model = counting("goon = LessOrEqual (n, n)", limit="many")
    result = optimise(model)
    (loop,) = loops(result)
    assert scalar(loop.inputs[0]) == 9
    same_answers(model, result, probe_of(model))


def test_weights_that_a_loop_only_hands_on_are_read_from_outside_and_folded() -> None:
    model = counting("goon = Less (nn, six)")
    result = optimise(model)
    (loop,) = loops(result)
    body = loop.attributes["body"].as_graph()
    assert ops(result)["Mul"] == 0
    assert len(body.inputs) == 2 + len(loop.outputs) - 1 <= 4
    same_answers(model, result, probe_of(model))


def test_what_a_loop_carries_has_the_shape_that_every_turn_leaves() -> None:
    model = counting("goon = Less (nn, six)")
    shapes.complete(model)
    (loop,) = loops(model)
    body = loop.attributes["body"].as_graph()
    assert body.inputs[3].shape == ir.Shape([2, 3])
    assert all(value.shape is not None and value.shape.is_static() for node in body for value in node.outputs)


def test_what_grows_from_turn_to_turn_is_left_open() -> None:
    model = model_of(
        """(float[1,3] x) => (float[N,3] y) <int64 three = {3}, bool yes = {1}>
        { y = Loop <body = step (int64 turn, bool go, float[M,3] h) => (bool goon, float[P,3] hn) {
            hn = Concat <axis = 0> (h, h) goon = Identity (go) }> (three, yes, x) }"""
    )
    shapes.complete(model)
    (loop,) = loops(model)
    inside = loop.attributes["body"].as_graph().inputs[2]
    assert inside.shape is None or inside.shape != ir.Shape([1, 3])
    x = np.arange(3, dtype=np.float32)[None]
    same_answers(model, optimise(model), [x])
