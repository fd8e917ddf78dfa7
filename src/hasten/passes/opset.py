"""Raises the operator set, so that every later rewrite knows one form of each operator; or lowers it, for engines."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx import version_converter

from hasten.graph.walk import all_nodes
from hasten.passes import Pass
from hasten.passes.surgery import opset

__all__ = ["lower_to", "raise_opset", "raise_to", "redefined"]

# 17 brings LayerNormalization; 18 takes the axes of every reduction, and Split's count, in their final form.
_TIDY_OPSET = 18


def raise_to(model: ir.Model, version: int) -> bool:
    """The model at operator set ``version`` at least; False where it already was.

    Raises:  whatever ONNX's converter raises for an operator that it has no adapter for
    """
    if opset(model) >= version:
        return False
    if not redefined(model, version):
        _number(model, version)
        imports = [onnx.helper.make_opsetid("", version)]
        oldest = onnx.helper.find_min_ir_version_for(imports, ignore_unknown=True)
        model.ir_version = max(model.ir_version or 0, oldest)
        return True
    _convert(model, version)
    return True


def lower_to(model: ir.Model, version: int) -> None:
    """The model at operator set ``version`` at most, where that means the same.

    Raises:  whatever ONNX's converter raises for an operator that the older set cannot express
    """
    if opset(model) > version:
        if redefined(model, version):
            _convert(model, version)
        _number(model, version)


def redefined(model: ir.Model, version: int) -> set[str]:
    """ONNX's own operators in the graph that are defined otherwise, or not at all, in operator set ``version``."""
    used = {node.op_type for node in all_nodes(model.graph) if node.domain in ("", "ai.onnx")}
    return {op for op in used if _defined(op, opset(model)) != _defined(op, version)}


def _number(model: ir.Model, version: int) -> None:
    model.graph.opset_imports.pop("ai.onnx", None)
    model.graph.opset_imports[""] = version


def _convert(model: ir.Model, version: int) -> None:
    weights = {name: value.const_value for name, value in model.graph.initializers.items()}
    converted = ir.from_proto(version_converter.convert_version(ir.to_proto(model), version))
    for name, value in converted.graph.initializers.items():
        original = weights.get(name)
        if original is not None and value.const_value is not None and original.dtype == value.const_value.dtype:
            value.const_value = original  # shared with the original again, not the copy that serialising made
    model.graph, model.ir_version = converted.graph, max(model.ir_version or 0, converted.ir_version or 0)


def _defined(op: str, version: int) -> int:
    """The operator set that defines ``op`` for ``version``; unknown ones are left to the converter to refuse."""
    try:
        return int(onnx.defs.get_schema(op, version, "").since_version)
    except onnx.defs.SchemaError:
        return -version


raise_opset = Pass(
    "raise operator set",
    lambda model: int(raise_to(model, _TIDY_OPSET)),
    requires="no functions",
    ensures=f"operator set {_TIDY_OPSET} or newer",
)
