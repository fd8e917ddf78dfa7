"""Recurrent layers: one ONNX LSTM, GRU or RNN node each; cells that ONNX has no node for become one ``Scan``.

Keras order of gates is i f c o, ONNX i o f c; for the GRU both have z r h. A mask is exact, not only for padding at the
end: steps that count are moved to the front, the node runs over them, and its outputs are spread out again, which is
what "a masked step keeps the state and repeats the output" comes to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hasten.sources.keras.build import Shape, Tensor
from hasten.sources.keras.reduce import top_k
from hasten.sources.keras.scope import Call, Converter, Scope, weight
from hasten.types import Array

__all__ = ["LAYERS"]


@dataclass(frozen=True)
class Outcome:
    """What running over a sequence gives, in the order in which it ran. (B, T, …), (B, …), and the final states."""

    sequence: Tensor | None
    last: Tensor
    states: tuple[Tensor, ...]


@dataclass(frozen=True)
class Run:
    """One recurrent layer over one input."""

    layer: Any
    x: Tensor
    states: tuple[Tensor, ...] | None
    mask: Tensor | None

    @property
    def cells(self) -> list[Any]:
        """The cells, one above the other."""
        return list(getattr(self.layer.cell, "cells", [self.layer.cell]))


@dataclass(frozen=True)
class CellWeights:
    """W (4H, I), R (4H, H), B (8H) or none, gates in ONNX order."""

    kind: str
    units: int
    w: Array
    r: Array
    b: Array | None
    activations: tuple[tuple[str, float | None, float | None], ...]
    linear_before_reset: int | None = None


def _recurrent(g: Scope, call: Call) -> Any:
    layer = call.layer
    if layer.stateful:
        g.notes.append(f"layer '{layer.name}' keeps state between calls; it was imported with its state at zero")
    outcome = _run(g, Run(layer, call["sequences"], _states(g, call["initial_state"]), _mask(g, call["mask"])))
    output = outcome.sequence if layer.return_sequences else outcome.last
    return (output, *outcome.states) if layer.return_state else output


def _states(g: Scope, given: Any) -> tuple[Tensor, ...] | None:
    import keras  # noqa: PLC0415

    return None if given is None else tuple(g.tensor(t) for t in keras.tree.flatten(given))


def _mask(g: Scope, given: Any) -> Tensor | None:
    import keras  # noqa: PLC0415

    flat = [m for m in keras.tree.flatten(given) if m is not None]
    if not flat:
        return None
    mask = g.cast(flat[0], "bool")
    return g.squeeze(mask, [2]) if mask.rank == 3 else mask


def _run(g: Scope, run: Run) -> Outcome:
    weights = [_cell_weights(cell) for cell in run.cells]
    if all(w is not None for w in weights) and run.x.rank == 3:
        known = [w for w in weights if w is not None]
        return _fused(g, run, known) if run.mask is None else _fused_masked(g, run, known)
    return _scan(g, run)


def _fused(g: Scope, run: Run, weights: Sequence[CellWeights]) -> Outcome:
    backwards = bool(run.layer.go_backwards)
    sequence, states = g.transpose(run.x, [1, 0, 2]), list(run.states or ())
    finals: list[Tensor] = []
    for w in weights:
        initial = [states.pop(0) for _ in range(_state_count(w))] if run.states else None
        y, ends = _node(g, [w], sequence, [initial], direction="reverse" if backwards else "forward")
        sequence = g.squeeze(y, [1])
        finals += [g.squeeze(t, [0]) for t in ends]
    last = finals[-_state_count(weights[-1])]
    if not run.layer.return_sequences:
        return Outcome(None, last, tuple(finals))
    whole = g.transpose(sequence, [1, 0, 2])
    return Outcome(g.flip(whole, 1) if backwards else whole, last, tuple(finals))


def _fused_masked(g: Scope, run: Run, weights: Sequence[CellWeights]) -> Outcome:
    assert run.mask is not None
    x, mask, states = run.x, run.mask, list(run.states or ())
    if run.layer.go_backwards:
        x, mask = g.flip(x, 1), g.flip(mask, 1)
    steps = x.size(1)
    ladder = g.constant(np.arange(steps, dtype=np.float32))
    front = top_k(g, g.sub(g.mul(g.cast(mask, "float32"), float(2 * steps)), ladder), steps, "int64")[1]
    seen = g.op("CumSum", [g.cast(mask, "int64"), g.constant(np.int64(1))], mask.shape)
    total = g.slice(seen, 1, steps - 1, steps)
    sequence = g.transpose(_rows(g, x, front), [1, 0, 2])
    lengths = g.cast(g.reshape(g.binary("Max", total, 1), (total.shape[0],)), "int32")
    some = g.binary("Greater", total, 0, dtype="bool")
    finals: list[Tensor] = []
    for w in weights:
        initial = [states.pop(0) for _ in range(_state_count(w))] if run.states else None
        y, ends = _node(g, [w], sequence, [initial], direction="forward", lengths=lengths)
        sequence = g.squeeze(y, [1])
        for i, end in enumerate(ends):
            before = g.constant(0.0, end.dtype) if initial is None else initial[i]
            finals.append(g.where(some, g.squeeze(end, [0]), before))
    return _spread(g, run, g.transpose(sequence, [1, 0, 2]), seen, mask, tuple(finals))


def _spread(g: Scope, run: Run, packed: Tensor, seen: Tensor, mask: Tensor, states: tuple[Tensor, ...]) -> Outcome:
    """Outputs of the steps that count, at every step: the last one so far, or zeros where none was or asked for."""
    steps = mask.size(1)
    place = g.binary("Max", g.sub(seen, 1), 0)
    shown = mask if run.layer.zero_output_for_mask else g.binary("Greater", seen, 0, dtype="bool")

    def outputs(at: Tensor, visible: Tensor) -> Tensor:
        return g.where(g.unsqueeze(visible, [2]), _rows(g, packed, at), g.constant(0.0, packed.dtype))

    end = [g.slice(t, 1, steps - 1, steps) for t in (place, shown)]
    last = g.squeeze(outputs(*end), [1])
    return Outcome(outputs(place, shown) if run.layer.return_sequences else None, last, states)


def _rows(g: Scope, x: Tensor, places: Tensor) -> Tensor:
    """x[b, places[b, t], …] for every b and t."""
    shape = (*places.shape, *x.shape[2:])
    return g.op("GatherND", [x, g.unsqueeze(places, [2])], shape, attributes={"batch_dims": 1})


def _node(
    g: Scope,
    weights: Sequence[CellWeights],
    x: Tensor,
    initial: Sequence[Sequence[Tensor] | None],
    *,
    direction: str,
    lengths: Tensor | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """One node over ``x`` (T, B, I): Y (T, D, B, H) and the final states (D, B, H), one D per direction."""
    first = weights[0]
    kernels, recurrent = np.stack([w.w for w in weights]), np.stack([w.r for w in weights])
    given = [g.constant(kernels, x.dtype, "kernel"), g.constant(recurrent, x.dtype, "recurrent_kernel")]
    bias = None
    if any(w.b is not None for w in weights):
        size = next(w.b.size for w in weights if w.b is not None)
        bias = g.constant(np.stack([np.zeros(size) if w.b is None else w.b for w in weights]), x.dtype, "bias")
    states = [_initial(g, initial, i, x, first.units) for i in range(_state_count(first))]
    used = [f for w in weights for f in w.activations]
    attributes: dict[str, Any] = {
        "hidden_size": first.units,
        "direction": direction,
        "activations": None
        if all(f[0] in ("Sigmoid", "Tanh") for f in used) and _default(weights)
        else [f[0] for f in used],
        "activation_alpha": [f[1] for f in used if f[1] is not None] or None,
        "activation_beta": [f[2] for f in used if f[2] is not None] or None,
        "linear_before_reset": first.linear_before_reset,
    }
    if attributes["activations"] is None:
        del attributes["activations"]
    values = g.nodes_of(first.kind, [x, *given, bias, lengths, *states], 1 + len(states), attributes)
    count = len(weights)
    state: Shape = (count, x.shape[1], first.units)
    ends = [Tensor(v, state, x.dtype) for v in values[1:]]
    return Tensor(values[0], (x.shape[0], *state), x.dtype), ends


def _default(weights: Sequence[CellWeights]) -> bool:
    normal = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
    return all(tuple(f[0] for f in w.activations) == normal[w.kind] for w in weights)


def _initial(g: Scope, initial: Sequence[Sequence[Tensor] | None], index: int, x: Tensor, units: int) -> Tensor | None:
    if all(states is None for states in initial):
        return None
    rows = []
    for states in initial:
        if states is None:
            zero = g.constant(np.zeros((1, units)), x.dtype)
            rows.append(g.expand(zero, (None, units), like=g.transpose(x, [1, 0, 2])))
        else:
            rows.append(g.cast(states[index], x.dtype))
    return g.concat([g.unsqueeze(row, [0]) for row in rows], 0)


def _state_count(w: CellWeights) -> int:
    return 2 if w.kind == "LSTM" else 1


def _cell_weights(cell: Any) -> CellWeights | None:
    """The weights of a cell that ONNX has a node for; None for any other."""
    kind = {"LSTMCell": "LSTM", "GRUCell": "GRU", "SimpleRNNCell": "RNN"}.get(type(cell).__name__)
    if kind is None or not type(cell).__module__.startswith("keras.src.") or cell.quantization_mode is not None:
        return None
    inner = _activation(cell.activation)
    gate = inner if kind == "RNN" else _activation(cell.recurrent_activation)
    if inner is None or gate is None:
        return None
    w, r = weight(cell.kernel).T, weight(cell.recurrent_kernel).T
    b = weight(cell.bias) if cell.use_bias else None
    if kind == "LSTM":
        return CellWeights(kind, cell.units, *_lstm_order(w, r, b), activations=(gate, inner, inner))
    if kind == "RNN":
        whole = None if b is None else np.concatenate([b, np.zeros_like(b)])
        return CellWeights(kind, cell.units, w, r, whole, activations=(inner,))
    if b is not None:
        b = b.reshape(-1) if cell.reset_after else np.concatenate([b, np.zeros_like(b)])
    return CellWeights(kind, cell.units, w, r, b, (gate, inner), linear_before_reset=int(cell.reset_after))


def _lstm_order(w: Array, r: Array, b: Array | None) -> tuple[Array, Array, Array | None]:
    def turned(rows: Array) -> Array:
        i, f, c, o = np.split(rows, 4)
        return np.concatenate([i, o, f, c])

    return turned(w), turned(r), None if b is None else np.concatenate([turned(b), np.zeros_like(b)])


def _activation(function: Any) -> tuple[str, float | None, float | None] | None:
    """Name, alpha and beta of the ONNX recurrent activation that equals a Keras one; None where none does."""
    from keras import activations as k  # noqa: PLC0415

    known: list[tuple[Callable[..., Any] | None, tuple[str, float | None, float | None]]] = [
        (k.tanh, ("Tanh", None, None)),
        (k.sigmoid, ("Sigmoid", None, None)),
        (k.relu, ("Relu", None, None)),
        (k.hard_sigmoid, ("HardSigmoid", 1 / 6, 0.5)),
        (k.softsign, ("Softsign", None, None)),
        (k.softplus, ("Softplus", None, None)),
        (k.elu, ("Elu", 1.0, None)),
        (k.leaky_relu, ("LeakyRelu", 0.2, None)),
        (k.linear, ("Affine", 1.0, 0.0)),
        (None, ("Affine", 1.0, 0.0)),
    ]
    return next((name for f, name in known if f is function), None)


def _scan(g: Scope, run: Run) -> Outcome:
    """The cell as the body of one ``Scan``: for cells and activations that no ONNX node has."""
    import keras  # noqa: PLC0415

    layer, cell = run.layer, run.layer.cell
    x, mask = run.x, run.mask
    if layer.go_backwards:
        x, mask = g.flip(x, 1), None if mask is None else g.flip(mask, 1)
    states = run.states or _zero_states(g, run)
    pattern = keras.tree.map_structure(lambda _: 0, _nested(getattr(cell, "state_size", [0])))
    if len(keras.tree.flatten(pattern)) != len(states):  # convolutional cells state the channels alone
        pattern = [0] * len(states)
    loops = [g.transpose(t, [1, 0, *range(2, t.rank)]) for t in ([x] if mask is None else [x, mask])]
    with g.body() as inside:
        entering = [inside.input(t.shape, t.dtype) for t in states]
        previous = [inside.input(_output_shape(run), x.dtype)] if mask is not None else []
        slices = [inside.input(t.shape[1:], t.dtype) for t in loops]
        named = {"training": False} if getattr(cell, "_call_has_training_arg", False) else {}
        packed = keras.tree.pack_sequence_as(pattern, entering)
        output, after = g.apply(cell, (slices[0], packed), named)
        leaving = keras.tree.flatten(after)
        if mask is not None:
            keep = g.reshape(slices[1], (slices[1].shape[0], *[1] * (output.rank - 1)))
            zero = g.constant(0.0, output.dtype)
            output = g.where(keep, output, zero if layer.zero_output_for_mask else previous[0])
            leaving = [
                g.where(g.reshape(slices[1], (keep.shape[0], *[1] * (new.rank - 1))), new, old)
                for new, old in zip(leaving, entering, strict=True)
            ]
        carried = [*leaving, *([output] if mask is not None else [])]
        body = inside.finish([*carried, output])
    if mask is not None:
        shape = _output_shape(run)
        states = (*states, g.expand(g.constant(np.zeros([1] * len(shape)), x.dtype), shape, like=x))
    attributes = {"body": body, "num_scan_inputs": len(loops)}
    values = g.nodes_of("Scan", [*states, *loops], len(carried) + 1, attributes)
    finals = tuple(Tensor(v, t.shape, t.dtype) for v, t in zip(values, leaving, strict=False))
    stacked = Tensor(values[-1], (x.shape[1], *output.shape), output.dtype)
    sequence = g.transpose(stacked, [1, 0, *range(2, stacked.rank)])
    last = g.squeeze(g.slice(sequence, 1, x.size(1) - 1, x.size(1)), [1])
    return Outcome(sequence, last, finals)


def _nested(state_size: Any) -> Any:
    return list(state_size) if isinstance(state_size, (list, tuple)) else [state_size]


def _output_shape(run: Run) -> Shape:
    spec = run.layer.compute_output_shape(run.x.shape)
    shape = spec[0] if run.layer.return_state else spec
    return tuple(shape if not run.layer.return_sequences else (shape[0], *shape[2:]))


def _zero_states(g: Scope, run: Run) -> tuple[Tensor, ...]:
    """The cell's own first state, which must be alike for every row."""
    import keras  # noqa: PLC0415

    layer = run.layer
    if hasattr(layer, "rank"):  # convolutional LSTM
        shape = _output_shape(run)
        zero = g.constant(np.zeros([1] * len(shape)), run.x.dtype)
        return tuple(g.expand(zero, shape, like=run.x) for _ in range(2))
    rows = [weight(t) for t in keras.tree.flatten(layer.get_initial_state(batch_size=1))]
    return tuple(g.expand(g.constant(r, run.x.dtype), (run.x.shape[0], *r.shape[1:]), like=run.x) for r in rows)


