"""Dynamic-range quantised operators: a TFLite tree enters, the names of operators with int8 weights under float leave.

LiteRT computes these by rounding the activations to int8 as well, call by call, so its answers are not those of the
stored weights in float arithmetic.
"""

from __future__ import annotations

from hasten.sources.tflite.model import Flat, listed

__all__ = ["hybrid_operators"]

# Operators whose hybrid kernels round activations; others (GATHER of an int8 table) are exact.
_HYBRID = {
    "BATCH_MATMUL",
    "BIDIRECTIONAL_SEQUENCE_LSTM",
    "BIDIRECTIONAL_SEQUENCE_RNN",
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED",
    "LSTM",
    "RNN",
    "SVDF",
    "TRANSPOSE_CONV",
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
    "UNIDIRECTIONAL_SEQUENCE_RNN",
}


def hybrid_operators(flat: Flat) -> tuple[str, ...]:
    """Names of the operators that take float activations and stored int8 weights, each once."""
    found: dict[str, None] = {}
    for subgraph in flat.tree.subgraphs:
        for op in listed(subgraph.operators):
            tensors = [subgraph.tensors[i] for i in listed(op.inputs) if i >= 0]
            activations = {flat.dtype(t) for t in tensors if flat.raw(t) is None}
            weights = {flat.dtype(t) for t in tensors if flat.raw(t) is not None}
            if flat.op_name(op) in _HYBRID and "float32" in activations and weights & {"int8", "uint8"}:
                found[flat.op_name(op)] = None
    return tuple(found)
