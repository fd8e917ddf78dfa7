"""Tells which recurrent operator a step of arithmetic is: LSTM, GRU or RNN, with which weights.

What the step computes is not matched operator by operator, of which there are too many spellings, but by trying: the
matrices that multiply the step's input and the state are found, and each order of their gates (and each kind of cell)
is run beside the step on random numbers. Only one that answers the same is taken.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import onnx_ir as ir

from hasten.errors import SourceError
from hasten.graph import reference
from hasten.passes.extract import extract
from hasten.passes.surgery import Editor, attribute, dims, is_op, opset
from hasten.types import Array

__all__ = ["Cell", "Step", "answers", "cell_of", "close", "emit", "evaluate", "one_turn"]

_Item = TypeVar("_Item")

_ROWS = 3
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Step:
    """One turn of a recurrence.

    Shapes:  x (N, inputs), each state (N, hidden); ``results``: the states afterwards, in the same order
    """

    x: ir.Value
    states: tuple[ir.Value, ...]
    results: tuple[ir.Value, ...]
    nodes: tuple[ir.Node, ...]
    known: Mapping[ir.Value, Array] = field(default_factory=dict)
    """Contents of values that are the same on every turn but no constants where they stand."""

    @property
    def rows(self) -> int:
        """How many rows to try it on: those it is made for, where its batch is fixed."""
        first = (dims(self.results[0]) or dims(self.states[0]) or (None,))[0]
        return first if isinstance(first, int) else _ROWS


@dataclass(frozen=True)
class Cell:
    """A recurrent operator that does what a step does; weights as ONNX wants them.

    Shapes:  w (1, k·hidden, inputs), r (1, k·hidden, hidden), b (1, 2·k·hidden)
    """

    op: str
    attributes: Mapping[str, object]
    w: Array
    r: Array
    b: Array
    hidden: int
    """Place of h among the step's states."""


@dataclass(frozen=True)
class _Matrices:
    """What multiplies the input and the state, gate beside gate. Shapes: (rows, k·hidden); biases (k·hidden,)"""

    by_input: Array
    by_state: Array
    bias: Array
    state_bias: Array


@dataclass(frozen=True)
class _Product:
    node: ir.Node
    matrix: Array
    bias: Array
    of_input: bool
    of_state: bool


def cell_of(model: ir.Model, step: Step) -> Cell | None:
    """The operator that answers as the step does, or None."""
    expected = None
    for matrices in _matrices(model, step):
        rng = np.random.default_rng(11)
        widths = [matrices.by_input.shape[0], *[matrices.by_state.shape[0]] * len(step.states)]
        arrays = [rng.normal(0, 0.8, (step.rows, width)).astype(np.float32) for width in widths]
        expected = expected or answers(model, step.results, [step.x, *step.states], arrays, step.known)
        if expected is None:
            return None
        for cell in _cells(matrices, step):
            if close(expected, one_turn(model, cell, arrays)):
                return cell
    return None


def emit(
    editor: Editor, before: ir.Node, cell: Cell, sequence: ir.Value, initial: Sequence[ir.Value | None], direction: str
) -> tuple[ir.Value, list[ir.Value]]:
    """The operator over all turns, and what it leaves: h after each turn (T, N, hidden), and each final state.

    An ``initial`` state of None is zero.
    """
    hint = before.name or before.op_type
    weights = [editor.weight(array, f"{hint}_{name}") for name, array in (("w", cell.w), ("r", cell.r), ("b", cell.b))]
    ahead, second = editor.ints([0], "axes"), editor.ints([1], "axes")
    given = [
        None
        if value is None
        else editor.value(before, "Unsqueeze", [value, ahead], shape=[1, *(dims(value) or (None, None))])
        for value in _h_first(cell, initial)
    ]
    attributes = {**cell.attributes, "direction": direction}
    made = editor.node(before, cell.op, [sequence, *weights, None, *given], attributes, outputs=1 + len(initial))
    for value in made.outputs:
        value.dtype = ir.DataType.FLOAT
    every = editor.value(before, "Squeeze", [made.outputs[0], second])
    finals = [editor.value(before, "Squeeze", [value, ahead]) for value in made.outputs[1:]]
    return every, _h_first(cell, finals)


def _h_first(cell: Cell, states: Sequence[_Item]) -> list[_Item]:
    """States in the operator's order (h, then c); its own inverse, since there are two at most."""
    return list(states) if cell.hidden == 0 else list(states)[::-1]


def evaluate(model: ir.Model, value: ir.Value | None, known: Mapping[ir.Value, Array]) -> Array | None:
    """What ``value`` holds on every turn; None where it changes."""
    if value is None:
        return None
    part = extract(model, [value], (), known)
    try:
        return None if part is None else reference.run(part, ())[0]
    except SourceError:
        return None


