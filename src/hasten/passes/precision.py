"""Turns double precision inside a graph into single. Not part of the phases: it changes answers, if only slightly.

Runs where float32 is asked for by name. Inputs and outputs keep their types; those that are double are cast once at the
border.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from hasten.graph.walk import all_nodes, subgraphs
from hasten.passes import Pass
from hasten.passes.surgery import Editor, constant, dims

__all__ = ["single_precision"]

_DOUBLE, _SINGLE = ir.DataType.DOUBLE, ir.DataType.FLOAT


def _apply(model: ir.Model) -> int:
    editor = Editor(model)
    doubles = [value for value in model.graph.outputs if value.dtype == _DOUBLE]
    for graph in (model.graph, *subgraphs(model.graph)):
        for value in list(graph.initializers.values()):
            contents = constant(value)
            if value.dtype == _DOUBLE and contents is not None:
                value.const_value = ir.tensor(contents.astype(np.float32), name=value.name)
                editor.changes += _retype(value)
    for node in all_nodes(model.graph):
        editor.changes += _retype_attributes(node) + sum(_retype(value) for value in node.outputs)
    for graph in subgraphs(model.graph):
        editor.changes += sum(_retype(value) for value in graph.inputs)
    _cast_inputs(editor, model.graph)
    _cast_outputs(editor, model.graph, doubles)
    return editor.finish()


def _retype(value: ir.Value) -> int:
    if value.dtype != _DOUBLE:
        return 0
    value.dtype = _SINGLE
    return 1


def _retype_attributes(node: ir.Node) -> int:
    changed = 0
    for name, held in list(node.attributes.items()):
        if name in ("to", "dtype", "output_dtype") and held.type == ir.AttributeType.INT and held.value == _DOUBLE:
            node.attributes[name] = ir.AttrInt64(name, int(_SINGLE))
            changed += 1
        elif held.type == ir.AttributeType.TENSOR and held.as_tensor().dtype == _DOUBLE:
            node.attributes[name] = ir.AttrTensor(name, ir.tensor(held.as_tensor().numpy().astype(np.float32)))
            changed += 1
    return changed


def _cast_inputs(editor: Editor, graph: ir.Graph) -> None:
    for value in graph.inputs:
        if value.dtype == _DOUBLE and value.uses():
            readers = tuple(value.uses())
            cast = editor.value(next(iter(graph)), "Cast", [value], {"to": int(_SINGLE)}, shape=dims(value))
            cast.dtype = _SINGLE
            for node, index in readers:
                node.replace_input_with(index, cast)
            editor.changes += 1


def _cast_outputs(editor: Editor, graph: ir.Graph, doubles: list[ir.Value]) -> None:
    for index, value in enumerate(graph.outputs):
        if value not in doubles or value.producer() is None:
            continue
        made = ir.node("Cast", [value], {"to": int(_DOUBLE)}, name=editor.name(f"{value.name}_border"))
        name, value.name = value.name, editor.name(f"{value.name}_single")
        result = made.outputs[0]
        result.name, result.dtype, result.shape = name, _DOUBLE, value.shape
        graph.append(made)
        graph.outputs[index] = result


single_precision = Pass("single precision", _apply, ensures="nothing inside the graph is double")