def _bidirectional(g: Scope, call: Call) -> Any:
    layer = call.layer
    x, mask, states = call["sequences"], _mask(g, call["mask"]), _states(g, call["initial_state"])
    ahead, back = layer.forward_layer, layer.backward_layer
    half = len(states) // 2 if states else 0
    forward = Run(ahead, x, states[:half] if states else None, mask)
    backward = Run(back, x, states[half:] if states else None, mask)
    outcomes = _both(g, forward, backward)
    if layer.return_sequences:
        assert outcomes[0].sequence is not None and outcomes[1].sequence is not None
        pair = [outcomes[0].sequence, outcomes[1].sequence]
    else:
        pair = [o.last for o in outcomes]
    merged = _merge(g, pair, layer.merge_mode)
    ends = (*outcomes[0].states, *outcomes[1].states) if layer.return_state else ()
    return (*merged, *ends) if isinstance(merged, tuple) else ((merged, *ends) if ends else merged)


def _both(g: Scope, forward: Run, backward: Run) -> tuple[Outcome, Outcome]:
    """Both directions, the backward sequence already in the order of time; one node where the two are alike."""
    alike = _alike(forward, backward)
    if alike is None:
        with g.within(forward.layer.name):
            ahead = _run(g, forward)
        with g.within(backward.layer.name):
            back = _run(g, backward)
        return ahead, Outcome(back.sequence and g.flip(back.sequence, 1), back.last, back.states)
    y, ends = _node(
        g, alike, g.transpose(forward.x, [1, 0, 2]), [forward.states, backward.states], direction="bidirectional"
    )
    found = []
    for i in range(2):
        states = tuple(g.squeeze(g.slice(t, 0, i, i + 1), [0]) for t in ends)
        sequence = g.transpose(g.squeeze(g.slice(y, 1, i, i + 1), [1]), [1, 0, 2])
        found.append(Outcome(sequence, states[0], states))
    return found[0], found[1]


