"""Whether a graph is one that engines will accept. Raises, or leaves the graph with its shapes inferred anew."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from hasten.errors import PassError
from hasten.graph.shapes import infer, skeleton
from hasten.types import TensorSpec

__all__ = ["Signature", "check", "compatible", "signature"]

Signature = tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]


def check(model: ir.Model) -> None:
    """Passes when ONNX's checker and its strict shape inference find no fault; the graph's shapes are then fresh.

    Raises:  PassError: what is wrong, in one line
    """
    proto = skeleton(model)
    try:
        onnx.checker.check_model(proto)
    except Exception as error:
        raise PassError(f"graph is invalid: {' '.join(str(error).split())[:300]}") from error
    infer(model, strict=True, proto=proto)


def signature(model: ir.Model) -> Signature:
    """Inputs and outputs as the caller sees them; a rewrite may sharpen a free dimension but never change one."""
    weights = model.graph.initializers
    inputs = tuple(_spec(value) for value in model.graph.inputs if value.name not in weights)
    return inputs, tuple(_spec(value) for value in model.graph.outputs)


def compatible(before: Signature, after: Signature) -> bool:
    """True when names, types and every dimension known before are the same after."""
    return all(
        len(old) == len(new) and all(_same(a, b) for a, b in zip(old, new, strict=True))
        for old, new in zip(before, after, strict=True)
    )


def _spec(value: ir.Value) -> TensorSpec:
    dims = tuple(d if isinstance(d, int) else str(d.value) for d in value.shape or ())
    return TensorSpec(value.name or "", str(value.dtype), dims)


def _same(old: TensorSpec, new: TensorSpec) -> bool:
    if (old.name, old.dtype) != (new.name, new.dtype):
        return False
    if not old.shape:
        return True
    return len(old.shape) == len(new.shape) and all(
        a == b or isinstance(a, str) for a, b in zip(old.shape, new.shape, strict=True)
    )
