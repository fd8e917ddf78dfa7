"""Activation functions: ``keras.ops`` ones as nodes, and the activation layers that need more than being opened up."""

from __future__ import annotations

from collections.abc import Callable

from hasten.sources.keras.build import Tensor, Unsupported
from hasten.sources.keras.scope import Call, Converter, Scope

__all__ = ["LAYERS", "OPERATIONS", "activate", "softmax"]


# Keras' own functions that turn their argument into a backend tensor before anything else.
_UNTRACEABLE = {"mish": "Mish", "hard_silu": "HardSwish"}


def activate(g: Scope, x: Tensor, function: Callable[..., object] | None) -> Tensor:
    """``function(x)`` for any activation of Keras or of the user that is made of ``keras.ops``."""
    if function is None or getattr(function, "__name__", "") == "linear":
        return x
    direct = _UNTRACEABLE.get(getattr(function, "__name__", ""))
    if direct and str(getattr(function, "__module__", "")).startswith("keras.src."):
        return g.unary(direct, x)
    result: Tensor = g.inline(function, (x.masked(None),))
    return result


def softmax(g: Scope, x: Tensor, axis: int) -> Tensor:
    """Softmax over one axis."""
    return g.unary("Softmax", x, axis=axis % x.rank)


def _simple(kind: str) -> Converter:
    return lambda g, call: g.unary(kind, g.tensor(call.first, call.dtype))


def _set(kind: str, setting: str, attribute: str = "alpha") -> Converter:
    def convert(g: Scope, call: Call) -> Tensor:
        return g.unary(kind, g.tensor(call.first, call.dtype), **{attribute: float(call.setting(setting))})

    return convert


def _formula(write: Callable[[Scope, Tensor, Call], Tensor]) -> Converter:
    return lambda g, call: write(g, g.tensor(call.first, call.dtype), call)


def _clip(g: Scope, x: Tensor, low: float | None, high: float | None) -> Tensor:
    ends = [None if v is None else g.constant(v, x.dtype) for v in (low, high)]
    return g.op("Clip", [x, *(ends if ends[1] is not None else ends[:1])], x.shape)


def _gelu(g: Scope, x: Tensor, call: Call) -> Tensor:
    return g.unary("Gelu", x, approximate="tanh" if call.setting("approximate") else "none")


def _silu(g: Scope, x: Tensor) -> Tensor:
    return g.mul(x, g.unary("Sigmoid", x))


def _glu(g: Scope, x: Tensor, call: Call) -> Tensor:
    axis = call.setting("axis") % x.rank
    half = x.size(axis) // 2
    return g.mul(g.slice(x, axis, 0, half), g.unary("Sigmoid", g.slice(x, axis, half, 2 * half)))


def _soft_shrink(g: Scope, x: Tensor, call: Call) -> Tensor:
    t = float(call.setting("threshold"))
    return g.unary("Shrink", x, lambd=t, bias=t)


def _hard_shrink(g: Scope, x: Tensor, call: Call) -> Tensor:
    t = float(call.setting("threshold"))
    return g.unary("Shrink", x, lambd=t, bias=0.0)


def _squareplus(g: Scope, x: Tensor, call: Call) -> Tensor:
    root = g.unary("Sqrt", g.add(g.mul(x, x), float(call.setting("b"))))
    return g.mul(g.add(x, root), 0.5)


def _sparse_plus(g: Scope, x: Tensor, _call: Call) -> Tensor:
    step = g.add(x, 1.0)
    bent = g.where(g.binary("Less", x, 1.0, dtype="bool"), g.mul(g.mul(step, step), 0.25), x)
    return g.where(g.binary("LessOrEqual", x, -1.0, dtype="bool"), g.constant(0.0, x.dtype), bent)


def _threshold(g: Scope, x: Tensor, call: Call) -> Tensor:
    above = g.binary("Greater", x, float(call.setting("threshold")), dtype="bool")
    return g.where(above, x, g.constant(float(call.setting("default_value")), x.dtype))


def _softmax_op(kind: str) -> Converter:
    def convert(g: Scope, call: Call) -> Tensor:
        x = g.tensor(call.first, call.dtype)
        axis = call.setting("axis")
        if not isinstance(axis, int):
            raise Unsupported(f"{kind} over axes {axis}: expected one axis")
        return g.unary(kind, x, axis=axis % x.rank)

    return convert


