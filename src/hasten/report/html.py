"""A ``Report`` enters; one HTML file leaves that opens anywhere, without a network, years from now.

Everything is inside: styles, the plotting library, the numbers. A content security policy allows exactly our two
scripts and no request at all. Text is escaped by jinja2, data by its JSON filter.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hasten.errors import MissingLibraryError
from hasten.records import Candidate, Trial, to_json
from hasten.report import Report
from hasten.report.columns import COLUMNS
from hasten.report.curves import ecdf, over_time
from hasten.report.facts import answered, gain, headline, left_out, only_call, p50_text, role
from hasten.report.jsonreport import finite
from hasten.report.operators import saved_text, whole_limit
from hasten.report.units import ABSENT, error_text, ratio_text, share_text, time_text

__all__ = ["page", "write"]

_ROOM = Path(__file__).parent
_OPS_DRAWN = 24


def write(report: Report, path: Path) -> None:
    """The page at ``path``, written whole or not at all.

    Raises:  MissingLibraryError: jinja2 is not installed
    """
    text = page(report)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def page(report: Report) -> str:
    """The page as text.

    Raises:  MissingLibraryError: jinja2 is not installed
    """
    try:
        import jinja2  # noqa: PLC0415  (an optional library)
    except ImportError as error:
        raise MissingLibraryError(
            "cannot write the HTML report: expected jinja2, which is not installed; install hasten[report]"
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_ROOM), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"ns": time_text, "share": share_text, "count": _count, "saved": saved_text}
    return environment.get_template("page.html").render(_context(report))


def _context(report: Report) -> dict[str, Any]:
    scripts = [(_ROOM / name).read_text(encoding="utf-8") for name in ("plot.min.js", "page.js")]
    rows = answered(report)
    busy = {r.name for r in report.rewrites if r.changes}
    return {
        "report": report,
        "headline": headline(report),
        "tiles": _tiles(report),
        "columns": COLUMNS,
        "rows": [_row(report, trial) for trial in rows],
        "batches": {t.candidate.batch for t in rows},
        "sampled": any(len(report.samples.get(t.candidate.key, ())) for t in rows),
        "left_out": left_out(report),
        "logs": [
            (t.candidate.label, report.logs[t.candidate.key]) for t in report.trials if t.candidate.key in report.logs
        ],
        "limit": whole_limit(report),
        "minimal": any("winograd" in op.kernel for op in report.op_times),
        "rewrites": [r for r in report.rewrites if r.changes],
        "idle_passes": list(dict.fromkeys(r.name for r in report.rewrites if not r.changes and r.name not in busy)),
        "operators": _operators(report),
        "facts": [
            (name, _facts(value)) for name, value in (("Machine", report.host), ("Settings", report.settings)) if value
        ],
        "data": finite(_data(report, rows)),
        "style": (_ROOM / "page.css").read_text(encoding="utf-8"),
        "scripts": scripts,
        "hashes": [_hash(script) for script in scripts],
    }


def _count(number: float | None) -> str:
    if number is None:
        return ABSENT
    return f"{number:,}" if isinstance(number, int) else f"{number:,.1f}"


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _tiles(report: Report) -> list[tuple[str, str, list[str]]]:
    """(big text, what it is, lines of small print) for the top of the page."""
    verdict = report.verdict
    trial = next((t for t in report.trials if t.candidate == verdict.winner), None)
    tiles: list[tuple[str, str, list[str]]] = []
    if trial is not None and trial.measurement is not None:
        m = trial.measurement
        tail = f"p99 {time_text(m.p99_ns.value)}" if m.p99_ns else f"max {time_text(m.max_ns)}"
        tiles.append((time_text(m.p50_ns.value), "per call, p50", [tail, trial.candidate.label]))
    names: dict[Candidate | None, list[str]] = {}
    for baseline, name in ((verdict.today, "your call today"), (verdict.honest, "your best own call")):
        names.setdefault(baseline, []).append(name)
    for baseline, called in names.items():
        name = f"{called[0]}, the only one timed" if only_call(report) else ", ".join(called)
        ratio = gain(report, baseline)
        if ratio is not None and baseline is not None:
            interval = f"{ratio.confidence:.0%} interval {ratio_text(ratio.low)} – {ratio_text(ratio.high)}"
            tiles.append(
                (
                    ratio_text(ratio.value),
                    f"faster than {name}" if ratio.value >= 1 else f"of the speed of {name}",
                    [baseline.label, interval],
                )
            )
    if trial is not None and trial.comparison is not None:
        bounds = ", ".join(f"{name[:3]}. ≤ {error_text(value)}" for name, value in report.tolerance.items())
        words = [f"{trial.comparison.checked} inputs checked", *([bounds] if bounds else [])]
        tiles.append((error_text(trial.comparison.max_abs_error), "largest error", words))
    return tiles


def _row(report: Report, trial: Trial) -> dict[str, Any]:
    m = trial.measurement
    assert m is not None
    cells = [(column.text(trial, m), finite(column.value(trial, m))) for column in COLUMNS]
    return {
        "label": trial.candidate.label,
        "role": role(report, trial.candidate),
        "status": trial.status,
        "cells": cells,
    }


def _operators(report: Report) -> list[dict[str, Any]]:
    """Each operator's count before and after, the most changed first, with bar lengths in percent (root scale)."""
    before, after = report.ops_before, report.ops_after
    names = sorted({*before, *after}, key=lambda n: (-abs(before.get(n, 0) - after.get(n, 0)), n))
    largest = max([*before.values(), *after.values(), 1])

    def width(count: int) -> float:
        return round(100 * math.sqrt(count / largest), 1)

    return [
        {
            "name": name,
            "before": before.get(name, 0),
            "after": after.get(name, 0),
            "before_width": width(before.get(name, 0)),
            "after_width": width(after.get(name, 0)),
        }
        for name in names
    ]


