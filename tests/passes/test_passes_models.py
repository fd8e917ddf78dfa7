"""Both phases over real and seed models: same answers, and what the phases promise holds."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from graph_text import lines, ops, probe_of, same_answers

from hasten import graph
from hasten.graph import shapes
from hasten.passes.fix_shapes import fix_shapes
from hasten.passes.phases import OPTIMISE, TIDY
from hasten.passes.run import run_phases

# Sums in another order: folding scales into weights and merging products moves float32 results by a few units in the
# last place a layer; 1e-5 of the largest answer is above that for these depths and far below any real mistake.
TOLERANCE = 1e-5

ONNX = [
    "seeds/audio_cnn.onnx", "seeds/conv_lstm_td.onnx", "seeds/lstm.onnx", "seeds/mlp20.onnx", "seeds/mlp256.onnx",
    "seeds/mlp784.onnx", "real/dtln_1.onnx", "real/go1.onnx", "real/tenvad.onnx",
]  # fmt: skip
TFLITE = ["resnet8", "vww_96", "kws", "kws_int8", "ad01_fp32"]
# What a border may keep: one Transpose where a channels-last image enters.
BORDER_TRANSPOSES = {"resnet8": 1, "vww_96": 1, "kws": 0, "kws_int8": 0, "ad01_fp32": 0}


def both_ways(model: ir.Model) -> dict[str, ir.Model]:
    """Optimised with the batch left free, and with every free dimension 1."""
    free = shapes.free_dims(model)
    probe = [array[:1] if free else array for array in probe_of(model)]
    fixed = fix_shapes(dict.fromkeys(free, 1))
    return {
        "free": run_phases(model, (TIDY, OPTIMISE), probe=probe, strict=True)[0],
        "fixed": run_phases(model, (TIDY, (fixed,), OPTIMISE), probe=probe, strict=True)[0],
    }


@pytest.mark.parametrize("name", ONNX)
def test_onnx_models_keep_their_answers(shared_models: Path, name: str) -> None:
    model = graph.read(shared_models / name)
    before = lines(model)
    for way, result in both_ways(model).items():
        probe = [array[:1] if shapes.free_dims(model) else array for array in probe_of(model, 3)]
        same_answers(model, result, probe, TOLERANCE)
        assert ops(result)["BatchNormalization"] == 0
        assert ops(result)["Transpose"] <= ops(model)["Transpose"]
        if way == "fixed":
            assert not shapes.free_dims(result)
            assert all(v.shape is not None and v.shape.is_static() for n in result.graph for v in n.outputs if v.uses())
    assert lines(model) == before, "the model handed in was changed"


def test_time_distributed_becomes_one_product(shared_models: Path) -> None:
    for result in both_ways(graph.read(shared_models / "seeds/conv_lstm_td.onnx")).values():
        found = ops(result)
        assert found["MatMul"] + found["Gemm"] == 1
        assert found["Slice"] == found["Concat"] == found["Shape"] == 0
        assert result.graph.num_nodes() < 20


def test_lstm_reads_its_final_state(shared_models: Path) -> None:
    for result in both_ways(graph.read(shared_models / "seeds/lstm.onnx")).values():
        lstm = next(node for node in result.graph if node.op_type == "LSTM")
        assert len(lstm.inputs) == 4, "the zero initial state is still passed"
        assert not lstm.outputs[0].uses(), "all steps are kept although only the last is read"


@pytest.fixture(scope="module")
def unoptimised(shared_models: Path) -> dict[str, ir.Model]:
    """What tf2onnx makes of the TFLite files before its own optimiser: transposes around every spatial layer."""
    os.environ["CUDA_VISIBLE_DEVICES"], os.environ["TF_CPP_MIN_LOG_LEVEL"] = "", "3"
    tfonnx = pytest.importorskip("tf2onnx.tfonnx")
    found = {}
    for name in TFLITE:
        made = tfonnx.process_tf_graph(None, opset=15, tflite_path=str(shared_models / "real" / f"{name}.tflite"))
        found[name] = ir.from_proto(made.make_model(name))
    return found


@pytest.mark.frameworks
@pytest.mark.parametrize("name", TFLITE)
def test_channels_last_models_end_without_transposes(unoptimised: dict[str, ir.Model], name: str) -> None:
    model = unoptimised[name]
    for result in both_ways(model).values():
        probe = [array[:1] for array in probe_of(model, 3)]
        same_answers(model, result, probe, TOLERANCE)
        found = ops(result)
        assert found["Transpose"] <= BORDER_TRANSPOSES[name]
        assert found["BatchNormalization"] == found["MatMul"] == 0, "a dense layer with a bias is one Gemm"


@pytest.mark.frameworks
def test_integer_kernels_stay_recognisable(unoptimised: dict[str, ir.Model]) -> None:
    """In a full-integer model each convolution still reads dequantised integers, weights among them."""
    for result in both_ways(unoptimised["kws_int8"]).values():
        for node in result.graph:
            if node.op_type in ("Conv", "Gemm"):
                read = [value.producer() for value in node.inputs if value is not None]
                assert all(producer is not None and producer.op_type == "DequantizeLinear" for producer in read[:2])
                assert isinstance(read[1].inputs[0].const_value.numpy().flat[0], np.int8)
