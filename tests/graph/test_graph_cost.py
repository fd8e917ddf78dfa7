"""Costs against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import onnx.parser
import onnx_ir as ir
import pytest

from hasten import graph
from hasten.graph import cost, shapes


def one(text: str, opset: int = 18) -> cost.Cost:
    model = ir.from_proto(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> g {text}'))
    shapes.infer(model)
    return cost.costs(model)[0]


CASES = {
    "MatMul": ("(float[2,3] x, float[3,5] w) => (float[2,5] y) { y = MatMul (x, w) }", 30, 60, 84, 40),
    "batched MatMul": ("(float[7,2,3] x, float[7,3,5] w) => (y) { y = MatMul (x, w) }", 210, 420, 588, 280),
    "Gemm": (
        "(float[3,2] x, float[5,3] w, float[5] b) => (y) { y = Gemm <transA = 1, transB = 1> (x, w, b) }",
        30, 70, 104, 40,
    ),
    # 8 outputs × 4×4 places × 3 channels × 3×3 taps; bias once per output element
    "Conv": (
        "(float[1,3,6,6] x, float[8,3,3,3] w, float[8] b) => (y) { y = Conv (x, w, b) }",
        3456, 7040, 4 * (108 + 216 + 8), 4 * 128,
    ),
    "depthwise Conv": (
        "(float[1,4,6,6] x, float[4,1,3,3] w) => (y) { y = Conv <group = 4> (x, w) }", 576, 1152, 4 * 180, 4 * 64,
    ),
    # every input element meets each weight of its channel once
    "ConvTranspose": (
        "(float[1,2,3,3] x, float[2,5,2,2] w) => (y) { y = ConvTranspose (x, w) }", 360, 720, 4 * 58, 4 * 80,
    ),
    # 5 steps × 2 rows × 4 gates × 6 units × (3 inputs + 6 units); 17 pointwise operations a unit
    "LSTM": (
        "(float[5,2,3] x, float[1,24,3] w, float[1,24,6] r) => (y) { y = LSTM <hidden_size = 6> (x, w, r) }",
        2160, 2 * 2160 + 5 * 2 * 6 * 17, 4 * (30 + 72 + 144), 4 * 60,
    ),
    "GRU": (
        "(float[5,2,3] x, float[2,18,3] w, float[2,18,6] r) => (y)"
        " { y = GRU <hidden_size = 6, direction = \"bidirectional\"> (x, w, r) }",
        3240, 2 * 3240 + 5 * 2 * 2 * 6 * 13, 4 * (30 + 108 + 216), 4 * 120,
    ),
    "Relu": ("(float[2,3] x) => (y) { y = Relu (x) }", 0, 6, 24, 24),
    "broadcast Add": ("(float[2,3] x, float[3] b) => (y) { y = Add (x, b) }", 0, 6, 36, 24),
    "AveragePool": (
        "(float[1,2,4,4] x) => (y) { y = AveragePool <kernel_shape = [2,2], strides = [2,2]> (x) }", 0, 32, 128, 32,
    ),
    "GlobalAveragePool": ("(float[1,2,4,4] x) => (y) { y = GlobalAveragePool (x) }", 0, 32, 128, 8),
    "Softmax": ("(float[2,3] x) => (y) { y = Softmax (x) }", 0, 30, 24, 24),
    "Reshape": ("(float[2,3] x, int64[1] s) => (float[6] y) { y = Reshape (x, s) }", 0, 0, 0, 0),
    "Transpose": ("(float[2,3] x) => (y) { y = Transpose (x) }", 0, 0, 24, 24),
    "QLinearMatMul": (
        "(uint8[2,3] a, float s, uint8 z, uint8[3,5] b, float t, uint8 u, float v, uint8 w) => (y)"
        " { y = QLinearMatMul (a, s, z, b, t, u, v, w) }",
        30, 60, 6 + 15 + 3 * 5, 10,
    ),
    "MatMulInteger": ("(int8[2,3] a, int8[3,5] b) => (y) { y = MatMulInteger (a, b) }", 30, 60, 21, 40),
    "Einsum": (
        "(float[2,3] x, float[3,5] w) => (float[2,5] y) { y = Einsum <equation = \"ij,jk->ik\"> (x, w) }",
        30, 60, 84, 40,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_one_node(name: str) -> None:
    text, macs, flops, read, written = CASES[name]
    found = one(text)
    assert (found.macs, found.flops, found.bytes_read, found.bytes_written) == (macs, flops, read, written)
    assert found.weight_bytes == 0, "these weights are inputs"


def test_attention() -> None:
    """Two heads, four queries, five keys of depth three, values of depth six: 2·4·5·(3+6) multiply-adds."""
    text = "(float[1,2,4,3] q, float[1,2,5,3] k, float[1,2,5,6] v) => (y) { y = Attention (q, k, v) }"
    found = one(text, opset=23)
    assert found.macs == 360
    assert found.flops == 2 * 360 + 5 * 2 * 4 * 5


def test_constants_count_as_weights_once() -> None:
    found = one("(float[2,3] x) => (y) <float[3,3] w = {1,2,3,4,5,6,7,8,9}> { y = MatMul (x, w) }")
    assert (found.weight_bytes, found.bytes_read) == (36, 60)


def test_a_free_dimension_counts_as_one() -> None:
    assert one("(float[N,3] x, float[3,5] w) => (y) { y = MatMul (x, w) }").macs == 15


# Layer by layer: inputs × outputs of dense layers; audio_cnn adds 43·40·16·9·1 and 22·20·32·9·16.
SEEDS = {
    "mlp20": 20 * 10 + 10 * 2,
    "mlp784": 784 * 128 + 128 * 10,
    "mlp256": 256 * 384 + 384 * 384 + 384 * 256 + 256 * 128 + 128 * 32,
    "audio_cnn": 43 * 40 * 16 * 9 + 22 * 20 * 32 * 9 * 16 + 32 * 4,
    "lstm": 10 * 4 * 64 * (8 + 64) + 64,
    "conv_lstm_td": 998 * 64 * 3 + 998 * 4 * 128 * (64 + 128) + 998 * 128 * 64 * 3 + 1000 * 64,
}


@pytest.mark.parametrize("name", SEEDS)
def test_seeds(shared_models: Path, name: str) -> None:
    model = graph.read(shared_models / "seeds" / f"{name}.onnx")
    shapes.fix(model, dict.fromkeys(shapes.free_dims(model), 1))
    shapes.complete(model)
    found = cost.total(model)
    assert found.macs == SEEDS[name]
    assert found.flops > 2 * found.macs
    if name.startswith("mlp"):
        # the exporter left out the biases, which are zero in the seeds: 382,112 parameters less 1,184 in mlp256
        assert cost.parameters(model) == found.macs
        assert found.weight_bytes == 4 * found.macs
