"""Scaled dot-product attention; the attention layers themselves are opened up and come down to it."""

from __future__ import annotations

import math

import numpy as np

from hasten.sources.keras.build import Tensor, Unsupported
from hasten.sources.keras.scope import Call, Converter, Scope

__all__ = ["OPERATIONS"]


def _attention(g: Scope, call: Call) -> Tensor:
    """query (B, T, N, H), key and value (B, S, N, H): softmax over S in float32 or wider."""
    query, key, value = (g.tensor(call[n]) for n in ("query", "key", "value"))
    if call.layer.attn_logits_soft_cap is not None:
        raise Unsupported("attention with a soft cap on its logits")
    if key.shape[2] != query.shape[2]:
        raise Unsupported(f"attention of {query.shape[2]} query heads over {key.shape[2]} key heads")
    wide = "float32" if query.dtype in ("float16", "bfloat16") else query.dtype
    scale = call["scale"]
    logits = g.matmul(g.transpose(query, [0, 2, 1, 3]), g.transpose(key, [0, 2, 3, 1]))
    logits = g.mul(g.cast(logits, wide), 1.0 / math.sqrt(query.size(-1)) if scale is None else g.tensor(scale, wide))
    if call["bias"] is not None:
        logits = g.add(logits, g.tensor(call["bias"], wide))
    mask = None if call["mask"] is None else g.tensor(call["mask"], "bool")
    if call.layer.is_causal:
        causal = g.constant(np.tril(np.ones((logits.size(2), logits.size(3)), bool)), name="causal")
        mask = causal if mask is None else g.binary("And", mask, causal)
    if mask is not None:
        lowest = float(-0.7 * np.finfo(np.float16 if wide == "float16" else np.float32).max)
        logits = g.where(mask, logits, g.constant(lowest, wide))
    weights = g.cast(g.unary("Softmax", logits, axis=3), key.dtype)
    return g.transpose(g.matmul(weights, g.transpose(value, [0, 2, 1, 3])), [0, 2, 1, 3])


OPERATIONS: dict[str, Converter] = {"DotProductAttention": _attention}
