"""LiteRT: a TFLite file as it is, or a Keras or TensorFlow model converted at a fixed batch; a ``.tflite`` leaves.

A fixed batch lets TensorFlow's converter lower the tensor lists of recurrent layers to plain operators, so that no
Flex operator is left, which LiteRT could not run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from hasten.engines import BuildRequest, Offer
from hasten.engines.litert_profile import profile
from hasten.errors import EngineError, MissingLibraryError, UnsupportedOpError
from hasten.quiet import quiet_start, unlogged
from hasten.records import Artefact, Candidate
from hasten.types import Array

__all__ = ["ENGINE"]

_FILE = "model.tflite"
_PRECISIONS = ("float32", "float16", "int8-dynamic", "int8")


class LiteRTEngine:
    """Builds ``.tflite`` files and finds out how their tensors map to the source's."""

    name = "litert"

    def missing(self) -> str | None:
        """None where ai-edge-litert is installed."""
        return None if find_spec("ai_edge_litert") else "ai-edge-litert is not installed: install hasten[litert]"

    def candidates(self, offer: Offer) -> Sequence[Candidate]:
        """The file itself for TFLite sources, conversions for Keras and TensorFlow, nothing for the rest."""
        if offer.framework == "tflite":
            return tuple(
                Candidate("litert", "float32", threads, batch, options)
                for batch in offer.batches
                for threads in offer.threads
                for options in ((("form", "file"),), (("form", "file"), ("kernels", "without XNNPACK")))
                if len(options) == 1 or not (offer.quick or threads > 1)
            )
        if offer.framework not in ("keras", "tensorflow"):
            return ()
        precisions = [p for p in _PRECISIONS if p in offer.precisions]
        return tuple(
            Candidate("litert", precision, threads, batch)
            for precision in precisions
            for batch in offer.batches
            for threads in offer.threads
        )

    def built_as(self, candidate: Candidate) -> Candidate:
        """The candidate whose file serves this one too: threads are the session's business."""
        return replace(candidate, threads=1)

    def builds_beside(self, framework: str) -> str | None:
        """Keras' engine where TensorFlow converts: it has imported it."""
        return "keras" if framework in ("keras", "tensorflow") else None

    def build(self, request: BuildRequest) -> Artefact:
        """The ``.tflite`` file in ``request.folder``.

        Raises:  EngineError: the converter or LiteRT refuses; UnsupportedOpError: an operator would need Flex
        """
        target = request.folder / _FILE
        request.folder.mkdir(parents=True, exist_ok=True)
        if request.framework == "tflite":
            shutil.copyfile(request.source, target)
        else:
            # The converter tells each of its steps, and calls deprecated what keeps the order of the inputs.
            with quiet_start(), unlogged("absl"):
                target.write_bytes(_convert(request))
        details = _details(target, request)
        return Artefact(
            candidate=request.candidate,
            folder=request.folder,
            files=(_FILE,),
            inputs=request.inputs,
            outputs=request.outputs,
            portable=True,
            notes=_notes(details),
            details=details,
        )

    def operators(self, artefact: Artefact, arrays: Sequence[Array]) -> tuple[tuple[str, str, float], ...]:
        """Name, type and nanoseconds of each operator, by the profiler of LiteRT's C library in a process of its own.

        Raises:  EngineError: the library has none for this file, or it is too coarse for a call this short
        """
        return profile(artefact, arrays)


ENGINE = LiteRTEngine()


def _details(path: Path, request: BuildRequest) -> dict[str, Any]:
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType  # noqa: PLC0415 - optional library
    except ImportError as error:
        raise MissingLibraryError("litert: ai-edge-litert is not installed: install hasten[litert]") from error
    try:
        interpreter = Interpreter(
            model_path=str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        )
        inputs, outputs = _order(interpreter, request)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        kind = UnsupportedOpError if "op" in reason.lower() else EngineError
        raise kind(f"litert: cannot run the model: {reason}") from error
    return {
        "inputs": inputs,
        "outputs": outputs,
        "reset": _has_variables(path),
        "delegate": request.candidate.option("kernels") is None,
    }


def _order(interpreter: Any, request: BuildRequest) -> tuple[list[int], list[int]]:
    """The tensor of each of the source's inputs and outputs; a converted model names its inputs by number."""
    ins, outs = interpreter.get_input_details(), interpreter.get_output_details()
    outputs = [detail["index"] for detail in outs]
    if request.framework == "tflite":
        # State that the importer made visible follows: a variable tensor, by name, set before and read after.
        by_name = {d["name"]: d["index"] for d in interpreter.get_tensor_details()}
        states = [by_name[spec.name] for spec in request.inputs[len(ins) :] if spec.name in by_name]
        inputs = [detail["index"] for detail in ins]
        found = [*inputs, *states], [*outputs, *states]
    else:
        places = {d["name"].split(":")[0]: d["index"] for d in ins}
        wanted = [f"x{i}" for i in range(len(request.inputs))]
        found = [places[name] for name in wanted if name in places], outputs
    if (len(found[0]), len(found[1])) != (len(request.inputs), len(request.outputs)):
        raise EngineError(
            f"litert: the model has {len(found[0])} inputs and {len(found[1])} outputs: expected "
            f"{len(request.inputs)} and {len(request.outputs)}; the converter dropped some"
        )
    return found


