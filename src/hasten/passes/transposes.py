"""Moves transposes through the nodes that do not care about layout, to where they cancel.

Channels-last models reach us with a Transpose before and after each convolution. Between the layers that insist on a
layout lie nodes that do not (elementwise, Concat, Pad, reductions, …: ``agnostic``). For each permutation in use, the
cheapest choice of nodes to run on transposed tensors is a minimum cut: a Transpose costs its elements plus a fixed
overhead, one that moves only dimensions of size 1 (a Reshape) next to nothing. A choice is carried out only where it is
strictly cheaper and leaves no more transposes than there were, so the pass ends.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from hasten.graph.operators import BROADCAST
from hasten.graph.walk import subgraphs
from hasten.passes import Pass
from hasten.passes.agnostic import Perm, Rule, inverse, layout_rule
from hasten.passes.mincut import FORBIDDEN, SINK, SOURCE, Cut
from hasten.passes.surgery import Dim, Editor, attribute, constant, dims, is_op, rank
from hasten.types import Array

__all__ = ["cancel_transposes"]

# A kernel call more costs about as much as moving this many elements.
_OVERHEAD = 4096
_MOST_ROUNDS = 32
# In the second attempt a transpose more outweighs any number of elements moved.
_ONE_MORE = 1 << 40


def _apply(model: ir.Model) -> int:
    changes = 0
    for _ in range(_MOST_ROUNDS):
        editor = Editor(model)
        if not any(_improve(editor, graph) for graph in (model.graph, *subgraphs(model.graph))):
            break
        changes += editor.finish()
    return changes


def _improve(editor: Editor, graph: ir.Graph) -> bool:
    perms: dict[Perm, None] = {}
    for node in graph:
        if is_op(node, "Transpose"):
            perm = _perm(node)
            perms.update({inverse(perm): None, perm: None})
    for perm in perms:
        for upper in (True, False):
            region = _Region(graph, perm, upper)
            chosen = region.choose()
            if chosen:
                _Flip(editor, perm, chosen, region.rules).carry_out(graph)
                return True
    return False


def _perm(node: ir.Node) -> Perm:
    count = rank(node.inputs[0]) or 0
    return tuple(attribute(node, "perm", tuple(range(count))[::-1]))


def _then(first: Perm, second: Perm) -> Perm:
    """One permutation for transposing by ``first``, then by ``second``."""
    return tuple(first[axis] for axis in second)


def _price(shape: Sequence[Dim], perm: Perm) -> tuple[int, int]:
    """(cost, count) of transposing a tensor of that shape."""
    moved = [axis for axis in perm if shape[axis] != 1]
    if list(perm) == sorted(perm):
        return 0, 0
    if moved == sorted(moved):
        return 1, 0
    return _OVERHEAD + int(np.prod([d for d in shape if isinstance(d, int)], dtype=np.int64)), 1


def _padded(value: ir.Value, count: int) -> tuple[Dim, ...]:
    """The shape as a broadcast to that many dimensions sees it."""
    shape = dims(value) or ()
    return (1,) * (count - len(shape)) + shape


@dataclass
class _Region:
    """The nodes of one graph that could run on tensors transposed by ``perm``, and what each choice would cost.

    Where two such nodes meet at a Transpose, only one side may change in one go: ``upper`` says which.
    """

    graph: ir.Graph
    perm: Perm
    upper: bool
    rules: dict[ir.Node, Rule] = field(default_factory=dict)
    vertices: dict[ir.Node, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in self.graph:
            rule = layout_rule(node, len(self.perm))
            if rule is not None and rule.allows(self.perm):
                self.rules[node] = rule
        for node in list(self.rules):
            if node in self.rules and self._blocked(node):
                del self.rules[node]

    def _blocked(self, node: ir.Node) -> bool:
        if self.upper:
            above = (node.inputs[index] for index in self.rules[node].operands)
            producers = [value.producer() for value in above if value is not None]
            transposes = [p for p in producers if p is not None and is_op(p, "Transpose")]
            return any(p.inputs[0] is not None and p.inputs[0].producer() in self.rules for p in transposes)
        users = [user for value in node.outputs for user, _ in value.uses() if is_op(user, "Transpose")]
        return any(below in self.rules for user in users for below, _ in user.outputs[0].uses())

    def choose(self) -> set[ir.Node]:
        """The nodes worth changing; none where nothing gets cheaper."""
        for one_more in (0, _ONE_MORE):
            cut = self._cut(one_more)
            ones = cut.solve()
            before, after = cut.cost(set()), cut.cost(ones)
            if after[0] >= before[0]:
                return set()
            if after[1] <= before[1]:
                return {node for node, vertex in self.vertices.items() if vertex in ones}
        return set()

    def _cut(self, one_more: int) -> Cut:
        cut = Cut()
        self.vertices = {node: cut.vertex() for node in self.rules}
        for value, readers in self._operands().items():
            producer = value.producer()
            if constant(value) is not None:
                continue
            if producer in self.rules and not self.rules[producer].drops:
                continue
            _Edges(cut, self, one_more).enter(value, readers)
        for node, rule in self.rules.items():
            edges = _Edges(cut, self, one_more)
            for value in node.outputs:
                if rule.drops:
                    edges.pay(self.vertices[node], SINK, _price(dims(value) or (), _left_over(self.perm, rule.drops)))
                else:
                    edges.leave(node, value)
        return cut

    def _operands(self) -> dict[ir.Value, list[ir.Node]]:
        """Values that changed nodes would read transposed → the nodes that may change."""
        found: dict[ir.Value, list[ir.Node]] = {}
        for node, rule in self.rules.items():
            for index in rule.operands:
                value = node.inputs[index]
                if value is not None:
                    found.setdefault(value, []).append(node)
        return found


@dataclass
class _Edges:
    cut: Cut
    region: _Region
    one_more: int

    def pay(self, tail: int, head: int, price: tuple[int, int]) -> None:
        cost, count = price
        self.cut.edge(tail, head, cost + count * self.one_more, count)

    def enter(self, value: ir.Value, readers: list[ir.Node]) -> None:
        """A value from outside: transposed for the readers that change, as it is for the others."""
        perm, vertices = self.region.perm, self.region.vertices
        producer = value.producer()
        others = value.is_graph_output() or any(user not in self.region.rules for user, _ in value.uses())
        any_one, all_ones = self.cut.vertex(), self.cut.vertex()
        for reader in readers:
            self.cut.edge(vertices[reader], any_one, FORBIDDEN)
            self.cut.edge(all_ones, vertices[reader], FORBIDDEN)
        if producer is None or not is_op(producer, "Transpose") or producer.inputs[0] is None:
            self.pay(any_one, SINK, _price(_padded(value, len(perm)), perm))
            return
        source, first = producer.inputs[0], _perm(producer)
        self.pay(any_one, SINK, _price(dims(source) or (), _then(first, perm)))
        if not others:
            self.pay(SOURCE, all_ones, _price(dims(source) or (), first))

    def leave(self, node: ir.Node, value: ir.Value) -> None:
        """A value made inside: transposed back for readers that do not change."""
        region, vertex = self.region, self.region.vertices[node]
        back, shape = inverse(region.perm), dims(value) or ()
        plain: list[ir.Node] = []
        pinned = value.is_graph_output()
        for user, index in value.uses():
            rule = region.rules.get(user)
            if rule is not None and index in rule.operands:
                plain.append(user)
            elif is_op(user, "Transpose") and user.graph is node.graph:
                then = _perm(user)
                self.pay(vertex, SINK, _price([shape[axis] for axis in region.perm], _then(back, then)))
                self.pay(SOURCE, vertex, _price(shape, then))
            else:
                pinned = True
        price = _price([shape[axis] for axis in region.perm], back)
        if pinned:
            self.pay(vertex, SINK, price)
        elif plain:
            all_ones = self.cut.vertex()
            for user in plain:
                self.cut.edge(all_ones, region.vertices[user], FORBIDDEN)
            self.pay(vertex, all_ones, price)
        if plain:
            any_one = self.cut.vertex()
            for user in plain:
                self.cut.edge(region.vertices[user], any_one, FORBIDDEN)
            self.pay(any_one, vertex, price)


def _left_over(perm: Perm, drops: tuple[int, ...]) -> Perm:
    """How the result of dropping axes from a transposed tensor must be transposed to be as before."""
    order = [axis for axis in perm if axis not in drops]
    return tuple(order.index(axis) for axis in sorted(order))


@dataclass
class _Flip:
    """Carries out a choice: the chosen nodes are made anew on transposed tensors."""

    editor: Editor
    perm: Perm
    chosen: set[ir.Node]
    rules: dict[ir.Node, Rule]
    flipped: dict[ir.Value, ir.Value] = field(default_factory=dict)

    def carry_out(self, graph: ir.Graph) -> None:
        for node in [node for node in graph if node in self.chosen]:
            self._remake(node)

    def _remake(self, node: ir.Node) -> None:
        rule = self.rules[node]
        given = list(node.inputs)
        for index in rule.operands:
            value = given[index]
            if value is not None:
                given[index] = self._transposed(node, value)
        inputs, changed = rule.change(self.editor, node, self.perm, given)
        made = self.editor.node(node, node.op_type, inputs, {**node.attributes, **changed}, outputs=len(node.outputs))
        for old, new in zip(node.outputs, made.outputs, strict=True):
            if old.dtype is not None:
                new.dtype = old.dtype
            self._hand_over(node, old, new)

    def _hand_over(self, node: ir.Node, old: ir.Value, new: ir.Value) -> None:
        drops = self.rules[node].drops
        shape = dims(old)
        if drops:
            back = _left_over(self.perm, drops)
            _shape(new, None if shape is None else [shape[axis] for axis in inverse(back)])
            self.editor.swap(old, self._permuted(node, new, back))
            return
        _shape(new, None if shape is None else [shape[axis] for axis in self.perm])
        self.flipped[old] = new
        back = inverse(self.perm)
        for user, _ in tuple(old.uses()):
            if is_op(user, "Transpose") and user.graph is node.graph:
                self.editor.swap(user.outputs[0], self._permuted(user, new, _then(back, _perm(user))))
                user.replace_input_with(0, None)
        if old.is_graph_output() or any(not self._will_change(user, index) for user, index in old.uses()):
            restored = self._permuted(node, new, back)
            for user, index in tuple(old.uses()):
                if not self._will_change(user, index):
                    user.replace_input_with(index, restored)
            if old.is_graph_output():
                self.editor.swap(old, restored)
                self.flipped[old] = new
        self.editor.changes += 1

    def _will_change(self, user: ir.Node, index: int) -> bool:
        return user in self.chosen and index in self.rules[user].operands

    def _transposed(self, before: ir.Node, value: ir.Value) -> ir.Value:
        contents = constant(value)
        if contents is not None:
            return self._weight(before, value, contents)
        if value not in self.flipped:
            self.flipped[value] = self._fresh(before, value)
        return self.flipped[value]

    def _weight(self, before: ir.Node, value: ir.Value, contents: Array) -> ir.Value:
        broadcasts = is_op(before, *BROADCAST)
        if contents.size == 1 and broadcasts:
            return value
        full = contents.reshape((1,) * (len(self.perm) - contents.ndim) + contents.shape).transpose(self.perm)
        if broadcasts:  # a bias of one axis stays a plain row, which engines fuse
            full = full.reshape(tuple(itertools.dropwhile(lambda size: size == 1, full.shape)))
        return self.editor.weight(full, f"{value.name}_transposed")

    def _fresh(self, before: ir.Node, value: ir.Value) -> ir.Value:
        producer = value.producer()
        short = (rank(value) or 0) < len(self.perm)
        if producer is not None and is_op(producer, "Transpose") and producer.inputs[0] is not None and not short:
            return self._permuted(before, producer.inputs[0], _then(_perm(producer), self.perm))
        if short:
            missing = len(self.perm) - (rank(value) or 0)
            shape = dims(value) or ()
            axes = self.editor.ints(range(missing), "axes")
            value = self.editor.value(before, "Unsqueeze", [value, axes], shape=(*[1] * missing, *shape))
        return self._permuted(before, value, self.perm)

    def _permuted(self, before: ir.Node, value: ir.Value, perm: Perm) -> ir.Value:
        if list(perm) == sorted(perm):
            return value
        shape = dims(value)
        moved = None if shape is None else [shape[axis] for axis in perm]
        return self.editor.value(before, "Transpose", [value], {"perm": perm}, shape=moved)


def _shape(value: ir.Value, shape: list[int | str | None] | None) -> None:
    value.shape = None if shape is None else ir.Shape(shape)


cancel_transposes = Pass(
    "cancel transposes",
    _apply,
    requires="inferred shapes; chains of views merged",
    ensures="no cheaper layout of the layout-agnostic nodes is left; never more transposes than before",
)
