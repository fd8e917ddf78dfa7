"""Preprocessing layers that are arithmetic: rescaling, normalising, binning, category codes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hasten.sources.keras.build import Tensor, Unsupported
from hasten.sources.keras.scope import Call, Converter, Scope, weight
from hasten.sources.keras.shaping import one_hot

__all__ = ["LAYERS", "OPERATIONS"]


def _rescaling(g: Scope, call: Call) -> Tensor:
    from keras import backend  # noqa: PLC0415

    layer, x = call.layer, g.cast(call.x, call.dtype)
    scale, offset = np.asarray(layer.scale), np.asarray(layer.offset)
    if scale.ndim and backend.image_data_format() == "channels_first":
        scale = scale.reshape(*scale.shape, *[1] * (3 - scale.ndim))
    return g.add(g.mul(x, g.constant(scale, x.dtype, "scale")), g.constant(offset, x.dtype, "offset"))


def _normalization(g: Scope, call: Call) -> Tensor:
    from keras import backend  # noqa: PLC0415

    layer, x = call.layer, g.cast(call.x, call.dtype)
    mean = g.constant(weight(layer.mean), x.dtype, "mean")
    spread = g.constant(np.maximum(np.sqrt(weight(layer.variance)), backend.epsilon()), x.dtype, "spread")
    return g.add(mean, g.mul(x, spread)) if layer.invert else g.div(g.sub(x, mean), spread)


def _discretization(g: Scope, call: Call) -> Tensor:
    layer = call.layer
    places = _bins(g, call.x, np.asarray(layer.bin_boundaries))
    return _encoded(g, places, layer.output_mode, len(layer.bin_boundaries) + 1, call)


def _bins(g: Scope, x: Tensor, boundaries: np.ndarray) -> Tensor:
    """How many boundaries lie at or under each element."""
    edges = g.constant(boundaries, x.dtype, "boundaries")
    over = g.binary("GreaterOrEqual", g.unsqueeze(x, [-1]), edges, dtype="bool")
    return g.reduce("ReduceSum", g.cast(over, "int32"), [-1])


def _digitize(g: Scope, call: Call) -> Tensor:
    bins = g.tensor(call["bins"])
    if bins.constant is None:
        raise Unsupported("digitize by computed bins")
    return g.cast(_bins(g, g.tensor(call["x"]), bins.constant), call.dtype)


def _category(g: Scope, call: Call) -> Tensor:
    layer = call.layer
    if call["count_weights"] is not None:
        raise Unsupported("category encoding with weights")
    return _encoded(g, call.x, layer.output_mode, layer.num_tokens, call)


def _lookup(g: Scope, call: Call) -> Tensor:
    """The place of an integer in the vocabulary; unknown ones share the first place, before it."""
    layer, x = call.layer, call.x
    words = np.asarray(layer.get_vocabulary(include_special_tokens=False), np.int64)
    before = layer.vocabulary_size() - len(words)
    unknown = layer.num_oov_indices
    if layer.invert or layer.output_mode == "tf_idf" or unknown > 1 or layer.mask_token is not None or not len(words):
        raise Unsupported("a lookup that inverts, hashes, masks or weighs")
    if unknown == 0:
        raise Unsupported("a lookup that refuses unknown integers")
    same = g.binary("Equal", g.unsqueeze(g.cast(x, "int64"), [-1]), g.constant(words, "int64", "words"), dtype="bool")
    numbers = g.constant(np.arange(len(words)) + before, "int64", "places")
    # One word at most is the same: its place, or nothing, and then the first.
    found = g.reduce("ReduceMax", g.mul(g.cast(same, "int64"), numbers), [-1])
    # Keras' symbol of the result says float32, whatever the layer computes in.
    told = replace(call, dtypes=(layer.compute_dtype,))
    return _encoded(g, found, layer.output_mode, layer.vocabulary_size(), told)


def _encoded(g: Scope, x: Tensor, mode: str, depth: int, call: Call) -> Tensor:
    if mode == "int":
        return g.cast(x, call.dtype)
    if mode == "one_hot":
        return one_hot(g, g.squeeze(x, [-1]) if x.rank > 1 and x.shape[-1] == 1 else x, depth, call.dtype)
    if x.rank != 2:
        raise Unsupported(f"{mode} encoding of rank {x.rank}: expected rank 2")
    ones = one_hot(g, x, depth, "float32")
    return g.cast(g.reduce("ReduceMax" if mode == "multi_hot" else "ReduceSum", ones, [1]), call.dtype)


LAYERS: dict[str, Converter] = {
    "Rescaling": _rescaling,
    "Normalization": _normalization,
    "Discretization": _discretization,
    "CategoryEncoding": _category,
    "IntegerLookup": _lookup,
}

OPERATIONS: dict[str, Converter] = {"Digitize": _digitize}
