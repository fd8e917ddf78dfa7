"""A recurrent layer that can't be fused, and the argument that forbids it.

## What it does
Finds LSTM, GRU and RNN layers whose arguments rule out the fused kernels of Keras, ONNX Runtime and hasten: other
activations, recurrent dropout, `use_bias=False`, `reset_after=False`, peepholes, clipping, cells wrapped in a generic
`RNN`. So does `unroll=True`, of which H603 tells.

## Why is this bad
Without the fused kernel each step of each sample runs a dozen small operations from a loop.

## Cost
On a CPU little where the engine has a kernel for the variant, as measured below, and all of H607's cost where it has
none. On a GPU several times: cuDNN runs the default arguments alone (not measured here).

## Example
`LSTM(64, activation="relu")`, `GRU(64, reset_after=False)`, `LSTM(64, recurrent_dropout=0.2)`.

## Use instead
The defaults: tanh, sigmoid, a bias, no recurrent dropout; `LSTM(64)` for `RNN(LSTMCell(64))`.

## Fix safety
No fix: the model must be trained so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import onnx_ir as ir

from hasten.doctor.graphs import GraphHit, GraphRule, ModelView
from hasten.doctor.layers import Layer

_DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"]}


def check(view: ModelView) -> Iterator[GraphHit]:
    """Recurrent layers and nodes off the fused path; a node that a layer told of became is told of once."""
    told = set()
    for layer in view.layers:
        reason = _layer_reason(layer)
        if reason:
            told.add(layer.name)
            yield GraphHit(f"layer '{layer.name}'", f"{layer.kind} can't be fused: {reason}")
    for node in view.nodes:
        reason = _node_reason(node)
        if reason and told.isdisjoint((node.name or "").split("/")):
            yield GraphHit(f"node '{node.name}'", f"{node.op_type} can't be fused: {reason}")


def _layer_reason(layer: Layer) -> str:
    config = layer.config
    if layer.kind == "RNN":
        cell = config.get("cell", {})
        kind = cell.get("class_name", "") if isinstance(cell, Mapping) else ""
        return f"a generic RNN around {kind}" if kind in ("LSTMCell", "GRUCell", "StackedRNNCells") else ""
    if layer.kind not in ("LSTM", "GRU"):
        return ""
    return ", ".join(_forbidden(layer.kind, config))


def _forbidden(kind: str, config: Mapping[str, Any]) -> Iterator[str]:
    """Every argument that must change: to mend one of two gains nothing."""
    for name, usual in (("activation", "tanh"), ("recurrent_activation", "sigmoid")):
        given = _activation(config.get(name, usual))
        if given != usual:
            yield f"{name}={given!r}"
    if config.get("recurrent_dropout"):
        yield f"recurrent_dropout={config['recurrent_dropout']}"
    if config.get("use_bias") is False:
        yield "use_bias=False"
    if kind == "GRU" and config.get("reset_after") is False:
        yield "reset_after=False"


def _activation(value: Any) -> str:
    if isinstance(value, Mapping):
        value = value.get("config", value.get("class_name", ""))
    return str(value)


def _node_reason(node: ir.Node) -> str:
    if node.op_type not in _DEFAULTS or node.domain not in ("", "ai.onnx"):
        return ""
    attributes = node.attributes
    if "activations" in attributes:
        usual = _DEFAULTS[node.op_type]
        given = list(attributes["activations"].as_strings())
        if given != usual * (len(given) // len(usual)):
            return f"activations={given}"
    if "clip" in attributes:
        return f"clip={attributes['clip'].as_float():g}"
    if "input_forget" in attributes and attributes["input_forget"].as_int():
        return "input_forget=1"
    if node.op_type == "LSTM" and len(node.inputs) > 7 and node.inputs[7] is not None:
        return "peephole weights"
    if node.op_type == "GRU" and not (
        "linear_before_reset" in attributes and attributes["linear_before_reset"].as_int()
    ):
        return "linear_before_reset=0"
    return ""


RULE = GraphRule("H610", "unfused-recurrence", "Use the layer's default arguments.", check)
