"""Batch norm left beside the layer it could be folded into.

## What it does
Finds a BatchNormalization right behind a convolution or dense product with constant weights.

## Why is this bad
At inference it is a multiplication and an addition by constants, which the layer's own weights and bias can absorb.

## Cost
A pass over the activation, at each layer, on engines that do not fold it; nothing on those that do.

## Example
`Conv → BatchNormalization → Relu`.

## Use instead
Fold it: hasten's passes do, as do the optimisers of most engines.

## Fix safety
No fix in the file; `hasten optimize` folds it.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from hasten.doctor.graphs import GraphHit, GraphRule, ModelView

_TAKES = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def check(view: ModelView) -> Iterator[GraphHit]:
    """Foldable batch norms; one finding for all of them."""
    scales = [node for node in view.nodes if _is_scale(node, view) and not _trains(node, view)]
    found = [node for node in scales if _folds(node.inputs[0], node, view)]
    if found:
        yield GraphHit(f"node '{found[0].name}'", f"{len(found)} batch norms could be folded into the layers before")


def _trains(node: ir.Node, view: ModelView) -> bool:
    """True for what a Keras layer became that is called with `training=True`: it takes the batch's own statistics."""
    return any(call.get("training") is True for layer in view.layers_of(node) for call in layer.calls)


def _is_scale(node: ir.Node, view: ModelView) -> bool:
    """A batch norm with fixed statistics, as one node or as a product with a number for each channel."""
    if not node.inputs or node.inputs[0] is None:
        return False
    if node.op_type == "Mul":
        scale = view.constant(node.inputs[1])
        return scale is not None and scale.size > 1 and scale.size == max(scale.shape)
    trains = "training_mode" in node.attributes and node.attributes["training_mode"].as_int()
    return node.op_type == "BatchNormalization" and not trains and all(map(view.is_constant, node.inputs[1:]))


def _folds(value: ir.Value | None, node: ir.Node, view: ModelView) -> bool:
    """True when the value comes from a layer with constant weights, by way of transposes at most, and nowhere else."""
    while value is not None and view.only_user(value) is node:
        before = value.producer()
        if before is None:
            return False
        if before.op_type in _TAKES:
            return view.is_constant(before.inputs[1])
        if before.op_type not in ("Transpose", "Identity"):
            return False
        value, node = before.inputs[0], before
    return False


RULE = GraphRule("H605", "unfolded-batch-norm", "Run hasten optimize, or fold before exporting.", check)
