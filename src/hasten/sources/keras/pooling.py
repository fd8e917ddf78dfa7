"""Pooling: windows (max, average), whole images, adaptive sizes; one to three dimensions, both layouts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hasten.sources.keras.build import Shape, Tensor
from hasten.sources.keras.convolution import channels_first, each, restored, same_pads
from hasten.sources.keras.scope import Call, Converter, Scope

__all__ = ["LAYERS", "OPERATIONS"]


def _pool(kind: str) -> Converter:
    def convert(g: Scope, call: Call) -> Tensor:
        layer = call.layer
        x = call.x
        last = _last(layer.data_format)
        sizes = each(layer.pool_size, x.rank - 2)
        strides = sizes if layer.strides is None else each(layer.strides, x.rank - 2)
        x = channels_first(g, x, last)
        rank = x.rank - 2
        same = str(layer.padding).lower() == "same"
        pads = same_pads(x.shape[2:], sizes, strides) if same else [0] * (2 * rank)
        if kind == "AveragePool" and pads[:rank] != pads[rank:] and _repeats_edges():
            x, pads = _edge_padded(g, x, pads), [0] * (2 * rank)
        spatial: Shape = tuple(
            None if n is None else (n + pads[i] + pads[i + rank] - sizes[i]) // strides[i] + 1
            for i, n in enumerate(x.shape[2:])
        )
        settings = {"kernel_shape": list(sizes), "strides": list(strides), "pads": pads}
        return restored(g, g.op(kind, [x], (*x.shape[:2], *spatial), attributes=settings), last)

    return convert


def _repeats_edges() -> bool:
    """Keras on PyTorch pads unevenly by repeating the edge, and counts what it repeated."""
    from keras import backend  # noqa: PLC0415

    return bool(backend.backend() == "torch")


def _edge_padded(g: Scope, x: Tensor, pads: Sequence[int]) -> Tensor:
    rank = x.rank - 2
    shape = (*x.shape[:2], *(x.size(i + 2) + pads[i] + pads[i + rank] for i in range(rank)))
    whole = np.array([0, 0, *pads[:rank], 0, 0, *pads[rank:]], np.int64)
    return g.op("Pad", [x, g.constant(whole, name="pads")], shape, attributes={"mode": "edge"})


def _last(data_format: str | None) -> bool:
    from keras import backend  # noqa: PLC0415

    return (data_format or backend.image_data_format()) == "channels_last"


def _spatial(x: Tensor, last: bool) -> list[int]:
    return list(range(1, x.rank - 1)) if last else list(range(2, x.rank))


def _global(kind: str) -> Converter:
    def convert(g: Scope, call: Call) -> Tensor:
        x, layer = call.x, call.layer
        axes = _spatial(x, _last(layer.data_format))
        return g.reduce(kind, x, axes, keepdims=bool(layer.keepdims))

    return convert


def _global_average_1d(g: Scope, call: Call) -> Tensor:
    x, layer, mask = call.x, call.layer, call["mask"]
    if mask is None:
        plain: Tensor = _global("ReduceMean")(g, call)
        return plain
    axes = _spatial(x, _last(layer.data_format))
    weights = g.unsqueeze(g.cast(mask, x.dtype), [3 - axes[0]])
    total = g.reduce("ReduceSum", g.mul(x, weights), axes, keepdims=bool(layer.keepdims))
    return g.div(total, g.reduce("ReduceSum", weights, axes, keepdims=bool(layer.keepdims)))


def _adaptive(kind: str) -> Converter:
    def convert(g: Scope, call: Call) -> Tensor:
        x: Tensor = call.x
        layer = call.layer
        axes = _spatial(x, _last(layer.data_format))
        for axis, out in zip(axes, each(layer.output_size, len(axes)), strict=True):
            x = _adapt(g, kind, x, axis, out)
        return x

    return convert


def _adapt(g: Scope, kind: str, x: Tensor, axis: int, out: int) -> Tensor:
    """Bins from floor(i n / out) to ceil((i + 1) n / out), one axis at a time: extremes and means both separate."""
    size = x.size(axis)
    if size == out:
        return x
    edges = [(i * size // out, -(-(i + 1) * size // out)) for i in range(out)]
    if len({b - a for a, b in edges}) == 1 and size % out == 0:
        parts = g.reshape(x, (*x.shape[:axis], out, size // out, *x.shape[axis + 1 :]))
        return g.reduce(kind, parts, [axis + 1])
    return g.concat([g.reduce(kind, g.slice(x, axis, a, b), [axis], keepdims=True) for a, b in edges], axis)


def _patches(g: Scope, call: Call) -> Tensor:
    """``keras.ops.image.extract_patches`` as a convolution with a kernel of ones and zeros."""
    layer, x = call.layer, g.tensor(call.first)
    last = _last(layer.data_format)
    size = each(layer.size, x.rank - 2)
    strides = size if layer.strides is None else each(layer.strides, len(size))
    dilations = each(layer.dilation_rate, len(size))
    x = channels_first(g, x, last)
    channels = x.size(1)
    extents = [(k - 1) * d + 1 for k, d in zip(size, dilations, strict=True)]
    pads = same_pads(x.shape[2:], extents, strides) if layer.padding.lower() == "same" else [0] * (2 * len(size))
    count = int(np.prod(size)) * channels
    kernel = np.eye(count).reshape(*size, channels, count)
    order: Sequence[int] = [len(size) + 1, len(size), *range(len(size))]
    spatial = call.shape[1:-1] if last else call.shape[2:]
    settings = {"strides": list(strides), "dilations": list(dilations), "pads": pads}
    weights = g.constant(np.transpose(kernel, order), x.dtype)
    return restored(g, g.op("Conv", [x, weights], (x.shape[0], count, *spatial), attributes=settings), last)


def _numbered(name: str, converter: Converter) -> dict[str, Converter]:
    return {f"{name}{d}D": converter for d in (1, 2, 3)}


LAYERS: dict[str, Converter] = {
    **_numbered("MaxPooling", _pool("MaxPool")),
    **_numbered("AveragePooling", _pool("AveragePool")),
    **_numbered("GlobalMaxPooling", _global("ReduceMax")),
    **_numbered("GlobalAveragePooling", _global("ReduceMean")),
    "GlobalAveragePooling1D": _global_average_1d,
    **_numbered("AdaptiveMaxPooling", _adaptive("ReduceMax")),
    **_numbered("AdaptiveAveragePooling", _adaptive("ReduceMean")),
}

OPERATIONS: dict[str, Converter] = {
    "MaxPool": _pool("MaxPool"),
    "AveragePool": _pool("AveragePool"),
    "AdaptiveMaxPool": _adaptive("ReduceMax"),
    "AdaptiveAveragePool": _adaptive("ReduceMean"),
    "ExtractPatches": _patches,
}
