"""A Loop that steps a recurrent cell becomes one LSTM, GRU or RNN node.

Exporters write the layers they do not know as a Loop over the cell's arithmetic. What the body computes is not matched
operator by operator, of which there are too many spellings, but by trying: the matrices that multiply the step's input
and the state are found, and each order of their gates (and each kind of cell) is run beside the body on random numbers.
Only one that answers the same is taken.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from hasten.errors import SourceError
from hasten.graph import reference
from hasten.passes import Pass
from hasten.passes.extract import extract
from hasten.passes.surgery import Editor, attribute, constant, dims, is_op, opset, scalar
from hasten.types import Array

__all__ = ["recognise_recurrence"]

_ROWS = 3
_TOLERANCE = 1e-5
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


@dataclass(frozen=True)
class _Step:
    """One turn of the loop.

    Shapes:  x (N, inputs), each state (N, hidden); weights (inputs, k·hidden), recurrent (hidden, k·hidden)
    """

    loop: ir.Node
    sequence: ir.Value
    x: ir.Value
    states: tuple[int, ...]
    """Places among what the loop carries."""
    known: dict[ir.Value, Array]
    weights: Array
    recurrent: Array
    bias: Array
    recurrent_bias: Array

    @property
    def body(self) -> ir.Graph:
        return self.loop.attributes["body"].as_graph()

    @property
    def hidden(self) -> int:
        return int(self.recurrent.shape[0])


@dataclass(frozen=True)
class _Cell:
    """A recurrent operator that does what the body does; ``hidden_first``: which carried state is h."""

    op: str
    attributes: dict[str, object]
    order: tuple[int, ...]
    hidden_first: bool = True


def _apply(model: ir.Model) -> int:
    editor = Editor(model)
    for node in list(model.graph):
        if is_op(node, "Loop"):
            step = _step(model, node)
            cell = None if step is None else next((c for c in _cells(step) if _same(model, step, c)), None)
            if step is not None and cell is not None:
                _replace(editor, step, cell)
    return editor.finish()


def _step(model: ir.Model, loop: ir.Node) -> _Step | None:
    body = loop.attributes["body"].as_graph()
    carried = len(loop.inputs) - 2
    trips, start = scalar(loop.inputs[0]), loop.inputs[1]
    if trips is None or (start is not None and scalar(start) != 1):
        return None
    known = {
        given: contents
        for given, handed, result in zip(body.inputs[2:], loop.inputs[2:], body.outputs[1:], strict=False)
        if given is result and (contents := constant(handed)) is not None
    }
    moving = [i for i in range(carried) if body.inputs[2 + i] is not body.outputs[1 + i]]
    states = tuple(i for i in moving if len(dims(body.inputs[2 + i]) or dims(loop.inputs[2 + i]) or ()) == 2)
    counters = [body.inputs[0], *(body.inputs[2 + i] for i in moving if i not in states)]
    read = _read_of_sequence(body, counters)
    if read is None or len(states) not in (1, 2) or not _runs_through(model, loop, int(trips), counters, known):
        return None
    sequence = read.inputs[0]
    if sequence is None or (dims(sequence) or (None,))[0] != int(trips) or len(dims(sequence) or ()) != 3:
        return None
    return _with_weights(model, loop, (sequence, read.outputs[0]), states, known)


def _read_of_sequence(body: ir.Graph, counters: Sequence[ir.Value]) -> ir.Node | None:
    """The node that reads this turn's slice of a tensor from outside."""
    found = [
        node
        for node in body
        if is_op(node, "Gather")
        and attribute(node, "axis", 0) == 0
        and node.inputs[1] in counters
        and node.inputs[0] is not None
        and node.inputs[0].graph is not body
    ]
    return found[0] if len(found) == 1 else None


