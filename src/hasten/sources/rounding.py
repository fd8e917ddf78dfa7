"""How far a framework's own answers to a quantised graph are apart.

A graph of QuantizeLinear and DequantizeLinear says float32. ONNX Runtime's optimised form sums integers instead, looks
functions up in tables and rounds in other places, and its answers are a step or two of a quantised value off those of
the graph as it stands. Either is what the model answers; and what sums in another order rounds some value the other
way, which later layers carry on as a whole step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from hasten.errors import SourceError
from hasten.graph.reference import runner
from hasten.sources import Reference
from hasten.types import Array
from hasten.verify import MOST_STEPS, Tolerance

__all__ = ["apart", "is_quantised", "own_rounding"]

# Sums of a few hundred float32 products in another order.
_NUDGE = 2.0**-16
# Twice that is allowed, and never more than whoever asks for int8 gets.
_MOST_SPREAD = Tolerance.named("int8").absolute / 2
_SMALLEST_SCALE = 0.01
_VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity")


def is_quantised(model: ir.Model) -> bool:
    """True where any operator rounds to integers, or sums them."""
    marks = ("Quantize", "QLinear", "Integer")
    return any(mark in node.op_type for node in model.graph.all_nodes() for mark in marks)


def own_rounding(model: ir.Model, reference: Reference, drawn: Sequence[Sequence[Array]]) -> tuple[int, float]:
    """Steps by which integer answers of few bits may be off, at least 1, and the part of their largest by which float
    answers may.

    It is how far ``reference`` is from the graph as it stands, and from itself with the inputs a little off; and a step
    of an output that is dequantised.

    Shapes:  drawn: for each call, one array an input
    """
    try:
        plain = runner(model)
        others = [(arrays, plain(arrays)) for arrays in drawn]
    except SourceError:  # an operator that only the optimised form has a kernel for
        others = []
    rng = np.random.default_rng(0)
    pairs = [(reference(arrays), answers) for arrays, answers in others]
    pairs += [(reference(arrays), reference(_nudged(arrays, rng))) for arrays in drawn]
    return apart(model, pairs)


def apart(model: ir.Model, pairs: Sequence[tuple[Sequence[Array], Sequence[Array]]]) -> tuple[int, float]:
    """Steps and part, as ``own_rounding``, of two right answers to each of several calls of a quantised model."""
    steps, spread = 0, 0.0
    quanta = [_step(value) for value in model.graph.outputs]
    for ours, theirs in pairs:
        for a, b, step in zip(ours, theirs, quanta, strict=True):
            if a.shape != b.shape or not a.size:
                continue
            if a.dtype.kind in "iu" and a.dtype.itemsize <= 2:  # wider ones count or index
                steps = max(steps, int(np.abs(a.astype(np.int32) - b).max()))
            elif a.dtype.kind == "f":
                spread = max(spread, _apart(a, b, step))
    return min(MOST_STEPS, 1 + steps), min(_MOST_SPREAD, spread)


def _step(value: ir.Value) -> float:
    """Between neighbours among the numbers that a dequantised value can be; 0 for any other value."""
    maker = value.producer()
    while maker is not None and maker.op_type in _VIEWS and maker.inputs[0] is not None:
        maker = maker.inputs[0].producer()
    scale = maker.inputs[1] if maker is not None and maker.op_type == "DequantizeLinear" else None
    return 0.0 if scale is None or scale.const_value is None else float(np.abs(scale.const_value.numpy()).max())


def _apart(a: Array, b: Array, step: float) -> float:
    scale = float(np.abs(a[np.isfinite(a)]).max(initial=0.0))
    gap = float(np.abs(np.where(np.isfinite(a) & np.isfinite(b), a - b, 0.0)).max())
    return max(gap, step) / max(scale, _SMALLEST_SCALE)


def _nudged(arrays: Sequence[Array], rng: np.random.Generator) -> list[Array]:
    """Floats a little larger or smaller; whole numbers stay, since they may count or index."""
    return [
        (a * (1 + _NUDGE * rng.choice((-1.0, 1.0), a.shape))).astype(a.dtype) if a.dtype.kind == "f" else a
        for a in map(np.asarray, arrays)
    ]
