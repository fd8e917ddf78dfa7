"""A graph whose inputs have a free batch enters; whether its operators are known to keep rows apart leaves.

Each value that rows reach must have them along its first axis, in order, and each operator must compute every row from
that row and from constants. It is a proof where it holds; where it does not, a run of the graph tells.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

__all__ = ["rows_apart"]

_Ranks = dict[ir.Value, int]
"""What rows reach → its number of dimensions."""
_Rule = Callable[[ir.Node, _Ranks], int | None]
"""The rank of a node's results whose rows stay apart; None where they may not, or nobody knows."""


def rows_apart(model: ir.Model) -> bool:
    """True where every operator between inputs and outputs keeps the rows of a batch apart."""
    ranks: _Ranks = {}
    for value in model.graph.inputs:
        if value.name not in model.graph.initializers:
            if not value.shape or isinstance(value.shape[0], int):
                return False
            ranks[value] = len(value.shape)
    for node in model.graph:
        if not any(value in ranks for value in node.inputs):
            continue
        rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        rank = None if rule is None else rule(node, ranks)
        if rank is None or len(node.outputs) != 1:
            return False
        ranks[node.outputs[0]] = rank
    return all(value in ranks for value in model.graph.outputs)


def _first_alone(node: ir.Node, ranks: _Ranks) -> int | None:
    """Where rows reach the first input alone, its rank."""
    first = node.inputs[0]
    alone = not any(value in ranks for value in node.inputs[1:])
    return ranks.get(first) if alone and first is not None else None


def _window(node: ir.Node, ranks: _Ranks) -> int | None:
    """Rows are what ONNX calls the batch."""
    rank = _first_alone(node, ranks)
    return rank if rank is not None and rank > 1 and not node.attributes.get_int("training_mode", 0) else None


def _elementwise(node: ir.Node, ranks: _Ranks) -> int | None:
    """Constants are broadcast along the rows; what rows reach has one rank, so that it broadcasts along others."""
    given = {ranks[value] for value in node.inputs if value in ranks}
    rank = given.pop()
    shapes = [_constant_shape(value) for value in node.inputs if value is not None and value not in ranks]
    fit = all(shape is not None and (len(shape) < rank or (len(shape) == rank and shape[0] == 1)) for shape in shapes)
    return rank if fit and not given else None


def _product(node: ir.Node, ranks: _Ranks) -> int | None:
    rank, shape = _first_alone(node, ranks), _constant_shape(node.inputs[1])
    return rank if rank is not None and rank > 1 and shape is not None and len(shape) == 2 else None


def _along(default: int) -> _Rule:
    """Operators that compute along one axis, or from one axis on."""

    def rule(node: ir.Node, ranks: _Ranks) -> int | None:
        rank = _first_alone(node, ranks)
        return None if rank is None or node.attributes.get_int("axis", default) % rank == 0 else rank

    return rule


def _joined(node: ir.Node, ranks: _Ranks) -> int | None:
    given = {ranks.get(value, 0) for value in node.inputs if value is not None}
    rank = given.pop()
    return None if given or node.attributes.get_int("axis", 0) % rank == 0 else rank


def _reduced(node: ir.Node, ranks: _Ranks) -> int | None:
    rank, axes = _first_alone(node, ranks), _numbers(node, 1)
    if rank is None or not axes or any(axis % rank == 0 for axis in axes):
        return None
    return rank if node.attributes.get_int("keepdims", 1) else rank - len(axes)


def _transposed(node: ir.Node, ranks: _Ranks) -> int | None:
    order = node.attributes.get_ints("perm", ())
    return _first_alone(node, ranks) if order and order[0] == 0 else None


def _reshaped(node: ir.Node, ranks: _Ranks) -> int | None:
    shape = _numbers(node, 1)
    kept = shape is not None and shape[:1] == [0] and not node.attributes.get_int("allowzero", 0)
    return len(shape) if shape is not None and kept and _first_alone(node, ranks) is not None else None


def _padded(node: ir.Node, ranks: _Ranks) -> int | None:
    rank, pads = _first_alone(node, ranks), _numbers(node, 1)
    whole = rank is not None and pads is not None and len(pads) == 2 * rank and len(node.inputs) < 4
    return rank if rank is not None and pads is not None and whole and pads[0] == pads[rank] == 0 else None


def _sliced(node: ir.Node, ranks: _Ranks) -> int | None:
    rank, axes = _first_alone(node, ranks), _numbers(node, 3)
    return None if rank is None or not axes or any(axis % rank == 0 for axis in axes) else rank


def _numbers(node: ir.Node, at: int) -> list[int] | None:
    """The integers of a constant input."""
    value = node.inputs[at] if at < len(node.inputs) else None
    return None if value is None or value.const_value is None else value.const_value.numpy().ravel().tolist()


def _constant_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    return None if value is None or value.const_value is None else tuple(value.const_value.shape.numpy())


_RULES: dict[str, _Rule] = {
    **dict.fromkeys(("Conv", "BatchNormalization", "MaxPool", "AveragePool", "GlobalAveragePool"), _window),
    **dict.fromkeys(("GlobalMaxPool", "ConvTranspose", "InstanceNormalization", "DepthToSpace"), _window),
    **dict.fromkeys(("Relu", "Sigmoid", "Tanh", "Identity", "Cast", "LeakyRelu", "Elu", "Selu", "Gelu"), _first_alone),
    **dict.fromkeys(("Softplus", "HardSigmoid", "HardSwish", "Erf", "Exp", "Sqrt", "Neg", "Clip"), _first_alone),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Min", "Max", "Pow"), _elementwise),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"), _reduced),
    **dict.fromkeys(("Softmax", "LayerNormalization"), _along(-1)),
    "Concat": _joined,
    "MatMul": _product,
    "Pad": _padded,
    "Reshape": _reshaped,
    "Slice": _sliced,
    "Transpose": _transposed,
}
