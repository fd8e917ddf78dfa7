"""Quantised models, whose own framework answers them in two ways: engines may be a step off either."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import hasten
from hasten.errors import VerifyError
from hasten.sources import Source, SourceRequest
from hasten.sources import onnx as opener
from hasten.sources.onnx import open_onnx
from hasten.verify import Tolerance

SHAPE, STEP = (1, 8, 16, 16), 0.04


def _joined(path: Path, *, dequantised: bool) -> Path:
    """Bytes in steps of 0.05 and 0.03 as bytes in steps of 0.04: every fourth ends in a half, which ONNX Runtime's
    fused kernel rounds otherwise than the graph."""
    pairs = {"x": ("fine", "middle"), "positive": ("finer", "none"), "both": ("step", "low")}
    nodes = [helper.make_node("Relu", ["x"], ["positive"])]
    for name, pair in pairs.items():
        if name == "both":
            nodes.append(helper.make_node("Concat", ["x seen", "positive seen"], ["both"], axis=1))
        made = "y" if name == "both" and not dequantised else f"{name} bytes"
        nodes.append(helper.make_node("QuantizeLinear", [name, *pair], [made]))
        if made != "y":
            seen = "y" if name == "both" else f"{name} seen"
            nodes.append(helper.make_node("DequantizeLinear", [made, *pair], [seen]))
    kind = TensorProto.FLOAT if dequantised else TensorProto.UINT8
    weights = {"fine": np.float32(0.05), "finer": np.float32(0.03), "step": np.float32(STEP)}
    weights |= {"middle": np.uint8(128), "none": np.uint8(0), "low": np.uint8(100)}
    graph = helper.make_graph(
        nodes,
        "joined",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", kind, (1, 16, 16, 16))],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def _source(path: Path) -> Source:
    return open_onnx(path, SourceRequest())


def test_answers_of_a_quantised_model_may_be_as_far_off_as_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _joined(tmp_path / "joined.onnx", dequantised=True)
    source = _source(path)
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    (expected,) = source.reference([x])
    largest = float(np.abs(expected).max())
    assert 0.5 * STEP / largest < source.spread < 2 * STEP / largest
    assert float(np.abs(hasten.compile(path)(x) - expected).max()) < 1.01 * STEP

    monkeypatch.setattr(opener, "own_rounding", lambda *_: (1, 0.0))
    with pytest.raises(VerifyError, match="differ from the model's own"):
        hasten.compile(path)


def test_steps_and_parts_are_told_apart(tmp_path: Path) -> None:
    integers = _source(_joined(tmp_path / "bytes.onnx", dequantised=False))
    assert (integers.steps, integers.spread) == (2, 0.0)
    assert _source(_joined(tmp_path / "floats.onnx", dequantised=True)).steps == 1


def test_a_spread_widens_what_is_allowed_of_quantised_models_alone() -> None:
    assert Tolerance().for_source("int8", 1, 0.0) == Tolerance(integer=1)
    assert Tolerance().for_source("int8", 1, 0.01).absolute == 0.02
    assert Tolerance().for_source("int8", 1, 0.01).relative == Tolerance().relative
    assert Tolerance.uniform(0.5).for_source("int8", 1, 0.01).absolute == 0.5
    assert Tolerance().for_source("float32", 1, 0.01) == Tolerance()
