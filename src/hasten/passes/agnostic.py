"""Operators that work as well on transposed tensors, and what changes in them then.

``layout_rule`` tells which operands would have to be transposed, or that a node insists on its layout; ``transposed``
makes the node that takes operands transposed by ``perm`` and gives its results transposed alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from hasten.graph.operators import BROADCAST, REDUCTIONS, UNARY
from hasten.passes.surgery import Editor, attribute, constant, input_of, ints, rank, static_dims

__all__ = ["Perm", "Rule", "inverse", "layout_rule"]

Perm = tuple[int, ...]
# (editor, node, perm, operands already transposed) → (inputs, changed attributes)
_Change = Callable[[Editor, ir.Node, Perm, list[ir.Value | None]], tuple[list[ir.Value | None], dict[str, Any]]]


@dataclass(frozen=True)
class Rule:
    """How one node takes part.

    ``operands``: indices of inputs to transpose; ``drops``: axes that leave the result; ``holds``: how many axes at the
    end the node works along, which therefore must stay where they are.
    """

    operands: tuple[int, ...]
    change: _Change
    drops: tuple[int, ...] = ()
    holds: int = 0

    def allows(self, perm: Perm) -> bool:
        """True where ``perm`` leaves the axes alone that the node works along."""
        kept = len(perm) - self.holds
        return perm[kept:] == tuple(range(kept, len(perm)))


def inverse(perm: Perm) -> Perm:
    """The permutation that undoes ``perm``."""
    return tuple(perm.index(axis) for axis in range(len(perm)))


def layout_rule(node: ir.Node, of_rank: int) -> Rule | None:
    """The rule for ``node`` on tensors of that rank; None where it insists on the layout it has."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in _RULES:
        return None
    if not any(rank(value) == of_rank for value in node.inputs[:3] if value is not None):
        return None
    return _RULES[node.op_type](node, of_rank)


def _outputs_are(node: ir.Node, of_rank: int) -> bool:
    return all(rank(value) == of_rank for value in node.outputs)


def _keep(
    editor: Editor, node: ir.Node, perm: Perm, given: list[ir.Value | None]
) -> tuple[list[ir.Value | None], dict[str, Any]]:
    return given, {}


def _unary(node: ir.Node, of_rank: int) -> Rule | None:
    return Rule((0,), _keep) if _outputs_are(node, of_rank) and rank(node.inputs[0]) == of_rank else None


def _broadcast(node: ir.Node, of_rank: int) -> Rule | None:
    if not _outputs_are(node, of_rank) or any(rank(value) is None for value in node.inputs):
        return None
    return Rule(tuple(range(len(node.inputs))), _keep)


def _axis(default: int, *, all_operands: bool = False) -> Callable[[ir.Node, int], Rule | None]:
    def change(
        editor: Editor, node: ir.Node, perm: Perm, given: list[ir.Value | None]
    ) -> tuple[list[ir.Value | None], dict[str, Any]]:
        return given, {"axis": perm.index(attribute(node, "axis", default) % len(perm))}

    def rule(node: ir.Node, of_rank: int) -> Rule | None:
        if not _outputs_are(node, of_rank) or rank(node.inputs[0]) != of_rank:
            return None
        return Rule(tuple(range(len(node.inputs))) if all_operands else (0,), change)

    return rule


def _quantise(node: ir.Node, of_rank: int) -> Rule | None:
    scale = input_of(node, 1)
    if static_dims(scale) in ((), (1,)):
        return _unary(node, of_rank)
    return None if attribute(node, "block_size", 0) else _axis(1)(node, of_rank)


def _gather(node: ir.Node, of_rank: int) -> Rule | None:
    return _axis(0)(node, of_rank) if rank(node.inputs[1]) == 1 else None


def _mapped_axes(input_index: int) -> _Change:
    def change(
        editor: Editor, node: ir.Node, perm: Perm, given: list[ir.Value | None]
    ) -> tuple[list[ir.Value | None], dict[str, Any]]:
        axes = ints(input_of(node, input_index))
        if axes is None:  # left out: all axes in order
            count = (ints(node.inputs[1]) or ()) if node.op_type == "Slice" else ()
            axes = tuple(range(len(count)))
        given = given + [None] * (input_index + 1 - len(given))
        given[input_index] = editor.ints([perm.index(axis % len(perm)) for axis in axes], "axes")
        return given, {}

    return change


def _slice(node: ir.Node, of_rank: int) -> Rule | None:
    axes = input_of(node, 3)
    known = ints(axes) is not None if axes is not None else ints(node.inputs[1]) is not None
    return Rule((0,), _mapped_axes(3)) if known and _outputs_are(node, of_rank) else None


def _reduce(node: ir.Node, of_rank: int) -> Rule | None:
    if "axes" in node.attributes:
        return None
    axes_input = input_of(node, 1)
    axes = ints(axes_input) if axes_input is not None else tuple(range(of_rank))
    if axes is None or rank(node.inputs[0]) != of_rank:
        return None
    if axes_input is None and attribute(node, "noop_with_empty_axes", 0):
        return None
    change = _keep if axes_input is None else _mapped_axes(1)
    drops = () if attribute(node, "keepdims", 1) else tuple(sorted(axis % of_rank for axis in axes))
    return Rule((0,), change, drops)


