"""A loop unrolled into the graph.

## What it does
Finds one weight read by eight or more matrix products or convolutions (the same layer written out step by step), and
Keras layers with `unroll=True`.

## Why is this bad
Each copy is dispatched on its own, and the step-by-step products could be one large product. Graphs of thousands of
nodes load slowly, and optimisers give up on them.

## Cost
Ten times for a dense layer over 200 steps; minutes of optimising for thousands of nodes.

## Example
Stock exporters write `TimeDistributed(Dense)` over 1,000 steps as 1,000 MatMuls.

## Use instead
The layer without the wrapper (H106), a recurrent layer without `unroll=True`, or hasten's own importer.

## Fix safety
No fix: the model is built so; `hasten optimize` imports the layer whole from Keras.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from hasten.doctor.graphs import GraphHit, GraphRule, ModelView

_PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose", "MatMulInteger", "QLinearMatMul")
_COPIES = 8
_BIAS = 2  # the input that a product adds


def check(view: ModelView) -> Iterator[GraphHit]:
    """Layers that say so; where none does, weights with many products, one finding for all."""
    layers = [layer for layer in view.layers if layer.config.get("unroll") is True]
    for layer in layers:
        yield GraphHit(f"layer '{layer.name}'", f"{layer.kind} has unroll=True")
    copies = {} if layers else {weight.name: _copies(weight) for weight in view.weights}
    unrolled = {name: nodes for name, nodes in copies.items() if len(nodes) >= _COPIES}
    if unrolled:
        name, nodes = next(iter(unrolled.items()))
        more = f", and of {len(unrolled) - 1} more weights too" if len(unrolled) > 1 else ""
        yield GraphHit(f"weight '{name}'", f"the same {nodes[0].op_type} is written out {len(nodes)} times{more}")


def _copies(weight: ir.Value) -> list[ir.Node]:
    """The products with a weight; what a product adds is no product of its own."""
    return [usage.node for usage in weight.uses() if usage.node.op_type in _PRODUCTS and usage.idx < _BIAS]


RULE = GraphRule("H603", "unrolled-loop", "Write the layer once over the whole sequence; leave unroll out.", check)