def _matrices(model: ir.Model, step: Step) -> Iterator[_Matrices]:
    """The ways in which the step's products may belong together."""
    products = [found for node in step.nodes if (found := _product(model, node, step)) is not None]
    both = [p for p in products if p.of_input and p.of_state]
    alone = [p for p in products if p.of_input and not p.of_state]
    states = [p for p in products if p.of_state and not p.of_input]
    rows = {p.matrix.shape[0] for p in states} or {(dims(step.results[0]) or (None,))[-1]}
    hidden = rows.pop()
    if rows or not isinstance(hidden, int):
        return
    if states and not (both or alone):
        yield _projected(model, step, states)
    yield from (_joined(step, both, alone, list(order), hidden) for order in _partners(alone, states))


def _projected(model: ir.Model, step: Step, states: Sequence[_Product]) -> _Matrices:
    """Where the step's input comes multiplied already; all that is added then belongs to the input."""
    by_state = np.concatenate([p.matrix for p in states], axis=1)
    width, own = by_state.shape[1], np.concatenate([p.bias for p in states])
    added = [_bias(model, list(_added(p.node.outputs[0])), p.matrix.shape[1], step.known) for p in states]
    given = [_bias(model, p.node.inputs[2:3], p.matrix.shape[1], step.known) for p in states]
    everything = np.concatenate(added) + np.concatenate(given)
    return _Matrices(np.eye(width, dtype=by_state.dtype), by_state, everything - own, own)


def _partners(alone: Sequence[_Product], states: Sequence[_Product]) -> Iterator[tuple[_Product, ...]]:
    """Orders of the state's products, each beside the input's that it is added to; the others in every order."""
    if len(alone) != len(states) or not alone:
        yield from [()] if not alone and not states else []
        return
    fixed = {i: s for i, a in enumerate(alone) for s in states if _meet(a.node, s.node)}
    rest = [s for s in states if s not in fixed.values()]
    open_places = [i for i in range(len(alone)) if i not in fixed]
    if len(set(map(id, fixed.values()))) != len(fixed) or len(rest) != len(open_places):
        return
    for order in itertools.permutations(rest):
        placed = {**fixed, **dict(zip(open_places, order, strict=True))}
        yield tuple(placed[i] for i in range(len(alone)))


def _meet(one: ir.Node, other: ir.Node) -> bool:
    sums = {id(value) for value in _sums(one.outputs[0])}
    return any(id(value) in sums for value in _sums(other.outputs[0]))


def _sums(value: ir.Value) -> Iterator[ir.Value]:
    """The sums that ``value`` ends up in, one after the other."""
    while len(users := [user for user, _ in value.uses()]) == 1 and is_op(users[0], "Add"):
        value = users[0].outputs[0]
        yield value


def _joined(
    step: Step, both: Sequence[_Product], alone: Sequence[_Product], states: Sequence[_Product], hidden: int
) -> _Matrices:
    split = [_parted(step, p, hidden) for p in both]
    return _Matrices(
        np.concatenate([*(x for x, _ in split), *(p.matrix for p in alone)], axis=1),
        np.concatenate([*(h for _, h in split), *(p.matrix for p in states)], axis=1),
        np.concatenate([p.bias for p in (*both, *alone)]),
        np.concatenate([*(np.zeros_like(p.bias) for p in both), *(p.bias for p in states)]),
    )


def _parted(step: Step, product: _Product, hidden: int) -> tuple[Array, Array]:
    """A product with input and state side by side, as one with each."""
    producer = product.node.inputs[0].producer() if product.node.inputs[0] is not None else None
    assert producer is not None
    if producer.inputs[0] is step.x:
        return product.matrix[:-hidden], product.matrix[-hidden:]
    return product.matrix[hidden:], product.matrix[:hidden]


def _product(model: ir.Model, node: ir.Node, step: Step) -> _Product | None:
    """The product of a matrix that never changes with the input, the state, something made of it, or both."""
    if not is_op(node, "MatMul", "Gemm") or node.inputs[0] is None or attribute(node, "transA", 0):
        return None
    matrix = evaluate(model, node.inputs[1], step.known)
    if matrix is None or matrix.ndim != 2 or {attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)} != {1.0}:
        return None
    matrix = matrix.T if attribute(node, "transB", 0) else matrix
    factor = node.inputs[0]
    joined = factor.producer()
    beside = is_op(joined, "Concat") and joined is not None and len(joined.inputs) == 2 and step.x in joined.inputs
    of_input = factor is step.x or beside
    # A bias added to the sum of both products belongs to the input's; the state's chain ends where the two meet.
    added = [] if node.op_type == "MatMul" or len(node.inputs) < 3 else [node.inputs[2]]
    own = itertools.takewhile(lambda v: of_input or evaluate(model, v, step.known) is not None, _added(node.outputs[0]))
    bias = _bias(model, [*added, *own], matrix.shape[1], step.known)
    return _Product(node, matrix, bias, of_input, factor is not step.x)


def _bias(model: ir.Model, added: Sequence[ir.Value | None], width: int, known: Mapping[ir.Value, Array]) -> Array:
    """The sum of those that are the same on every turn."""
    bias = np.zeros(width, np.float32)
    for value in added:
        numbers = evaluate(model, value, known)
        if numbers is not None and numbers.size in (1, width):
            bias = bias + numbers.reshape(-1)
    return bias


