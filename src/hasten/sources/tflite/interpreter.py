"""A TFLite file's bytes enter; its own answers by LiteRT, and what LiteRT says of its inputs and outputs, leave."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hasten.errors import SourceError
from hasten.quiet import quiet_start
from hasten.sources import Reference
from hasten.sources.tflite.state import Variable
from hasten.types import Array, TensorSpec

__all__ = ["Opened", "kernel_answers", "open_interpreter"]

_PLAIN = "BUILTIN_WITHOUT_DEFAULT_DELEGATES"
_SLOW_S = 0.02  # its reference kernels take some twenty times as long


@dataclass(frozen=True)
class Opened:
    """A file that LiteRT runs."""

    inputs: tuple[TensorSpec, ...]
    """As declared: a free dimension has a name of its own."""
    outputs: tuple[TensorSpec, ...]
    call: Reference


def kernel_answers(
    data: bytes, call: Reference, drawn: Sequence[Sequence[Array]]
) -> list[tuple[Sequence[Array], Sequence[Array]]]:
    """Pairs of answers to the calls ``drawn``, by the kernels that LiteRT runs and by its reference kernels.

    Either rounds as no graph can say (twice, or by tables), and what rounds once, as engines do, is right too. Where
    the reference kernels lack an operator it is those that LiteRT runs without XNNPACK; where either would take long,
    an answer is paired with itself.
    """
    start = time.perf_counter()
    first = call(drawn[0])
    if time.perf_counter() - start > _SLOW_S:
        return [(first, first)]
    for kernels in ("BUILTIN_REF", _PLAIN):
        try:
            other = _allocated(data, kernels)
            found = [_invoke(other, arrays, ()) for arrays in drawn]
        except (RuntimeError, ValueError):  # an operator that only another set has
            continue
        return list(zip([first, *map(call, drawn[1:])], found, strict=True))
    return [(first, first)]


def _allocated(data: bytes, kernels: str) -> Any:
    """An interpreter of one thread that runs one of LiteRT's sets of kernels.

    Raises:  RuntimeError, ValueError: that set cannot run the file
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType  # noqa: PLC0415 - optional library

    made = Interpreter(
        model_content=data, num_threads=1, experimental_op_resolver_type=getattr(OpResolverType, kernels)
    )
    made.allocate_tensors()
    return made


def open_interpreter(data: bytes, name: str, states: Sequence[Variable] = ()) -> Opened:
    """The file in a LiteRT interpreter, one thread.

    ``states`` are variable tensors that join inputs and outputs; all others are reset before every call.

    Raises:  SourceError: LiteRT is absent or refuses the file; the message names an operator that it lacks
    """
    try:
        import ai_edge_litert.interpreter  # noqa: F401, PLC0415 - optional library
    except ImportError as error:
        raise SourceError(f"cannot read TFLite model '{name}': install hasten[litert]") from error
    try:
        with quiet_start():
            interpreter = _default(data)
        inputs = (*map(_spec, interpreter.get_input_details()), *(state.input for state in states))
        outputs = (*map(_spec, interpreter.get_output_details()), *(state.output for state in states))
        by_name = {d["name"]: d["index"] for d in interpreter.get_tensor_details()}
        places = [by_name[state.input.name] for state in states]
    except Exception as error:
        raise SourceError(f"cannot run TFLite model '{name}' in LiteRT: {_reason(error)}") from error

    def call(arrays: Sequence[Array]) -> tuple[Array, ...]:
        try:
            return _invoke(interpreter, arrays, places)
        except Exception as error:
            raise SourceError(f"cannot run TFLite model '{name}' in LiteRT: {_reason(error)}") from error

    return Opened(inputs, outputs, call)


def _default(data: bytes) -> Any:
    """As LiteRT comes; without XNNPACK where that takes the file's operators and then fails to prepare them."""
    try:
        return _allocated(data, "AUTO")
    except RuntimeError as error:
        if "XNNPack" not in str(error):
            raise
        return _allocated(data, _PLAIN)


def _invoke(interpreter: Any, arrays: Sequence[Array], states: Sequence[int]) -> tuple[Array, ...]:
    details = interpreter.get_input_details()
    given, kept = arrays[: len(details)], arrays[len(details) :]
    if any(tuple(d["shape"]) != a.shape for d, a in zip(details, given, strict=True)):
        for detail, array in zip(details, given, strict=True):
            interpreter.resize_tensor_input(detail["index"], array.shape)
        interpreter.allocate_tensors()
    interpreter.reset_all_variables()
    places = [*(d["index"] for d in details), *states]
    for place, array in zip(places, (*given, *kept), strict=True):
        interpreter.set_tensor(place, np.ascontiguousarray(array))
    interpreter.invoke()
    wanted = [*(d["index"] for d in interpreter.get_output_details()), *states]
    return tuple(np.array(interpreter.get_tensor(place)) for place in wanted)


def _spec(detail: dict[str, Any]) -> TensorSpec:
    signature = detail.get("shape_signature", detail["shape"])
    shape = signature if len(signature) == len(detail["shape"]) else detail["shape"]
    name = detail["name"]
    # The converter writes -1 first for the batch of the Keras model that it read.
    dims = tuple(int(d) if d >= 0 else ("batch" if i == 0 else f"{name}_dim{i}") for i, d in enumerate(shape))
    return TensorSpec(name, np.dtype(detail["dtype"]).name, dims)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if "Select TensorFlow op" in text:
        node = text.rpartition("Node number")[2]
        return f"it holds TensorFlow operators that LiteRT lacks (node {node.strip()}"
    return text[:300]
