"""hasten beside the engines that its users would pick instead: every model, one run, raw samples kept.

    python -m benchmarks peers [--model NAME ...] [--seconds 12] [--quick | --compile] [--json FILE]
    python -m benchmarks peers --docs [--json FILE]      the table of docs/benchmarks.md, from a finished run

Models: those of ../shared/models where that folder is, and our own (benchmarks/models.py). ``hasten.optimize`` makes
each bundle and chooses as it would for a user; ``--compile`` takes the native compiler at one and two threads without
a search. Then a process of its own times hasten and every peer in interleaved blocks: batch 1, numpy in and out, an
empty call's cost taken off. A ratio above 1 means that hasten is faster than the best peer of the same run, any engine
at one or two threads; at p99 the best peer is the one with the lowest p99. Intervals draw whole rounds. Raw samples are
kept in benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.models import FAMILIES
from benchmarks.peers_table import show, write_docs
from benchmarks.turns import Samples, take_turns

ROOT = Path(__file__).parent
RESULTS = ROOT / "results"
SHARED = ROOT.parent / ".." / "shared" / "models"
# What a bundle is made from, where several files of one model are there: what its user has, then exact importers.
_PREFERRED = (".keras", ".onnx", ".tflite", ".h5")
_BUSY_PERCENT = 10.0


@dataclass(frozen=True)
class Subject:
    """One model: its name and the files that hold it."""

    name: str
    files: tuple[Path, ...]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="*", default=[], metavar="NAME", help="these only; default: all")
    parser.add_argument("--seconds", type=float, default=12.0, help="of timing, per model")
    parser.add_argument("--json", type=Path, default=RESULTS / "peers.json")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="optimize with a smaller search")
    parser.add_argument("--compile", action="store_true", help="the native compiler at 1 and 2 threads, no search")
    parser.add_argument("--reuse", action="store_true", help="take the bundles of the last run")
    parser.add_argument("--no-keras", action="store_true", help="leave the Keras call paths out")
    parser.add_argument("--docs", action="store_true", help="write the table of the docs from --json, time nothing")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one is not None:
        print(json.dumps(_timed(options)))
    elif options.docs:
        write_docs(json.loads(options.json.read_text()), ROOT.parent / "docs" / "benchmarks.md")
    else:
        _run(options)


def _run(options: argparse.Namespace) -> None:
    chosen = subjects(options.model)
    result: dict[str, Any] = {"conditions": _conditions(options), "models": []}
    for subject in chosen:
        print(f"{subject.name}: ", end="", flush=True)
        try:
            found = _one(subject, options)
        except subprocess.CalledProcessError as error:
            result["models"].append({"name": subject.name, "failed": (error.stderr or "").strip()[-300:]})
            print("failed:", (error.stderr or "").strip().splitlines()[-1:])
            continue
        result["models"].append(found)
        # After every model, so that an interrupted run leaves what it has.
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1))
    show(result)
    print(f"samples: {RESULTS}/samples; figures: {options.json}")


def subjects(wanted: list[str]) -> list[Subject]:
    """Every model that is there, or those named."""
    found: dict[str, list[Path]] = {}
    for folder in ("seeds", "real"):
        for path in sorted((SHARED / folder).glob("*")):
            if path.suffix in _PREFERRED:
                found.setdefault(path.stem.removesuffix("_fp32"), []).append(path)
    names = [*found, *FAMILIES]
    unknown = sorted(set(wanted) - set(names))
    if unknown:
        raise SystemExit(f"no model called {', '.join(unknown)}: expected some of {', '.join(names)}")
    chosen = [name for name in names if not wanted or name in wanted]
    return [Subject(name, tuple(found.get(name) or _own(name))) for name in chosen]


def _own(name: str) -> list[Path]:
    """The files of one of our own models, made where they are not there yet."""
    folder = RESULTS / "models"
    if not (folder / f"{name}.keras").exists():
        print(f"making {name}", flush=True)
        _python("-m", "benchmarks.models", name, str(folder))
    return sorted(p for p in folder.glob(f"{name}.*") if p.suffix in _PREFERRED)


def _one(subject: Subject, options: argparse.Namespace) -> dict[str, Any]:
    """Bundles made, then timed in a fresh process, so that one model's thread pools do not disturb the next."""
    bundles = _bundles(subject, options)
    given = {
        "name": subject.name,
        "files": [str(f) for f in subject.files],
        "bundles": {k: str(v) for k, v in bundles.items()},
    }
    command = ["-m", "benchmarks", "peers", f"--one={json.dumps(given)}", f"--seconds={options.seconds}"]
    printed = _python(*command, f"--seed={options.seed}", *(["--no-keras"] if options.no_keras else []))
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    ratio = found.get("ratio_p50")
    print(f"{ratio['value']:.2f}x over {found['best']}" if ratio else "no peer and no bundle to compare", flush=True)
    return found


