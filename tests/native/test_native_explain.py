"""What a step could take at best: its own products at the peak of their kind, and no byte that it does not touch."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from exact_cases import pointwise
from int8_cases import layers
from native_cases import HERE, graph, mlp
from onnx import TensorProto, helper, numpy_helper, shape_inference

from hasten.api.explaining import op_times
from hasten.host import Peaks
from hasten.native.build import compile_library
from hasten.native.compile import program_of
from hasten.native.emit_timed import emit_profiled
from hasten.native.explain import Profile, StepTime, _step_times, _typical, _without_stamps, profile
from hasten.native.kernels.winograd import Winograd

# Bytes cost nothing here, or products nothing: a limit then is of one kind.
BY_PRODUCTS = Peaks(10.0, 1e12, {}, "by hand", 1000.0)
BY_BYTES = Peaks(1e12, 1.0, {"L1d": 8.0, "L2": 4.0, "L3": 2.0, "memory": 1.0}, "by hand", 1e12)


def steps_of(model: ir.Model, peaks: Peaks) -> list[StepTime]:
    program = program_of(model, "case", HERE)
    emitted = emit_profiled(program, HERE, threads=1)
    return list(_step_times(program, emitted, [1.0] * len(emitted.calls), peaks))


def lookup(rows: int) -> ir.Model:
    made = helper.make_graph(
        [helper.make_node("Gather", ["table", "i"], ["y"])],
        "case",
        [helper.make_tensor_value_info("i", TensorProto.INT64, (3,))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (3, 16))],
        [numpy_helper.from_array(np.zeros((rows, 16), np.float32), "table")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return ir.from_proto(shape_inference.infer_shapes(model))


@pytest.mark.parametrize("rows", [2, 100, 200_000])
def test_of_a_table_the_rows_that_are_picked_count(rows: int) -> None:
    """And the model is in the cache that those fit, however large the table is."""
    (step,) = steps_of(lookup(rows), BY_BYTES)
    assert step.bytes == min(rows, 3) * 16 * 4 + 3 * 16 * 4 + 3 * 8
    if HERE.arch != "any":
        assert step.limit_ns == step.bytes / 8.0


def test_products_of_bytes_are_held_to_the_peak_of_bytes() -> None:
    steps = steps_of(ir.from_proto(layers("int8")), BY_PRODUCTS)
    whole = [s for s in steps if s.is_integer and s.macs]
    assert whole and all(s.limit_ns == pytest.approx(s.macs / 1000.0) for s in whole)


@pytest.mark.skipif("vnni" not in HERE.features, reason="the peak of integers is that of 16 bits")
@pytest.mark.parametrize("how", ["activations", "weights", "weights, by two"])
def test_products_of_16_bits_are_held_to_half_the_peak_of_bytes(how: str) -> None:
    threads = 2 if "two" in how else 1
    if how == "activations":
        program = program_of(pointwise(64, 40, (5, 7)), "case", HERE, activations="int16")
    else:
        program = program_of(mlp([200, 300, 150]), "case", HERE, precision="int11-weights", threads=threads)
        program = replace(program, steps=program.steps[:1])
    emitted = emit_profiled(program, HERE, threads=threads)
    (step,) = (s for s in _step_times(program, emitted, [1.0] * len(emitted.calls), BY_PRODUCTS) if s.macs)
    assert step.is_integer and step.limit_ns == pytest.approx(2 * step.macs / 1000.0)


def test_minimal_filtering_is_held_to_the_products_it_makes() -> None:
    weights = {"w": np.ones((64, 64, 3, 3), np.float32)}
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])]
    model = graph(nodes, {"x": (1, 64, 32, 32)}, {"y": (1, 64, 32, 32)}, weights)
    [made] = [s for s in program_of(model, "case", HERE).steps if isinstance(s, Winograd)]
    spared = 36 / (16 * 9) if made.size == 4 else 16 / (4 * 9)
    [step] = [s for s in steps_of(model, BY_PRODUCTS) if s.macs]
    assert step.macs == 32 * 32 * 64 * 64 * 9, "what is computed stays what is told"
    assert step.limit_ns == pytest.approx(step.macs * spared / 10.0)


def test_steps_shorter_than_a_stride_of_the_clock_are_told_apart_and_add_up() -> None:
    """Of a median nothing but whole strides could come; an interrupted call counts for nothing."""
    rng, true, stride = np.random.default_rng(0), np.array([3.0, 12.0, 6.0]), 10
    begun = np.cumsum(rng.uniform(100, 200, 4000))
    stamps = np.column_stack([begun, begun[:, None] + np.cumsum(true)])
    stamps[::50, 2:] += 1e6
    found = _typical((stamps // stride * stride).astype(np.int64))
    np.testing.assert_allclose(found, true, atol=1.0)
    assert found.sum() == pytest.approx(true.sum(), abs=1.0)


def test_what_stamps_cost_is_taken_off_the_steps() -> None:
    """As much off each; none falls below nothing, and they add up to the call."""
    true = np.array([25.0, 7.0, 18.0])
    found, stamp_ns = _without_stamps(true + 26.0, 50.0)
    np.testing.assert_allclose(found, true)
    assert stamp_ns == pytest.approx(26.0)
    found, _ = _without_stamps(np.array([100.0, 20.0, 30.0]), 60.0)
    assert found.min() == 0 and found.sum() == pytest.approx(60.0)
    found, stamp_ns = _without_stamps(np.array([10.0, 20.0]), 33.0)
    assert stamp_ns == 0 and found.sum() == pytest.approx(33.0), "noise of the other sign is no cost"
    assert _without_stamps(np.zeros(0), 0.0)[1] == 0


def test_a_step_of_less_than_half_a_stamp_has_no_rates() -> None:
    """What is left of so short a time is noise: bytes over it came out above every cache."""
    steps = [StepTime("f", "t", (), time_ns, 1.0, 64, 64) for time_ns in (0.0, 11.0, 12.0)]
    stamped, bare = (Profile(tuple(steps), 23.0, 3.0, 0, 0, "", stamp_ns) for stamp_ns in (24.0, 0.0))
    assert [op.gb_per_s is None for op in op_times(stamped)] == [True, True, False]
    assert [op.gmacs_per_s is None for op in op_times(bare)] == [True, False, False]


def chain() -> ir.Model:
    """Three layers that nothing fuses into one."""
    square = np.eye(8, dtype=np.float32)
    nodes = [helper.make_node("MatMul", [a, w], [b]) for a, w, b in (("x", "u", "h"), ("h", "v", "g"), ("g", "w", "y"))]
    return graph(nodes, {"x": (1, 8)}, {"y": (1, 8)}, {"u": square, "v": square * 2, "w": square * 3})


def test_the_call_itself_is_timed_without_stamps_inside_it(tmp_path: Path) -> None:
    emitted = emit_profiled(program_of(chain(), "case", HERE), HERE)
    assert len(emitted.calls) == 3
    library = ctypes.CDLL(str(compile_library(emitted, HERE, tmp_path)))
    library.hasten_weights.restype = ctypes.c_void_p
    x, y, arena = (
        np.ones((1, 8), np.float32),
        np.empty((1, 8), np.float32),
        np.zeros(emitted.arena_bytes + 64, np.uint8),
    )
    inputs, outputs = (ctypes.c_void_p * 1)(x.ctypes.data), (ctypes.c_void_p * 1)(y.ctypes.data)
    for inner in (0, 1):
        ticks = np.zeros(5, np.uint64)
        at = arena.ctypes.data + 63 & ~63
        weights = ctypes.c_void_p(library.hasten_weights())
        library.hasten_profile(
            weights, ctypes.c_void_p(at), inputs, outputs, ctypes.c_void_p(ticks.ctypes.data), ctypes.c_int(inner)
        )
        np.testing.assert_array_equal(y, 6 * x)
        assert [bool(tick) for tick in ticks] == [True, True, bool(inner), bool(inner), True]
        written = ticks[ticks > 0].astype(np.int64)
        assert (np.diff(written) >= 0).all()


def test_steps_of_a_profile_add_up_to_its_call() -> None:
    found = profile(chain(), HERE, [np.ones((1, 8), np.float32)])
    assert len(found.steps) == 3 and found.call_ns > 0
    assert sum(s.time_ns for s in found.steps) == pytest.approx(found.call_ns)
