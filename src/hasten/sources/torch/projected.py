"""ONNX LSTM nodes for ``torch.nn.LSTM`` with ``proj_size``, which neither ONNX nor torch's exporter has.

The state that comes round is ``W_hr · h``: ``W_hh · W_hr`` in place of the recurrent weights leaves a plain LSTM, whose
answers are then projected.

Source:  Sak et al. 2014, arXiv:1402.1128, eq. 6
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["lstm"]


@dataclass(frozen=True)
class _Direction:
    """One direction of one layer, gates in torch's order i, f, g, o; no biases where it has none."""

    weights: Any
    recurrent: Any
    biases: tuple[Any, ...]
    projection: Any


def lstm(
    input: Any,
    hx: Sequence[Any],
    params: Sequence[Any],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> Any:
    """Every layer of a ``torch.nn.LSTM``; what has no projection is left to torch's exporter.

    Shapes:  input (T, N, F), or (N, T, F) with ``batch_first`` · returns (T, N, D · P), (L · D, N, P), (L · D, N, H)
    """
    from onnxscript import opset18 as op  # noqa: PLC0415 - only while exporting
    from onnxscript.function_libs.torch_lib.ops.core import aten_lstm  # noqa: PLC0415 - only while exporting

    stride, count = (5 if has_biases else 3), 2 if bidirectional else 1
    if len(params) != stride * num_layers * count:
        return aten_lstm(
            input, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first=batch_first
        )
    x = op.Transpose(input, perm=[1, 0, 2]) if batch_first else input
    parts = [tuple(params[k : k + stride]) for k in range(0, len(params), stride)]
    directions = [_Direction(p[0], p[1], p[2:-1], p[-1]) for p in parts]
    hidden, cells = [], []
    for first in range(0, len(directions), count):
        start = [op.Slice(state, [first], [first + count], [0]) for state in hx]
        begun = None if _is_zero(hx[0]) else start[0]
        x, h, c = _layer(x, (begun, start[1]), directions[first : first + count])
        hidden.append(h)
        cells.append(c)
    x = op.Transpose(x, perm=[1, 0, 2]) if batch_first else x
    return x, _joined(hidden), _joined(cells)


def _layer(x: Any, start: tuple[Any, Any], directions: Sequence[_Direction]) -> tuple[Any, Any, Any]:
    from onnxscript import opset18 as op  # noqa: PLC0415 - only while exporting

    weights = [d.weights for d in directions]
    if start[0] is not None:
        x, weights = _with_start(x, start[0], directions)
    biases = [_joined([_gates(b) for b in d.biases]) for d in directions if d.biases]
    answers, last, cell = op.LSTM(
        x,
        _stacked([_gates(w) for w in weights]),
        _stacked([_gates(op.MatMul(d.recurrent, d.projection)) for d in directions]),
        _stacked(biases) if biases else None,
        None,
        None,
        start[1],
        direction="bidirectional" if len(directions) == 2 else "forward",
        hidden_size=directions[0].projection.shape[1],
    )
    projection = _stacked([op.Transpose(d.projection, perm=[1, 0]) for d in directions])
    # (T, D, N, P) → (T, N, D · P)
    projected = op.Transpose(op.MatMul(answers, projection), perm=[0, 2, 1, 3])
    return op.Reshape(projected, op.Constant(value_ints=[0, 0, -1])), op.MatMul(last, projection), cell


def _with_start(x: Any, start: Any, directions: Sequence[_Direction]) -> tuple[Any, list[Any]]:
    """The layer's input and weights, where the first step also sees ``W_hh · start``: as more features, 0 later on.

    A projected state cannot be handed to the plain LSTM: it has no one state before the projection.
    """
    from onnxscript import opset18 as op  # noqa: PLC0415 - only while exporting

    later = op.Sub(op.Shape(x, start=0, end=1), op.Constant(value_ints=[1]))
    none = [op.Constant(value_ints=[0] * k) for k in (2, 3)]
    seen, weights = [x], []
    for k, direction in enumerate(directions):
        # A reverse direction begins with the last step.
        pads = op.Concat(none[1], later, none[0], axis=0) if k == 0 else op.Concat(later, none[1], none[0], axis=0)
        seen.append(op.Pad(op.Slice(start, [k], [k + 1], [0]), pads))
        blind = op.Mul(direction.recurrent, 0.0)
        columns = [direction.recurrent if j == k else blind for j in range(len(directions))]
        weights.append(op.Concat(direction.weights, *columns, axis=1))
    return op.Concat(*seen, axis=2), weights


def _gates(values: Any) -> Any:
    """Torch's i, f, g, o as ONNX wants them: i, o, f, g."""
    from onnxscript import opset18 as op  # noqa: PLC0415 - only while exporting

    i, f, g, o = op.Split(values, axis=0, num_outputs=4)
    return op.Concat(i, o, f, g, axis=0)


def _stacked(values: Sequence[Any]) -> Any:
    from onnxscript import opset18 as op  # noqa: PLC0415 - only while exporting

    return _joined([op.Unsqueeze(value, [0]) for value in values])


def _joined(values: Sequence[Any]) -> Any:
    from onnxscript import opset18 as op  # noqa: PLC0415 - only while exporting

    return values[0] if len(values) == 1 else op.Concat(*values, axis=0)


def _is_zero(value: Any) -> bool:
    """Whether these are the zeros that torch begins with where it is given no state."""
    node = value.producer()
    while node is not None and node.op_type in ("Expand", "CastLike", "Cast"):
        node = node.inputs[0].producer()
    held = None if node is None or node.op_type != "Constant" else node.attributes.get("value")
    return held is not None and not held.as_tensor().numpy().any()
