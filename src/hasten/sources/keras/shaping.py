"""``keras.ops`` and layers that move elements without changing them: reshape, transpose, index, join, split, pad."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hasten.sources.keras.build import Shape, Tensor, Unsupported
from hasten.sources.keras.reduce import axes_of
from hasten.sources.keras.scope import Call, Converter, Scope

__all__ = ["LAYERS", "OPERATIONS"]


def _reshape(g: Scope, call: Call) -> Tensor:
    return g.reshape(g.tensor(call.first), call.shape)


def _expand_dims(g: Scope, call: Call) -> Tensor:
    axis = call.setting("axis")
    return g.unsqueeze(g.tensor(call.first), axis if isinstance(axis, (list, tuple)) else [axis])


def _squeeze(g: Scope, call: Call) -> Tensor:
    x, axis = g.tensor(call.first), call.setting("axis")
    if axis is None:
        return g.reshape(x, call.shape)
    return g.squeeze(x, axis if isinstance(axis, (list, tuple)) else [axis])


def _transpose(g: Scope, call: Call) -> Tensor:
    x, axes = g.tensor(call.first), call.setting("axes")
    return g.transpose(x, [a % x.rank for a in axes] if axes else list(range(x.rank))[::-1])


def _swap(g: Scope, call: Call) -> Tensor:
    x = g.tensor(call.first)
    order = list(range(x.rank))
    a, b = call.setting("axis1"), call.setting("axis2")
    order[a], order[b] = order[b], order[a]
    return g.transpose(x, order)


def _move(g: Scope, call: Call) -> Tensor:
    x = g.tensor(call.first)
    source, destination = axes_of(x, call.setting("source")), axes_of(x, call.setting("destination"))
    order = [i for i in range(x.rank) if i not in source]
    for place, axis in sorted(zip(destination, source, strict=True)):
        order.insert(place, axis)
    return g.transpose(x, order)


def _concatenate(g: Scope, call: Call) -> Tensor:
    parts = [g.tensor(p, call.dtype) for p in call.first]
    return _join(g, parts, call.setting("axis"))


def _join(g: Scope, parts: Sequence[Tensor], axis: int) -> Tensor:
    """Concatenates; a part that is one constant row is repeated along the batch of the others."""
    axis %= parts[0].rank
    free = next((p for p in parts if p.shape[0] is None), None)
    if free is not None and axis != 0:
        parts = [p if p.shape[0] is None else g.expand(p, (None, *p.shape[1:]), like=free) for p in parts]
    return g.concat(parts, axis)


def _stack(g: Scope, call: Call) -> Tensor:
    parts = [g.tensor(p, call.dtype) for p in call.first]
    axis = call.setting("axis") % (parts[0].rank + 1)
    return _join(g, [g.unsqueeze(p, [axis]) for p in parts], axis)


def _joined(axis_of: dict[int, int]) -> Converter:
    def convert(g: Scope, call: Call) -> Tensor:
        parts = [g.tensor(p, call.dtype) for p in call.first]
        return _join(g, parts, axis_of.get(parts[0].rank, axis_of[0]))

    return convert


def _unstack(g: Scope, call: Call) -> list[Tensor]:
    x = g.tensor(call.first)
    axis = call.setting("axis") % x.rank
    return [g.squeeze(g.slice(x, axis, i, i + 1), [axis]) for i in range(x.size(axis))]


def _split(g: Scope, call: Call) -> list[Tensor]:
    x, axis = g.tensor(call.first), call.setting("axis")
    axis %= x.rank
    parts = call.setting("indices_or_sections")
    if isinstance(parts, int):
        ends = [x.size(axis) // parts * (i + 1) for i in range(parts)]
    else:
        ends = [*map(int, parts), x.size(axis)]
    sizes = [b - a for a, b in zip([0, *ends], ends, strict=False)]
    values = g.nodes_of("Split", [x, g.constant(np.array(sizes, np.int64), name="split")], len(sizes), {"axis": axis})
    return [Tensor(v, (*x.shape[:axis], n, *x.shape[axis + 1 :]), x.dtype) for v, n in zip(values, sizes, strict=True)]


def _flip(g: Scope, call: Call) -> Tensor:
    x: Tensor = g.tensor(call.first)
    axis = call.setting("axis")
    for a in range(x.rank) if axis is None else (axis if isinstance(axis, (list, tuple)) else [axis]):
        x = g.flip(x, a)
    return x


def _roll(g: Scope, call: Call) -> Tensor:
    x: Tensor = g.tensor(call.first)
    axis, shift = call.setting("axis"), call.setting("shift")
    if axis is None:
        raise Unsupported("roll of the flattened tensor")
    shifts = shift if isinstance(shift, (list, tuple)) else [shift]
    for a, s in zip(axis if isinstance(axis, (list, tuple)) else [axis], shifts, strict=True):
        cut = (-s) % x.size(a)
        if cut:
            x = g.concat([g.slice(x, a, cut, x.size(a)), g.slice(x, a, 0, cut)], a)
    return x


def _repeat(g: Scope, call: Call) -> Tensor:
    x, axis, repeats = g.tensor(call.first), call.setting("axis"), call.setting("repeats")
    if axis is None:
        raise Unsupported("repeat of the flattened tensor")
    axis %= x.rank
    counts = np.broadcast_to(np.asarray(repeats), (x.size(axis),))
    places = np.repeat(np.arange(x.size(axis)), counts)
    return take(g, x, g.constant(places.astype(np.int64)), axis)


def _tile(g: Scope, call: Call) -> Tensor:
    x, repeats = g.tensor(call.first), call.setting("repeats")
    counts = list(repeats) if isinstance(repeats, (list, tuple)) else [repeats]
    counts = [1] * (x.rank - len(counts)) + counts
    if len(counts) > x.rank:
        x = g.unsqueeze(x, list(range(len(counts) - x.rank)))
    shape = tuple(None if d is None else d * n for d, n in zip(x.shape, counts, strict=True))
    return g.op("Tile", [x, g.constant(np.array(counts, np.int64), name="repeats")], shape)


def take(g: Scope, x: Tensor, indices: Tensor, axis: int) -> Tensor:
    """Slices of ``x`` along ``axis`` at integer ``indices``."""
    axis %= x.rank
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    whole = indices if indices.dtype in ("int32", "int64") else g.cast(indices, "int32")
    return g.op("Gather", [x, whole], shape, attributes={"axis": axis})


def _take(g: Scope, call: Call) -> Tensor:
    x, axis = g.tensor(call["x"]), call.setting("axis")
    indices = g.tensor(call["indices"])
    if axis is None:
        if None in x.shape:
            raise Unsupported("take from the flattened batch")
        x, axis = g.reshape(x, (math.prod(map(int, x.shape)),)), 0
    return take(g, x, indices, axis)


def _take_along(g: Scope, call: Call) -> Tensor:
    x, indices, axis = g.tensor(call["x"]), g.tensor(call["indices"]), call.setting("axis")
    if axis is None:
        raise Unsupported("take_along_axis of the flattened tensor")
    target = tuple(d if i == axis % x.rank else x.shape[i] for i, d in enumerate(indices.shape))
    indices = g.expand(g.cast(indices, "int64"), target, like=x)
    return g.op("GatherElements", [x, indices], target, attributes={"axis": axis % x.rank})


def _get_item(g: Scope, call: Call) -> Tensor:
    x, key = g.tensor(call["x"]), call["key"]
    keys = list(key) if isinstance(key, tuple) else [key]
    if Ellipsis in [k for k in keys if not isinstance(k, (Tensor, np.ndarray))]:
        place = next(i for i, k in enumerate(keys) if k is Ellipsis)
        missing = x.rank - sum(k is not None and k is not Ellipsis for k in keys)
        keys[place : place + 1] = [slice(None)] * missing
    dropped = []
    for axis, k in enumerate(keys):
        if k is None:
            x = g.unsqueeze(x, [axis])
        elif isinstance(k, slice):
            x = _slice(g, x, axis, k)
        elif isinstance(k, (int, np.integer)):
            x = _pick(g, x, axis, int(k))
            dropped.append(axis)
        else:
            x = take(g, x, _row(g, keys, k), axis)
    return g.squeeze(x, dropped)


def _row(g: Scope, keys: Sequence[Any], key: Any) -> Tensor:
    """The only index of a kind other than slices and numbers, which must be one row of places."""
    indices: Tensor = g.tensor(key)
    others = sum(not isinstance(k, (slice, int, type(None))) for k in keys)
    if indices.rank != 1 or indices.dtype == "bool" or others > 1:
        raise Unsupported(f"indexing with {key}: expected slices, numbers, or one row of indices")
    return indices


def _slice(g: Scope, x: Tensor, axis: int, key: slice) -> Tensor:
    if key == slice(None):
        return x
    start, stop, step = key.start, key.stop, 1 if key.step is None else key.step
    if any(isinstance(v, Tensor) for v in (start, stop, step)):
        raise Unsupported("a slice whose ends are computed")
    size = x.size(axis)
    picked = range(size)[slice(start, stop, step)]
    return g.slice(x, axis, picked.start, picked.stop if picked.stop >= 0 else -size - 1, step)


def _pick(g: Scope, x: Tensor, axis: int, place: int) -> Tensor:
    if x.shape[axis] is None:
        return g.op(
            "Gather", [x, g.constant(np.array([place], np.int64))], (*x.shape[:axis], 1, *x.shape[axis + 1 :]),
            attributes={"axis": axis},
        )  # fmt: skip
    place %= x.size(axis)
    return g.slice(x, axis, place, place + 1)


def _pad(g: Scope, call: Call) -> Tensor:
    x, width, mode = g.tensor(call["x"]), call.setting("pad_width"), call.setting("mode")
    if mode == "constant":
        value = call["constant_values"]
        before, after = zip(*_widths(width, x.rank), strict=True)
        return g.pad(x, before, after, 0.0 if value is None else float(value))
    modes = {"reflect": "reflect", "edge": "edge"}
    if mode not in modes:
        raise Unsupported(f"padding by {mode}: expected constant, reflect or edge")
    before, after = zip(*_widths(width, x.rank), strict=True)
    shape = tuple(None if d is None else d + b + a for d, b, a in zip(x.shape, before, after, strict=True))
    return g.op("Pad", [x, g.constant(np.array([*before, *after], np.int64))], shape, attributes={"mode": modes[mode]})


def _widths(width: Any, rank: int) -> list[tuple[int, int]]:
    if isinstance(width, int):
        return [(width, width)] * rank
    pairs = [tuple(p) if isinstance(p, (list, tuple)) else (p, p) for p in width]
    return pairs * rank if len(pairs) == 1 else pairs


def _broadcast_to(g: Scope, call: Call) -> Tensor:
    x = g.tensor(call.first)
    return g.expand(x, call.shape, like=x)


def _triangle(*, upper: int) -> Converter:
    def convert(g: Scope, call: Call) -> Tensor:
        x = g.tensor(call.first)
        k = g.constant(np.int64(call.setting("k")))
        return g.op("Trilu", [x, k], x.shape, attributes={"upper": upper})

    return convert


def _one_hot(g: Scope, call: Call) -> Tensor:
    x = g.tensor(call.first)
    count, axis = call.setting("num_classes"), call.setting("axis")
    return one_hot(g, x, count, call.dtype, axis)


def one_hot(g: Scope, x: Tensor, count: int, dtype: str, axis: int = -1) -> Tensor:
    """1 where the new axis' index equals ``x``; indices out of range give zeros, as in Keras."""
    axis %= x.rank + 1
    ladder = g.constant(np.arange(count).reshape([-1 if i == axis else 1 for i in range(x.rank + 1)]), "int64")
    return g.cast(g.binary("Equal", g.unsqueeze(g.cast(x, "int64"), [axis]), ladder, dtype="bool"), dtype)


