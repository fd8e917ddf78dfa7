"""Where the time of a model goes, by its compiled program."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from hasten import host
from hasten.api.settings import Settings
from hasten.api.subject import subject
from hasten.errors import HastenError
from hasten.native.explain import Profile, StepTime, profile
from hasten.native.isa import for_host
from hasten.native.peaks import measure
from hasten.records import Candidate
from hasten.report import OpTime, Peaks
from hasten.types import Array

__all__ = ["Explanation", "explain", "op_times", "shown_peaks"]


@dataclass(frozen=True)
class Explanation:
    """The native program of a model, timed step by step, beside what this machine can do at most."""

    name: str
    profile: Profile
    peaks: host.Peaks
    instruction_set: str

    @property
    def op_times(self) -> tuple[OpTime, ...]:
        """The steps as the report shows them."""
        return op_times(self.profile)


def explain(model: Any, sample: Any = None, *, settings: Settings | None = None) -> Explanation:
    """Time, arithmetic and bytes by step of the native program of a bundle or model, against this machine's limits.

    Raises:  UnsupportedOpError: the native compiler lacks an operator; SourceError: the model cannot be read
    """
    peaks, used = host.peaks(measure), settings or Settings()
    with tempfile.TemporaryDirectory(prefix="hasten-") as work:
        found = subject(model, sample, used, Path(work))
        timed = profile(found.model, for_host(), found.checks[0][0], peaks, math=used.math)
    return Explanation(found.name, timed, peaks, for_host().name)


def op_times(timed: Profile) -> tuple[OpTime, ...]:
    """A profile's steps as records of the report."""
    total = sum(s.time_ns for s in timed.steps) or 1.0
    return tuple(
        OpTime(
            name=", ".join(s.nodes),
            op=s.title,
            time_ns=s.time_ns,
            share=s.time_ns / total,
            macs=s.macs or None,
            bytes=s.bytes or None,
            gmacs_per_s=s.macs / s.time_ns if s.macs and s.time_ns > 0 else None,
            gb_per_s=s.bytes / s.time_ns if s.bytes and s.time_ns > 0 else None,
            kernel=_kernel(s),
            limit_ns=s.limit_ns,
        )
        for s in timed.steps
    )


def _kernel(step: StepTime) -> str:
    """The C function, and how it was chosen to compute."""
    chosen = f"{step.way}; timed" if step.timed else step.way
    return f"{step.function} ({chosen})" if chosen else step.function


def shown_peaks(peaks: host.Peaks) -> Peaks:
    """The host's peaks as a record of the report."""
    return Peaks(peaks.gmac_per_s, dict(peaks.bandwidth), peaks.method)


def winner_profile(
    model: ir.Model, arrays: tuple[Array, ...], candidate: Candidate
) -> tuple[tuple[OpTime, ...], Peaks] | None:
    """What the report of a search shows of a native winner; None where it cannot be profiled."""
    try:
        peaks = host.peaks(measure)
        math, activations = candidate.option("math", "default"), candidate.option("activations", "float32")
        timed = profile(model, for_host(), arrays, peaks, math=math, activations=activations)
        return op_times(timed), shown_peaks(peaks)
    except HastenError:
        return None
