"""Operators of ONNX Runtime's own domain that round activations to bytes on the way: standard ones that do so too.

In float32 they would be closer to what was trained and off by a hundredth from what the file answers, which no
comparison with its answers can tell from a mistake. What ONNX Runtime does depends on the processor, so that this is a
pass of its own: where the answers differ, it alone is left out.

Source: ONNX Runtime, docs/ContribOperators.md, DynamicQuantizeLSTM and MatMulNBits
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from hasten.passes import Pass
from hasten.passes.contributed import ROUNDED_ACTIVATIONS, weight_of_few_bits
from hasten.passes.contributed_place import FLOAT, Place, Results, Value, rewrite_all
from hasten.passes.surgery import constant, rank
from hasten.types import Array

__all__ = ["contributed_rounding"]

_LARGEST_BYTE = 127
_DIRECTIONS = {"forward": (0,), "reverse": (1,), "bidirectional": (0, 1)}
_PLAIN = ["sigmoid", "tanh", "tanh"]


def _rounded_product(at: Place) -> Results:
    """x, each block of it in steps of a 127th of its largest number, times weights of few bits."""
    count, size, depth = rank(at.given(0)), int(at.setting("block_size", 0)), int(at.setting("K", 0))
    # Two bits ONNX Runtime multiplies with bytes for some sizes of blocks only.
    if at.setting("accuracy_level", 0) != ROUNDED_ACTIVATIONS or at.setting("bits", 4) == 2 or count is None:
        return ()
    x, weight, spare = at.given(0), weight_of_few_bits(at), -depth % size
    if weight is None or x is None or x.dtype != FLOAT:
        return ()
    padded = x if not spare else at.op("Pad", x, at.editor.ints([0, spare]), None, at.editor.ints([-1]))
    ahead = [0] * (count - 1)
    blocks = at.op("Reshape", padded, at.editor.ints([*ahead, (depth + spare) // size, size]))
    rounded = at.op("Reshape", _in_bytes(at, blocks), at.editor.ints([*ahead, depth + spare]))
    if spare:
        rounded = at.op("Slice", rounded, *(at.editor.ints([n]) for n in (0, depth, -1)))
    y = at.op("MatMul", rounded, weight)
    return (y if at.given(5) is None else at.op("Add", y, at.given(5)),)


def _in_bytes(at: Place, blocks: ir.Value) -> ir.Value:
    largest = at.op("ReduceMax", at.op("Abs", blocks), at.editor.ints([-1]), keepdims=1)
    most = at.number(_LARGEST_BYTE, None)
    some = at.op("Greater", largest, at.number(0, None))
    some.dtype = ir.DataType.BOOL
    steps = at.op("Where", some, at.op("Div", most, largest), at.number(0, None))
    steps.dtype = FLOAT
    return at.op("Mul", at.op("Round", at.op("Mul", blocks, steps)), at.op("Div", largest, most))


@dataclass(frozen=True)
class _Weights:
    """One direction's. Shapes: w (inputs, 4H), r (H, 4H) bytes · bias (4H,) · scales and zero points () or (4H,)"""

    w: ir.Value
    r: ir.Value
    bias: ir.Value | None
    w_scale: ir.Value
    w_zero: ir.Value
    r_scale: ir.Value
    r_zero: ir.Value


def _weights(at: Place) -> list[_Weights] | None:
    """Of every direction; None where they are no constants."""
    w, r, w_scale, w_zero, r_scale, r_zero = (constant(at.given(i)) for i in (1, 2, 8, 9, 10, 11))
    bias = constant(at.given(3))
    missing = any(a is None for a in (w, r, w_scale, w_zero, r_scale, r_zero))
    if missing or (at.given(3) is not None and bias is None):
        return None

    def one(array: Array | None, direction: int) -> ir.Value:
        assert array is not None
        return at.editor.weight(np.ascontiguousarray(array[direction]), f"{at.node.name}_weight")

    count = 0 if w is None else len(w)
    # Biases of the input and of the state lie side by side.
    both = None if bias is None else bias.reshape(count, 2, -1).sum(axis=1, dtype=np.float32)
    return [
        _Weights(one(w, d), one(r, d), None if both is None else one(both, d),
                 *(one(a, d) for a in (w_scale, w_zero, r_scale, r_zero)))
        for d in range(count)
    ]  # fmt: skip


