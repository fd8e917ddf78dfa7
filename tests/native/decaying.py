"""A recurrent layer that is called step by step and forgets so slowly that its state would end among denormals."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from native_cases import graph
from onnx import helper

__all__ = ["decaying"]

KEPT = 0.9995  # of the state at every step: after 175,000 of them it would be below the smallest normal float32


def decaying(kind: str, inputs: int = 8, units: int = 20) -> ir.Model:
    """x and the states go in, the states come out: one step of an LSTM or GRU, whose states go to zero where x is."""
    rng, gates = np.random.default_rng(0), {"LSTM": 4, "GRU": 3}[kind]
    hidden = rng.uniform(-0.5, 0.5, (1, gates, units, units)).astype(np.float32)
    bias = np.zeros((1, 2 * gates, units), np.float32)
    hidden[:, -1] = 0  # what is new comes from x alone
    bias[:, {"LSTM": 2, "GRU": 0}[kind]] = np.log(KEPT / (1 - KEPT))
    weights = {
        "w": rng.standard_normal((1, gates * units, inputs)).astype(np.float32),
        "r": hidden.reshape(1, gates * units, units), "b": bias.reshape(1, -1),
    }  # fmt: skip
    states = ["h", "c"][: 2 if kind == "LSTM" else 1]
    after = [f"{name}_after" for name in states]
    node = helper.make_node(kind, ["x", "w", "r", "b", "", *states], ["", *after], hidden_size=units)
    shape = (1, 1, units)
    return graph([node], {"x": (1, 1, inputs), **dict.fromkeys(states, shape)}, dict.fromkeys(after, shape), weights)
