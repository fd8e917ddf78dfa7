"""The emitted C of small fixed models, as files that people read: a change to a kernel shows as a change there.

HASTEN_UPDATE_GOLDEN=1 python -m pytest tests/native/test_native_golden.py    writes them anew; then read the diff
"""

from __future__ import annotations

import difflib
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from native_cases import graph, recurrent
from onnx import helper

from hasten.native.compile import program_of
from hasten.native.emit import emit
from hasten.native.isa import isa

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "c"
UPDATE = "HASTEN_UPDATE_GOLDEN"


def mlp20():
    """20 → 10 relu → 2 softmax: what must be readable top to bottom by someone who never saw hasten."""
    rng = np.random.default_rng(20)
    weights = {"w1": rng.standard_normal((20, 10)), "b1": rng.standard_normal(10)}
    weights |= {"w2": rng.standard_normal((10, 2)), "b2": rng.standard_normal(2)}
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["z"]),
        helper.make_node("Softmax", ["z"], ["y"], axis=-1),
    ]
    return graph(nodes, {"x": (1, 20)}, {"y": (1, 2)}, {k: v.astype(np.float32) for k, v in weights.items()})


def lstm():
    return recurrent("LSTM", 5, 3, 20, seed=21)


def conv(channels=16):
    """A convolution with bias and relu, then a pooling: channels last inside, as the framework has it outside."""
    rng = np.random.default_rng(22)
    weights = {
        "w": rng.standard_normal((channels, 3, 3, 3)).astype(np.float32),
        "b": rng.standard_normal(channels).astype(np.float32),
    }
    nodes = [
        helper.make_node("Transpose", ["x"], ["n"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["n", "w", "b"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Transpose", ["p"], ["y"], perm=[0, 2, 3, 1]),
    ]
    return graph(nodes, {"x": (1, 12, 16, 3)}, {"y": (1, 3, 4, channels)}, weights)


MODELS = {"mlp20": mlp20, "lstm": lstm, "conv": conv, "conv8": partial(conv, 8)}
FILES = [
    ("mlp20", "x86-64-v4"),
    ("mlp20", "x86-64-v3"),
    ("mlp20", "aarch64"),
    ("mlp20", "c-vector"),
    ("mlp20", "c"),
    ("lstm", "x86-64-v4"),
    ("conv", "x86-64-v4"),
    ("conv8", "zen4"),
]


@pytest.mark.parametrize(("name", "target"), FILES)
def test_emitted_c(name, target):
    path = GOLDEN / f"{name}_{target}.c"
    found = emit(program_of(MODELS[name](), name, isa(target)), isa(target)).source
    if os.environ.get(UPDATE):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(found, encoding="utf-8")
        return
    expected = path.read_text(encoding="utf-8") if path.exists() else ""
    if found != expected:
        lines = difflib.unified_diff(
            expected.splitlines(), found.splitlines(), path.name, "emitted now", lineterm="", n=2
        )
        shown = "\n".join(list(lines)[:80])
        command = f"{UPDATE}=1 python -m pytest tests/native/test_native_golden.py"
        pytest.fail(
            f"the emitted C of {name} for {target} has changed. If that is meant: {command}\n{shown}", pytrace=False
        )


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here")
@pytest.mark.parametrize("name", [f"{name}_{target}" for name, target in FILES if target.startswith("c")])
def test_portable_files_compile_as_they_are(name, tmp_path):
    """The files themselves, not what is emitted now, are strict C11."""
    command = [
        "gcc",
        "-std=c11",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-c",
        str(GOLDEN / f"{name}.c"),
        "-o",
        "model.o",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
