"""One TFLite LSTM layer, with every option that its kernels have: weights enter, ONNX leaves.

As a single LSTM node wherever that is the same arithmetic, else as a Scan over the cell, step by step.

Source:  tensorflow/lite/kernels/lstm_eval.cc (LstmStepFloat), read for its order of operations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.sources.tflite.writer import ACTIVATIONS, Writer
from hasten.types import Array

__all__ = ["Lstm", "read_lstm", "scan_lstm", "step", "write_lstm"]

_GATES = "ifco"
_ONNX_GATES = "iofc"
_NODE_ACTIVATIONS = {"TANH": "Tanh", "RELU": "Relu"}  # ONNX Runtime's LSTM gets Affine, which is NONE, wrong
_NORM_EPSILON = 1e-8


@dataclass(frozen=True)
class Lstm:
    """Weights by gate (``i f c o``); no ``i`` anywhere means that the input gate is one minus the forget gate.

    Shapes:  weights (units, in) · recurrent (units, out) · bias, peephole, norm (units,) · projection (out, units)
    """

    weights: Mapping[str, Array]
    recurrent: Mapping[str, Array]
    bias: Mapping[str, Array]
    peephole: Mapping[str, Array]
    norm: Mapping[str, Array]
    projection: Array | None
    projection_bias: Array | None
    activation: int
    cell_clip: float
    projection_clip: float

    @property
    def units(self) -> int:
        """Width of the cell state."""
        return len(self.weights["f"])

    @property
    def width(self) -> int:
        """Width of the output, which is the recurrent state too."""
        return self.units if self.projection is None else len(self.projection)

    def is_single_node(self, steps: int | None) -> bool:
        """True when ONNX's LSTM does the same; ``steps`` bounds the cell state, or None where it is not known.

        A cell starts at 0 and grows by at most 1 a step (gate · tanh), so a clip beyond the steps never acts.
        """
        bounded = ACTIVATIONS.get(self.activation) == "TANH" and steps is not None and steps <= self.cell_clip
        unclipped = self.cell_clip <= 0 or bounded
        plain = not self.norm and self.projection_bias is None and self.projection_clip <= 0
        return unclipped and plain and ACTIVATIONS.get(self.activation) in _NODE_ACTIVATIONS


def write_lstm(w: Writer, lstm: Lstm, x: ir.Value, *, reverse: bool) -> ir.Value:
    """One ONNX LSTM node over the sequence, from zero state, and the projection behind it.

    Shapes:  x (T, N, in) · returns (T, N, out)
    """
    recurrent = dict(lstm.recurrent)
    if lstm.projection is not None:
        # The state that recurs is the projected output: R·(P·h) = (R·P)·h, so the node keeps h and P follows it.
        recurrent = {gate: r @ lstm.projection for gate, r in recurrent.items()}
    inputs = [
        x,
        w.const(_stacked(_with_input_gate(lstm.weights), _ONNX_GATES)),
        w.const(_stacked(_with_input_gate(recurrent), _ONNX_GATES)),
        w.const(_biases(lstm)),
    ]
    if lstm.peephole:
        peephole = _with_input_gate(lstm.peephole)
        missing = np.zeros(lstm.units, np.float32)
        stacked = np.concatenate([peephole.get(gate, missing) for gate in "iof"])[None]
        inputs += [None, None, None, w.const(stacked)]  # type: ignore[list-item]
    name = _NODE_ACTIVATIONS[ACTIVATIONS[lstm.activation]]
    standard = {} if name == "Tanh" else {"activations": ["Sigmoid", name, name]}
    direction = "reverse" if reverse else "forward"
    answers = w.op("LSTM", *inputs, hidden_size=lstm.units, direction=direction, **standard)
    flat = w.op("Squeeze", answers, w.ints(1))
    return flat if lstm.projection is None else w.linear(flat, lstm.projection)


def scan_lstm(w: Writer, lstm: Lstm, x: ir.Value, *, reverse: bool) -> ir.Value:
    """A Scan over the cell, from zero state.

    Shapes:  x (T, N, in) · returns (T, N, out)
    """
    body = Writer()
    ports = [_port(name, width) for name, width in (("h", lstm.width), ("c", lstm.units), ("x", None))]
    h, c = step(body, lstm, ports[2], ports[0], ports[1])
    again = body.op("Identity", h)
    for value, width in ((h, lstm.width), (c, lstm.units), (again, lstm.width)):
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([None, width])
    for number, value in enumerate(v for node in body.tape.nodes for v in node.outputs):
        value.name = f"scan_step_{number}"  # apart from every name outside
    graph = ir.Graph(ports, [h, c, again], nodes=list(body.tape.nodes), name="lstm_step")
    start = [w.zeros(x, 1, lstm.width), w.zeros(x, 1, lstm.units)]
    direction = [1 if reverse else 0]
    return w.ops(
        "Scan",
        [*start, x],
        3,
        body=graph,
        num_scan_inputs=1,
        scan_input_directions=direction,
        scan_output_directions=direction,
    )[2]


def step(w: Writer, lstm: Lstm, x: ir.Value, h: ir.Value, c: ir.Value) -> tuple[ir.Value, ir.Value]:
    """One step of the cell.

    Shapes:  x (N, in), h (N, out), c (N, units) · returns the next h and c
    """
    forget = w.op("Sigmoid", _gate(w, lstm, "f", x, h, c))
    if "i" in lstm.weights:
        enter = w.op("Sigmoid", _gate(w, lstm, "i", x, h, c))
    else:
        enter = w.op("Sub", w.const(np.float32(1)), forget)
    update = w.activate(_gate(w, lstm, "c", x, h, None), lstm.activation)
    kept = w.op("Mul", forget, c)
    after = w.clip(w.op("Add", kept, w.op("Mul", enter, update)), lstm.cell_clip)
    leave = w.op("Sigmoid", _gate(w, lstm, "o", x, h, after))
    out = w.op("Mul", leave, w.activate(after, lstm.activation))
    if lstm.projection is not None:
        out = w.clip(w.add(w.linear(out, lstm.projection), lstm.projection_bias), lstm.projection_clip)
    return out, after


def _gate(w: Writer, lstm: Lstm, gate: str, x: ir.Value, h: ir.Value, c: ir.Value | None) -> ir.Value:
    sums = w.op("Add", w.linear(x, lstm.weights[gate]), w.linear(h, lstm.recurrent[gate]))
    if c is not None and gate in lstm.peephole:
        sums = w.op("Add", sums, w.op("Mul", c, w.const(lstm.peephole[gate])))
    if gate in lstm.norm:
        sums = w.op("Mul", _normalised(w, sums), w.const(lstm.norm[gate]))
    return w.add(sums, lstm.bias.get(gate))


def _normalised(w: Writer, x: ir.Value) -> ir.Value:
    centred = w.op("Sub", x, w.op("ReduceMean", x, axes=[1], keepdims=1))
    variance = w.op("ReduceMean", w.op("Mul", centred, centred), axes=[1], keepdims=1)
    return w.op("Div", centred, w.op("Sqrt", w.op("Add", variance, w.const(np.float32(_NORM_EPSILON)))))


def _with_input_gate(by_gate: Mapping[str, Array]) -> Mapping[str, Array]:
    # 1 - σ(z) = σ(-z): a coupled input gate is the forget gate with its signs turned.
    return by_gate if "i" in by_gate or "f" not in by_gate else {**by_gate, "i": -by_gate["f"]}


def _stacked(by_gate: Mapping[str, Array], order: str) -> Array:
    return np.concatenate([by_gate[gate] for gate in order])[None]


def _biases(lstm: Lstm) -> Array:
    bias = _with_input_gate({g: lstm.bias.get(g, np.zeros(lstm.units, np.float32)) for g in lstm.weights})
    return np.concatenate([*(bias[g] for g in _ONNX_GATES), np.zeros(4 * lstm.units, np.float32)])[None]


def _port(name: str, width: int | None) -> ir.Value:
    return ir.Value(name=f"scan_{name}", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([None, width]))


def read_lstm(constants: Mapping[int, Array], at: Mapping[str, int], options: object) -> Lstm:
    """The layer whose weights lie at these input positions.

    ``at``: first position of each block: weights, recurrent, peephole, bias, projection, norm

    Raises:  UnsupportedOpError: a weight is computed rather than stored
    """
    weights, recurrent = (_block(constants, at[name], _GATES) for name in ("weights", "recurrent"))
    if not {"f", "c", "o"} <= weights.keys() & recurrent.keys():
        raise UnsupportedOpError("LSTM with computed weights has no importer")
    return Lstm(
        weights=weights,
        recurrent=recurrent,
        bias=_block(constants, at["bias"], _GATES),
        peephole=_block(constants, at["peephole"], "ifo"),
        norm=_block(constants, at["norm"], _GATES) if "norm" in at else {},
        projection=constants.get(at["projection"]),
        projection_bias=constants.get(at["projection"] + 1),
        activation=int(getattr(options, "fusedActivationFunction", 0)),
        cell_clip=float(getattr(options, "cellClip", 0.0)),
        projection_clip=float(getattr(options, "projClip", 0.0)),
    )


def _block(constants: Mapping[int, Array], first: int, gates: str) -> dict[str, Array]:
    return {gate: constants[first + i] for i, gate in enumerate(gates) if first + i in constants}
