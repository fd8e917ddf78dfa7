"""Rolls unrolled loops over slices back into one computation over the whole tensor.

Exporters write "apply this layer at every time step" as a thousand copies of the layer, each on its slice, joined by a
Concat. From each Concat the copies ("lanes") are walked backwards in step, as long as they apply the same operator with
the same attributes, until they reach slices of one tensor. If nothing else reads what lies between, the lanes are
stacked along a new leading dimension and each operator is applied once.

Steps that depend on the step before are no lanes: the walk then meets unlike operators and gives up.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from hasten.graph.walk import all_nodes
from hasten.passes import Pass
from hasten.passes.lanes import BATCHED, Operand, Stacked, stack
from hasten.passes.surgery import Dim, Editor, attribute, constant, dims, input_of, ints, is_op
from hasten.types import Array

__all__ = ["Slices", "reroll", "slices"]

_FEWEST_LANES = 3
_LARGEST_STACK_BYTES = 1 << 22

Lanes = tuple[ir.Value, ...]


@dataclass(frozen=True)
class _Same:
    """Every lane reads this value."""

    value: ir.Value


@dataclass(frozen=True)
class _Constants:
    """Every lane reads a constant of its own. Shapes: (lanes, …)"""

    contents: Array


@dataclass(frozen=True)
class Slices:
    """Lane i reads ``source[starts[i] : starts[i] + width]`` along ``axis``; width None: the dimension is dropped."""

    source: ir.Value
    axis: int
    starts: tuple[int, ...]
    width: int | None


@dataclass(frozen=True)
class _Step:
    """Every lane applies this operator to what the lanes before it made."""

    nodes: tuple[ir.Node, ...]
    lanes: Lanes
    inputs: tuple[_Same | _Constants | Slices | _Step | None, ...]


_Plan = _Same | _Constants | Slices | _Step


@dataclass
class _Walk:
    """Plans found so far, so that a lane that reads a value twice is walked once."""

    plans: dict[Lanes, _Plan | None] = field(default_factory=dict)
    nodes: set[ir.Node] = field(default_factory=set)

    def plan(self, lanes: Lanes) -> _Plan | None:
        if lanes not in self.plans:
            self.plans[lanes] = None  # a lane that reads itself through a cycle cannot exist, but must not hang
            self.plans[lanes] = self._find(lanes)
        return self.plans[lanes]

    def _find(self, lanes: Lanes) -> _Plan | None:
        if all(value is lanes[0] for value in lanes):
            return _Same(lanes[0])
        shape = dims(lanes[0])
        if shape is None or any(dims(value) != shape or value.dtype != lanes[0].dtype for value in lanes):
            return None
        return _constants(lanes) or slices(lanes) or self._step(lanes)

    def _step(self, lanes: Lanes) -> _Step | None:
        nodes = _alike(lanes)
        if nodes is None or len(set(nodes)) != len(nodes):
            return None
        inputs: list[_Plan | None] = []
        for index in range(len(nodes[0].inputs)):
            read = tuple(node.inputs[index] for node in nodes)
            if all(value is None for value in read):
                inputs.append(None)
                continue
            found = None if any(value is None for value in read) else self.plan(tuple(v for v in read if v is not None))
            if found is None:
                return None
            inputs.append(found)
        self.nodes.update(nodes)
        return _Step(nodes, lanes, tuple(inputs))


def _alike(lanes: Lanes) -> tuple[ir.Node, ...] | None:
    """The lanes' nodes, where all apply one operator in one way."""
    nodes = []
    first = lanes[0].producer()
    if first is None or not is_op(first, *BATCHED) or len(first.outputs) != 1:
        return None
    for value in lanes:
        node = value.producer()
        if node is None or node.op_type != first.op_type or len(node.inputs) != len(first.inputs):
            return None
        if node is not first and not _same_attributes(node, first):
            return None
        nodes.append(node)
    return tuple(nodes)


def _same_attributes(one: ir.Node, other: ir.Node) -> bool:
    if one.attributes.keys() != other.attributes.keys():
        return False
    return all(attribute(one, name) == attribute(other, name) for name in one.attributes)


def _constants(lanes: Lanes) -> _Constants | None:
    contents = [constant(value) for value in lanes]
    if any(part is None for part in contents):
        return None
    arrays = [part for part in contents if part is not None]
    if sum(part.nbytes for part in arrays) > _LARGEST_STACK_BYTES:
        return None
    return _Constants(np.stack(arrays))


def slices(lanes: Lanes) -> Slices | None:
    """The lanes as slices of one tensor along one axis, where they are that."""
    cuts: list[tuple[ir.Value, int, int, int | None]] = []
    for value in lanes:
        cut = _cut(value)
        if cut is None or (cuts and (cut[0] is not cuts[0][0] or cut[1] != cuts[0][1] or cut[3] != cuts[0][3])):
            return None
        cuts.append(cut)
    source, axis, _, width = cuts[0]
    return Slices(source, axis, tuple(cut[2] for cut in cuts), width)


