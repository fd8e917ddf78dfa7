"""What hasten's runtime adds to the bare engine call; the time to import it; process start to first answer.

    python -m benchmarks runtime_cost [--seconds=4] [--json=cost.json]

Each call is timed in short blocks that take turns with the bare engine's, in an order that changes from round to round,
so that a drifting machine hurts both alike. A block's figure is its time divided by its calls; the difference is taken
round by round, and its median is given with a 95 % bootstrap interval. Raw samples go into the JSON file.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import hasten
from hasten.bundle import read
from hasten.bundle.unpack import unpack
from hasten.host import host
from hasten.sessions import open_session

Samples = NDArray[np.float64]
_STARTS = 15


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="per engine")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    print(f"{host().cpu}, {host().cores_logical} logical cores, Python {host().python}")
    with tempfile.TemporaryDirectory() as folder:
        results = {"host": host().cpu, "calls": _calls(Path(folder), options.seconds), "starts": _starts(Path(folder))}
    if options.json:
        options.json.write_text(json.dumps(results))


def _calls(folder: Path, seconds: float) -> dict[str, Any]:
    """Runtime beside bare engine, for each engine that is here."""
    found = {}
    print(f"\n{'call':34s} {'bare engine':>12s} {'this call':>12s} {'added':>10s}  95 % interval   ns per call")
    for engine, model_file in _models(folder):
        bundle = hasten.compile(model_file, engine=engine).save(folder / f"{engine}.hasten")
        model, opened = hasten.load(bundle), read(bundle)
        session = open_session(unpack(opened, opened.entries[0]))
        x = np.ones(session.inputs[0].static_shape, np.float32)
        contestants = {"bare": lambda s=session.call, x=x: s(x), "model": lambda m=model, x=x: m(x)}
        if engine == "onnxruntime":
            contestants["user"] = _users_own(opened, x)
        samples = _interleaved(contestants, seconds)
        for label in (name for name in samples if name != "bare"):
            _print_row(
                f"{engine}, {'InferenceSession.run' if label == 'user' else 'Model'}", samples["bare"], samples[label]
            )
        found[engine] = {label: values.tolist() for label, values in samples.items()}
    return found


def _print_row(label: str, bare: Samples, other: Samples) -> None:
    difference = other - bare
    low, high = _interval(difference)
    print(
        f"{label:34s} {np.median(bare):12.0f} {np.median(other):12.0f} {np.median(difference):10.0f}  "
        f"{low:.0f} to {high:.0f}"
    )


def _users_own(opened: Any, x: Any) -> Callable[[], Any]:
    import onnxruntime

    artefact = unpack(opened, opened.entries[0])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(artefact.path(".onnx")), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: x})[0]


def _models(folder: Path) -> list[tuple[str, Path]]:
    """A model small enough for the call itself to be what is measured: 20 → 10 → 2."""
    from onnx import TensorProto, helper, numpy_helper, save

    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("w1", (20, 10)), ("w2", (10, 2)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w2"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", d]) for n, d in (("x", 20), ("y", 2))]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], weights)
    path = folder / "small.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    found = [("onnxruntime", path)]
    try:
        import keras
        from ai_edge_litert import interpreter  # noqa: F401
    except ImportError:
        print("litert: left out, hasten[keras,litert] is not installed")
        return found
    layers = [keras.layers.Input((20,)), keras.layers.Dense(10, "relu"), keras.layers.Dense(2)]
    keras.Sequential(layers).save(folder / "small.keras")
    return [*found, ("litert", folder / "small.keras")]


def _interleaved(contestants: dict[str, Callable[[], Any]], seconds: float) -> dict[str, Samples]:
    """Nanoseconds per call, one figure a round for each contestant."""
    calls = {label: _calls_in(call, block_s=0.002) for label, call in contestants.items()}
    rounds, labels = max(50, int(seconds / (0.002 * len(contestants)))), list(contestants)
    found: dict[str, list[float]] = {label: [] for label in labels}
    gc.collect()
    gc.disable()
    try:
        for k in range(rounds):
            turn = k % len(labels)
            for label in labels[turn:] + labels[:turn]:
                call, count = contestants[label], calls[label]
                start = time.perf_counter_ns()
                for _ in range(count):
                    call()
                found[label].append((time.perf_counter_ns() - start) / count)
    finally:
        gc.enable()
    return {label: np.array(values) for label, values in found.items()}


def _calls_in(call: Callable[[], Any], block_s: float) -> int:
    end, count = time.perf_counter() + 0.3, 0
    while time.perf_counter() < end:
        call()
        count += 1
    return max(1, int(count * block_s / 0.3))


def _interval(values: Samples) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, (2000, len(values))), axis=1)
    return float(np.percentile(medians, 2.5)), float(np.percentile(medians, 97.5))


_FIRST_ANSWER = """
import numpy as np, hasten, time, sys
hasten.load(sys.argv[1])(np.ones((1, 20), np.float32)); print(time.monotonic_ns())
"""
_BARE_ANSWER = """
import numpy as np, onnxruntime as ort, time, sys
s = ort.InferenceSession(sys.argv[1]); s.run(None, {"x": np.ones((1, 20), np.float32)}); print(time.monotonic_ns())
"""
_IMPORT = "import time; t = time.perf_counter_ns(); import hasten; print(time.perf_counter_ns() - t)"
_IMPORT_LOAD = "import time; t = time.perf_counter_ns(); import hasten; hasten.load; print(time.perf_counter_ns() - t)"


def _starts(folder: Path) -> dict[str, list[float]]:
    """Seconds, in processes of their own."""
    scripts = {
        "import hasten": (_IMPORT, None),
        "import hasten; hasten.load": (_IMPORT_LOAD, None),
        "process start → first answer, hasten": (_FIRST_ANSWER, folder / "onnxruntime.hasten"),
        "process start → first answer, bare onnxruntime": (_BARE_ANSWER, folder / "small.onnx"),
    }
    found: dict[str, list[float]] = {label: [] for label in scripts}
    for _ in range(_STARTS):
        for label, (script, argument) in scripts.items():
            begin = time.monotonic_ns()
            command = [sys.executable, "-c", script, *([str(argument)] if argument else [])]
            printed = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            found[label].append((printed - (begin if argument else 0)) / 1e9)
    print(f"\n{'start':50s} {'median':>8s} {'lowest':>8s} {'highest':>8s}  s, {_STARTS} processes each")
    for label, values in found.items():
        print(f"{label:50s} {np.median(values):8.3f} {min(values):8.3f} {max(values):8.3f}")
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
