"""Cuts the part of a graph that computes some values into a model of its own, to be run by the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from hasten.passes.surgery import opset
from hasten.types import Array

__all__ = ["extract"]


def extract(
    model: ir.Model,
    wanted: Sequence[ir.Value],
    inputs: Sequence[ir.Value] = (),
    known: Mapping[ir.Value, Array] | None = None,
) -> ir.Model | None:
    """A model from ``inputs`` to ``wanted``; None where those also depend on something else.

    ``known`` gives contents to values that are no constants where they stand (what a Loop hands to its body).
    """
    known = known or {}
    nodes: dict[ir.Node, None] = {}
    copies: dict[ir.Value, ir.Value] = {value: _copy(value) for value in inputs}
    weights: list[ir.Value] = []
    stack = [value for value in wanted if value not in copies]
    while stack:
        value = stack.pop()
        if value in copies:
            continue
        producer = value.producer()
        if value in known or (producer is None and value.const_value is not None and not value.is_graph_input()):
            copies[value] = _copy(value)
            copies[value].const_value = ir.tensor(known[value]) if value in known else value.const_value
            weights.append(copies[value])
        elif producer is None or any(a.type == ir.AttributeType.GRAPH for a in producer.attributes.values()):
            return None
        else:
            nodes[producer] = None
            copies.update({output: _copy(output) for output in producer.outputs})
            stack += [read for read in producer.inputs if read is not None]
    made = [_remade(node, copies) for node in nodes]
    graph = ir.Graph(
        [copies[value] for value in inputs],
        [copies[value] for value in wanted],
        nodes=made,
        initializers=weights,
        opset_imports={"": opset(model)},
        name="part",
    )
    graph.sort()
    return ir.Model(graph, ir_version=model.ir_version or 8)


def _copy(value: ir.Value) -> ir.Value:
    return ir.Value(name=value.name, shape=value.shape, type=value.type)


def _remade(node: ir.Node, copies: Mapping[ir.Value, ir.Value]) -> ir.Node:
    inputs = [None if value is None else copies[value] for value in node.inputs]
    outputs = [copies[value] for value in node.outputs]
    return ir.Node(node.domain, node.op_type, inputs, node.attributes.values(), outputs=outputs, name=node.name)
