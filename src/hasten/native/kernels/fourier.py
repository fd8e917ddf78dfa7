"""DFT along any axis and STFT with any window, as products with the transform's matrix.

What a pass made a product or a convolution of comes here no more; what is left is a window known at run time only,
an axis that is not the last, and the one-sided inverse.
Source: ONNX operators DFT-20, STFT-17.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.native.expr import call, load
from hasten.native.kernels.arithmetic import compute
from hasten.native.kernels.matmul import constant_product
from hasten.native.program import View
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.lower import Lowering

__all__ = ["LOWER"]

# Beyond, the matrix is no longer small beside a cache, and fast transforms do far less work.
_LARGEST_BYTES = 8 << 20
_AXIS_IS_AN_INPUT = 20


def _dft(low: Lowering, node: ir.Node) -> None:
    x, axis = low.view(node.inputs[0]), _axis(low, node)
    one_sided, inverse = (bool(node.attributes.get_int(name, 0)) for name in ("onesided", "inverse"))
    real = one_sided and inverse
    axis %= x.rank
    length = _whole(low, node, 1)
    if length is None:
        length = 2 * (x.shape[axis] - 1) if real else x.shape[axis]
    # Numbers and their two parts last, as the matrix takes them.
    turned = [d for d in range(x.rank - 1) if d != axis]
    moved = x.transpose([*turned, axis, x.rank - 1])
    matrix = _matrix(node, moved.shape[-2:], length, one_sided=one_sided, inverse=inverse)
    y = _product(low, node, moved, matrix, parts=1 if real else 2)
    back = [*turned, axis, x.rank - 1]
    low.set(node.outputs[0], y.transpose([back.index(d) for d in range(x.rank)]))


def _stft(low: Lowering, node: ir.Node) -> None:
    x, step, length = low.view(node.inputs[0]), _whole(low, node, 1), _whole(low, node, 3)
    window = node.inputs[2] if len(node.inputs) > 2 and low.has(node.inputs[2]) else None
    signal = x if x.rank > 2 else low.reshape(x, (*x.shape, 1))
    batch, samples, parts = signal.shape
    if length is None:
        length = samples if window is None else low.view(window).size
    if step is None or step < 1 or not 0 < length <= samples:
        raise UnsupportedOpError(f"op STFT (node '{node.name}') of {length} in {samples} has no native kernel")
    along = signal.strides[1]
    frames = View(
        signal.tensor,
        (batch, 1 + (samples - length) // step, length, parts),
        (signal.strides[0], step * along, along, signal.strides[2]),
        signal.offset,
    )
    one_sided = bool(node.attributes.get_int("onesided", 1))
    matrix = _matrix(node, (length, parts), length, one_sided=one_sided, inverse=False)
    known = None if window is None else low.constant(window)
    if known is not None:
        matrix = matrix * np.repeat(known.reshape(-1), parts)[:, None]
    elif window is not None:
        factor = low.reshape(low.view(window), (length, 1)).broadcast(frames.shape)
        frames = compute(low, call("mul", load(frames), load(factor), dtype=x.dtype), frames.shape)
    low.set(node.outputs[0], _product(low, node, frames, matrix, parts=2))


def _axis(low: Lowering, node: ir.Node) -> int:
    given = _whole(low, node, 2)
    if given is not None:
        return given
    version = 0 if node.graph is None else node.graph.opset_imports.get("", _AXIS_IS_AN_INPUT)
    return -2 if version >= _AXIS_IS_AN_INPUT else node.attributes.get_int("axis", 1)


def _whole(low: Lowering, node: ir.Node, index: int) -> int | None:
    """A number that must be known now; None where the input is left out."""
    if index >= len(node.inputs) or not low.has(node.inputs[index]):
        return None
    found = low.constant(node.inputs[index])
    if found is None:
        raise UnsupportedOpError(f"op {node.op_type} (node '{node.name}') with input {index} computed at run time")
    return int(found.reshape(-1)[0])


def _matrix(node: ir.Node, shape: tuple[int, ...], length: int, *, one_sided: bool, inverse: bool) -> Array:
    """The transform of every unit vector. Shapes: shape (given, parts) · returns (given·parts, kept·parts) float64"""
    given, parts = shape
    kept = length // 2 + 1 if one_sided and not inverse else length
    if parts not in (1, 2) or length < 1 or 16 * given * parts * kept > _LARGEST_BYTES:
        raise UnsupportedOpError(f"op {node.op_type} (node '{node.name}') of {given} numbers has no native kernel")
    ones = np.eye(given)
    units = np.stack([ones, 1j * ones][:parts], axis=1).reshape(given * parts, given)
    if one_sided and inverse:
        return np.asarray(np.fft.irfft(units, length))
    turned = (np.fft.ifft if inverse else np.fft.fft)(units, length)[:, :kept]
    return np.stack([turned.real, turned.imag], axis=-1).reshape(given * parts, -1)


def _product(low: Lowering, node: ir.Node, x: View, matrix: Array, *, parts: int) -> View:
    """Shapes: x (…, given, its parts) · returns (…, kept, parts)"""
    if x.dtype not in ("float32", "float64"):
        raise UnsupportedOpError(f"op {node.op_type} (node '{node.name}') on {x.dtype} has no native kernel")
    flat = low.reshape(x, (*x.shape[:-2], x.shape[-2] * x.shape[-1]))
    y = constant_product(low, flat, matrix.astype(x.dtype))
    return low.reshape(y, (*x.shape[:-2], matrix.shape[1] // parts, parts))


LOWER: Mapping[str, Any] = {"DFT": _dft, "STFT": _stft}