def _added(value: ir.Value) -> Iterator[ir.Value]:
    """What is added to ``value``, one after the other."""
    for total in _sums(value):
        producer = total.producer()
        assert producer is not None
        yield from (other for other in producer.inputs if other is not None and other is not value)
        value = total


def _cells(matrices: _Matrices, step: Step) -> Iterator[Cell]:
    """Every cell that the weights' sizes allow."""
    hidden, width = matrices.by_state.shape
    states = len(step.states)
    gates = width // hidden if matrices.by_input.shape[1] == width and width % hidden == 0 else 0
    base: dict[str, object] = {"hidden_size": hidden}
    for order in itertools.permutations(range(gates)) if gates <= 4 else ():
        weights = _packed(matrices, hidden, order)
        if gates == 4 and states == 2:
            for bent in _bent(step, 2):
                yield from (Cell("LSTM", {**base, **bent}, *weights, place) for place in (0, 1))
        elif gates == 3 and states == 1:
            for kept, bent in itertools.product((weights, _update_turned(weights, hidden)), _bent(step, 1)):
                yield from (Cell("GRU", {**base, **bent, "linear_before_reset": late}, *kept, 0) for late in (1, 0))
        elif gates == 1 and states == 1:
            yield from (Cell("RNN", {**base, "activations": [a]}, *weights, 0) for a in ("Tanh", "Relu", "Sigmoid"))


def _bent(step: Step, times: int) -> Iterator[dict[str, object]]:
    """The attributes of what may bend the new values: Tanh, which ONNX takes without a word, or what else is there."""
    yield {}
    if any(is_op(node, "Relu", "Max", "Clip") for node in step.nodes):
        yield {"activations": ["Sigmoid", *["Relu"] * times]}


def _packed(matrices: _Matrices, hidden: int, order: Sequence[int]) -> tuple[Array, Array, Array]:
    """W, R and B with the gates in ``order``."""
    columns = np.concatenate([np.arange(hidden) + gate * hidden for gate in order])
    bias = np.concatenate([matrices.bias[columns], matrices.state_bias[columns]])
    return (
        np.ascontiguousarray(matrices.by_input.T[columns])[None],
        np.ascontiguousarray(matrices.by_state.T[columns])[None],
        bias[None].astype(matrices.by_input.dtype),
    )


def _update_turned(weights: tuple[Array, Array, Array], hidden: int) -> tuple[Array, Array, Array]:
    """The weights for a GRU whose update gate opens where ONNX's closes: 1 - σ(a) is σ(-a)."""
    w, r, b = (array.copy() for array in weights)
    w[:, :hidden] *= -1
    r[:, :hidden] *= -1
    b[:, :hidden] *= -1
    b[:, 3 * hidden : 4 * hidden] *= -1
    return w, r, b


def answers(
    model: ir.Model,
    wanted: Sequence[ir.Value],
    given: Sequence[ir.Value],
    arrays: Sequence[Array],
    known: Mapping[ir.Value, Array] | None = None,
) -> tuple[Array, ...] | None:
    """What ``wanted`` holds when ``given`` holds ``arrays``; None where that does not settle it."""
    part = extract(model, wanted, given, known)
    if part is None:
        return None
    for value, array in zip(part.graph.inputs, arrays, strict=True):
        value.dtype, value.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
    try:
        return reference.run(part, arrays)
    except SourceError:
        return None


def one_turn(model: ir.Model, cell: Cell, arrays: Sequence[Array]) -> tuple[Array, ...] | None:
    """The states after one turn of the cell, in the step's order."""
    taken = [array[None] for array in (arrays[0], *_h_first(cell, arrays[1:]))]
    names = ["x", *(f"s{i}" for i in range(len(taken) - 1))]
    inputs = [
        ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(ir.DataType.FLOAT))
        for name, array in zip(names, taken, strict=True)
    ]
    weights = [_weight(name, array) for name, array in (("w", cell.w), ("r", cell.r), ("b", cell.b))]
    node = ir.node(
        cell.op, [inputs[0], *weights, None, *inputs[1:]], dict(cell.attributes), num_outputs=1 + len(inputs) - 1
    )
    for i, value in enumerate(node.outputs):
        value.name, value.dtype = f"y{i}", ir.DataType.FLOAT
    graph = ir.Graph(
        inputs, node.outputs[1:], nodes=[node], initializers=weights, opset_imports={"": opset(model)}, name="turn"
    )
    try:
        found = reference.run(ir.Model(graph, ir_version=model.ir_version or 8), taken)
    except SourceError:
        return None
    return tuple(_h_first(cell, [value[0] for value in found]))


def _weight(name: str, array: Array) -> ir.Value:
    tensor = ir.tensor(array)
    return ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)


def close(expected: Sequence[Array] | None, received: Sequence[Array] | None) -> bool:
    """True where both are there and differ by rounding only."""
    return (
        expected is not None
        and received is not None
        and all(
            a.shape == b.shape and float(np.max(np.abs(a - b))) < _TOLERANCE
            for a, b in zip(expected, received, strict=True)
        )
    )
