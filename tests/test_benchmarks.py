"""The comparison's own parts: turns are fair, ratios point the right way, the docs' table comes from a run alone."""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks are no part of the installed package

from benchmarks import exported_c  # noqa: E402
from benchmarks.peers import _compared, _row  # noqa: E402
from benchmarks.peers_table import write_docs  # noqa: E402
from benchmarks.turns import take_turns  # noqa: E402


def test_every_contestant_has_a_block_in_every_round():
    seen = []
    calls = {name: lambda name=name: seen.append(name) for name in "abc"}
    found = take_turns(calls, seconds=0.06, seed=0)
    assert {len(rounds) for rounds in found.values()} == {24}
    assert all(len(block) and (block >= 1).all() for rounds in found.values() for block in rounds)
    changes = [a for a, b in pairwise(seen) if a != b]
    assert len(changes) > 24, "blocks take turns, they do not follow each other contestant by contestant"


def test_slow_context_does_not_eat_the_time():
    found = take_turns({"slow": lambda: time.sleep(0.21), "fast": lambda: None}, seconds=0.05, seed=0)
    assert len(found["slow"]) == 2
    assert len(found["fast"]) == 24


def rounds(level, count=40):
    rng = np.random.default_rng(0)
    return [level * (1 + 0.01 * rng.random(count)) for _ in range(24)]


def test_ratio_is_best_peer_over_hasten():
    times = {
        "hasten 1t": rounds(100.0),
        "hasten 2t": rounds(300.0),
        "litert 1t": rounds(400.0),
        "openvino 1t": rounds(900.0),
    }
    answers = {name: [np.full((1, 2), 1.0 if name.startswith("hasten") else 1.25)] for name in times}
    found = _compared(times, answers)
    assert (found["hasten"], found["best"]) == ("hasten 1t", "litert 1t")
    assert found["ratio_p50"]["value"] == pytest.approx(4, rel=0.02)
    assert found["ratio_p50"]["low"] <= found["ratio_p50"]["value"] <= found["ratio_p50"]["high"]
    assert found["ratio_p99"]["value"] == pytest.approx(4, rel=0.02)
    assert found["max_abs_error"]["litert 1t"] == 0.25


def test_too_few_calls_say_nothing_about_the_tail():
    times = {"hasten": rounds(100.0, count=40), "keras predict": rounds(4e6, count=2)}
    found = _compared(times, {name: [np.zeros(1)] for name in times})
    assert found["ratio_p50"] is not None
    assert found["ratio_p99"] is None
    assert _row(np.full(50, 2000.0)) == {"n": 50, "p50": 2.0, "p90": None, "p99": None, "p99.9": None, "max": 2.0}


def test_table_replaces_what_is_between_the_marks(tmp_path):
    ratio = {"value": 4.0, "low": 3.9, "high": 4.1}
    model = {
        "name": "small", "inputs": ["1x20"], "hasten": "hasten", "best": "litert 1t", "chosen": {"hasten": "native"},
        "rows": {"hasten": {"p50": 0.13, "p99": 0.16}, "litert 1t": {"p50": 0.52, "p99": 0.7}},
        "ratio_p50": ratio, "ratio_p99": None,
    }  # fmt: skip
    conditions = {"cpu": "a CPU", "cores": 2, "system": "Linux", "python": "3", "versions": {"keras": "3"},
                  "time": "now", "seconds": 12.0, "made_by": "optimize", "cpu_percent": 1.0}  # fmt: skip
    page = tmp_path / "page.md"
    page.write_text((ROOT / "docs" / "benchmarks.md").read_text())
    for _ in range(2):
        write_docs({"conditions": conditions, "models": [model, {"name": "broken", "failed": "?"}]}, page)
    text = page.read_text()
    assert text.count("| small | 1x20 | **0.13** | 0.16 | native | 0.52 (litert 1t) | 4.00× (3.90–4.10) | – |") == 1
    assert "## How hasten measures" in text
    page.write_text("no marks")
    with pytest.raises(SystemExit, match="expected the marks"):
        write_docs({"conditions": conditions, "models": []}, page)


def test_list_of_benchmarks():
    done = subprocess.run([sys.executable, "-m", "benchmarks"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "  peers " in done.stdout
    assert "  turns " not in done.stdout


def test_the_exported_c_is_left_out_where_the_other_side_is_not_here(tmp_path, capsys):
    exported_c.main([f"--rtneural={tmp_path}"])
    assert capsys.readouterr().out.startswith("left out: --rtneural names no source tree")


def test_both_sides_of_the_exported_c_have_the_same_layers():
    keras = pytest.importorskip("keras")
    layers = keras.layers
    model = keras.Sequential([layers.Input((5, 3)), layers.LSTM(4), layers.Dropout(0.5), layers.Dense(2, "elu")])
    parts = exported_c._parts(model)
    assert [part["types"] for part in parts] == [
        ["RTNeural::LSTMLayerT<float, 3, 4>"],
        ["RTNeural::DenseT<float, 4, 2>", "RTNeural::ELuActivationT<float, 2>"],
    ]
    driver = exported_c._driver("small", model, parts)
    assert "for (int t = 0; t < 5; t++) part0.forward(x + t * 3);" in driver
    assert "small_run(arena, x, ours);" in driver
    assert "@" not in driver
