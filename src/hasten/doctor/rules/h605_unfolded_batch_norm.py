"""Batch norm left beside the layer it could be folded into.

## What it does
Finds a BatchNormalization right behind a convolution or dense product with constant weights.

## Why is this bad
At inference it is a multiplication and an addition by constants, which the layer's own weights and bias can absorb.

## Cost
A pass over the activation, at each layer.

## Example
`Conv → BatchNormalization → Relu`.

## Use instead
Fold it: hasten's passes do, as do the optimisers of most engines.

## Fix safety
No fix in the file; `hasten optimize` folds it.
"""

from __future__ import annotations

from collections.abc import Iterator

from hasten.doctor.graphs import GraphHit, GraphRule, ModelView

_TAKES = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def check(view: ModelView) -> Iterator[GraphHit]:
    """Foldable batch norms; one finding for all of them."""
    found = []
    for node in view.nodes:
        if (
            node.op_type != "BatchNormalization"
            or node.inputs[0] is None
            or not all(map(view.is_constant, node.inputs[1:]))
        ):
            continue
        before = node.inputs[0].producer()
        if "training_mode" in node.attributes and node.attributes["training_mode"].as_int():
            continue
        folds = before is not None and before.op_type in _TAKES and view.is_constant(before.inputs[1])
        if folds and view.only_user(node.inputs[0]) is node:
            found.append(node)
    if found:
        yield GraphHit(f"node '{found[0].name}'", f"{len(found)} batch norms could be folded into the layers before")


RULE = GraphRule("H605", "unfolded-batch-norm", "Run hasten optimize, or fold before exporting.", check)