def _python(*arguments: str) -> str:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "ORT_LOGGING_LEVEL": "3"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT.parent, env=environment)
    return done.stdout


def _bundles(subject: Subject, options: argparse.Namespace) -> dict[str, Path]:
    """Contestant → bundle; what hasten cannot read is told and left out."""
    folder = RESULTS / "bundles"
    folder.mkdir(parents=True, exist_ok=True)
    labels = {"hasten 1t": 1, "hasten 2t": 2} if options.compile else {"hasten": 0}
    found = {}
    for label, threads in labels.items():
        path = folder / f"{subject.name}{threads or ''}.hasten"
        if not (options.reuse and path.exists()):
            source = min(subject.files, key=lambda p: _PREFERRED.index(p.suffix))
            path.unlink(missing_ok=True)
            try:
                _python("-c", _MAKE, str(source), str(path), str(threads), "quick" if options.quick else "")
            except subprocess.CalledProcessError as error:
                print(f"{label}: {(error.stderr or '').strip().splitlines()[-1:]}; ", end="", flush=True)
                continue
        found[label] = path
    return found


# A process of its own: what building imports must not be there when calls are timed.
_MAKE = """
import sys, hasten
source, path, threads, quick = sys.argv[1:]
if threads == "0":
    hasten.optimize(source, output=path, settings=hasten.Settings(quick=quick == "quick"))
else:
    hasten.compile(source, engine="native", threads=int(threads)).save(path)
"""


# ---- inside the process that times ----------------------------------------------------------------------------------


def _timed(options: argparse.Namespace) -> dict[str, Any]:
    from benchmarks.contestants import gather

    given = options.one
    found = gather([Path(f) for f in given["files"]], options.seed, keras=not options.no_keras)
    chosen = {}
    for label, path in given["bundles"].items():
        found.calls[label], chosen[label] = _hasten(Path(path), found.inputs)
    answers = {label: flat(call()) for label, call in found.calls.items()}
    load = _load()
    rounds = take_turns(found.calls, options.seconds, options.seed)
    keep(given["name"], rounds)
    return {
        "name": given["name"],
        "inputs": ["x".join(map(str, a.shape)) for a in found.inputs],
        "chosen": chosen,
        "rows": {label: _row(np.concatenate(samples)) for label, samples in rounds.items()},
        "left_out": found.left_out,
        "load": load,
        **_compared(rounds, answers),
    }


def _hasten(path: Path, inputs: tuple[np.ndarray, ...]) -> tuple[Any, str]:
    """The call, and the name of what the bundle holds."""
    import hasten
    from hasten.bundle import read

    model = hasten.load(path, trust=True)
    label = read(path).entries[0].artefact.candidate.label
    if len(inputs) == 1:
        x = inputs[0]
        return (lambda: model(x)), label
    return (lambda: model(*inputs)), label


