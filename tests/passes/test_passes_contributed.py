"""Operators of ONNX Runtime's own domain, spelt out: ONNX Runtime's own answers before, after, and from native."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from graph_text import apply, ops
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

import hasten
from hasten.graph import reference, write
from hasten.passes import Pass
from hasten.passes.contributed import contributed_operators
from hasten.passes.contributed_rounding import contributed_rounding
from hasten.passes.run import run_phases

DOMAIN = "com.microsoft"
_NAMESAKES = ("QuantizeLinear", "DequantizeLinear", "Attention")
X86 = platform.machine() in ("x86_64", "AMD64")
SIZES = st.sampled_from([1, 2, 3, 5, 8, 17])
Array = np.ndarray


@dataclass
class Case:
    """One node: its inputs in order, which of them are weights, its attributes and how many results are asked for."""

    op: str
    inputs: Sequence[Array | None]
    fed: Sequence[int]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: Sequence[int] = (0,)
    domain: str = DOMAIN
    types: Sequence[Any] = (np.float32,)

    def model(self, opset: int = 18) -> ir.Model:
        names = ["" if a is None else f"i{k}" for k, a in enumerate(self.inputs)]
        results = [f"o{k}" if k in self.outputs else "" for k in range(max(self.outputs) + 1)]
        node = helper.make_node(self.op, names, results, domain=self.domain, **self.attributes)
        graph = helper.make_graph(
            [node], "case",
            [helper.make_tensor_value_info(names[k], helper.np_dtype_to_tensor_dtype(self.inputs[k].dtype),
                                           self.inputs[k].shape) for k in self.fed],
            [helper.make_tensor_value_info(f"o{k}", helper.np_dtype_to_tensor_dtype(np.dtype(t)), None)
             for k, t in zip(self.outputs, self.types, strict=True)],
            [numpy_helper.from_array(a, names[k]) for k, a in enumerate(self.inputs)
             if a is not None and k not in self.fed],
        )  # fmt: skip
        imports = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)]
        return ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=10))

    @property
    def fed_arrays(self) -> list[Array]:
        return [self.inputs[k] for k in self.fed]


def close(found: Sequence[Array], wanted: Sequence[Array]) -> None:
    """Bytes may be one apart where a sum lies between two of them; few do."""
    for f, w in zip(found, wanted, strict=True):
        assert f.dtype == w.dtype and f.shape == w.shape
        if f.dtype.kind in "iu":
            gap = np.abs(f.astype(int) - w.astype(int))
            assert gap.max(initial=0) <= 1 and gap.sum() <= 1 + gap.size // 50
        else:
            np.testing.assert_allclose(f, w, rtol=1e-4, atol=2e-5)


def holds(case: Case, rewrite: Pass = contributed_operators) -> None:
    model = case.model()
    wanted = reference.run(model, case.fed_arrays)
    # On the case's own inputs: drawn by their type alone, masks would be none, or hide all that a row looks at.
    result = run_phases(model, ((rewrite,),), probe=case.fed_arrays, strict=True)[0]
    assert all(node.domain == "" for node in result.graph), ops(result)
    assert case.op not in ops(result) or case.op in _NAMESAKES
    close(reference.run(result, case.fed_arrays), wanted)


def stays(case: Case) -> None:
    assert [node.domain for node in apply(case.model(), contributed_operators).graph] == [DOMAIN]


def of(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def bytes_of(rng: np.random.Generator, dtype: Any, *shape: int) -> Array:
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, shape).astype(dtype)


def step(rng: np.random.Generator, low: float = 0.01, high: float = 0.05, *shape: int) -> Array:
    return np.asarray(rng.uniform(low, high, shape), np.float32)


def zero(rng: np.random.Generator, dtype: Any, *shape: int) -> Array:
    return np.asarray(rng.integers(*((100, 150) if np.dtype(dtype).kind == "u" else (-20, 20)), shape)).astype(dtype)


SMALL = settings(max_examples=12, deadline=None)
RANDOM = st.integers(0, 2**31).map(np.random.default_rng)
BYTES = st.sampled_from([np.uint8, np.int8])


@SMALL
@given(RANDOM, BYTES, st.sampled_from(["QLinearAdd", "QLinearMul"]), SIZES, SIZES, st.booleans(), st.booleans())
def test_sums_and_products_of_bytes(rng, dtype, op, rows, columns, spread, no_zero) -> None:
    a, b = bytes_of(rng, dtype, rows, columns), bytes_of(rng, dtype, *(() if spread else (rows,)), columns)
    inputs = [a, step(rng), zero(rng, dtype), b, step(rng), zero(rng, dtype), step(rng, 0.05, 0.1)]
    inputs += [] if no_zero else [zero(rng, dtype)]
    holds(Case(op, inputs, (0, 3), types=(dtype,)))


@SMALL
@given(RANDOM, BYTES, st.sampled_from(["QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax"]), SIZES, SIZES)
def test_functions_of_bytes(rng, dtype, op, rows, columns) -> None:
    attributes = {"QLinearLeakyRelu": {"alpha": 0.2}, "QLinearSoftmax": {"axis": -1, "opset": 13}}.get(op, {})
    end = np.float32(1 / 256), np.array(np.iinfo(dtype).min, dtype)
    end = (step(rng), zero(rng, dtype)) if op == "QLinearLeakyRelu" else end
    if op == "QLinearSoftmax" and dtype == np.uint8:
        columns += 1  # the 1 of a single column is 256 steps, and ONNX Runtime's byte for that is 0
    inputs = [bytes_of(rng, dtype, rows, columns), step(rng), zero(rng, dtype), *end]
    holds(Case(op, inputs, (0,), attributes, types=(dtype,)))


@SMALL
@given(RANDOM, BYTES, SIZES, SIZES, SIZES, st.booleans())
def test_means_of_bytes(rng, dtype, channels, height, width, last) -> None:
    shape = (2, height, width, channels) if last else (2, channels, height, width)
    inputs = [bytes_of(rng, dtype, *shape), step(rng), zero(rng, dtype), step(rng), zero(rng, dtype)]
    holds(Case("QLinearGlobalAveragePool", inputs, (0,), {"channels_last": int(last)}, types=(dtype,)))
    options = {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1], "channels_last": int(last)}
    if min(height, width) > 1:
        holds(Case("QLinearAveragePool", inputs, (0,), options, types=(dtype,)))


@SMALL
@given(RANDOM, BYTES, st.lists(SIZES, min_size=1, max_size=4))
def test_parts_of_bytes_side_by_side(rng, dtype, sizes) -> None:
    parts = [(bytes_of(rng, dtype, 3, n), step(rng), zero(rng, dtype)) for n in sizes]
    inputs = [step(rng), zero(rng, dtype), *(a for part in parts for a in part)]
    holds(Case("QLinearConcat", inputs, range(2, len(inputs), 3), {"axis": 1}, types=(dtype,)))


@SMALL
@given(RANDOM, SIZES, SIZES, SIZES, st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_a_product_of_bytes_with_a_bias(rng, rows, depth, columns, turned, per_column, biased, ends) -> None:
    shape, scale = (columns, depth) if turned else (depth, columns), (columns,) if per_column else ()
    bias = rng.integers(-500, 500, columns).astype(np.int32) if biased else None
    inputs = [bytes_of(rng, np.uint8, rows, depth), step(rng), zero(rng, np.uint8)]
    few = rng.integers(-60, 60, shape).astype(np.int8)  # without VNNI ONNX Runtime adds pairs of larger ones in 16 bits
    inputs += [few, step(rng, 0.01, 0.05, *scale), np.zeros(scale, np.int8), bias]
    inputs += [step(rng, 0.1, 0.4), zero(rng, np.uint8)] if ends else []
    options = {"transB": int(turned), "transA": 0, "alpha": 1.5}
    holds(Case("QGemm", inputs, (0,), options, types=(np.uint8 if ends else np.float32,)))


@SMALL
@given(RANDOM, SIZES, SIZES, SIZES, st.booleans(), st.booleans())
def test_integer_products_that_end_in_float(rng, rows, depth, columns, per_column, biased) -> None:
    scale, bias = (columns,) if per_column else (), of(rng, columns) if biased else None
    w, by = rng.integers(-60, 60, (depth, columns)).astype(np.int8), step(rng, 0.01, 0.05, *scale)
    whole = [
        bytes_of(rng, np.uint8, rows, depth),
        w,
        step(rng),
        by,
        zero(rng, np.uint8),
        np.zeros(scale, np.int8),
        bias,
    ]
    holds(Case("MatMulIntegerToFloat", whole, (0,)))
    holds(Case("DynamicQuantizeMatMul", [of(rng, rows, depth), w, by, np.zeros(scale, np.int8), bias], (0,)))


@SMALL
@given(RANDOM, SIZES, SIZES, SIZES, st.booleans(), st.booleans())
def test_products_with_turned_sides(rng, rows, depth, columns, first, second) -> None:
    a, b = (2, depth, rows) if first else (2, rows, depth), (columns, depth) if second else (depth, columns)
    options = {"transA": int(first), "transB": int(second), "alpha": 0.3}
    holds(Case("FusedMatMul", [of(rng, *a), of(rng, *b)], (0, 1), options))
    a, options = a[1:], {**options, "beta": 0.5, "activation": "LeakyRelu", "activation_alpha": 0.3}
    holds(Case("FusedGemm", [of(rng, *a), of(rng, *b), of(rng, columns)], (0,), options))


ACTIVATIONS = {
    "Relu": [], "Tanh": [], "Sigmoid": [], "LeakyRelu": [0.2], "Clip": [-0.3, 0.4], "HardSigmoid": [0.3, 0.4],
}  # fmt: skip


@SMALL
@given(RANDOM, st.sampled_from(list(ACTIVATIONS)), SIZES, st.booleans())
def test_convolutions_with_what_follows(rng, name, channels, added) -> None:
    options = {"activation": name, "pads": [1] * 4, "kernel_shape": [3, 3]}
    options |= {"activation_params": ACTIVATIONS[name]} if ACTIVATIONS[name] else {}
    x, w, bias = of(rng, 1, 3, 6, 5), of(rng, channels, 3, 3, 3), of(rng, channels)
    holds(Case("FusedConv", [x, w, bias, of(rng, 1, channels, 6, 5) if added else None], (0,), options))


@SMALL
@given(RANDOM, st.sampled_from(["NhwcConv", "NhwcFusedConv"]), SIZES, st.booleans(), st.booleans())
def test_convolutions_of_images_with_channels_last(rng, op, channels, biased, grouped) -> None:
    """ONNX Runtime's processor has no kernel for them: its answers are those of the turned image."""
    x, w = of(rng, 2, 6, 5, 4), of(rng, 2 * channels, 2 if grouped else 4, 3, 2)
    bias, options = of(rng, 2 * channels) if biased else None, {"kernel_shape": [3, 2], "group": 2 if grouped else 1}
    options |= {"strides": [2, 1], "dilations": [1, 2], "pads": [1, 0, 1, 1]}
    fused = {"activation": "LeakyRelu", "activation_params": [0.3]} if op == "NhwcFusedConv" else {}
    rewritten = Case(op, [x, w, bias], (0,), {**options, **fused}).model()
    assert contributed_operators.apply(rewritten)
    y = reference.run(Case("Conv", [x.transpose(0, 3, 1, 2), w, bias], (0,), options, domain="").model(),
                      [x.transpose(0, 3, 1, 2)])[0].transpose(0, 2, 3, 1)  # fmt: skip
    close(reference.run(rewritten, [x]), [np.where(y < 0, 0.3 * y, y).astype(np.float32) if fused else y])


