"""Re-rolls a recurrence that was written out turn by turn: one LSTM, GRU or RNN node instead of a cell for each turn.

A Python loop over ``LSTMCell`` is traced into as many copies of the cell as there are turns. The copies are found by
what they share, the matrix that multiplies the state; they are walked backwards in step from the states they make, as
long as all do the same, until they reach the states of the turn before and the input of each turn.
``recurrent_cell`` then tells which cell one of them is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from hasten.passes import Pass
from hasten.passes.recurrent_cell import Cell, Step, answers, cell_of, close, emit, one_turn
from hasten.passes.reroll import slices
from hasten.passes.surgery import Editor, attribute, constant, dims, is_op
from hasten.records import digest

__all__ = ["recognise_unrolled"]

_FEWEST_TURNS = 3
_MOST_NODES_A_TURN = 80

_Turns = tuple[ir.Value, ...]
"""The same value of each turn, in order."""


@dataclass(frozen=True)
class _Chain:
    """Products with the state's matrix, each fed by what the one before led to."""

    products: tuple[ir.Node, ...]
    within: dict[ir.Node, int]
    """Node → how many of the products it depends on; left out where on none."""

    def depends(self, value: ir.Value) -> bool:
        """True for what the recurrence computes."""
        producer = value.producer()
        return producer is not None and producer in self.within


@dataclass
class _Lockstep:
    """The copies of one turn's arithmetic, walked backwards together."""

    chain: _Chain
    states: dict[_Turns, _Turns] = field(default_factory=dict)
    """Each state before the turns → after them."""
    inputs: set[_Turns] = field(default_factory=set)
    nodes: dict[tuple[ir.Node, ...], None] = field(default_factory=dict)
    _seen: set[_Turns] = field(default_factory=set)
    _made: dict[_Turns, _Turns] = field(default_factory=dict)

    def walk(self, results: _Turns) -> bool:
        """True where the turns that end in ``results`` do the same."""
        stack = [results]
        while stack:
            turns = stack.pop()
            if turns in self._seen:
                continue
            self._seen.add(turns)
            if turns[1:] in self._made:
                self.states[turns] = self._made[turns[1:]]
                continue
            if _equal(turns):
                continue
            depends = self.chain.depends(turns[-1])
            if depends:
                self._made[turns[:-1]] = turns
            elif not _leads_to_product(turns[-1]):
                self.inputs.add(turns)
                continue
            nodes = _alike(turns)
            if nodes is None or len(self.nodes) > _MOST_NODES_A_TURN:
                return False
            self.nodes[nodes] = None
            for values in zip(*(node.inputs for node in nodes), strict=True):
                read = tuple(value for value in values if value is not None)
                if len(read) not in (0, len(values)):
                    return False
                if read and self._is_input(nodes[0], read, depends):
                    self.inputs.add(read)
                elif read:
                    stack.append(read)
        return bool(self.states)

    def _is_input(self, reader: ir.Node, read: _Turns, depends: bool) -> bool:
        """True for what a product takes that has no state in it, and for what is put beside a state."""
        if _equal(read) or self.chain.depends(read[-1]):
            return False
        return is_op(reader, "Concat") or (not depends and is_op(reader, "MatMul", "Gemm"))


def _leads_to_product(value: ir.Value) -> bool:
    """True where the turn's input is only multiplied by a matrix and shifted on the way to ``value``."""
    producer = value.producer()
    while producer is not None and is_op(producer, "Add", "Split", "Identity"):
        varying = [v for v in producer.inputs if v is not None and constant(v) is None]
        if len(varying) != 1:
            return False
        producer = varying[0].producer()
    return producer is not None and is_op(producer, "MatMul", "Gemm") and constant(producer.inputs[1]) is not None


def _equal(turns: _Turns) -> bool:
    """True where every turn reads the same: one value, or constants with the same contents."""
    first = turns[0]
    if all(value is first for value in turns):
        return True
    kept = constant(first)
    return kept is not None and all(
        (other := constant(value)) is not None and other.shape == kept.shape and bool((other == kept).all())
        for value in turns[1:]
    )


def _alike(turns: _Turns) -> tuple[ir.Node, ...] | None:
    """The nodes that make the values, where all apply one operator in one way."""
    nodes = tuple(node for value in turns if (node := value.producer()) is not None)
    first = nodes[0] if nodes else None
    if first is None or len(nodes) != len(turns) or len(set(nodes)) != len(nodes):
        return None
    place = first.outputs.index(turns[0])
    for node, value in zip(nodes[1:], turns[1:], strict=True):
        same = (node.domain, node.op_type, len(node.inputs)) == (first.domain, first.op_type, len(first.inputs))
        if not same or node.outputs[place] is not value or node.attributes.keys() != first.attributes.keys():
            return None
        if any(attribute(node, name) != attribute(first, name) for name in node.attributes):
            return None
    return nodes


def _apply(model: ir.Model) -> int:
    editor = Editor(model)
    rolled: set[ir.Node] = set()
    for chain in list(_chains(model)):
        if not rolled.intersection(chain.products):
            rolled.update(_roll(editor, chain))
    changes = editor.finish()
    if changes:
        model.graph.sort()
    return changes


