"""TensorFlow SavedModels and ``tf.function`` objects, by tf2onnx.

The signature ``serving_default`` (else the only one) is the model; its arguments by name are the inputs, its answers in
the order of their names the outputs. Operators that hold state or look up strings have no ONNX form: the source then
has no graph, a note says why, and TensorFlow's own candidates still run.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from hasten.errors import OpenShapeError, SourceError
from hasten.graph import read
from hasten.quiet import quiet_start, unlogged
from hasten.sources import Reference, Source, SourceRequest
from hasten.sources.dims import fitting, fitting_shapes
from hasten.sources.keras.quiet import import_quietly
from hasten.sources.keras.stock import dress, fill, renamed
from hasten.sources.mixing import settle_rows
from hasten.sources.special import FORMULAS
from hasten.sources.structure import entries, leaves, mapped, unlike
from hasten.types import Array, TensorSpec

__all__ = ["open_saved_model", "open_tf_function"]

_OPSET = 18
"""The newest opset that tf2onnx 1.17 writes."""


@dataclass(frozen=True)
class Signature:
    """A concrete function with arguments by name, its inputs' specs and how to call it flat."""

    function: Any
    inputs: tuple[TensorSpec, ...]

    @property
    def output_names(self) -> list[str]:
        """In the order of the answers; none as an input, which a graph could not tell apart."""
        taken = [spec.name for spec in self.inputs]
        return unlike([f"{n}_out" if n in taken else n for n in sorted(self.function.structured_outputs)])

    def __call__(self, arrays: Sequence[Any]) -> tuple[Array, ...]:
        """Flat answers in the order of their names."""
        import tensorflow as tf  # noqa: PLC0415 - a framework, in its own adapter

        named = {s.name: tf.convert_to_tensor(a) for s, a in zip(self.inputs, arrays, strict=True)}
        with tf.device("/CPU:0"):
            answers = self.function(**named)
        return tuple(answers[key].numpy() for key in sorted(answers))


def open_saved_model(path: str | os.PathLike[str], request: SourceRequest) -> Source:
    """The SavedModel in a folder.

    Raises:  SourceError: not a SavedModel, damaged, no signature, or a dimension that must be named
    """
    folder = Path(path)
    tf = _tensorflow()
    if not (folder / "saved_model.pb").is_file() and not (folder / "saved_model.pbtxt").is_file():
        raise SourceError(f"cannot open '{folder}': expected a SavedModel folder with saved_model.pb; none is there")
    try:
        loaded = tf.saved_model.load(str(folder))
    except Exception as error:
        raise SourceError(f"cannot open SavedModel '{folder.name}': {_line(error)}; expected a whole folder") from error
    key, function = _pick(getattr(loaded, "signatures", {}), folder)
    signature = Signature(function, _inputs(function, request))
    notes = () if key == "serving_default" else (f"signature '{key}'",)
    return _source(signature, folder, request, _Keep(loaded, notes, _digest(folder)))


def open_tf_function(function: Any, request: SourceRequest) -> Source:
    """A ``tf.function``, ``ConcreteFunction``, or ``tf.Module`` with a ``__call__``, saved for other processes.

    Raises:  SourceError: it was never traced and no sample says what it takes, or it cannot be saved
    """
    tf = _tensorflow()
    concrete = _concrete(tf, function, request)
    names, specs = _flat_inputs(tf, concrete)
    count = len(specs)

    def flat(**named: Any) -> dict[str, Any]:
        return _by_key(_call(tf, concrete, [named[n] for n in names]))

    holder = tf.Module()
    holder.kept = (function, concrete) if isinstance(function, tf.Module) else concrete
    holder.kept_variables = list(concrete.variables)
    serving = tf.function(flat, input_signature=None, autograph=False).get_concrete_function(
        **{n: tf.TensorSpec(s.shape, s.dtype, name=n) for n, s in zip(names, specs, strict=True)}
    )
    folder = (request.work or Path(tempfile.mkdtemp(prefix="hasten-"))) / "saved_model"
    try:
        tf.saved_model.save(holder, str(folder), signatures={"serving_default": serving})
    except Exception as error:
        raise SourceError(f"cannot save the tf.function of {count} inputs: {_line(error)}") from error
    told = _by_name(tf, function, request, names)
    return replace(open_saved_model(folder, told), sample=None if told is request else told.sample)


