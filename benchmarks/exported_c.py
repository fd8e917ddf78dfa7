"""The exported C, called from C, beside RTNeural's C++ with the same layers written out as templates.

    python -m benchmarks exported_c --rtneural=FOLDER [--models A.keras B.keras] [--seconds=4] [--json=c.json]

FOLDER is RTNeural's source tree (Debian's source package of guitarix carries one). Models are Keras' Sequential of
LSTM and Dense, which both sides can express; without ``--models`` our own ones are built. RTNeural is compiled with
each of its back ends by each compiler that is here: a row each, the fastest first; a build whose answers are not the
model's is told (its padded lanes take part in a softmax). Both sides lie in one
program and take turns in short blocks; a block's figure is its time divided by its calls. The ratio is the quotient of
medians with a 95 % bootstrap interval over blocks. Raw samples go into the JSON file.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import hasten
from benchmarks.models import make
from hasten.host import host
from hasten.native.isa import for_host

Samples = NDArray[np.float64]
# Further from hasten's answer than rounding can take either side.
_STRAY = 1e-4
_OWN = ("own_dense_small", "own_dense_wide", "own_autoencoder", "own_lstm")
_HALF = "-mno-avx512f"
_BACK_ENDS = {
    "xsimd": ["-DRTNEURAL_USE_XSIMD=1", "modules/xsimd/include"],
    # By half vectors, where there are whole ones: RTNeural's own build offers no more, and some models crash with more.
    "xsimd-avx2": ["-DRTNEURAL_USE_XSIMD=1", _HALF, "modules/xsimd/include"],
    "eigen": ["-DRTNEURAL_USE_EIGEN=1", "-DEIGEN_STACK_ALLOCATION_LIMIT=0", "modules/Eigen"],
}
_ACTIVATIONS = {"relu": "ReLu", "elu": "ELu", "tanh": "Tanh", "sigmoid": "Sigmoid", "softmax": "Softmax"}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rtneural", type=Path, default=os.environ.get("HASTEN_RTNEURAL"), help="its source tree")
    parser.add_argument("--models", type=Path, nargs="*", help=".keras files: Sequential of LSTM and Dense")
    parser.add_argument("--seconds", type=float, default=4.0, help="per model and build")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if not options.rtneural or not (Path(options.rtneural) / "RTNeural/RTNeural.h").is_file():
        print(f"left out: --rtneural names no source tree of RTNeural (given: {options.rtneural})")
        return
    source = Path(options.rtneural).resolve()
    print(f"{host().cpu}, {for_host().name}; ns a call, p50 / p99 over blocks of calls")
    found: dict[str, Any] = {"host": host().cpu}
    with tempfile.TemporaryDirectory() as work:
        for path in options.models or [make(name, Path(work))[0] for name in _OWN]:
            found[path.stem] = _compared(path, source, Path(work) / f"c_{path.stem}", options.seconds)
    if options.json:
        options.json.write_text(json.dumps(found))


def _compared(path: Path, source: Path, folder: Path, seconds: float) -> dict[str, Any]:
    """Samples of both sides for every build of RTNeural, and a row printed for each."""
    import keras

    model = keras.models.load_model(path)
    library = folder / "lib"
    hasten.export(
        path,
        library,
        target=f"{platform.machine()}-linux-gnu",
        instruction_set=for_host().name,
    )
    parts = _parts(model)
    driver = folder / "driver.cpp"
    driver.write_text(_driver(next(library.glob("lib*.a")).stem[3:], model, parts))
    for k, part in enumerate(parts):
        (folder / f"part{k}.json").write_text(json.dumps(part["json"]))
    found = {}
    for label, command in _builds(source, driver, library).items():
        program = folder / label.replace(" ", "_")
        built = subprocess.run([*command, "-o", str(program)], check=False, capture_output=True, text=True)
        if built.returncode:
            errors = [line for line in built.stderr.splitlines() if "error" in line] or ["no reason given"]
            print(f"  {path.stem}: {label} does not compile RTNeural: {errors[0]}")
            continue
        said = subprocess.run([str(program), str(seconds)], cwd=folder, check=False, capture_output=True, text=True)
        if said.returncode:
            print(f"  {path.stem}: the program with RTNeural by {label} failed (exit code {said.returncode})")
            continue
        difference, *values = said.stdout.split()
        pairs = np.array(values, np.float64).reshape(-1, 2)
        found[label] = {
            "hasten": pairs[:, 0].tolist(),
            "rtneural": pairs[:, 1].tolist(),
            "difference": float(difference),
        }
    for label in sorted(found, key=lambda label: float(np.median(found[label]["rtneural"]))):
        _print_row(path.stem, label, found[label])
    return found


def _print_row(name: str, build: str, row: dict[str, Any]) -> None:
    ours, theirs = np.array(row["hasten"]), np.array(row["rtneural"])
    low, high = _ratio_interval(ours, theirs)
    figures = " ".join(f"{np.median(v):9.1f} /{np.percentile(v, 99):9.1f}" for v in (ours, theirs))
    ratio = np.median(theirs) / np.median(ours)
    wrong = f", wrong: off by {row['difference']:.2g}" if row["difference"] > _STRAY else ""
    told = f"{ratio:5.2f}x ({low:.2f} to {high:.2f})  RTNeural by {build}{wrong}"
    print(f"{name:18s} {figures}  {told}", flush=True)


def _ratio_interval(ours: Samples, theirs: Samples) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(ours), (1000, min(len(ours), 2000)))
    ratios = np.median(theirs[picks], axis=1) / np.median(ours[picks], axis=1)
    return float(np.percentile(ratios, 2.5)), float(np.percentile(ratios, 97.5))


def _parts(model: Any) -> list[dict[str, Any]]:
    """Chains of layers as RTNeural has them: its JSON, its template; an LSTM is a chain alone, run once a step."""
    parts: list[dict[str, Any]] = []
    size = int(model.inputs[0].shape[-1])
    for layer in (layer for layer in model.layers if type(layer).__name__ not in ("InputLayer", "Dropout")):
        kind, weights = type(layer).__name__, [np.asarray(w).tolist() for w in layer.get_weights()]
        if kind == "LSTM" or not parts or parts[-1]["recurrent"]:
            parts.append({"recurrent": kind == "LSTM", "size": size, "types": [], "layers": []})
        units, part = int(layer.units), parts[-1]
        if kind == "LSTM":
            part["types"].append(f"RTNeural::LSTMLayerT<float, {size}, {units}>")
            part["layers"].append({"type": "lstm", "activation": "", "shape": [None, None, units], "weights": weights})
        else:
            activation = layer.activation.__name__
            part["types"].append(f"RTNeural::DenseT<float, {size}, {units}>")
            part["layers"].append(_dense(weights, units, "" if activation == "linear" else activation))
            if activation != "linear":
                part["types"].append(f"RTNeural::{_ACTIVATIONS[activation]}ActivationT<float, {units}>")
        size = part["last"] = units
    for part in parts:
        part["json"] = {"in_shape": [None, None, part["size"]], "layers": part["layers"]}
    return parts


def _dense(weights: list[Any], units: int, activation: str) -> dict[str, Any]:
    given = weights if len(weights) == 2 else [weights[0], [0.0] * units]
    return {"type": "dense", "activation": activation, "shape": [None, units], "weights": given}


def _builds(source: Path, driver: Path, library: Path) -> dict[str, list[str]]:
    compilers = {"g++": ["g++"]} if shutil.which("g++") else {}
    if importlib.util.find_spec("ziglang"):
        compilers["clang++"] = [sys.executable, "-m", "ziglang", "c++"]
    wide = [
        "-DRTNEURAL_NAMESPACE=RTNeural",
        "-O3",
        "-march=native",
        "-ffast-math",
        "-DNDEBUG",
        "-std=c++17",
        "-DRTNEURAL_DEFAULT_ALIGNMENT=64",  # whole vectors of AVX-512; the narrower ones lie well in it too
        "-w",
    ]
    found = {}
    for compiler, command in compilers.items():
        for back_end, (*defines, include) in _BACK_ENDS.items():
            if _HALF in defines and (compiler != "g++" or "avx512f" not in host().features):
                continue  # xsimd finds no vectors at all where clang is told so
            paths = [f"-I{source}", f"-I{source / 'modules/json'}", f"-I{source / include}", f"-I{library}"]
            found[f"{compiler} {back_end}"] = [
                *command,
                *wide,
                *defines,
                *paths,
                str(driver),
                str(next(library.glob("lib*.a"))),
                "-lm",
            ]
    return found


def _driver(name: str, model: Any, parts: list[dict[str, Any]]) -> str:
    steps = int(model.inputs[0].shape[1]) if parts[0]["recurrent"] else 1
    declared, loaded, run = [], [], []
    for k, part in enumerate(parts):
        layers = ", ".join(part["types"])
        declared.append(f"static RTNeural::ModelT<float, {part['size']}, {part['last']}, {layers}> part{k};")
        loaded.append(f'{{ std::ifstream file("part{k}.json"); part{k}.parseJson(file, false); part{k}.reset(); }}')
        given = "x" if k == 0 else f"part{k - 1}.getOutputs()"
        if part["recurrent"]:
            run.append(f"part{k}.reset();")
            run.append(f"for (int t = 0; t < {steps}; t++) part{k}.forward({given} + t * {part['size']});")
        else:
            run.append(f"part{k}.forward({given});")
    run.append(f"std::copy_n(part{len(parts) - 1}.getOutputs(), {parts[-1]['last']}, y);")
    values = {
        "@NAME@": name,
        "@UPPER@": name.upper(),
        "@PARTS@": "\n".join(declared),
        "@LOADED@": "\n    ".join(loaded),
        "@RUN@": "\n    ".join(run),
        "@ELEMENTS@": str(int(np.prod(model.inputs[0].shape[1:]))),
        "@OUTPUTS@": str(parts[-1]["last"]),
    }
    text = _DRIVER
    for key, value in values.items():
        text = text.replace(key, value)
    return text


_DRIVER = """
#include <RTNeural/RTNeural.h>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <utility>
#include <vector>
#include "@NAME@.h"

