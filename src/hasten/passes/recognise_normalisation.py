"""Layer and root-mean-square normalisation spelt out in small steps become single nodes. See docs/decisions/0002."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from hasten.graph.walk import all_nodes
from hasten.passes import Pass
from hasten.passes.opset import raise_to
from hasten.passes.pattern import Any, Match, Op, Pattern, find
from hasten.passes.surgery import Editor, attribute, dims, input_of, ints, is_op, rank, scalar, static_dims

__all__ = ["recognise_normalisation"]

_LAYER_NORM_OPSET, _RMS_NORM_OPSET = 17, 23


def _square(pattern: Pattern) -> Any:
    return Any(Op("Pow", pattern, 2.0), Op("Mul", pattern, pattern))


def _over_root(numerator: Pattern, variance: Pattern) -> Any:
    """``numerator / sqrt(variance)`` in the ways that exporters write it."""
    root = Op("Sqrt", variance)
    inverse = Any(Op("Reciprocal", root), Op("Div", 1.0, root), Op("Pow", variance, -0.5))
    return Any(Op("Div", numerator, root), Op("Mul", numerator, inverse))


def _biased(pattern: Pattern) -> Op:
    return Op("Add", pattern, "epsilon")


_MEAN = Op("ReduceMean", "x", name="mean")
_CENTRED = Op("Sub", "x", _MEAN)
_VARIANCE = Op("ReduceMean", _square(_CENTRED), name="variance")
_LAYER = _over_root(_CENTRED, _biased(_VARIANCE))
_RMS = _over_root("x", _biased(Op("ReduceMean", _square("x"), name="variance")))

# Keras: x·inv + (beta − mean·inv), with inv = gamma / sqrt(variance + epsilon)
_ROOT = Op("Sqrt", _biased(_VARIANCE))
_INVERSE = Any(Op("Reciprocal", _ROOT), Op("Div", 1.0, _ROOT))
_SCALED = Op("Mul", _INVERSE, "scale")
_KERAS = Op("Add", Op("Mul", "x", _SCALED), Op("Sub", "shift", Op("Mul", _MEAN, _SCALED)))


@dataclass(frozen=True)
class _Form:
    op: str
    pattern: Pattern
    opset: int


# Longest first: what has a scale and a shift also has the bare form inside.
_FORMS = (
    _Form("LayerNormalization", _KERAS, _LAYER_NORM_OPSET),
    _Form("LayerNormalization", Op("Add", Op("Mul", _LAYER, "scale"), "shift"), _LAYER_NORM_OPSET),
    _Form("LayerNormalization", Op("Mul", _LAYER, "scale"), _LAYER_NORM_OPSET),
    _Form("LayerNormalization", _LAYER, _LAYER_NORM_OPSET),
    _Form("RMSNormalization", Op("Mul", _RMS, "scale"), _RMS_NORM_OPSET),
    _Form("RMSNormalization", _RMS, _RMS_NORM_OPSET),
)


def _apply(model: ir.Model) -> int:
    for form in _FORMS:
        places = [node for node in all_nodes(model.graph) if _fits(node, form) is not None]
        if places and raise_to(model, form.opset):
            places = [node for node in all_nodes(model.graph) if _fits(node, form) is not None]
        if places:
            editor = Editor(model)
            for node in places:
                match = _fits(node, form)
                if match is not None:
                    _replace(editor, node, form, match)
            return editor.finish() + _apply(model)
    return 0


def _fits(node: ir.Node, form: _Form) -> Match | None:
    if not is_op(node, "Add", "Mul", "Div"):
        return None
    match = find(node, form.pattern)
    if match is None or scalar(match["epsilon"]) is None or _first_axis(match) is None:
        return None
    if "mean" in match.values and _axes(match["mean"]) != _axes(match["variance"]):
        return None
    shape = dims(match["x"])
    if shape is None or shape != dims(node.outputs[0]):
        return None
    wanted = shape[_first_axis(match) :]
    if not all(isinstance(d, int) for d in wanted):
        return None
    parts = [match.values[name] for name in ("scale", "shift") if name in match.values]
    return match if all(static_dims(part) == wanted for part in parts) else None


def _axes(reduced: ir.Value) -> tuple[int, ...] | None:
    node = reduced.producer()
    if node is None or not attribute(node, "keepdims", 1):
        return None
    axes, count = ints(input_of(node, 1)), rank(node.inputs[0])
    return None if axes is None or not count else tuple(sorted(axis % count for axis in axes))


def _first_axis(match: Match) -> int | None:
    """Where the normalised dimensions begin, if they are the last ones."""
    axes, count = _axes(match["variance"]), rank(match["x"])
    return axes[0] if axes and count and axes == tuple(range(axes[0], count)) else None


def _replace(editor: Editor, node: ir.Node, form: _Form, match: Match) -> None:
    axis = _first_axis(match)
    source, shape = match["x"], dims(match["x"])
    if axis is None or shape is None or source.dtype is None:
        return
    scale = match.values.get("scale")
    if scale is None:
        ones = np.ones([int(d or 1) for d in shape[axis:]], source.dtype.numpy())
        scale = editor.weight(ones, f"{node.name}_scale")
    attributes = {"axis": axis, "epsilon": scalar(match["epsilon"])}
    given = [source, scale, match.values.get("shift")]
    editor.swap(node.outputs[0], editor.value(node, form.op, given, attributes, shape=shape))


recognise_normalisation = Pass(
    "recognise normalisation",
    _apply,
    ensures="layer and root-mean-square normalisation are single nodes",
)
