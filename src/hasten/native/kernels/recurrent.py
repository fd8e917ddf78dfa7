"""LSTM, GRU and RNN → one matrix product over the whole sequence, then one step that walks through time.

x·W does not depend on the state, so it is one ``Dense`` over all time steps with both biases summed. What remains per
step is h·R: gates are interleaved per vector of units, ``[vector][hidden][gate][lane]``, so that all gates of some
units stand in registers when the activations and the state update begin.

Source: ONNX operators LSTM-22, GRU-22 and RNN-22 (gate orders iofc, zrh; peepholes, clip, input_forget,
linear_before_reset).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.native.expr import VECTOR
from hasten.native.kernels.dense import Dense
from hasten.native.kernels.recurrent_loops import GATES, Loops
from hasten.native.kernels.recurrent_weights import interleave, padded_units
from hasten.native.program import Step, View
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.lower import Lowering

__all__ = ["LOWER", "Recurrent"]

_DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}


@dataclass(frozen=True)
class Activation:
    """A cell's activation by its ONNX name, with its numbers."""

    name: str
    alpha: float
    beta: float

    def text(self, x: str, out: Emitter) -> str:
        """C over one vector."""
        name, numbers = _ACTIVATIONS[self.name]
        if self.name == "Affine":
            return f"({out.number(self.alpha)} * {x} + {out.number(self.beta)})"
        if self.name == "ScaledTanh":
            out.need("v_tanh")
            return f"({out.number(self.alpha)} * v_tanh({out.number(self.beta)} * {x}))"
        template, needs = VECTOR[name]
        out.need("v_set1", *needs)
        args = [f"v_set1({out.number(v)})" for v in (self.alpha, self.beta)[:numbers]]
        return template.format(x, *args)


# ONNX name → (VECTOR name, how many of alpha and beta it takes); defaults as the operator defines them.
_ACTIVATIONS: Mapping[str, tuple[str, int]] = {
    "Relu": ("relu", 0), "Tanh": ("tanh", 0), "Sigmoid": ("sigmoid", 0), "Affine": ("", 2),
    "LeakyRelu": ("leaky_relu", 1), "ThresholdedRelu": ("thresholded_relu", 1), "ScaledTanh": ("", 2),
    "HardSigmoid": ("hard_sigmoid", 2), "Elu": ("elu", 1), "Softsign": ("softsign", 0), "Softplus": ("softplus", 0),
}  # fmt: skip
_NUMBERS = {"LeakyRelu": (0.01, 0.0), "ThresholdedRelu": (1.0, 0.0), "HardSigmoid": (0.2, 0.5), "Elu": (1.0, 0.0),
            "Affine": (1.0, 0.0), "ScaledTanh": (1.0, 1.0)}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """What one direction computes, apart from its weights."""

    kind: str
    activations: tuple[Activation, ...]
    clip: float
    coupled: bool
    """LSTM: the forget gate is one minus the input gate."""
    reset_after: bool
    """GRU: the reset gate is applied to h·R + bias, not to h."""
    reverse: bool

    @property
    def is_standard(self) -> bool:
        """True for the LSTM that every framework makes by default."""
        names = tuple(a.name for a in self.activations)
        return self.kind == "LSTM" and names == _DEFAULTS["LSTM"] and not self.clip and not self.coupled


