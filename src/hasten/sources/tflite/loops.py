"""A loop that steps a recurrent cell over a sequence enters, one LSTM, GRU or RNN node leaves.

Converters write a Keras layer as a loop when they find no fused operator for it. What a loop computes is not read off
its nodes, which come in many forms: its weights are collected, and the loop's body is *run* on random states beside
each cell's formula. Only a body that agrees, step, stacking and end included, is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from hasten.graph import shapes
from hasten.sources.tflite.writer import Writer
from hasten.types import Array

__all__ = ["roll_loops"]

_DRAWS = 3
_CLOSE = 1e-4
_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"Tanh": np.tanh, "Relu": lambda x: np.maximum(x, 0)}


def roll_loops(model: ir.Model) -> int:
    """Replaces every such loop of the main graph; returns how many."""
    rolled = 0
    for node in [node for node in model.graph if node.op_type == "Loop"]:
        if _rolled(model, node):
            rolled += 1
            shapes.infer(model)  # a later loop may step over what this one stacked
    return rolled


@dataclass(frozen=True)
class _Cell:
    """A candidate for what the body computes, with weights in the order that ONNX wants.

    Shapes:  weights (in, gates · H) · recurrent (H, gates · H) · biases (gates · H)
    """

    op_type: str
    weights: Array
    recurrent: Array
    biases: tuple[Array, Array]
    activation: str = "Tanh"
    """ONNX's name of what bends the new value, and an LSTM's cell state on its way out."""

    def step(self, x: Array, states: Sequence[Array]) -> tuple[Array, ...]:
        """The formula: the next states.

        Shapes:  x (N, in), states (N, H) each
        """
        h, bend = states[0], _ACTIVATIONS[self.activation]
        from_x, from_h = x @ self.weights + self.biases[0], h @ self.recurrent + self.biases[1]
        if self.op_type == "RNN":
            return (bend(from_x + from_h),)
        if self.op_type == "LSTM":
            i, f, g, o = np.split(from_x + from_h, 4, axis=1)
            c = _sigmoid(f) * states[1] + _sigmoid(i) * bend(g)
            return _sigmoid(o) * bend(c), c
        (xz, xr, xh), (hz, hr, hh) = (np.split(m, 3, axis=1) for m in (from_x, from_h))
        z = _sigmoid(xz + hz)
        return (z * h + (1 - z) * bend(xh + _sigmoid(xr + hr) * hh),)


@dataclass
class _Roles:
    """Which of the loop's carried values is what, as positions among them."""

    counters: list[int] = field(default_factory=list)
    sequence: int = -1
    stacked: int = -1
    scanned: bool = False
    """True where the loop itself stacks: ``stacked`` is then its one scan output."""
    states: list[int] = field(default_factory=list)


def _rolled(model: ir.Model, node: ir.Node) -> bool:
    body = node.attributes["body"].as_graph()
    roles = _roles(node, body)
    if roles is None:
        return False
    probe = _Probe(model, node, body, roles)
    cell = next((c for c in _cells(body, roles) if probe.steps_like(c)), None)
    if cell is None or not probe.counts_to_the_end():
        return False
    every_step = probe.stacks_every_step()
    if every_step is None or any(node.outputs[place].uses() for place in roles.counters):
        return False
    _replace(model, node, roles, cell, every_step)
    return True


def _roles(node: ir.Node, body: ir.Graph) -> _Roles | None:
    count = len(node.inputs) - 2
    scanned = len(body.outputs) - 1 - count
    if scanned not in (0, 1):
        return None
    roles = _Roles(stacked=count if scanned else -1, scanned=bool(scanned))
    for place in range(count):
        source, target = body.inputs[2 + place], body.outputs[1 + place]
        rank = None if source.shape is None else len(source.shape)
        if source.dtype is not None and source.dtype.is_integer() and rank == 0:
            roles.counters.append(place)
        elif target is source or target.name == source.name:
            roles.sequence = place if rank == 3 and roles.sequence < 0 else roles.sequence
        elif rank == 3 and not scanned:
            roles.stacked = place
        elif rank == 2:
            roles.states.append(place)
    fits = roles.sequence >= 0 and roles.counters and len(roles.states) in (1, 2)
    steady = all(_static(node.inputs[2 + p]) for p in (roles.sequence, *roles.states))
    return roles if fits and roles.stacked >= 0 and steady else None


def _static(value: ir.Value | None) -> bool:
    return value is not None and value.shape is not None and value.shape.is_static()


