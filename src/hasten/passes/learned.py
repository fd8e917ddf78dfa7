"""Operators of classical machine learning that are plain arithmetic become standard ones, for engines without them.

Trees, support vectors and text stay as they are.

Source: ONNX, docs/Operators-ml.md
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from hasten.graph.walk import all_nodes
from hasten.passes import Pass
from hasten.passes.contributed_place import FLOAT, Place, Results, Rewrite
from hasten.passes.surgery import Editor, dims, rank
from hasten.types import Array

__all__ = ["learned_operators"]

_DOMAIN = "ai.onnx.ml"
# What is done to the scores of a classifier.
_AFTER: dict[str, tuple[str, dict[str, int]]] = {
    "NONE": ("", {}), "LOGISTIC": ("Sigmoid", {}), "SOFTMAX": ("Softmax", {"axis": -1}),
}  # fmt: skip


def _numbers(at: Place, name: str) -> Array:
    return np.asarray(at.setting(name, ()), np.float32)


def _scaler(at: Place) -> Results:
    """(x - offset) · scale."""
    x, offset, scale = at.given(0), _numbers(at, "offset"), _numbers(at, "scale")
    if not offset.size or not scale.size:
        return ()
    y = at.op("Sub", x, at.editor.weight(offset, f"{at.node.name}_offset"))
    return (at.op("Mul", y, at.editor.weight(scale, f"{at.node.name}_scale")),)


def _feature_extractor(at: Place) -> Results:
    """Places along the last axis; of a vector, as a matrix of one row."""
    x, places, count = at.given(0), at.given(1), rank(at.given(0))
    if places is None or not count:
        return ()
    flat = at.op("Reshape", places, at.editor.ints([-1]))
    y = at.op("Gather", x, flat, axis=-1)
    return (y if count > 1 else at.op("Unsqueeze", y, at.editor.ints([0])),)


def _imputer(at: Place) -> Results:
    """What stands for a number that is missing: NaN, or the one that says so."""
    x, values = at.given(0), _numbers(at, "imputed_value_floats")
    if not values.size:
        return ()
    missing = float(at.setting("replaced_value_float", 0.0))
    absent = at.op("IsNaN", x) if np.isnan(missing) else at.op("Equal", x, at.number(missing, x))
    absent.dtype = ir.DataType.BOOL
    y = at.op("Where", absent, at.editor.weight(values, f"{at.node.name}_values"), x)
    y.dtype = FLOAT
    return (y,)


def _product(at: Place, targets: int) -> ir.Value | None:
    """x · coefficients + intercepts, one column a target."""
    weights, offset = _numbers(at, "coefficients"), _numbers(at, "intercepts")
    shape = dims(at.given(0))
    if shape is None or len(shape) != 2 or not targets or not weights.size or weights.size % targets:
        return None
    if isinstance(shape[1], int) and weights.size != targets * shape[1]:
        return None
    matrix = at.editor.weight(weights.reshape(targets, -1).T.copy(), f"{at.node.name}_coefficients")
    y = at.op("MatMul", at.given(0), matrix)
    return y if not offset.size else at.op("Add", y, at.editor.weight(offset, f"{at.node.name}_intercepts"))


def _linear_regressor(at: Place) -> Results:
    if at.setting("post_transform", "NONE") != "NONE":
        return ()
    y = _product(at, int(at.setting("targets", 1)))
    return () if y is None else (y,)


def _linear_classifier(at: Place) -> Results:
    """The label of the largest score, and the scores."""
    labels, after = np.asarray(at.setting("classlabels_ints", ()), np.int64), at.setting("post_transform", "NONE")
    scores = _product(at, labels.size) if labels.size > 1 and after in _AFTER else None
    if scores is None:
        return ()
    largest = at.op("ArgMax", scores, axis=1, keepdims=0)
    largest.dtype = ir.DataType.INT64
    label = at.op("Gather", at.editor.weight(labels, f"{at.node.name}_labels"), largest)
    kind, options = _AFTER[after]
    return (label, at.op(kind, scores, **options) if kind else scores)


def _normalizer(at: Place) -> Results:
    """Rows over their largest, summed or Euclidean length; a row of zeros stays one."""
    kind = {"MAX": "ReduceMax", "L1": "ReduceL1", "L2": "ReduceL2"}.get(str(at.setting("norm", "MAX")))
    x = at.given(0)
    if kind is None or kind == "ReduceMax" or rank(x) != 2:
        return ()  # engines take the largest with its sign or without
    length = at.op(kind, x, at.editor.ints([-1]), keepdims=1)
    none = at.op("Equal", length, at.number(0.0, x))
    none.dtype = ir.DataType.BOOL
    safe = at.op("Where", none, at.number(1.0, x), length)
    safe.dtype = FLOAT
    return (at.op("Div", x, safe),)


_REWRITES: dict[str, Rewrite] = {
    "Scaler": _scaler, "ArrayFeatureExtractor": _feature_extractor, "Imputer": _imputer,
    "LinearRegressor": _linear_regressor, "LinearClassifier": _linear_classifier, "Normalizer": _normalizer,
}  # fmt: skip


def _apply(model: ir.Model) -> int:
    editor = Editor(model)
    for node in list(all_nodes(model.graph)):
        x = node.inputs[0] if node.inputs else None
        if node.domain != _DOMAIN or node.op_type not in _REWRITES or x is None:
            continue
        if x.dtype != FLOAT and node.op_type != "ArrayFeatureExtractor":
            continue  # they answer float32 whatever they are given
        for old, new in zip(node.outputs, _REWRITES[node.op_type](Place(editor, node)), strict=False):
            if new is not None:
                editor.swap(old, new)
    changes = editor.finish()
    if changes and not any(node.domain == _DOMAIN for node in all_nodes(model.graph)):
        model.graph.opset_imports.pop(_DOMAIN, None)
    return changes


learned_operators = Pass(
    "classical operators in standard ones",
    _apply,
    ensures="no operator of ai.onnx.ml that is plain arithmetic",
)
