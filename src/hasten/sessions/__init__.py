"""Sessions run: an ``Artefact`` enters, a ``Session`` leaves, arrays in and arrays out. This is the half that ships.

Nothing here imports an engine's build side, ``onnx``, or a framework other than the one the artefact needs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Protocol

from hasten.errors import BundleError
from hasten.records import Artefact
from hasten.types import TensorSpec

__all__ = ["SESSIONS", "Session", "open_session"]

SESSIONS: dict[str, str] = {
    "native": "hasten.sessions.native",
    "onnxruntime": "hasten.sessions.onnxruntime",
    "litert": "hasten.sessions.litert",
    "openvino": "hasten.sessions.openvino",
    "keras": "hasten.sessions.keras",
    "torch": "hasten.sessions.torch",
}


class Session(Protocol):
    """A built model, open in this process.

    Shapes:  ``call(*arrays)``: C-contiguous arrays of exactly ``inputs``' dtypes and static shapes, in order; returns
             one fresh array for one output, else a tuple of fresh arrays (never views that a later call overwrites)
    ``call`` does not check its arguments: the runtime does. ``call`` is a plain attribute, looked up once, so that
    nothing stands between the runtime and the engine.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    call: Callable[..., Any]
    thread_safe: bool
    """True where ``call`` may run in several threads at once; else the runtime opens one session per thread."""

    def close(self) -> None:
        """Frees what the engine holds."""


def open_session(artefact: Artefact) -> Session:
    """The artefact's session, ready to answer.

    Raises:  BundleError: no session of that name; EngineError: the engine refuses the artefact;
             MissingLibraryError: its library is not installed
    """
    name = artefact.candidate.engine
    if name not in SESSIONS:
        raise BundleError(f"unknown engine '{name}' in artefact: expected one of {', '.join(SESSIONS)}; upgrade hasten")
    opened: Session = importlib.import_module(SESSIONS[name]).open_session(artefact)
    return opened