def _facts(value: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """Nested mappings as rows ``outer · inner``; lists with commas; bytes as KiB, MiB, GiB; nothing as a dash."""
    rows: list[tuple[str, str]] = []
    for name, item in value.items():
        if isinstance(item, Mapping):
            rows += _facts(item, f"{prefix}{name} · ")
        elif isinstance(item, Sequence) and not isinstance(item, str):
            rows.append((f"{prefix}{name}", ", ".join(map(str, item)) or "—"))
        elif isinstance(item, int) and (str(name).endswith("_bytes") or prefix.startswith("caches")):
            rows.append((f"{prefix}{name}".removesuffix("_bytes"), _binary(item)))
        else:
            rows.append((f"{prefix}{name}", ABSENT if item is None else str(item)))
    return rows


def _binary(size: int) -> str:
    """Caches and memory in the units that they are sold in."""
    power = max(p for p in range(4) if p == 0 or size >= 1024**p)
    return f"{size / 1024**power:.4g} {('B', 'KiB', 'MiB', 'GiB')[power]}"


def _data(report: Report, rows: Sequence[Trial]) -> dict[str, Any]:
    """What the plots draw."""
    return {
        "candidates": [_drawn(report, trial) for trial in rows],
        "errors": [
            {
                "label": t.candidate.label,
                "engine": t.candidate.engine,
                "status": t.status,
                "role": role(report, t.candidate),
                "absolute": t.comparison.max_abs_error,
                "relative": t.comparison.max_rel_error,
                "texts": [error_text(t.comparison.max_abs_error), error_text(t.comparison.max_rel_error)],
            }
            for t in [*rows, *(t for t in report.trials if t.measurement is None)]
            if t.comparison is not None
        ],
        "tolerance": dict(report.tolerance),
        "ops": _ops(report),
        "peaks": to_json(report.peaks),
    }


def _drawn(report: Report, trial: Trial) -> dict[str, Any]:
    m = trial.measurement
    assert m is not None
    samples = np.asarray(report.samples.get(trial.candidate.key, ()), dtype=np.float64)
    drift = f"drift {share_text(m.drift)}"
    period = f", every {time_text(m.spike_period_ns)}" if m.spike_period_ns else ""
    spikes = f"spikes {share_text(m.spike_share)}{period}" if m.spike_share else "no spikes"
    return {
        "key": trial.candidate.key,
        "label": trial.candidate.label,
        "engine": trial.candidate.engine,
        "role": role(report, trial.candidate),
        "status": trial.status,
        "p50": m.p50_ns.value,
        "p90": m.p90_ns,
        "p99": m.p99_ns.value if m.p99_ns else None,
        "p999": m.p999_ns,
        "max": m.max_ns,
        "texts": {
            "interval": p50_text(m.p50_ns),
            "p50": time_text(m.p50_ns.value),
            "p90": time_text(m.p90_ns),
            "p99": time_text(m.p99_ns.value if m.p99_ns else None),
            "p999": time_text(m.p999_ns),
            "max": time_text(m.max_ns),
        },
        "count": len(samples),
        "ecdf": ecdf(samples),
        "band": to_json(over_time(samples)),
        "remark": f"{drift} · {spikes}",
    }


def _ops(report: Report) -> list[dict[str, Any]]:
    """Operators, slowest first; those beyond what a plot can hold as one."""
    ops = sorted(report.op_times, key=lambda op: -op.time_ns)
    drawn = [to_json(op) for op in ops[:_OPS_DRAWN]]
    rest = ops[_OPS_DRAWN:]
    if rest:
        time_ns, share = sum(op.time_ns for op in rest), sum(op.share for op in rest)
        drawn.append({"name": f"{len(rest)} more", "op": "", "time_ns": time_ns, "share": share, "kernel": ""})
    return drawn