@dataclass(frozen=True)
class _Keep:
    """What must outlive the call (the loaded model owns the variables), and what is known so far."""

    loaded: Any
    notes: tuple[str, ...]
    fingerprint: str


def _source(signature: Signature, folder: Path, request: SourceRequest, keep: _Keep) -> Source:
    def reference(arrays: Sequence[Array], _owner: Any = keep.loaded) -> tuple[Array, ...]:
        return signature(arrays)

    try:
        with quiet_start(), unlogged("tf2onnx"):  # TensorFlow's optimisers introduce themselves
            model, outputs = _convert(signature, reference)
        notes = keep.notes
    except Exception as error:
        model, outputs = None, _measured(signature, reference)
        notes = (*keep.notes, f"no portable graph: tf2onnx cannot convert the model ({_line(error)})")
    ends = settle_rows(model, signature.inputs, outputs, request)
    return Source(
        framework="tensorflow",
        path=folder,
        model=model,
        inputs=ends.inputs,
        outputs=ends.outputs,
        reference=reference,
        notes=(*notes, *ends.notes),
        trusted=request.trust,
        fingerprint=keep.fingerprint,
        rows_mix=ends.rows_mix,
    )


def _convert(signature: Signature, reference: Reference) -> tuple[ir.Model, tuple[TensorSpec, ...]]:
    import tensorflow as tf  # noqa: PLC0415
    import tf2onnx  # noqa: PLC0415

    specs = [tf.TensorSpec(_free(s), s.dtype, name=s.name) for s in signature.inputs]
    names = [s.name for s in signature.inputs]

    def flat(*given: Any) -> list[Any]:
        answers = signature.function(**dict(zip(names, given, strict=True)))
        return [answers[key] for key in sorted(answers)]

    traced = tf.function(flat, input_signature=specs, autograph=False)
    proto, _ = tf2onnx.convert.from_function(traced, input_signature=specs, opset=_OPSET)
    foreign = sorted({n.op_type for n in proto.graph.node if n.domain not in ("", "ai.onnx") or not _is_onnx(n)})
    if foreign:
        raise SourceError(f"operators {', '.join(foreign)} have no ONNX form")
    model = read(proto.SerializeToString())
    captures = traced.get_concrete_function(*specs).graph.captures
    fill(model, len(specs), [value for value, _ in captures if value.dtype != tf.resource])
    outputs = dress(model, signature.inputs, reference)
    return model, renamed(model, outputs, signature.output_names)


def _is_onnx(node: Any) -> bool:
    import onnx  # noqa: PLC0415 - with tf2onnx alone

    return bool(onnx.defs.has(node.op_type)) or node.op_type in FORMULAS


def _measured(signature: Signature, reference: Reference) -> tuple[TensorSpec, ...]:
    """Output specs from two runs, where there is no graph to ask."""
    runs = []
    for batch in (2, 3):
        given = [np.zeros(s.fixed({"batch": batch}).static_shape, s.dtype) for s in signature.inputs]
        try:
            runs.append(reference(given))
        except Exception as error:
            raise SourceError(f"the model's signature cannot be called on zeros: {_line(error)}") from error
    return tuple(
        TensorSpec(n, a.dtype.name, tuple("batch" if p != q else p for p, q in zip(a.shape, b.shape, strict=True)))
        for n, a, b in zip(signature.output_names, *runs, strict=True)
    )


