"""A TFLite file enters; a ``Source`` leaves whose reference is LiteRT, or the float graph where LiteRT itself rounds.

``model`` reads the file, ``sizes`` refuses one that damage makes huge, ``state`` shows what it keeps between calls,
``lists`` lowers the tensor lists of unfused loops, ``interpreter`` runs it, ``convert`` makes it ONNX, ``sequence`` and
``step`` write the fused operators that tf2onnx lacks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from hasten.errors import HastenError, UnsupportedOpError
from hasten.graph import reference as graph_reference
from hasten.records import digest
from hasten.sources import Reference, Source, SourceRequest
from hasten.sources.dims import resolve, rows_independent
from hasten.sources.onnx import Settled, settle, work_folder
from hasten.sources.rounding import apart, is_quantised
from hasten.sources.samples import draw, index_limits
from hasten.sources.tflite.convert import Emitter, to_graph
from hasten.sources.tflite.hybrid import hybrid_operators
from hasten.sources.tflite.interpreter import Opened, kernel_answers, open_interpreter
from hasten.sources.tflite.lists import lower_lists
from hasten.sources.tflite.model import Flat, parse
from hasten.sources.tflite.pointwise import POINTWISE
from hasten.sources.tflite.sequence import SEQUENCES, SEQUENCES_EXACT
from hasten.sources.tflite.sizes import refuse_swollen, settle_free
from hasten.sources.tflite.slices import SLICES
from hasten.sources.tflite.state import refuse_unset, rewire_resources, stepping_states
from hasten.sources.tflite.step import STEPS
from hasten.types import Array, TensorSpec

__all__ = ["open_tflite"]

# An import that is further off than this is a wrong import; hybrid kernels themselves are off by some 1e-2.
_GROSS = 0.1
# As far off as that from LiteRT's own other kernels, the import is as right as those.
_ALIKE = 2.0
# The largest disagreement with LiteRT that a clip left out may cause: that of two orders of summation.
_CLOSE = 1e-3
_PROBES = (1.0, 0.01, 30.0, 1000.0)
# Moves transposes from node to node, and into reductions and products whose axes it then gets wrong.
_MOVING = frozenset({"optimize_transpose"})


@dataclass(frozen=True)
class _File:
    """The file as its reference runs it: maybe rewritten, with state shown."""

    path: Path
    data: bytes
    flat: Flat
    opened: Opened
    notes: tuple[str, ...]
    states: int
    """How many inputs are state that LiteRT keeps itself."""


def open_tflite(model: object, request: SourceRequest) -> Source:
    """The source of a ``.tflite`` file.

    Raises:  SourceError: no whole TFLite file, or LiteRT lacks an operator and no importer knows it either
    """
    path = Path(str(model))
    content = path.read_bytes()
    file = _prepare(path, content, request)
    hybrid = hybrid_operators(file.flat)
    try:
        settled, notes = _imported(file, hybrid, request)
    except HastenError as error:
        # A free dimension without a number fails here again, with the question to the user.
        note = f"not imported as a graph ({error}); only LiteRT runs this file"
        return _unimported(file, content, request, note)
    steps, spread = (1, 0.0) if hybrid or file.states else _rounding(file, settled)
    return Source(
        framework="tflite",
        path=file.path,
        model=settled.model,
        inputs=settled.inputs,
        outputs=settled.outputs,
        reference=_graph_call(settled.model) if hybrid else file.opened.call,
        notes=(*file.notes, *notes, *settled.notes),
        fingerprint=_fingerprint(content, settled.inputs),
        rows_mix=settled.rows_mix,
        steps=steps,
        spread=spread,
    )


def _rounding(file: _File, settled: Settled) -> tuple[int, float]:
    """How far LiteRT's own kernels are apart, see ``rounding.own_rounding``."""
    if not is_quantised(settled.model):
        return 1, 0.0
    rng = np.random.default_rng(2)
    drawn = [draw(settled.inputs, index_limits(settled.model), rng) for _ in range(3)]
    return apart(settled.model, kernel_answers(file.data, file.opened.call, drawn))


def _prepare(path: Path, content: bytes, request: SourceRequest) -> _File:
    """Shows the state that the file keeps and lowers tensor lists; a file that this changed is written anew."""
    flat = parse(content, str(path))
    refuse_unset(flat, str(path))
    notes = []
    settled = settle_free(flat)
    variables, lowered = rewire_resources(flat), lower_lists(flat)
    states = stepping_states(flat)
    for variable in (*variables, *states):
        start = "zeros" if variable.start is None or not variable.start.any() else "the value stored in the file"
        notes.append(f"state kept inside is now input '{variable.input.name}' and an output; it starts from {start}")
    if lowered:
        notes.append("tensor lists of TensorFlow (Flex) were lowered to plain operators, at batch 1")
    if any(t.isVariable for g in flat.tree.subgraphs for t in g.tensors) and not states:
        notes.append("recurrent layers start from zero state at every call; LiteRT alone would carry it over")
    data = content
    if settled or variables or states or lowered:
        data = flat.to_bytes()
        path = work_folder(request) / "model.tflite"
        path.write_bytes(data)
    refuse_swollen(data, flat, str(path))
    return _File(path, data, flat, open_interpreter(data, str(path), states), tuple(notes), len(states))


