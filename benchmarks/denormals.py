"""A recurrent layer whose state decays for a million steps: the first and the last of them, with each engine.

    python -m benchmarks denormals [--steps=1000000] [--engines native onnxruntime] [--json=denormals.json]

The state is handed from call to call and loses 0.05 % a step, nothing coming in: from step 175,000 on it would be among
the denormals of float32, with which x86 computes many times as slowly. Calls are bound ones, 100 of them to a block; a
block's figure is its time divided by its calls. p50 and p99 are those of blocks among the first and last tenth of all
steps; the ratio is that of the medians, 1 where decaying costs nothing. Raw samples go into the JSON file.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

import hasten
from hasten.host import host

_BLOCK, _INPUTS, _UNITS, _KEPT = 100, 8, 32, 0.9995


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--engines", nargs="+", default=["native", "onnxruntime"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    print(f"{host().cpu}, one step of an LSTM of {_UNITS} units, ns a call: p50 / p99")
    print(f"{'engine':14s} {'first tenth':>18s} {'last tenth':>18s} {'ratio':>7s}  state at the end")
    found: dict[str, object] = {"host": host().cpu, "steps": options.steps}
    for engine in options.engines:
        samples, largest = _run(engine, options.steps)
        tenth = max(1, len(samples) // 10)
        first, last = samples[:tenth], samples[-tenth:]
        cells = [f"{np.median(part):.0f} / {np.percentile(part, 99):.0f}" for part in (first, last)]
        ratio = np.median(last) / np.median(first)
        print(f"{engine:14s} {cells[0]:>18s} {cells[1]:>18s} {ratio:7.2f}  {largest:.1e}")
        found[engine] = samples.tolist()
    if options.json:
        options.json.write_text(json.dumps(found))


def _run(engine: str, steps: int) -> tuple[NDArray[np.float64], float]:
    """Nanoseconds a call for every block, and the largest number of the last state."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "decaying.onnx"
        onnx.save(_step(), path)
        model = hasten.compile(path, engine=engine)
        x = np.zeros((1, 1, _INPUTS), np.float32)
        here, there = (tuple(np.ones((1, 1, _UNITS), np.float32) for _ in range(2)) for _ in range(2))
        on, back = model.bind((x, *here), there), model.bind((x, *there), here)
        samples = []
        for _ in range(steps // _BLOCK):
            start = time.perf_counter_ns()
            for _ in range(_BLOCK // 2):
                on()
                back()
            samples.append((time.perf_counter_ns() - start) / _BLOCK)
        return np.array(samples), max(float(np.abs(state).max()) for state in here)


def _step() -> onnx.ModelProto:
    """One step of an LSTM: x and both states go in, both states come out; what is new comes from x alone."""
    rng = np.random.default_rng(0)
    hidden = rng.uniform(-0.5, 0.5, (1, 4, _UNITS, _UNITS)).astype(np.float32)
    bias = np.zeros((1, 8, _UNITS), np.float32)
    hidden[:, 3], bias[:, 2] = 0, np.log(_KEPT / (1 - _KEPT))  # gates: input, output, forget, cell
    weights = {
        "w": rng.standard_normal((1, 4 * _UNITS, _INPUTS)).astype(np.float32),
        "r": hidden.reshape(1, 4 * _UNITS, _UNITS), "b": bias.reshape(1, -1),
    }  # fmt: skip
    sizes = {"x": _INPUTS, "h": _UNITS, "c": _UNITS, "h_after": _UNITS, "c_after": _UNITS}
    values = {n: helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, (1, 1, size)) for n, size in sizes.items()}
    node = helper.make_node(
        "LSTM", ["x", "w", "r", "b", "", "h", "c"], ["", "h_after", "c_after"], hidden_size=_UNITS
    )  # fmt: skip
    graph = helper.make_graph(
        [node], "decaying", [values[n] for n in "xhc"], [values[n] for n in ("h_after", "c_after")],
        [numpy_helper.from_array(v, n) for n, v in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model
