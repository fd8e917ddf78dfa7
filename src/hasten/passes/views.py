"""Chains of nodes that only rearrange elements (Transpose, Reshape, Squeeze, Unsqueeze, Flatten) as one thing.

A chain is followed dimension by dimension: each dimension of the chain's input is split into the smallest factors that
any Reshape on the way tells apart ("atoms"), and what the chain does is the order those atoms end up in. An unchanged
order is one Reshape at most, whatever the chain looked like; a changed one is one Transpose with at most a Reshape on
either side.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import onnx_ir as ir

from hasten.graph.walk import all_nodes
from hasten.passes import Pass
from hasten.passes.surgery import Dim, Editor, attribute, dims, input_of, ints, is_op, sole_consumer

__all__ = ["VIEWS", "Arrangement", "merge_views", "trace"]

VIEWS = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten")


@dataclass
class Arrangement:
    """Where the input's elements go: atoms as (identity, size), grouped by dimension. Unit dimensions are empty."""

    source: list[list[int]]
    current: list[list[int]]
    size: dict[int, Dim]

    @staticmethod
    def of(shape: tuple[Dim, ...]) -> Arrangement:
        """Nothing moved yet."""
        size: dict[int, Dim] = {i: d for i, d in enumerate(shape) if d != 1}
        groups = [[i] if i in size else [] for i in range(len(shape))]
        return Arrangement([list(g) for g in groups], [list(g) for g in groups], size)

    @property
    def before(self) -> list[int]:
        """Atoms in the input's order."""
        return [atom for group in self.source for atom in group]

    @property
    def after(self) -> list[int]:
        """Atoms in the result's order."""
        return [atom for group in self.current for atom in group]

    @property
    def moves(self) -> bool:
        """True when elements change places in memory."""
        return self.before != self.after

    def transpose(self, perm: tuple[int, ...]) -> None:
        """Dimensions in a new order."""
        self.current = [self.current[axis] for axis in perm]

    def reshape(self, shape: tuple[Dim, ...]) -> bool:
        """Dimensions drawn anew over the same order; False where the atoms cannot be told apart that way."""
        free = [i for i, d in enumerate(shape) if not isinstance(d, int)]
        if len(free) > 1 and not self._same_free(shape):
            return False
        queue, groups = self.after, []
        cut = free[0] if len(free) == 1 else len(shape)
        for dim in shape[:cut]:
            group = self._take(queue, dim, front=True)
            if group is None:
                return False
            groups.append(group)
        tail: list[list[int]] = []
        for dim in reversed(shape[cut + 1 :]):
            group = self._take(queue, dim, front=False)
            if group is None:
                return False
            tail.append(group)
        if cut < len(shape):
            groups.append(list(queue))
            queue.clear()
        if queue:
            return False
        self.current = groups + tail[::-1]
        return True

    def _same_free(self, shape: tuple[Dim, ...]) -> bool:
        """Several free dimensions are followed only where each keeps its name."""
        names = [self.size[a] for a in self.after if not isinstance(self.size[a], int)]
        return names == [d for d in shape if not isinstance(d, int)] and None not in names

    def _take(self, queue: list[int], dim: Dim, *, front: bool) -> list[int] | None:
        if not isinstance(dim, int):
            end = 0 if front else -1
            return [queue.pop(end)] if queue and self.size[queue[end]] == dim else None
        group: list[int] = []
        while dim > 1:
            if not queue:
                return None
            atom = queue[0 if front else -1]
            size = self.size[atom]
            if not isinstance(size, int) or size == 0:
                return None
            if size > dim:
                if size % dim:
                    return None
                self._split(atom, (dim, size // dim) if front else (size // dim, dim), queue)
                continue
            if dim % size:
                return None
            queue.remove(atom)
            group.append(atom)
            dim //= size
        return group if front else group[::-1]

    def _split(self, atom: int, sizes: tuple[int, int], queue: list[int]) -> None:
        new = max(self.size) + 1
        self.size[atom], self.size[new] = sizes
        for groups in (self.source, self.current, [queue]):
            for group in groups:
                if atom in group:
                    group.insert(group.index(atom) + 1, new)


def trace(nodes: list[ir.Node]) -> Arrangement | None:
    """What a chain of views does as a whole; None where a shape on the way is not known well enough."""
    shape = dims(nodes[0].inputs[0])
    if shape is None or None in shape or 0 in shape:
        return None
    arrangement = Arrangement.of(shape)
    for node in nodes:
        before, after = dims(node.inputs[0]), dims(node.outputs[0])
        if before is None or after is None:
            return None
        if node.op_type == "Transpose":
            arrangement.transpose(attribute(node, "perm", tuple(range(len(before)))[::-1]))
        elif node.op_type in ("Squeeze", "Unsqueeze"):
            if not _unit_dims(node, arrangement):
                return None
        elif not arrangement.reshape(after):
            return None
    return arrangement


def _unit_dims(node: ir.Node, arrangement: Arrangement) -> bool:
    axes, current = ints(input_of(node, 1)), arrangement.current
    if node.op_type == "Squeeze":
        if axes is None:
            return False
        dropped = {axis % len(current) for axis in axes}
        if any(current[axis] for axis in dropped):
            return False
        arrangement.current = [group for axis, group in enumerate(current) if axis not in dropped]
        return True
    if axes is None:
        return False
    rank = len(current) + len(axes)
    added, kept = {axis % rank for axis in axes}, iter(current)
    arrangement.current = [[] if axis in added else next(kept) for axis in range(rank)]
    return True


def _apply(model: ir.Model) -> int:
    editor = Editor(model)
    for node in reversed(list(all_nodes(model.graph))):
        if is_op(node, *VIEWS) and not _continues(node):
            _merge(editor, node)
    return editor.finish()


def _continues(node: ir.Node) -> bool:
    follower = sole_consumer(node.outputs[0])
    return follower is not None and is_op(follower, *VIEWS) and follower.inputs[0] is node.outputs[0]


def _chain(last: ir.Node) -> list[ir.Node]:
    nodes = [last]
    while True:
        value = nodes[0].inputs[0]
        producer = None if value is None else value.producer()
        if producer is None or not is_op(producer, *VIEWS) or producer.graph is not last.graph:
            return nodes
        nodes.insert(0, producer)


def _merge(editor: Editor, last: ir.Node) -> None:
    """Rewrites the longest chain that ends in ``last`` and gets cheaper by it."""
    nodes = _chain(last)
    while nodes:
        plan = _plan(nodes)
        if plan is not None and plan.cost < _cost_of_dying(nodes):
            _build(editor, nodes, plan)
            return
        nodes = nodes[1:]


def _cost_of_dying(nodes: list[ir.Node]) -> tuple[int, int]:
    """(Transposes, nodes) that go when the chain's end no longer needs them: back to the first that others read."""
    dying = [nodes[-1]]
    for node in reversed(nodes[:-1]):
        if sole_consumer(node.outputs[0]) is None:
            break
        dying.append(node)
    return sum(node.op_type == "Transpose" for node in dying), len(dying)


@dataclass(frozen=True)
class _Plan:
    """Reshape to ``first`` (None: as it is), transpose by ``perm`` (None: not), reshape to ``last`` (None: not)."""

    first: tuple[Dim, ...] | None
    perm: tuple[int, ...] | None
    last: tuple[Dim, ...] | None

    @property
    def cost(self) -> tuple[int, int]:
        return int(self.perm is not None), sum(part is not None for part in (self.first, self.perm, self.last))


def _plan(nodes: list[ir.Node]) -> _Plan | None:
    arrangement = trace(nodes)
    given, wanted = dims(nodes[0].inputs[0]), dims(nodes[-1].outputs[0])
    if arrangement is None or given is None or wanted is None:
        return None
    wanted = tuple(_named(group, arrangement, d) for group, d in zip(arrangement.current, wanted, strict=True))
    if not arrangement.moves:
        plan = _Plan(None, None, None if given == wanted else wanted)
    else:
        plan = _direct(arrangement) or _general(arrangement, given, wanted)
    reshapes = [part for part in (plan.first, plan.last) if part is not None]
    return plan if all(sum(not isinstance(d, int) for d in part) <= 1 for part in reshapes) else None


def _named(group: list[int], arrangement: Arrangement, dim: Dim) -> Dim:
    return arrangement.size[group[0]] if len(group) == 1 and not isinstance(dim, int) else dim


def _direct(arrangement: Arrangement) -> _Plan | None:
    """One Transpose and no Reshape, where every dimension of the result is one of the source."""
    if len(arrangement.source) != len(arrangement.current):
        return None
    left = list(enumerate(arrangement.source))
    perm = []
    for group in arrangement.current:
        found = next((item for item in left if item[1] == group), None)
        if found is None:
            return None
        left.remove(found)
        perm.append(found[0])
    return _Plan(None, tuple(perm), None)


def _general(arrangement: Arrangement, given: tuple[Dim, ...], wanted: tuple[Dim, ...]) -> _Plan:
    before, after, size = arrangement.before, arrangement.after, arrangement.size
    # Split where atoms part, and where the result's dimensions need it: then one Reshape at the front may be enough.
    for borders in (_borders(arrangement.current), set()):
        blocks = _blocks(before, after, borders)
        order = {block[0]: index for index, block in enumerate(blocks)}
        moved = sorted(blocks, key=lambda block: after.index(block[0]))
        perm = tuple(order[block[0]] for block in moved)
        first, last = _shape(blocks, size), _shape(moved, size)
        if borders and _fits(moved, arrangement.current):
            # unit dimensions are put in at once, so that the Transpose already has the result's shape
            first, perm = _with_units(blocks, moved, arrangement, size)
            return _Plan(None if first == given else first, perm, None)
        if not borders:
            return _Plan(None if first == given else first, perm, None if last == wanted else wanted)
    raise AssertionError("unreachable")


def _borders(groups: list[list[int]]) -> set[int]:
    """Atoms that begin a dimension."""
    return {group[0] for group in groups if group}


def _blocks(before: list[int], after: list[int], borders: set[int]) -> list[list[int]]:
    """Runs of atoms that stay side by side, in source order; ``borders`` begin a run of their own."""
    follows = dict(pairwise(after))
    blocks: list[list[int]] = []
    for atom in before:
        if blocks and follows.get(blocks[-1][-1]) == atom and atom not in borders:
            blocks[-1].append(atom)
        else:
            blocks.append([atom])
    return blocks


def _fits(moved: list[list[int]], groups: list[list[int]]) -> bool:
    return moved == [group for group in groups if group]


def _with_units(
    blocks: list[list[int]], moved: list[list[int]], arrangement: Arrangement, size: dict[int, Dim]
) -> tuple[tuple[Dim, ...], tuple[int, ...]]:
    units = sum(not group for group in arrangement.current)
    first = (1,) * units + _shape(blocks, size)
    spare = iter(range(units))
    perm = tuple(units + blocks.index(group) if group else next(spare) for group in arrangement.current)
    return first, perm


def _shape(blocks: list[list[int]], size: dict[int, Dim]) -> tuple[Dim, ...]:
    shape: list[Dim] = []
    for block in blocks:
        total: Dim = 1
        for atom in block:
            part = size[atom]
            total = total * part if isinstance(total, int) and isinstance(part, int) else (part if total == 1 else None)
        shape.append(total)
    return tuple(shape)


def _build(editor: Editor, nodes: list[ir.Node], plan: _Plan) -> None:
    last = nodes[-1]
    value = nodes[0].inputs[0]
    assert value is not None
    if plan.first is not None:
        value = editor.reshaped(last, value, plan.first)
    if plan.perm is not None:
        shape = dims(value) or ()
        value = editor.value(last, "Transpose", [value], {"perm": plan.perm}, shape=[shape[axis] for axis in plan.perm])
    if plan.last is not None:
        value = editor.reshaped(last, value, plan.last)
    editor.swap(last.outputs[0], value)


merge_views = Pass(
    "merge chains of reshapes and transposes",
    _apply,
    requires="inferred shapes",
    ensures="no two nodes that only rearrange elements stand in a row where one would do",
)
