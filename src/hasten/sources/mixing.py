"""A graph with a free batch enters; where the answer to a row depends on the rows beside it, the batch gets a number.

For frameworks that call every leading dimension a batch, whatever the model does with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from hasten.errors import SourceError
from hasten.graph.reference import runner
from hasten.graph.shapes import fix
from hasten.sources import SourceRequest
from hasten.sources.dims import rows_mix
from hasten.sources.rows import rows_apart
from hasten.sources.samples import draw, index_limits
from hasten.types import TensorSpec

__all__ = ["Ends", "settle_rows"]


@dataclass(frozen=True)
class Ends:
    """What goes in and out, and whether rows mix: then the batch is fixed, and ``notes`` says so."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    notes: tuple[str, ...] = ()
    rows_mix: bool = False


def settle_rows(
    graph: ir.Model | None,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    request: SourceRequest,
    *,
    mixes: bool = False,
) -> Ends:
    """The ends as they are, or with the sample's number of rows (1 without a sample), which ``graph`` then gets too.

    The graph is asked, unless rows are known to mix: the framework itself may take seconds a call.
    """
    if graph is None or not (mixes or _mix(graph, inputs, outputs)):
        return Ends(tuple(inputs), tuple(outputs))
    size = {"batch": len(request.sample[0]) if request.sample else 1}
    fix(graph, size)
    return Ends(
        tuple(spec.fixed(size) for spec in inputs),
        tuple(spec.fixed(size) for spec in outputs),
        (f"rows of a batch depend on one another in this model: fixed to batch {size['batch']}",),
        rows_mix=True,
    )


def _mix(graph: ir.Model, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> bool:
    if not any(spec.is_batched for spec in inputs) or not all(spec.is_batched for spec in outputs):
        return False
    if rows_apart(graph):
        return False
    try:
        return rows_mix(runner(graph), draw(inputs, index_limits(graph), np.random.default_rng(0), rows=3))
    except SourceError:
        return False
