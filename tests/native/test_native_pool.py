"""Pools against float64, and ONNX's own node tests for pools and convolutions."""

from __future__ import annotations

import shutil
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.backend.test.case.node import collect_testcases
from spatial_cases import assert_close, build, call, host_isas, model_of, numbers, sanitised

from hasten.errors import SourceError, UnsupportedOpError
from hasten.graph import reference
from hasten.native.isa import isa
from hasten.native.lower import lower

CHANNELS = st.sampled_from([1, 2, 3, 7, 8, 15, 16, 17, 33, 64, 65])


def windows(x: np.ndarray, attributes: dict[str, Any], sizes: tuple[int, ...]) -> np.ndarray:
    """Every window's values in float64, NaN outside the input.

    Shapes:  returns (N, C, taps, sizes…)
    """
    rank, pads = x.ndim - 2, attributes["pads"]
    kernel, strides, dilations = attributes["kernel_shape"], attributes["strides"], attributes["dilations"]
    reach = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(sizes, strides, kernel, dilations, strict=True)]
    after = [max(0, r - p - n) for r, p, n in zip(reach, pads[:rank], x.shape[2:], strict=True)]
    around = [(0, 0), (0, 0), *zip(pads[:rank], after, strict=True)]
    wide = np.pad(x.astype(np.float64), around, constant_values=np.nan)
    found = []
    for tap in product(*(range(k) for k in kernel)):
        cut = tuple(
            slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, n, s in zip(tap, dilations, sizes, strides, strict=True)
        )
        found.append(wide[(slice(None), slice(None), *cut)])
    return np.stack(found, 2)


