"""Rules over models, each on graphs that have the flaw and graphs that only look like it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from model_views import after, graph, keras, layer

from hasten.doctor.graphs import ModelView, examine_model
from hasten.doctor.layers import layers_of_config, read_layers
from hasten.doctor.rules import GRAPH_RULES, documentation, graph_rules
from hasten.doctor.settings import Settings

RULES = {rule.code: rule for rule in graph_rules()}


F = np.ones((4, 4), "float32")
V = np.ones(4, "float32")
CONV = np.ones((4, 4, 1, 1), "float32")
BN = {"s": V, "b": V, "m": V, "v": V}
LSTM = {"w": np.ones((1, 16, 4), "f4"), "r": np.ones((1, 16, 4), "f4")}
GRU = {"w": np.ones((1, 12, 4), "f4"), "r": np.ones((1, 12, 4), "f4")}
TABLE = {"t": np.zeros((80_000, 64), "float32")}
IMAGE = "(float[1,4,8,8] x) => (float[1,4,8,8] y)"
ROW = "(float[1,4] x) => (float[1,4] y)"
BODY = "(int64 i, bool go, float[1,4] s) => (bool keep, float[1,4] t) { keep = Identity(go) t = Relu(s) }"
STEPS = "(float[5,1,4] x) => (float[5,1,1,4] y)"


def repeated(times: int, op: str = "MatMul") -> str:
    body = "".join(f"a{i + 1} = {op}(a{i}, w) " for i in range(times))
    return ROW + " { a0 = Identity(x) " + body + f"y = Relu(a{times}) }}"


DOUBLE = {"w": np.ones((4, 4))}
DOUBLES = "(double[1,4] x) => (double[1,4] y)"
NHWC = "(float[1,8,8,4] x) => (float[1,8,8,4] y)"
BACK = "t = Transpose<perm=[0,3,1,2]>(x) "
FORTH = "y = Transpose<perm=[0,2,3,1]>"

BAD: dict[str, list[ModelView]] = {
    "H601": [
        graph(DOUBLES + " { y = MatMul(x, w) }", DOUBLE),
        graph(DOUBLES + " { y = Gemm(x, w) }", DOUBLE),
        graph(ROW + " { c = Cast<to=11>(x) d = MatMul(c, w) y = Cast<to=1>(d) }", DOUBLE),
        keras(layer("Dense", dtype="float64")),
        keras(layer("Dense", dtype={"class_name": "DTypePolicy", "config": {"name": "float64"}})),
        keras(layer("Dense", "a", dtype="float32"), layer("Dense", "b", dtype="float64")),
    ],
    "H602": [
        graph(ROW + " { r = Constant<value_float=0.5>() y = Dropout(x, r, on) }", {"on": np.array(True)}),
        graph(ROW + " { n = RandomNormalLike(x) y = Add(x, n) }"),
        graph(ROW + " { n = RandomUniform<shape=[1,4]>() y = Add(x, n) }"),
        graph(ROW + " { y = Bernoulli(x) }"),
        graph(
            IMAGE + " { y, m2, v2 = BatchNormalization<training_mode=1>(x, s, b, m, v) }",
            BN,
        ),
        keras(layer("Dropout", calls=[after("x", training=True)])),
        keras(layer("GaussianNoise", calls=[[["x", 0, 0, {"training": True}]]])),
        keras(layer("SpatialDropout3D", calls=[after("x", training=True)])),
        keras(layer("RandomFlip", calls=[after("x", training=True)])),
        keras(layer("LSTM", calls=[after("x", training=True)], dropout=0.3)),
        keras(layer("BatchNormalization", calls=[after("x", training=True)])),
        keras(layer("Sequential", calls=[after("x", training=True)], layers=[layer("Dropout", "b")])),
        keras(
            layer("Bidirectional", calls=[after("x", training=True)], layer=layer("GRU", "g", recurrent_dropout=0.1))
        ),
    ],
    "H603": [
        graph(repeated(8), {"w": F}),
        graph(repeated(20), {"w": F}),
        graph(repeated(9, "Gemm"), {"w": F}),
        graph(repeated(8, "Conv").replace("[1,4]", "[1,4,8,8]"), {"w": CONV}),
        keras(layer("LSTM", unroll=True)),
        keras(layer("GRU", unroll=True)),
    ],
    "H604": [
        graph(NHWC + f" {{ {BACK} {FORTH}(t) }}"),
        graph(NHWC + f" {{ {BACK} r = Relu(t) {FORTH}(r) }}"),
        graph(NHWC + f" {{ {BACK} r = Sigmoid(t) q = Neg(r) {FORTH}(q) }}"),
        graph(NHWC + f" {{ {BACK} r = Mul(t, two) {FORTH}(r) }}", {"two": np.array([2], "float32")}),
        graph("(float[4,4] x) => (float[4,4] y) { t = Transpose<perm=[1,0]>(x) y = Transpose<perm=[1,0]>(t) }"),
        graph("(float[4,4] x) => (float[4,4] y) { t = Transpose(x) r = Tanh(t) y = Transpose<perm=[1,0]>(r) }"),
    ],
    "H605": [
        graph(IMAGE + " { c = Conv(x, w) t = Transpose(c) y = BatchNormalization(t, s, b, m, v) }", {"w": CONV, **BN}),
        graph(IMAGE + " { c = Conv(x, w) y = Mul(c, k) }", {"w": CONV, "k": np.ones((1, 4, 1, 1), "float32")}),
        graph(IMAGE + " { c = Conv(x, w) y = BatchNormalization(c, s, b, m, v) }", {"w": CONV, **BN}),
        graph(IMAGE + " { c = Conv(x, w, s) y = BatchNormalization(c, s, b, m, v) }", {"w": CONV, **BN}),
        graph(IMAGE + " { c = ConvTranspose(x, w) y = BatchNormalization(c, s, b, m, v) }", {"w": CONV, **BN}),
        graph(ROW + " { c = Gemm(x, w) y = BatchNormalization(c, s, b, m, v) }", {"w": F, **BN}),
        graph(ROW + " { c = MatMul(x, w) y = BatchNormalization(c, s, b, m, v) }", {"w": F, **BN}),
        graph(
            IMAGE + " { c = Conv(x, w) n = BatchNormalization<epsilon=0.1>(c, s, b, m, v) y = Relu(n) }",
            {"w": CONV, **BN},
        ),
    ],
    "H606": [
        graph("(float[1,n] x) => (float[1,n] y) { y = Relu(x) }"),
        graph("(float[batch,n,4] x) => (float[batch,n,4] y) { y = Relu(x) }"),
        graph("(float[1,3,h,w] x) => (float[1,3,h,w] y) { y = Relu(x) }"),
        graph("(float[1,4] a, float[1,n] x) => (float[1,n] y) { y = Relu(x) }"),
        graph("(float[1,4,?] x) => (float[1,4,?] y) { y = Relu(x) }"),
        keras(layer("InputLayer", batch_shape=[None, None, 40])),
        keras(layer("InputLayer", batch_input_shape=[1, 3, None])),
    ],
    "H607": [
        graph("(float[1,4] x) => (int64[2,n] y) { y = NonZero(x) }"),
        graph("(float[4] x) => (float[n] y) { y = Unique(x) }"),
        graph("(float[1,4] x) => (float[1,4] y) { y = odd.Wonder(x) }"),
        graph("(float[1,4] x) => (float[1,4] y) { y = Hardmax(x) }"),
        graph("(float[4] x, bool[4] c) => (float[n] y) { y = Compress(x, c) }"),
        graph("(float[4,4] x) => (float y) { y = Det(x) }"),
    ],
    "H608": [
        graph(ROW + " { z = Tanh(x) y = Relu(x) }"),
        graph(ROW + " { a = Tanh(x) b = Exp(a) y = Relu(x) }"),
        graph(ROW + " { y = Relu(x) }", {"w": F}),
        graph(ROW + " { y = MatMul(x, w) }", {"w": F, "u": F}),
        keras(
            layer("InputLayer", "i"),
            layer("Dense", "d", [after("i")]),
            layer("Dense", "e", [after("i")]),
            outputs=["d", 0, 0],
        ),
        keras(
            layer("InputLayer", "i"),
            layer("Dense", "d", [[["i", 0, 0, {}]]]),
            layer("Dense", "e", [[["d", 0, 0, {}]]]),
            outputs=[["d", 0, 0]],
        ),
    ],
    "H609": [
        graph(ROW + " { t = Transpose(w) y = MatMul(x, t) }", {"w": F}),
        graph(ROW + " { s = Mul(w, w) y = MatMul(x, s) }", {"w": F}),
        graph(ROW + " { c = Constant<value_floats=[1.0,2.0,3.0,4.0]>() e = Exp(c) y = Add(x, e) }"),
        graph(ROW + " { s = Sqrt(w) t = Neg(s) y = MatMul(x, t) }", {"w": F}),
        graph(ROW + " { c = Cast<to=1>(w) y = MatMul(x, c) }", {"w": F.astype("float16")}),
        graph(ROW + " { s = Softmax(w) y = MatMul(x, s) }", {"w": F}),
    ],
    "H610": [
        keras(layer("LSTM", activation="relu")),
        keras(layer("LSTM", recurrent_dropout=0.2)),
        keras(layer("GRU", reset_after=False)),
        keras(layer("LSTM", use_bias=False)),
        keras(layer("RNN", cell={"class_name": "LSTMCell", "config": {}})),
        keras(
            layer("Bidirectional", layer={"class_name": "GRU", "config": {"name": "g", "recurrent_activation": "tanh"}})
        ),
        graph(STEPS + ' { y = LSTM<hidden_size=4, activations=["Sigmoid","Relu","Tanh"]>(x, w, r) }', LSTM),
        graph(STEPS + " { y = LSTM<hidden_size=4, clip=3.0>(x, w, r) }", LSTM),
        graph(STEPS + " { y = GRU<hidden_size=4>(x, w, r) }", GRU),
    ],
    "H611": [
        graph("(int64[1] x) => (float[1,64] y) { y = Gather(t, x) }", TABLE),
        graph("(int64[1,20] x) => (float[1,20,64] y) { y = Gather(t, x) }", TABLE),
        graph("(int64[n] x) => (float[n,64] y) { y = Gather(t, x) }", TABLE),
        graph("(int32[8] x) => (float[8,64] y) { y = Gather<axis=0>(t, x) }", TABLE),
        graph("(int64[1] x) => (float[1,64] y) { g = Gather(t, x) y = Relu(g) }", TABLE),
        graph("(int64[800] x) => (float[800,64] y) { y = Gather(t, x) }", TABLE),
    ],
}
GOOD: dict[str, list[ModelView]] = {
    "H601": [
        graph(ROW + " { y = MatMul(x, w) }", {"w": F}),
        graph(DOUBLES + " { y = Mul(x, s) }", {"s": np.array(2.0)}),
        graph(ROW + " { y = Relu(x) }"),
        graph(ROW + " { h = Cast<to=1>(w) y = MatMul(x, h) }", {"w": F.astype("float16")}),
        keras(layer("Dense", dtype="float32")),
        keras(layer("Dense", dtype={"class_name": "DTypePolicy", "config": {"name": "mixed_float16"}})),
    ],
    "H602": [
        graph(ROW + " { r = Constant<value_float=0.5>() y = Dropout(x, r, off) }", {"off": np.array(False)}),
        graph(ROW + " { y = Dropout(x) }"),
        graph(IMAGE + " { y = BatchNormalization(x, s, b, m, v) }", BN),
        graph(ROW + " { y = Relu(x) }"),
        keras(layer("Dropout", calls=[after("x")])),
        keras(layer("Dropout", calls=[after("x", training=False)])),
        keras(layer("BatchNormalization", calls=[after("x", training=True)], trainable=False)),
        keras(layer("LSTM", calls=[after("x", training=True)], dropout=0.0)),
        keras(
            layer(
                "Sequential",
                calls=[after("x", training=True)],
                layers=[layer("Dropout", "b", [after("c", training=False)])],
            )
        ),
    ],
    "H603": [
        graph(repeated(7), {"w": F}),
        graph(repeated(1), {"w": F}),
        graph(repeated(9, "Add"), {"w": F}),
        graph(repeated(9, "Gemm").replace(", w)", ", a0, w)"), {"w": F}),
        graph(ROW + " { y = MatMul(x, w) }", {"w": F}),
        keras(layer("LSTM", unroll=False)),
        keras(layer("Dense")),
    ],
    "H604": [
        graph(NHWC.replace("=> (float[1,8,8,4]", "=> (float[1,4,8,8]") + " { y = Transpose<perm=[0,3,1,2]>(x) }"),
        graph(NHWC + f" {{ {BACK} c = Conv(t, w) {FORTH}(c) }}", {"w": CONV}),
        graph(NHWC + f" {{ {BACK} {BACK.replace('t =', 'u =').replace('(x)', '(t)')} y = Relu(u) }}"),
        graph("(float[1,8,8,4] x) => (float[1,8,8,4] y, float[1,4,8,8] t) { " + BACK + FORTH + "(t) }"),
        graph(NHWC + f" {{ {BACK} r = Mul(t, t) {FORTH}(r) }}"),
        graph(NHWC + f" {{ {BACK} s = Softmax(t) {FORTH}(s) }}"),
    ],
    "H605": [
        graph(IMAGE + " { c = Conv(x, w) y = Mul(c, k) }", {"w": CONV, "k": np.array([2.0], "float32")}),
        graph(IMAGE + " { r = Relu(x) y = Mul(r, k) }", {"k": np.ones((1, 4, 1, 1), "float32")}),
        graph(IMAGE + " { y = BatchNormalization(x, s, b, m, v) }", BN),
        graph(IMAGE + " { c = Conv(x, w) r = Relu(c) y = BatchNormalization(r, s, b, m, v) }", {"w": CONV, **BN}),
        graph(IMAGE + " { c = Conv(x, w) n = BatchNormalization(c, s, b, m, v) y = Add(n, c) }", {"w": CONV, **BN}),
        graph(
            "(float[1,4] x, float[4,4] w) => (float[1,4] y) { c = MatMul(x, w) y = BatchNormalization(c, s, b, m, v) }",
            BN,
        ),
        graph(
            IMAGE + " { c = Conv(x, w) y, m2, v2 = BatchNormalization<training_mode=1>(c, s, b, m, v) }",
            {"w": CONV, **BN},
        ),
        graph(IMAGE + " { y = Conv(x, w) }", {"w": CONV}),
    ],
    "H606": [
        graph(ROW + " { y = Relu(x) }"),
        graph("(float[batch,4] x) => (float[batch,4] y) { y = Relu(x) }"),
        graph("(float[?,4] x) => (float[?,4] y) { y = Relu(x) }"),
        graph("(float x) => (float y) { y = Relu(x) }"),
        graph("(float[1,4] x) => (float[1,n] y) { y = Relu(x) }"),
        keras(layer("InputLayer", batch_shape=[None, 40])),
    ],
    "H607": [
        graph(ROW + " { y = MatMul(x, w) }", {"w": F}),
        graph(STEPS + " { y = LSTM<hidden_size=4>(x, w, r) }", LSTM),
        graph(IMAGE + " { y = Conv(x, w) }", {"w": CONV}),
        graph(ROW + " { y = Softmax(x) }"),
        graph(ROW + " { y = Gelu(x) }"),
        graph(IMAGE + " { y = MaxPool<kernel_shape=[1,1]>(x) }"),
    ],
    "H608": [
        graph(ROW + " { y = Relu(x) }"),
        graph(ROW + " { a = Tanh(x) y = Relu(a) }"),
        graph(ROW + " { y = MatMul(x, w) }", {"w": F}),
        graph("(float[1,4] x) => (float[1,4] y, float[1,4] z) { y = Relu(x) z = Tanh(x) }"),
        keras(layer("InputLayer", "i"), layer("Dense", "d", [after("i")]), outputs=["d", 0, 0]),
        keras(layer("Dense", "d"), layer("Dense", "e")),
    ],
    "H609": [
        graph(ROW + " { y = MatMul(x, w) }", {"w": F}),
        graph(ROW + " { c = Constant<value_float=2.0>() y = Mul(x, c) }"),
        graph(
            ROW + " { q = DequantizeLinear(w, s) y = MatMul(x, q) }", {"w": F.astype("int8"), "s": np.array(0.1, "f4")}
        ),
        graph(ROW + " { n = RandomUniform<shape=[1,4]>() y = Add(x, n) }"),
        graph(ROW + " { i = Identity(w) y = MatMul(x, i) }", {"w": F}),
        graph(ROW + " { t = Transpose(x) y = Transpose(t) }"),
        graph(ROW + f" {{ c = Neg(w) d = Exp(c) y = Loop(n, , d) <body = b {BODY}> }}", {"w": V, "n": np.array(3)}),
    ],
    "H610": [
        keras(layer("LSTM", activation="tanh", recurrent_activation="sigmoid", use_bias=True, unroll=False)),
        keras(layer("GRU", reset_after=True)),
        keras(layer("LSTM", dropout=0.2)),
        keras(layer("LSTM", unroll=True)),
        keras(layer("RNN", cell={"class_name": "MyCell", "config": {}})),
        keras(layer("Dense", activation="relu")),
        graph(STEPS + " { y = LSTM<hidden_size=4>(x, w, r) }", LSTM),
        graph(STEPS + " { y = GRU<hidden_size=4, linear_before_reset=1>(x, w, r) }", GRU),
    ],
    "H611": [
        graph("(int64[1] x) => (float[1,4] y) { y = Gather(t, x) }", {"t": F}),
        graph("(int64[2000] x) => (float[2000,64] y) { y = Gather(t, x) }", TABLE),
        graph("(float[1,80000] x) => (float[1,64] y) { y = MatMul(x, t) }", TABLE),
        graph("(int64[1] x, float[80000,64] t) => (float[1,64] y) { y = Gather(t, x) }"),
        graph("(int64[1] x) => (float[1,8] y) { y = Gather(t, x) }", {"t": np.zeros((80_000, 8), "float32")}),
        graph(ROW + " { y = Relu(x) }"),
    ],
}
CASES = [
    (code, kind, i) for kind, all_ in (("bad", BAD), ("good", GOOD)) for code in all_ for i in range(len(all_[code]))
]


@pytest.mark.parametrize(("code", "kind", "index"), CASES, ids=[f"{c}-{k}-{i}" for c, k, i in CASES])
def test_fires_only_on_the_flaw(code: str, kind: str, index: int) -> None:
    view = (BAD if kind == "bad" else GOOD)[code][index]
    hits = list(RULES[code].check(view))
    assert bool(hits) == (kind == "bad"), hits


@pytest.mark.parametrize("code", GRAPH_RULES)
def test_every_rule_has_cases_and_documentation(code: str) -> None:
    assert len(BAD[code]) >= 6 and len(GOOD[code]) >= 6
    for heading in ("What it does", "Why is this bad", "Cost", "Example", "Use instead", "Fix safety"):
        assert f"## {heading}" in documentation(code)


def test_loops_are_named_with_their_count() -> None:
    view = graph(ROW + f" {{ y = Loop(n, , x) <body = b {BODY}> }}", {"n": np.array(3, "int64")})
    [hit] = RULES["H607"].check(view)
    assert "Loop" in hit.message and "1 in the model" in hit.message


def test_a_keras_file_is_read_without_keras(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    config = {"class_name": "Sequential", "config": {"layers": [layer("LSTM", "memory", activation="relu")]}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
    assert [found.name for found in read_layers(path)] == ["memory"]
    [finding] = examine_model(None, path, Settings(select=("H610",)))
    assert finding.rule == "H610" and "layer 'memory'" in finding.message and "activation='relu'" in finding.message
    assert finding.path == str(path)


def test_every_argument_that_forbids_a_fused_kernel_is_told() -> None:
    odd = {"activation": "elu", "recurrent_activation": "hard_sigmoid", "use_bias": False, "reset_after": False}
    [hit] = RULES["H610"].check(keras(layer("GRU", "memory", **odd)))
    told = "activation='elu', recurrent_activation='hard_sigmoid', use_bias=False, reset_after=False"
    assert hit.message == f"GRU can't be fused: {told}"


def test_a_layer_and_the_node_it_became_are_told_of_once() -> None:
    nodes = graph(STEPS + ' { y = LSTM<hidden_size=4, activations=["Sigmoid","Relu","Relu"]>(x, w, r) }', LSTM)
    nodes.top[0].name = "outer/memory/LSTM"
    layers = keras(layer("LSTM", "memory", activation="relu")).layers
    [hit] = RULES["H610"].check(ModelView(nodes.model, layers))
    assert hit.where == "layer 'memory'"
    [hit] = RULES["H610"].check(ModelView(nodes.model, keras(layer("LSTM", "other")).layers))
    assert hit.where == "node 'outer/memory/LSTM'"


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 broken", b"{}"])
def test_a_file_that_is_no_keras_model_has_no_layers(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.keras"
    path.write_bytes(data)
    assert read_layers(path) == ()


def test_settings_choose_among_rules() -> None:
    view = BAD["H601"][0]
    assert examine_model(view.model, Path("m.onnx"), Settings(ignore=("H6",))) == ()


def test_transposes_that_came_with_reading_a_keras_file_are_not_its_own() -> None:
    body = "a = Transpose<perm=[0,3,1,2]>(x) b = Relu(a) y = Transpose<perm=[0,2,3,1]>(b)"
    text = f"(float[1,8,8,4] x) => (float[1,8,8,4] y) {{ {body} }}"
    view = graph(text)
    assert list(RULES["H604"].check(view))
    layer = {"class_name": "ReLU", "name": "r", "config": {"name": "r"}, "inbound_nodes": []}
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": [layer]}}
    assert not list(RULES["H604"].check(ModelView(view.model, layers_of_config(config))))