def _runs_through(
    model: ir.Model, loop: ir.Node, trips: int, counters: Sequence[ir.Value], known: dict[ir.Value, Array]
) -> bool:
    """True where every counter is the number of the turn, and the condition holds before the last one."""
    body = loop.attributes["body"].as_graph()
    places = [body.inputs.index(counter) for counter in counters[1:]]
    if any(scalar(loop.inputs[place]) != 0 for place in places):
        return False
    wanted = [body.outputs[0], *(body.outputs[place - 1] for place in places)]
    part = extract(model, [value for value in wanted if value.producer() is not None], counters, known)
    if part is None:
        return False
    kept = wanted[0].producer() is not None
    for turn in sorted({0, trips // 2, max(0, trips - 2)}):
        given = [np.asarray(turn, (c.dtype or ir.DataType.INT64).numpy()) for c in counters]
        try:
            answers = reference.run(part, given)
        except SourceError:
            return False
        goes_on = bool(answers[0]) if kept else True
        if (turn < trips - 1 and not goes_on) or any(int(n) != turn + 1 for n in answers[int(kept) :]):
            return False
    return True


def _with_weights(
    model: ir.Model,
    loop: ir.Node,
    read: tuple[ir.Value, ir.Value],
    states: tuple[int, ...],
    known: dict[ir.Value, Array],
) -> _Step | None:
    body = loop.attributes["body"].as_graph()
    by_input = _product(model, body, [read[1]], known)
    by_state = _product(model, body, [body.inputs[2 + i] for i in states], known)
    if by_input is None or by_state is None:
        return None
    weights, recurrent = by_input[1], by_state[1]
    hidden, width = recurrent.shape
    if weights.shape[1] != width or width not in (hidden, 3 * hidden, 4 * hidden):
        return None
    # A bias added to the sum of both products belongs to the input's; the state's chain ends where the two meet.
    added = list(_added(by_state[0].outputs[0]))
    own = itertools.takewhile(lambda value: _evaluate(model, value, known) is not None, added)
    biases = (
        _bias(model, (*by_input[0].inputs[2:3], *_added(by_input[0].outputs[0])), width, known),
        _bias(model, (*by_state[0].inputs[2:3], *own), width, known),
    )
    return _Step(loop, *read, states, known, weights, recurrent, *biases)


def _product(
    model: ir.Model, body: ir.Graph, factors: Sequence[ir.Value], known: dict[ir.Value, Array]
) -> tuple[ir.Node, Array] | None:
    """The one product with one of ``factors``, and its matrix as (inputs, outputs)."""
    found = [node for node in body if is_op(node, "MatMul", "Gemm") and node.inputs[0] in factors]
    if len(found) != 1 or attribute(found[0], "transA", 0):
        return None
    node = found[0]
    matrix = _evaluate(model, node.inputs[1], known)
    if matrix is None or matrix.ndim != 2 or {attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)} != {1.0}:
        return None
    return node, matrix.T if attribute(node, "transB", 0) else matrix


def _bias(model: ir.Model, added: Sequence[ir.Value | None], width: int, known: dict[ir.Value, Array]) -> Array:
    """The sum of those that are the same on every turn."""
    bias = np.zeros(width, np.float32)
    for value in added:
        numbers = _evaluate(model, value, known)
        if numbers is not None and numbers.size in (1, width):
            bias = bias + numbers.reshape(-1)
    return bias


def _added(value: ir.Value) -> Iterator[ir.Value]:
    """What is added to ``value``, one after the other."""
    while len(users := [user for user, _ in value.uses()]) == 1 and is_op(users[0], "Add"):
        yield from (other for other in users[0].inputs if other is not None and other is not value)
        value = users[0].outputs[0]


def _evaluate(model: ir.Model, value: ir.Value | None, known: dict[ir.Value, Array]) -> Array | None:
    """What ``value`` holds on every turn; None where it changes."""
    if value is None:
        return None
    part = extract(model, [value], (), known)
    try:
        return None if part is None else reference.run(part, ())[0]
    except SourceError:
        return None


def _cells(step: _Step) -> Iterator[_Cell]:
    """Every cell that the weights' sizes allow."""
    gates = step.recurrent.shape[1] // step.hidden
    base: dict[str, object] = {"hidden_size": step.hidden}
    for order in itertools.permutations(range(gates)):
        if gates == 4 and len(step.states) == 2:
            yield from (_Cell("LSTM", base, order, first) for first in (True, False))
        elif gates == 3 and len(step.states) == 1:
            yield from (_Cell("GRU", {**base, "linear_before_reset": late}, order) for late in (1, 0))
        elif gates == 1 and len(step.states) == 1:
            yield from (_Cell("RNN", {**base, "activations": [name]}, order) for name in ("Tanh", "Relu", "Sigmoid"))


def _same(model: ir.Model, step: _Step, cell: _Cell) -> bool:
    """True where one step of the cell answers as the body does on random numbers."""
    rng = np.random.default_rng(11)
    x = rng.normal(0, 1, (_ROWS, step.weights.shape[0])).astype(np.float32)
    states = [rng.normal(0, 0.7, (_ROWS, step.hidden)).astype(np.float32) for _ in step.states]
    given = [step.x, *(step.body.inputs[2 + i] for i in step.states)]
    part = extract(model, [step.body.outputs[1 + i] for i in step.states], given, step.known)
    if part is None:
        return False
    for value, array in zip(part.graph.inputs, (x, *states), strict=True):
        value.dtype, value.shape = ir.DataType.FLOAT, ir.Shape(array.shape)
    try:
        expected = reference.run(part, [x, *states])
        received = reference.run(_one_step(model, step, cell), [x[None], *(state[None] for state in states)])
    except SourceError:
        return False
    return all(
        a.shape == b.shape[1:] and float(np.max(np.abs(a - b[0]))) < _TOLERANCE
        for a, b in zip(expected, received, strict=True)
    )


def _one_step(model: ir.Model, step: _Step, cell: _Cell) -> ir.Model:
    w, r, b = _packed(step, cell)
    x = ir.Value(name="x", shape=ir.Shape((1, _ROWS, w.shape[2])), type=ir.TensorType(ir.DataType.FLOAT))
    shape = ir.Shape((1, _ROWS, step.hidden))
    states = [ir.Value(name=f"s{i}", shape=shape, type=ir.TensorType(ir.DataType.FLOAT)) for i in step.states]
    weights = []
    for name, array in (("w", w), ("r", r), ("b", b)):
        tensor = ir.tensor(array)
        weights.append(
            ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        )
    ordered = states if cell.hidden_first else states[::-1]
    node = ir.node(cell.op, [x, *weights, None, *ordered], cell.attributes, num_outputs=1 + len(states))
    for i, value in enumerate(node.outputs):
        value.name, value.dtype = f"y{i}", ir.DataType.FLOAT
    results = node.outputs[1:] if cell.hidden_first else node.outputs[:0:-1]
    graph = ir.Graph(
        [x, *states], results, nodes=[node], initializers=weights, opset_imports={"": opset(model)}, name="step"
    )
    return ir.Model(graph, ir_version=model.ir_version or 8)


def _packed(step: _Step, cell: _Cell) -> tuple[Array, Array, Array]:
    """W (1, k·hidden, inputs), R (1, k·hidden, hidden), B (1, 2·k·hidden), gates in ONNX's order."""
    columns = np.concatenate([np.arange(step.hidden) + gate * step.hidden for gate in cell.order])
    bias = np.concatenate([step.bias[columns], step.recurrent_bias[columns]])
    return (
        np.ascontiguousarray(step.weights.T[columns])[None],
        np.ascontiguousarray(step.recurrent.T[columns])[None],
        bias[None].astype(step.weights.dtype),
    )


def _replace(editor: Editor, step: _Step, cell: _Cell) -> None:
    loop, body = step.loop, step.body
    hidden = step.states[0 if cell.hidden_first else -1]
    scans = list(zip(body.outputs[1 + len(loop.inputs) - 2 :], loop.outputs[len(loop.inputs) - 2 :], strict=True))
    if any(_unwrapped(inner) is not _unwrapped(body.outputs[1 + hidden]) for inner, outer in scans if outer.uses()):
        return
    finals = [value for i, value in enumerate(loop.outputs[: len(loop.inputs) - 2]) if i not in step.states]
    if any(value.uses() or value.is_graph_output() for value in finals):
        return
    packed = zip("wrb", _packed(step, cell), strict=True)
    parts = [editor.weight(array, f"{loop.name}_{name}") for name, array in packed]
    ahead, second = editor.ints([0], "axes"), editor.ints([1], "axes")
    initial = [
        editor.value(loop, "Unsqueeze", [loop.inputs[2 + i], ahead], shape=[1, *(dims(loop.inputs[2 + i]) or ())])
        for i in step.states
    ]
    ordered = initial if cell.hidden_first else initial[::-1]
    made = editor.node(
        loop, cell.op, [step.sequence, *parts, None, *ordered], cell.attributes, outputs=1 + len(step.states)
    )
    for value in made.outputs:
        value.dtype = ir.DataType.FLOAT
    for _, outer in scans:
        if outer.uses() or outer.is_graph_output():
            editor.swap(outer, editor.value(loop, "Squeeze", [made.outputs[0], second]))
    results = made.outputs[1:] if cell.hidden_first else made.outputs[:0:-1]
    for place, value in zip(step.states, results, strict=True):
        if loop.outputs[place].uses() or loop.outputs[place].is_graph_output():
            editor.swap(loop.outputs[place], editor.value(loop, "Squeeze", [value, ahead]))


def _unwrapped(value: ir.Value) -> ir.Value:
    producer = value.producer()
    while is_op(producer, "Identity"):
        assert producer is not None and producer.inputs[0] is not None
        value = producer.inputs[0]
        producer = value.producer()
    return value


recognise_recurrence = Pass(
    "recognise recurrent layers",
    _apply,
    requires="inferred shapes, constants folded",
    ensures="a Loop over a cell with the arithmetic of LSTM, GRU or RNN is that node",
)
