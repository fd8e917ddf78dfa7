"""A ``Report`` enters; a table in the terminal leaves. Columns give way, least telling first, until it fits."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement as Width
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hasten.records import Trial
from hasten.report import Report
from hasten.report.columns import Column, in_order
from hasten.report.facts import answered, headline, left_out, role, title
from hasten.report.operators import render_operators, rewrites_line

__all__ = ["render"]

# Sign, words and style of what a row is to the reader: never told by colour alone.
_ROLES = {
    "winner": ("★", "chosen", "bold green"),
    "today": ("▸", "your call today", "yellow"),
    "honest": ("▹", "your best own call", "cyan"),
    "": ("", "", ""),
}
_STATUS_STYLES = {"ok": "", "unstable": "yellow", "wrong": "bold red", "failed": "red", "skipped": "dim"}


def render(report: Report, console: Console) -> None:
    """Prints the sentence, the table of what answered, what did not and why, and what to do next."""
    console.print()
    console.print(Text(headline(report), style="bold"))
    console.print(Text(title(report), style="dim"))
    if report.verdict.reason:
        console.print(Text(report.verdict.reason, style="dim"))
    rows = answered(report)
    if rows:
        console.print(_fitting(report, rows, console))
        console.print(Text(_legend(report, rows), style="dim"))
    render_operators(report, console)
    _print_left_out(report, console)
    graph = rewrites_line(report)
    if graph or report.notes:
        console.print()
    if graph:
        console.print(_hanging("graph   ", graph, "dim"))
    for note in report.notes:
        console.print(_hanging("note    ", note, "dim"))
    if report.bundle:
        console.print()
        console.print(Text.assemble("bundle  ", (report.bundle, "bold")), soft_wrap=True)


def _fitting(report: Report, rows: Sequence[Trial], console: Console) -> Table:
    ranked = in_order(report.verdict.objective)
    for most in sorted({rank for rank, _ in ranked}, reverse=True):
        shown = [column for rank, column in ranked if rank <= most]
        table = _table(report, rows, shown, console.width // 2, roomy=len(shown) == len(ranked))
        needed = Width.get(console, console.options.update(width=10_000), table).maximum
        if needed <= console.width:
            break
    return table


def _table(report: Report, rows: Sequence[Trial], columns: Sequence[Column], widest: int, *, roomy: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, header_style="bold")
    table.add_column("", width=1)
    table.add_column("candidate", overflow="fold", min_width=16, max_width=max(16, widest))
    for column in columns:
        table.add_column(column.head, justify="right", no_wrap=True)
    table.add_column("status" if roomy else "", no_wrap=True)
    for trial in rows:
        sign, words, style = _ROLES[role(report, trial.candidate)]
        measurement = trial.measurement
        assert measurement is not None
        cells = [column.text(trial, measurement) for column in columns]
        good = (words or "ok") if roomy else ""  # the sign and the legend say it where there is no room
        status = Text(good if trial.status == "ok" else trial.status, _STATUS_STYLES[trial.status])
        table.add_row(sign, Text(trial.candidate.label), *cells, status, style=style)
    return table


def _legend(report: Report, rows: Sequence[Trial]) -> str:
    words = [f"{sign} {text}" for name, (sign, text, _) in _ROLES.items() if name and _has_role(report, rows, name)]
    batches = {t.candidate.batch for t in rows}
    per = "call" if batches == {1} else "call of the batch named"
    words.append(f"time per {per}, ± 95 % interval; — too few samples or not measured")
    return " · ".join(words)


def _has_role(report: Report, rows: Sequence[Trial], name: str) -> bool:
    return any(role(report, t.candidate) == name for t in rows)


def _print_left_out(report: Report, console: Console) -> None:
    groups = left_out(report)
    if not groups:
        return
    console.print()
    console.print(Text("Not in the race", style="bold"))
    for group in groups:
        names = (
            group.labels[0] if len(group.labels) == 1 else f"{group.labels[0]} and {len(group.labels) - 1} more like it"
        )
        console.print(_hanging(f"{group.status:8}", f"{names}: {group.reason}", _STATUS_STYLES[group.status]))


def _hanging(word: str, text: str, style: str) -> Padding:
    """A word, and lines that align after it however narrow the terminal is."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(word, style=style), Text(text))
    return Padding(grid, (0, 0, 0, 2))
