"""An engine for tests: y = x @ w with w in a file, so that the runtime can be tested without any library."""

from __future__ import annotations

import dataclasses
import sys
import threading
import types
from collections import Counter
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from hasten import host, sessions
from hasten.bundle import Contents, Entry, write
from hasten.bundle import contents as bundle_contents
from hasten.errors import EngineError
from hasten.records import Artefact, Candidate
from hasten.runtime import Model, load
from hasten.types import Array, TensorSpec

WEIGHTS = np.arange(6, dtype=np.float32).reshape(3, 2)


class LinearSession:
    """Records which batch sizes were called, how many sessions were opened, and calls that overlap."""

    calls: ClassVar[Counter[int]] = Counter()
    opened = 0
    overlaps = 0

    def __init__(self, artefact: Artefact):
        self.inputs, self.outputs = artefact.inputs, artefact.outputs
        self.thread_safe = bool(artefact.details.get("thread_safe", True))
        self._weights = np.load(artefact.folder / "w.npy")
        self._busy = threading.Lock()
        if artefact.details.get("broken"):
            raise EngineError("cannot open: made to fail")
        if artefact.details.get("wrong"):
            self._weights = self._weights + 1
        self.closed = False
        LinearSession.opened += 1

    def call(self, *arrays: Array) -> Array:
        if not self._busy.acquire(blocking=False):
            LinearSession.overlaps += 1
            return self._answer(arrays)
        try:
            return self._answer(arrays)
        finally:
            self._busy.release()

    def _answer(self, arrays: tuple[Array, ...]) -> Array:
        LinearSession.calls[len(arrays[0])] += 1
        assert all(a.shape == s.shape and a.flags.c_contiguous for a, s in zip(arrays, self.inputs, strict=True))
        total: Array = sum(arrays) @ self._weights  # type: ignore[assignment]
        return total

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def linear(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Registers the engine, gives the test its own cache, configuration and host, and returns a folder."""
    for name in ("linear", "steel"):
        module = types.ModuleType(f"{name}_session")
        module.open_session = LinearSession  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(sessions.SESSIONS, name, module.__name__)
    monkeypatch.setattr(bundle_contents, "DATA_ENGINES", bundle_contents.DATA_ENGINES | {"linear"})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(host, "host_key", lambda: "this-host")
    monkeypatch.setattr(host, "isa", lambda: host.Isa("x86-64-v3"))
    monkeypatch.setattr(LinearSession, "calls", Counter())
    monkeypatch.setattr(LinearSession, "opened", 0)
    monkeypatch.setattr(LinearSession, "overlaps", 0)
    return tmp_path


def entry(folder: Path, batch: int = 1, *, inputs: int = 1, machine: str = "", **details: object) -> Entry:
    """An artefact at ``batch``; ``machine`` names the processor that its (pretended) machine code is for."""
    engine = "steel" if machine else "linear"
    home = folder / f"{engine}{batch}{'-'.join(details)}"
    home.mkdir(parents=True, exist_ok=True)
    np.save(home / "w.npy", WEIGHTS)
    artefact = Artefact(
        candidate=Candidate(engine, batch=batch, options=tuple(sorted((k, str(v)) for k, v in details.items()))),
        folder=home,
        files=("w.npy",),
        inputs=tuple(TensorSpec(f"x{k}" if inputs > 1 else "x", "float32", (batch, 3)) for k in range(inputs)),
        outputs=(TensorSpec("y", "float32", (batch, 2)),),
        portable=not machine,
        target=machine or "any",
        details=details,
    )
    return Entry(artefact)


def contents(*entries: Entry, free: bool = True, checks: int = 2) -> Contents:
    """A whole bundle around the entries, with the true answers as checks."""
    specs = entries[0].artefact.inputs
    head: int | str = "batch" if free else 1
    samples = tuple(tuple(np.full((1, 3), 1 + i + k, np.float32) for k in range(len(specs))) for i in range(checks))
    return Contents(
        inputs=tuple(dataclasses.replace(s, shape=(head, 3)) for s in specs),
        outputs=(TensorSpec("y", "float32", (head, 2)),),
        entries=entries,
        graph=b"a graph, as far as the bundle knows",
        samples=samples,
        expected=tuple((sum(arrays) @ WEIGHTS,) for arrays in samples),
        facts={"host": {"key": "this-host"}, "verdict": {"winner": "linear"}},
        measurements={"trials": []},
    )


def opened(folder: Path, *entries: Entry, free: bool = True, **options: object) -> Model:
    """A model of those artefacts, written and loaded."""
    return load(write(folder / "model.hasten", contents(*entries, free=free)), **options)  # type: ignore[arg-type]


def rows(count: int) -> np.ndarray:
    """So many unlike rows of the input."""
    return np.arange(count * 3, dtype=np.float32).reshape(count, 3)
