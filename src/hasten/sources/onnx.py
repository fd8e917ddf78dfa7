"""An ONNX file or object enters; a ``Source`` leaves whose reference is ONNX Runtime as it comes.

``from_graph`` finishes the work of every importer that ends at an ONNX graph: dimensions, output shapes, batch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.version_converter
import onnx_ir as ir
import onnx_ir.passes.common as common_passes
import onnxruntime as ort

from hasten import graph
from hasten.errors import InputError, SourceError
from hasten.graph import shapes
from hasten.graph.reference import MANY_NODES, exact_session, with_own_zero_points
from hasten.records import digest
from hasten.sources import Reference, Source, SourceRequest
from hasten.sources.dims import Resolution, resolve, rows_independent, rows_mix
from hasten.sources.older import opened_older
from hasten.sources.refusals import refusal
from hasten.sources.rounding import is_quantised, own_rounding
from hasten.sources.samples import draw, index_limits
from hasten.types import Array, TensorSpec

__all__ = ["Settled", "declared_specs", "open_onnx", "session_reference", "settle", "work_folder"]

_OLDEST_OPSET = 13
_WEIGHTS_ARE_NO_INPUTS = 4
# Before, Upsample and Resize counted from the pixels' corners; ONNX's converter lets that be forgotten.
_RESIZE_CENTRES_PIXELS = 11
_ROWS = 3
# What arrays of numpy cannot carry to ONNX Runtime; and what it does not give back. Floats of eight bits come as codes.
_NO_INPUTS = frozenset(
    getattr(ir.DataType, name)
    for name in (
        "BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT8E8M0", "FLOAT4E2M1",
        "INT4", "UINT4", "INT2", "UINT2",
    )
)  # fmt: skip
_NO_OUTPUTS = frozenset(t for t in _NO_INPUTS if not t.name.startswith("FLOAT8"))


@dataclass(frozen=True)
class Settled:
    """A graph whose only free dimension is a proven batch, with the specs that go with it."""

    model: ir.Model
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    notes: tuple[str, ...]
    rows_mix: bool = False


def open_onnx(model: object, request: SourceRequest) -> Source:
    """The source of an ONNX file (external data beside it is found), an ``onnx.ModelProto`` or an ``onnx_ir.Model``.

    Raises:  SourceError: not an ONNX model, an operator that ONNX Runtime lacks, a free dimension without a number
    """
    if isinstance(model, (str, Path)):
        path = Path(model)
        opened = graph.read(path)
    else:
        path = work_folder(request) / "model.onnx"
        opened = ir.from_proto(model) if isinstance(model, onnx.ModelProto) else graph.clone(_as_ir(model))
        graph.write(opened, path)
    _refuse_hollow(opened, path)
    _refuse_narrow(opened, path)
    # Before ONNX Runtime, whose Python part prints a banner where a name is no text.
    content = _content(opened, path)
    aged: tuple[str, ...] = ()
    try:
        reference = session_reference(path, opened)
    except SourceError as refused:
        at = work_folder(request) / "older" / path.name
        reference, opened, aged = opened_older(opened, path, lambda form: _stored_reference(form, at, path), refused)
        path, content = at, _content(opened, path)
    prepared, notes = _prepared(opened, path)
    settled = settle(prepared, request, reference)
    steps, spread = _own_rounding(settled, reference, request)
    return Source(
        framework="onnx",
        path=path,
        model=settled.model,
        inputs=settled.inputs,
        outputs=settled.outputs,
        reference=reference,
        notes=(*aged, *notes, *settled.notes),
        fingerprint=digest([content, [s.to_json() for s in settled.inputs]]),
        rows_mix=settled.rows_mix,
        steps=steps,
        spread=spread,
    )


def _own_rounding(settled: Settled, reference: Reference, request: SourceRequest) -> tuple[int, float]:
    if not is_quantised(settled.model):
        return 1, 0.0
    rng, limits = np.random.default_rng(2), index_limits(settled.model)
    return own_rounding(settled.model, reference, [draw(settled.inputs, limits, rng) for _ in range(_ROWS)])


def _content(model: ir.Model, path: Path) -> str:
    try:
        return digest(graph.to_bytes(model))
    except SourceError as error:
        raise SourceError(f"cannot read '{path}': {error}") from error


def _stored_reference(model: ir.Model, at: Path, path: Path) -> Reference:
    """As ``session_reference``, for the file at ``path`` in another form, which is written to ``at``."""
    reference = session_reference(path, model, graph.to_bytes(model))
    at.parent.mkdir(parents=True, exist_ok=True)
    graph.write(model, at)
    return reference


def session_reference(path: Path, model: ir.Model, data: bytes | None = None) -> Reference:
    """A call that runs the file, which holds ``model``, or ``data``, in ONNX Runtime with its default optimisations.

    Raises:  SourceError: ONNX Runtime refuses the file; the message names an unknown operator
    """

    def options() -> ort.SessionOptions:
        made = ort.SessionOptions()
        made.log_severity_level = 4
        made.enable_mem_reuse = model.graph.num_nodes() < MANY_NODES
        return made

    try:
        apart = with_own_zero_points(model)
        held = data or str(path) if apart is model else graph.to_bytes(apart)
        session = exact_session(model, held, options)
    except Exception as error:
        raise SourceError(f"cannot open ONNX model '{path}': {refusal(error)}") from error
    names = [value.name for value in session.get_inputs()]

    def call(arrays: Sequence[Array]) -> tuple[Array, ...]:
        try:
            return tuple(map(np.asarray, session.run(None, dict(zip(names, arrays, strict=True)))))
        except Exception as error:
            raise SourceError(f"cannot run ONNX model '{path}': {refusal(error)}") from error

    return call


def settle(
    model: ir.Model,
    request: SourceRequest,
    reference: Reference,
    declared: Sequence[TensorSpec] | None = None,
) -> Settled:
    """The graph with every free dimension fixed but a batch along which ``reference`` proves rows to be independent.

    ``declared`` overrides what the graph says of its inputs (a framework may know more). Changes ``model`` in place.

    Raises:  SourceError: a free dimension without a number; the reference cannot run
    """
    specs = tuple(declared or declared_specs(model))
    resolution = resolve(specs, request)
    limits = index_limits(model)
    notes: tuple[str, ...] = ()
    mix = False
    if resolution.batch_names:
        rows = _three_rows(resolution.inputs, limits, request)
        if not rows_independent(reference, rows):
            mix = rows_mix(reference, rows)
            resolution, notes = _unbatched(specs, resolution)
    inputs = resolution.inputs
    _fix(model, inputs, resolution)
    answers = _answers(reference, inputs, limits, request)
    outputs = _output_specs(model, inputs, answers)
    for value, spec in zip(model.graph.outputs, outputs, strict=True):
        value.shape = ir.Shape(spec.shape)
    return Settled(model, inputs, outputs, notes, mix)


def declared_specs(model: ir.Model) -> tuple[TensorSpec, ...]:
    """The graph's inputs as they stand; a dimension without a name gets one of its own.

    Raises:  SourceError: an input is no tensor of known type and rank
    """
    found = []
    for value in model.graph.inputs:
        if value.dtype is None or value.shape is None or isinstance(value.type, (ir.SequenceType, ir.OptionalType)):
            raise SourceError(
                f"input '{value.name}' is {value.type or 'of unknown type'} {value.shape or ''}: "
                "expected a tensor of known type and rank"
            )
        dims = (d if isinstance(d, int) else (d.value or f"{value.name}_dim{i}") for i, d in enumerate(value.shape))
        found.append(TensorSpec(value.name or "", value.dtype.numpy().name, tuple(dims)))
    return tuple(found)


def work_folder(request: SourceRequest) -> Path:
    """The request's folder for files that an adapter writes, or a new one."""
    if request.work is None:
        return Path(tempfile.mkdtemp(prefix="hasten-"))
    request.work.mkdir(parents=True, exist_ok=True)
    return request.work