@st.composite
def pools(draw: st.DrawFn) -> tuple[str, np.ndarray, dict[str, Any]]:
    op = draw(st.sampled_from(["MaxPool", "AveragePool", "LpPool"]))
    rank = draw(st.sampled_from([1, 2, 2, 3]))
    kernel = [draw(st.integers(1, {1: 30, 2: 5, 3: 3}[rank])) for _ in range(rank)]
    dilations = [draw(st.sampled_from([1, 1, 2])) for _ in range(rank)]
    attributes: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": [draw(st.integers(1, 3)) for _ in range(rank)],
        "dilations": dilations,
        "pads": [draw(st.integers(0, k // 2)) for k in kernel * 2],
        "ceil_mode": draw(st.integers(0, 1)) if op != "LpPool" else 0,
    }
    if op == "AveragePool":
        attributes["count_include_pad"] = draw(st.integers(0, 1))
    if op == "LpPool":
        attributes["p"] = draw(st.sampled_from([1, 2]))
    sizes = [(k - 1) * d + draw(st.integers(1, 14 if rank < 3 else 4)) for k, d in zip(kernel, dilations, strict=True)]
    return op, numbers(draw(st.integers(0, 9)), draw(st.sampled_from([1, 2])), draw(CHANNELS), *sizes), attributes


def expected(op: str, x: np.ndarray, attributes: dict[str, Any], sizes: tuple[int, ...]) -> np.ndarray:
    seen = windows(x, attributes, sizes)
    if op == "MaxPool":
        return np.nanmax(seen, 2)
    if op == "LpPool":
        p = attributes["p"]
        return np.nansum(np.abs(seen) ** p, 2) ** (1 / p)
    if not attributes["count_include_pad"]:
        return np.nanmean(seen, 2)
    rank = x.ndim - 2
    pads = attributes["pads"]
    around = [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)]
    inner = dict(attributes, pads=[0] * (2 * rank))
    return np.nanmean(windows(np.pad(x, around), inner, sizes), 2)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(case=pools(), name=st.sampled_from(host_isas()))
def test_pool(case: tuple[str, np.ndarray, dict[str, Any]], name: str) -> None:
    op, x, attributes = case
    model = model_of(op, x, {}, attributes)
    sizes = tuple(int(d) for d in model.graph.outputs[0].shape)[2:]  # type: ignore[union-attr, arg-type]
    means_nothing = op == "MaxPool" or not attributes.get("count_include_pad", True)
    if means_nothing and np.isnan(windows(x, attributes, sizes)).all(2).any():
        with pytest.raises(UnsupportedOpError, match="wholly outside"):
            lower(model, "case", isa("x86-64-v4"))
        return
    built = build(model, name)
    (got,) = call(built, x)
    want = expected(op, x, attributes, sizes)
    assert_close(got, want, float(np.abs(want).max()) + 1)
    assert np.array_equal(call(built, x)[0], got)


@pytest.mark.parametrize("name", host_isas())
@pytest.mark.parametrize("op", ["AveragePool", "LpPool"])
@pytest.mark.parametrize("sizes", [(1,), (2,), (9, 1), (1, 9), (1, 1)])
def test_a_window_that_meets_padding_alone_sums_to_nothing(op: str, sizes: tuple[int, ...], name: str) -> None:
    rank = len(sizes)
    more = {"p": 2} if op == "LpPool" else {"count_include_pad": 1}
    attributes = {"kernel_shape": [2] * rank, "strides": [1] * rank, "pads": [1] * (2 * rank)}
    attributes |= {"dilations": [3 if 2 in sizes else 2] * rank, **more}
    x = numbers(0, 1, 5, *sizes)
    model = model_of(op, x, {}, attributes)
    found = tuple(int(d) for d in model.graph.outputs[0].shape)[2:]  # type: ignore[union-attr, arg-type]
    assert_close(call(build(model, name), x)[0], expected(op, x, attributes, found), float(np.abs(x).max()))


def padded_alike() -> list[onnx.NodeProto]:
    """Pools of every size, stride and dilation that pad by themselves."""
    options = product(("MaxPool", "AveragePool", "LpPool"), (1, 2, 3), (1, 2, 3, 4, 5), (1, 2), ("UPPER", "LOWER"))
    return [
        onnx.helper.make_node(
            op, ["x"], [f"{op} {k} {s} {d} {end}"], kernel_shape=[k], strides=[s], auto_pad=f"SAME_{end}",
            **({"dilations": [d]} if d > 1 else {}),
        )
        for op, k, s, d, end in options
    ]  # fmt: skip


@pytest.mark.parametrize("extent", [7, 8, 9])
def test_a_pool_that_pads_itself_is_what_onnx_runtime_says_or_refused(extent: int) -> None:
    def made(nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
        info = onnx.helper.make_tensor_value_info
        sizes = {n.output[0]: -(-extent // onnx.helper.get_node_attr_value(n, "strides")[0]) for n in nodes}
        outputs = [info(name, onnx.TensorProto.FLOAT, [1, 3, size]) for name, size in sizes.items()]
        graph = onnx.helper.make_graph(nodes, "g", [info("x", onnx.TensorProto.FLOAT, [1, 3, extent])], outputs)
        return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 22)], ir_version=10)

    kept, refused = [], set()
    for node in padded_alike():
        try:
            lower(ir.from_proto(made([node])), "case", isa("c"))
            kept.append(node)
        except UnsupportedOpError as error:
            assert f"op {node.op_type} " in str(error) and "auto_pad" in str(error)
            refused.add(node.output[0])
    x = numbers(4, 1, 3, extent)
    model = ir.from_proto(made(kept))
    for node, got in zip(kept, call(build(model, "c"), x), strict=True):
        try:
            (want,) = reference.run(ir.from_proto(made([node])), [x])
        except SourceError:  # it has no MaxPool whose strides leave out the last values
            own = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            assert node.op_type == "MaxPool" and own["strides"] > own["kernel_shape"]
            want = expected("MaxPool", x, {"pads": [0, 0], "dilations": [1], **own}, got.shape[2:])
        np.testing.assert_allclose(got, want, rtol=1e-5, err_msg=node.output[0])
    assert len(kept) > 50
    longer = {f"{op} 1 {s} 1 UPPER" for op in ("MaxPool", "AveragePool", "LpPool") for s in (4, 5)}
    assert len(longer & refused) == {7: 3, 8: 6, 9: 3}[extent]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    op=st.sampled_from(["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"]),
    batch=st.sampled_from([1, 3]),
    channels=CHANNELS,
    sizes=st.lists(st.integers(1, 11), min_size=1, max_size=3),
    then=st.sampled_from(["", "Tanh"]),
    name=st.sampled_from(host_isas()),
)
def test_global_pool(op: str, batch: int, channels: int, sizes: list[int], then: str, name: str) -> None:
    x = numbers(1, batch, channels, *sizes)
    axes, wide = tuple(range(2, x.ndim)), x.astype(np.float64)
    want = {
        "GlobalAveragePool": wide.mean(axes, keepdims=True),
        "GlobalMaxPool": wide.max(axes, keepdims=True),
        "GlobalLpPool": np.sqrt((wide**2).sum(axes, keepdims=True)),
    }[op]
    (got,) = call(build(model_of(op, x, {}, {}, then), name), x)
    assert_close(got, np.tanh(want) if then else want, float(np.abs(want).max()) + 1)


