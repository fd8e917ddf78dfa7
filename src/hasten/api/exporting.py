"""A model as a C library for another machine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hasten.api.settings import Settings
from hasten.api.subject import subject
from hasten.native.export import Check, Target
from hasten.native.export import export as export_graph
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

    Raises:  SettingsError: unknown target; UnsupportedOpError: an operator has no kernel; CompilerError: the C compiler
             failed; SourceError, BundleError: the model cannot be read
    """
    used = settings or Settings()
    chosen = Target.named(target, instruction_set)
    allowed = used.allowed or Tolerance()
    with tempfile.TemporaryDirectory(prefix="hasten-") as work:
        found = subject(model, None, used, Path(work))
        checks = [Check(given, expected, allowed.absolute, allowed.relative) for given, expected in found.checks]
        return export_graph(found.model, found.name, chosen, checks, Path(output), math=used.math)
