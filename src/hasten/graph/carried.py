"""Shapes of what a loop carries from turn to turn, which inference leaves open because a turn might change them.

They are assumed to be those that the loop is given, the body is inferred under that assumption, and where it hands on
the shapes that it took, they stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx_ir as ir

from hasten.graph.walk import all_nodes

__all__ = ["settle"]

_Place = tuple[ir.Node, int]
"""A loop, and the position among what it carries."""


def settle(model: ir.Model, infer: Callable[[ir.Model], None]) -> None:
    """Gives every carried value inside and after a Loop its shape, where all turns agree on it."""
    refused: set[_Place] = set()
    while places := [place for place in _open(model) if place not in refused]:
        before = {value: value.shape for value in _inside(places)}
        for loop, at in places:
            _taken(loop, at).shape = _given(loop, at)
        infer(model)
        wrong = {place for place in places if not _handed_on(*place)}
        if wrong:
            for value, shape in before.items():
                value.shape = shape
        refused |= wrong
        for loop, at in () if wrong else places:
            loop.outputs[at].shape = _given(loop, at)


def _open(model: ir.Model) -> Iterator[_Place]:
    for node in all_nodes(model.graph):
        if node.op_type == "Loop" and node.domain == "":
            for at in range(len(node.inputs) - 2):
                shape = _given(node, at)
                if shape is not None and shape.is_static() and shape != _taken(node, at).shape:
                    yield node, at


def _given(loop: ir.Node, at: int) -> ir.Shape | None:
    value = loop.inputs[2 + at]
    return None if value is None or value.shape is None else ir.Shape(list(value.shape))


def _taken(loop: ir.Node, at: int) -> ir.Value:
    return loop.attributes["body"].as_graph().inputs[2 + at]


def _handed_on(loop: ir.Node, at: int) -> bool:
    handed = loop.attributes["body"].as_graph().outputs[1 + at]
    return handed is _taken(loop, at) or handed.shape == _given(loop, at)


def _inside(places: list[_Place]) -> Iterator[ir.Value]:
    for body in {id(loop): loop.attributes["body"].as_graph() for loop, _ in places}.values():
        yield from body.inputs
        for node in ir.traversal.RecursiveGraphIterator(body):
            yield from node.outputs
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.GRAPH:
                    yield from attribute.as_graph().inputs
