"""Ties the parts together: a model or path becomes a ``Source`` with its graph, its own answers and its file."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from hasten.errors import SourceError
from hasten.graph import write
from hasten.graph.reference import run
from hasten.sources import Reference, Source, SourceRequest
from hasten.sources.determinism import check_calls
from hasten.sources.keras.assemble import Imported, import_model
from hasten.sources.keras.build import Unsupported, octets
from hasten.sources.keras.changing import changing
from hasten.sources.keras.files import Opened, load
from hasten.sources.keras.quiet import import_quietly
from hasten.sources.keras.reference import equal, flat_call
from hasten.sources.keras.signature import Signature, signature
from hasten.sources.keras.stock import example, export
from hasten.sources.mixing import settle_rows
from hasten.types import Array, TensorSpec

__all__ = ["open_keras"]


def open_keras(model_or_path: Any, request: SourceRequest) -> Source:
    """The model as a portable graph with its own framework's answers beside it.

    ``path`` of the source is the user's file where Keras opens it as it is, else a ``.keras`` in ``request.work``,
    which is written if ``request.copy`` asks for it.

    Raises:  SourceError: it cannot be read; TrustError: it holds code; SourceError names a layer nobody can convert
    """
    import_quietly("keras")
    if isinstance(model_or_path, (str, os.PathLike)):
        opened = load(Path(model_or_path), trust=request.trust)
    else:
        opened = Opened(model_or_path, None)
    model = opened.model
    taken = _freed(model, signature(model, request))
    reference = flat_call(model, taken)
    found = _graph(model, taken, reference)
    ends = settle_rows(found.model, taken.inputs, found.outputs, request, mixes=found.mixes)
    path, saved = (opened.path, ()) if opened.path else _saved(model, found.model, request)
    return Source(
        framework="keras",
        path=path,
        model=found.model,
        inputs=ends.inputs,
        outputs=ends.outputs,
        reference=reference,
        notes=(*opened.notes, *found.notes, *ends.notes, *saved, *taken.notes),
        trusted=request.trust,
        fingerprint=_fingerprint(model, ends.inputs),
        repeats=found.repeats and not _keeps_state(model),
        changing=partial(changing, model, reference),
        rows_mix=ends.rows_mix,
    )


def _graph(model: Any, taken: Signature, reference: Reference) -> Imported:
    try:
        imported = import_model(model, taken.inputs, taken.pack)
        if imported.opened and not _agrees(imported, taken, reference):
            raise Unsupported("its own code was traced, and the traced graph answers differently")
    except Unsupported as error:
        given = _examples(taken, (2, 2))
        # Random layers too have no converter.
        check_calls(reference, *given, where=partial(changing, model, reference, given[0]))
        graph, outputs, notes = export(model, taken, reference, error)
        return Imported(graph, outputs, notes, opened=True, repeats=False, mixes=False)
    return imported


def _freed(model: Any, taken: Signature) -> Signature:
    """The signature with a free batch where Keras merely noted that of the first call: the model answers any other.

    What keeps state, or computes across rows, keeps the batch that it was made for.
    """
    sizes = {spec.shape[0] if spec.shape else None for spec in taken.inputs}
    size = sizes.pop() if len(sizes) == 1 else None
    if not isinstance(size, int) or _keeps_state(model):
        return taken
    free = replace(taken, inputs=tuple(replace(spec, shape=("batch", *spec.shape[1:])) for spec in taken.inputs))
    more = _examples(free, (size + 1,))[0]
    call = flat_call(model, free)
    try:
        few, many = call([x[:size] for x in more]), call(more)
    except Exception:  # whatever the model's own code raises on a batch that it cannot take
        return taken
    rows = all(a.ndim and b.ndim and (len(a), len(b)) == (size, size + 1) for a, b in zip(few, many, strict=True))
    return free if rows and equal(few, [b[:size] for b in many], tolerance=1e-4) else taken


def _keeps_state(model: Any) -> bool:
    layers = getattr(model, "_flatten_layers", lambda: [model])()
    return any(getattr(layer, "stateful", False) for layer in layers)


def _examples(taken: Signature, batches: Sequence[int]) -> list[list[Array]]:
    rng = np.random.default_rng(0)
    return [[example(spec.fixed({"batch": batch}), rng) for spec in taken.inputs] for batch in batches]


def _agrees(imported: Imported, taken: Signature, reference: Reference) -> bool:
    """Whether a graph traced from a user's code gives the model's answers, for two batches."""
    for given in _examples(taken, (2, 3)):
        try:
            got = run(imported.model, given)
        except SourceError:
            return False
        if not equal(reference(given), got, tolerance=1e-3):
            return False
    return True


def _saved(model: Any, graph: ir.Model | None, request: SourceRequest) -> tuple[Path, tuple[str, ...]]:
    """A copy of an object on disk for other processes; where Keras cannot save it, its graph, and a note."""
    folder = request.work or Path(tempfile.mkdtemp(prefix="hasten-"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "source.keras"
    if not request.copy:
        return path, ()
    try:
        model.save(path)
    except OSError as error:
        raise SourceError(f"cannot save model '{model.name}' to '{path}': {error.strerror or error}") from error
    except Exception as error:
        path.unlink(missing_ok=True)
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if graph is None:
            raise SourceError(f"cannot save model '{model.name}' for other processes: {reason}") from error
        write(graph, folder / "source.onnx")
        note = f"Keras cannot save this model ({reason[:120]}), so that its own calls are not timed in other processes"
        return folder / "source.onnx", (note,)
    return path, ()


def _fingerprint(model: Any, inputs: Sequence[TensorSpec]) -> str:
    """A digest of configuration, input shapes and weights."""
    import keras  # noqa: PLC0415

    found = hashlib.sha256(repr([str(s) for s in inputs]).encode())
    try:
        found.update(json.dumps(model.get_config(), sort_keys=True, default=str).encode())
    except NotImplementedError:
        found.update(type(model).__qualname__.encode())
    for variable in model.weights:
        array = np.ascontiguousarray(keras.ops.convert_to_numpy(variable))
        found.update(f"{array.shape}{array.dtype}".encode())
        found.update(octets(array))
    return found.hexdigest()[:16]
