"""Operators that only move the point of view: they change a ``View`` and cost nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.native.lower_shape import known, static

if TYPE_CHECKING:
    from hasten.native.lower import Lowering

__all__ = ["LOWER"]


def _reshape(low: Lowering, node: ir.Node) -> None:
    low.set(node.outputs[0], low.reshape(low.view(node.inputs[0]), static(node, node.outputs[0])))


def _transpose(low: Lowering, node: ir.Node) -> None:
    view = low.view(node.inputs[0])
    perm = node.attributes.get_ints("perm", tuple(reversed(range(view.rank))))
    low.set(node.outputs[0], view.transpose(perm))


def _identity(low: Lowering, node: ir.Node) -> None:
    low.set(node.outputs[0], low.view(node.inputs[0]))


def _expand(low: Lowering, node: ir.Node) -> None:
    low.set(node.outputs[0], low.view(node.inputs[0]).broadcast(static(node, node.outputs[0])))


def _slice(low: Lowering, node: ir.Node) -> None:
    view = low.view(node.inputs[0])
    given = [known(low, node, i) for i in range(1, len(node.inputs))]
    starts, ends = given[0], given[1]
    axes = given[2] if len(given) > 2 and given[2] is not None else np.arange(len(starts))
    steps = given[3] if len(given) > 3 and given[3] is not None else np.ones(len(starts), np.int64)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = int(axis) % view.rank
        span = range(view.shape[axis])[
            slice(int(start), None if int(end) <= -view.shape[axis] - 1 else int(end), int(step))
        ]
        view = view.slice(axis, span.start if len(span) else 0, len(span), int(step))
    low.set(node.outputs[0], view)


def _split(low: Lowering, node: ir.Node) -> None:
    view = low.view(node.inputs[0])
    axis = node.attributes.get_int("axis", 0) % view.rank
    start = 0
    for output in node.outputs:
        count = static(node, output)[axis]
        low.set(output, view.slice(axis, start, count))
        start += count


def _gather(low: Lowering, node: ir.Node) -> None:
    view, index = low.view(node.inputs[0]), low.constant(node.inputs[1])
    axis = node.attributes.get_int("axis", 0) % max(view.rank, 1)
    if index is None or index.size != 1:
        raise UnsupportedOpError(
            f"op Gather (node '{node.name}') with more than one constant index has no native kernel"
        )
    at = int(index.reshape(-1)[0]) % view.shape[axis]
    one = view.slice(axis, at, 1)
    low.set(node.outputs[0], low.reshape(one, static(node, node.outputs[0])))


def _concat(low: Lowering, node: ir.Node) -> None:
    views = [low.view(v) for v in node.inputs]
    axis = node.attributes.get_int("axis", 0) % views[0].rank
    y = low.new(static(node, node.outputs[0]), views[0].dtype)
    start = 0
    for view in views:
        if view.size:
            low.copy(view, y.slice(axis, start, view.shape[axis]))
        start += view.shape[axis]
    low.set(node.outputs[0], y)


LOWER: Mapping[str, Any] = {
    "Reshape": _reshape, "Flatten": _reshape, "Squeeze": _reshape, "Unsqueeze": _reshape, "Identity": _identity,
    "Dropout": _identity, "Transpose": _transpose, "Expand": _expand, "Slice": _slice, "Split": _split, "Gather": _gather,
    "Concat": _concat,
}  # fmt: skip
