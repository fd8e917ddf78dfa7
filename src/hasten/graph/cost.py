"""How much arithmetic and traffic each node of a graph is, from shapes alone. ``explain`` and the doctor count with it.

``macs`` are multiply-adds of products and convolutions. ``flops`` are twice those, and one for each element of
everything else: an exponential counts as one, so this ranks nodes, it does not predict times. Free dimensions count as
1. Traffic is each operand once; a node that changes nothing but the shape moves none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from hasten.graph.operators import REDUCTIONS, VIEWS

__all__ = ["Cost", "costs", "parameters", "total"]


@dataclass(frozen=True)
class Cost:
    """What one call of one node takes. Units: macs, flops: operations; the others: bytes"""

    node_name: str
    op: str
    macs: int
    flops: int
    bytes_read: int
    bytes_written: int
    weight_bytes: int
    """Part of ``bytes_read`` that is constants."""


def costs(model: ir.Model) -> tuple[Cost, ...]:
    """One for each node, in order; the bodies of If, Loop and Scan follow their node, counted once."""
    return tuple(_cost(node) for node in model.graph.all_nodes())


def total(model: ir.Model) -> Cost:
    """The whole graph's sum; what travels between nodes counts for both."""
    every = costs(model)
    sums = (sum(getattr(cost, name) for cost in every) for name in _SUMMED)
    return Cost(model.graph.name or "graph", "total", *sums)


def parameters(model: ir.Model) -> int:
    """Numbers in the graph's weights; integers that only describe shapes and axes are left out."""
    kept = (value for value in model.graph.initializers.values() if value.const_value is not None)
    return sum(value.const_value.size for value in kept if value.const_value and value.dtype not in _SHAPES)


_SUMMED = ("macs", "flops", "bytes_read", "bytes_written", "weight_bytes")
_SHAPES = (ir.DataType.INT64, ir.DataType.BOOL, ir.DataType.STRING)
_FREE = frozenset(VIEWS - {"Transpose"} | {"Identity", "Dropout", "Constant", "Shape", "Size"})
_MOVES = frozenset(
    [
        "Transpose",
        "Concat",
        "Split",
        "Slice",
        "Gather",
        "GatherElements",
        "GatherND",
        "Pad",
        "Expand",
        "Tile",
        "ScatterND",
        "ScatterElements",
        "DepthToSpace",
        "SpaceToDepth",
        "Cast",
        "Range",
        "ConstantOfShape",
        "Resize",
        "Where",
        "Compress",
        "ReverseSequence",
    ]
)


def _cost(node: ir.Node) -> Cost:
    name = node.name or ""
    if node.op_type in _FREE:
        return Cost(name, node.op_type, 0, 0, 0, 0, 0)
    written = sum(_nbytes(value) for value in node.outputs if value.uses() or value.is_graph_output())
    given = [value for value in node.inputs if value is not None]
    weights = sum(_nbytes(value) for value in set(given) if value.const_value is not None)
    read = sum(_nbytes(value) for value in set(given) if value.const_value is None)
    if node.op_type in ("Gather", "GatherElements", "GatherND", "Slice"):  # only what is picked is read
        read, weights = (written, 0) if node.inputs[0] is not None and not node.inputs[0].const_value else (0, written)
    macs = _PRODUCTS[node.op_type](node) if node.op_type in _PRODUCTS else 0
    return Cost(name, node.op_type, macs, 2 * macs + _pointwise(node), read + weights, written, weights)


def _pointwise(node: ir.Node) -> int:
    """Operations other than multiply-adds."""
    if node.op_type in _MOVES:
        return 0
    if node.op_type in _PRODUCTS:
        bias = node.op_type in ("Conv", "ConvTranspose", "Gemm") and _given(node, 2)
        return _extra(node) + (_size(node.outputs[0]) if bias else 0)
    if node.op_type in REDUCTIONS or node.op_type in ("GlobalAveragePool", "GlobalMaxPool", "ArgMax", "ArgMin"):
        return _size(node.inputs[0])
    if node.op_type in _PER_OUTPUT:
        return _PER_OUTPUT[node.op_type](node) * _size(node.outputs[0])
    return max((_size(value) for value in node.outputs), default=0)


def _given(node: ir.Node, index: int) -> bool:
    return index < len(node.inputs) and node.inputs[index] is not None


def _dims(value: ir.Value | None) -> tuple[int, ...]:
    """Dimensions with free ones as 1."""
    if value is None or value.shape is None:
        return ()
    return tuple(d if isinstance(d, int) else 1 for d in value.shape)


