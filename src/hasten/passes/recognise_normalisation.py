"""Layer and root-mean-square normalisation spelt out in small steps become single nodes. See docs/decisions/0002.

Along axes that are not the last, as ConvNeXt normalises channels, the node stands between transposes. These cost the
native compiler nothing; ONNX Runtime gains with them, OpenVINO loses more: the graph that all engines get stays spelt
out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir as ir

from hasten.graph.walk import all_nodes
from hasten.passes import Pass
from hasten.passes.opset import raise_to
from hasten.passes.pattern import Any, Match, Op, Pattern, find
from hasten.passes.surgery import (
    Dim,
    Editor,
    attribute,
    constant,
    dims,
    input_of,
    ints,
    is_op,
    rank,
    scalar,
    static_dims,
)

__all__ = ["Spelt", "recognise_inner_normalisation", "recognise_normalisation", "spelt_layer"]

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


@dataclass(frozen=True)
class Spelt:
    """What steps normalise, and along which axes."""

    source: ir.Value
    axes: tuple[int, ...]
    epsilon: float


_BARE = _Form("LayerNormalization", _LAYER, _LAYER_NORM_OPSET)
# Longest first: what has a scale and a shift also has the bare form inside.
_FORMS = (
    _Form("LayerNormalization", _KERAS, _LAYER_NORM_OPSET),
    _Form("LayerNormalization", Op("Add", Op("Mul", _LAYER, "scale"), "shift"), _LAYER_NORM_OPSET),
    _Form("LayerNormalization", Op("Mul", _LAYER, "scale"), _LAYER_NORM_OPSET),
    _BARE,
    _Form("RMSNormalization", Op("Mul", _RMS, "scale"), _RMS_NORM_OPSET),
    _Form("RMSNormalization", _RMS, _RMS_NORM_OPSET),
)


def _apply(model: ir.Model, *, inner: bool = False) -> int:
    for form in _FORMS:
        places = [node for node in all_nodes(model.graph) if _fits(node, form, inner) is not None]
        if places and raise_to(model, form.opset):
            places = [node for node in all_nodes(model.graph) if _fits(node, form, inner) is not None]
        if places:
            editor = Editor(model)
            for node in places:
                match = _fits(node, form, inner)
                if match is not None:
                    _replace(editor, node, form, match)
            return editor.finish() + _apply(model, inner=inner)
    return 0


def _fits(node: ir.Node, form: _Form, inner: bool) -> Match | None:
    if not is_op(node, "Add", "Mul", "Div"):
        return None
    match = find(node, form.pattern)
    if match is None or scalar(match["epsilon"]) is None:
        return None
    axes, shape = _axes(match["variance"]), dims(match["x"])
    if not axes or shape is None or shape != dims(node.outputs[0]):
        return None
    if not inner and axes != _last(len(axes), len(shape)):
        return None
    if "mean" in match.values and _axes(match["mean"]) != axes:
        return None
    if not all(isinstance(shape[axis], int) for axis in axes):
        return None
    parts = [match.values[name] for name in ("scale", "shift") if name in match.values]
    return match if all(_spans(part, axes, shape) for part in parts) else None


def spelt_layer(node: ir.Node) -> Spelt | None:
    """The layer normalisation, without scale and shift, whose last step this is."""
    match = _fits(node, _BARE, inner=True)
    axes = None if match is None else _axes(match["variance"])
    epsilon = None if match is None else scalar(match["epsilon"])
    return None if match is None or axes is None or epsilon is None else Spelt(match["x"], axes, epsilon)


def _spans(part: ir.Value, axes: Sequence[int], shape: Sequence[Dim]) -> bool:
    """True for a number for each normalised element: in the shape of those axes, or a constant with 1 elsewhere."""
    wanted = tuple(shape[axis] for axis in axes)
    if static_dims(part) == wanted and axes == _last(len(axes), len(shape)):
        return True
    found = constant(part)
    if found is None or found.ndim > len(shape):
        return False
    padded = (1,) * (len(shape) - found.ndim) + found.shape
    return all(size == (shape[d] if d in axes else 1) for d, size in enumerate(padded))


def _last(count: int, of_rank: int) -> tuple[int, ...]:
    return tuple(range(of_rank - count, of_rank))


def _axes(reduced: ir.Value) -> tuple[int, ...] | None:
    node = reduced.producer()
    if node is None or not attribute(node, "keepdims", 1):
        return None
    axes, count = ints(input_of(node, 1)), rank(node.inputs[0])
    return None if axes is None or not count else tuple(sorted(axis % count for axis in axes))


def _replace(editor: Editor, node: ir.Node, form: _Form, match: Match) -> None:
    source, axes, shape = match["x"], _axes(match["variance"]), dims(match["x"])
    if axes is None or shape is None or source.dtype is None:
        return
    wanted = [int(shape[axis] or 1) for axis in axes]
    scale, shift = (match.values.get(name) for name in ("scale", "shift"))
    if scale is None:
        scale = editor.weight(np.ones(wanted, source.dtype.numpy()), f"{node.name}_scale")
    given = [part if part is None else _in_shape(editor, part, wanted) for part in (scale, shift)]
    perm = [d for d in range(len(shape)) if d not in axes] + list(axes)
    attributes = {"axis": len(shape) - len(axes), "epsilon": scalar(match["epsilon"])}
    moved, result = [shape[d] for d in perm], source
    if perm != sorted(perm):
        result = editor.value(node, "Transpose", [source], {"perm": perm}, shape=moved)
    result = editor.value(node, form.op, [result, *given], attributes, shape=moved)
    if perm != sorted(perm):
        back = [perm.index(d) for d in range(len(perm))]
        result = editor.value(node, "Transpose", [result], {"perm": back}, shape=shape)
    editor.swap(node.outputs[0], result)


def _in_shape(editor: Editor, part: ir.Value, shape: list[int]) -> ir.Value:
    found = constant(part)
    if found is None or found.shape == tuple(shape):
        return part
    return editor.weight(found.reshape(shape), f"{part.name}_flat")


recognise_normalisation = Pass(
    "recognise normalisation",
    _apply,
    ensures="layer and root-mean-square normalisation of the last dimensions are single nodes",
)
recognise_inner_normalisation = Pass(
    "recognise normalisation along inner axes",
    partial(_apply, inner=True),
    requires="inferred shapes",
    ensures="layer and root-mean-square normalisation are single nodes",
)
