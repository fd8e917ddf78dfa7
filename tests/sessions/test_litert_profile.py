"""Time by operator of a LiteRT artefact: whose operators, whose program, and when none is told."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from hasten.engines import BuildRequest, litert_profile
from hasten.engines.litert import ENGINE
from hasten.engines.litert_library import DELEGATED, NODE, Event
from hasten.engines.litert_profile import operator_times, seen, spent
from hasten.errors import EngineError
from hasten.records import Artefact, Candidate
from hasten.types import TensorSpec

PLAIN = ("kernels", "without XNNPACK")
SIZE = 768


def two_layers(variable: bool = False) -> bytes:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sources"))
    from tflite_builder import FileOf

    file, rng = FileOf(), np.random.default_rng(0)
    x, hidden, y = (file.tensor((1, SIZE)) for _ in range(3))
    if variable:
        file.tensor((1, SIZE), variable=True)
    fully = ("FullyConnectedOptions", {"fusedActivationFunction": 0, "weightsFormat": 0})
    weights = [file.constant(rng.standard_normal((SIZE, SIZE)).astype(np.float32)) for _ in range(2)]
    for from_, to, weight in ((x, hidden, weights[0]), (hidden, y, weights[1])):
        file.operator("FULLY_CONNECTED", [from_, weight, -1], [to], fully)
    return file.to_bytes([x], [y])


def built(folder: Path, *, options: tuple[tuple[str, str], ...] = (), batch: int = 1, data: bytes = b"") -> Artefact:
    path = folder / "layers.tflite"
    path.write_bytes(data or two_layers())
    ins, outs = (TensorSpec(name, "float32", (batch, SIZE)) for name in ("x", "y"))
    candidate = Candidate("litert", "float32", 1, batch, (("form", "file"), *options))
    return ENGINE.build(BuildRequest(candidate, None, path, "tflite", (ins,), (outs,), folder / "built"))


def given(batch: int = 1) -> list[Any]:
    return [np.random.default_rng(1).standard_normal((batch, SIZE)).astype(np.float32)]


def test_operators_inside_xnnpack_are_told_apart(tmp_path: Path) -> None:
    operators, whole_ns = spent(built(tmp_path), given())
    layers = [(name, nanos) for name, op, nanos in operators if op.startswith("Fully Connected")]
    assert len({name for name, _ in layers}) == 2
    assert all(nanos > 0 for _, nanos in layers) and whole_ns > 0


def test_without_xnnpack_they_are_the_file_s_nodes(tmp_path: Path) -> None:
    operators, _ = spent(built(tmp_path, options=(PLAIN,)), given())
    assert [(name, op) for name, op, _ in operators] == [("t1", "FULLY_CONNECTED"), ("t2", "FULLY_CONNECTED")]


def test_another_batch_than_the_file_s_is_profiled(tmp_path: Path) -> None:
    operators, _ = spent(built(tmp_path, batch=4), given(4))
    assert sum(op.startswith("Fully Connected") for _, op, _ in operators) == 2


def test_shares_are_told_where_the_parts_add_up_to_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = (("a", "X", 600.0), ("b", "Y", 300.0))
    monkeypatch.setattr(litert_profile, "spent", lambda *_: (parts, 1000.0))
    assert ENGINE.operators(built(tmp_path), given()) == parts
    monkeypatch.setattr(litert_profile, "spent", lambda *_: (parts, 2000.0))
    with pytest.raises(EngineError, match=r"add up to 0\.9 µs of a call of 2\.0 µs: it counts whole microseconds"):
        ENGINE.operators(built(tmp_path), given())
    monkeypatch.setattr(litert_profile, "spent", lambda *_: (parts, 500.0))
    with pytest.raises(EngineError, match="slows them down"):
        ENGINE.operators(built(tmp_path), given())


def test_files_with_state_have_no_profile(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="reads no file with variable tensors"):
        ENGINE.operators(built(tmp_path, data=two_layers(variable=True)), given())


def test_a_profiler_that_crashes_costs_the_profile_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artefact, false = built(tmp_path), shutil.which("false")
    if false is None:
        pytest.skip("no program at hand that fails")
    monkeypatch.setattr(sys, "executable", false)
    with pytest.raises(EngineError, match=r"profiler crashed \(exit code 1\)"):
        ENGINE.operators(artefact, given())


class Otherwise:
    """A program with answers of its own."""

    def __init__(self, *_: object) -> None:
        self.places = [0], [2]

    def feed(self, arrays: Sequence[Any]) -> None:
        pass

    def call(self) -> None:
        pass

    def outputs(self) -> tuple[bytes, ...]:
        return (bytes(4 * SIZE),)


def test_another_program_than_the_one_that_won_is_not_profiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litert_profile, "Program", Otherwise)
    with pytest.raises(EngineError, match="answers otherwise than the one that was measured"):
        litert_profile._operators(built(tmp_path), given())


def test_each_part_of_a_delegate_keeps_its_own_operators() -> None:
    first, second = (Event(DELEGATED, "Add (ND)", micros, 0, 0) for micros in (3, 4))
    node = Event(NODE, "SOFTMAX", 2, 7, 0)
    assert operator_times([first, node, second]) == {
        (0, 1, "Add (ND)", 0): 3,
        (0, 0, "SOFTMAX", 7): 2,
        (0, 2, "Add (ND)", 0): 4,
    }
    assert operator_times([first, second])[0, 2, "Add (ND)", 0] == 4


def test_a_loop_counts_by_what_its_body_takes() -> None:
    loop, less = Event(NODE, "WHILE", 100, 1, 0), Event(NODE, "LESS", 1, 0, 1)
    body = [Event(DELEGATED, "TanH (NC)", 5, 0, 2), Event(NODE, "ADD", 2, 3, 2)]
    assert operator_times([loop, less, *body, less, *body, less]) == {
        (1, 0, "LESS", 0): 3,
        (2, 1, "TanH (NC)", 0): 10,
        (2, 0, "ADD", 3): 4,
    }


def test_what_a_delegate_cuts_off_is_not_told_as_a_time() -> None:
    short, long, node = (0, 1, "Add (ND)", 0), (0, 1, "Add (ND)", 1), (0, 0, "SOFTMAX", 7)
    assert seen({short: 0.05, long: 1.5, node: 0.4}) == {long: 1.5, node: 0.4}
    assert seen({node: 0.0}) == {}
