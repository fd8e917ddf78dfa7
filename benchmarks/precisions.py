"""The native compiler in each of its precisions, beside its own float32 and the best peers of the same run.

    python -m benchmarks precisions [--model NAME ...] [--seconds 12] [--json FILE]

Models: those of ``peers``; without --model, the wide ones of one row. Each precision is compiled for one thread and for
two, without a search, and all take turns in one process: batch 1, numpy in and out. A ratio above 1 means faster: than
float32 by as many threads, and than the best peer (any engine, one or two threads), round by round with a 95 %
interval. The error is the largest difference from float32 on one thread: of 40 random inputs the median, and the worst.
What a precision would not change is left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contestants import gather
from benchmarks.peers import RESULTS, Subject, flat, keep, subjects
from benchmarks.turns import take_turns
from hasten.errors import HastenError
from hasten.measure.statistics import typical_ratio
from hasten.native.precision import STORED
from hasten.records import Interval

_WIDE = ("mlp256", "mlp784", "go1", "own_dense_wide")
_INPUTS = 40


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--seconds", type=float, default=12.0, help="of timing, per model")
    parser.add_argument("--json", type=Path, default=RESULTS / "precisions.json")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    chosen = subjects(options.model) if options.model else [s for s in subjects([]) if s.name in _WIDE]
    result = {subject.name: _one(subject, options.seconds, options.seed) for subject in chosen}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1))
    print(f"samples: {RESULTS}/samples; figures: {options.json}")


def _one(subject: Subject, seconds: float, seed: int) -> dict[str, Any]:
    peers = gather([f for f in subject.files if f.suffix in (".onnx", ".tflite")], seed, keras=False)
    if not peers.inputs:
        print(f"{subject.name}: no peer reads it, left out")
        return {}
    source = min(subject.files, key=lambda f: (".onnx", ".tflite", ".keras", ".h5").index(f.suffix))
    models = dict(_compiled(source, peers.inputs))
    ours = {label: lambda m=model, x=peers.inputs: m(*x) for label, model in models.items()}
    rounds = take_turns({**peers.calls, **ours}, seconds, seed)
    keep(f"precisions-{subject.name}", rounds)
    best = min(peers.calls, key=lambda label: float(np.median(np.concatenate(rounds[label]))))
    print(f"\n{subject.name}, best peer {best}: {np.median(np.concatenate(rounds[best])) / 1e3:.2f} µs")
    print(f"{'':20s} {'p50 µs':>8s} {'× float32':>20s} {'× best peer':>20s} {'error':>9s} {'worst':>9s}")
    found = {}
    for label, model in models.items():
        float32 = f"float32 {label.split()[1]}"
        errors = _errors(model, models["float32 1t"], peers.inputs)
        row: dict[str, Any] = {
            "p50": float(np.median(np.concatenate(rounds[label]))) / 1e3,
            "of_float32": typical_ratio(rounds[float32], rounds[label]),
            "of_peer": typical_ratio(rounds[best], rounds[label]),
            "error": float(np.median(errors)),
            "worst": float(np.max(errors)),
        }
        ratios = f"{_text(row['of_float32']):>20s} {_text(row['of_peer']):>20s}"
        print(f"{label:20s} {row['p50']:8.2f} {ratios} {row['error']:9.1e} {row['worst']:9.1e}", flush=True)
        found[label] = {k: asdict(v) if isinstance(v, Interval) else v for k, v in row.items()}
    return {"best": best, "rows": found}


def _compiled(source: Path, inputs: tuple[np.ndarray, ...]) -> Iterator[tuple[str, Any]]:
    """(label, model) of float32 and of what differs from it, for one thread and for two."""
    import hasten

    plain: dict[int, Any] = {}
    for precision in ("float32", *STORED):
        for threads in (1, 2):
            try:
                model = hasten.compile(source, engine="native", precision=precision, threads=threads)
            except HastenError as error:
                print(f"{precision} {threads}t left out: {str(error).splitlines()[0]}")
                continue
            if plain.setdefault(threads, model) is model or max(_errors(model, plain[threads], inputs)) > 0:
                yield f"{precision} {threads}t", model


def _errors(model: Any, plain: Any, inputs: tuple[np.ndarray, ...]) -> list[float]:
    found = []
    for seed in range(_INPUTS):
        rng = np.random.default_rng(seed)
        given = [rng.standard_normal(x.shape).astype(x.dtype) if x.dtype.kind == "f" else x for x in inputs]
        pairs = zip(flat(model(*given)), flat(plain(*given)), strict=True)
        found.append(max(float(np.abs(a.astype(np.float64) - b).max(initial=0)) for a, b in pairs))
    return found


def _text(ratio: Interval) -> str:
    return f"{ratio.value:.2f} ({ratio.low:.2f}–{ratio.high:.2f})"
