"""Machine code for this host from a bundle's graphs, built once by a process of its own.

The process that serves answers never imports a compiler or ONNX, and a compiler that crashes costs a fallback.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from hasten import host
from hasten.bundle import Bundle
from hasten.bundle.contents import GRAPH
from hasten.bundle.unpack import cache_folder
from hasten.errors import EngineError
from hasten.records import Artefact, Candidate, digest, to_json

__all__ = ["rebuild"]

_TIMEOUT_S = 300
_BUILDER = "hasten.engines.rebuild"
_QUANTISED = "quantised.onnx"


def rebuild(bundle: Bundle, candidate: Candidate) -> Artefact:
    """The candidate's artefact, built for this host from the bundle's graph, or taken from an earlier build.

    Raises:  EngineError: the bundle holds no graph, or the engine's build side is missing or refuses it
    """
    if GRAPH not in bundle.spans:
        raise EngineError("cannot rebuild: the bundle holds no portable graph")
    sources = [bundle.manifest["members"][name] for name in _sources(bundle, candidate)]
    key = digest([*sources, to_json(candidate), host.host_key()])
    folder = cache_folder("rebuilt") / key
    try:
        if not (folder / "artefact.json").is_file():
            _build_into(folder, bundle, candidate)
        facts = json.loads((folder / "artefact.json").read_text())
    except (OSError, ValueError) as error:
        raise EngineError(f"cannot rebuild {candidate.label} in '{folder}': {error}") from error
    return Artefact.from_json(facts, folder)


def _sources(bundle: Bundle, candidate: Candidate) -> dict[str, str]:
    """Member → file name, as the builder expects it, of the graphs that the candidate is built from."""
    kept = next((e.graph_member for e in bundle.entries if e.artefact.candidate == candidate), None)
    return {GRAPH: GRAPH} | ({} if kept is None else {kept: _QUANTISED})


def _build_into(folder: Path, bundle: Bundle, candidate: Candidate) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        sources = _sources(bundle, candidate)
        for member, name in sources.items():
            (draft / name).write_bytes(bundle.member(member))
        (draft / "candidate.json").write_text(json.dumps(to_json(candidate)))
        _run_builder(draft, candidate)
        for name in sources.values():
            (draft / name).unlink()
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _run_builder(draft: Path, candidate: Candidate) -> None:
    command = [sys.executable, "-m", _BUILDER, str(draft)]
    # The builder must find hasten exactly where this process did.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, env=environment, check=False)
    except subprocess.TimeoutExpired:
        raise EngineError(f"cannot rebuild {candidate.label}: no result within {_TIMEOUT_S} s") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        raise EngineError(f"cannot rebuild {candidate.label}: {lines[-1]}")
