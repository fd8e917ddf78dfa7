"""Transposes that undo each other.

## What it does
Finds a Transpose whose effect a later one takes back, with nothing but element-wise operations between them. Of Keras
files `Permute` alone is asked: the other layers keep one layout.

## Why is this bad
Each moves every activation through memory and computes nothing; they come from exporting one framework's layout to
another's.

## Cost
A pass over the activation for each, often more than the element-wise work between, on engines that leave them in.

## Example
`Transpose(NHWC→NCHW) → Relu → Transpose(NCHW→NHWC)`.

## Use instead
One layout throughout: hasten's passes remove such pairs.

## Fix safety
No fix in the file; `hasten optimize` removes them.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from hasten.doctor.graphs import GraphHit, GraphRule, ModelView
from hasten.doctor.words import words

_ELEMENTWISE = words(
    "Relu LeakyRelu Sigmoid Tanh Elu Selu Clip Abs Neg Exp Sqrt HardSigmoid HardSwish Gelu Softplus Erf Cast Identity "
    "Dropout QuantizeLinear DequantizeLinear Add Mul Sub Div"
)
_FAR = 12


def check(view: ModelView) -> Iterator[GraphHit]:
    """Pairs of transposes that amount to nothing; one finding for all."""
    written = [n for n in view.nodes if n.op_type == "Transpose" and _is_own(n, view)]
    pairs = [(n, p) for n in written if (p := _partner(n, view)) is not None and _is_own(p, view)]
    if pairs:
        node, partner = pairs[0]
        more = f", and {len(pairs) - 1} more pairs" if len(pairs) > 1 else ""
        yield GraphHit(f"node '{node.name}'", f"the Transpose is undone by '{partner.name}'{more}")


def _is_own(node: ir.Node, view: ModelView) -> bool:
    """False for those that hasten made while reading a Keras file: its layers have one layout, but for `Permute`."""
    return not view.layers or any(layer.kind == "Permute" for layer in view.layers_of(node))


def _partner(node: ir.Node, view: ModelView) -> ir.Node | None:
    """The later Transpose that takes this one back."""
    order = _order(node)
    value = node.outputs[0]
    for _ in range(_FAR):
        user = view.only_user(value)
        if user is None or order is None:
            return None
        if user.op_type == "Transpose":
            back = _order(user)
            return user if back is not None and [order[i] for i in back] == list(range(len(order))) else None
        if user.op_type not in _ELEMENTWISE or not _alone(user, value, view):
            return None
        value = user.outputs[0]
    return None


def _alone(node: ir.Node, value: ir.Value, view: ModelView) -> bool:
    """True when every other input is one number: no second activation would need the layout."""
    others = [v for v in node.inputs if v is not None and v is not value]
    constants = [view.constant(v) for v in others]
    return all(c is not None and c.size == 1 for c in constants)


def _order(node: ir.Node) -> list[int] | None:
    if "perm" in node.attributes:
        return list(node.attributes["perm"].as_ints())
    rank = len(node.inputs[0].shape) if node.inputs[0] is not None and node.inputs[0].shape is not None else None
    return list(reversed(range(rank))) if rank is not None else None


RULE = GraphRule("H604", "removable-transpose", "Run hasten optimize: its passes keep one layout.", check)
