"""Means of bytes enter; the same rounded as LiteRT does leave.

TFLite's average of bytes is that of the whole numbers themselves, halves away from zero. What tf2onnx writes takes the
zero point off first, and QuantizeLinear rounds halves to even: of windows of four one result in eight is a step off.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

__all__ = ["round_means"]

# Little enough not to reach the next half of any mean of up to 4,000 bytes, and more than float32 loses.
_AWAY = np.float32(1) / np.float32(1 + 2.0**-20)


def round_means(model: ir.Model) -> int:
    """Has every mean between two roundings of one scale work on the bytes themselves; returns how many there were."""
    found = 0
    for node in list(ir.traversal.RecursiveGraphIterator(model.graph)):
        before, after = _roundings(node)
        if before is None or after is None:
            continue
        zero = before.inputs[2]
        assert zero is not None and zero.const_value is not None
        none = ir.tensor(np.zeros_like(zero.const_value.numpy()))
        tape = ir.tape.Tape()
        one, less, nothing = (
            tape.op("Constant", [], {"value": value}) for value in (ir.tensor(np.float32(1)), ir.tensor(_AWAY), none)
        )
        bytes_ = tape.op("DequantizeLinear", [before.inputs[0], one, nothing])
        mean = tape.op(node.op_type, [bytes_], dict(node.attributes))
        mean.shape = node.outputs[0].shape
        rounded = tape.op("QuantizeLinear", [mean, less, nothing])
        rounded.type, rounded.shape = after.outputs[0].type, after.outputs[0].shape
        owner = node.graph
        assert owner is not None
        ir.convenience.replace_nodes_and_values(owner, after, [after, node], list(tape.nodes), after.outputs, [rounded])
        found += 1
    return found


def _roundings(node: ir.Node) -> tuple[ir.Node | None, ir.Node | None]:
    """What makes floats of the bytes before a mean, and bytes of the floats behind it, where both have one scale."""
    if node.op_type != "AveragePool" or node.inputs[0] is None:
        return None, None
    before, users = node.inputs[0].producer(), list(node.outputs[0].uses())
    after = users[0].node if len(users) == 1 else None
    if before is None or before.op_type != "DequantizeLinear" or after is None or after.op_type != "QuantizeLinear":
        return None, None
    return (before, after) if _scales(before) == _scales(after) is not None else (None, None)


def _scales(node: ir.Node) -> tuple[float, int] | None:
    """A rounding's one scale and zero point, where they are constants."""
    values = [v.const_value.numpy() for v in node.inputs[1:] if v is not None and v.const_value is not None]
    return (float(values[0]), int(values[1])) if [v.size for v in values] == [1, 1] else None
