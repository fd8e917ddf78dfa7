"""Activations and Softmax spelt out in small steps become the one operator that they are.

Which operators are worth it, and for which the operator set is raised, is docs/decisions/0002.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any as Anything

import onnx_ir as ir

from hasten.graph.walk import all_nodes
from hasten.passes import Pass
from hasten.passes.opset import raise_to
from hasten.passes.pattern import Any, Match, Op, Pattern, find, product
from hasten.passes.surgery import Editor, attribute, dims, input_of, ints, is_op, rank

__all__ = ["recognise_activations"]


@dataclass(frozen=True)
class _Known:
    """An operator, how it is spelt out, and from which operator set on it exists."""

    op: str
    pattern: Pattern
    opset: int
    attributes: dict[str, Anything] = field(default_factory=dict)
    holds: Callable[[Match], bool] = lambda match: True


_HALF_TURN = Any(Op("Div", "x", 2**0.5), Op("Mul", "x", 0.5**0.5))
_CUBE = Any(Op("Pow", "x", 3.0), Op("Mul", "x", Op("Mul", "x", "x")), Op("Mul", "x", Op("Pow", "x", 2.0)))
_INNER = Op("Add", "x", Op("Mul", _CUBE, 0.044715))
_TANH = Op("Tanh", Op("Mul", _INNER, 0.7978845608))
# Only inside tanh: alone, ln(1 + exp(x)) overflows where Softplus does not, and the answers would differ.
_SOFTPLUS = Any(Op("Softplus", "x"), Op("Log", Op("Add", Op("Exp", "x"), 1.0)))
_SIX = Any(Op("Clip", Op("Add", "x", 3.0), 0.0, 6.0), Op("Min", Op("Relu", Op("Add", "x", 3.0)), 6.0))


def _is_standard_hard_sigmoid(match: Match) -> bool:
    node = match["gate"].producer()
    assert node is not None
    alpha, beta = float(attribute(node, "alpha", 0.2)), float(attribute(node, "beta", 0.5))
    return abs(alpha - 1 / 6) < 1e-4 and abs(beta - 0.5) < 1e-4


_KNOWN: tuple[_Known, ...] = (
    _Known("Gelu", product("x", 0.5, Op("Add", Op("Erf", _HALF_TURN), 1.0)), 20),
    _Known("Gelu", product("x", 0.5, Op("Add", _TANH, 1.0)), 20, {"approximate": "tanh"}),
    _Known("HardSwish", Any(Op("Div", Op("Mul", "x", _SIX), 6.0), Op("Mul", "x", Op("Div", _SIX, 6.0))), 14),
    _Known("HardSwish", product("x", _SIX, 1 / 6), 14),
    _Known("HardSwish", Op("Mul", "x", Op("HardSigmoid", "x", name="gate")), 14, {}, _is_standard_hard_sigmoid),
    _Known("HardSigmoid", Any(Op("Div", _SIX, 6.0), Op("Mul", _SIX, 1 / 6)), 6, {"alpha": 1 / 6, "beta": 0.5}),
    _Known("Mish", Op("Mul", "x", Op("Tanh", _SOFTPLUS)), 18),
)
_ENDS = ("Mul", "Div")


def _apply(model: ir.Model) -> int:
    found = [
        (node, known, match)
        for node in all_nodes(model.graph)
        if is_op(node, *_ENDS)
        for known in _KNOWN
        if (match := find(node, known.pattern)) is not None and known.holds(match)
    ]
    if found and raise_to(model, max(known.opset for _, known, _ in found)):
        return _apply(model)  # raising made every node anew
    editor = Editor(model)
    taken: set[ir.Node] = set()
    for node, known, match in found:
        if not taken & match.nodes:
            taken |= match.nodes
            _replace(editor, node, known, match)
    for node in list(all_nodes(model.graph)):
        if is_op(node, "Div"):
            _softmax(editor, node)
    return editor.finish()


def _replace(editor: Editor, node: ir.Node, known: _Known, match: Match) -> None:
    if dims(match["x"]) == dims(node.outputs[0]):
        editor.swap(
            node.outputs[0],
            editor.value(node, known.op, [match["x"]], known.attributes, shape=dims(node.outputs[0])),
        )


_EXP = Op("Exp", Op("Sub", "x", Op("ReduceMax", "x", name="largest")))
_SOFTMAX = Op("Div", _EXP, Op("ReduceSum", _EXP, name="sum"))


def _softmax(editor: Editor, node: ir.Node) -> None:
    """``exp(x - max) / Σ exp(x - max)``; without taking off the largest it overflows where Softmax does not."""
    match = find(node, _SOFTMAX)
    if match is None:
        return
    axis = _axis(match["sum"].producer())
    if axis is None:
        return
    source, largest = match["x"], match["largest"].producer()
    if _axis(largest) != axis:
        return
    made = editor.value(node, "Softmax", [source], {"axis": axis}, shape=dims(node.outputs[0]))
    editor.swap(node.outputs[0], made)


def _axis(reduce: ir.Node | None) -> int | None:
    """The one axis that a reduction with kept dimensions goes over."""
    if reduce is None or not attribute(reduce, "keepdims", 1):
        return None
    axes, count = ints(input_of(reduce, 1)), rank(reduce.inputs[0])
    return axes[0] % count if axes is not None and count and len(axes) == 1 else None


recognise_activations = Pass(
    "recognise activations",
    _apply,
    ensures="gelu, hard-swish, mish and softmax are single nodes",
)
