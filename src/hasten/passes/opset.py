"""Raises the operator set, so that every later rewrite knows one form of each operator."""

from __future__ import annotations

import onnx_ir as ir
from onnx import version_converter

from hasten.passes import Pass
from hasten.passes.surgery import opset

__all__ = ["raise_opset", "raise_to"]

# 17 brings LayerNormalization; 18 takes the axes of every reduction, and Split's count, in their final form.
_TIDY_OPSET = 18


def raise_to(model: ir.Model, version: int) -> bool:
    """The model at operator set ``version`` at least; False where it already was.

    Raises:  whatever ONNX's converter raises for an operator that it has no adapter for
    """
    if opset(model) >= version:
        return False
    weights = {name: value.const_value for name, value in model.graph.initializers.items()}
    converted = ir.from_proto(version_converter.convert_version(ir.to_proto(model), version))
    for name, value in converted.graph.initializers.items():
        original = weights.get(name)
        if original is not None and value.const_value is not None and original.dtype == value.const_value.dtype:
            value.const_value = original  # shared with the original again, not the copy that serialising made
    model.graph, model.ir_version = converted.graph, max(model.ir_version or 0, converted.ir_version or 0)
    return True


raise_opset = Pass(
    "raise operator set",
    lambda model: int(raise_to(model, _TIDY_OPSET)),
    requires="no functions",
    ensures=f"operator set {_TIDY_OPSET} or newer",
)