def _chains(model: ir.Model) -> Iterator[_Chain]:
    """Every run of products with one matrix of which each depends on all before it."""
    by_matrix: dict[str, list[ir.Node]] = {}
    for node in model.graph:
        matrix = constant(node.inputs[1]) if is_op(node, "MatMul", "Gemm") and len(node.inputs) > 1 else None
        if matrix is not None and matrix.ndim == 2:
            by_matrix.setdefault(digest([digest(matrix.tobytes()), matrix.shape]), []).append(node)
    for products in by_matrix.values():
        if len(products) >= _FEWEST_TURNS:
            yield from _links(model, products)


def _links(model: ir.Model, products: Sequence[ir.Node]) -> Iterator[_Chain]:
    order = {product: 1 << place for place, product in enumerate(products)}
    above: dict[ir.Node, int] = {}
    for node in model.graph:
        mask = order.get(node, 0)
        for value in node.inputs:
            producer = None if value is None else value.producer()
            mask |= 0 if producer is None else above.get(producer, 0)
        if mask:
            above[node] = mask
    followers: dict[int, list[ir.Node]] = {}
    for product in products:
        before = above[product] & ~order[product]
        followers.setdefault(before.bit_length(), []).append(product)
    forks = [head for several in followers.values() if len(several) > 1 for head in several]
    for head in dict.fromkeys([*followers.get(0, []), *forks]):
        chain = [head]
        while len(found := followers.get(order[chain[-1]].bit_length(), [])) == 1:
            chain.append(found[0])
        members = sum(order[product] for product in chain)
        within = {node: bin(mask & members).count("1") for node, mask in above.items() if mask & members}
        if len(chain) >= _FEWEST_TURNS and all(within[p] == i + 1 for i, p in enumerate(chain)):
            yield _Chain(tuple(chain), within)


def _roll(editor: Editor, chain: _Chain) -> set[ir.Node]:
    """Puts one node for the chain, where it is a cell's; returns the nodes that it stands for."""
    found = next(filter(None, (_walked(chain, first) for first in (0, 1))), None)
    if found is None:
        return set()
    walk, results = found
    hidden = [turns for turns, after in walk.states.items() if after == results]
    others = [turns for turns in walk.states if turns not in hidden]
    if len(hidden) != 1 or len(others) > 1 or len(walk.inputs) != 1 or not _closed(walk, results):
        return set()
    (inputs,) = walk.inputs
    taken = [*hidden, *others]
    made = [walk.states[turns] for turns in taken]
    step = Step(
        inputs[1], tuple(t[1] for t in taken), tuple(t[1] for t in made), tuple(nodes[1] for nodes in walk.nodes)
    )
    if len(dims(step.x) or ()) != 2 or any(chain.depends(value) for value in inputs):
        return set()
    cell = cell_of(editor.model, step)
    if cell is None or cell.hidden != 0:
        return set()
    rolled = _Rolled(cell, inputs, tuple(turns[0] for turns in taken), tuple(made))
    _replace(editor, _with_projection(editor, _with_first(editor, rolled)))
    return {node for nodes in walk.nodes for node in nodes}


@dataclass(frozen=True)
class _Rolled:
    """A cell over ``inputs``; ``initial``: what each state begins with (None: zeros), ``made``: what it is after."""

    cell: Cell
    inputs: _Turns
    initial: tuple[ir.Value | None, ...]
    made: tuple[_Turns, ...]


def _with_first(editor: Editor, rolled: _Rolled) -> _Rolled:
    """With the turn before the first as well, where that is the cell on zeros, from which constants were folded."""
    cuts, initial = slices(rolled.inputs), [value for value in rolled.initial if value is not None]
    shape = None if cuts is None else dims(cuts.source)
    if cuts is None or shape is None or cuts.width is not None or len(initial) != len(rolled.initial):
        return rolled
    place = 2 * cuts.starts[0] - cuts.starts[1]
    if not 0 <= place < int(shape[cuts.axis] or 0) or any(value.producer() is None for value in initial):
        return rolled
    source = np.random.default_rng(5).normal(0, 0.8, [d if isinstance(d, int) else 3 for d in shape])
    x = np.take(source.astype(np.float32), place, axis=cuts.axis)
    zeros = [np.zeros((len(x), rolled.cell.r.shape[2]), np.float32) for _ in initial]
    expected = answers(editor.model, initial, [cuts.source], [source.astype(np.float32)])
    if not close(expected, one_turn(editor.model, rolled.cell, [x, *zeros])):
        return rolled
    before = rolled.made[0][0].producer()
    assert before is not None
    inputs = (_turn(editor, before, cuts.source, cuts.axis, place), *rolled.inputs)
    made = tuple((value, *turns) for value, turns in zip(initial, rolled.made, strict=True))
    return _Rolled(rolled.cell, inputs, (None,) * len(made), made)