def _size(value: ir.Value | None) -> int:
    return math.prod(_dims(value)) if value is not None and value.shape is not None else 0


def _nbytes(value: ir.Value) -> int:
    if value.dtype is None or value.dtype == ir.DataType.STRING:
        return 0
    return int(_size(value) * value.dtype.itemsize)


def _ints(node: ir.Node, name: str) -> tuple[int, ...]:
    found = node.attributes.get(name)
    return () if found is None else tuple(found.as_ints())


def _int(node: ir.Node, name: str, default: int) -> int:
    found = node.attributes.get(name)
    return default if found is None else found.as_int()


def _conv(node: ir.Node) -> int:
    weights = node.inputs[_WEIGHTS_AT.get(node.op_type, 1)]
    return _size(node.outputs[0]) * math.prod(_dims(weights)[1:])


def _conv_transpose(node: ir.Node) -> int:
    return _size(node.inputs[0]) * math.prod(_dims(node.inputs[1])[1:])


def _matmul(node: ir.Node) -> int:
    return _size(node.outputs[0]) * (_dims(node.inputs[0]) or (0,))[-1]


def _gemm(node: ir.Node) -> int:
    left = _dims(node.inputs[0])
    return _size(node.outputs[0]) * (left[0 if _int(node, "transA", 0) else -1] if left else 0)


def _recurrent(node: ir.Node) -> int:
    steps, batch = _steps_and_batch(node)
    return steps * batch * (_size(node.inputs[1]) + _size(node.inputs[2]))


def _steps_and_batch(node: ir.Node) -> tuple[int, int]:
    given = (*_dims(node.inputs[0]), 1, 1)
    return (given[1], given[0]) if _int(node, "layout", 0) else (given[0], given[1])


def _extra(node: ir.Node) -> int:
    """Pointwise work of the layers that have some: bias, gates, state update; Softmax inside attention."""
    if node.op_type in _STATE_UPDATES:
        steps, batch = _steps_and_batch(node)
        directions, _, hidden = _dims(node.inputs[2])
        return steps * batch * directions * hidden * _STATE_UPDATES[node.op_type]
    if node.op_type == "Attention":
        query, key = _dims(node.inputs[0]), _dims(node.inputs[1])
        heads = query[1] if len(query) == 4 else _int(node, "q_num_heads", 1)
        return 5 * heads * math.prod(query[:1] + query[-2:-1] + key[-2:-1])
    return 0


def _attention(node: ir.Node) -> int:
    """Q·Kᵀ and the weighted sum of V."""
    query, key, value = (_dims(part) for part in node.inputs[:3])
    if len(query) == 4:
        batch, heads, rows, depth = query
        return batch * heads * rows * key[2] * (depth + value[3])
    heads = _int(node, "q_num_heads", 1)
    shared = heads // max(1, _int(node, "kv_num_heads", heads))
    return query[0] * query[1] * key[1] * (query[2] + value[2] * shared)


def _einsum(node: ir.Node) -> int:
    """One multiply-add for each combination of all indices."""
    equation = node.attributes["equation"].as_string().replace(" ", "").split("->")[0]
    extents: dict[str, int] = {}
    for term, value in zip(equation.split(","), node.inputs, strict=True):
        extents.update(zip(term, _dims(value), strict=False))
    return math.prod(extents.values()) if len(node.inputs) > 1 else 0


# Per hidden unit and step: two bias sums and an activation for each gate, and the state update.
_STATE_UPDATES = {"LSTM": 4 * 3 + 5, "GRU": 3 * 3 + 4, "RNN": 3}
_WEIGHTS_AT = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3}

_PRODUCTS: dict[str, Callable[[ir.Node], int]] = {
    "Attention": _attention,
    "Conv": _conv,
    "ConvInteger": _conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    "GRU": _recurrent,
    "Gemm": _gemm,
    "LSTM": _recurrent,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
    "RNN": _recurrent,
}


def _window(node: ir.Node) -> int:
    return math.prod(_ints(node, "kernel_shape"))


_PER_OUTPUT: dict[str, Callable[[ir.Node], int]] = {
    "AveragePool": _window,
    "BatchNormalization": lambda node: 2,
    "GroupNormalization": lambda node: 8,
    "InstanceNormalization": lambda node: 8,
    "LayerNormalization": lambda node: 8,
    "LogSoftmax": lambda node: 5,
    "MaxPool": _window,
    "Mean": lambda node: len(node.inputs),
    "RMSNormalization": lambda node: 5,
    "Softmax": lambda node: 5,
    "Sum": lambda node: len(node.inputs) - 1,
}
