"""Floats of eight bits or fewer, and integers of four or two: every code, and what quantises to them and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_cases import HERE, RUNNABLE, Built
from onnx import TensorProto, helper, numpy_helper, shape_inference

import hasten
from hasten.errors import SourceError, UnsupportedOpError
from hasten.graph import write
from hasten.native.compile import program_of
from hasten.native.isa import isa

FLOATS = {
    "FLOAT8E4M3FN": ml_dtypes.float8_e4m3fn, "FLOAT8E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "FLOAT8E5M2": ml_dtypes.float8_e5m2, "FLOAT8E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "FLOAT4E2M1": ml_dtypes.float4_e2m1fn,
}  # fmt: skip
INTEGERS = {
    "INT4": (ml_dtypes.int4, -8, 7), "UINT4": (ml_dtypes.uint4, 0, 15), "INT2": (ml_dtypes.int2, -2, 1),
    "UINT2": (ml_dtypes.uint2, 0, 3),
}  # fmt: skip


def model_of(
    nodes: list, x: np.ndarray, y: tuple[str, tuple[int, ...]], weights: dict[str, np.ndarray], **more: np.ndarray
) -> ir.Model:
    """A graph of ``x`` and more inputs, typed as they are, and the one output that has this type and shape."""
    made = helper.make_graph(
        nodes, "case",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
         for n, a in {"x": x, **more}.items()],
        [helper.make_tensor_value_info("y", getattr(TensorProto, y[0]), y[1])],
        [numpy_helper.from_array(a, n) for n, a in weights.items()],
    )  # fmt: skip
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 25)], ir_version=11)
    onnx.checker.check_model(model)
    return ir.from_proto(shape_inference.infer_shapes(model, data_prop=True))


def cast(x: np.ndarray, to: str, target: str, **attributes: Any) -> np.ndarray:
    node = helper.make_node("Cast", ["x"], ["y"], to=getattr(TensorProto, to), **attributes)
    return Built(model_of([node], x, (to, x.shape), {}), isa(target))(x)[0]


def edges(dtype: type) -> np.ndarray:
    """Every number of the type, all midpoints between neighbours, a rounding to either side, and what is no number."""
    own = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float32)
    own = np.unique(own[np.isfinite(own)])
    middle = (own[1:] + own[:-1]) / 2
    most = own.max()
    beyond = np.float32([most * 1.01, most * 1.0625, most * 1.125, most * 1.3, most * 2, 1e30, np.inf, np.nan, 0.0])
    values = np.concatenate([own, middle, np.nextafter(middle, np.inf), np.nextafter(middle, -np.inf), beyond])
    return np.concatenate([values, -values]).astype(np.float32)


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("name", FLOATS)
def test_every_code_becomes_its_number(name: str, target: str) -> None:
    codes = np.arange(256 if "8" in name else 16, dtype=np.uint8).view(FLOATS[name])
    np.testing.assert_array_equal(cast(codes, "FLOAT", target), codes.astype(np.float32))


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("name", FLOATS)
def test_numbers_round_to_nearest_even(name: str, target: str) -> None:
    x, dtype = edges(FLOATS[name]), FLOATS[name]
    x = x if "8" in name else x[~np.isnan(x)]  # four bits hold no NaN
    np.testing.assert_array_equal(cast(x, name, target, saturate=0).astype(np.float32), x.astype(dtype).astype("f4"))
    most = np.float32(ml_dtypes.finfo(dtype).max)
    held = np.clip(x, -most, most).astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(cast(x, name, target).astype(np.float32), held)


@pytest.mark.parametrize("target", RUNNABLE)
def test_every_exponent_becomes_its_power_of_two(target: str) -> None:
    codes = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e8m0fnu)
    np.testing.assert_array_equal(cast(codes, "FLOAT", target), codes.astype(np.float32))
    np.testing.assert_array_equal(cast(codes, "FLOAT8E8M0", target).view(np.uint8), codes.view(np.uint8))


@pytest.mark.parametrize("saturate", [0, 1])
@pytest.mark.parametrize("mode", ["up", "down", "nearest"])
def test_numbers_round_to_powers_of_two(mode: str, saturate: int) -> None:
    x = np.float32(2.0) ** np.arange(-149, 128, dtype=np.float32)
    middle = x * np.float32(1.5)
    x = np.concatenate(
        [x, middle, np.nextafter(middle, 0), np.nextafter(x, 0), np.nextafter(x, np.float32(3e38)), np.float32([0])]
    )
    x = np.concatenate([x, np.float32([np.finfo(np.float32).max, np.nan])])
    for target in RUNNABLE:
        found = cast(x, "FLOAT8E8M0", target, round_mode=mode, saturate=saturate)
        expected = numpy_helper.to_float8e8m0(x, bool(saturate), mode)
        np.testing.assert_array_equal(found.view(np.uint8), expected.view(np.uint8))
    halves = x[np.abs(x) < 6e4].astype(np.float16)
    found = cast(halves, "FLOAT8E8M0", HERE.name, round_mode=mode, saturate=saturate)
    np.testing.assert_array_equal(found, numpy_helper.to_float8e8m0(halves, bool(saturate), mode))


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_keep_their_low_bits(name: str) -> None:
    dtype, low, high = INTEGERS[name]
    x = np.arange(-128, 128).astype(np.int8)
    np.testing.assert_array_equal(cast(x, name, HERE.name).astype(np.int8), x.astype(dtype).astype(np.int8))
    own = np.arange(low, high + 1).astype(dtype)
    np.testing.assert_array_equal(cast(own, "FLOAT", HERE.name), np.arange(low, high + 1))


def placed(values: np.ndarray, shape: tuple[int, ...], axis: int, block: int) -> np.ndarray:
    """Scales or zero points over the shape: one, one a place along the axis, or one a block of it."""
    if block:
        return np.take(np.repeat(values, block, axis), range(shape[axis]), axis)
    return values.reshape([-1 if d == axis else 1 for d in range(len(shape))]) if values.size > 1 else values


@st.composite
def quantisers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int, str]:
    """x, scales, zero points, axis, size of blocks, type."""
    shape = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 7, 16, 17]), min_size=1, max_size=3)))
    axis, name = draw(st.integers(0, len(shape) - 1)), draw(st.sampled_from(list(INTEGERS)))
    kind = draw(st.sampled_from(["tensor", "axis", "block"]))
    block = draw(st.integers(1, shape[axis])) if kind == "block" else 0
    blocks = tuple(-(-n // block) if d == axis else n for d, n in enumerate(shape)) if block else (shape[axis],)
    given = () if kind == "tensor" else blocks
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    dtype, low, high = INTEGERS[name]
    scale = rng.uniform(0.2, 0.7, given).astype(np.float32)
    zero = np.asarray(rng.integers(low, high + 1, given)).astype(dtype)
    return (rng.standard_normal(shape) * 2).astype(np.float32), scale, zero, axis, block, name


@settings(max_examples=40, deadline=None)
@given(quantisers())
def test_quantised_and_back(case: tuple[np.ndarray, np.ndarray, np.ndarray, int, int, str]) -> None:
    x, scale, zero, axis, block, name = case
    options = {"axis": axis} | ({"block_size": block} if block else {})
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **options),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **options),
    ]
    (y,) = Built(model_of(nodes, x, ("FLOAT", x.shape), {"s": scale, "z": zero}), HERE)(x)
    _, low, high = INTEGERS[name]
    factor, offset = (placed(a.astype(np.float32), x.shape, axis, block) for a in (scale, zero))
    levels = np.clip(np.rint(x / factor) + offset, low, high)
    np.testing.assert_allclose(y, (levels - offset) * factor, rtol=1e-6, atol=1e-7)


@settings(max_examples=20, deadline=None)
@given(quantisers())
def test_what_a_caller_holds_is_dequantised(case: tuple[np.ndarray, np.ndarray, np.ndarray, int, int, str]) -> None:
    x, scale, zero, axis, block, name = case
    dtype, low, high = INTEGERS[name]
    q = np.clip(np.rint(x), low, high).astype(dtype)
    options = {"axis": axis} | ({"block_size": block} if block else {})
    node = helper.make_node("DequantizeLinear", ["x", "s", "z"], ["y"], **options)
    (y,) = Built(model_of([node], q, ("FLOAT", x.shape), {"s": scale, "z": zero}), HERE)(q)
    factor, offset = (placed(a.astype(np.float32), x.shape, axis, block) for a in (scale, zero))
    np.testing.assert_allclose(y, (q.astype(np.float32) - offset) * factor, rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(quantisers())
def test_scales_known_at_run_time_only(case: tuple[np.ndarray, np.ndarray, np.ndarray, int, int, str]) -> None:
    x, scale, zero, axis, block, name = case
    options = {"axis": axis} | ({"block_size": block} if block else {})
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **options),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **options),
    ]
    (y,) = Built(model_of(nodes, x, ("FLOAT", x.shape), {}, s=scale, z=zero), HERE)(x, scale, zero)
    _, low, high = INTEGERS[name]
    factor, offset = (placed(a.astype(np.float32), x.shape, axis, block) for a in (scale, zero))
    levels = np.clip(np.rint(x / factor) + offset, low, high)
    np.testing.assert_allclose(y, (levels - offset) * factor, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["INT4", "UINT4", "INT2", "FLOAT8E4M3FN", "FLOAT8E5M2FNUZ", "FLOAT4E2M1"])
def test_weights_of_few_bits_in_blocks(name: str) -> None:
    rng, depth, columns, block = np.random.default_rng(7), 37, 19, 16
    dtype = INTEGERS[name][0] if name in INTEGERS else FLOATS[name]
    weight = rng.integers(-2, 2, (depth, columns)) if name in INTEGERS else rng.standard_normal((depth, columns)) * 3
    weight = np.abs(weight) if name.startswith("U") else weight
    weight, scale = weight.astype(np.float32).astype(dtype), rng.uniform(0.01, 0.1, (3, columns)).astype(np.float32)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["f"], axis=0, block_size=block),
        helper.make_node("MatMul", ["x", "f"], ["y"]),
    ]
    x = rng.standard_normal((3, depth)).astype(np.float32)
    (y,) = Built(model_of(nodes, x, ("FLOAT", (3, columns)), {"w": weight, "s": scale}), HERE)(x)
    wide = weight.astype(np.float64) * np.repeat(scale, block, 0)[:depth]
    np.testing.assert_allclose(y, x.astype(np.float64) @ wide, rtol=1e-5, atol=1e-5)


def test_rows_of_a_table_of_four_bits() -> None:
    rng = np.random.default_rng(3)
    table = rng.integers(-8, 8, (11, 5)).astype(ml_dtypes.int4)
    nodes = [
        helper.make_node("Gather", ["w", "x"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["turned"], perm=[1, 0]),
        helper.make_node("DequantizeLinear", ["turned", "s"], ["y"]),
    ]
    x = np.array([10, 0, 3, 3], np.int64)
    (y,) = Built(model_of(nodes, x, ("FLOAT", (5, 4)), {"w": table, "s": np.float32(0.25)}), HERE)(x)
    np.testing.assert_array_equal(y, table.astype(np.float32)[x].T * 0.25)


@pytest.mark.parametrize("name", ["INT4", "UINT2", "FLOAT8E4M3FN", "FLOAT4E2M1", "FLOAT8E8M0"])
def test_a_model_that_takes_or_gives_them_is_refused_by_name(name: str, tmp_path: Path) -> None:
    x = np.zeros((1, 3), np.float32)
    dtype = helper.tensor_dtype_to_np_dtype(getattr(TensorProto, name))
    taken = model_of([helper.make_node("Cast", ["x"], ["y"], to=1)], x.astype(dtype), ("FLOAT", x.shape), {})
    write(taken, tmp_path / "taken.onnx")
    with pytest.raises(SourceError, match=rf"input 'x' is {name.lower()}\[1,3\].* put a Cast after it$"):
        hasten.compile(tmp_path / "taken.onnx", engine="native")
    if "FLOAT8" in name:
        return  # their codes are handed out
    node = helper.make_node("Cast", ["x"], ["y"], to=getattr(TensorProto, name))
    write(model_of([node], x, (name, x.shape), {}), tmp_path / "given.onnx")
    with pytest.raises(SourceError, match=rf"output 'y' is {name.lower()}\[1,3\].* put a Cast before it$"):
        hasten.compile(tmp_path / "given.onnx", engine="native")


def test_other_operators_refuse_them() -> None:
    node = helper.make_node("Pad", ["x", "pads"], ["y"])
    x = np.zeros((3,), ml_dtypes.int4)
    with pytest.raises(UnsupportedOpError, match=r"op Pad .* on INT4"):
        program_of(model_of([node], x, ("INT4", (5,)), {"pads": np.array([1, 1])}), "case", HERE)