def _row(samples: Samples) -> dict[str, float | int | None]:
    """Microseconds; None where there are too few samples to say."""
    from hasten.measure import statistics

    found: dict[str, float | int | None] = {"n": len(samples)}
    for q in (50.0, 90.0, 99.0, 99.9):
        value = statistics.percentile(samples, q)
        found[f"p{q:g}"] = None if value is None else value / 1e3
    return {**found, "max": float(samples.max()) / 1e3}


def _compared(rounds: Mapping[str, list[Samples]], answers: Mapping[str, list[np.ndarray]]) -> dict[str, Any]:
    """hasten's best contestant over the best peer, at p50 and at p99; nothing where one side is missing."""
    from hasten.measure import statistics

    def best(labels: list[str], q: float) -> str | None:
        samples = {k: np.concatenate(rounds[k]) for k in labels}
        fit = [k for k in labels if statistics.enough(len(samples[k]), q)]
        return min(fit, key=lambda k: float(np.percentile(samples[k], q)), default=None)

    mine = [k for k in rounds if k.startswith("hasten")]
    peers = [k for k in rounds if k not in mine]
    ours, theirs = best(mine, 50), best(peers, 50)
    if ours is None or theirs is None:
        return {}
    found: dict[str, Any] = {"hasten": ours, "best": theirs, "max_abs_error": {}}
    calls = sum(map(len, rounds[ours]))
    for q in (50.0, 99.0):
        peer = best([k for k in peers if len(rounds[k]) == len(rounds[ours])], q)
        if peer is None or not statistics.enough(calls, q):
            found[f"ratio_p{q:g}"] = None  # too few calls to say
            continue
        found[f"ratio_p{q:g}"] = {**asdict(statistics.paired_ratio(rounds[peer], rounds[ours], q)), "peer": peer}
    for peer in peers:
        found["max_abs_error"][peer] = _error(answers[ours], answers[peer])
    return found


def _error(a: list[np.ndarray], b: list[np.ndarray]) -> float | None:
    if len(a) != len(b) or any(x.shape != y.shape for x, y in zip(a, b, strict=True)):
        return None
    return max(
        float(np.abs(x.astype(np.float64) - y.astype(np.float64)).max(initial=0)) for x, y in zip(a, b, strict=True)
    )


def flat(y: Any) -> list[np.ndarray]:
    return [np.asarray(v) for v in (y if isinstance(y, (list, tuple)) else [y])]


def keep(name: str, rounds: Mapping[str, list[Samples]]) -> None:
    """Nanoseconds of every call, and how many belong to each round."""
    folder = RESULTS / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {}
    for label, blocks in rounds.items():
        arrays[label] = np.concatenate(blocks).astype(np.uint32)
        arrays[f"{label} / round sizes"] = np.array([len(b) for b in blocks])
    np.savez_compressed(folder / f"{name}.npz", **arrays)


# ---- conditions -----------------------------------------------------------------------------------------------------


def _load() -> dict[str, float]:
    """How busy others keep the machine, just before the timing.

    Units:   cpu_percent: of all cores together, over one second in which this process sleeps
    """
    import psutil

    return {"cpu_percent": psutil.cpu_percent(interval=1.0), "load_average": os.getloadavg()[0]}


def _conditions(options: argparse.Namespace) -> dict[str, Any]:
    from hasten.host import host

    facts, load = host(), _load()
    if load["cpu_percent"] > _BUSY_PERCENT:
        print(f"warning: others use {load['cpu_percent']:.0f} % of this machine: timings will be worth little")
    return {
        "time": time.strftime("%Y-%m-%d %H:%M"),
        "cpu": facts.cpu,
        "cores": facts.cores_logical,
        "caches": dict(facts.caches),
        "system": facts.system,
        "governor": facts.governor,
        "python": facts.python,
        "versions": dict(facts.versions),
        "made_by": "compile" if options.compile else "optimize --quick" if options.quick else "optimize",
        "seconds": options.seconds,
        "seed": options.seed,
        **load,
    }
