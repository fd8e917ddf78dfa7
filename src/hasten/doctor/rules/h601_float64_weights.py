"""Weights stored as float64.

## What it does
Finds float64 weights in a graph, and Keras layers whose policy is float64.

## Why is this bad
Twice the memory traffic, half the vector width, and most engines have no float64 kernels at all: they convert at each
run, or refuse.

## Cost
Two times and more; twice the file.

## Example
A model trained under `keras.backend.set_floatx("float64")`, or built from numpy arrays without a dtype.

## Use instead
Float32 weights: `keras.backend.set_floatx("float32")` before building, `model.float()` in torch.

## Fix safety
No fix: the last digits of the answers change.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from hasten.doctor.graphs import GraphHit, GraphRule, ModelView

_SMALL = 8  # scalars and shape arithmetic cost nothing


def check(view: ModelView) -> Iterator[GraphHit]:
    """Float64 initializers, and layers with that policy."""
    wide = [w for w in view.weights if w.dtype == ir.DataType.DOUBLE and w.const_value is not None]
    heavy = [w for w in wide if w.const_value is not None and w.const_value.size >= _SMALL]
    if heavy:
        total = sum(w.const_value.nbytes for w in heavy if w.const_value is not None)
        yield GraphHit(f"weight '{heavy[0].name}'", f"weights in float64: {len(heavy)} ({total / 1024:.0f} KiB)")
        return
    policies = [layer for layer in view.layers if _policy(layer.config.get("dtype")) == "float64"]
    if policies:
        yield GraphHit(f"layer '{policies[0].name}'", f"layers that compute in float64: {len(policies)}")


def _policy(dtype: object) -> str:
    if isinstance(dtype, dict):
        config = dtype.get("config", {})
        return str(config.get("name", "")) if isinstance(config, dict) else ""
    return str(dtype)


RULE = GraphRule("H601", "float64-weights", "Convert the model to float32.", check)
