"""``hasten bench``: every way to call a model on this machine, side by side; nothing is chosen or written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hasten.cli import options as o

__all__ = ["bench"]


def bench(
    model: o.ModelPath,
    batch: o.Batch = "1",
    shape: o.Shapes = None,
    sample: o.Sample = None,
    precision: o.Precision = "float32",
    math: o.Math = "default",
    tolerance: o.Tolerance = None,
    threads: o.Threads = None,
    engine: o.Engines = None,
    trust: o.Trust = False,
    quick: o.Quick = False,
    fresh: o.Fresh = False,
    seed: o.Seed = 0,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report here too.")] = None,
    json: o.AsJson = False,
) -> None:
    """Time every way to call MODEL on this machine, each checked against the model's own answers."""
    from hasten.api import Settings  # noqa: PLC0415  (heavy: imported once it is known what to do)
    from hasten.cli.run import Request, run  # noqa: PLC0415

    settings = Settings(
        batch=o.whole_numbers_of("--batch", batch),
        shapes=o.shapes_of(shape),
        precision=precision,
        math=math,
        tolerance=tolerance,
        threads=o.whole_numbers_of("--threads", threads),
        engines=tuple(engine or ()),
        trust=trust,
        quick=quick,
        fresh=fresh,
        seed=seed,
    )
    run(Request(model, settings, None, sample, report, page_asked=report is not None, as_json=json))