@dataclass(eq=False)
class Recurrent(Step):
    """Walks one direction of a recurrent layer through time.

    Shapes:  gates (T, B, G · H padded), packed gate order · y (T, B, H) · last_h, last_c, first_h, first_c (B, H)
             hidden (H, G, H) [from, gate, to] · peephole (3, H) i o f · state_bias (H,) · lengths (B,) int32
    """

    cell: Cell
    gates: View
    hidden: Array
    units: int
    scratch: View
    y: View | None
    last_h: View | None
    last_c: View | None
    first_h: View | None
    first_c: View | None
    peephole: Array | None = None
    state_bias: Array | None = None
    lengths: View | None = None
    storage: str = "float32"
    """How the weights of the state are kept: one of ``storage.WEIGHT_TYPES``; "int24" as ``few_words`` has them."""
    scale: Array | None = None
    """Of weights that are exactly int8, by gate and unit; ``hidden`` then holds whole numbers.

    Shapes:  (G, H)
    """
    lanes: int = field(kw_only=True)
    """Of its vectors, and of the gates' layout: all that the instruction set has, or half as many."""
    FEEDS_BACK = True
    READS = ("gates", "first_h", "first_c", "lengths")
    WRITES = ("scratch", "y", "last_h", "last_c")

    @property
    def resets_before(self) -> bool:
        """True for a GRU as first published, whose units need each other's reset gates."""
        return self.cell.kind == "GRU" and not self.cell.reset_after

    @property
    def kernel(self) -> str:
        """lstm, gru or rnn."""
        return self.cell.kind.lower()

    @property
    def title(self) -> str:
        """Sizes and direction."""
        steps, batch, _ = self.gates.shape
        back = ", backwards" if self.cell.reverse else ""
        kept = ", weights in 24 bits" if self.storage == "int24" else ""
        if self.scale is not None:
            kept = ", int8 weights"
        return f"{steps} steps x {batch} rows, {self.units} units{back}{kept}"

    def accepts(self, name: str, view: View) -> bool:
        """Last states may lie anywhere, the sequence where its rows are dense."""
        return name in ("last_h", "last_c") or (name == "y" and (view.strides[2] == 1 or view.shape[2] == 1))

    def macs(self) -> int:
        """T · B · G · H²."""
        return self.gates.shape[0] * self.gates.shape[1] * int(np.prod(self.hidden.shape))

    def emit(self, out: Emitter) -> None:
        """One inlined function for a time step, one that walks."""
        with out.vectors(self.lanes):
            Loops(self, out).write()


# ---- lowering ------------------------------------------------------------------------------------------------------


def _weights(low: Lowering, node: ir.Node, inputs: Sequence[ir.Value | None]) -> tuple[Array, Array, Array | None]:
    """Of the inputs, of the states, and the bias, for every direction."""
    weights = [low.constant(inputs[i]) for i in (1, 2)]
    if weights[0] is None or weights[1] is None or weights[0].dtype != np.float32:
        raise UnsupportedOpError(f"op {node.op_type} (node '{node.name}') needs constant float32 weights")
    bias = None if inputs[3] is None else low.constant(inputs[3])
    if inputs[3] is not None and bias is None:
        raise UnsupportedOpError(f"op {node.op_type} (node '{node.name}') needs a constant bias")
    return weights[0], weights[1], bias


def _is_asked(node: ir.Node, index: int) -> bool:
    """True where somebody takes this result."""
    if index >= len(node.outputs) or node.outputs[index].name == "":
        return False
    return bool(node.outputs[index].uses() or node.outputs[index].is_graph_output())


def _recurrent(low: Lowering, node: ir.Node) -> None:
    kind, attr = node.op_type, node.attributes
    inputs = [v if low.has(v) else None for v in node.inputs] + [None] * 8
    weight, hidden, bias = _weights(low, node, inputs)
    x = low.view(inputs[0])
    batch_first = attr.get_int("layout", 0) == 1
    if batch_first:
        x = x.transpose((1, 0, 2))
    x = low.contiguous(x)
    states = [low.view(inputs[i]) if inputs[i] is not None else None for i in (5, 6)]
    if batch_first:
        states = [s and s.transpose((1, 0, 2)) for s in states]
    directions = 2 if attr.get_string("direction", "forward") == "bidirectional" else 1
    steps, batch, _ = x.shape
    units = attr.get_int("hidden_size", hidden.shape[2])
    y = low.new((steps, directions, batch, units)) if _is_asked(node, 0) else None
    last = [low.new((directions, batch, units)) if _is_asked(node, i) else None for i in (1, 2)]
    lengths = low.contiguous(low.view(inputs[4])) if inputs[4] is not None else None
    if lengths is not None and lengths.tensor.data is not None and (lengths.tensor.data >= steps).all():
        lengths = None
    peephole = low.constant(inputs[7]) if kind == "LSTM" and inputs[7] is not None else None
    if kind == "LSTM" and inputs[7] is not None and peephole is None:
        raise UnsupportedOpError(f"op LSTM (node '{node.name}') needs constant peepholes")
    for d in range(directions):
        layer = _Layer(node, kind, d, steps, batch, units, weight[d], hidden[d], None if bias is None else bias[d])
        layer.add(
            low, x, y and _direction(y, 1, d), [v and _direction(v, 0, d) for v in last],
            [v and _direction(v, 0, d) for v in states], lengths,
            None if peephole is None else peephole[d].reshape(3, units),
        )  # fmt: skip
    for i, view in enumerate((y, *last)):
        if view is not None:
            if batch_first:
                view = view.transpose((2, 0, 1, 3) if i == 0 else (1, 0, 2))
            low.set(node.outputs[i], view)


