"""``hasten info``: what is in a bundle, without running any of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hasten.cli import options as o

__all__ = ["info"]


def info(
    bundle: Annotated[Path, typer.Argument(help="A .hasten file.")],
    json: o.AsJson = False,
) -> None:
    """Show what BUNDLE holds: inputs and outputs, engines, verdict, where it was made."""
    from hasten.bundle import read  # noqa: PLC0415  (numpy: not for --help)

    opened = read(bundle)
    if json:
        import json as json_module  # noqa: PLC0415  (the option has taken its name)

        facts: dict[str, Any] = {k: v for k, v in opened.manifest.items() if k != "members"}
        print(json_module.dumps(facts | {"measurements": opened.measurements()}, indent=1))
        return
    _show(opened.manifest, opened.stamp[0], bundle)


def _show(manifest: Any, size: int, path: Path) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from hasten.records import Candidate  # noqa: PLC0415
    from hasten.report.units import bytes_text, time_text  # noqa: PLC0415
    from hasten.types import TensorSpec  # noqa: PLC0415

    facts, verdict = manifest["facts"], manifest["facts"].get("verdict") or {}
    rows = [("file", f"{path} ({bytes_text(size)}, format {manifest['format']}, hasten {facts.get('hasten', '?')})")]
    rows += [("input", str(TensorSpec.from_json(spec))) for spec in manifest["inputs"]]
    rows += [("output", str(TensorSpec.from_json(spec))) for spec in manifest["outputs"]]
    for entry in manifest["artefacts"]:
        artefact = entry["artefact"]
        label = Candidate.from_json(artefact["candidate"]).label
        where = "runs anywhere" if artefact["portable"] else f"machine code for {artefact['target']}"
        rows.append((entry["role"], f"{label}, {where}, p50 {time_text(entry['latency_ns'])} where it was made"))
    source, host = facts.get("source", {}), facts.get("host", {})
    rows += [
        ("source", f"{source.get('name', '?')} ({source.get('framework', '?')})"),
        ("made on", host.get("cpu", "?")),
    ]
    if verdict.get("reason"):
        rows.append(("verdict", verdict["reason"]))
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value))
    Console().print(table, highlight=False)
