"""Constant sub-graphs computed at every run.

## What it does
Finds nodes whose inputs all are constants; not what a loop starts from, as the loop itself is the finding (H607).

## Why is this bad
They give the same answer each time. Engines that fold constants do it at load; the others compute it at each call.

## Cost
A dispatch or more for each node, at each call, on engines that do not fold; scales and masks of attention can be large.

## Example
`Range → Cast → Mul` that makes position numbers, or a weight transposed in the graph.

## Use instead
Store the result: hasten's passes fold constants.

## Fix safety
No fix in the file; `hasten optimize` folds them.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from hasten.doctor.graphs import GraphHit, GraphRule, ModelView

# Dequantising at run time is how small weights stay small.
_LEFT = ("Constant", "ConstantOfShape", "DequantizeLinear", "Identity")


def check(view: ModelView) -> Iterator[GraphHit]:
    """Nodes that could be numbers; one finding for all."""
    known: set[int] = set()
    found: list[ir.Node] = []
    for node in view.top:
        if node.op_type == "Constant" or view.is_random(node) or _holds_graph(node):
            continue
        inputs = [v for v in node.inputs if v is not None]
        if inputs and all(view.is_constant(v) or id(v) in known for v in inputs) and node.op_type not in _LEFT:
            found.append(node)
            known.update(id(v) for v in node.outputs)
    starts = _starts(found)
    found = [node for node in found if id(node) not in starts]
    if found:
        yield GraphHit(f"node '{found[0].name}'", f"nodes that compute the same at each run: {len(found)}")


def _holds_graph(node: ir.Node) -> bool:
    """True for a loop or a branch: what it is given is not all that it reads."""
    return any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values())


def _starts(found: list[ir.Node]) -> set[int]:
    """Those that lead to nothing but the state that a loop starts from: importers write them beside each loop."""
    starts: set[int] = set()
    for node in reversed(found):
        users = [usage.node for value in node.outputs for usage in value.uses()]
        if users and all(user.op_type in ("Loop", "Scan") or id(user) in starts for user in users):
            starts.add(id(node))
    return starts


RULE = GraphRule("H609", "constant-subgraph", "Fold constants before exporting; or hasten optimize.", check)
