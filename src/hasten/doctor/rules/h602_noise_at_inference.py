"""Dropout or noise active at inference.

## What it does
Finds dropout in training mode, batch norm in training mode, and random nodes in a graph; Keras layers of noise, layers
that drop and batch norms that are called with `training=True`, by themselves or with the model that they are in. A
model without a graph is asked twice.

## Why is this bad
Answers differ from call to call, random numbers cost more than the layer around them, and no engine's answers can be
checked against another's.

## Cost
A random number for each activation; answers that cannot be reproduced.

## Example
`x = Dropout(0.5)(x, training=True)`, or an export made while the model was in training mode.

## Use instead
Leave `training` out; in torch call `model.eval()` before exporting.

## Fix safety
No fix: the answers change. (Monte Carlo dropout is meant: ignore the rule there.)
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from hasten.doctor.graphs import GraphHit, GraphRule, ModelView
from hasten.doctor.layers import Layer
from hasten.doctor.words import words

_NOISY = words("Dropout GaussianNoise GaussianDropout AlphaDropout SpatialDropout1D SpatialDropout2D SpatialDropout3D")
_AUGMENTS = "Random"  # how the names of the layers begin that turn, cut and colour pictures at random


def check(view: ModelView) -> Iterator[GraphHit]:
    """Random nodes, and layers that are told to train."""
    for node in view.nodes:
        if node.op_type == "Dropout":
            if _trains(node, view):
                yield GraphHit(f"node '{node.name}'", "dropout is in training mode: it drops activations at random")
        elif node.op_type == "BatchNormalization" and _number(node, "training_mode"):
            yield GraphHit(f"node '{node.name}'", "batch norm is in training mode: statistics of the batch")
        elif view.is_random(node):
            yield GraphHit(f"node '{node.name}'", f"{node.op_type} draws random numbers at each run")
    for layer in view.layers:
        if any(call.get("training") is True for call in layer.calls) and (effect := _in_training(layer)):
            yield GraphHit(f"layer '{layer.name}'", f"{layer.kind} is called with training=True: {effect}")


def _in_training(layer: Layer) -> str:
    """What a layer does otherwise while it trains; '' for one that is the same."""
    if layer.kind == "BatchNormalization":
        return "statistics of the batch" if layer.config.get("trainable", True) else ""
    drops = layer.config.get("dropout") or layer.config.get("recurrent_dropout")
    return "noise in each answer" if layer.kind in _NOISY or layer.kind.startswith(_AUGMENTS) or drops else ""


def _trains(node: ir.Node, view: ModelView) -> bool:
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return False
    mode = view.constant(node.inputs[2])
    return mode is not None and bool(mode.any())


def _number(node: ir.Node, name: str) -> int:
    return node.attributes[name].as_int() if name in node.attributes else 0


RULE = GraphRule(
    "H602", "noise-at-inference", "Export the model in inference mode (training=False, model.eval()).", check
)
