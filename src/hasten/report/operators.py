"""The terminal's view of the graph: what the rewrites left of it, and where the winner's time goes."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hasten.report import OpTime, Report, RewriteFacts
from hasten.report.units import ABSENT, bytes_text, share_text, time_text

__all__ = ["render_operators", "rewrites_line", "saved_text", "shortened", "whole_limit"]

_SHOWN = 16
_WIDEST = 31  # letters of a name: with a semicolon, what the column of a table 80 wide has room for


def rewrites_line(report: Report) -> str:
    """Nodes before and after, and the passes that made the difference; empty where nothing was rewritten."""
    before, after = sum(report.ops_before.values()), sum(report.ops_after.values())
    made: dict[str, int] = {}
    for rewrite in report.rewrites:
        if rewrite.changes:
            made[rewrite.name] = made.get(rewrite.name, 0) + rewrite.changes
    if not before or not made:
        return ""
    passes = ", ".join(name if count == 1 else f"{name} ×{count:,}" for name, count in made.items())
    return f"{before:,} → {after:,} nodes: {passes}"


def saved_text(rewrite: RewriteFacts) -> str:
    """What a call takes less since a rewrite (``+``: more), besides nodes; empty where that did not change."""
    found = []
    if rewrite.macs_saved:
        found.append(f"{_sign(rewrite.macs_saved)}{abs(rewrite.macs_saved):,} MACs")
    for nbytes, what in ((rewrite.weight_bytes_saved, "of weights"), (rewrite.written_bytes_saved, "written")):
        if nbytes:
            found.append(f"{_sign(nbytes)}{bytes_text(abs(nbytes))} {what}")
    return ", ".join(found)


def _sign(saved: int) -> str:
    return "−" if saved > 0 else "+"


def whole_limit(report: Report) -> float | None:
    """How near the operators together come to the machine's limit, 0 to 1; None where a limit is unknown.

    The limit is measured as well: what lies above it by the noise of either is at it.
    """
    limits = [op.limit_ns for op in report.op_times]
    spent = sum(op.time_ns for op in report.op_times)
    if not spent or any(limit is None for limit in limits):
        return None
    return min(1.0, sum(limit for limit in limits if limit is not None) / spent)


def render_operators(report: Report, console: Console, most: int = _SHOWN) -> None:
    """Prints the slowest operators, their rates beside the machine's peaks; nothing where none were timed."""
    if not report.op_times:
        return
    ops = sorted(report.op_times, key=lambda op: -op.time_ns)
    console.print()
    of = "" if report.op_times_of is None else f" in {report.op_times_of.label}"
    console.print(Text(f"Where the time goes{of}", style="bold"))
    console.print(_table(ops[:most], roomy=console.width >= 110))
    rest = ops[most:]
    if rest:
        share = share_text(sum(op.share for op in rest))
        console.print(Text(f"and {len(rest)} more: {time_text(sum(op.time_ns for op in rest))}, {share}", style="dim"))
    limit = whole_limit(report)
    if limit is not None:
        console.print(Text(f"all operators together reach {share_text(limit)} of what this machine could do"))
    if report.peaks:
        levels = ", ".join(f"{level} {gb:,.0f} GB/s" for level, gb in report.peaks.gb_per_s.items())
        whole = report.peaks.int8_gmac_per_s
        rates = f"{report.peaks.gmac_per_s:,.0f} GMAC/s" + (f", {whole:,.0f} of integers" if whole else "")
        peaks = f"this machine, one core: {rates}" + (f"; {levels}" if levels else "")
        console.print(Text(peaks, style="dim"))


def _table(ops: Sequence[OpTime], *, roomy: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, header_style="bold")
    table.add_column("operator", overflow="fold", max_width=36)
    table.add_column("type", overflow="fold", max_width=18)
    for head in ("time", "share", "of limit", "GMAC/s", "GB/s"):
        table.add_column(head, justify="right", no_wrap=True)
    if roomy:
        table.add_column("kernel", overflow="fold")
    for op, name in zip(ops, shortened([op.name for op in ops]), strict=True):
        rates = [ABSENT if rate is None else f"{rate:,.1f}" for rate in (op.gmacs_per_s, op.gb_per_s)]
        reached = share_text(min(1.0, op.limit_ns / op.time_ns) if op.limit_ns is not None and op.time_ns else None)
        kernel = [Text(op.kernel)] if roomy else []
        table.add_row(Text(name), Text(op.op), time_text(op.time_ns), share_text(op.share), reached, *rates, *kernel)
    return table


def shortened(names: Sequence[str]) -> list[str]:
    """Node names, several with commas between, as a table has room for them.

    Left out are the folders that all paths have in common, the model's own often, and those that the name before had;
    TensorFlow Lite joins the names of what it fused by semicolons. The middle of what is still long is left out too.

    Example:
        >>> shortened(["net/a/Conv, net/a/Relu", "net/b/Relu6;net/b/Conv"])
        ['a/Conv, Relu', 'b/Relu6; Conv']
    """
    split = [[joined.split(";") for joined in name.split(", ")] for name in names]
    paths = [part.split("/")[:-1] for name in split for joined in name for part in joined if "/" in part]
    same = [len(set(parts)) == 1 for parts in zip(*paths)]  # noqa: B905  (the shortest decides)
    common = [*same, False].index(False) if len(paths) > 1 else 0
    return [_brief(name, common) for name in split]


def _brief(name: Sequence[Sequence[str]], common: int) -> str:
    """Names that follow one another in a folder, the first alone with it, and without its ``common`` beginning."""
    last: list[str] = []
    made = []
    for joined in name:
        told = []
        for part in joined:
            *folders, leaf = part.split("/")
            known = len(folders) if folders == last else min(common, len(folders))
            told.append(_middle_out("/".join([*folders[known:], leaf])))
            last = folders
        made.append("; ".join(told))
    return ", ".join(made)


def _middle_out(name: str) -> str:
    """Its beginning and end, where it is longer than a table's column."""
    kept = (_WIDEST - 1) // 2
    return name if len(name) <= _WIDEST else f"{name[:kept]}…{name[-kept:]}"
