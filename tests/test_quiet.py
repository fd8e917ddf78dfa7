from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hasten.quiet import quiet_start

SPOKEN = [
    "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.",
    "I0000 00:00:1700000000.1 1 port.cc:153] oneDNN custom operations are on.",
    "ERROR: failed to open",
]


def speak() -> None:
    for line in SPOKEN:
        os.write(2, line.encode() + b"\n")


def test_greetings_are_dropped_and_errors_are_not(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="mine"), quiet_start():
        with quiet_start():
            speak()
        raise ValueError("mine")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == f"{SPOKEN[2]}\nafter\n"


def test_debugging_shows_everything(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HASTEN_DEBUG", "1")
    with quiet_start():
        speak()
    assert capfd.readouterr().err.splitlines() == SPOKEN


@pytest.mark.frameworks
@pytest.mark.parametrize("level", [None, "2"])
def test_reading_and_running_a_tflite_file_says_nothing(shared_models: Path, level: str | None) -> None:
    code = "import sys, hasten; hasten.compile(sys.argv[1], engine='litert')"
    path = shared_models / "real" / "ad01_fp32.tflite"
    env = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    env |= {"TF_CPP_MIN_LOG_LEVEL": level} if level else {}
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, env=env)
    assert (done.stdout, done.stderr) == ("", "")


MAKERS = {
    "keras": """
import keras
model = keras.Sequential([keras.Input((6, 4)), keras.layers.LSTM(3), keras.layers.Dense(2)])
sample = None
""",
    "torch": """
import torch, warnings
class Warning_(torch.nn.Module):
    def forward(self, x):
        warnings.warn("the module's own")
        return torch.relu(x)
model, sample = Warning_(), np.ones((1, 4), np.float32)
""",
    "saved_model": """
import tensorflow as tf
class Module(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32)])
    def __call__(self, x):
        return {"y": tf.nn.relu(x)}
model, sample = sys.argv[1], None
tf.saved_model.save(Module(), model)
""",
}


@pytest.mark.frameworks
@pytest.mark.parametrize("kind", MAKERS)
def test_reading_an_object_says_nothing_but_what_is_the_models_own(kind: str, tmp_path: Path) -> None:
    """What importing the framework says, which the user does, comes before the mark."""
    code = f"""
import numpy as np, sys
{MAKERS[kind]}
print("hasten begins", file=sys.stderr, flush=True)
import hasten
for engine in ("onnxruntime", "native", "litert")[: 2 if sys.argv[2] == "torch" else 3]:
    hasten.compile(model, engine=engine, sample=sample)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "saved"), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = done.stderr.split("hasten begins\n")[1].splitlines()
    assert done.stdout == ""
    assert [line for line in said if "the module's own" not in line] == []
    assert bool(said) == (kind == "torch")
