"""ONNX RNN nodes for ``torch.nn.RNN``, which torch's exporter would unroll; LSTM and GRU it keeps whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["rnn_relu", "rnn_tanh"]


def rnn_tanh(
    input: Any,
    hx: Any,
    params: Sequence[Any],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Any, Any]:
    """``torch.nn.RNN`` with tanh: its answers and last states."""
    return _rnn(input, hx, params, _Layout("Tanh", has_biases, num_layers, bidirectional, batch_first))


def rnn_relu(
    input: Any,
    hx: Any,
    params: Sequence[Any],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Any, Any]:
    """``torch.nn.RNN`` with relu: its answers and last states."""
    return _rnn(input, hx, params, _Layout("Relu", has_biases, num_layers, bidirectional, batch_first))


class _Layout:
    def __init__(self, activation: str, has_biases: bool, layers: int, bidirectional: bool, batch_first: bool) -> None:
        self.activation, self.has_biases, self.layers = activation, has_biases, layers
        self.directions, self.batch_first = (2 if bidirectional else 1), batch_first


def _rnn(x: Any, hx: Any, params: Sequence[Any], layout: _Layout) -> tuple[Any, Any]:
    from onnxscript import opset18 as op  # noqa: PLC0415 - only while exporting

    hidden = params[1].shape[1]
    x = op.Transpose(x, perm=[1, 0, 2]) if layout.batch_first else x
    last = []
    for layer in range(layout.layers):
        weights, recurrent, bias = _stacked(op, params, layer, layout)
        first = layer * layout.directions
        start = op.Slice(hx, [first], [first + layout.directions], [0])
        answers, final = op.RNN(
            x,
            weights,
            recurrent,
            bias,
            None,
            start,
            activations=[layout.activation] * layout.directions,
            direction="bidirectional" if layout.directions == 2 else "forward",
            hidden_size=hidden,
        )
        # (T, directions, N, H) → (T, N, directions · H)
        x = op.Reshape(op.Transpose(answers, perm=[0, 2, 1, 3]), op.Constant(value_ints=[0, 0, -1]))
        last.append(final)
    x = op.Transpose(x, perm=[1, 0, 2]) if layout.batch_first else x
    return x, last[0] if len(last) == 1 else op.Concat(*last, axis=0)


def _stacked(op: Any, params: Sequence[Any], layer: int, layout: _Layout) -> tuple[Any, Any, Any]:
    """One layer's weights as ONNX takes them: (directions, H, in), (directions, H, H), (directions, 2H)."""
    stride = 4 if layout.has_biases else 2
    weights, recurrent, biases = [], [], []
    for direction in range(layout.directions):
        at = (layer * layout.directions + direction) * stride
        weights.append(op.Unsqueeze(params[at], [0]))
        recurrent.append(op.Unsqueeze(params[at + 1], [0]))
        if layout.has_biases:
            biases.append(op.Unsqueeze(op.Concat(params[at + 2], params[at + 3], axis=0), [0]))
    join = [values[0] if len(values) == 1 else op.Concat(*values, axis=0) for values in (weights, recurrent)]
    bias = None if not biases else (biases[0] if len(biases) == 1 else op.Concat(*biases, axis=0))
    return join[0], join[1], bias