def _direction(view: View, axis: int, d: int) -> View:
    one = view.slice(axis, d, 1)
    keep = [i for i in range(view.rank) if i != axis]
    return View(one.tensor, tuple(one.shape[i] for i in keep), tuple(one.strides[i] for i in keep), one.offset)


@dataclass
class _Layer:
    """One direction of a node."""

    node: ir.Node
    kind: str
    index: int
    steps: int
    batch: int
    units: int
    weight: Array
    hidden: Array
    bias: Array | None

    def add(
        self, low: Lowering, x: View, y: View | None, last: Sequence[View | None], first: Sequence[View | None],
        lengths: View | None, peephole: Array | None,
    ) -> None:  # fmt: skip
        count, units = GATES[self.kind], self.units
        cell = self._cell()
        first = [None if v is None or _is_zero(v) else v for v in first]
        if self.kind == "LSTM" and any(v is not None for v in first):
            first = [v if v is not None else low.data(np.zeros((self.batch, units), np.float32)) for v in first]
        w_bias, r_bias = (
            np.zeros((2, count, units), np.float32) if self.bias is None else self.bias.reshape(2, count, units)
        )
        state_bias = None
        total = w_bias + r_bias
        if self.kind == "GRU" and cell.reset_after:
            total = np.stack([total[0], total[1], w_bias[2]])
            state_bias = r_bias[2]
        narrow = low.isa.widths(units)[0].lanes
        lanes = narrow if units <= narrow else low.lanes  # a second vector of units waits for the first
        padded = padded_units(units, lanes)
        flat = low.new((self.steps * self.batch, count * padded))
        low.add(
            Dense(
                low.reshape(x, (self.steps * self.batch, x.shape[2])),
                flat,
                interleave(self.weight.T, count, padded, lanes),
                interleave(total.reshape(1, -1), count, padded, lanes)[0],
            )
        )
        gates = flat.reshape((self.steps, self.batch, count * padded))
        assert gates is not None
        hidden = np.ascontiguousarray(self.hidden.T).reshape(units, count, units)
        low.add(
            Recurrent(
                cell, gates, hidden, units, low.new((4 * padded,)), y, last[0],
                last[1] if self.kind == "LSTM" else None,
                first[0], first[1] if self.kind == "LSTM" else None, peephole, state_bias, lengths, lanes=lanes,
            )
        )  # fmt: skip

    def _cell(self) -> Cell:
        attr = self.node.attributes
        names = list(attr["activations"].as_strings()) if "activations" in attr else []
        per = len(_DEFAULTS[self.kind])
        names = [self._named(raw) for raw in (*names, *_DEFAULTS[self.kind] * 2)]
        found = _numbered(names, attr.get_floats("activation_alpha", ()), attr.get_floats("activation_beta", ()))
        found = found[self.index * per : (self.index + 1) * per]
        direction = attr.get_string("direction", "forward")
        return Cell(
            self.kind, tuple(found), attr.get_float("clip", 0.0), bool(attr.get_int("input_forget", 0)),
            bool(attr.get_int("linear_before_reset", 0)), direction == "reverse" or self.index == 1,
        )  # fmt: skip

    def _named(self, raw: str) -> str:
        name = next((k for k in _ACTIVATIONS if k.lower() == raw.lower()), None)
        if name is None:
            raise UnsupportedOpError(
                f"op {self.kind} (node '{self.node.name}') with activation {raw} has no native kernel"
            )
        return name


def _numbered(names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]) -> list[Activation]:
    """Activations of all directions with their numbers: only one that has use of a number takes the next."""
    alpha, beta, found = iter(alphas), iter(betas), []
    for name in names:
        given, (first, second) = _ACTIVATIONS[name][1], _NUMBERS.get(name, (0.0, 0.0))
        found.append(
            Activation(name, next(alpha, first) if given > 0 else first, next(beta, second) if given > 1 else second)
        )
    return found


def _is_zero(view: View) -> bool:
    return view.tensor.data is not None and not view.tensor.data.any()


LOWER: Mapping[str, Any] = {"LSTM": _recurrent, "GRU": _recurrent, "RNN": _recurrent}
