"""Images made larger, smaller or cropped: Resizing, CenterCrop, UpSampling, ``keras.ops.image.resize``.

Resizing is linear in each direction, so that what ONNX's Resize does otherwise than Keras (bicubic at the border,
Lanczos, anti-aliasing) becomes a product with a matrix that Keras itself fills in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hasten.sources.keras.build import Tensor, Unsupported
from hasten.sources.keras.scope import Call, Converter, Scope, weight
from hasten.sources.keras.shaping import take

__all__ = ["LAYERS", "OPERATIONS"]


@dataclass(frozen=True)
class Target:
    """Height and width wanted, and how to get there."""

    size: tuple[int, int]
    interpolation: str = "bilinear"
    antialias: bool = False


def _resize(g: Scope, x: Tensor, target: Target, *, channels_last: bool) -> Tensor:
    """``x`` (B, H, W, C) or (B, C, H, W)."""
    first = 1 if channels_last else 2
    if tuple(x.shape[first : first + 2]) == target.size:
        return x
    if target.interpolation == "nearest":
        for axis, size in enumerate(target.size, start=first):
            places = np.floor((np.arange(size) + 0.5) * x.size(axis) / size).astype(np.int64)
            x = take(g, x, g.constant(np.minimum(places, x.size(axis) - 1)), axis)
        return x
    if target.interpolation == "bilinear" and not target.antialias:
        return _bilinear(g, x, target.size, channels_last=channels_last)
    return _by_matrix(g, x, target, first)


def _bilinear(g: Scope, x: Tensor, size: tuple[int, int], *, channels_last: bool) -> Tensor:
    x = g.transpose(x, [0, 3, 1, 2]) if channels_last else x
    scales = [1.0, 1.0, *(n / x.size(i + 2) for i, n in enumerate(size))]
    exact = all(float(np.float32(s)) * x.size(i + 1) == size[i - 1] for i, s in enumerate(scales[2:], start=1))
    given: list[Tensor | None] = [x, None]
    if exact:  # no free batch in the sizes then
        given.append(g.constant(np.array(scales, np.float32), name="scales"))
    else:
        sizes = g.constant(np.array([x.size(1), *size], np.int64), name="sizes")
        given += [None, g.concat([g.shape_of(x, [0]), sizes], 0)]
    attributes = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    y = g.op("Resize", given, (x.shape[0], x.shape[1], *size), attributes=attributes)
    return g.transpose(y, [0, 2, 3, 1]) if channels_last else y


def _by_matrix(g: Scope, x: Tensor, target: Target, first: int) -> Tensor:
    import keras  # noqa: PLC0415

    for axis, size in enumerate(target.size, start=first):
        length = x.size(axis)
        unit = np.eye(length, dtype=np.float32)[None, :, :, None]
        spread = keras.ops.image.resize(
            unit, (size, length), interpolation=target.interpolation, antialias=target.antialias,
            data_format="channels_last",
        )  # fmt: skip
        matrix = g.constant(weight(spread)[0, :, :, 0].T, x.dtype, "spread")
        order = [*(i for i in range(x.rank) if i != axis), axis]
        back = [order.index(i) for i in range(x.rank)]
        x = g.transpose(g.matmul(g.transpose(x, order), matrix), back)
    return x


def _fitted(g: Scope, x: Tensor, size: Sequence[int], *, channels_last: bool) -> Tensor:
    """The middle of the image, of the target's proportions."""
    first = 1 if channels_last else 2
    height, width = x.size(first), x.size(first + 1)
    tall = max(min(height, int(float(width * size[0]) / size[1])), 1)
    wide = max(min(width, int(float(height * size[1]) / size[0])), 1)
    for axis, whole, part in ((first, height, tall), (first + 1, width, wide)):
        start = int((whole - part) / 2)
        x = g.slice(x, axis, start, start + part)
    return x


def _resizing(g: Scope, call: Call) -> Tensor:
    layer, x = call.layer, g.cast(call.x, call.dtype)
    last = layer.data_format == "channels_last"
    size = (int(layer.height), int(layer.width))
    if getattr(layer, "pad_to_aspect_ratio", False):
        raise Unsupported("resizing with padding to the aspect ratio")
    if layer.crop_to_aspect_ratio:
        x = _fitted(g, x, size, channels_last=last)
    return _resize(g, x, Target(size, layer.interpolation, bool(layer.antialias)), channels_last=last)


def _resize_op(g: Scope, call: Call) -> Tensor:
    operation, x = call.layer, g.tensor(call.first, call.dtype)
    last = operation.data_format == "channels_last"
    if operation.pad_to_aspect_ratio or x.rank != 4:
        raise Unsupported("resizing with padding to the aspect ratio, or of one image without a batch")
    size = (int(operation.size[0]), int(operation.size[1]))
    if operation.crop_to_aspect_ratio:
        x = _fitted(g, x, size, channels_last=last)
    return _resize(g, x, Target(size, operation.interpolation, bool(operation.antialias)), channels_last=last)


def _center_crop(g: Scope, call: Call) -> Tensor:
    layer, x = call.layer, g.cast(call.x, call.dtype)
    last = layer.data_format == "channels_last"
    first = 1 if last else 2
    size = (int(layer.height), int(layer.width))
    gaps = [x.size(first) - size[0], x.size(first + 1) - size[1]]
    if min(gaps) < 0:
        return _resize(g, _fitted(g, x, size, channels_last=last), Target(size), channels_last=last)
    for axis, gap, part in zip((first, first + 1), gaps, size, strict=True):
        x = g.slice(x, axis, gap // 2, gap // 2 + part)
    return x


def _up_sampling(g: Scope, call: Call) -> Tensor:
    layer, x = call.layer, call.x
    last = getattr(layer, "data_format", "channels_last") == "channels_last"
    first = 1 if last else 2
    factors = (layer.size,) if isinstance(layer.size, int) else tuple(layer.size)
    mode = getattr(layer, "interpolation", "nearest")
    if mode != "nearest":
        size = (x.size(first) * factors[0], x.size(first + 1) * factors[1])
        return _resize(g, x, Target(size, mode), channels_last=last)
    for axis, factor in enumerate(factors, start=first):
        x = take(g, x, g.constant(np.repeat(np.arange(x.size(axis)), factor).astype(np.int64)), axis)
    return x


LAYERS: dict[str, Converter] = {
    "Resizing": _resizing,
    "CenterCrop": _center_crop,
    "UpSampling1D": _up_sampling,
    "UpSampling2D": _up_sampling,
    "UpSampling3D": _up_sampling,
}

OPERATIONS: dict[str, Converter] = {"Resize": _resize_op}