def _has_variables(path: Path) -> bool:
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415 - optional library

    tree = schema.Model.GetRootAs(path.read_bytes(), 0)
    subgraphs = (tree.Subgraphs(i) for i in range(tree.SubgraphsLength()))
    return any(g.Tensors(i).IsVariable() for g in subgraphs for i in range(g.TensorsLength()))


def _notes(details: dict[str, Any]) -> tuple[str, ...]:
    return ("state variables are reset before every call",) if details["reset"] else ()


def _convert(request: BuildRequest) -> bytes:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    try:
        import tensorflow as tf  # noqa: PLC0415 - heavy and optional
        from tensorflow.python.framework.convert_to_constants import (  # noqa: PLC0415
            convert_variables_to_constants_v2,
        )
    except ImportError as error:
        raise MissingLibraryError("litert: converting needs TensorFlow: install hasten[keras]") from error
    try:
        call = _keras_call(request) if request.framework == "keras" else _saved_call(request)
        signature = [tf.TensorSpec(s.static_shape, s.dtype, name=f"x{i}") for i, s in enumerate(request.inputs)]
        concrete = tf.function(call, input_signature=signature).get_concrete_function()
        # Frozen by hand: what the converter leaves as variables nothing initialises in LiteRT.
        frozen = convert_variables_to_constants_v2(concrete, lower_control_flow=False)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
        _set_precision(converter, request)
        data: bytes = converter.convert()
    except EngineError:
        raise
    except Exception as error:
        raise _converter_error(error) from error
    return data


def _keras_call(request: BuildRequest) -> Any:
    import keras  # noqa: PLC0415 - heavy and optional

    model = keras.saving.load_model(request.source, compile=False, safe_mode=not request.trust)
    declared = getattr(getattr(model, "_functional", None) or model, "_inputs_struct", None)

    def call(*tensors: Any) -> tuple[Any, ...]:
        fed = tensors[0] if len(tensors) == 1 else list(tensors)
        if declared is not None and keras.tree.is_nested(declared):
            fed = keras.tree.pack_sequence_as(declared, list(tensors))
        return tuple(t for t in keras.tree.flatten(model(fed, training=False)) if t is not None)

    return call


def _saved_call(request: BuildRequest) -> Any:
    """The signature that takes the source's inputs by name; its answers in the order of their names."""
    import tensorflow as tf  # noqa: PLC0415 - heavy and optional

    loaded = tf.saved_model.load(str(request.source))
    names = [spec.name for spec in request.inputs]
    fits = [f for f in loaded.signatures.values() if set(f.structured_input_signature[1]) == set(names)]
    if not fits:
        raise EngineError(f"litert: none of the SavedModel's signatures takes {', '.join(names)}")

    def call(*tensors: Any) -> tuple[Any, ...]:
        answers = fits[0](**dict(zip(names, tensors, strict=True)))
        return tuple(answers[name] for name in sorted(answers))

    call.__dict__["model"] = loaded  # its variables live as long as it does
    return call


def _set_precision(converter: Any, request: BuildRequest) -> None:
    import tensorflow as tf  # noqa: PLC0415 - heavy and optional

    precision = request.candidate.precision
    if precision == "float32":
        return
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    elif precision == "int8":
        if request.calibration is None:
            raise EngineError("litert: int8 needs calibration data: pass sample data")
        converter.representative_dataset = lambda: _calibration(request)
    elif precision != "int8-dynamic":
        raise EngineError(f"litert: precision {precision} is not offered: expected one of {', '.join(_PRECISIONS)}")


def _calibration(request: BuildRequest) -> Iterator[list[Any]]:
    assert request.calibration is not None
    with np.load(request.calibration) as stored:
        columns = [stored[spec.name] for spec in request.inputs]
    for start in range(0, min(len(c) for c in columns), max(request.candidate.batch, 1)):
        batch = [
            np.resize(c[start : start + request.candidate.batch], s.static_shape) for c, s in _paired(columns, request)
        ]
        yield [array.astype(spec.dtype) for array, spec in zip(batch, request.inputs, strict=True)]


def _paired(columns: Sequence[Any], request: BuildRequest) -> Iterator[tuple[Any, Any]]:
    return zip(columns, request.inputs, strict=True)


def _converter_error(error: Exception) -> EngineError:
    text = str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    flex = next((line for line in lines if line.startswith(("Flex ops:", "TF Select ops:"))), None)
    if flex is not None:
        return UnsupportedOpError(f"litert: the converter leaves TensorFlow operators that LiteRT lacks ({flex})")
    return EngineError(f"litert: conversion failed: {lines[0][:300]}")