@SMALL
@given(RANDOM, SIZES, SIZES)
def test_gelu_in_its_forms(rng, rows, columns) -> None:
    x, bias = of(rng, rows, columns) * 3, of(rng, columns)
    # Forms of gelu round unlike where their terms cancel; what a pass may change is measured by the largest answer.
    x[0, 0], bias[0] = 3, 0
    for op, inputs in {"Gelu": [x], "FastGelu": [x, bias], "BiasGelu": [x, bias], "QuickGelu": [x]}.items():
        holds(Case(op, inputs, (0,)))
    holds(Case("FastGelu", [x], (0,)))


@SMALL
@given(RANDOM, SIZES, SIZES, st.booleans())
def test_normalised_sums(rng, rows, columns, biased) -> None:
    x, skip, gamma, beta = of(rng, 2, rows, columns), of(rng, 2, rows, columns), of(rng, columns), of(rng, columns)
    bias, both = of(rng, columns) if biased else None, {"outputs": (0, 3), "types": (np.float32, np.float32)}
    holds(Case("SkipLayerNormalization", [x, skip, gamma, beta, bias], (0, 1), {"epsilon": 1e-5}, **both))
    holds(Case("SkipSimplifiedLayerNormalization", [x, skip, gamma, bias], (0, 1), {"epsilon": 1e-5}, **both))
    holds(Case("SimplifiedLayerNormalization", [x, gamma], (0,), {"epsilon": 1e-5, "axis": -1}, domain=""))


