"""The facts that travel between rooms, frozen: what was built, run, compared, measured and decided.

Everything here turns into plain JSON by ``to_json`` (dataclass fields, recursively) so that a trial survives the
process that made it. Arrays of raw samples are kept as files beside, never inside the JSON.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union

from hasten.types import TensorSpec

__all__ = [
    "FRAMEWORKS",
    "Artefact",
    "Candidate",
    "Comparison",
    "Finding",
    "Interval",
    "Json",
    "Measurement",
    "Status",
    "Trial",
    "digest",
    "to_json",
]

Json = Union[None, bool, int, float, str, Sequence["Json"], Mapping[str, "Json"]]  # noqa: UP007  (forward names)
FRAMEWORKS = frozenset({"keras", "torch"})
"""Engines that call the source in its own framework."""
Status = Literal["ok", "skipped", "failed", "wrong", "unstable"]


def to_json(value: Any) -> Any:
    """Plain dicts, lists, numbers and strings for any record, path or mapping of them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_json(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def digest(value: Any) -> str:
    """Sixteen hex digits that name any JSON-ready value or bytes; equal content, equal name."""
    data = value if isinstance(value, bytes) else json.dumps(to_json(value), sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()[:16]


@dataclass(frozen=True)
class Candidate:
    """One way to run the model: engine × precision × threads × batch × options of that engine alone.

    ``options`` is a sorted tuple of pairs so that a candidate is hashable and its ``key`` is stable.
    """

    engine: str
    precision: str = "float32"
    threads: int = 1
    batch: int = 1
    options: tuple[tuple[str, str | int | float | bool], ...] = ()

    @property
    def label(self) -> str:
        """What people read in tables: ``onnxruntime 2t spin`` or ``keras predict``."""
        words = [self.engine]
        words += [
            str(v) if isinstance(v, str) else (k if v is True else f"{k}={v}")
            for k, v in self.options
            if v is not False
        ]
        if self.precision != "float32":
            words.append(self.precision)
        if self.threads != 1:
            words.append(f"{self.threads}t")
        if self.batch != 1:
            words.append(f"batch={self.batch}")
        return " ".join(words)

    @property
    def key(self) -> str:
        """A stable name for files and caches."""
        return digest(self)

    @property
    def is_own_call(self) -> bool:
        """Whether it calls the model as its users do: in the model's framework, or by its file as it is."""
        by_file = self.option("call") is not None or self.option("form") == "file"
        return self.engine in FRAMEWORKS or by_file

    def option(self, name: str, default: Any = None) -> Any:
        """The value of one engine option."""
        return dict(self.options).get(name, default)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Candidate:
        """The candidate that ``to_json`` wrote."""
        options = tuple((k, v) for k, v in data["options"])
        return Candidate(data["engine"], data["precision"], data["threads"], data["batch"], options)


@dataclass(frozen=True)
class Artefact:
    """What an engine built: files in one folder, and the specs of what the session takes and gives.

    Shapes:  inputs, outputs: static; dimension 0 is ``candidate.batch`` where the source has a batch
    """

    candidate: Candidate
    folder: Path
    files: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    portable: bool
    """False for machine code: it runs only on hosts whose ``target`` matches."""
    target: str = "any"
    notes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    """Engine-specific facts for the session and the report, JSON-ready."""

    @property
    def ships(self) -> bool:
        """Whether a bundle may hold it: not what needs the model's framework, or opens the user's own file."""
        return not self.details.get("framework")

    @property
    def nbytes(self) -> int:
        """Total size of its files, in bytes; of the source's own where those are what it opens.

        The graph that it is kept with (``details["graph"]``) is not counted: nothing opens it to run.
        """
        if not self.files:
            return int(self.details.get("source_bytes", 0))
        return sum((self.folder / f).stat().st_size for f in self.files if f != self.details.get("graph"))

    def path(self, suffix: str) -> Path:
        """The one file with this ending."""
        return next(self.folder / f for f in self.files if f.endswith(suffix))

    @staticmethod
    def from_json(data: Mapping[str, Any], folder: Path | None = None) -> Artefact:
        """The artefact that ``to_json`` wrote, its files now in ``folder``."""
        return Artefact(
            candidate=Candidate.from_json(data["candidate"]),
            folder=folder or Path(data["folder"]),
            files=tuple(data["files"]),
            inputs=tuple(map(TensorSpec.from_json, data["inputs"])),
            outputs=tuple(map(TensorSpec.from_json, data["outputs"])),
            portable=data["portable"],
            target=data["target"],
            notes=tuple(data["notes"]),
            details=data["details"],
        )


@dataclass(frozen=True)
class Interval:
    """An estimate with its bootstrap interval.

    Units:   those of the field that holds it
    """

    value: float
    low: float
    high: float
    confidence: float = 0.95

    @staticmethod
    def from_json(data: Mapping[str, Any] | None) -> Interval | None:
        """The interval that ``to_json`` wrote, or None."""
        return None if data is None else Interval(**data)


@dataclass(frozen=True)
class Measurement:
    """How one session answered, timed call by call in its own process.

    Units:   latency fields: nanoseconds per call; *_bytes: bytes; rate_per_s: calls (rows, for batches) per second
    A percentile is None where there are too few samples for it (64 for p90, 662 for p99, 6,636 for p99.9).
    """

    samples: int
    p50_ns: Interval
    p90_ns: float | None
    p99_ns: Interval | None
    p999_ns: float | None
    max_ns: float
    mean_ns: float
    rate_per_s: float
    inner_loop: int
    """Calls per sample: above 1 where one call is too short for the clock; the tail is then of averages."""
    timer_ns: float
    first_ns: float
    cold_start_ns: float | None
    idle_10ms_ns: float | None
    idle_100ms_ns: float | None
    drift: float
    """Relative change of the median from the first to the last fifth of the run."""
    spike_share: float
    spike_period_ns: float | None
    peak_bytes: int | None
    resident_bytes: int | None
    raw: str | None = None
    """File name of the raw samples (``.npy``, float64 nanoseconds, in order), beside the trial."""
    looped_ns: float | None = None
    """Cross-check for calls under 20 µs: the median of whole loops divided by their calls, no clock inside."""

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Measurement:
        """The measurement that ``to_json`` wrote."""
        fields = dict(data)
        p50 = Interval.from_json(fields["p50_ns"])
        assert p50 is not None
        fields["p50_ns"], fields["p99_ns"] = p50, Interval.from_json(fields["p99_ns"])
        return Measurement(**fields)


@dataclass(frozen=True)
class Comparison:
    """A candidate's outputs against the source framework's own, over all checked inputs.

    ``passed`` is the gate: False can never be chosen, and a NaN where the source has none never passes.
    """

    passed: bool
    checked: int
    max_abs_error: float
    max_rel_error: float
    min_cosine: float
    argmax_agreement: float | None
    reason: str | None = None
    """Why it did not pass: the output, the check, the worst element, expected and received."""
    metric: Mapping[str, float] | None = None
    """With labelled data: metric name, source's score, candidate's score, drop."""

    @staticmethod
    def from_json(data: Mapping[str, Any] | None) -> Comparison | None:
        """The comparison that ``to_json`` wrote, or None."""
        return None if data is None else Comparison(**data)


@dataclass(frozen=True)
class Trial:
    """All that is known of one candidate after it was tried."""

    candidate: Candidate
    status: Status
    reason: str | None = None
    """One line, for every status but ok."""
    artefact: Artefact | None = None
    measurement: Measurement | None = None
    comparison: Comparison | None = None
    build_ns: float | None = None
    log: str | None = None
    """File name of the full log, beside the trial."""

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Trial:
        """The trial that ``to_json`` wrote."""
        fields = dict(data)
        fields["candidate"] = Candidate.from_json(data["candidate"])
        fields["artefact"] = data["artefact"] and Artefact.from_json(data["artefact"])
        fields["measurement"] = data["measurement"] and Measurement.from_json(data["measurement"])
        fields["comparison"] = Comparison.from_json(data["comparison"])
        return Trial(**fields)


@dataclass(frozen=True)
class Finding:
    """Something the doctor or the optimiser saw and what to do about it."""

    rule: str
    message: str
    remedy: str
    path: str | None = None
    line: int | None = None
    column: int | None = None
    end_line: int | None = None
    end_column: int | None = None
    fixable: bool = False
