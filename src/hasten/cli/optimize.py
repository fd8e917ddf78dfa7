"""``hasten optimize``: measure, rewrite, compile, verify, choose → a bundle and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hasten.cli import options as o

__all__ = ["optimize"]


def optimize(
    model: o.ModelPath,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where the bundle goes; default: MODEL.hasten, here.")
    ] = None,
    batch: o.Batch = "1",
    shape: o.Shapes = None,
    sample: o.Sample = None,
    precision: o.Precision = "float32",
    math: o.Math = "default",
    tolerance: o.Tolerance = None,
    threads: o.Threads = None,
    objective: o.Objective = "p99",
    max_latency: o.MaxLatency = None,
    max_memory: o.MaxMemory = None,
    data: o.Data = None,
    metric: o.Metric = "accuracy",
    max_drop: o.MaxDrop = 0.005,
    engine: o.Engines = None,
    trust: o.Trust = False,
    quick: o.Quick = False,
    fresh: o.Fresh = False,
    seed: o.Seed = 0,
    report: Annotated[
        Path | None, typer.Option(help="Where the HTML report goes; default: beside the bundle, .html.")
    ] = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no HTML report.")] = False,
    json: o.AsJson = False,
) -> None:
    """Find the fastest way to run MODEL here that gives the same answers, and write it as a bundle.

    Ctrl-C ends the search early and writes the best so far; the same command goes on where it stopped.
    """
    from hasten.api import Settings  # noqa: PLC0415  (heavy: imported once it is known what to do)
    from hasten.cli.run import Request, run  # noqa: PLC0415

    settings = Settings(
        batch=o.whole_numbers_of("--batch", batch),
        shapes=o.shapes_of(shape),
        precision=precision,
        math=math,
        threads=o.whole_numbers_of("--threads", threads),
        objective=objective,
        max_latency_ns=o.nanoseconds_of(max_latency),
        max_memory_bytes=o.bytes_of(max_memory),
        tolerance=tolerance,
        data=data,
        metric=metric,
        max_drop=max_drop,
        engines=tuple(engine or ()),
        trust=trust,
        quick=quick,
        fresh=fresh,
        seed=seed,
    )
    target = output or Path(f"{model.resolve().stem or 'model'}.hasten")
    page = None if no_report else report or target.with_suffix(".html")
    run(Request(model, settings, target, sample, page, page_asked=report is not None, as_json=json))
