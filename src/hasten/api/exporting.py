"""A model as a C library for another machine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from hasten.api.settings import Settings
from hasten.api.subject import Subject, subject
from hasten.errors import SettingsError
from hasten.native.export import Check, Target
from hasten.native.export import export as export_graph
from hasten.types import Array
from hasten.verify import Tolerance

__all__ = ["export"]


def export(
    model: Any,
    output: str | Path,
    *,
    target: str = "c",
    instruction_set: str | None = None,
    settings: Settings | None = None,
) -> tuple[Path, ...]:
    """The files of a C library in the folder ``output``: header, C, weights, both libraries, example, self-test.

    ``model`` is a bundle or anything that ``optimize`` reads; ``target`` a triple such as ``aarch64-linux-gnu``, or
    ``c`` for plain C.

    That of a bundle whose winner is native code computes as the winner does: in its precision, by its mathematics; one
    thread runs it. Its self-test allows what the bundle was held to.

    Raises:  SettingsError: unknown target, or a bundle in int8 from before hasten kept what its ranges were;
             UnsupportedOpError: an operator has no kernel; CompilerError: the C compiler failed; SourceError,
             BundleError: the model cannot be read
    """
    used = settings or Settings()
    chosen = Target.named(target, instruction_set)
    with tempfile.TemporaryDirectory(prefix="hasten-") as work:
        found = subject(model, None, used, Path(work))
        if found.is_recalibrated:
            raise SettingsError(
                f"cannot export '{model}': its int8 program needs the graph that was quantised when it was made, which "
                "this bundle, by an older hasten, does not hold; optimise the model again"
            )
        checks = _checks(found, used.allowed)
        return export_graph(found.model, found.name, chosen, checks, Path(output), numerics=found.numerics)


def _checks(found: Subject, asked: Tolerance | None) -> list[Check]:
    """Stored answers with their bounds: those asked for, else a bundle's own where it computes in less than float32."""
    if asked is None and found.tolerance is not None:
        own = found.tolerance
        return [Check(x, y, own.absolute, own.relative, tuple(map(_size, y))) for x, y in found.checks]
    allowed = asked or Tolerance()
    return [Check(x, y, allowed.absolute, allowed.relative) for x, y in found.checks]


def _size(output: Array) -> float:
    """The largest finite magnitude, at least one: rounding errors grow with it."""
    values = np.abs(output[np.isfinite(output)].astype(np.float64)) if output.dtype.kind == "f" else output[:0]
    return float(max(1.0, values.max(initial=0.0)))
