"""A finished comparison enters; a table for the terminal, or the one in the docs, leaves."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["show", "write_docs"]

_BUSY_PERCENT = 10.0
_FROM, _TO = "<!-- peers: written by `python -m benchmarks peers --docs` -->", "<!-- /peers -->"
# Columns of context: what they are called there, and the contestants that they hold.
_PEERS = {
    "ONNX Runtime 1 / 2 threads": ("onnxruntime 1t", "onnxruntime 2t"),
    "OpenVINO 1 / 2": ("openvino 1t", "openvino 2t"),
    "LiteRT 1 / 2": ("litert 1t", "litert 2t"),
    "`keras.predict`": ("keras predict",),
    "XLA": ("tf.function XLA",),
}


def show(result: dict[str, Any]) -> None:
    """A table a model, then one of all."""
    console = Console() if sys.stdout.isatty() else Console(width=120)
    for model in result["models"]:
        if "rows" in model:
            console.print(_one(model))
            for what, why in model["left_out"].items():
                console.print(f"  left out: {what}: {why}", style="dim", markup=False)
            if model["load"]["cpu_percent"] > _BUSY_PERCENT:
                console.print(f"  others used {model['load']['cpu_percent']:.0f} % of the machine", style="yellow")
    table = Table(title="best peer / hasten, above 1: hasten is faster")
    for title in ("model", "hasten", "best peer", "p50", "95 %", "p99", "95 %", "max abs error"):
        table.add_column(title, justify="left" if title in ("model", "hasten", "best peer") else "right", no_wrap=True)
    for model in _compared(result):
        p50, p99 = model["ratio_p50"], model["ratio_p99"]
        table.add_row(
            model["name"], model["chosen"][model["hasten"]], model["best"], _times(p50), _span(p50), _times(p99),
            _span(p99), _error(model),
        )  # fmt: skip
    console.print(table)
    if _compared(result):
        console.print(
            f"geometric mean {_mean(result, 'ratio_p50'):.2f}x at p50, {_mean(result, 'ratio_p99'):.2f}x at p99"
        )


def _one(model: dict[str, Any]) -> Table:
    table = Table(title=f"{model['name']}, input {' '.join(model['inputs'])}, µs")
    for title in ("", "calls", "p50", "p90", "p99", "p99.9", "max"):
        table.add_column(title, justify="right" if title else "left")
    for label, row in sorted(model["rows"].items(), key=lambda item: item[1]["p50"]):
        name = f"{label}: {model['chosen'][label]}" if label in model["chosen"] else label
        table.add_row(name, str(row["n"]), *(_us(row[k]) for k in ("p50", "p90", "p99", "p99.9", "max")))
    return table


def write_docs(result: dict[str, Any], page: Path) -> None:
    """Puts the table between the page's marks."""
    text = page.read_text(encoding="utf-8")
    head, _, rest = text.partition(_FROM)
    _, mark, tail = rest.partition(_TO)
    if not mark:
        raise SystemExit(f"{page}: expected the marks {_FROM} and {_TO}, found none")
    page.write_text(f"{head}{_FROM}\n{_markdown(result)}\n{_TO}{tail}", encoding="utf-8")


def _markdown(result: dict[str, Any]) -> str:
    c = result["conditions"]
    names = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "ai-edge-litert": "LiteRT", "keras": "Keras",
             "tensorflow": "TensorFlow"}  # fmt: skip
    versions = ", ".join(f"{shown} {c['versions'][key]}" for key, shown in names.items() if key in c["versions"])
    lines = [
        "Microseconds per call, batch 1, numpy in and numpy out, all engines of a row in one run in interleaved "
        f"blocks. {c['cpu']}, {c['cores']} logical cores, {c['system']}, Python {c['python']}; {versions}. Measured "
        f"{c['time']}, {c['seconds']:g} s a model, bundles made by `hasten {c['made_by']}`; others used "
        f"{c['cpu_percent']:.0f} % of the machine at the start. The ratio is the best peer over hasten (above 1: "
        "hasten is faster), with its 95 % interval.",
        "",
        "| model | input | hasten p50 | p99 | chosen | best peer p50 | ratio at p50 | ratio at p99 | "
        + " | ".join(_PEERS) + " |",
        "|---|---|--:|--:|---|--:|--:|--:|" + "--:|" * len(_PEERS),
    ]  # fmt: skip
    for m in _compared(result):
        rows, ours = m["rows"], m["rows"][m["hasten"]]
        peers = [" / ".join(_us(rows.get(k, {}).get("p50")) for k in labels) for labels in _PEERS.values()]
        peers = ["–" if set(p) <= {"–", " ", "/"} else p for p in peers]
        cells = [
            m["name"], " ".join(m["inputs"]), f"**{_us(ours['p50'])}**", _us(ours["p99"]), m["chosen"][m["hasten"]],
            f"{_us(rows[m['best']]['p50'])} ({m['best']})", _cell(m["ratio_p50"]), _cell(m["ratio_p99"]), *peers,
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    mean50, mean99 = (_mean(result, key) for key in ("ratio_p50", "ratio_p99"))
    lines += ["", f"Geometric mean of the ratios: {mean50:.2f}× at p50, {mean99:.2f}× at p99."]
    return "\n".join(lines)


def _compared(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [m for m in result["models"] if m.get("ratio_p50")]


def _mean(result: dict[str, Any], key: str) -> float:
    values = [m[key]["value"] for m in _compared(result) if m[key]]
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def _span(ratio: dict[str, float] | None) -> str:
    return "–" if ratio is None else f"{ratio['low']:.2f}–{ratio['high']:.2f}"


def _times(ratio: dict[str, float] | None) -> str:
    return "–" if ratio is None else f"{ratio['value']:.2f}×"


def _cell(ratio: dict[str, float] | None) -> str:
    return "–" if ratio is None else f"{_times(ratio)} ({_span(ratio)})"


def _error(model: dict[str, Any]) -> str:
    found = model["max_abs_error"].get(model["best"])
    return "shapes differ" if found is None else f"{found:.1e}"


def _us(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"