def _imported(file: _File, hybrid: Sequence[str], request: SourceRequest) -> tuple[Settled, tuple[str, ...]]:
    """The graph, checked against LiteRT's answers.

    Raises:  HastenError: an operator has no importer, or the graph's answers are not LiteRT's
    """
    try:
        return _agreeing(file, hybrid, request, frozenset())
    except UnsupportedOpError:
        raise
    except HastenError as error:
        with contextlib.suppress(HastenError):
            return _agreeing(file, hybrid, request, _MOVING)
        raise error from None


def _agreeing(
    file: _File, hybrid: Sequence[str], request: SourceRequest, without: frozenset[str]
) -> tuple[Settled, tuple[str, ...]]:
    settled, notes = _settled(file, SEQUENCES, hybrid, request, without)
    clipped = _clipped(file.flat)
    if clipped and _gap(settled, file.opened.call) > (_GROSS if hybrid else _CLOSE):
        settled, notes = _settled(file, SEQUENCES_EXACT, hybrid, request, without)
    elif clipped:
        note = f"{clipped} clips its cell state where ONNX's LSTM does not: left out, as it changed no answer tried"
        notes = (*notes, note)
    gap = _gap(settled, file.opened.call, probes=(1.0,))
    if gap > _GROSS and gap > _ALIKE * _own_gap(file, settled):
        raise HastenError(f"the imported graph is {gap:.0%} off LiteRT's answers")
    return settled, notes


def _own_gap(file: _File, settled: Settled) -> float:
    """As ``_gap``, between LiteRT's own sets of kernels: where one step decides, as between two places of a heat map
    that are equally likely, they answer otherwise, too."""
    if file.states:
        return 0.0
    return _worst(kernel_answers(file.data, file.opened.call, _probes(settled, (1.0,) * 4)))


def _settled(
    file: _File,
    sequences: Mapping[str, Emitter],
    hybrid: Sequence[str],
    request: SourceRequest,
    without: frozenset[str],
) -> tuple[Settled, tuple[str, ...]]:
    graph = to_graph(file.flat, {**sequences, **STEPS, **SLICES, **POINTWISE}, without=without)
    if not hybrid:
        return settle(graph, request, file.opened.call, file.opened.inputs), ()
    note = (
        f"weights are int8 under float activations ({', '.join(hybrid)}): the reference is the float graph with those "
        "weights; LiteRT itself rounds the activations and is some 1e-3 off"
    )
    return settle(graph, request, _graph_call(graph), file.opened.inputs), (note,)


def _clipped(flat: Flat) -> str | None:
    """The name of a recurrent operator with a cell clip."""
    for op in flat.main.operators or ():
        if flat.op_name(op) in SEQUENCES and getattr(op.builtinOptions, "cellClip", 0) > 0:
            return flat.op_name(op)
    return None


def _graph_call(model: ir.Model) -> Reference:
    return lambda arrays: graph_reference.run(model, arrays)


def _gap(settled: Settled, call: Reference, probes: Sequence[float] = _PROBES) -> float:
    """Largest difference between graph and LiteRT over inputs of several sizes, see ``_off``."""
    drawn = _probes(settled, probes)
    return _worst([(graph_reference.run(settled.model, arrays), call(arrays)) for arrays in drawn])


def _probes(settled: Settled, probes: Sequence[float]) -> list[list[Array]]:
    rng = np.random.default_rng(1)
    rows = [draw(settled.inputs, index_limits(settled.model), rng) for _ in probes]
    return [
        [(a * scale).astype(a.dtype) if np.issubdtype(a.dtype, np.floating) else a for a in row]
        for row, scale in zip(rows, probes, strict=True)
    ]


def _worst(pairs: Sequence[tuple[Sequence[Array], Sequence[Array]]]) -> float:
    return max((_off(m, t) for ours, theirs in pairs for m, t in zip(ours, theirs, strict=True)), default=0.0)


def _off(mine: Array, theirs: Array) -> float:
    """As a part of the largest answer; of integers of few bits, whose zero is anywhere, of all that they can say."""
    if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
        return float("inf")
    if not mine.size or not np.issubdtype(mine.dtype, np.number):
        return 0.0
    m, t = mine.astype(np.float64), theirs.astype(np.float64)
    narrow = mine.dtype.kind in "iu" and mine.dtype.itemsize == 1
    return float(np.abs(m - t).max() / (255.0 if narrow else max(np.abs(t).max(), 1e-6)))


def _unimported(file: _File, content: bytes, request: SourceRequest, note: str) -> Source:
    opened, rng = file.opened, np.random.default_rng(0)
    resolution = resolve(opened.inputs, request)
    if resolution.batch_names and not rows_independent(opened.call, draw(resolution.inputs, {}, rng, rows=3)):
        resolution = resolution.without_batch()
    inputs = resolution.inputs
    answers = opened.call(draw(inputs, {}, rng))
    batched = any(spec.is_batched for spec in inputs)
    outputs = tuple(
        replace(spec, dtype=a.dtype.name, shape=("batch", *a.shape[1:]) if batched else tuple(a.shape))
        for spec, a in zip(opened.outputs, answers, strict=True)
    )
    return Source(
        framework="tflite",
        path=file.path,
        model=None,
        inputs=inputs,
        outputs=outputs,
        reference=opened.call,
        notes=(*file.notes, note),
        fingerprint=_fingerprint(content, inputs),
    )


def _fingerprint(content: bytes, inputs: tuple[TensorSpec, ...]) -> str:
    return digest([digest(content), [spec.to_json() for spec in inputs]])
