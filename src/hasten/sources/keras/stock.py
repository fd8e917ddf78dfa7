"""The way out for what no converter knows: Keras' own ONNX export of the whole model, made fit for the house."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx.defs
import onnx_ir as ir

from hasten.errors import SourceError
from hasten.graph import read
from hasten.graph.reference import run
from hasten.graph.walk import all_nodes
from hasten.quiet import quiet_start, unlogged
from hasten.sources import Reference
from hasten.sources.keras.assemble import output_names
from hasten.sources.keras.build import Unsupported
from hasten.sources.keras.signature import Signature, keyed
from hasten.sources.refusals import refusal
from hasten.sources.special import replace as replace_functions
from hasten.types import Array, TensorSpec

__all__ = ["NoOperator", "dress", "example", "export", "fill", "renamed"]


class NoOperator(SourceError):
    """A converter copied an operation of its framework that ONNX does not have; ``node`` is where."""

    def __init__(self, operation: str, node: str) -> None:
        super().__init__(f"ONNX has no operation '{operation}', written for '{node}'")
        self.operation, self.node = operation, node


def export(
    model: Any, taken: Signature, reference: Reference, reason: Unsupported
) -> tuple[ir.Model, tuple[TensorSpec, ...], tuple[str, ...]]:
    """The stock export, its outputs in the model's own order, and a note that says why it was needed.

    Raises:  SourceError: the export fails too, or answers differently; the message names the layer
    """
    import keras  # noqa: PLC0415

    signature = [keras.InputSpec(shape=_free(spec), dtype=spec.dtype, name=spec.name) for spec in taken.inputs]
    try:
        with tempfile.TemporaryDirectory() as folder, _unheard(keras.backend.backend()), _captured() as captured:
            path = Path(folder) / "model.onnx"
            model.export(path, format="onnx", verbose=False, input_signature=[taken.pack(signature)])
            graph = read(path.read_bytes())
        fill(graph, len(taken.inputs), captured)
        outputs = dress(graph, taken.inputs, reference)
        outputs = renamed(graph, outputs, _names(model, taken, len(outputs)))
    except Exception as error:
        raise SourceError(f"cannot import model '{model.name}': {reason}; {_failed(model, reason, error)}") from error
    return graph, outputs, (f"imported by Keras' own ONNX export, because {reason}",)


@contextlib.contextmanager
def _captured() -> Iterator[list[Any]]:
    """What functions that Keras traces inside, on TensorFlow, take from outside, but for variables."""
    from keras.src.export import onnx as exporter  # noqa: PLC0415

    found: list[Any] = []
    plain: Any = getattr(exporter, "get_concrete_fn", None)

    def seen(*args: Any, **named: Any) -> Any:
        traced = plain(*args, **named)
        captures = traced.get_concrete_function().graph.captures
        found.extend(value for value, _ in captures if value.dtype.name != "resource")
        return traced

    if plain is None:  # an older Keras
        yield found
        return
    exporter.get_concrete_fn = seen
    try:
        yield found
    finally:
        exporter.get_concrete_fn = plain


def _names(model: Any, taken: Signature, count: int) -> list[str]:
    """The outputs' names as our own importer gives them: an answer in a dict has its keys."""
    import keras  # noqa: PLC0415

    rng = np.random.default_rng(0)
    given = [keras.ops.convert_to_tensor(example(spec.fixed({"batch": 2}), rng)) for spec in taken.inputs]
    with keras.device("cpu:0"):
        answer = model(taken.pack(given), training=False)
    return output_names(model, keyed(answer), count, {spec.name for spec in taken.inputs})


@contextlib.contextmanager
def _unheard(backend: str) -> Iterator[None]:
    """The exporters print graphs and tracebacks of what they cannot convert; what comes of it is in our own message."""
    with (
        quiet_start(),
        unlogged("tf2onnx", "tensorflow", "absl"),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.ExitStack() as stack,
    ):
        warnings.simplefilter("ignore")
        if backend == "torch":
            from hasten.sources.torch.quiet import exporting_quietly, voiceless  # noqa: PLC0415

            stack.enter_context(exporting_quietly())
            stack.enter_context(voiceless())
        yield


def _failed(model: Any, reason: Unsupported, error: Exception) -> str:
    """Why the stock export gave nothing either, and what to do."""
    own = "its code" in str(reason)
    if isinstance(error, ImportError) and "jax2onnx" in str(error):
        # Code that calls JAX runs on JAX alone.
        other = "" if own else ", or run with KERAS_BACKEND=tensorflow"
        return f"Keras' own ONNX export needs jax2onnx on JAX: pip install jax2onnx{other}"
    if isinstance(error, NoOperator):
        detail = f"ONNX has no operation '{error.operation}', {_whose(model, error.node)}"
    else:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        detail = lines[0].removeprefix("cannot run graph as a reference: ") if lines else type(error).__name__
        detail = refusal(RuntimeError(detail)) if detail.startswith("[ONNXRuntimeError]") else detail[:160]
    instead = ", or write its call with keras.ops" if own else ""
    return f"Keras' own ONNX export failed too ({detail}); replace that layer or operation{instead}"


def _whose(model: Any, node: str) -> str:
    """The layer that a node of the stock export is in: TensorFlow numbers all names of the path when traced again."""
    first, *_ = path = node.split("/")
    again = first.removeprefix(model.name) if re.fullmatch(re.escape(model.name) + r"(_\d+)?", first) else ""
    known = {layer.name for layer in model._flatten_layers(include_self=False)}
    found = [name for name in (part.removesuffix(again) for part in path) if name in known]
    return f"which layer '{found[-1]}' calls" if found else f"written for '{node}'"


def dress(model: ir.Model, inputs: Sequence[TensorSpec], reference: Reference) -> tuple[TensorSpec, ...]:
    """Gives a converted graph the source's input names, a free dimension called batch, and outputs in its order.

    Functions that ONNX lacks and hasten has a formula for are written out.

    Raises:  NoOperator: the converter made an operation up; SourceError: the graph's answers are not the source's
    """
    replace_functions(model)
    for node in all_nodes(model.graph):
        if not node.domain and not onnx.defs.has(node.op_type):
            raise NoOperator(node.op_type, node.name or "")
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


def renamed(model: ir.Model, outputs: tuple[TensorSpec, ...], names: Sequence[str]) -> tuple[TensorSpec, ...]:
    """Outputs called as in the source, not as its converter numbers them; those of a taken name stay as they are."""
    taken = {v.name for n in model.graph for v in n.outputs} | {v.name for v in model.graph.inputs}
    taken |= set(model.graph.initializers)
    unlike = len(set(names)) == len(outputs) == len({id(value) for value in model.graph.outputs})
    if not unlike or taken & set(names) or any(value.producer() is None for value in model.graph.outputs):
        return outputs
    for value, name in zip(model.graph.outputs, names, strict=True):
        value.name = name
    return tuple(replace(spec, name=name) for spec, name in zip(outputs, names, strict=True))


def fill(model: ir.Model, count: int, captured: Sequence[Any]) -> None:
    """Constants that the function took from outside, which tf2onnx leaves as inputs after its own, become weights."""
    extra = list(model.graph.inputs)[count:]
    if len(extra) != len(captured):
        return
    for value, tensor in zip(extra, captured, strict=True):
        content = ir.Tensor(tensor.numpy(), name=value.name)
        value.const_value, value.shape, value.type = content, ir.Shape(content.shape), ir.TensorType(content.dtype)
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)


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
