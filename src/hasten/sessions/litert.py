"""A ``.tflite`` file enters, a LiteRT interpreter's call leaves.

The call goes straight to the interpreter's own binding: the public ``set_tensor``/``invoke``/``get_tensor`` add a
Python frame each and a reference-count check, a third of a tiny model's time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hasten.errors import EngineError, MissingLibraryError
from hasten.quiet import quiet_start
from hasten.records import Artefact
from hasten.types import Array, TensorSpec

__all__ = ["open_session"]


@dataclass
class _LiteRTSession:
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    call: Callable[..., Any]
    thread_safe: bool = False

    def close(self) -> None:
        self.call = _closed


def open_session(artefact: Artefact) -> _LiteRTSession:
    """The artefact's interpreter, tensors allocated at its static shapes.

    ``details``: ``inputs`` and ``outputs`` give each spec's tensor (a variable tensor, for state that is a port);
    ``reset`` is true where variables must be reset before every call; ``delegate`` false runs without XNNPACK.

    Raises:  MissingLibraryError: no ai-edge-litert; EngineError: LiteRT refuses the file
    """
    with quiet_start():
        return _open(artefact)


def _open(artefact: Artefact) -> _LiteRTSession:
    interpreter = _interpreter(artefact)
    details = artefact.details
    try:
        places_in, places_out = list(details["inputs"]), list(details["outputs"])
        shapes = {d["index"]: tuple(d["shape"]) for d in interpreter.get_input_details()}
        for place, spec in zip(places_in, artefact.inputs, strict=True):
            if shapes.get(place, spec.static_shape) != spec.static_shape:
                interpreter.resize_tensor_input(place, spec.static_shape)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise EngineError(f"litert: cannot prepare the model: {' '.join(str(error).split())[:300]}") from error
    call = _resetting(interpreter, places_in, places_out) if details.get("reset") else None
    if call is None and len(places_in) == len(places_out) == 1:
        call = _one_to_one(interpreter, places_in[0], places_out[0])
    return _LiteRTSession(artefact.inputs, artefact.outputs, call or _many(interpreter, places_in, places_out))


def _interpreter(artefact: Artefact) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType  # noqa: PLC0415 - optional library
    except ImportError as error:
        raise MissingLibraryError("litert: ai-edge-litert is not installed: install hasten[litert]") from error
    plain = artefact.details.get("delegate") is False
    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if plain else OpResolverType.AUTO
    try:
        return Interpreter(
            model_path=str(artefact.path(".tflite")),
            num_threads=artefact.candidate.threads,
            experimental_op_resolver_type=resolver,
        )
    except (RuntimeError, ValueError) as error:
        raise EngineError(f"litert: cannot open the model: {' '.join(str(error).split())[:300]}") from error


def _one_to_one(interpreter: Any, place_in: int, place_out: int) -> Callable[[Array], Array]:
    binding = interpreter._interpreter
    put, run, get = binding.SetTensor, binding.Invoke, binding.GetTensor

    def call(x: Array) -> Any:
        put(place_in, x)
        run()
        return get(place_out, 0)

    return call


def _many(interpreter: Any, places_in: list[int], places_out: list[int]) -> Callable[..., Any]:
    binding = interpreter._interpreter
    put, run, get = binding.SetTensor, binding.Invoke, binding.GetTensor
    if len(places_out) == 1:
        only = places_out[0]

        def call_one(*arrays: Array) -> Any:
            for place, array in zip(places_in, arrays):  # noqa: B905 - the runtime has checked the count
                put(place, array)
            run()
            return get(only, 0)

        return call_one

    def call(*arrays: Array) -> Any:
        for place, array in zip(places_in, arrays):  # noqa: B905 - the runtime has checked the count
            put(place, array)
        run()
        return tuple([get(place, 0) for place in places_out])

    return call


def _resetting(interpreter: Any, places_in: list[int], places_out: list[int]) -> Callable[..., Any]:
    """Fused recurrent operators keep their state in variables; a plain call starts from the initial state."""
    reset, inner = interpreter._interpreter.ResetVariableTensors, _many(interpreter, places_in, places_out)

    def call(*arrays: Array) -> Any:
        reset()
        return inner(*arrays)

    return call


def _closed(*_: Array) -> Any:
    raise EngineError("litert: this session is closed")
