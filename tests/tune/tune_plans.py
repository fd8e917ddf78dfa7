"""A plan over the engines of ``deliberate``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from hasten.records import Candidate
from hasten.tune.plan import Limits, Plan, record_checks
from hasten.types import TensorSpec
from hasten.verify import edge_inputs

SPECS = (TensorSpec("x", "float32", (1, 3)),)
OUTPUTS = (TensorSpec("y", "float32", (1, 3)),)
LIMITS = Limits(budget_s=120, measure_s=0.03, build_s=10, open_s=10, check_s=5, memory_bytes=600 << 20)


def deliberate(how: str = "", **options: object) -> Candidate:
    pairs = {**({"how": how} if how else {}), **options}
    return Candidate("deliberate", options=tuple(sorted(pairs.items())))


def make_plan(folder: Path, candidates: tuple[Candidate, ...], **changes: object) -> Plan:
    inputs = edge_inputs(SPECS, np.random.default_rng(0))
    expected = {name: (2 * x + np.float32(1),) for name, (x,) in inputs.items()}
    plan = Plan(
        fingerprint="two x plus one",
        framework="onnx",
        source=folder / "source.bin",
        inputs=SPECS,
        outputs=OUTPUTS,
        graphs={},
        checks={1: record_checks(folder / "checks", inputs, expected)},
        candidates=candidates,
        store=folder / "store",
        limits=LIMITS,
        engines={"deliberate": "deliberate"},
        sessions={"deliberate": "deliberate"},
    )
    return replace(plan, **changes)