def _recurrent(at: Place) -> Results:
    """The input in bytes at once, each state in bytes before its product."""
    turned = _DIRECTIONS.get(at.setting("direction", "forward"))
    activations = [name.lower() for name in at.setting("activations", _PLAIN)]
    odd = at.setting("clip", 0.0) or at.setting("input_forget", 0) or at.given(4) is not None or at.given(7) is not None
    if turned is None or odd or activations != _PLAIN * (len(activations) // 3) or rank(at.given(0)) != 3:
        return ()
    weights = _weights(at)
    if weights is None or len(weights) != len(turned):
        return ()
    x, step, zero = at.dynamically_quantised(at.given(0))
    ends = []
    for index, (one, back) in enumerate(zip(weights, turned, strict=True)):
        gates = at.scaled_product((x, one.w, zero, one.w_zero), at.op("Mul", step, one.w_scale), one.bias)
        states = [_first(at, given, index) for given in (at.given(5), at.given(6))]
        options = {"num_scan_inputs": 1, "scan_input_directions": [back], "scan_output_directions": [back]}
        options["body"] = ir.AttrGraph("body", _turn(at, one))
        made = at.editor.node(at.node, "Scan", [*states, gates], options, outputs=3)
        ends.append(made.outputs)
        for value in made.outputs:
            value.dtype = FLOAT
    return tuple(_side_by_side(at, [e[place] for e in ends], axis) for place, axis in ((2, 1), (0, 0), (1, 0)))


def _first(at: Place, given: Value, direction: int) -> ir.Value:
    """A direction's first state (batch, H) of those given (directions, batch, H); zeros where none are."""
    if given is not None:
        return at.op("Gather", given, at.editor.weight(np.asarray(direction), "direction"), axis=0)
    rows = at.op("Shape", at.given(0), start=1, end=2)
    rows.dtype = ir.DataType.INT64
    made = at.op("ConstantOfShape", at.op("Concat", rows, at.editor.ints([at.setting("hidden_size", 0)]), axis=0))
    made.dtype = FLOAT
    return made


def _side_by_side(at: Place, values: list[ir.Value], axis: int) -> ir.Value:
    parts = [at.op("Unsqueeze", value, at.editor.ints([axis])) for value in values]
    return parts[0] if len(parts) == 1 else at.op("Concat", *parts, axis=axis)


def _turn(outside: Place, one: _Weights) -> ir.Graph:
    """One turn: from h, c and what the input adds to the gates i, o, f, c to h, c, and h again to be gathered."""
    editor = outside.editor
    h, c, gates = (ir.Value(name=editor.name(n), type=ir.TensorType(FLOAT)) for n in ("h_in", "c_in", "gates_in"))
    end = ir.node("Identity", [c], name=editor.name("turn"))  # holds the place until the turn is written
    body = ir.Graph([h, c, gates], [], nodes=[end], name=editor.name("turn"))
    at = Place(editor, end)
    state, step, zero = at.dynamically_quantised(h)
    product = at.scaled_product((state, one.r, zero, one.r_zero), at.op("Mul", step, one.r_scale), gates)
    # By number, not by widths: inside a body, shape inference knows no constants from around it.
    i, o, f, new = editor.node(end, "Split", [product], {"axis": -1, "num_outputs": 4}, outputs=4).outputs
    for gate in (i, o, f, new):
        gate.dtype = FLOAT
    kept = at.op("Mul", at.op("Sigmoid", f), c)
    cell = at.op("Add", kept, at.op("Mul", at.op("Sigmoid", i), at.op("Tanh", new)))
    state = at.op("Mul", at.op("Sigmoid", o), at.op("Tanh", cell))
    body.outputs.extend([state, cell, at.op("Identity", state)])
    body.remove(end, safe=True)
    return body


contributed_rounding = Pass(
    "contributed operators that round in standard ones",
    lambda model: rewrite_all(model, {"DynamicQuantizeLSTM": _recurrent, "MatMulNBits": _rounded_product}),
    requires="weights as constants",
    ensures="no dynamically quantised LSTM, and no product of few weights of few bits",
)
