"""The way out for what no converter knows: Keras' own ONNX export of the whole model, made fit for the house."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from hasten.errors import SourceError
from hasten.graph import read
from hasten.graph.reference import run
from hasten.quiet import quiet_start, unlogged
from hasten.sources import Reference
from hasten.sources.keras.build import Unsupported
from hasten.sources.keras.signature import Signature
from hasten.types import Array, TensorSpec

__all__ = ["dress", "example", "export"]


def export(
    model: Any, taken: Signature, reference: Reference, reason: Unsupported
) -> tuple[ir.Model, tuple[TensorSpec, ...], tuple[str, ...]]:
    """The stock export, its outputs in the model's own order, and a note that says why it was needed.

    Raises:  SourceError: the export fails too, or answers differently; the message names the layer
    """
    import keras  # noqa: PLC0415

    signature = [keras.InputSpec(shape=_free(spec), dtype=spec.dtype, name=spec.name) for spec in taken.inputs]
    try:
        # tf2onnx logs a traceback of every operator that it cannot convert; what comes of it is in our own message.
        with tempfile.TemporaryDirectory() as folder, quiet_start(), unlogged("tf2onnx"):
            path = Path(folder) / "model.onnx"
            model.export(path, format="onnx", verbose=False, input_signature=[taken.pack(signature)])
            graph = read(path.read_bytes())
        outputs = dress(graph, taken.inputs, reference)
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        detail = lines[0][:160] if lines else type(error).__name__
        raise SourceError(
            f"cannot import model '{model.name}': {reason}; Keras' own ONNX export failed too ({detail}); replace that "
            "layer, or write its call with keras.ops"
        ) from error
    return graph, outputs, (f"imported by Keras' own ONNX export, because {reason}",)


def dress(model: ir.Model, inputs: Sequence[TensorSpec], reference: Reference) -> tuple[TensorSpec, ...]:
    """Gives a converted graph the source's input names, a free dimension called batch, and outputs in its order.

    Raises:  SourceError: the graph's answers are not the source's
    """
    _name_inputs(model, inputs)
    rng = np.random.default_rng(0)
    answers = []
    for batch in (2, 3):
        given = [example(spec.fixed({"batch": batch}), rng) for spec in inputs]
        answers.append((reference(given), run(model, given)))
    wanted, got = answers[0]
    order = _matching(wanted, got)
    if order is None or not _same(answers[1][0], [answers[1][1][i] for i in order]):
        raise SourceError("the converted graph answers differently")
    before = list(model.graph.outputs)
    model.graph.outputs[:] = [before[i] for i in order]
    specs = []
    for value, two, three in zip(model.graph.outputs, wanted, answers[1][0], strict=True):
        dims = tuple("batch" if a != b else a for a, b in zip(two.shape, three.shape, strict=True))
        if "batch" in dims[1:]:
            raise SourceError(f"output '{value.name}' has its batch in dimension {dims.index('batch')}: expected 0")
        value.shape = ir.Shape(dims)
        specs.append(TensorSpec(value.name or "", two.dtype.name, dims))
    return tuple(specs)


def example(spec: TensorSpec, rng: np.random.Generator) -> Array:
    """Random content for a static spec: normal numbers, or zeros and ones for integers."""
    if spec.dtype.startswith(("float", "bfloat")):
        return rng.standard_normal(spec.static_shape).astype(spec.dtype)
    return rng.integers(0, 2, spec.static_shape).astype(spec.dtype)


def _free(spec: TensorSpec) -> tuple[int | None, ...]:
    return tuple(d if isinstance(d, int) else None for d in spec.shape)


def _name_inputs(model: ir.Model, inputs: Sequence[TensorSpec]) -> None:
    values = [v for v in model.graph.inputs if v.name not in model.graph.initializers]
    if len(values) != len(inputs):
        raise SourceError(f"the converted graph takes {len(values)} inputs: expected {len(inputs)}")
    taken = {v.name for node in model.graph for v in node.outputs} | set(model.graph.initializers)
    for value, spec in zip(values, inputs, strict=True):
        value.name = spec.name if spec.name not in taken else f"{spec.name}_in"
        value.shape = ir.Shape(spec.shape)


def _matching(wanted: Sequence[Array], got: Sequence[Array]) -> tuple[int, ...] | None:
    """The order of ``got`` that equals ``wanted``: as it is, else any that fits."""
    if len(wanted) != len(got) or len(got) > 8:
        return None
    return next((p for p in itertools.permutations(range(len(got))) if _same(wanted, [got[i] for i in p])), None)


def _same(a: Sequence[Array], b: Sequence[Array]) -> bool:
    return all(
        x.shape == y.shape and x.dtype == y.dtype and bool(np.allclose(x, y, rtol=1e-3, atol=1e-3, equal_nan=True))
        for x, y in zip(a, b, strict=True)
    )
