"""How packed weights are stored, and the vector function that widens them again."""

from __future__ import annotations

import numpy as np

from hasten.types import Array

__all__ = ["LOADS", "WEIGHT_TYPES", "stored"]

LOADS = {"float32": "v_load", "bfloat16": "v_load_bf16", "float16": "v_load_f16", "int8": "v_load_i8"}
WEIGHT_TYPES = {"float32": "float", "bfloat16": "uint16_t", "float16": "uint16_t", "int8": "int8_t",
                "int24": "int32_t"}  # fmt: skip


def stored(packed: Array, storage: str) -> Array:
    """float32 values as they are kept; half-wide ones as their bits, to nearest, ties to even."""
    if storage == "int8":
        return packed.astype(np.int8)
    if storage == "float16":
        # Denormals count as zero, as in every instruction set's way to widen them here.
        return np.where(np.abs(packed) < 2.0**-14, 0, packed).astype(np.float16).view(np.uint16)
    if storage == "bfloat16":
        bits = packed.astype(np.float32).view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return packed
