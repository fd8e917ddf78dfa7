"""A graph enters; what a call of it takes leaves, from shapes alone: so that each rewrite can say what it saved.

Arithmetic and traffic are counted only where every shape is known, each operator is one of ONNX's own and no node has a
body, which would count once however often it runs. Two graphs that are both counted so can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from hasten.graph.cost import total

__all__ = ["Load", "load"]


@dataclass(frozen=True)
class Load:
    """Units: macs: multiply-adds; written_bytes: what nodes write; both of one call, None where nothing tells"""

    macs: int | None
    written_bytes: int | None
    weight_bytes: int


def load(model: ir.Model) -> Load:
    """The load of one call; its shapes were inferred."""
    weights = sum(tensor.nbytes for tensor in _weights(model))
    if not _countable(model):
        return Load(None, None, weights)
    try:
        found = total(model)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError):  # a node that is not as its operator says
        return Load(None, None, weights)
    return Load(found.macs, found.bytes_written, weights)


def _weights(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            if value.const_value is not None and value.dtype != ir.DataType.STRING and value.uses():
                yield value.const_value
        for node in graph:
            held = node.attributes.get("value") if node.op_type == "Constant" else None
            if held is not None and held.type == ir.AttributeType.TENSOR:
                yield held.as_tensor()


def _countable(model: ir.Model) -> bool:
    return not model.functions and all(
        node.domain in ("", "ai.onnx")
        and not any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values())
        and all(value.shape is not None and value.shape.is_static() for value in node.outputs if value.name)
        for node in model.graph
    )
