"""Fourier transforms of a fixed length become products with their matrix, which every engine runs fast.

DFT is one MatMul; STFT is one strided Conv whose filters are the window times the matrix.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from hasten.graph.walk import all_nodes
from hasten.passes import Pass
from hasten.passes.surgery import Editor, attribute, constant, dims, input_of, is_op, opset, scalar
from hasten.types import Array

__all__ = ["fourier_as_product", "transform_matrix"]

# Beyond, the matrix is no longer small beside a cache, and fast transforms do far less work.
_LARGEST_BYTES = 8 << 20
_AXIS_IS_AN_INPUT = 20


def _apply(model: ir.Model) -> int:
    editor = Editor(model)
    for node in list(all_nodes(model.graph)):
        if is_op(node, "DFT"):
            _dft(editor, node)
        elif is_op(node, "STFT"):
            _stft(editor, node)
    return editor.finish()


def transform_matrix(length: int, given: int, kept: int, *, inverse: bool = False) -> Array:
    """From ``given`` complex numbers, as far as ``length`` reaches, to ``kept`` of their transform.

    Shapes:  (2·given, 2·kept) float64, real and imaginary parts side by side
    """
    turns = np.outer(np.arange(given), np.arange(kept)) % length * (2 * np.pi / length)
    inside = (np.arange(given) < length)[:, None] / (length if inverse else 1)
    cosine, sine = np.cos(turns) * inside, np.sin(turns) * inside * (-1 if inverse else 1)
    # (a + ib)·(cos - i·sin)
    return np.stack([np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)], 1).reshape(2 * given, 2 * kept)


def _dft(editor: Editor, node: ir.Node) -> None:
    x, shape = node.inputs[0], dims(node.inputs[0])
    if x is None or shape is None or sum(not isinstance(d, int) for d in shape) > 1 or x.dtype != ir.DataType.FLOAT:
        return
    by_input = opset(editor.model) >= _AXIS_IS_AN_INPUT
    axis = scalar(input_of(node, 2)) if by_input and input_of(node, 2) is not None else attribute(node, "axis", 1)
    if by_input and input_of(node, 2) is None:
        axis = -2
    given = None if axis is None else shape[int(axis) % len(shape)]
    length = scalar(input_of(node, 1)) if input_of(node, 1) is not None else given
    parts = shape[-1]
    # The transform of another axis than the last would move the tensor; nobody writes that for a signal.
    if axis is None or int(axis) % len(shape) != len(shape) - 2 or parts not in (1, 2):
        return
    if not isinstance(given, int) or length is None:
        return
    kept = int(length) // 2 + 1 if attribute(node, "onesided", 0) else int(length)
    if 8 * given * kept * int(parts) > _LARGEST_BYTES:
        return
    matrix = transform_matrix(int(length), given, kept, inverse=bool(attribute(node, "inverse", 0)))
    rows = matrix[::2] if parts == 1 else matrix
    flat = editor.reshaped(node, x, [*shape[:-2], len(rows)])
    weights = editor.weight(rows.astype(np.float32), "fourier")
    made = editor.value(node, "MatMul", [flat, weights], shape=[*shape[:-2], 2 * kept])
    editor.swap(node.outputs[0], editor.reshaped(node, made, [*shape[:-2], kept, 2]))


def _stft(editor: Editor, node: ir.Node) -> None:
    signal, shape = node.inputs[0], dims(node.inputs[0])
    step, window = scalar(node.inputs[1]), constant(input_of(node, 2))
    length = scalar(input_of(node, 3)) if input_of(node, 3) is not None else None if window is None else window.size
    if signal is None or shape is None or step is None or length is None or signal.dtype != ir.DataType.FLOAT:
        return
    samples, size = shape[1], int(length)
    known = input_of(node, 2) is None or (window is not None and window.size == size)
    if not known or not isinstance(samples, int) or samples < size or (len(shape) == 3 and shape[2] != 1):
        return
    kept = size // 2 + 1 if attribute(node, "onesided", 1) else size
    if 8 * size * kept > _LARGEST_BYTES:
        return
    matrix = transform_matrix(size, size, kept)[::2] * (1 if window is None else window[:, None])
    frames = 1 + (samples - size) // int(step)
    x = editor.reshaped(node, signal, [shape[0], 1, samples])
    filters = editor.weight(np.ascontiguousarray(matrix.T[:, None]).astype(np.float32), "fourier")
    made = editor.value(
        node,
        "Conv",
        [x, filters],
        {"kernel_shape": [size], "strides": [int(step)]},
        shape=[shape[0], 2 * kept, frames],
    )
    turned = editor.value(node, "Transpose", [made], {"perm": [0, 2, 1]}, shape=[shape[0], frames, 2 * kept])
    editor.swap(node.outputs[0], editor.reshaped(node, turned, [shape[0], frames, kept, 2]))


fourier_as_product = Pass(
    "Fourier transforms as products",
    _apply,
    requires="inferred shapes",
    ensures="no short DFT along the last axis and no short STFT",
)
