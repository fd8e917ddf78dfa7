"""The few cuts and joins that every rewrite is made of, so that names, outputs and types stay right in one place.

Reading: ``constant``, ``scalar``, ``dims``, ``static_dims``, ``sole_consumer``, ``attribute``. Writing: an ``Editor``
for one application of one pass. Nodes are made before the node they replace; ``Editor.finish`` removes what became
dead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir

from hasten.graph.shapes import set_shape
from hasten.graph.walk import all_nodes, subgraphs
from hasten.types import Array

__all__ = [
    "OLDEST_OPSET",
    "Dim",
    "Editor",
    "attribute",
    "constant",
    "dims",
    "input_of",
    "is_op",
    "opset",
    "scalar",
    "sole_consumer",
    "static_dims",
]

Dim = int | str | None
Attributes = Mapping[str, Any]

# From 13 on, axes and the like come as inputs, and Softmax means what it says; rewrites know this form alone.
OLDEST_OPSET = 13


def opset(model: ir.Model) -> int:
    """Version of the default operator set."""
    return int(model.graph.opset_imports.get("", model.graph.opset_imports.get("ai.onnx", 1)))


def is_op(node: ir.Node | None, *ops: str) -> bool:
    """True for a node of the default domain whose operator is one of ``ops``."""
    return node is not None and node.domain in ("", "ai.onnx") and node.op_type in ops


def input_of(node: ir.Node, index: int) -> ir.Value | None:
    """The input, or None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def constant(value: ir.Value | None) -> Array | None:
    """The contents of a weight that no caller can override, else None."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return np.asarray(value.const_value.numpy())


def scalar(value: ir.Value | None) -> float | None:
    """The one number of a constant with a single element, else None."""
    if value is None or value.const_value is None or value.const_value.size != 1:
        return None
    found = constant(value)
    return None if found is None or found.dtype.kind not in "fiub" else float(found.reshape(-1)[0])


def ints(value: ir.Value | None) -> tuple[int, ...] | None:
    """The integers of a small constant (axes, a shape), else None."""
    found = constant(value) if value is not None and value.dtype in (ir.DataType.INT64, ir.DataType.INT32) else None
    return None if found is None else tuple(int(i) for i in found.reshape(-1))


def dims(value: ir.Value | None) -> tuple[Dim, ...] | None:
    """Dimensions as numbers, names, or None for one that nothing is known of; None where not even the rank is."""
    if value is None or value.shape is None:
        return None
    return tuple(d if isinstance(d, int) else d.value for d in value.shape)


def static_dims(value: ir.Value | None) -> tuple[int, ...] | None:
    """Dimensions where all are numbers, else None."""
    found = dims(value)
    return None if found is None or not all(isinstance(d, int) for d in found) else tuple(int(d or 0) for d in found)


def rank(value: ir.Value | None) -> int | None:
    """Number of dimensions, where known."""
    return None if value is None or value.shape is None else len(value.shape)


def same_dims(one: ir.Value | None, other: ir.Value | None) -> bool:
    """True when both shapes are known and surely equal (a nameless free dimension equals nothing)."""
    first, second = dims(one), dims(other)
    return first is not None and first == second and None not in first


def sole_consumer(value: ir.Value) -> ir.Node | None:
    """The one node of the same graph that reads ``value``, if nothing else does and it is no output."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    node = next(iter(uses))[0]
    return node if value.producer() is None or node.graph is value.graph else None


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """The attribute's plain value (ints as a tuple, strings as str), or ``default`` where it is absent."""
    found = node.attributes.get(name)
    if found is None or found.is_ref():
        return default
    if found.type == ir.AttributeType.INTS:
        return tuple(found.as_ints())
    return tuple(found.as_strings()) if found.type == ir.AttributeType.STRINGS else found.value