@SMALL
@given(RANDOM, st.integers(1, 3), SIZES, SIZES, st.booleans(), st.booleans(), st.booleans())
def test_embeddings_summed_and_normalised(rng, batch, length, columns, segmented, masked, placed) -> None:
    def rows(limit: int) -> Array:
        return rng.integers(0, limit, (batch, length)).astype(np.int32)

    inputs = [rows(9), rows(2) if segmented else None, of(rng, 9, columns), of(rng, length + 2, columns)]
    inputs += [of(rng, 2, columns) if segmented else None, of(rng, columns), of(rng, columns)]
    inputs += [rows(2) if masked else None, rows(length + 2) if placed else None]
    fed = [k for k in (0, 1, 7, 8) if k < len(inputs) and inputs[k] is not None]
    both = {"outputs": (0, 1, 2), "types": (np.float32, np.int32, np.float32)}
    holds(Case("EmbedLayerNormalization", inputs, fed, {"epsilon": 1e-5}, **both))


@SMALL
@given(RANDOM, st.sampled_from([4, 8]), st.sampled_from([16, 32]), SIZES, st.integers(1, 70), st.booleans())
def test_weights_of_few_bits(rng, bits, size, columns, depth, zeros) -> None:
    blocks = -(-depth // size)
    packed, scale = bytes_of(rng, np.uint8, columns, blocks, size * bits // 8), step(rng, 0.01, 0.05, columns * blocks)
    zero_points = bytes_of(rng, np.uint8, columns * -(-blocks * bits // 8)) if zeros else None
    options = {"K": depth, "N": columns, "bits": bits, "block_size": size}
    x = of(rng, 3, depth)
    holds(Case("MatMulNBits", [x, packed, scale, zero_points], (0,), options))
    rounds = Case("MatMulNBits", [x, packed, scale, zero_points], (0,), {**options, "accuracy_level": 4})
    stays(rounds)  # it rounds what it is given: no float32 product answers the same
    if X86:
        holds(rounds, contributed_rounding)
    rounds.inputs = [np.zeros_like(x), *rounds.inputs[1:]]
    holds(rounds, contributed_rounding)


@SMALL
@given(RANDOM, BYTES, st.sampled_from(["forward", "reverse", "bidirectional"]), st.integers(1, 9), st.integers(1, 3),
       SIZES, SIZES, st.booleans(), st.booleans(), st.booleans())  # fmt: skip
def test_recurrence_in_bytes(rng, dtype, direction, length, batch, columns, units, per_column, biased, given_) -> None:
    count, low = 2 if direction == "bidirectional" else 1, 60 if dtype == np.uint8 else -60
    shape, middle = (count, 4 * units) if per_column else (count,), low + 60

    def weights(depth: int) -> Array:
        return rng.integers(low, low + 120, (count, depth, 4 * units)).astype(dtype)

    scales = [step(rng, 0.002, 0.01, *shape), np.full(shape, middle, dtype)] * 2
    inputs = [of(rng, length, batch, columns), weights(columns), weights(units)]
    inputs += [of(rng, count, 8 * units) * np.float32(0.1) if biased else None, None]
    inputs += [of(rng, count, batch, units) / 3 if given_ else None for _ in range(2)]
    options = {"hidden_size": units, "direction": direction}
    three = {"outputs": (0, 1, 2), "types": (np.float32,) * 3}
    fed = (0, 5, 6) if given_ else (0,)
    holds(Case("DynamicQuantizeLSTM", [*inputs, None, *scales], fed, options, **three), contributed_rounding)


def test_many_weights_of_few_bits_stay_packed() -> None:
    rng, options = np.random.default_rng(0), {"K": 1024, "N": 1025, "bits": 4, "block_size": 32}
    packed, scale = bytes_of(rng, np.uint8, 1025, 32, 16), step(rng, 0.01, 0.05, 1025 * 32)
    stays(Case("MatMulNBits", [of(rng, 1, 1024), packed, scale], (0,), options))


@SMALL
@given(RANDOM, st.integers(1, 3), st.integers(1, 9), st.sampled_from([1, 4, 8]), st.booleans(), st.booleans(),
       st.booleans(), st.booleans())  # fmt: skip
def test_attention_of_its_own_rows(rng, heads, length, depth, causal, masked, added, scaled) -> None:
    width, batch = heads * depth, 2
    mask = np.arange(length) < np.array([[length], [max(1, length - 2)]]) if masked else None
    bias = of(rng, batch, heads, length, length) if added else None
    inputs = [of(rng, batch, length, 5), of(rng, 5, 3 * width), of(rng, 3 * width)]
    inputs += [None if mask is None else mask.astype(np.int32), None, bias]
    fed = [0, *([3] if masked else []), *([5] if added else [])]
    options = {"num_heads": heads, "unidirectional": int(causal), **({"scale": 0.3} if scaled else {})}
    holds(Case("Attention", inputs, fed, options))


@SMALL
@given(RANDOM, st.integers(1, 3), SIZES, SIZES, st.sampled_from([1, 4, 8]), st.booleans(), st.booleans(), st.booleans())
def test_attention_of_other_rows(rng, heads, rows, length, depth, biased, masked, added) -> None:
    width, batch = heads * depth, 2
    mask = np.arange(length) < np.array([[length], [max(1, length - 2)]]) if masked else None
    inputs = [of(rng, batch, rows, width), of(rng, batch, length, width), of(rng, batch, length, width)]
    inputs += [of(rng, 3 * width) if biased else None, None if mask is None else mask.astype(np.int32)]
    inputs += [of(rng, batch, heads, rows, length) if added else None]
    fed = [0, 1, 2, *([4] if masked else []), *([5] if added else [])]
    holds(Case("MultiHeadAttention", inputs, fed, {"num_heads": heads}))


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.uint8])
def test_quantisers_of_sixteen_bits(dtype: Any) -> None:
    rng = np.random.default_rng(1)
    case = Case("QuantizeLinear", [of(rng, 3, 7) * 9, np.float32(0.01), np.array(100, dtype)], (0,), types=(dtype,))
    holds(case)
    holds(Case("DequantizeLinear", [bytes_of(rng, dtype, 3, 7), np.float32(0.01), np.array(100, dtype)], (0,)))


def test_what_the_standard_cannot_say_stays() -> None:
    rng = np.random.default_rng(0)
    x, scale = of(rng, 1, 2, 3), of(rng, 3)
    asks = Case("SkipLayerNormalization", [x, x, scale], (0,), {}, (0, 1), types=(np.float32, np.float32))
    turned = Case("FusedMatMul", [of(rng, 2, 3, 4), of(rng, 2, 4, 5)], (0, 1), {"transBatchA": 1})
    stays(asks)
    stays(turned)


def test_native_runs_a_chain_of_them(tmp_path: Path) -> None:
    """x to bytes, twice added to itself, through a table, and back."""
    rng = np.random.default_rng(5)
    x, weights = of(rng, 1, 21), {"s": np.float32(0.05), "z": np.uint8(120), "e": np.float32(1 / 256), "n": np.uint8(0)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("QLinearAdd", ["q", "s", "z", "q", "s", "z", "s", "z"], ["a"], domain=DOMAIN),
        helper.make_node("QLinearSigmoid", ["a", "s", "z", "e", "n"], ["b"], domain=DOMAIN),
        helper.make_node("DequantizeLinear", ["b", "e", "n"], ["c"]),
        helper.make_node("FastGelu", ["c"], ["y"], domain=DOMAIN),
    ]
    graph = helper.make_graph(
        nodes, "chain", [helper.make_tensor_value_info("x", 1, x.shape)],
        [helper.make_tensor_value_info("y", 1, x.shape)], [numpy_helper.from_array(a, n) for n, a in weights.items()],
    )  # fmt: skip
    imports = [helper.make_opsetid("", 13), helper.make_opsetid(DOMAIN, 1)]
    model = ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=8))
    write(model, tmp_path / "chain.onnx")
    found = hasten.compile(tmp_path / "chain.onnx", engine="native", sample=x)(x)
    np.testing.assert_allclose(found, reference.run(model, [x])[0], atol=1e-5)


