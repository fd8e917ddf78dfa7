"""What lowering asks of shape inference: static output shapes and constant arguments, or a clear refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.lower import Lowering

__all__ = ["known", "static"]


def static(node: ir.Node, value: ir.Value) -> tuple[int, ...]:
    """The value's static shape.

    Raises:  UnsupportedOpError: a dimension is still free
    """
    if value.shape is None or not all(isinstance(d, int) for d in value.shape):
        raise UnsupportedOpError(
            f"op {node.op_type} (node '{node.name}') has no static output shape: native needs all dimensions as numbers"
        )
    return tuple(int(d) for d in value.shape)  # type: ignore[arg-type]


def known(low: Lowering, node: ir.Node, index: int) -> Array | None:
    """Input ``index`` as a constant array, or None where the optional input is absent.

    Raises:  UnsupportedOpError: it is there but computed at run time
    """
    if index >= len(node.inputs) or not low.has(node.inputs[index]):
        return None
    data = low.constant(node.inputs[index])
    if data is None:
        raise UnsupportedOpError(f"op {node.op_type} (node '{node.name}') with input {index} computed at run time")
    return data
