"""Attention spelt out in products and softmax becomes one step, and stays right: any sizes, masks and layouts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_cases import HERE, RUNNABLE, Built
from onnx import helper
from test_native_ops import model

from hasten.native.isa import isa
from hasten.native.kernels.attend import Attend


def softmax(s):
    with np.errstate(all="ignore"):
        e = np.exp(s - s.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)


def attends(built: Built) -> int:
    return sum(isinstance(step, Attend) for step in built.program.steps)


def spelt_out(heads: int, *, scale: float = 1.0, mask: bool = False, safe: bool = False):
    """Nodes of attention over q, k and v as (steps, heads · values); the mask is added to the scores."""
    n = helper.make_node
    nodes = []
    for name, perm in (("q", [1, 0, 2]), ("k", [1, 2, 0]), ("v", [1, 0, 2])):
        nodes.append(n("Reshape", [name, f"{name}_shape"], [f"{name}_heads"]))
        nodes.append(n("Transpose", [f"{name}_heads"], [f"{name}_turned"], perm=perm))
    nodes += [n("MatMul", ["q_turned", "k_turned"], ["raw"]), n("Mul", ["raw", "scale"], ["scaled"])]
    score = "scaled"
    if mask:
        nodes.append(n("Add", ["scaled", "mask"], ["masked"]))
        score = "masked"
    nodes.append(n("Softmax", [score], ["p"], axis=-1))
    weights = "p"
    if safe:
        nodes += [n("IsNaN", ["p"], ["nan"]), n("Where", ["nan", "zero", "p"], ["kept"])]
        weights = "kept"
    nodes += [n("MatMul", [weights, "v_turned"], ["o"]), n("Transpose", ["o"], ["rows"], perm=[1, 0, 2])]
    nodes.append(n("Reshape", ["rows", "y_shape"], ["y"]))
    shapes = {f"{name}_shape": np.array([0, heads, -1]) for name in "qkv"}
    numbers = {"scale": np.float32(scale), "zero": np.float32(0), "y_shape": np.array([0, -1])}
    return nodes, {**shapes, **numbers}


def expected(q, k, v, heads, scale, mask=None):
    q, k, v = (x.astype(np.float64).reshape(len(x), heads, -1).transpose(1, 0, 2) for x in (q, k, v))
    s = q @ k.transpose(0, 2, 1) * scale
    p = softmax(s if mask is None else s + mask)
    return (p @ v).transpose(1, 0, 2).reshape(q.shape[1], -1), p


def arrays(rows, keys, heads, depth, values, seed=0):
    rng = np.random.default_rng(seed)
    sizes = ((rows, heads * depth), (keys, heads * depth), (keys, heads * values))
    return [rng.standard_normal(size).astype(np.float32) for size in sizes]


SIZES = [
    (32, 32, 4, 8, 8), (65, 65, 2, 16, 16), (16, 5, 1, 3, 7), (17, 33, 3, 20, 1), (8, 2, 2, 1, 40), (24, 300, 2, 8, 24),
    (40, 611, 1, 33, 17), (100, 64, 1, 64, 64),
]  # fmt: skip


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("size", SIZES)
def test_one_step_of_any_size(target, size):
    heads = size[2]
    q, k, v = arrays(*size)
    nodes, weights = spelt_out(heads, scale=0.3)
    graph, strict = model(nodes, {"q": q, "k": k, "v": v}, ["y"], weights), ("-Wall", "-Wextra", "-Werror")
    built = Built(graph, isa(target), extra=strict)
    assert attends(built) == 1
    assert len(built.program.steps) == 1
    np.testing.assert_allclose(built(q, k, v)[0], expected(q, k, v, heads, 0.3)[0], rtol=2e-5, atol=2e-6)


@settings(max_examples=12, deadline=None)
@given(
    rows=st.integers(8, 70), keys=st.integers(2, 80), heads=st.integers(1, 3), depth=st.integers(1, 40),
    values=st.integers(1, 40), masked=st.sampled_from(["no", "keys", "all", "constant"]),
)  # fmt: skip
def test_random_sizes_and_masks(rows, keys, heads, depth, values, masked):
    q, k, v = arrays(rows, keys, heads, depth, values, seed=rows * keys)
    rng = np.random.default_rng(keys)
    mask = np.where(rng.random((1 if masked == "keys" else rows, keys)) < 0.4, -np.inf, 1.5).astype(np.float32)
    mask[:, rng.integers(keys)] = 0
    nodes, weights = spelt_out(heads, scale=0.5, mask=masked != "no")
    given_arrays = {"q": q, "k": k, "v": v, **({"mask": mask} if masked in ("keys", "all") else {})}
    weights |= {"mask": mask} if masked == "constant" else {}
    built = Built(model(nodes, given_arrays, ["y"], weights), HERE)
    assert attends(built) == 1
    found = built(*given_arrays.values())[0]
    want, _ = expected(q, k, v, heads, 0.5, None if masked == "no" else mask)
    np.testing.assert_allclose(found, want, rtol=5e-5, atol=5e-6)


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("safe", [False, True])
@pytest.mark.parametrize("keys", [20, 400])
def test_rows_without_keys(target, safe, keys):
    q, k, v = arrays(20, keys, 2, 8, 8)
    mask = np.zeros((20, keys), np.float32)
    mask[3], mask[7, keys // 2 :], mask[9, : keys - 1] = -np.inf, -np.inf, -np.inf
    nodes, weights = spelt_out(2, mask=True, safe=safe)
    built = Built(model(nodes, {"q": q, "k": k, "v": v, "mask": mask}, ["y"], weights), isa(target))
    assert attends(built) == 1
    q[11, 0] = np.nan  # one head of one row
    found, (want, _) = built(q, k, v, mask)[0], expected(q, k, v, 2, 1.0, mask)
    want = np.nan_to_num(want, nan=0.0) if safe else want
    np.testing.assert_array_equal(np.isnan(found), np.isnan(want))
    np.testing.assert_allclose(found, want, rtol=2e-5, atol=2e-6)


def test_what_others_read_is_kept():
    q, k, v = arrays(32, 32, 2, 8, 8)
    nodes, weights = spelt_out(2)
    built = Built(model(nodes, {"q": q, "k": k, "v": v}, ["y", "p"], weights), HERE)
    assert attends(built) == 0
    want, p = expected(q, k, v, 2, 1.0)
    found = built(q, k, v)
    np.testing.assert_allclose(found[0], want, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(found[1], p, rtol=2e-5, atol=2e-7)


def test_scaled_and_copied_operands_are_read_where_they_lie():
    """The two factors that torch puts on queries and keys end as one."""
    q, k, v = arrays(32, 48, 2, 16, 16)
    nodes, weights = spelt_out(2, scale=0.25)
    for i, name in enumerate("qk"):
        at = next(j for j, node in enumerate(nodes) if node.op_type == "MatMul")
        nodes[at].input[i] = f"{name}_scaled"
        nodes.insert(at, helper.make_node("Mul", [f"{name}_turned", "scale"], [f"{name}_scaled"]))
    built = Built(model(nodes, {"q": q, "k": k, "v": v}, ["y"], weights), HERE)
    assert [type(step) for step in built.program.steps] == [Attend]
    np.testing.assert_allclose(built(q, k, v)[0], expected(q, k, v, 2, 0.25**3)[0], rtol=2e-5, atol=2e-6)


def test_a_few_queries_stay_products():
    q, k, v = arrays(1, 32, 2, 8, 8)
    nodes, weights = spelt_out(2)
    built = Built(model(nodes, {"q": q, "k": k, "v": v}, ["y"], weights), HERE)
    assert attends(built) == (HERE.lanes == 1)
    np.testing.assert_allclose(built(q, k, v)[0], expected(q, k, v, 2, 1.0)[0], rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("target", [HERE.name, "c"])
@pytest.mark.parametrize("masked", ["", "causal", "bool", "float"])
def test_the_operator_is_one_step(target, masked):
    """Two queries' heads over one of keys, as opset 23 has it."""
    rng = np.random.default_rng(3)
    q = rng.standard_normal((1, 4, 24, 8)).astype(np.float32)
    k, v = rng.standard_normal((2, 1, 2, 30, 8)).astype(np.float32)
    mask = rng.random((24, 30)) < 0.6
    mask[5] = False
    added = np.where(mask, 0.5, -np.inf).astype(np.float32)
    given_arrays = {"q": q, "k": k, "v": v}
    given_arrays |= {"bool": {"m": mask}, "float": {"m": added}}.get(masked, {})
    node = helper.make_node("Attention", list(given_arrays), ["y"], is_causal=int(masked == "causal"))
    built = Built(model([node], given_arrays, ["y"], opset=23), isa(target))
    assert attends(built) == 1
    s = q.astype(np.float64) @ np.repeat(k, 2, 1).transpose(0, 1, 3, 2) / np.sqrt(8)
    seen = {"causal": np.tri(24, 30, dtype=bool), "bool": mask, "float": mask}.get(masked, np.ones((24, 30), bool))
    weights = softmax(np.where(seen, s, -np.inf))
    if masked != "causal":
        weights = np.nan_to_num(weights)
    np.testing.assert_allclose(built(*given_arrays.values())[0], weights @ np.repeat(v, 2, 1), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(("batch", "heads", "groups"), [(1, 3, 1), (1, 2, 2), (2, 1, 3), (2, 2, 2), (1, 1, 3)])
@pytest.mark.parametrize("form", ["float", "bool", "capped"])
def test_masks_of_each_head(batch, heads, groups, form):
    """Of one batch, of one head of keys, of heads of keys that have one of queries each."""
    rng = np.random.default_rng(5)
    q = rng.standard_normal((batch, heads * groups, 24, 8)).astype(np.float32)
    k, v = rng.standard_normal((2, batch, heads, 30, 8)).astype(np.float32)
    mask = rng.standard_normal((batch, heads * groups, 24, 30)).astype(np.float32)
    if form == "bool":
        mask = mask > -0.5
    node = helper.make_node("Attention", ["q", "k", "v", "m"], ["y"], softcap=2.0 if form == "capped" else 0.0)
    built = Built(model([node], {"q": q, "k": k, "v": v, "m": mask}, ["y"], opset=23), HERE)
    assert attends(built) == 1
    s = q.astype(np.float64) @ np.repeat(k, groups, 1).transpose(0, 1, 3, 2) / np.sqrt(8)
    s = 2 * np.tanh(s / 2) if form == "capped" else s
    weights = softmax(np.where(mask, s, -np.inf) if form == "bool" else s + mask)
    np.testing.assert_allclose(built(q, k, v, mask)[0], weights @ np.repeat(v, groups, 1), rtol=2e-5, atol=2e-6)
