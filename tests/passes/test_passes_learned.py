"""Operators of classical machine learning, spelt out: ONNX Runtime's own answers before, after, and from native."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from graph_text import ops
from onnx import TensorProto, helper, numpy_helper

import hasten
from hasten.graph import reference, write
from hasten.passes.learned import learned_operators
from hasten.passes.run import run_phases

RNG = np.random.default_rng(0)
Array = np.ndarray


def model(op: str, x: Array, outputs: Sequence[Any], places: Array | None = None, **attributes: Any) -> ir.Model:
    names = ["x"] if places is None else ["x", "places"]
    graph = helper.make_graph(
        [helper.make_node(op, names, [f"y{k}" for k in range(len(outputs))], domain="ai.onnx.ml", **attributes)],
        "case",
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)],
        [helper.make_tensor_value_info(f"y{k}", kind, None) for k, kind in enumerate(outputs)],
        [] if places is None else [numpy_helper.from_array(places, "places")],
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=10))


def rows(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def numbers(count: int) -> list[float]:
    return RNG.standard_normal(count).tolist()


F, WHOLE = TensorProto.FLOAT, TensorProto.INT64
HOLED = rows(4, 5)
HOLED[0, 1] = HOLED[2, 4] = np.nan
ENDLESS = rows(4, 5)
ENDLESS[1, 2], ENDLESS[3, 0] = np.inf, -np.inf
LINE = rows(4, 5)
LINE[2] = 0
_CLASSES = {"classlabels_ints": [3, 7, 5], "coefficients": numbers(15), "intercepts": numbers(3)}
CASES = {
    "scaler": lambda: (model("Scaler", HOLED, [F], offset=numbers(5), scale=numbers(5)), HOLED),
    "one scale": lambda: (model("Scaler", LINE, [F], offset=[0.5], scale=[2.0]), LINE),
    "imputer": lambda: (
        model("Imputer", HOLED, [F], imputed_value_floats=numbers(5), replaced_value_float=float("nan")), HOLED),
    "one value": lambda: (
        model("Imputer", ENDLESS, [F], imputed_value_floats=[0.5], replaced_value_float=float("inf")), ENDLESS),
    "features": lambda: (model("ArrayFeatureExtractor", LINE, [F], np.array([[4, 0, 0]])), LINE),
    "features of a vector": lambda: (model("ArrayFeatureExtractor", LINE[0], [F], np.array([2, 1])), LINE[0]),
    "features of a row": lambda: (model("ArrayFeatureExtractor", rows(2, 3, 5), [F], np.array([4])), rows(2, 3, 5)),
    "regressor": lambda: (
        model("LinearRegressor", LINE, [F], coefficients=numbers(10), intercepts=numbers(2), targets=2), LINE),
    "regressor of one": lambda: (model("LinearRegressor", LINE, [F], coefficients=numbers(5)), LINE),
    **{
        f"classifier, {after}": lambda after=after: (
            model("LinearClassifier", LINE, [WHOLE, F], post_transform=after, **_CLASSES), LINE)
        for after in ("NONE", "LOGISTIC", "SOFTMAX")
    },
    **{norm: lambda norm=norm: (model("Normalizer", LINE, [F], norm=norm), LINE) for norm in ("L1", "L2")},
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_spelt_out_in_standard_operators_and_compiled(name: str, tmp_path: Path) -> None:
    graph, x = CASES[name]()
    expected = reference.run(graph, [x])
    found, _ = run_phases(graph, [(learned_operators,)], probe=(x,), strict=True)
    assert not any(node.domain for node in found.graph), ops(found)
    for mine, theirs in zip(reference.run(found, [x]), expected, strict=True):
        assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    write(graph, tmp_path / "case.onnx")
    with hasten.compile(tmp_path / "case.onnx", sample=np.nan_to_num(x, posinf=1, neginf=1)) as fast:
        answers = fast(x)
    for mine, theirs in zip(answers if isinstance(answers, tuple) else (answers,), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "graph",
    [
        model("Normalizer", LINE, [F], norm="MAX"),
        model("LinearRegressor", LINE, [F], coefficients=numbers(5), post_transform="PROBIT"),
        model("LinearClassifier", LINE, [WHOLE, F], **{**_CLASSES, "post_transform": "SOFTMAX_ZERO"}),
        model("Scaler", LINE.astype(np.int64), [F], offset=[0.5], scale=[2.0]),
        model("Imputer", LINE.astype(np.int64), [WHOLE], imputed_value_int64s=[5], replaced_value_int64=1),
    ],
    ids=["largest", "probit", "softmax of what is not zero", "whole numbers", "missing whole numbers"],
)
def test_what_has_no_standard_form_stays(graph: ir.Model) -> None:
    found, _ = run_phases(graph, [(learned_operators,)], strict=True)
    assert [node.domain for node in found.graph] == ["ai.onnx.ml"]