@PARTS@
alignas(64) static unsigned char arena[@UPPER@_ARENA_BYTES];
alignas(64) static float x[@ELEMENTS@], y[@OUTPUTS@], ours[@OUTPUTS@];

static void rtneural() {
    @RUN@
}
static void exported() { @NAME@_run(arena, x, ours); }

template <typename Call> static double block(Call call, int calls) {
    const auto from = std::chrono::steady_clock::now();
    for (int i = 0; i < calls; i++) {
        asm volatile("" ::: "memory"); /* the input may have changed: no call may be left out */
        call();
    }
    const auto to = std::chrono::steady_clock::now();
    return std::chrono::duration<double, std::nano>(to - from).count() / calls;
}

int main(int, char **arguments) {
    const double seconds = std::atof(arguments[1]);
    @LOADED@
    @NAME@_init(arena);
    unsigned seed = 1;
    for (float &value : x) value = (float)((seed = seed * 1664525u + 1013904223u) >> 8) / 8388608.0f - 1.0f;
    exported(), rtneural();
    double worst = 0;
    for (int i = 0; i < @OUTPUTS@; i++) worst = std::fmax(worst, std::fabs((double)ours[i] - y[i]));
    std::printf("%g\\n", worst);
    block(exported, 2000), block(rtneural, 2000);
    const int a = 1 + (int)(20000 / block(exported, 2000)), b = 1 + (int)(20000 / block(rtneural, 2000));
    std::vector<std::pair<double, double>> samples;
    const auto from = std::chrono::steady_clock::now();
    while (std::chrono::duration<double>(std::chrono::steady_clock::now() - from).count() < seconds) {
        const double first = block(exported, a), second = block(rtneural, b);
        samples.emplace_back(first, second);
    }
    for (const auto &[mine, theirs] : samples) std::printf("%g %g\\n", mine, theirs);
}
"""


if __name__ == "__main__":
    main(sys.argv[1:])