def _alike(forward: Run, backward: Run) -> list[CellWeights] | None:
    if forward.mask is not None or len(forward.cells) != 1 or len(backward.cells) != 1 or forward.x.rank != 3:
        return None
    if forward.layer.go_backwards or not backward.layer.go_backwards:
        return None
    a, b = _cell_weights(forward.cells[0]), _cell_weights(backward.cells[0])
    if a is None or b is None or (a.kind, a.units, a.linear_before_reset) != (b.kind, b.units, b.linear_before_reset):
        return None
    return [a, b]


def _merge(g: Scope, pair: Sequence[Tensor], mode: str | None) -> Any:
    if mode == "concat":
        return g.concat(pair, pair[0].rank - 1)
    if mode == "sum":
        return g.add(*pair)
    if mode == "ave":
        return g.mul(g.add(*pair), 0.5)
    if mode == "mul":
        return g.mul(*pair)
    return tuple(pair)


def _time_distributed(g: Scope, call: Call) -> Any:
    """Time folded into the batch: the inner layer runs once over all steps."""
    import keras  # noqa: PLC0415

    x, mask, inner = call.x, call["mask"], call.layer.layer
    steps = x.size(1)
    if type(inner).__name__ == "Dense" and type(inner).__module__.startswith("keras.src."):
        return g.apply(inner, (x.masked(None),))
    folded = g.reshape(x.masked(None), (None, *x.shape[2:]))
    if mask is not None and getattr(inner, "_call_has_mask_arg", False):
        folded = folded.masked(g.reshape(mask, (None, *mask.shape[2:])))
    result = g.apply(inner, (folded,))
    return keras.tree.map_structure(lambda t: g.reshape(t.masked(None), (x.shape[0], steps, *t.shape[1:])), result)


LAYERS: dict[str, Converter] = {
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "SimpleRNN": _recurrent,
    "RNN": _recurrent,
    "ConvLSTM1D": _recurrent,
    "ConvLSTM2D": _recurrent,
    "ConvLSTM3D": _recurrent,
    "Bidirectional": _bidirectional,
    "TimeDistributed": _time_distributed,
}
