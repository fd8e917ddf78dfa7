"""Computes now what does not depend on the inputs: weights that are cast or transposed, and arithmetic on shapes.

Everything foldable is run at once as one graph by the reference, so that the folded numbers are the very ones the graph
would have computed. Weights that would grow (Expand, Tile, Range of large size) and the dequantisation that quantised
kernels look for stay as they are.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from hasten.errors import SourceError
from hasten.graph import reference
from hasten.graph.walk import all_nodes
from hasten.passes import Pass
from hasten.passes.extract import extract
from hasten.passes.shape_arithmetic import is_known, known_elements
from hasten.passes.surgery import Editor, attribute, constant, dims, input_of, is_op, static_dims
from hasten.types import Array

__all__ = ["fold_constants"]

_FREE_GROWTH_BYTES = 16_384

_RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}
_KEPT = _RANDOM | {"If", "Loop", "Scan", "SequenceEmpty", "Optional", "Dropout"}
_VIEWS = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten")


def _apply(model: ir.Model) -> int:
    editor = Editor(model)
    _fold_shapes(editor)
    _fold_values(editor)
    for node in list(all_nodes(model.graph)):
        if is_op(node, "Reshape"):
            _settle_reshape(editor, node)
        elif is_op(node, "Expand"):
            _settle_expand(editor, node)
    return editor.finish()


def _fold_shapes(editor: Editor) -> None:
    """Arithmetic on shapes whose result is known although some dimensions are free."""
    for value, elements in known_elements(editor.model).items():
        if is_known(elements) and (value.uses() or value.is_graph_output()) and value.dtype is not None:
            editor.swap(value, editor.weight(elements.astype(value.dtype.numpy()), "shape"))


def _fold_values(editor: Editor) -> None:
    known: dict[ir.Value, None] = {}
    folded: list[ir.Node] = []
    for node in all_nodes(editor.model.graph):
        if _foldable(node, known):
            folded.append(node)
            known.update(dict.fromkeys(node.outputs))
    inside = set(folded)
    wanted = [
        value
        for node in folded
        for value in node.outputs
        if value.is_graph_output() or any(user not in inside for user, _ in value.uses())
    ]
    wanted = [value for value in wanted if not (is_op(value.producer(), "Identity") and value.is_graph_output())]
    for value, array in zip(wanted, _evaluate(editor.model, wanted), strict=True):
        if isinstance(array, np.ndarray):
            editor.swap(value, editor.weight(array, f"{value.name}_folded"))


def _foldable(node: ir.Node, known: dict[ir.Value, None]) -> bool:
    if node.domain not in ("", "ai.onnx") or node.op_type in _KEPT or not node.outputs:
        return False
    if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()):
        return False
    read = [value for value in node.inputs if value is not None]
    if not all(value in known or constant(value) is not None for value in read):
        return False
    if node.op_type == "DequantizeLinear" and _feeds_quantised_kernel(node.outputs[0]):
        return False
    sizes = [_nbytes(value) for value in node.outputs if value.uses() or value.is_graph_output()]
    growth = (4 if node.op_type == "DequantizeLinear" else 2) * sum(
        _nbytes(value) or 0 for value in read
    ) + _FREE_GROWTH_BYTES
    return all(size is not None and size <= growth for size in sizes)


def _feeds_quantised_kernel(value: ir.Value) -> bool:
    """True where a reader also takes dequantised activations: engines fuse the whole group into an integer kernel."""
    for node, _ in value.uses():
        if is_op(node, *_VIEWS):
            if _feeds_quantised_kernel(node.outputs[0]):
                return True
        elif any(_is_dequantised_activation(other) for other in node.inputs if other is not None):
            return True
    return False


def _is_dequantised_activation(value: ir.Value) -> bool:
    """Also the product of one, to which a dequantised bias is added."""
    node = value.producer()
    while is_op(node, *_VIEWS, "MatMul", "Gemm", "Conv"):
        assert node is not None
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    return node is not None and is_op(node, "DequantizeLinear") and constant(node.inputs[0]) is None


def _nbytes(value: ir.Value) -> int | None:
    shape = static_dims(value)
    if shape is None or value.dtype is None or value.dtype == ir.DataType.STRING:
        return None
    return int(np.prod(shape, dtype=np.int64)) * max(1, int(value.dtype.itemsize))


def _evaluate(model: ir.Model, wanted: list[ir.Value]) -> list[Array | None]:
    """What ``wanted`` hold; None for those that the reference cannot compute."""
    if not wanted:
        return []
    part = extract(model, wanted)
    try:
        return [None] * len(wanted) if part is None else list(reference.run(part, ()))
    except SourceError:
        if len(wanted) == 1:
            return [None]
        half = len(wanted) // 2
        return [*_evaluate(model, wanted[:half]), *_evaluate(model, wanted[half:])]


def _settle_reshape(editor: Editor, node: ir.Node) -> None:
    """A target with numbers wherever the result's shape is known, -1 for the one free dimension."""
    shape, given = dims(node.outputs[0]), dims(node.inputs[0])
    if shape is None or attribute(node, "allowzero", 0):
        return
    free = [axis for axis, d in enumerate(shape) if not isinstance(d, int)]
    if len(free) > 1 or 0 in shape:
        return
    target = [d if isinstance(d, int) else -1 for d in shape]
    current = constant(input_of(node, 1))
    if current is not None and (list(current) == target or (free and given is not None and current[free[0]] == 0)):
        return
    node.replace_input_with(1, editor.ints(target, "target"))
    editor.changes += 1


def _settle_expand(editor: Editor, node: ir.Node) -> None:
    shape = static_dims(node.outputs[0])
    if shape is not None and constant(node.inputs[1]) is None:
        node.replace_input_with(1, editor.ints(shape, "target"))
        editor.changes += 1


fold_constants = Pass(
    "fold constants",
    _apply,
    ensures="nothing is computed per call that does not depend on the inputs, but for growing weights",
)
