"""Options that several commands share: how they are spelt, explained and read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hasten.errors import SettingsError

if TYPE_CHECKING:
    pass

__all__ = [
    "AsJson",
    "Batch",
    "Data",
    "Engines",
    "Fresh",
    "Math",
    "MaxDrop",
    "MaxLatency",
    "MaxMemory",
    "Metric",
    "ModelPath",
    "Objective",
    "OneBatch",
    "Precision",
    "Quick",
    "Sample",
    "Seed",
    "Shapes",
    "Threads",
    "Tolerance",
    "Trust",
    "bytes_of",
    "nanoseconds_of",
    "shapes_of",
    "whole_numbers_of",
]

ModelPath = Annotated[Path, typer.Argument(help="Model file: .keras .h5 .tflite .onnx .pt2 .pt, or a SavedModel.")]
Batch = Annotated[str, typer.Option(help="Batch sizes to compile for: [bold]1,8,32[/].")]
OneBatch = Annotated[int, typer.Option("--batch", help="Batch size to compile for.")]
Shapes = Annotated[
    list[str] | None,
    typer.Option("--shape", help="All dimensions of an input, where more than the batch is free: [bold]x=1,250,40[/]."),
]
Sample = Annotated[
    Path | None, typer.Option(help="Real inputs (.npy, .npz, .csv, .json) to check and time with, besides random ones.")
]
Precision = Annotated[
    str,
    typer.Option(
        help="float32 float16 bfloat16 int11-weights int8-weights int8-dynamic int8, or [bold]auto[/] to try them all."
    ),
]
Math = Annotated[
    str,
    typer.Option(help="How exact exp, tanh … are in native code: default (6 ULP), strict (2 ULP) or fast (5e-4)."),
]
Tolerance = Annotated[
    float | None, typer.Option(help="Absolute and relative error allowed, such as 1e-3; default: rounding alone.")
]
Threads = Annotated[str | None, typer.Option(help="Thread counts to try: [bold]1,2[/]; default: one, and every core.")]
Objective = Annotated[str, typer.Option(help="What to win at: p50, p99, p99.9, throughput, memory or size.")]
MaxLatency = Annotated[str | None, typer.Option(help="Upper bound for the winner's latency: [bold]5ms[/].")]
MaxMemory = Annotated[str | None, typer.Option(help="Upper bound for the winner's memory: [bold]50MB[/].")]
Data = Annotated[
    Path | None, typer.Option(help="Labelled rows (.npz with the inputs and y) under which precisions may be lowered.")
]
Metric = Annotated[str, typer.Option(help="Score on --data: accuracy, top5, mse or mae.")]
MaxDrop = Annotated[float, typer.Option(help="How much worse that score may become.")]
Engines = Annotated[
    list[str] | None, typer.Option("--engine", help="Try this engine alone; give it again for more. Default: all.")
]
Trust = Annotated[bool, typer.Option("--trust", help="Open files that can run code: only from a source you trust.")]
Quick = Annotated[bool, typer.Option("--quick", help="A smaller search: under 20 s instead of 90 s.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Measure everything anew instead of resuming.")]
Seed = Annotated[int, typer.Option(help="Seed of the random inputs.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and nothing else there.")]

_TIMES = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_SIZES = {"b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


def whole_numbers_of(option: str, text: str | None) -> tuple[int, ...]:
    """``1,8,32`` as numbers; nothing as none.

    Raises:  SettingsError: something else
    """
    try:
        return () if text is None else tuple(int(part) for part in text.split(","))
    except ValueError:
        raise SettingsError(f"{option}: expected whole numbers such as 1,8,32, received '{text}'") from None


def shapes_of(texts: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    """``x=1,250,40`` as a mapping.

    Raises:  SettingsError: something else
    """
    found = {}
    for text in texts or ():
        name, sign, dims = text.rpartition("=")
        if not sign or not name:
            raise SettingsError(f"--shape: expected NAME=DIMENSIONS such as x=1,250,40, received '{text}'")
        found[name] = whole_numbers_of(f"--shape {name}", dims)
    return found


def nanoseconds_of(text: str | None) -> float | None:
    """``5ms`` as nanoseconds.

    Raises:  SettingsError: something else
    """
    return _measure("--max-latency", text, _TIMES, "5ms or 800us")


def bytes_of(text: str | None) -> int | None:
    """``50MB`` as bytes.

    Raises:  SettingsError: something else
    """
    found = _measure("--max-memory", text, _SIZES, "50MB or 2GiB")
    return None if found is None else int(found)


def _measure(option: str, text: str | None, units: dict[str, int], example: str) -> float | None:
    if text is None:
        return None
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([A-Za-zµ]+)\s*", text)
    unit = units.get(match.group(2).lower()) if match else None
    if match is None or unit is None or float(match.group(1)) <= 0:
        raise SettingsError(f"{option}: expected a number with its unit such as {example}, received '{text}'")
    return float(match.group(1)) * unit
