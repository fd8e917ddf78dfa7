"""A TFLite file enters; a ``Source`` leaves whose reference is LiteRT, or the float graph where LiteRT itself rounds.

``model`` reads the file, ``interpreter`` runs it, ``convert`` makes it ONNX, ``sequence`` and ``svdf`` write the fused
operators that tf2onnx lacks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from hasten.errors import HastenError
from hasten.graph import reference as graph_reference
from hasten.records import digest
from hasten.sources import Reference, Source, SourceRequest
from hasten.sources.dims import resolve, rows_independent
from hasten.sources.onnx import settle
from hasten.sources.samples import draw, index_limits
from hasten.sources.tflite.convert import to_graph
from hasten.sources.tflite.hybrid import hybrid_operators
from hasten.sources.tflite.interpreter import Opened, open_interpreter
from hasten.sources.tflite.model import Flat, parse
from hasten.types import TensorSpec

__all__ = ["open_tflite"]

# An import that is further off than this is a wrong import; hybrid kernels themselves are off by some 1e-2.
_GROSS = 0.1


@dataclass(frozen=True)
class _Imported:
    graph: ir.Model | None
    notes: tuple[str, ...]


def open_tflite(model: object, request: SourceRequest) -> Source:
    """The source of a ``.tflite`` file.

    Raises:  SourceError: no whole TFLite file, or LiteRT lacks an operator and no importer knows it either
    """
    path = Path(str(model))
    data = path.read_bytes()
    flat = parse(data, str(path))
    opened = open_interpreter(data, str(path))
    hybrid = hybrid_operators(flat)
    imported = _import(flat)
    if imported.graph is None:
        return _unimported(path, data, opened, request, imported.notes)
    graph, notes = imported.graph, list(imported.notes)
    call = opened.call
    if hybrid:
        call = _float_reference(graph)
        notes.append(
            f"weights are int8 under float activations ({', '.join(hybrid)}): the reference is the float graph with "
            "those weights; LiteRT itself rounds the activations and is some 1e-3 off"
        )
    settled = settle(graph, request, call, opened.inputs)
    gap = _gap(settled.inputs, settled.model, opened.call)
    if gap > _GROSS:
        note = f"the imported graph is {gap:.0%} off LiteRT's answers and is not used; LiteRT runs the file itself"
        return _unimported(path, data, opened, request, (*imported.notes, note))
    return Source(
        framework="tflite",
        path=path,
        model=settled.model,
        inputs=settled.inputs,
        outputs=settled.outputs,
        reference=_float_reference(settled.model) if hybrid else opened.call,
        notes=(*notes, *settled.notes),
        fingerprint=_fingerprint(data, settled.inputs),
    )


def _import(flat: Flat) -> _Imported:
    try:
        return _Imported(to_graph(flat, {}), ())
    except HastenError as error:
        return _Imported(None, (f"not imported as a graph: {error}; only LiteRT runs this file",))


def _float_reference(model: ir.Model) -> Reference:
    return lambda arrays: graph_reference.run(model, arrays)


def _gap(inputs: tuple[TensorSpec, ...], model: ir.Model, call: Reference) -> float:
    """Largest difference between graph and LiteRT, relative to the largest answer."""
    arrays = draw(inputs, index_limits(model), np.random.default_rng(1))
    worst = 0.0
    for mine, theirs in zip(graph_reference.run(model, arrays), call(arrays), strict=True):
        if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
            return float("inf")
        if mine.size and np.issubdtype(mine.dtype, np.number):
            m, t = mine.astype(np.float64), theirs.astype(np.float64)
            worst = max(worst, float(np.abs(m - t).max() / max(np.abs(t).max(), 1e-6)))
    return worst


def _unimported(path: Path, data: bytes, opened: Opened, request: SourceRequest, notes: tuple[str, ...]) -> Source:
    resolution = resolve(opened.inputs, request)
    rng = np.random.default_rng(0)
    if resolution.batch_names and not rows_independent(opened.call, draw(resolution.inputs, {}, rng, rows=3)):
        resolution = resolution.without_batch()
    inputs = resolution.inputs
    answers = opened.call(draw(inputs, {}, rng))
    batched = any(spec.is_batched for spec in inputs)
    outputs = tuple(
        TensorSpec(spec.name, a.dtype.name, ("batch", *a.shape[1:]) if batched else tuple(a.shape))
        for spec, a in zip(opened.outputs, answers, strict=True)
    )
    return Source("tflite", path, None, inputs, outputs, opened.call, notes, fingerprint=_fingerprint(data, inputs))


def _fingerprint(data: bytes, inputs: tuple[TensorSpec, ...]) -> str:
    return digest([digest(data), [spec.to_json() for spec in inputs]])
