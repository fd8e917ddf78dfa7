"""The measuring of habits: what is renewed and what stays, and the GPU's habits run on the processor as well."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks are no part of the installed package

from benchmarks.habits.__main__ import GROUPS, merged  # noqa: E402
from benchmarks.habits.habit import Habit, measure  # noqa: E402

OLD = {
    "conditions": "old",
    "costs": [
        {"rule": "H006", "group": "with_torch", "before": 1},
        {"rule": "H006", "group": "with_cuda", "before": 2},
        {"rule": "H001", "group": "with_tensorflow", "before": 3},
    ],
}


def new(*groups: str) -> dict:
    return {"conditions": "new", "costs": [{"rule": "H006", "group": group, "before": 9} for group in groups]}


def befores(table: dict) -> dict:
    return {c["group"]: (c["before"], c.get("conditions", table["conditions"])) for c in table["costs"]}


def test_a_rule_is_renewed_where_its_group_was_measured():
    assert befores(merged(OLD, new("with_torch"), {"H006"})) == {
        "with_torch": (9, "new"),
        "with_cuda": (2, "old"),
        "with_tensorflow": (3, "old"),
    }


def test_all_renewed_keeps_what_only_another_machine_measures():
    found = merged(OLD, new("with_torch", "with_tensorflow"), set(GROUPS))
    assert found["conditions"] == "new"
    assert befores(found) == {"with_torch": (9, "new"), "with_cuda": (2, "old"), "with_tensorflow": (9, "new")}


@pytest.mark.frameworks
def test_without_a_gpu_one_line_says_so_and_nothing_is_written():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    costs = ROOT / "benchmarks" / "habits" / "costs.json"
    before = costs.read_bytes()
    command = [sys.executable, "-m", "benchmarks.habits", "with_cuda"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, check=True)
    assert [line for line in done.stderr.splitlines() if "with_cuda" in line] == [
        "with_cuda: no CUDA device here: H006, H203, H303, H402 and H408 are not measured on one"
    ]
    assert costs.read_bytes() == before


@pytest.mark.frameworks
def test_the_habits_of_a_gpu_run_on_the_processor_too():
    torch = pytest.importorskip("torch")
    from benchmarks.habits.with_cuda import on_device

    found = list(on_device(torch, torch.device("cpu"), "the processor"))
    assert [habit.rule for habit in found] == ["H006", "H203", "H303", "H402", "H408"]
    for habit in found:
        if isinstance(habit, Habit):
            habit.before(), habit.after()
        else:
            assert measure(habit)["unit"] == "us"
