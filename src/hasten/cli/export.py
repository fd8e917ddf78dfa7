"""``hasten export``: a bundle or model enters; a C library for another machine leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hasten.cli import options as o

__all__ = ["export"]


def export(
    model: Annotated[Path, typer.Argument(help="A .hasten file, or a model file.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder of the library: new, or made by export before.")
    ],
    target: Annotated[
        str, typer.Option(help="aarch64-linux-gnu, x86_64-linux-gnu, …-musl, or [bold]c[/]: C for any processor.")
    ] = "c",
    isa: Annotated[
        str | None,
        typer.Option(
            help="Instruction set: x86-64-v2 … x86-64-v4, zen4, aarch64, aarch64-dotprod, c-vector, c (no vectors)."
        ),
    ] = None,
    batch: o.OneBatch = 1,
    shapes: o.Shapes = None,
    math: o.Math = "default",
    trust: o.Trust = False,
    json: o.AsJson = False,
) -> None:
    """Write MODEL as a C library: header, sources, static and shared library, example, self-test, CMakeLists."""
    from hasten.api.exporting import export as export_model  # noqa: PLC0415  (numpy, onnx: not for --help)
    from hasten.api.settings import Settings  # noqa: PLC0415
    from hasten.cli.progress import working  # noqa: PLC0415

    settings = Settings(batch=(batch,), shapes=o.shapes_of(shapes), math=math, trust=trust)
    with working("reading, compiling and testing the library"):
        files = export_model(model, output, target=target, instruction_set=isa, settings=settings)
    if json:
        import json as json_module  # noqa: PLC0415  (the option has taken its name)

        print(json_module.dumps({"folder": str(output), "target": target, "files": [f.name for f in files]}))
        return
    for file in files:
        print(f"{output / file.name}")
