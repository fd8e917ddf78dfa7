"""Runs a graph as it stands, so that a rewrite can be held against what it rewrote."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
import onnxruntime as ort

from hasten.errors import SourceError
from hasten.graph import to_bytes
from hasten.types import Array

__all__ = ["run"]


def run(model: ir.Model, arrays: Sequence[Array]) -> tuple[Array, ...]:
    """The graph's outputs on ``arrays`` by ONNX Runtime with every optimisation off, one thread.

    Raises:  SourceError: the graph is invalid or holds an operator that ONNX Runtime lacks
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    try:
        session = ort.InferenceSession(to_bytes(model), options, providers=["CPUExecutionProvider"])
        weights = model.graph.initializers
        names = [v.name for v in session.get_inputs() if v.name not in weights]
        return tuple(session.run(None, dict(zip(names, arrays, strict=True))))
    except Exception as error:
        raise SourceError(f"cannot run graph as a reference: {str(error).splitlines()[0]}") from error