def _pick(signatures: Mapping[str, Any], folder: Path) -> tuple[str, Any]:
    keys = [k for k in signatures if k != "__saved_model_init_op"]
    key = "serving_default" if "serving_default" in keys else (keys[0] if len(keys) == 1 else None)
    if key is None:
        raise SourceError(
            f"SavedModel '{folder.name}' has signatures {', '.join(keys) or 'none'}: expected serving_default or just "
            "one; save it again with signatures={'serving_default': …}"
        )
    return key, signatures[key]


def _inputs(function: Any, request: SourceRequest) -> tuple[TensorSpec, ...]:
    given: Mapping[str, Any] = function.structured_input_signature[1]
    specs = []
    for index, (name, spec) in enumerate(sorted(given.items())):
        if not spec.dtype.is_numpy_compatible or spec.dtype.name in ("string", "resource", "variant"):
            raise SourceError(
                f"input '{name}' takes {spec.dtype.name}: expected numbers; leave text processing outside"
            )
        if spec.shape.rank is None:
            dims: list[int | None] = _wanted(name, index, [], request)
            dims[0] = None
        else:
            dims = _filled(name, index, list(spec.shape.as_list()), request)
        specs.append(TensorSpec(name, spec.dtype.name, tuple("batch" if d is None else d for d in dims)))
    fitting_shapes(specs, request)
    return tuple(specs)


def _filled(name: str, index: int, dims: list[int | None], request: SourceRequest) -> list[int | None]:
    if None not in dims[1:]:
        return dims
    given = _wanted(name, index, dims, request)
    if len(given) != len(dims):
        raise SourceError(f"input '{name}' has {len(dims)} dimensions {tuple(dims)}: received {tuple(given)}")
    return [g if d is None and i else d for i, (d, g) in enumerate(zip(dims, given, strict=True))]


def _wanted(name: str, index: int, dims: list[int | None], request: SourceRequest) -> list[int | None]:
    shape = request.shapes.get(name)
    if shape is None and request.sample is not None and index < len(request.sample):
        shape = request.sample[index].shape
    if shape is None:
        raise OpenShapeError(
            f"input '{name}' has free dimensions: expected numbers beyond the batch; give --shape {name}=1,…",
            {name: fitting([1, *dims[1:]])} if dims else {},
        )
    return list(shape)


def _given(request: SourceRequest) -> Any:
    return request.sample if request.example is None else request.example


def _traceable(tf: Any, function: Any) -> Any:
    """The function, or what a module is called by, as a ``tf.function`` with the signature that it has."""
    called = function if hasattr(function, "get_concrete_function") else function.__call__
    return called if hasattr(called, "get_concrete_function") else tf.function(called)


def _by_name(tf: Any, function: Any, request: SourceRequest, names: Sequence[str]) -> SourceRequest:
    """The request with its sample in the order of the inputs' names, where the sample tells which is which."""
    if _given(request) is None or hasattr(function, "structured_input_signature"):
        return request
    arrays = _Example.of(_traceable(tf, function), _given(request)).arrays()
    if set(arrays) != set(names):
        return request
    return replace(request, sample=tuple(arrays[name] for name in sorted(names)))


def _concrete(tf: Any, function: Any, request: SourceRequest) -> Any:
    """The function for the sample, else the one it was traced for."""
    if hasattr(function, "structured_input_signature"):
        return function
    target = _traceable(tf, function)
    try:
        if getattr(target, "input_signature", None) is not None:
            return target.get_concrete_function()
        if request.example is not None or request.sample is not None:
            return _traced(tf, target, _given(request))
        traced: Callable[[], list[Any]] | None = getattr(target, "_list_all_concrete_functions", None)
        known = traced() if traced is not None else []
    except Exception as error:
        raise SourceError(f"cannot trace the tf.function: {_line(error)}") from error
    if len(known) != 1:
        raise SourceError(
            f"the tf.function was traced {len(known)} times: expected once, or an input_signature; pass sample=x"
        )
    return known[0]