def _with_projection(editor: Editor, rolled: _Rolled) -> _Rolled:
    """With the matrix inside that all turns' inputs were multiplied by at once, before they were cut apart."""
    cuts, before = slices(rolled.inputs), rolled.made[0][-1].producer()
    width = rolled.cell.w.shape[2]
    if cuts is None or before is None or cuts.width is not None or not np.array_equal(
        np.abs(rolled.cell.w[0]).sum(axis=0), np.ones(width)
    ):  # fmt: skip
        return rolled
    product, bias = cuts.source.producer(), np.zeros(width, np.float32)
    if product is not None and is_op(product, "Add"):
        added = [found for value in product.inputs if (found := constant(value)) is not None]
        factors = [value for value in product.inputs if value is not None and constant(value) is None]
        if len(added) != 1 or len(factors) != 1 or added[0].size not in (1, width):
            return rolled
        product, bias = factors[0].producer(), bias + added[0].reshape(-1)
    matrix = constant(product.inputs[1]) if product is not None and is_op(product, "MatMul") else None
    source = None if product is None else product.inputs[0]
    if source is None or matrix is None or matrix.ndim != 2 or cuts.axis == len(dims(source) or ()) - 1:
        return rolled
    cell = rolled.cell
    shift = np.concatenate([cell.w[0] @ bias, np.zeros(width, np.float32)])
    composed = replace(cell, w=(cell.w[0] @ matrix.T)[None], b=(cell.b + shift).astype(cell.b.dtype))
    return replace(
        rolled, cell=composed, inputs=tuple(_turn(editor, before, source, cuts.axis, n) for n in cuts.starts)
    )


def _turn(editor: Editor, before: ir.Node, source: ir.Value, axis: int, place: int) -> ir.Value:
    shape = [d for i, d in enumerate(dims(source) or ()) if i != axis]
    index = editor.weight(np.asarray(place, np.int64), "turn")
    return editor.value(before, "Gather", [source, index], {"axis": axis}, shape=shape)


def _replace(editor: Editor, rolled: _Rolled) -> None:
    """One node in place of all turns."""
    hidden = rolled.made[0]
    last = hidden[-1].producer()
    assert last is not None
    ahead, shape = editor.ints([0], "axes"), dims(rolled.inputs[0]) or ()
    rows = [editor.value(last, "Unsqueeze", [value, ahead], shape=[1, *shape]) for value in rolled.inputs]
    sequence = editor.value(last, "Concat", rows, {"axis": 0}, shape=[len(rows), *shape])
    every, finals = emit(editor, last, rolled.cell, sequence, rolled.initial, "forward")
    for turn, value in enumerate(hidden):
        editor.swap(value, _turn(editor, last, every, 0, turn))
    for turns, final in zip(rolled.made[1:], finals[1:], strict=True):
        editor.swap(turns[-1], final)


def _closed(walk: _Lockstep, results: _Turns) -> bool:
    """True where nothing outside reads what the turns compute, but for h and each state's last."""
    inside = {node for nodes in walk.nodes for node in nodes}
    free = {*results, *(after[-1] for after in walk.states.values())}
    return all(
        value in free or (not value.is_graph_output() and all(user in inside for user, _ in value.uses()))
        for node in inside
        for value in node.outputs
    )


def _walked(chain: _Chain, first: int) -> tuple[_Lockstep, _Turns] | None:
    """The walk from the states after each turn from the ``first`` on; the one after the last has to be looked for."""
    states = _states(chain)
    if states is None or len(states) - first < _FEWEST_TURNS:
        return None
    for last in _candidates(chain, states[-1]):
        if _Lockstep(chain).walk((states[-1], last)):
            walk, results = _Lockstep(chain), (*states[first + 1 :], last)
            return (walk, results) if walk.walk(results) else None
    return None


def _states(chain: _Chain) -> _Turns | None:
    """What each product takes of the turn before: its factor, or the part of it that is no input of this turn."""
    factors = [product.inputs[0] for product in chain.products]
    joined = [None if factor is None else factor.producer() for factor in factors]
    if all(is_op(node, "Concat") for node in joined):
        second = joined[1]
        assert second is not None
        places = [i for i, value in enumerate(second.inputs) if value is not None and chain.depends(value)]
        if len(places) != 1:
            return None
        factors = [node.inputs[places[0]] for node in joined if node is not None and len(node.inputs) > places[0]]
    states = tuple(value for value in factors if value is not None)
    return states if len(states) == len(chain.products) else None


def _candidates(chain: _Chain, state: ir.Value) -> Iterator[ir.Value]:
    """What the last product leads to by an operator like the one that made ``state``, nearest first."""
    made = state.producer()
    turns = len(chain.products)
    alike = [
        n for n, depth in chain.within.items() if depth == turns and made is not None and n.op_type == made.op_type
    ]
    for node in alike[:_MOST_NODES_A_TURN]:
        assert made is not None
        yield node.outputs[min(made.outputs.index(state), len(node.outputs) - 1)]


recognise_unrolled = Pass(
    "re-roll recurrent layers",
    _apply,
    requires="inferred shapes",
    ensures="no cell of LSTM, GRU or RNN is written out turn by turn",
)
