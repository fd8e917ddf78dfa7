"""Every node and every graph of a model, those in the bodies of Loop, Scan and If among them; and what a copy is of.

``onnx_ir`` has the same walks; these look at an attribute's type alone, since every pass takes several of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

__all__ = ["all_nodes", "subgraphs", "unwrapped"]

_HOLD_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def all_nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    """The graph's nodes in their order, each with those of its bodies right behind it."""
    for node in graph:
        yield node
        for attribute in node.attributes.data.values():
            if attribute.type in _HOLD_GRAPHS:
                for body in _graphs(attribute):
                    yield from all_nodes(body)


def subgraphs(graph: ir.Graph) -> Iterator[ir.Graph]:
    """The bodies within the graph, each before those within itself; ``graph`` is not among them."""
    for node in graph:
        for attribute in node.attributes.data.values():
            if attribute.type in _HOLD_GRAPHS:
                for body in _graphs(attribute):
                    yield body
                    yield from subgraphs(body)


def unwrapped(value: ir.Value) -> ir.Value:
    """What the value is a plain copy of, through any number of Identities; itself where it is none."""
    producer = value.producer()
    while producer is not None and producer.op_type == "Identity" and producer.domain in ("", "ai.onnx"):
        assert producer.inputs[0] is not None
        value = producer.inputs[0]
        producer = value.producer()
    return value


def _graphs(attribute: ir.Attr) -> Sequence[ir.Graph]:
    return (attribute.as_graph(),) if attribute.type == ir.AttributeType.GRAPH else attribute.as_graphs()