def _traced(tf: Any, target: Any, example: Any) -> Any:
    """The function for arrays like these; where it does not take their float64, for float32 in its place."""

    def concrete(given: Any) -> Any:
        args, kwargs = _Example.of(target, given).specs(tf)
        return target.get_concrete_function(*args, **kwargs)

    try:
        return concrete(example)
    except Exception as error:  # whatever the function's own code raises
        if all(array.dtype != np.float64 for _, array in leaves(example)):
            raise
        try:
            return concrete(mapped(lambda a: a.astype(np.float32) if a.dtype == np.float64 else a, example))
        except Exception:
            raise error from None


@dataclass(frozen=True)
class _Example:
    """The user's sample as a call of the function: what it gives by place and by name."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    parameters: tuple[str, ...]

    @staticmethod
    def of(target: Any, example: Any) -> _Example:
        """A dict may be the arguments by name, or all that the function takes."""
        parameters = tuple(name for name in target.function_type.parameters if name != "self")
        if not isinstance(example, Mapping):
            return _Example(tuple(example), {}, parameters)
        if set(example) <= set(parameters):
            return _Example((), example, parameters)
        return _Example((example,), {}, ("",))

    def named(self) -> dict[str, Any]:
        """Each argument by its parameter; the dict that is all that the function takes by no name."""
        placed = dict(zip(self.parameters, self.args, strict=False))
        return {**placed, **self.kwargs}

    def arrays(self) -> dict[str, Array]:
        """Each array by the name of its input: the parameter, then the keys and places inside it."""
        return {_path(path): array for path, array in leaves(self.named())}

    def specs(self, tf: Any) -> tuple[list[Any], dict[str, Any]]:
        """The same call with a spec, free in its first dimension, in place of each array."""

        def free(value: Any, path: tuple[str | int, ...]) -> Any:
            if value is None:
                return None
            parts = entries(value)
            if parts is None:
                shape = (None, *value.shape[1:]) if value.ndim else ()
                return tf.TensorSpec(shape, value.dtype, name=_path(path))
            made = [free(part, (*path, key)) for key, part in parts]
            if isinstance(value, Mapping):
                return dict(zip(value, made, strict=True))
            return type(value)(*made) if hasattr(value, "_fields") else type(value)(made)

        made = {name: free(value, (name,)) for name, value in self.named().items()}
        return [made.pop(name) for name in self.parameters[: len(self.args)]], made


def _path(path: Sequence[str | int]) -> str:
    return "_".join(str(part) for part in path if part != "")


def _flat_inputs(tf: Any, concrete: Any) -> tuple[list[str], list[Any]]:
    specs = [s for s in tf.nest.flatten(concrete.structured_input_signature) if isinstance(s, tf.TensorSpec)]
    names = [(s.name or f"input_{i}").split(":")[0].replace("/", "_") for i, s in enumerate(specs)]
    if len(set(names)) < len(names):
        names = [f"input_{i:03d}" for i in range(len(names))]
    return names, specs


def _by_key(answer: Any) -> dict[str, Any]:
    """The ends of an answer by their keys and fields, where there are any; else numbered."""
    ends = list(leaves(answer))
    if not any(isinstance(key, str) for path, _ in ends for key in path):
        return {f"output_{i:03d}": tensor for i, (_, tensor) in enumerate(ends)}
    names = unlike([_path(path) for path, _ in ends])
    return {f"output_{name}" if name[:1].isdigit() else name: end for name, (_, end) in zip(names, ends, strict=True)}


def _call(tf: Any, concrete: Any, values: Sequence[Any]) -> Any:
    """The concrete function on flat values, in the structure of its own signature."""
    args, kwargs = concrete.structured_input_signature
    given = iter(values)
    filled = tf.nest.map_structure(lambda s: next(given) if isinstance(s, tf.TensorSpec) else s, (args, kwargs))
    return concrete(*filled[0], **filled[1])


def _free(spec: TensorSpec) -> tuple[int | None, ...]:
    return tuple(d if isinstance(d, int) else None for d in spec.shape)


def _digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "fingerprint.pb"):
        found.update(str(path.relative_to(folder)).encode())
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def _tensorflow() -> Any:
    return import_quietly("tensorflow")


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
