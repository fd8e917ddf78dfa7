"""``python -m benchmarks.habits [RULE ...]``: measures each habit and writes ``costs.json``, which the docs show.

Each framework is measured in a process of its own. Rules that need a GPU, or whose cost is no time, have no entry.
"""

from __future__ import annotations

import datetime
import importlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from benchmarks.habits.habit import measure

HOME = Path(__file__).parent
GROUPS = ("with_tensorflow", "with_torch")
_LIBRARIES = ("numpy", "tensorflow", "keras", "torch", "ai-edge-litert")


def main() -> None:
    if sys.argv[1:2] == ["--group"]:
        _group(sys.argv[2], set(sys.argv[3:]))
        return
    wanted = [a.upper() for a in sys.argv[1:]]
    costs: list[dict[str, object]] = []
    for group in GROUPS:
        command = [sys.executable, "-m", "benchmarks.habits", "--group", group, *wanted]
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
        costs += [json.loads(line[2:]) for line in done.stdout.splitlines() if line.startswith("@@")]
    for cost in sorted(costs, key=lambda c: str(c["rule"])):
        sides = f"{cost['before_us']:>12,.1f} us → {cost['after_us']:>12,.1f} us"
        print(f"{cost['rule']} {sides}  {cost['ratio']:>7}x  {cost['per']}")
    if not wanted:
        path = HOME / "costs.json"
        table = {"conditions": _conditions(), "costs": sorted(costs, key=lambda c: str(c["rule"]))}
        path.write_text(json.dumps(table, indent=1) + "\n")
        print(f"written: {path}")


def _group(name: str, wanted: set[str]) -> None:
    for habit in importlib.import_module(f"benchmarks.habits.{name}").habits():
        if not wanted or habit.rule in wanted:
            print("@@" + json.dumps(measure(habit)), flush=True)


def _conditions() -> dict[str, object]:
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "libraries": {name: importlib.metadata.version(name) for name in _LIBRARIES},
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "command": "python -m benchmarks.habits",
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