def _as_ir(model: object) -> ir.Model:
    if not isinstance(model, ir.Model):
        raise SourceError(f"cannot read {type(model).__name__} as ONNX: expected a path, ModelProto or onnx_ir.Model")
    return model


def _refuse_hollow(model: ir.Model, path: Path) -> None:
    # Protobuf accepts nearly any bytes as an empty message, and a file cut at a field boundary as a shorter one.
    if not model.graph.outputs or (len(model.graph) == 0 and not model.graph.inputs):
        raise SourceError(
            f"cannot read '{path}': expected a model, received a graph with {len(model.graph)} nodes and "
            f"{len(model.graph.outputs)} outputs; the file is cut short or not a model"
        )
    if not any(domain in ("", "ai.onnx") for domain in model.opset_imports):
        raise SourceError(f"cannot read '{path}': expected an ONNX opset, received none; the file is damaged")


def _refuse_narrow(model: ir.Model, path: Path) -> None:
    given = [v for v in model.graph.inputs if v.name not in model.graph.initializers]
    for kind, place, values, types in (
        ("input", "after", given, _NO_INPUTS), ("output", "before", model.graph.outputs, _NO_OUTPUTS),
    ):  # fmt: skip
        for value in values:
            if value.dtype in types:
                raise SourceError(
                    f"cannot open '{path}': {kind} '{value.name}' is {str(value.dtype).lower()}{value.shape or ''}, "
                    f"expected a type that numpy has, such as float32 or int8; put a Cast {place} it"
                )


def _prepared(model: ir.Model, path: Path) -> tuple[ir.Model, tuple[str, ...]]:
    """The model at a current opset, its functions inlined, its weights no longer among its inputs."""
    notes: list[str] = []
    common_passes.RemoveInitializersFromInputsPass()(model)
    version = model.opset_imports.get("", model.opset_imports.get("ai.onnx", _OLDEST_OPSET))
    if version < _OLDEST_OPSET:
        model = _upgraded(model, path, version)
        notes.append(f"upgraded from ONNX opset {version} to {_OLDEST_OPSET}")
    if model.functions:
        model = common_passes.InlinePass()(model).model
        common_passes.RemoveUnusedOpsetsPass()(model)
    return model, tuple(notes)


