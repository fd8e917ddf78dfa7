"""Engines build: a graph (or the source's own file) enters, an ``Artefact`` leaves. The table of all engines is here.

To add an engine: one file here with ``ENGINE``, one in ``sessions/`` with ``open_session``, a line in each table; the
shared suite then runs on it. The half that ships is ``sessions``; nothing there imports this room.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hasten.errors import SettingsError
from hasten.records import Artefact, Candidate
from hasten.types import TensorSpec

__all__ = ["ENGINES", "BuildRequest", "Engine", "Offer", "engine"]

# name → module; the order is that of tables, and of preference between equals: simpler first.
ENGINES: dict[str, str] = {
    "native": "hasten.engines.native",
    "onnxruntime": "hasten.engines.onnxruntime",
    "litert": "hasten.engines.litert",
    "openvino": "hasten.engines.openvino",
    "keras": "hasten.engines.keras",
    "torch": "hasten.engines.torch",
}


@dataclass(frozen=True)
class Offer:
    """What an engine is asked about before anything is built: the source and what the user allows."""

    framework: str
    source_suffix: str
    has_graph: bool
    precisions: tuple[str, ...] = ("float32",)
    threads: tuple[int, ...] = (1, 2)
    batches: tuple[int, ...] = (1,)
    quick: bool = False
    math: str = "default"
    """How exact exp, tanh and their like are, where the engine brings its own: default, strict or fast."""
    graph: Path | None = None
    """The optimised ONNX file at the first batch size, for an engine whose variants depend on what is in it."""


@dataclass(frozen=True)
class BuildRequest:
    """All that a build may look at, on disk, so that it can happen in another process.

    ``graph`` is the optimised ONNX file at ``candidate.batch`` with static shapes (None where no importer could read
    the source); ``source`` is the framework's own file. ``calibration`` is an ``.npz`` with arrays ``<input name>`` of
    shape (N, …) for precisions that need it.
    """

    candidate: Candidate
    graph: Path | None
    source: Path
    framework: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    folder: Path
    calibration: Path | None = None
    quantised: Path | None = None
    """What a quantiser made of ``graph`` before, in ``candidate.precision``: native code is made of that again."""
    trust: bool = False
    schedule: str = "kept"
    """How native code is scheduled: one of ``native.schedule.SCHEDULES``."""


class Engine(Protocol):
    """How to run a model: what it needs, which variants are worth trying, and how one is built.

    An engine may also have ``built_as(candidate) -> Candidate``: the candidate whose artefact serves this one too
    (threads and call paths that change no file, say). The tuner then builds once and opens it many times. One whose
    library takes seconds to import may have ``preload() -> None``, which imports it and does no more: the tuner then
    forks each candidate's process from one that has it. One that builds with another engine's library may have
    ``builds_beside(framework) -> str | None``, the name of that engine. One whose library has a profiler may have
    ``operators(artefact, arrays)``, which returns (name, type, nanoseconds) of each operator of a call. One that builds
    candidates without options from the graph alone, and never from the source's own file, may say ``graph_alone``.
    """

    name: str

    def missing(self) -> str | None:
        """None when it can run here, else one line: what is missing and what to install. Imports nothing heavy."""

    def candidates(self, offer: Offer) -> Sequence[Candidate]:
        """The variants worth trying for this source; () where the engine cannot open it."""

    def build(self, request: BuildRequest) -> Artefact:
        """Files in ``request.folder``.

        Raises:  EngineError (UnsupportedOpError names the operator); CompilerError
        """


def engine(name: str) -> Engine:
    """The engine of that name, its module imported now.

    Raises:  SettingsError: no such engine
    """
    if name not in ENGINES:
        raise SettingsError(f"unknown engine '{name}': expected one of {', '.join(ENGINES)}")
    found: Engine = importlib.import_module(ENGINES[name]).ENGINE
    return found