def _hard_sigmoid(g: Scope, x: Tensor) -> Tensor:
    return g.unary("HardSigmoid", x, alpha=1.0 / 6.0, beta=0.5)


def _relu_layer(g: Scope, call: Call) -> Tensor:
    x, layer = call.x, call.layer
    slope, high, threshold = float(layer.negative_slope), layer.max_value, float(layer.threshold)
    if not slope and not threshold:
        return g.unary("Relu", x) if high is None else _clip(g, x, 0.0, float(high))
    if slope and not threshold and high is None:
        return g.unary("LeakyRelu", x, alpha=slope)
    above = g.binary("GreaterOrEqual", x, threshold, dtype="bool")
    below = g.mul(g.sub(x, threshold), slope) if slope else g.constant(0.0, x.dtype)
    bent = g.where(above, x, below)
    return bent if high is None else g.binary("Min", bent, float(high))


def _prelu(g: Scope, call: Call) -> Tensor:
    x = call.x
    return g.op("PRelu", [x, g.cast(g.tensor(call.layer.alpha), x.dtype)], x.shape)


def _softmax_layer(g: Scope, call: Call) -> Tensor:
    x, axis, mask = call.x, call.layer.axis, call["mask"]
    if mask is not None:
        mask = g.binary("Greater", mask, 0.5, dtype="bool") if mask.dtype != "bool" else mask
        x = g.where(mask, x, g.constant(-3e4 if x.dtype == "float16" else -1e9, x.dtype))
    axes = sorted(a % x.rank for a in (axis if isinstance(axis, (list, tuple)) else (axis,)))
    if len(axes) == 1:
        y = softmax(g, x, axes[0])
    else:
        y = g.unary("Exp", g.sub(x, g.reduce("ReduceLogSumExp", x, axes, keepdims=True)))
    return y if mask is None else g.where(mask, y, g.constant(0.0, y.dtype))


LAYERS: dict[str, Converter] = {
    "Activation": lambda g, call: activate(g, call.x, call.layer.activation),
    "ReLU": _relu_layer,
    "LeakyReLU": lambda g, call: g.unary("LeakyRelu", call.x, alpha=float(call.layer.negative_slope)),
    "ELU": lambda g, call: g.unary("Elu", call.x, alpha=float(call.layer.alpha)),
    "PReLU": _prelu,
    "Softmax": _softmax_layer,
}

OPERATIONS: dict[str, Converter] = {
    "ReLU": _relu_layer,
    "Relu": _simple("Relu"),
    "Relu6": _formula(lambda g, x, _: _clip(g, x, 0.0, 6.0)),
    "Sigmoid": _simple("Sigmoid"),
    "Softplus": _simple("Softplus"),
    "Softsign": _simple("Softsign"),
    "Mish": _simple("Mish"),
    "Silu": _formula(lambda g, x, _: _silu(g, x)),
    "Selu": _simple("Selu"),
    "Elu": _set("Elu", "alpha"),
    "Celu": _set("Celu", "alpha"),
    "LeakyRelu": _set("LeakyRelu", "negative_slope"),
    "Gelu": _formula(_gelu),
    "HardSigmoid": _formula(lambda g, x, _: _hard_sigmoid(g, x)),
    "HardSilu": _simple("HardSwish"),
    "HardTanh": _formula(lambda g, x, _: _clip(g, x, -1.0, 1.0)),
    "LogSigmoid": _formula(lambda g, x, _: g.unary("Neg", g.unary("Softplus", g.unary("Neg", x)))),
    "Glu": _formula(_glu),
    "TanhShrink": _formula(lambda g, x, _: g.sub(x, g.unary("Tanh", x))),
    "SoftShrink": _formula(_soft_shrink),
    "HardShrink": _formula(_hard_shrink),
    "Squareplus": _formula(_squareplus),
    "SparsePlus": _formula(_sparse_plus),
    "SparseSigmoid": _formula(lambda g, x, _: _clip(g, g.mul(g.add(x, 1.0), 0.5), 0.0, 1.0)),
    "Threshold": _formula(_threshold),
    "Softmax": _softmax_op("Softmax"),
    "LogSoftmax": _softmax_op("LogSoftmax"),
}