class Editor:
    """Changes one model in place and counts the places it changed; owns the names it gives out."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.changes = 0

    @cached_property
    def _used(self) -> set[str | None]:
        """Every name in the model; most applications of a pass change nothing, and never ask."""
        model = self.model
        used = {value.name for value in model.graph.inputs} | set(model.graph.initializers)
        for node in all_nodes(model.graph):
            used.update(value.name for value in node.outputs)
            used.add(node.name)
        for graph in subgraphs(model.graph):
            used.update(graph.initializers)
            used.update(value.name for value in graph.inputs)
        return used

    def name(self, hint: str) -> str:
        """A name that nothing in the model has."""
        name, count = hint, 0
        while name in self._used:
            count += 1
            name = f"{hint}_{count}"
        self._used.add(name)
        return name

    def weight(self, contents: Array, hint: str = "weight") -> ir.Value:
        """A new constant of the main graph, visible from every subgraph."""
        tensor = ir.tensor(np.ascontiguousarray(contents).reshape(np.shape(contents)))
        value = ir.Value(
            name=self.name(hint), shape=ir.Shape(contents.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        self.model.graph.register_initializer(value)
        return value

    def ints(self, numbers: Iterable[int], hint: str = "ints") -> ir.Value:
        """A new int64 constant vector."""
        return self.weight(np.asarray(list(numbers), np.int64), hint)

    def node(
        self,
        before: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Attributes | None = None,
        *,
        outputs: int = 1,
    ) -> ir.Node:
        """A new node placed before ``before`` and named after it."""
        kept = list(inputs)
        while kept and kept[-1] is None:
            kept.pop()
        made = ir.node(op_type, kept, attributes or {}, num_outputs=outputs)
        made.name = self.name(f"{before.name or before.op_type}_{op_type}")
        for value in made.outputs:
            value.name = self.name(f"{made.name}_out")
        assert before.graph is not None
        before.graph.insert_before(before, made)
        return made

    def value(
        self,
        before: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Attributes | None = None,
        *,
        shape: Iterable[Any] | None = None,
    ) -> ir.Value:
        """The one output of a new node; typed like its first input."""
        made = self.node(before, op_type, inputs, attributes).outputs[0]
        if inputs and inputs[0] is not None and inputs[0].dtype is not None:
            made.dtype = inputs[0].dtype
        set_shape(made, shape)
        return made

    def reshaped(self, before: ir.Node, value: ir.Value, shape: Sequence[Dim]) -> ir.Value:
        """``value`` in ``shape``, of which one dimension at most may be no number."""
        target = self.ints([d if isinstance(d, int) else -1 for d in shape], "target")
        return self.value(before, "Reshape", [value, target], shape=shape)

    def swap(self, old: ir.Value, new: ir.Value) -> None:
        """``new`` everywhere in place of ``old``; an output of the graph keeps its name, place and type."""
        if old is new:
            return
        self.changes += 1
        if new.dtype is None and old.dtype is not None:
            new.dtype = old.dtype
        if new.shape is None and old.shape is not None:
            set_shape(new, list(old.shape))
        taken = new
        if old.is_graph_output():
            taken = self._as_output(old, new)
        for user, index in tuple(old.uses()):
            user.replace_input_with(index, new)
        graph = old.graph
        for index, output in enumerate(graph.outputs if old.is_graph_output() and graph is not None else ()):
            if output is old:
                assert graph is not None
                graph.outputs[index] = taken

    def _as_output(self, old: ir.Value, new: ir.Value) -> ir.Value:
        producer = old.producer()
        assert producer is not None
        taken = new
        if new.producer() is None or new.is_graph_output() or new.graph is not old.graph:
            taken = self.value(producer, "Identity", [new])
        if old.dtype is not None:
            taken.dtype = old.dtype
        set_shape(taken, None if old.shape is None else list(old.shape))
        name, old.name = old.name, self.name(f"{old.name}_was")
        taken.name = name
        return taken

    def finish(self) -> int:
        """Removes what no output needs any more; returns how many places changed."""
        if self.changes:
            sweep(self.model)
        return self.changes


def sweep(model: ir.Model) -> int:
    """Removes nodes that no output needs and weights that no node reads; returns how many."""
    return sum(_sweep(graph) for graph in (*subgraphs(model.graph), model.graph))


def _sweep(graph: ir.Graph) -> int:
    removed = 0
    for node in reversed(list(graph)):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.GRAPH:
                    _detach(attribute.as_graph())
            graph.remove(node, safe=True)
            removed += 1
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del graph.initializers[name]
            removed += 1
    return removed


def _detach(graph: ir.Graph) -> None:
    """Nodes of a subgraph that goes away still count as readers of outer values until they let go of them."""
    for node in all_nodes(graph):
        for index in range(len(node.inputs)):
            node.replace_input_with(index, None)