def test_infinities_and_nothing_but_padding() -> None:
    x = np.full((1, 3, 4, 4), -np.inf, np.float32)
    x[0, 1, 2, 2] = np.inf
    built = build(model_of("MaxPool", x, {}, {"kernel_shape": [2, 2], "strides": [2, 2]}), host_isas()[-1])
    (got,) = call(built, x)
    assert np.array_equal(got, x.reshape(1, 3, 2, 2, 2, 2).max((3, 5)))


@pytest.mark.skipif(shutil.which("gcc") is None, reason="sanitisers need gcc")
@pytest.mark.parametrize("name", ["c", host_isas()[-1]])
@pytest.mark.parametrize(
    ("op", "shape", "attributes"),
    [
        ("MaxPool", (1, 19, 9, 11), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}),
        ("AveragePool", (2, 33, 9, 11), {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 1, 0, 0]}),
        ("MaxPool", (1, 5, 40), {"kernel_shape": [30], "pads": [14, 10]}),
        ("GlobalAveragePool", (2, 21, 5, 5), {}),
    ],
)
def test_sanitisers_find_nothing(
    op: str, shape: tuple[int, ...], attributes: dict[str, Any], name: str, tmp_path: Path
) -> None:
    x = numbers(1, *shape)
    # The input itself is channels last, so that the pool reads the caller's memory.
    built = build(_channels_last(model_of(op, x, {}, attributes)), name)
    inside = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    assert np.array_equal(sanitised("gcc", built, inside, tmp_path, name), call(built, inside)[0])


def _channels_last(model: ir.Model) -> ir.Model:
    """The same model fed (N, spatial…, C)."""
    proto = ir.to_proto(model)
    (node,), (x,) = proto.graph.node, proto.graph.input
    dims = [d.dim_value for d in x.type.tensor_type.shape.dim]
    rank = len(dims)
    first = onnx.helper.make_node("Transpose", ["image"], ["x"], perm=[0, rank - 1, *range(1, rank - 1)])
    last = onnx.helper.make_node("Transpose", ["y"], ["z"], perm=[0, *range(2, rank), 1])
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [first, node, last],
        "case",
        [info("image", onnx.TensorProto.FLOAT, [dims[0], *dims[2:], dims[1]])],
        [info("z", onnx.TensorProto.FLOAT, None)],
    )
    made = onnx.helper.make_model(graph, opset_imports=proto.opset_import, ir_version=10)
    return ir.from_proto(onnx.shape_inference.infer_shapes(made, strict_mode=True))


OPERATORS = (
    "Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool",
)  # fmt: skip

UNLISTED = {
    "test_maxpool_with_argmax_2d_precomputed_pads": "indices",
    "test_maxpool_with_argmax_2d_precomputed_strides": "indices",
    "test_maxpool_2d_uint8": "uint8",
}


@cache
def node_tests() -> dict[str, Any]:
    # All of them, then a choice: asking onnx for one operator's cases hides the others from every later test.
    return {c.name: c for c in collect_testcases() if c.model.graph.node[0].op_type in OPERATORS}


@pytest.mark.parametrize("name", sorted(node_tests()))
def test_onnx_node(name: str) -> None:
    if name in UNLISTED:
        pytest.skip(UNLISTED[name])
    case = node_tests()[name]
    inputs, (want,) = case.data_sets[0]
    proto = onnx.ModelProto.FromString(case.model.SerializeToString())
    # Weights are constants in what hasten compiles; these tests feed them as inputs.
    for value, array in list(zip(proto.graph.input, inputs, strict=True))[1:]:
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
        proto.graph.input.remove(value)
    proto.ir_version = max(proto.ir_version, 8)
    built = build(ir.from_proto(onnx.shape_inference.infer_shapes(proto)), host_isas()[-1])
    (got,) = call(built, np.ascontiguousarray(inputs[0]))
    np.testing.assert_allclose(got, want, rtol=max(case.rtol, 1e-4), atol=max(case.atol, 1e-5))