def _blocks(kind: str) -> Converter:
    def convert(g: Scope, call: Call) -> Tensor:
        x, size = g.tensor(call.first), call.setting("block_size")
        last = call.setting("data_format") == "channels_last"
        x = g.transpose(x, [0, 3, 1, 2]) if last else x
        n, c, h, w = x.shape
        factor = size * size
        shape: Shape = (
            (n, int(c or 0) // factor, int(h or 0) * size, int(w or 0) * size)
            if kind == "DepthToSpace"
            else (n, int(c or 0) * factor, int(h or 0) // size, int(w or 0) // size)
        )
        y = g.op(kind, [x], shape, attributes={"blocksize": size})
        return g.transpose(y, [0, 2, 3, 1]) if last else y

    return convert


def _flatten(g: Scope, call: Call) -> Tensor:
    x = call.x
    if call.layer.data_format == "channels_first" and x.rank > 2:
        x = g.transpose(x, [0, *range(2, x.rank), 1])
    return g.reshape(x, call.shape)


def _repeat_vector(g: Scope, call: Call) -> Tensor:
    x = g.unsqueeze(call.x, [1])
    count = g.constant(np.array([1, call.layer.n, 1], np.int64), name="repeats")
    return g.op("Tile", [x, count], (x.shape[0], call.layer.n, x.shape[2]))


def _cropping(g: Scope, call: Call) -> Tensor:
    x, cropping = call.x, call.layer.cropping
    pairs = [cropping] if isinstance(cropping[0], int) else cropping
    first = 2 if getattr(call.layer, "data_format", None) == "channels_first" else 1
    for axis, (before, after) in enumerate(pairs, start=first):
        x = g.slice(x, axis, before, x.size(axis) - after)
    return x


def _zero_padding(g: Scope, call: Call) -> Tensor:
    x, padding = call.x, call.layer.padding
    pairs = [padding] if isinstance(padding[0], int) else list(padding)
    first = 2 if call.layer.data_format == "channels_first" else 1
    whole = [(0, 0)] * first + [tuple(p) for p in pairs]
    whole += [(0, 0)] * (x.rank - len(whole))
    return g.pad(x, [p[0] for p in whole], [p[1] for p in whole])


LAYERS: dict[str, Converter] = {
    "Reshape": _reshape,
    "Permute": lambda g, call: g.transpose(call.x, [0, *call.layer.dims]),
    "Flatten": _flatten,
    "RepeatVector": _repeat_vector,
    "Cropping1D": _cropping,
    "Cropping2D": _cropping,
    "Cropping3D": _cropping,
    "ZeroPadding1D": _zero_padding,
    "ZeroPadding2D": _zero_padding,
    "ZeroPadding3D": _zero_padding,
}

OPERATIONS: dict[str, Converter] = {
    "Reshape": _reshape,
    "Ravel": _reshape,
    "ExpandDims": _expand_dims,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Swapaxes": _swap,
    "Moveaxis": _move,
    "Concatenate": _concatenate,
    "Append": lambda g, call: _join(g, [g.tensor(call[n], call.dtype) for n in ("x1", "x2")], call.setting("axis")),
    "Hstack": _joined({0: 1, 1: 0}),
    "Vstack": _joined({0: 0}),
    "Stack": _stack,
    "Unstack": _unstack,
    "Split": _split,
    "Flip": _flip,
    "Roll": _roll,
    "Repeat": _repeat,
    "Tile": _tile,
    "Take": _take,
    "TakeAlongAxis": _take_along,
    "GetItem": _get_item,
    "Pad": _pad,
    "BroadcastTo": _broadcast_to,
    "Tril": _triangle(upper=0),
    "Triu": _triangle(upper=1),
    "OneHot": _one_hot,
    "DepthToSpace": _blocks("DepthToSpace"),
    "SpaceToDepth": _blocks("SpaceToDepth"),
}
