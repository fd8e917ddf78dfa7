"""An artefact and arrays enter; what a profiler tells of them in a process of its own leaves.

A profiler that crashes costs the profile alone, and what its library sets for a whole process stays there. The process
is ``python -m MODULE FOLDER``, whose ``main`` calls ``answer``. The folder holds ``artefact.json`` and ``arrays.npz``;
``profile.json`` is put beside them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hasten.errors import EngineError, HastenError
from hasten.records import Artefact, to_json
from hasten.types import Array

__all__ = ["Operators", "answer", "ask", "counted", "turns"]

Operators = tuple[tuple[str, str, float], ...]
"""Name, type and nanoseconds of each operator of a call."""

_TIMEOUT_S = 60
_TURNS_S = 3.0
"""A profile's calls together: what is timed is where the time goes, and the search's own time has an end."""
_LEAST = 3


def ask(whose: str, module: str, artefact: Artefact, arrays: Sequence[Array]) -> tuple[Operators, float]:
    """The operators of a call, and nanoseconds of a call without the profiler; errors begin with ``whose``.

    Raises:  EngineError: the profiler fails, crashes, or takes too long
    """
    with tempfile.TemporaryDirectory(prefix="hasten-") as work:
        folder = Path(work)
        (folder / "artefact.json").write_text(json.dumps(to_json(artefact)))
        np.savez(folder / "arrays.npz", *arrays)
        told = _told(whose, module, folder)
    return tuple((name, op, nanos) for name, op, nanos in told["operators"]), told["whole_ns"]


def _told(whose: str, module: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", module, str(folder)]
    # The process must find hasten exactly where this one did.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, env=environment, check=False)
    except subprocess.TimeoutExpired:
        raise EngineError(f"{whose} gave no result within {_TIMEOUT_S} s") from None
    result = folder / "profile.json"
    if not result.is_file():
        raise EngineError(f"{whose} crashed (exit code {done.returncode})")
    told: dict[str, Any] = json.loads(result.read_text())
    if "error" in told:
        raise EngineError(f"{whose}: {told['error']}")
    return told


def turns(most: int) -> Iterator[int]:
    """0, 1, 2, … up to ``most`` calls, or fewer of a model whose calls take long."""
    end = time.perf_counter() + _TURNS_S
    for turn in range(most):
        if turn >= _LEAST and time.perf_counter() > end:
            return
        yield turn


def counted(times: Sequence[float], warm: int) -> Sequence[float]:
    """Those after the first ``warm``, which are not counted; where there are few, after the first third."""
    return times[min(warm, len(times) // 3) :]


def answer(folder: Path, operators: Callable[[Artefact, Sequence[Array]], tuple[Any, float]]) -> None:
    """Writes ``profile.json``: ``operators`` and ``whole_ns``, or ``error`` in one line."""
    told: dict[str, Any]
    try:
        artefact = Artefact.from_json(json.loads((folder / "artefact.json").read_text()))
        with np.load(folder / "arrays.npz") as stored:
            arrays = [stored[f"arr_{i}"] for i in range(len(stored))]
        found, whole_ns = operators(artefact, arrays)
        told = {"operators": found, "whole_ns": whole_ns}
    except HastenError as error:
        told = {"error": " ".join(str(error).split())}
    (folder / "profile.json").write_text(json.dumps(told))
