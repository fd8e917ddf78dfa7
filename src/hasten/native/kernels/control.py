"""``If``: both branches are computed and the condition picks, element by element.

Kernels have no side effects and never read outside a tensor, so the branch not taken does no harm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.native.expr import call, load
from hasten.native.kernels.arithmetic import compute

if TYPE_CHECKING:
    from hasten.native.lower import Lowering

__all__ = ["LOWER"]


def _if(low: Lowering, node: ir.Node) -> None:
    branches = [node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
    known = low.constant(node.inputs[0])
    if known is not None:
        chosen = branches[0] if known.any() else branches[1]
        low.branch(chosen)
        for output, value in zip(node.outputs, chosen.outputs, strict=True):
            low.set(output, low.view(value))
        return
    for branch in branches:
        low.branch(branch)
    condition = low.reshape(low.view(node.inputs[0]), ())
    for output, *values in zip(node.outputs, *(b.outputs for b in branches), strict=True):
        one, other = (low.view(v) for v in values)
        if one.shape != other.shape or one.dtype != other.dtype:
            raise UnsupportedOpError(f"op If (node '{node.name}') whose branches differ in shape has no native kernel")
        test = load(condition.broadcast(one.shape))
        low.set(output, compute(low, call("where", test, load(one), load(other), dtype=one.dtype), one.shape))


LOWER: Mapping[str, Any] = {"If": _if}
