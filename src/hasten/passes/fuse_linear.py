"""Brings a matrix product and its bias together, and a Pad into the convolution or pooling that reads it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from hasten.graph.walk import all_nodes
from hasten.passes import Pass
from hasten.passes.surgery import (
    Dim,
    Editor,
    attribute,
    constant,
    dims,
    input_of,
    ints,
    is_op,
    rank,
    scalar,
    sole_consumer,
)

__all__ = ["fuse_bias", "fuse_padding"]

_NEVER_NEGATIVE = ("Relu", "Sigmoid", "Softmax", "Exp", "Abs", "Sqrt", "HardSigmoid", "Softplus")


def _bias(model: ir.Model) -> int:
    editor = Editor(model)
    for node in list(all_nodes(model.graph)):
        if is_op(node, "Add"):
            _fuse_bias(editor, node)
    return editor.finish()


def _fuse_bias(editor: Editor, add: ir.Node) -> None:
    """``MatMul + b`` on matrices is one Gemm."""
    for product, bias in (add.inputs, reversed(add.inputs)):
        matmul = None if product is None else product.producer()
        if matmul is None or product is None or not is_op(matmul, "MatMul") or sole_consumer(product) is not add:
            continue
        left, right = matmul.inputs
        row = _row(editor, bias, dims(right)) if rank(left) == 2 and rank(right) == 2 else None
        if row is None:
            continue
        editor.swap(add.outputs[0], editor.value(add, "Gemm", [left, right, row], shape=dims(add.outputs[0])))
        return


def _row(editor: Editor, bias: ir.Value | None, weights: tuple[Dim, ...] | None) -> ir.Value | None:
    """The bias as a row as wide as the product; a dequantised one as it is."""
    width = None if weights is None else weights[1]
    if bias is None or not isinstance(width, int):
        return None
    producer = bias.producer()
    if is_op(producer, "DequantizeLinear"):
        assert producer is not None
        return bias if constant(producer.inputs[0]) is not None and dims(bias) == (width,) else None
    numbers = constant(bias)
    if numbers is None or numbers.dtype.kind != "f" or numbers.size not in (1, width) or numbers.ndim > 2:
        return None
    if numbers.ndim == 2 and numbers.shape[0] != 1:
        return None
    return editor.weight(np.broadcast_to(numbers.reshape(-1), (width,)), f"{bias.name}_row")


def _padding(model: ir.Model) -> int:
    editor = Editor(model)
    for node in list(all_nodes(model.graph)):
        if is_op(node, "Conv", "MaxPool", "AveragePool"):
            _fuse_padding(editor, node)
    return editor.finish()


def _fuse_padding(editor: Editor, node: ir.Node) -> None:
    pad = node.inputs[0].producer() if node.inputs[0] is not None else None
    count = rank(node.inputs[0])
    if pad is None or count is None or not is_op(pad, "Pad") or sole_consumer(pad.outputs[0]) is not node:
        return
    extra = _spatial_pads(pad, count)
    given = tuple(attribute(node, "pads", (0,) * (2 * (count - 2))))
    if extra is None or attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID") or len(node.outputs) > 1:
        return
    if not _same_filling(pad, node, given, extra):
        return
    changed = {name: a for name, a in node.attributes.items() if name != "auto_pad"}
    pads = [a + b for a, b in zip(given, extra, strict=True)]
    if node.op_type == "AveragePool":
        changed["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
    made = editor.value(
        node, node.op_type, [pad.inputs[0], *node.inputs[1:]], {**changed, "pads": pads}, shape=dims(node.outputs[0])
    )
    editor.swap(node.outputs[0], made)


def _spatial_pads(pad: ir.Node, count: int) -> tuple[int, ...] | None:
    """Begins and ends of the spatial axes, where only those are padded, with a constant, and none is cut."""
    pads = ints(input_of(pad, 1))
    if pads is None or attribute(pad, "mode", "constant") != "constant" or any(size < 0 for size in pads):
        return None
    full = [0] * (2 * count)
    axes = input_of(pad, 3)
    listed = range(count) if axes is None else ints(axes)
    if listed is None:
        return None
    for place, axis in enumerate(listed):
        full[axis % count] = pads[place]
        full[axis % count + count] = pads[place + len(pads) // 2]
    if any(full[:2]) or any(full[count : count + 2]):
        return None
    return (*full[2:count], *full[count + 2 :])


def _same_filling(pad: ir.Node, node: ir.Node, given: tuple[int, ...], extra: tuple[int, ...]) -> bool:
    """True where the layer's own padding means the same as what Pad fills in."""
    filling = input_of(pad, 2)
    number = 0.0 if filling is None else scalar(filling)
    if node.op_type == "Conv":
        return number == 0
    if attribute(node, "ceil_mode", 0):
        return False
    if node.op_type == "AveragePool":
        return number == 0 and (not any(given) or bool(attribute(node, "count_include_pad", 0)))
    producer = pad.inputs[0].producer() if pad.inputs[0] is not None else None
    # Every window of a MaxPool must see something real, or zeros would not equal its own minus infinity.
    kernel = attribute(node, "kernel_shape")
    sees_real = all(a + b < size for a, b, size in zip(given, extra, [*kernel, *kernel], strict=True)) and set(
        attribute(node, "dilations", (1,))
    ) == {1}
    return number == -np.inf or (number == 0 and sees_real and is_op(producer, *_NEVER_NEGATIVE))


fuse_bias = Pass("fuse bias into the matrix product", _bias, ensures="no Add of a constant row follows a plain MatMul")
fuse_padding = Pass(
    "fuse padding into convolution and pooling", _padding, ensures="no Pad that a layer could do itself"
)
