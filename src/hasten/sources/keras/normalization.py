"""Normalisation at inference: batch, layer, group, RMS, unit, and the ``keras.ops`` beneath them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hasten.sources.keras.build import Tensor
from hasten.sources.keras.reduce import axes_of, moments
from hasten.sources.keras.scope import Call, Converter, Scope, weight
from hasten.types import Array

__all__ = ["LAYERS", "OPERATIONS"]


def _epsilon(call: Call) -> float:
    from keras import backend  # noqa: PLC0415

    given = call.setting("epsilon")
    return float(backend.epsilon() if given is None else given)


def _batch_layer(g: Scope, call: Call) -> Tensor:
    layer, x = call.layer, call.x
    wide = "float32" if x.dtype in ("float16", "bfloat16") else x.dtype
    scale = weight(layer.gamma) if layer.scale else None
    offset = weight(layer.beta) if layer.center else None
    y = _batch(
        g, g.cast(x, wide), (weight(layer.moving_mean), weight(layer.moving_variance), scale, offset),
        axis=layer.axis, epsilon=layer.epsilon,
    )  # fmt: skip
    return g.cast(y, call.dtype)


def _batch(g: Scope, x: Tensor, weights: Sequence[Array | None], *, axis: int, epsilon: float) -> Tensor:
    """``BatchNormalization`` over the channels right after the batch, else a multiplication and an addition."""
    mean, variance, scale, offset = weights
    assert mean is not None and variance is not None
    axis %= x.rank
    scale = np.ones_like(mean) if scale is None else scale
    offset = np.zeros_like(mean) if offset is None else offset
    if axis == x.rank - 1 and x.rank > 2:
        x = g.transpose(x, [0, axis, *range(1, axis)])
        y = _channel_batch(g, x, (scale, offset, mean, variance), epsilon)
        return g.transpose(y, [0, *range(2, y.rank), 1])
    if axis == 1:
        return _channel_batch(g, x, (scale, offset, mean, variance), epsilon)
    factor = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
    shift = offset - mean * factor
    shape = [-1 if i == axis else 1 for i in range(x.rank)]
    return g.add(g.mul(x, g.constant(factor.reshape(shape), x.dtype)), g.constant(shift.reshape(shape), x.dtype))


def _channel_batch(g: Scope, x: Tensor, weights: Sequence[Array], epsilon: float) -> Tensor:
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    given = [g.constant(w, x.dtype, n) for w, n in zip(weights, names, strict=True)]
    return g.op("BatchNormalization", [x, *given], x.shape, attributes={"epsilon": float(epsilon)})


def _batch_op(g: Scope, call: Call) -> Tensor:
    x = g.tensor(call["x"], call.dtype)
    axis, epsilon = call.setting("axis") % x.rank, _epsilon(call)
    mean, variance, offset, scale = (g.tensor(call[n], x.dtype) for n in ("mean", "variance", "offset", "scale"))

    def place(t: Tensor) -> Tensor:
        return g.reshape(t, [t.size(0) if i == axis else 1 for i in range(x.rank)])

    factor = g.unary("Reciprocal", g.unary("Sqrt", g.add(variance, epsilon)))
    factor = factor if scale is None else g.mul(factor, scale)
    y = g.mul(g.sub(x, place(mean)), place(factor))
    return y if offset is None else g.add(y, place(offset))


def _layer(g: Scope, call: Call) -> Tensor:
    layer, x = call.layer, call.x
    gamma, beta = (None if v is None else weight(v) for v in (layer.gamma, layer.beta))
    return _layer_norm(g, x, (gamma, beta), layer.axis, epsilon=layer.epsilon, rms=bool(layer.rms_scaling))


def _layer_op(g: Scope, call: Call) -> Tensor:
    x = g.tensor(call["x"], call.dtype)
    gamma, beta = (None if call[n] is None else g.tensor(call[n]).constant for n in ("gamma", "beta"))
    rms = bool(call.setting("rms_scaling"))
    return _layer_norm(g, x, (gamma, beta), call.setting("axis"), epsilon=_epsilon(call), rms=rms)


def _layer_norm(
    g: Scope, x: Tensor, weights: tuple[Array | None, Array | None], axis: Any, *, epsilon: float, rms: bool
) -> Tensor:
    gamma, beta = weights
    axes = sorted(axes_of(x, axis))
    wide = g.cast(x, "float32") if x.dtype in ("float16", "bfloat16") else x
    if axes == list(range(axes[0], x.rank)) and not rms:
        shape = tuple(wide.size(a) for a in axes)
        scale = g.constant(np.ones(shape) if gamma is None else gamma.reshape(shape), wide.dtype, "gamma")
        given = [wide, scale, *([] if beta is None else [g.constant(beta.reshape(shape), wide.dtype, "beta")])]
        settings = {"axis": axes[0] - x.rank, "epsilon": float(epsilon)}
        return g.cast(g.op("LayerNormalization", given, x.shape, attributes=settings), x.dtype)
    place = [x.size(i) if i in axes else 1 for i in range(x.rank)]
    if rms:
        variance = moments(g, wide, axes)[1]
        y = g.mul(wide, g.unary("Reciprocal", g.unary("Sqrt", g.add(variance, epsilon))))
        return g.cast(y if gamma is None else g.mul(y, g.constant(gamma.reshape(place), wide.dtype, "gamma")), x.dtype)
    mean, variance = moments(g, wide, axes)
    y = g.div(g.sub(wide, mean), g.unary("Sqrt", g.add(variance, epsilon)))
    y = y if gamma is None else g.mul(y, g.constant(gamma.reshape(place), wide.dtype, "gamma"))
    return g.cast(y if beta is None else g.add(y, g.constant(beta.reshape(place), wide.dtype, "beta")), x.dtype)


def _rms(g: Scope, x: Tensor, scale: Tensor | None, axis: Any, epsilon: float) -> Tensor:
    wide = g.cast(x, "float32") if x.dtype in ("float16", "bfloat16") else x
    axes = axes_of(x, axis)
    power = g.reduce("ReduceMean", g.mul(wide, wide), axes, keepdims=True)
    y = g.div(wide, g.unary("Sqrt", g.add(power, float(epsilon))))
    if scale is not None:
        place = [x.size(i) if i in axes else 1 for i in range(x.rank)]
        y = g.mul(y, g.reshape(g.cast(scale, wide.dtype), place))
    return g.cast(y, x.dtype)


def _rms_op(g: Scope, call: Call) -> Tensor:
    x = g.tensor(call["x"], call.dtype)
    return _rms(g, x, g.tensor(call["scale"]), call.setting("axis"), _epsilon(call))


def _group(g: Scope, call: Call) -> Tensor:
    layer, x = call.layer, call.x
    axis = layer.axis % x.rank
    channels, groups = x.size(axis), layer.groups if layer.groups > 0 else x.size(layer.axis % x.rank)
    wide = g.cast(x, "float32") if x.dtype in ("float16", "bfloat16") else x
    split = g.reshape(wide, (*x.shape[:axis], groups, channels // groups, *x.shape[axis + 1 :]))
    axes = [i for i in range(1, split.rank) if i != axis]
    mean, variance = moments(g, split, axes)
    y = g.div(g.sub(split, mean), g.unary("Sqrt", g.add(variance, float(layer.epsilon))))
    y = g.reshape(y, x.shape)
    place = [-1 if i == axis else 1 for i in range(x.rank)]
    if layer.scale:
        y = g.mul(y, g.constant(weight(layer.gamma).reshape(place), y.dtype, "gamma"))
    if layer.center:
        y = g.add(y, g.constant(weight(layer.beta).reshape(place), y.dtype, "beta"))
    return g.cast(y, x.dtype)


def _normalize_op(g: Scope, call: Call) -> Tensor:
    x = g.tensor(call["x"], call.dtype)
    axes, order = axes_of(x, call.setting("axis")), call.setting("order")
    epsilon = _epsilon(call)
    if order == 2:
        power = g.reduce("ReduceSum", g.mul(x, x), axes, keepdims=True)
        return g.div(x, g.unary("Sqrt", g.binary("Max", power, epsilon**2)))
    size = g.unary("Abs", x)
    norm = g.binary("Pow", g.reduce("ReduceSum", g.binary("Pow", size, float(order)), axes, keepdims=True), 1 / order)
    return g.div(x, g.binary("Max", norm, epsilon))


LAYERS: dict[str, Converter] = {
    "BatchNormalization": _batch_layer,
    "LayerNormalization": _layer,
    "GroupNormalization": _group,
    "SpectralNormalization": lambda g, call: g.cast(g.apply(call.layer.layer, (call.x,)), call.x.dtype),
}

OPERATIONS: dict[str, Converter] = {
    "BatchNorm": _batch_op,
    "LayerNorm": _layer_op,
    "RMSNorm": _rms_op,
    "Normalize": _normalize_op,
}
