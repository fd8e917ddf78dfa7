"""An ONNX file enters; a session on ONNX Runtime leaves, called below its Python wrapper.

``InferenceSession.run`` checks its arguments in Python at each call, about a third of the cost of a small model;
hasten's runtime has checked them already, so the compiled session is called directly. A bound session computes into
buffers of its own and hands out copies: one allocation less, and not for two threads at once.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from hasten.errors import EngineError, MissingLibraryError, UnsupportedOpError
from hasten.records import Artefact, Candidate
from hasten.types import TensorSpec

__all__ = ["OnnxRuntimeSession", "open_session"]

# Of onnxruntime's tensor types those that numpy has; others keep a model from being bound.
_BINDABLE = (
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
)


class OnnxRuntimeSession:
    """A model open in ONNX Runtime."""

    def __init__(self, artefact: Artefact, call: Callable[..., Any], thread_safe: bool) -> None:
        self.inputs: tuple[TensorSpec, ...] = artefact.inputs
        self.outputs: tuple[TensorSpec, ...] = artefact.outputs
        self.call = call
        self.thread_safe = thread_safe

    def close(self) -> None:
        """Frees the session; a later call raises."""
        self.call = _closed


def open_session(artefact: Artefact) -> OnnxRuntimeSession:
    """The artefact's session.

    Raises:  EngineError: the file is refused, or its inputs and outputs are not the artefact's;
             UnsupportedOpError: no kernel for an operator; MissingLibraryError
    """
    try:
        import onnxruntime  # noqa: PLC0415  (the one library that this session needs)
    except ImportError as error:
        raise MissingLibraryError("onnxruntime is not installed: pip install onnxruntime") from error
    session = _create(onnxruntime, artefact)
    inputs = [v.name for v in session.get_inputs()]
    outputs = [v.name for v in session.get_outputs()]
    _check_interface(artefact, session, inputs, outputs)
    candidate = artefact.candidate
    if candidate.option("call"):
        return OnnxRuntimeSession(artefact, _through_wrapper(session, inputs, outputs), thread_safe=True)
    if candidate.option("bound") and all(s.dtype in _BINDABLE and s.nbytes for s in artefact.inputs + artefact.outputs):
        return OnnxRuntimeSession(artefact, _bound(session, artefact, inputs, outputs), thread_safe=False)
    return OnnxRuntimeSession(artefact, _direct(session, inputs, outputs), thread_safe=True)


def _create(onnxruntime: ModuleType, artefact: Artefact) -> Any:
    path = artefact.details.get("source") or str(artefact.path(".onnx"))
    try:
        try:
            return _opened(onnxruntime, path, artefact.candidate, exact=True)
        except Exception:
            return _opened(onnxruntime, path, artefact.candidate, exact=False)
    except Exception as error:  # onnxruntime's own exception classes share no base but Exception
        message = (str(error).splitlines() or [type(error).__name__])[0]
        unsupported = "NOT_IMPLEMENTED" in message or "is not a registered function/op" in message
        kind = UnsupportedOpError if unsupported else EngineError
        raise kind(f"onnxruntime refuses the graph: {message}") from error


def _opened(onnxruntime: ModuleType, path: str, candidate: Candidate, *, exact: bool) -> Any:
    """``exact``: products of bytes do not overflow on x86 without VNNI, and are refused where both sides are signed."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if candidate.option("call") != "InferenceSession.run":  # that one is the user's own: every default
        options.intra_op_num_threads, options.inter_op_num_threads = candidate.threads, 1
        spin = "1" if candidate.option("spin") else "0"
        options.add_session_config_entry("session.intra_op.allow_spinning", spin)
        options.add_session_config_entry("session.x64quantprecision", "1" if exact else "0")
        # without it float32 meets weights of four bits in eight
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _check_interface(artefact: Artefact, session: Any, inputs: list[str], outputs: list[str]) -> None:
    for what, names, specs in (("inputs", inputs, artefact.inputs), ("outputs", outputs, artefact.outputs)):
        if len(names) != len(specs):
            raise EngineError(
                f"onnxruntime: expected {len(specs)} {what}, the file has {len(names)}: {', '.join(names)}"
            )
    for value in (*session.get_inputs(), *session.get_outputs()):
        if not value.type.startswith("tensor("):
            raise EngineError(f"onnxruntime: expected '{value.name}' to be a tensor, the file has {value.type}")


def _through_wrapper(session: Any, inputs: list[str], outputs: list[str]) -> Callable[..., Any]:
    """The call that a user of onnxruntime writes."""
    single = len(outputs) == 1

    def call(*arrays: Any) -> Any:
        answers = session.run(None, dict(zip(inputs, arrays, strict=True)))
        return answers[0] if single else tuple(answers)

    return call


def _direct(session: Any, inputs: list[str], outputs: list[str]) -> Callable[..., Any]:
    inner = getattr(session, "_sess", None)
    run = session.run if inner is None else inner.run
    if len(inputs) == 1 and len(outputs) == 1:
        name = inputs[0]
        return lambda x: run(outputs, {name: x}, None)[0]
    if len(outputs) == 1:
        return lambda *arrays: run(outputs, dict(zip(inputs, arrays)), None)[0]  # noqa: B905  (the runtime counted)
    return lambda *arrays: tuple(run(outputs, dict(zip(inputs, arrays)), None))  # noqa: B905


def _bound(session: Any, artefact: Artefact, inputs: list[str], outputs: list[str]) -> Callable[..., Any]:
    binding = session.io_binding()
    taken = [np.zeros(s.static_shape, s.dtype) for s in artefact.inputs]
    given = [np.zeros(s.static_shape, s.dtype) for s in artefact.outputs]
    for bind, names, buffers in ((binding.bind_input, inputs, taken), (binding.bind_output, outputs, given)):
        for name, buffer in zip(names, buffers, strict=True):
            bind(name, "cpu", 0, buffer.dtype.type, list(buffer.shape), buffer.ctypes.data)
    inner, c_binding = getattr(session, "_sess", None), getattr(binding, "_iobinding", None)
    if inner is None or c_binding is None:
        inner, c_binding = session, binding
    run, copy = inner.run_with_iobinding, np.copyto
    if len(taken) == 1 and len(given) == 1:
        source, answer = taken[0], given[0]

        def call(x: Any) -> Any:
            copy(source, x)
            run(c_binding, None)
            return answer.copy()

        return call

    def call_many(*arrays: Any) -> Any:
        for buffer, array in zip(taken, arrays):  # noqa: B905  (the runtime counted)
            copy(buffer, array)
        run(c_binding, None)
        return given[0].copy() if len(given) == 1 else tuple([y.copy() for y in given])

    return call_many


def _closed(*arrays: Any) -> Any:
    raise EngineError("this session is closed: open the model again")