def _upgraded(model: ir.Model, path: Path, version: int) -> ir.Model:
    proto = ir.to_proto(model)
    # Weights are no inputs any more, which the oldest form of the file does not know.
    proto.ir_version = max(proto.ir_version, _WEIGHTS_ARE_NO_INPUTS)
    try:
        upgraded: onnx.ModelProto = onnx.version_converter.convert_version(proto, _OLDEST_OPSET)
    except Exception as error:
        raise SourceError(
            f"cannot upgrade '{path}' from ONNX opset {version}: expected opset {_OLDEST_OPSET} or newer "
            f"({_first_line(error)}); export the model again with a newer opset"
        ) from error
    found: ir.Model = ir.from_proto(upgraded)
    if version < _RESIZE_CENTRES_PIXELS:
        for node in found.graph.all_nodes():
            if node.op_type == "Resize":
                _count_from_corners(node)
    return found


def _count_from_corners(resize: ir.Node) -> None:
    scales = resize.inputs[2].const_value if len(resize.inputs) > 2 and resize.inputs[2] is not None else None
    shrinks = scales is not None and bool((scales.numpy() <= 1).all())
    for name, value in (("coordinate_transformation_mode", "asymmetric"), ("nearest_mode", "ceil")):
        resize.attributes[name] = ir.AttrString(name, value if shrinks or value != "ceil" else "floor")


def _unbatched(specs: Sequence[TensorSpec], resolution: Resolution) -> tuple[Resolution, tuple[str, ...]]:
    if not resolution.certain:
        shapes = " ".join(
            f"--shape {s.name}={','.join(str(d if isinstance(d, int) else 100) for d in s.shape)}" for s in specs
        )
        names = ", ".join(sorted(resolution.batch_names))
        raise SourceError(
            f"dimension '{names}' is free and is no batch (rows depend on one another): expected a number for it; "
            f"say it, for example {shapes}"
        )
    note = f"rows of a batch depend on one another in this model: fixed to batch {resolution.rows}"
    return resolution.without_batch(), (note,)


def _three_rows(inputs: Sequence[TensorSpec], limits: Mapping[str, int], request: SourceRequest) -> tuple[Array, ...]:
    rng = np.random.default_rng(0)
    arrays = draw(inputs, dict(limits), rng, rows=_ROWS)
    if request.sample is None:
        return arrays
    # The user's integers are the only ones known to be safe; floats stay random so that rows differ.
    return tuple(
        np.resize(given, drawn.shape).astype(drawn.dtype) if np.issubdtype(drawn.dtype, np.integer) else drawn
        for given, drawn in zip(request.sample, arrays, strict=True)
    )


def _answers(
    reference: Reference, inputs: Sequence[TensorSpec], limits: Mapping[str, int], request: SourceRequest
) -> tuple[Array, ...]:
    arrays = draw(inputs, dict(limits), np.random.default_rng(0))
    if request.sample is not None:
        pairs = [(s, np.asarray(a[:1] if s.is_batched else a)) for s, a in zip(inputs, request.sample, strict=True)]
        for spec, array in pairs:
            if array.dtype.kind == "c" and np.dtype(spec.dtype).kind != "c":
                raise InputError(f"sample for input {spec}: expected real numbers, received {array.dtype}")
        with np.errstate(over="ignore"):  # refused where the sample is taken
            arrays = tuple(a.astype(s.dtype, copy=False) for s, a in pairs)
    return reference(arrays)


def _fix(model: ir.Model, inputs: Sequence[TensorSpec], resolution: Resolution) -> None:
    """Writes the dimensions into the graph; what inference deduced from the free ones is deduced again.

    Behind an operator that inference does not know, only the file tells how many axes a value has: that number is kept.
    """
    for value, spec in zip(model.graph.inputs, inputs, strict=True):
        value.shape = ir.Shape(spec.shape)
    names: dict[str, int | str] = {**resolution.bound, **dict.fromkeys(resolution.batch_names, "batch")}
    for value in model.graph.outputs:
        if value.shape is not None:
            value.shape = ir.Shape([_renamed(d, names) for d in value.shape])
    ranks = {
        value: len(value.shape)
        for node in model.graph
        for value in node.outputs
        if value.shape is not None and not value.is_graph_output()
    }
    for value in ranks:
        value.shape = None
    shapes.infer(model)
    unknown = {value: rank for value, rank in ranks.items() if value.shape is None}
    for value, rank in unknown.items():
        value.shape = ir.Shape([None] * rank)
    if unknown:
        shapes.infer(model)


def _renamed(dim: int | ir.SymbolicDim, names: Mapping[str, int | str]) -> int | str | None:
    return dim if isinstance(dim, int) else names.get(str(dim.value))


def _output_specs(model: ir.Model, inputs: Sequence[TensorSpec], answers: Sequence[Array]) -> tuple[TensorSpec, ...]:
    batched = any(spec.is_batched for spec in inputs)
    return tuple(
        TensorSpec(
            value.name or "", answer.dtype.name, (("batch", *answer.shape[1:]) if batched else tuple(answer.shape))
        )
        for value, answer in zip(model.graph.outputs, answers, strict=True)
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
