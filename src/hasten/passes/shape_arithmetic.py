"""What is known of small integer tensors element by element, where some elements are free dimensions.

``Shape`` of a tensor with a free batch is no constant, but all its other elements are; exporters pick those out, add
and divide them, and slice by the result. Elements here are numbers, the names of free dimensions, or None.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from hasten.graph.walk import all_nodes
from hasten.passes.surgery import attribute, constant, dims, input_of, is_op

__all__ = ["Elements", "is_known", "known_elements"]

Elements = NDArray[np.object_]
_Rule = Callable[[ir.Node, "dict[ir.Value, Elements]"], "Elements | None"]

_LARGEST = 64
_INTEGERS = (ir.DataType.INT64, ir.DataType.INT32)


def known_elements(model: ir.Model) -> dict[ir.Value, Elements]:
    """Elements of every small integer value that follows from shapes; constants are left out."""
    known: dict[ir.Value, Elements] = {}
    for node in all_nodes(model.graph):
        rule = _RULES.get(node.op_type)
        if rule is None or not is_op(node, node.op_type) or len(node.outputs) != 1:
            continue
        found = rule(node, known)
        if found is not None and found.size <= _LARGEST:
            known[node.outputs[0]] = found
    return known


def _elements(value: ir.Value | None, known: dict[ir.Value, Elements]) -> Elements | None:
    if value is None:
        return None
    if value in known:
        return known[value]
    if value.dtype not in _INTEGERS or value.const_value is None or value.const_value.size > _LARGEST:
        return None
    contents = constant(value)
    return None if contents is None else np.array(contents.tolist(), dtype=object)


def _numbers(value: ir.Value | None, known: dict[ir.Value, Elements]) -> NDArray[np.int64] | None:
    found = _elements(value, known)
    return None if found is None or not is_known(found) else found.astype(np.int64)


def is_known(elements: Elements) -> bool:
    """True when every element is a number."""
    return all(isinstance(element, int) for element in elements.reshape(-1))


def _shape(node: ir.Node, known: dict[ir.Value, Elements]) -> Elements | None:
    shape = dims(node.inputs[0])
    if shape is None:
        return None
    return np.array(shape[attribute(node, "start", 0) : attribute(node, "end", len(shape))], dtype=object)


def _size(node: ir.Node, known: dict[ir.Value, Elements]) -> Elements | None:
    shape = dims(node.inputs[0])
    if shape is None or not all(isinstance(d, int) for d in shape):
        return None
    return np.array(int(np.prod([int(d or 0) for d in shape], dtype=np.int64)), dtype=object)


def _cast(node: ir.Node, known: dict[ir.Value, Elements]) -> Elements | None:
    return known.get(node.inputs[0]) if node.outputs[0].dtype in _INTEGERS and node.inputs[0] is not None else None


def _gather(node: ir.Node, known: dict[ir.Value, Elements]) -> Elements | None:
    source, index = _elements(node.inputs[0], known), _numbers(node.inputs[1], known)
    if source is None or index is None or source.ndim != 1 or np.any(np.abs(index) > len(source)):
        return None
    return np.asarray(source[index], dtype=object) if index.ndim else np.array(source[int(index)], dtype=object)


def _slice(node: ir.Node, known: dict[ir.Value, Elements]) -> Elements | None:
    source, start, end = (_elements(input_of(node, 0), known), *(_numbers(input_of(node, i), known) for i in (1, 2)))
    step = _numbers(input_of(node, 4), known) if input_of(node, 4) is not None else np.array([1])
    if source is None or source.ndim != 1 or start is None or end is None or step is None or step.reshape(-1)[0] < 1:
        return None
    return source[int(start.reshape(-1)[0]) : int(end.reshape(-1)[0]) : int(step.reshape(-1)[0])]


def _concat(node: ir.Node, known: dict[ir.Value, Elements]) -> Elements | None:
    parts = [_elements(value, known) for value in node.inputs]
    if any(part is None or part.ndim != 1 for part in parts):
        return None
    return np.concatenate([part for part in parts if part is not None])


def _view(node: ir.Node, known: dict[ir.Value, Elements]) -> Elements | None:
    source, shape = _elements(node.inputs[0], known), dims(node.outputs[0])
    if source is None or shape is None or not all(isinstance(d, int) for d in shape):
        return None
    return source.reshape([int(d or 0) for d in shape])


def _binary(compute: Callable[[int, int], int | None]) -> _Rule:
    """Two operands, or as many as Max and Min are given."""

    def rule(node: ir.Node, known: dict[ir.Value, Elements]) -> Elements | None:
        parts = [_elements(value, known) for value in node.inputs]
        if any(part is None for part in parts):
            return None
        whole = [part for part in parts if part is not None]
        return functools.reduce(lambda one, other: _pairwise(compute, one, other), whole)

    return rule


def _pairwise(compute: Callable[[int, int], int | None], one: Elements, other: Elements) -> Elements:
    found = np.empty(np.broadcast_shapes(one.shape, other.shape), dtype=object)
    spread: list[list[Any]] = [np.broadcast_to(part, found.shape).reshape(-1).tolist() for part in (one, other)]
    for place, (a, b) in enumerate(zip(*spread, strict=True)):
        found.flat[place] = compute(a, b) if isinstance(a, int) and isinstance(b, int) else None
    return found


def _divide(a: int, b: int) -> int | None:
    return None if b == 0 else int(a / b) if abs(a) < 2**52 else None  # ONNX truncates towards zero


_RULES: dict[str, _Rule] = {
    "Shape": _shape,
    "Size": _size,
    "Cast": _cast,
    "Identity": _cast,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Squeeze": _view,
    "Unsqueeze": _view,
    "Reshape": _view,
    "Add": _binary(lambda a, b: a + b),
    "Sub": _binary(lambda a, b: a - b),
    "Mul": _binary(lambda a, b: a * b),
    "Div": _binary(_divide),
    "Max": _binary(max),
    "Min": _binary(min),
}
