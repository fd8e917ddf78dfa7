"""``hasten explain``: where the time of a model goes, and how far that is from the machine's limit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hasten.cli import options as o

if TYPE_CHECKING:
    from rich.console import Console

    from hasten.api.explaining import Explanation, Shipped

__all__ = ["explain"]

_TOLD = 0.1  # of a middling step: stamps that cost less are not worth a line
_ROOMY = 110  # columns of a terminal that have room for the counts behind the rates


def explain(
    model: Annotated[Path, typer.Argument(help="A .hasten file, or a model file.")],
    batch: o.OneBatch = 1,
    shapes: o.Shapes = None,
    math: o.Math = "default",
    trust: o.Trust = False,
    code: Annotated[bool, typer.Option("--code", help="Print the emitted C instead.")] = False,
    json: o.AsJson = False,
) -> None:
    """Show the compiled program of MODEL step by step: time, arithmetic, bytes, and the machine's limit.

    Of a bundle that runs on another engine, the time of that engine's operators comes first.
    """
    from hasten.api.explaining import explain as explain_model  # noqa: PLC0415  (numpy, onnx: not for --help)
    from hasten.api.explaining import shipped  # noqa: PLC0415
    from hasten.api.settings import Settings  # noqa: PLC0415
    from hasten.cli.progress import working  # noqa: PLC0415
    from hasten.errors import HastenError  # noqa: PLC0415

    settings = Settings(batch=(batch,), shapes=o.shapes_of(shapes), math=math, trust=trust)
    other = None
    if not code:
        with working("timing the operators of its engine"):
            other = shipped(model, settings=settings)
    if other is not None and not json:
        _show_shipped(other)
    found, failed = None, ""
    try:
        with working("compiling and timing its steps"):
            found = explain_model(model, settings=settings)
    except HastenError as error:
        if other is None or not other.times:
            raise
        failed = str(error)
    if json:
        _print_json(found, failed, other)
    elif found is None:
        print(f"none: {failed}")
    elif code:
        print(found.profile.source)
    else:
        _show(found)


def _print_json(found: Explanation | None, failed: str, other: Shipped | None) -> None:
    import json  # noqa: PLC0415  (not for --help)

    from hasten.records import to_json  # noqa: PLC0415
    from hasten.report.jsonreport import finite  # noqa: PLC0415

    print(json.dumps(finite({**(to_json(found) or {"error": failed}), "shipped": to_json(other)}), indent=1))


def _show_shipped(found: Shipped) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from hasten.report.units import time_text  # noqa: PLC0415

    console = Console()
    if found.times:
        console.print(f"The bundle runs on {found.candidate}; its operators, under that engine's profiler:\n")
        table = Table(box=None, header_style="bold", pad_edge=False)
        for name, justify in (("operator", "left"), ("type", "left"), ("time", "right"), ("share", "right")):
            table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
        for op in found.times:
            table.add_row(Text(op.name), Text(op.op), time_text(op.time_ns), f"{op.share:.0%}")
        console.print(table)
    else:
        console.print(Text(f"The bundle runs on {found.candidate}; {found.note}"))
    console.print("\nThe same model compiled to native code:\n")


def _show(found: Explanation) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from hasten.report.units import bytes_text, time_text  # noqa: PLC0415

    timed, peaks = found.profile, found.peaks
    console = Console()
    if found.candidate:
        console.print(Text(f"The program that the bundle runs: {found.candidate}.\n"))
    if found.note:
        console.print(Text(f"{found.note}\n"))
    _show_steps(console, found)
    rates = ", ".join(f"{name} {rate:.0f} GB/s" for name, rate in peaks.bandwidth.items())
    team = "" if found.threads == 1 else f" instead of its {found.threads}"
    console.print(
        f"\nOne call takes {time_text(timed.call_ns)} ({found.instruction_set}, one thread{team}, without Python); "
        f"this machine's limit for these steps is {time_text(timed.limit_ns or 0)}: "
        f"{min(1.0, (timed.limit_ns or 0) / (timed.call_ns or 1)):.0%} of it is reached."
    )
    unknown = not all(map(timed.has_rates, timed.steps))
    if unknown or timed.stamp_ns > _TOLD * timed.call_ns / max(1, len(timed.steps)):
        console.print(
            f"A time stamp costs about {time_text(timed.stamp_ns)}, which is taken off each step; the call was timed "
            f"without any inside it.{' Steps of less than half a stamp have no rates.' if unknown else ''}"
        )
    whole = f", of integers {peaks.int8_gmac_per_s:.0f}" if any(s.is_integer and s.macs for s in timed.steps) else ""
    console.print(f"Limits: {peaks.gmac_per_s:.0f} GMAC/s{whole}, {rates} ({peaks.method}).")
    console.print(f"Weights {bytes_text(timed.weight_bytes)}, working memory {bytes_text(timed.arena_bytes)}.")
    _show_makeup(console, found)
    _show_rewrites(console, found)


def _show_steps(console: Console, found: Explanation) -> None:
    from rich.table import Table  # noqa: PLC0415

    from hasten.report.units import bytes_text, time_text  # noqa: PLC0415

    steps = found.profile.steps
    roomy = console.width >= _ROOMY
    table = Table(box=None, header_style="bold", pad_edge=False)
    counted = ("MACs", "bytes") if roomy else ()
    for name in ("step", "what", "time", "share", "limit", *counted, "GMAC/s", "GB/s"):
        table.add_column(name, justify="left" if name in ("step", "what") else "right", overflow="fold")
    total = sum(s.time_ns for s in steps) or 1.0
    for step in steps:
        known = found.profile.has_rates(step)
        table.add_row(
            step.function, step.title, time_text(step.time_ns), f"{step.time_ns / total:.0%}",
            "" if step.limit_ns is None else time_text(step.limit_ns),
            *([f"{step.macs:,}" if step.macs else "", bytes_text(step.bytes)] if roomy else []),
            f"{step.macs / step.time_ns:.1f}" if step.macs and known else "",
            f"{step.bytes / step.time_ns:.1f}" if known else "",
        )  # fmt: skip
    console.print(table)


def _show_makeup(console: Console, found: Explanation) -> None:
    """Which nodes of the graph each step computes, and how it was chosen to."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from hasten.report.operators import shortened  # noqa: PLC0415

    steps = found.profile.steps
    console.print(Text("\nHow each step computes, and the nodes that were fused into it", style="bold"))
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("step", "how (* timed)", "nodes"):
        table.add_column(name, overflow="fold")
    names = shortened([", ".join(dict.fromkeys(s.nodes)) for s in steps])
    for step, nodes in zip(steps, names, strict=True):
        table.add_row(step.function, Text(f"{step.way} *" if step.timed else step.way), Text(nodes))
    console.print(table)
    if chosen := sum(bool(step.way) for step in steps):
        by_time = sum(step.timed for step in steps)
        others = ", the others by a model of it" if by_time < chosen else ""
        console.print(f"How: {by_time} of {chosen} choices by timing on this machine{others}.")


def _show_rewrites(console: Console, found: Explanation) -> None:
    """What every pass that changed the graph took away from it."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from hasten.report.operators import saved_text  # noqa: PLC0415

    since = "" if found.rewritten_since == "source" else " since the bundle's portable graph"
    if not found.rewrites:
        console.print(Text(f"\nNo rewrite changed the graph{since}."))
        return
    console.print(Text(f"\nWhat the rewrites of the graph saved{since}", style="bold"))
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, justify in (("rewrite", "left"), ("places", "right"), ("nodes", "right"), ("a call takes", "left")):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for made in found.rewrites:
        told = "; ".join(filter(None, (saved_text(made), made.detail)))
        nodes = f"{made.nodes_before:,} → {made.nodes_after:,}"
        table.add_row(Text(made.name), f"{made.changes:,}", nodes, Text(told))
    console.print(table)