def _cells(body: ir.Graph, roles: _Roles) -> list[_Cell]:
    """Every cell that the body's weights could belong to; the hidden state is put first among the states."""
    gathered = [n.outputs[0] for n in body if n.op_type == "Gather" and n.inputs[0] is body.inputs[2 + roles.sequence]]
    if len(gathered) != 1:
        return []
    weights = _weights_of(body, gathered[0])
    for place in list(roles.states):
        recurrent = _weights_of(body, body.inputs[2 + place])
        if weights is not None and recurrent is not None:
            roles.states.sort(key=lambda p: p != place)
            return _with_biases(body, weights, recurrent)
    return []


def _with_biases(body: ir.Graph, weights: Array, recurrent: Array) -> list[_Cell]:
    units, width = recurrent.shape
    op_type = {1: "RNN", 3: "GRU", 4: "LSTM"}.get(width // units)
    if op_type is None or weights.shape[1] != width:
        return []
    biases = []
    for node in body:
        for value in node.inputs if node.op_type in ("Add", "Gemm") else ():
            constant = None if value is None else _constant(value)
            if constant is not None and constant.size == width and constant.dtype == np.float32:
                biases.append(constant.reshape(-1))
    zero = np.zeros(width, np.float32)
    pairs = [(a, b) for a in (*biases, zero) for b in (*biases, zero)]
    return [_Cell(op_type, weights, recurrent, pair, bend) for bend in _ACTIVATIONS for pair in pairs]


def _weights_of(body: ir.Graph, value: ir.Value) -> Array | None:
    """The matrix that a value is multiplied by, as (in, out)."""
    for node in body:
        if node.op_type in ("MatMul", "Gemm") and node.inputs[0] is value and node.inputs[1] is not None:
            matrix = _constant(node.inputs[1])
            if matrix is not None and matrix.ndim == 2:
                return matrix.T if node.op_type == "Gemm" and _flag(node, "transB") else matrix
    return None


def _flag(node: ir.Node, name: str) -> bool:
    attribute = node.attributes.get(name)
    return attribute is not None and attribute.as_int() != 0


def _constant(value: ir.Value) -> Array | None:
    found = ir.convenience.get_const_tensor(value)
    return None if found is None else found.numpy()


class _Probe:
    """The loop's body as a model of its own, run on values of our choice."""

    def __init__(self, model: ir.Model, node: ir.Node, body: ir.Graph, roles: _Roles) -> None:
        self.roles = roles
        self.shapes = [_sizes(v) for v in node.inputs[2:]]
        self.kinds = [v.dtype.numpy() if v.dtype is not None else np.float32 for v in body.inputs[2:]]
        self.starts = [None if v is None else _constant(v) for v in node.inputs[2:]]
        self.steps = self.shapes[roles.sequence][0]
        options = ort.SessionOptions()
        options.log_severity_level = 4
        self.session = ort.InferenceSession(_standalone(model, body), options, providers=["CPUExecutionProvider"])
        self.names = [value.name or "" for value in body.inputs]

    def run(self, rng: np.random.Generator, step: int) -> tuple[list[Array], list[Array]]:
        """One step at position ``step`` from random states: what went in, what came out (condition first)."""
        given: list[Array] = []
        for place, (shape, kind) in enumerate(zip(self.shapes, self.kinds, strict=True)):
            if place in self.roles.counters:
                given.append(np.array(step, kind))
            elif place == self.roles.stacked:
                given.append(np.zeros(self._stack_shape(), kind))
            else:
                given.append(rng.standard_normal(shape).astype(kind))
        feeds = dict(zip(self.names, [np.array(step, np.int64), np.array(True), *given], strict=True))
        known = {i.name for i in self.session.get_inputs()}
        return given, self.session.run(None, {name: value for name, value in feeds.items() if name in known})

    def _stack_shape(self) -> list[int]:
        return list(self.shapes[self.roles.stacked])

    def steps_like(self, cell: _Cell) -> bool:
        """True when the body's next states are the cell's."""
        rng = np.random.default_rng(0)
        for draw in range(_DRAWS):
            given, answers = self.run(rng, draw % self.steps)
            wanted = cell.step(given[self.roles.sequence][draw % self.steps], [given[p] for p in self.roles.states])
            found = [answers[1 + place] for place in self.roles.states]
            if any(np.abs(w - f).max() > _CLOSE for w, f in zip(wanted, found, strict=True)):
                return False
        return True

    def counts_to_the_end(self) -> bool:
        """True when counters start at 0, rise by 1, and stop the loop after the sequence's last step and not before."""
        starts = [self.starts[place] for place in self.roles.counters]
        if any(start is None or start.reshape(-1)[0] != 0 for start in starts):
            return False
        rng = np.random.default_rng(0)
        goes_on = []
        for step in range(max(self.steps - 2, 0), self.steps):
            _, answers = self.run(rng, step)
            if any(int(answers[1 + place]) != step + 1 for place in self.roles.counters):
                return False
            goes_on.append(bool(answers[0]))
        return not goes_on[-1] and all(goes_on[:-1])

    def stacks_every_step(self) -> bool | None:
        """True: the hidden state is stored at each step; False: in one place, so that the last stays; None: neither."""
        rng = np.random.default_rng(0)
        if self.roles.scanned:
            _, answers = self.run(rng, 0)
            return True if np.allclose(answers[-1], answers[1 + self.roles.states[0]], atol=_CLOSE) else None
        length, rows = self._stack_shape()[0], []
        for step in {0, self.steps - 1}:
            _, answers = self.run(rng, step)
            stack, h = answers[1 + self.roles.stacked], answers[1 + self.roles.states[0]]
            written = [row for row in range(length) if np.any(stack[row])]
            if len(written) != 1 or not np.allclose(stack[written[0]], h, atol=_CLOSE):
                return None
            rows.append((step, written[0]))
        if length == self.steps and all(step == row for step, row in rows):
            return True
        return False if length == 1 else None


def _sizes(value: ir.Value | None) -> tuple[int, ...]:
    shape = None if value is None else value.shape
    return tuple(d if isinstance(d, int) else 1 for d in shape or ())


def _standalone(model: ir.Model, body: ir.Graph) -> bytes:
    """The body as a model; what it captures from outside must be constant, and is put inside."""
    graph = ir.serde.serialize_graph(body)
    inside = {i.name for i in graph.initializer} | {i.name for i in graph.input}
    made = {name for node in graph.node for name in node.output}
    for name in {name for node in graph.node for name in node.input} - inside - made - {""}:
        captured = model.graph.initializers.get(name)
        if captured is not None and captured.const_value is not None:
            graph.initializer.append(onnx.numpy_helper.from_array(captured.const_value.numpy(), name))
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    data: bytes = onnx.helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()
    return data


def _replace(model: ir.Model, node: ir.Node, roles: _Roles, cell: _Cell, every_step: bool) -> None:
    w = Writer()
    units = len(cell.recurrent)
    order = {"LSTM": (0, 3, 1, 2), "GRU": (0, 1, 2), "RNN": (0,)}[cell.op_type]
    weights, recurrent = (_reordered(m, order).T[None] for m in (cell.weights, cell.recurrent))
    bias = np.concatenate([_reordered(b[None], order)[0] for b in cell.biases])[None]
    starts = [w.op("Unsqueeze", node.inputs[2 + place], w.ints(0)) for place in roles.states]
    inputs = [node.inputs[2 + roles.sequence], w.const(weights), w.const(recurrent), w.const(bias), None, *starts]
    more: dict[str, Any] = {"linear_before_reset": 1} if cell.op_type == "GRU" else {}
    if cell.activation != "Tanh":
        gates = {"LSTM": ["Sigmoid", cell.activation], "GRU": ["Sigmoid"]}.get(cell.op_type, [])
        more["activations"] = [*gates, cell.activation]
    answers = w.ops(cell.op_type, inputs, 1 + len(starts), hidden_size=units, **more)
    ends = [w.op("Squeeze", answer, w.ints(0)) for answer in answers[1:]]
    stacked = w.op("Squeeze", answers[0], w.ints(1)) if every_step else w.op("Identity", answers[1])
    new: dict[int, ir.Value] = {roles.stacked: stacked, **dict(zip(roles.states, ends, strict=True))}
    for place in range(len(node.outputs)):
        if place not in new:
            # The sequence passes through; nothing reads the counters.
            new[place] = w.op("Identity", node.inputs[2 + place])
    replaced = [new[place] for place in range(len(node.outputs))]
    for value, old in zip(replaced, node.outputs, strict=True):
        value.type = old.type
    nodes = list(w.tape.nodes)
    ir.convenience.replace_nodes_and_values(model.graph, node, [node], nodes, node.outputs, replaced)


def _reordered(matrix: Array, order: Sequence[int]) -> Array:
    """Gates from the converter's order (that of Keras) to ONNX's."""
    gates = np.split(matrix, len(order), axis=1)
    return np.concatenate([gates[i] for i in order], axis=1)


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))