def _arg(node: ir.Node, of_rank: int) -> Rule | None:
    if rank(node.inputs[0]) != of_rank:
        return None
    axis = attribute(node, "axis", 0) % of_rank

    def change(
        editor: Editor, node: ir.Node, perm: Perm, given: list[ir.Value | None]
    ) -> tuple[list[ir.Value | None], dict[str, Any]]:
        return given, {"axis": perm.index(axis)}

    return Rule((0,), change, () if attribute(node, "keepdims", 1) else (axis,))


def _reordered(*input_indices: int) -> _Change:
    """Constants with one number (or, for pads, two) for each axis."""

    def change(
        editor: Editor, node: ir.Node, perm: Perm, given: list[ir.Value | None]
    ) -> tuple[list[ir.Value | None], dict[str, Any]]:
        for index in input_indices:
            numbers = constant(input_of(node, index))
            if numbers is not None and numbers.size:
                padded = numbers
                if node.op_type == "Expand":
                    padded = np.concatenate([np.ones(len(perm) - numbers.size, numbers.dtype), numbers])
                given[index] = editor.weight(padded.reshape(-1, len(perm))[:, list(perm)].reshape(-1), "reordered")
        return given, {}

    return change


def _pad(node: ir.Node, of_rank: int) -> Rule | None:
    if input_of(node, 3) is not None:
        known = ints(input_of(node, 3)) is not None
        return Rule((0,), _mapped_axes(3)) if known and rank(node.inputs[0]) == of_rank else None
    return Rule((0,), _reordered(1)) if ints(input_of(node, 1)) is not None else None


def _per_axis(node: ir.Node, of_rank: int) -> Rule | None:
    """Expand and Tile."""
    numbers = ints(node.inputs[1])
    fits = numbers is not None and rank(node.inputs[0]) == of_rank and _outputs_are(node, of_rank)
    return Rule((0,), _reordered(1)) if fits else None


def _resize(node: ir.Node, of_rank: int) -> Rule | None:
    roi, scales, sizes = (input_of(node, index) for index in (1, 2, 3))
    region = constant(roi)
    if (roi is not None and (region is None or region.size)) or rank(node.inputs[0]) != of_rank:
        return None
    if any(value is not None and constant(value) is None for value in (scales, sizes)):
        return None
    if "axes" not in node.attributes:
        return Rule((0,), _reordered(2, 3))

    def change(
        editor: Editor, node: ir.Node, perm: Perm, given: list[ir.Value | None]
    ) -> tuple[list[ir.Value | None], dict[str, Any]]:
        return given, {"axes": [perm.index(axis % len(perm)) for axis in attribute(node, "axes")]}

    return Rule((0,), change)


def _matmul(node: ir.Node, of_rank: int) -> Rule | None:
    """A product with a matrix of weights works along the last axis alone."""
    weights = constant(node.inputs[1])
    fits = weights is not None and weights.ndim == 2 and rank(node.inputs[0]) == of_rank > 2
    return Rule((0,), _keep, holds=1) if fits else None


def _normalisation(node: ir.Node, of_rank: int) -> Rule | None:
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]) or rank(node.inputs[0]) != of_rank:
        return None
    axis = attribute(node, "axis", -1) % of_rank

    def change(
        editor: Editor, node: ir.Node, perm: Perm, given: list[ir.Value | None]
    ) -> tuple[list[ir.Value | None], dict[str, Any]]:
        return given, {"axis": axis}

    parts = (input_of(node, index) for index in (1, 2))
    if any(part is not None and (rank(part) or 0) > of_rank - axis for part in parts):
        return None
    return Rule((0,), change, holds=of_rank - axis)


def _cumulative(node: ir.Node, of_rank: int) -> Rule | None:
    axis = ints(node.inputs[1])

    def change(
        editor: Editor, node: ir.Node, perm: Perm, given: list[ir.Value | None]
    ) -> tuple[list[ir.Value | None], dict[str, Any]]:
        assert axis is not None
        given[1] = editor.weight(np.asarray(perm.index(axis[0] % len(perm)), np.int64), "axis")
        return given, {}

    return Rule((0,), change) if axis is not None and len(axis) == 1 else None


_RULES: dict[str, Callable[[ir.Node, int], Rule | None]] = {
    **dict.fromkeys(UNARY, _unary),
    **dict.fromkeys(BROADCAST, _broadcast),
    **dict.fromkeys(REDUCTIONS, _reduce),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), _axis(-1)),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), _quantise),
    **dict.fromkeys(("ArgMax", "ArgMin"), _arg),
    **dict.fromkeys(("Expand", "Tile"), _per_axis),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), _normalisation),
    "MatMul": _matmul,
    "Concat": _axis(0, all_operands=True),
    "Split": _axis(0),
    "Gather": _gather,
    "Slice": _slice,
    "Pad": _pad,
    "Resize": _resize,
    "CumSum": _cumulative,
}