def _native_agrees(case: Case, folder: Path) -> None:
    model = case.model()
    write(model, folder / "case.onnx")
    found = hasten.compile(folder / "case.onnx", engine="native", sample=case.fed_arrays)(*case.fed_arrays)
    close([found] if isinstance(found, np.ndarray) else list(found), reference.run(model, case.fed_arrays))


def test_native_runs_what_rounds_on_the_way(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    w, r = (rng.integers(-60, 60, (1, n, 32)).astype(np.int8) for n in (5, 8))
    scales = [step(rng, 0.005, 0.01, 1), np.zeros(1, np.int8)] * 2
    inputs = [of(rng, 6, 1, 5), w, r, of(rng, 1, 64), None, None, None, None, *scales]
    three = {"outputs": (0, 1, 2), "types": (np.float32,) * 3}
    _native_agrees(Case("DynamicQuantizeLSTM", inputs, (0,), {"hidden_size": 8}, **three), tmp_path)
    packed, scale = bytes_of(rng, np.uint8, 7, 2, 16), step(rng, 0.01, 0.05, 14)
    options = {"K": 60, "N": 7, "bits": 4, "block_size": 32, "accuracy_level": 4 if X86 else 0}
    _native_agrees(Case("MatMulNBits", [of(rng, 3, 60), packed, scale], (0,), options), tmp_path)


def test_native_runs_embeddings(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    words, segments = (rng.integers(0, 9, (1, 6)).astype(np.int32) for _ in range(2))
    tables = [of(rng, 9, 5), of(rng, 8, 5), of(rng, 9, 5), of(rng, 5), of(rng, 5), segments]
    three = {"outputs": (0, 1), "types": (np.float32, np.int32)}
    _native_agrees(Case("EmbedLayerNormalization", [words, segments, *tables], (0, 1, 7), {}, **three), tmp_path)
