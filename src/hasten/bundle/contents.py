"""What a bundle holds, as values; and the names of its members."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hasten.records import Artefact, Json, to_json
from hasten.types import Array, TensorSpec

__all__ = ["FORMAT", "GRAPH", "MANIFEST", "MEASUREMENTS", "SEAL", "Contents", "Entry", "canonical", "seal"]

FORMAT = 1
"""Counts up when an older hasten could no longer read what a newer one writes."""

MANIFEST, GRAPH, MEASUREMENTS = "manifest.json", "graph.onnx", "measurements.json"

# Engines whose files are data. What any other engine opens runs as code: libraries, pickles, packages, SavedModels.
DATA_ENGINES = frozenset({"onnxruntime", "openvino", "litert"})

# The archive's comment, and so its last bytes: the hash of every byte that no member's own hash covers.
SEAL = b"hasten-sha256:"


def seal(hexdigest: str) -> bytes:
    """The archive comment that carries the hash of the archive's frame."""
    return SEAL + hexdigest.encode("ascii")


def canonical(value: Any) -> bytes:
    """The one spelling of a JSON-ready value that hashes and signatures are taken of."""
    return json.dumps(to_json(value), sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Entry:
    """One artefact of a bundle. Entries are kept in order of preference: the winner, then what to fall back to."""

    artefact: Artefact
    """Its ``folder`` is where the files lie before writing; after reading, ``unpack`` gives them a new one."""
    role: str = "winner"
    latency_ns: float | None = None
    """Median nanoseconds of one call at ``artefact.candidate.batch``, to split rows over several batch sizes."""
    library: str = ""
    """Version of the engine's library that the artefact was verified with; another one is re-checked at load."""
    hashes: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each file; filled by ``write`` and ``read``."""
    mac: str | None = None
    """Where opening it runs code: the signature by its maker's own key; filled by ``write`` and ``read``."""

    @property
    def runs_code(self) -> bool:
        """Whether opening it runs code, told by its engine: ``portable`` is but what the bundle says of itself."""
        return self.artefact.candidate.engine not in DATA_ENGINES or not self.artefact.portable

    @property
    def member(self) -> str:
        """The folder of its files inside the bundle."""
        return f"artefacts/{self.artefact.candidate.key}"

    @property
    def graph_member(self) -> str | None:
        """The ONNX graph that a quantiser made for it, inside the bundle; None: it is built from the portable one."""
        name = self.artefact.details.get("graph")
        return f"{self.member}/{name}" if name in self.artefact.files else None

    @property
    def facts(self) -> dict[str, Any]:
        """Everything a signature must cover: what runs, on what, steered by which details."""
        data = to_json(self.artefact)
        del data["folder"]
        return {"artefact": data, "hashes": dict(self.hashes)}

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary, as the manifest holds it."""
        return self.facts | {
            "role": self.role,
            "latency_ns": self.latency_ns,
            "library": self.library,
            "mac": self.mac,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Entry:
        """The entry that ``to_json`` wrote; its files are still inside the bundle."""
        artefact = Artefact.from_json({**data["artefact"], "folder": ""})
        return Entry(artefact, data["role"], data["latency_ns"], data["library"], data["hashes"], data["mac"])


@dataclass(frozen=True)
class Contents:
    """All that goes into a bundle.

    Shapes:  inputs, outputs: as the source has them, batch free where it was free; samples, expected: one tuple of
             arrays per check, at the smallest batch among the entries
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    entries: tuple[Entry, ...]
    graph: bytes | None = None
    samples: tuple[tuple[Array, ...], ...] = ()
    expected: tuple[tuple[Array, ...], ...] = ()
    tolerance: Mapping[str, Json] = field(default_factory=dict)
    facts: Mapping[str, Json] = field(default_factory=dict)
    """Source, host, library versions, settings, verdict: what ``info()`` shows."""
    measurements: Mapping[str, Json] = field(default_factory=dict)
    """Every trial with its numbers."""
    rewrites: Mapping[int, Json] = field(default_factory=dict)
    """Batch size → what every pass that changed the source's graph did to it, in order."""

    @property
    def name_of_checks(self) -> list[tuple[list[str], list[str]]]:
        """Member names of each check's inputs and outputs."""
        return [check_names(i, len(self.inputs), len(self.outputs)) for i in range(len(self.samples))]


def check_names(index: int, inputs: int, outputs: int) -> tuple[list[str], list[str]]:
    """Member names of one check's inputs and outputs; by number, because tensor names may hold any character."""
    folder = f"checks/{index}"
    return [f"{folder}/in_{k}.npy" for k in range(inputs)], [f"{folder}/out_{k}.npy" for k in range(outputs)]


def sha256(data: bytes) -> str:
    """Hex digest of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_of(path: Path) -> str:
    """Hex digest of a file, which is never held whole."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
