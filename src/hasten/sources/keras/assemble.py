"""A Keras model and the specs of its inputs enter; an ``onnx_ir.Model`` with a free batch leaves."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from hasten.sources.keras.build import OPSET, Tensor, Unsupported, ir_dtype
from hasten.sources.keras.convert import Importer
from hasten.sources.keras.signature import keyed
from hasten.types import TensorSpec

__all__ = ["Imported", "import_model", "output_names"]


@dataclass(frozen=True)
class Imported:
    """The portable graph of a model, what it gives, and what the report should say about how it was read."""

    model: ir.Model
    outputs: tuple[TensorSpec, ...]
    notes: tuple[str, ...]
    opened: bool
    """True where code that is not Keras' own was traced: then the graph's answers must be checked."""
    repeats: bool
    """True where nothing was read but Keras' own layers, none of which draws random numbers."""
    mixes: bool
    """True where the answer to a row depends on the rows beside it, though random rows may not show it."""


_STAND_IN = 7919


def import_model(model: Any, inputs: Sequence[TensorSpec], pack: Callable[[Sequence[Any]], Any]) -> Imported:
    """The model layer by layer as ONNX of opset ``OPSET``.

    Code that computes with the batch size (``reshape(x, (shape[0], -1))``) is traced again with a large prime in its
    place, found again in every shape; such an import is marked ``opened`` and must be checked.

    Raises:  Unsupported: a layer has no converter and cannot be traced; the text names it
    """
    try:
        return _import(model, inputs, pack, batch=None)
    except Unsupported as first:
        if not any(spec.is_batched for spec in inputs):
            raise
        try:
            return _import(model, inputs, pack, batch=_STAND_IN)
        except Unsupported:
            raise first from None


def _import(
    model: Any, inputs: Sequence[TensorSpec], pack: Callable[[Sequence[Any]], Any], *, batch: int | None
) -> Imported:
    import keras  # noqa: PLC0415

    importer = Importer(batch)
    entering = [_input(spec) for spec in inputs]
    named = {"training": False} if getattr(model, "_call_has_training_arg", False) else {}
    try:
        result = importer.apply(model, (pack(entering),), named)
    finally:
        importer.forget()
    leaving = [t for t in keras.tree.flatten(result) if t is not None]
    names = output_names(model, keyed(result), len(leaving), {spec.name for spec in inputs})
    outputs = [_output(importer, t, name) for t, name in zip(leaving, names, strict=True)]
    graph = ir.Graph(
        [t.value for t in entering],
        [t.value for t in outputs],
        nodes=importer.nodes,
        initializers=list(importer.initializers.values()),
        opset_imports={"": OPSET},
        name=re.sub(r"\W", "_", model.name),
    )
    written = ir.Model(graph, ir_version=10, producer_name="hasten")
    RemoveUnusedNodesPass()(written)
    mixes = importer.mixes and all(spec.is_batched for spec in inputs)
    specs = tuple(TensorSpec(name, t.dtype, _dims(t)) for name, t in zip(names, outputs, strict=True))
    opened = bool(importer.opened or batch)
    return Imported(written, specs, tuple(importer.notes), opened, repeats=importer.own and not opened, mixes=mixes)


def _input(spec: TensorSpec) -> Tensor:
    value = ir.Value(name=spec.name, shape=ir.Shape(spec.shape), type=ir.TensorType(ir_dtype(spec.dtype)))
    return Tensor(value, tuple(d if isinstance(d, int) else None for d in spec.shape), spec.dtype)


def _output(importer: Importer, tensor: Tensor, name: str) -> Tensor:
    if None in tensor.shape[1:]:
        raise Unsupported(f"output '{name}' has shape {tensor.shape}: expected no free dimension but the batch")
    own = importer.op("Identity", [tensor], tensor.shape)
    own.value.name, own.value.shape = name, ir.Shape(_dims(tensor))
    return own


def _dims(tensor: Tensor) -> tuple[int | str, ...]:
    return tuple("batch" if d is None else d for d in tensor.shape)


def output_names(model: Any, keys: list[str] | None, count: int, taken: set[str]) -> list[str]:
    """What the outputs are called: by the keys of the answer, or as the model names them; none as in ``taken``."""
    given = keys or list(getattr(model, "output_names", None) or [])
    names = given if len(given) == count else ([model.name] if count == 1 else [f"output_{i}" for i in range(count)])
    unique: list[str] = []
    for name in names:
        while name in taken:
            name += "_out"
        taken.add(name)
        unique.append(name)
    return unique