def _cut(value: ir.Value) -> tuple[ir.Value, int, int, int | None] | None:
    """(source, axis, start, width) of a slice along one axis; width None where the axis is dropped."""
    node = value.producer()
    source = node.inputs[0] if node is not None and node.inputs else None
    shape = dims(source)
    if node is None or source is None or shape is None:
        return None
    if is_op(node, "Gather"):
        axis = attribute(node, "axis", 0) % len(shape)
        index, extent = constant(node.inputs[1]), shape[axis]
        if index is None or index.size != 1 or index.ndim > 1 or not isinstance(extent, int):
            return None
        return source, axis, int(index.reshape(-1)[0]) % extent, None if index.ndim == 0 else 1
    if is_op(node, "Split"):
        return _cut_of_split(node, value, source, shape)
    return _cut_of_slice(node, source, shape) if is_op(node, "Slice") else None


def _cut_of_split(
    node: ir.Node, value: ir.Value, source: ir.Value, shape: tuple[Dim, ...]
) -> tuple[ir.Value, int, int, int] | None:
    axis = attribute(node, "axis", 0) % len(shape)
    sizes = [(dims(output) or shape)[axis] for output in node.outputs]
    place = node.outputs.index(value)
    if not all(isinstance(size, int) for size in sizes):
        return None
    known = [int(size or 0) for size in sizes]
    return source, axis, sum(known[:place]), known[place]


def _cut_of_slice(node: ir.Node, source: ir.Value, shape: tuple[Dim, ...]) -> tuple[ir.Value, int, int, int] | None:
    starts, ends = ints(input_of(node, 1)), ints(input_of(node, 2))
    steps = ints(input_of(node, 4)) if input_of(node, 4) is not None else None
    if starts is None or ends is None or (steps is not None and set(steps) != {1}):
        return None
    axes = ints(input_of(node, 3)) if input_of(node, 3) is not None else tuple(range(len(starts)))
    found = None
    for start, end, axis in zip(starts, ends, axes or (), strict=True):
        extent = shape[axis % len(shape)]
        if start == 0 and end >= (extent if isinstance(extent, int) else 2**31 - 1):
            continue
        if not isinstance(extent, int) or found is not None:
            return None
        first, last, _ = slice(start, end).indices(extent)
        found = (source, axis % len(shape), first, last - first)
    return found


def _apply(model: ir.Model) -> int:
    editor = Editor(model)
    for node in list(all_nodes(model.graph)):
        if is_op(node, "Concat") and len(node.inputs) >= _FEWEST_LANES:
            _roll(editor, node)
    return editor.finish()


def _roll(editor: Editor, join: ir.Node) -> None:
    lanes = tuple(value for value in join.inputs if value is not None)
    walk = _Walk()
    plan = walk.plan(lanes)
    if not isinstance(plan, (_Step, Slices)) or not _self_contained(walk.nodes, join):
        return
    try:
        stacked = _Emitter(editor, join, len(lanes)).emit(plan)
    except NotImplementedError:
        return  # an operator that cannot take the extra dimension; what was emitted so far is dead
    editor.swap(join.outputs[0], stacked.joined(editor, join, attribute(join, "axis")))


def _self_contained(nodes: set[ir.Node], join: ir.Node) -> bool:
    return all(
        not value.is_graph_output() and all(user in nodes or user is join for user, _ in value.uses())
        for node in nodes
        for value in node.outputs
    )


@dataclass
class _Emitter:
    editor: Editor
    before: ir.Node
    count: int
    made: dict[int, Operand] = field(default_factory=dict)

    def emit(self, plan: _Plan) -> Stacked:
        found = self._operand(plan)
        if not isinstance(found, Stacked):
            raise NotImplementedError
        return found

    def _operand(self, plan: _Plan | None) -> Operand | None:
        if plan is None:
            return None
        if id(plan) not in self.made:
            self.made[id(plan)] = self._make(plan)
        return self.made[id(plan)]

    def _make(self, plan: _Plan) -> Operand:
        if isinstance(plan, _Same):
            return plan.value
        if isinstance(plan, _Constants):
            return Stacked(self.editor.weight(plan.contents, "lanes"), plan.contents.shape[1:], self.count)
        if isinstance(plan, Slices):
            return stack(self.editor, self.before, plan.source, (plan.axis, plan.starts, plan.width))
        operands = [self._operand(part) for part in plan.inputs]
        node = plan.nodes[0]
        shape = dims(plan.lanes[0])
        if shape is None or sum(not isinstance(d, int) for d in shape) > 1:
            raise NotImplementedError
        value = BATCHED[node.op_type](self.editor, self.before, node, operands)
        return Stacked(value, shape, self.count)


reroll = Pass(
    "re-roll unrolled loops",
    _apply,
    requires="inferred shapes",
    ensures="no operator is applied slice by slice where once over the whole tensor gives the same",
)
