"""Which converter writes which Keras layer and ``keras.ops`` operation. To add one: an entry in its family's file."""

from __future__ import annotations

from hasten.sources.keras import (
    activations,
    attention,
    convolution,
    elementwise,
    imaging,
    loops,
    merging,
    normalization,
    pooling,
    preprocessing,
    products,
    recurrent,
    reduce,
    shaping,
    signals,
)
from hasten.sources.keras.build import Tensor
from hasten.sources.keras.scope import Call, Converter, Scope

__all__ = ["LAYERS", "OPERATIONS"]


def _same(g: Scope, call: Call) -> object:
    return g.cast(call.first, call.dtype) if isinstance(call.first, Tensor) else call.first


_IDLE_AT_INFERENCE = (
    "ActivityRegularization",
    "AlphaDropout",
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "Identity",
    "InputLayer",
    *(f"Random{what}" for what in ("Brightness", "ColorDegeneration", "ColorJitter", "Contrast", "ElasticTransform")),
    *(f"Random{what}" for what in ("Erasing", "Flip", "GaussianBlur", "Grayscale", "Hue", "Invert", "Perspective")),
    *(f"Random{what}" for what in ("Posterization", "Rotation", "Saturation", "Sharpness", "Shear", "Translation")),
    "RandomZoom",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
)

_FAMILIES = (
    activations,
    attention,
    convolution,
    elementwise,
    imaging,
    loops,
    merging,
    normalization,
    pooling,
    preprocessing,
    products,
    recurrent,
    reduce,
    shaping,
    signals,
)

LAYERS: dict[str, Converter] = dict.fromkeys(_IDLE_AT_INFERENCE, _same)
OPERATIONS: dict[str, Converter] = {}
for _family in _FAMILIES:
    LAYERS.update(getattr(_family, "LAYERS", {}))
    OPERATIONS.update(getattr(_family, "OPERATIONS", {}))
