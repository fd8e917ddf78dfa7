"""Constant sub-graphs computed at every run.

## What it does
Finds nodes whose inputs all are constants.

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
        if node.op_type == "Constant" or view.is_random(node):
            continue
        inputs = [v for v in node.inputs if v is not None]
        if inputs and all(view.is_constant(v) or id(v) in known for v in inputs) and node.op_type not in _LEFT:
            found.append(node)
            known.update(id(v) for v in node.outputs)
    if found:
        yield GraphHit(f"node '{found[0].name}'", f"nodes that compute the same at each run: {len(found)}")


RULE = GraphRule("H609", "constant-subgraph", "Fold constants before exporting; or hasten optimize.", check)
