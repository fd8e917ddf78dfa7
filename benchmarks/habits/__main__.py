"""``python -m benchmarks.habits [NAME ...]``: measures each habit and writes ``costs.json``, which the docs show.

Each group is measured in a process of its own. With rules or groups named, their entries alone are renewed, and carry
their own conditions. ``with_cuda`` measures what only a GPU shows; where there is none it says so, and entries that
were measured elsewhere stay.
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
from typing import Any

from benchmarks.habits.habit import measure

HOME = Path(__file__).parent
GROUPS = ("with_tensorflow", "with_torch", "with_graphs", "effects_torch", "effects_tensorflow", "with_cuda")
_LIBRARIES = ("numpy", "tensorflow", "keras", "torch", "ai-edge-litert", "onnxruntime", "openvino")


def main() -> None:
    if sys.argv[1:2] == ["--group"]:
        _group(sys.argv[2], set(sys.argv[3:]))
        return
    wanted = sys.argv[1:]
    rules = [name.upper() for name in wanted if name not in GROUPS]
    costs: list[dict[str, Any]] = []
    for group in GROUPS:
        if wanted and not rules and group not in wanted:
            continue
        chosen = [] if group in wanted else rules
        command = [sys.executable, "-m", "benchmarks.habits", "--group", group, *chosen]
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        if group != "with_cuda":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
        costs += [json.loads(line[2:]) for line in done.stdout.splitlines() if line.startswith("@@")]
    for cost in _sorted(costs):
        print(f"{cost['rule']} {cost['before']:>12,g} → {cost['after']:>12,g} {cost['unit']}  {cost['per']}")
    if not costs:
        return
    path = HOME / "costs.json"
    table = {"conditions": _conditions(), "costs": costs}
    table = merged(json.loads(path.read_text()), table, {*wanted, *rules} or set(GROUPS))
    path.write_text(json.dumps({**table, "costs": _sorted(table["costs"])}, indent=1) + "\n")
    print(f"written: {path}")


def merged(old: dict[str, Any], new: dict[str, Any], renewed: set[str]) -> dict[str, Any]:
    """The old table with the entries of ``renewed``, rules or groups, measured anew; a group that was skipped stays."""
    measured = {cost["group"] for cost in new["costs"]}
    kept = [c for c in old["costs"] if not {c["rule"], c["group"]} & renewed or c["group"] not in measured]
    if renewed >= set(GROUPS):
        return {**new, "costs": [{"conditions": old["conditions"], **cost} for cost in kept] + new["costs"]}
    fresh = [{**cost, "conditions": new["conditions"]} for cost in new["costs"]]
    return {"conditions": old["conditions"], "costs": kept + fresh}


def _sorted(costs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(costs, key=lambda cost: str(cost["rule"]))


def _group(name: str, wanted: set[str]) -> None:
    for habit in importlib.import_module(f"benchmarks.habits.{name}").habits():
        if not wanted or habit.rule in wanted:
            print("@@" + json.dumps({**measure(habit), "group": name}), flush=True)


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
