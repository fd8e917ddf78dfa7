"""What the rules on models say of one flaw that shows in several places, and of a layer and what became of it."""

from __future__ import annotations

import numpy as np
from model_views import after, graph, keras, layer

from hasten.doctor.graphs import ModelView
from hasten.doctor.rules import graph_rules

RULES = {rule.code: rule for rule in graph_rules()}
F = np.ones((4, 4), "float32")
BN = dict.fromkeys("sbmv", np.ones(4, "float32"))
ROW = "(float[1,4] x) => (float[1,4] y)"
THERE_AND_BACK = (
    "(float[1,8,8,4] x) => (float[1,8,8,4] y) "
    "{ t = Transpose<perm=[0,3,1,2]>(x) r = Relu(t) y = Transpose<perm=[0,2,3,1]>(r) }"
)


def test_permute_of_a_keras_file_is_its_own() -> None:
    view = graph(THERE_AND_BACK)
    view.top[0].name, view.top[2].name = "m/there/Transpose", "m/back/Transpose"
    there, back, other = (keras(layer(kind, kind.lower())).layers for kind in ("There", "Back", "Other"))
    permutes = keras(layer("Permute", "there"), layer("Permute", "back")).layers
    [hit] = RULES["H604"].check(ModelView(view.model, permutes))
    assert hit.where == "node 'm/there/Transpose'"
    assert not list(RULES["H604"].check(ModelView(view.model, there + back + other)))
    assert not list(RULES["H604"].check(ModelView(view.model, (permutes[0], *back))))


def test_a_batch_norm_that_takes_the_batch_cannot_be_folded() -> None:
    view = graph(
        "(float[1,4,8,8] x) => (float[1,4,8,8] y) { c = Conv(x, w) y = BatchNormalization(c, s, b, m, v) }",
        {"w": np.ones((4, 4, 1, 1), "float32"), **BN},
    )
    view.top[1].name = "m/norm/BatchNormalization"
    trains = keras(layer("BatchNormalization", "norm", [after("x", training=True)])).layers
    assert not list(RULES["H605"].check(ModelView(view.model, trains)))
    assert list(RULES["H605"].check(ModelView(view.model, keras(layer("BatchNormalization", "norm")).layers)))


def test_an_unrolled_loop_is_told_of_once() -> None:
    two = ROW + " { " + "".join(f"b{i} = MatMul(x, w) c{i} = MatMul(b{i}, u) " for i in range(8)) + "y = Sum(c0, c7) }"
    view = graph(two, {"w": F, "u": F})
    [hit] = RULES["H603"].check(view)
    assert hit.message == "the same MatMul is written out 8 times, and of 1 more weights too"
    [hit] = RULES["H603"].check(ModelView(view.model, keras(layer("LSTM", "memory", unroll=True)).layers))
    assert hit.where == "layer 'memory'"


def test_rows_read_by_indices_whose_shape_was_lost_are_those_of_the_inputs() -> None:
    view = graph(
        "(int64[1,20] x) => (float[1,20,64] y) { i = Identity(x) y = Gather(t, i) }",
        {"t": np.zeros((80_000, 64), "float32")},
    )
    assert view.top[0].outputs[0].shape is None
    [hit] = RULES["H611"].check(view)
    assert "at most 20 of 80000 rows" in hit.message
