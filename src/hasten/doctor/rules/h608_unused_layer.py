"""Layers and weights that no output depends on.

## What it does
Finds nodes and initializers that no output of a graph depends on, and layers of a Keras model that no output needs.

## Why is this bad
They are stored, loaded, and by some engines computed, for nothing.

## Cost
Their size, and their arithmetic where the engine does not drop them.

## Example
A second head of a network, left in after its output was dropped.

## Use instead
`keras.Model(inputs, outputs)` with the outputs that are read; hasten's passes drop the rest.

## Fix safety
No fix in the file; `hasten optimize` drops them.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from hasten.doctor.graphs import GraphHit, GraphRule, ModelView


def check(view: ModelView) -> Iterator[GraphHit]:
    """Dead nodes, weights without readers, layers without a way out."""
    if view.model is not None:
        dead = _dead(view)
        if dead:
            yield GraphHit(f"node '{dead[0].name}'", f"nodes that lead to no output: {len(dead)}")
        idle = [w for w in view.weights if not w.uses() and not w.is_graph_output() and w.name]
        if idle:
            size = sum(w.const_value.nbytes for w in idle if w.const_value is not None)
            yield GraphHit(f"weight '{idle[0].name}'", f"weights without a reader: {len(idle)} ({size / 1024:.0f} KiB)")
    unused = [layer for layer in view.layers if not layer.used]
    if unused:
        yield GraphHit(f"layer '{unused[0].name}'", f"layers that lead to no output: {len(unused)}")


def _dead(view: ModelView) -> list[ir.Node]:
    assert view.model is not None
    alive: set[int] = set()
    stack = [v.producer() for v in view.model.graph.outputs]
    while stack:
        node = stack.pop()
        if node is None or id(node) in alive:
            continue
        alive.add(id(node))
        stack.extend(v.producer() for v in node.inputs if v is not None)
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                inner = attribute.as_graph()
                stack.extend(v.producer() for n in inner for v in n.inputs if v is not None)
                stack.extend(v.producer() for v in inner.outputs)
    return [n for n in view.top if id(n) not in alive and not _holds_alive(n, alive)]


def _holds_alive(node: ir.Node, alive: set[int]) -> bool:
    return any(
        attribute.type == ir.AttributeType.GRAPH and any(id(n) in alive for n in attribute.as_graph())
        for attribute in node.attributes.values()
    )


RULE = GraphRule("H608", "unused-layer", "Rebuild the model from the outputs that are read; or hasten optimize.", check)
