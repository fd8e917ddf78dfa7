"""Time by operator of a PyTorch call path: what counts as an operator, and when none is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hasten.engines import BuildRequest, torch_profile
from hasten.engines.torch import ENGINE
from hasten.engines.torch_profile import GENERATED, in_one_call, typical
from hasten.errors import EngineError
from hasten.records import Artefact, Candidate
from hasten.types import TensorSpec


@dataclass
class Recorded:
    """An event as PyTorch's profiler makes them; microseconds."""

    name: str
    cpu_time_total: float
    cpu_children: list[Recorded] = field(default_factory=list)
    input_shapes: list[Any] = field(default_factory=list)


def one_call(*inside: Recorded, takes: float = 100.0) -> Any:
    return in_one_call(Recorded("hasten: one call", takes, list(inside)))


def test_the_outermost_operators_count_wrappers_do_not() -> None:
    inner = Recorded("aten::addmm", 9.0, [], [[1, 8], [8, 4]])
    linear = Recorded("aten::linear", 10.0, [inner], [[1, 8], [4, 8], [], 7, [[2, 2]]])
    wrapper = Recorded("## Call CompiledFxGraph ##", 80.0, [linear, Recorded("prologue", 5.0)])
    names, times = one_call(wrapper, Recorded("mkldnn::_linear_pointwise", 30.0))
    assert names == (("1 1×8 · 4×8", "linear"), ("2", "_linear_pointwise"))
    assert times == (1e4, 3e4, 6e4)


def test_inductor_s_kernels_are_named_where_they_were_recorded() -> None:
    inner = Recorded("aten::_convolution", 9.0, [], [[1, 3, 8, 8]])
    found = one_call(Recorded("graph_0_cpp_fused_relu_1", 20.0), Recorded("aoti_torch_cpu_convolution", 30.0, [inner]))
    names, _ = found
    assert names == (("1 cpp_fused_relu_1", GENERATED), ("2 1×3×8×8", "convolution"))
    assert typical([found], "aot_inductor")[-1] == ("between them", "", 5e4)


def test_inductor_s_kernels_are_one_where_they_were_not() -> None:
    found = one_call(Recorded("aten::convolution", 30.0))
    assert typical([found], "aot_inductor")[-1] == ("Inductor's own kernels", GENERATED, 7e4)
    assert typical([found], "eager")[-1] == ("between them", "", 7e4)


def test_a_call_that_was_disturbed_and_one_that_ran_otherwise_do_not_tell() -> None:
    add = "aten::add"
    usual = [one_call(Recorded(add, micros), takes=10.0) for micros in (4.0, 5.0, 6.0, 5.0)]
    disturbed = one_call(Recorded(add, 900.0), takes=1000.0)
    first = one_call(Recorded(add, 50.0), Recorded("aten::copy_", 50.0))
    assert typical([first, disturbed, *usual], "eager") == (("1", "add", 5e3), ("between them", "", 5e3))


def test_a_view_is_counted_with_what_is_between() -> None:
    found = one_call(Recorded("aten::add", 60.0), Recorded("aten::detach", 0.05))
    (_, _, add), (_, _, rest) = typical([found], "eager")
    assert (add, rest) == (6e4, pytest.approx(4e4))


def test_a_call_that_the_profiler_slows_down_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    artefact = Artefact(Candidate("torch"), Path(), (), (), (), portable=True)
    parts = (("1", "add", 900.0), ("between them", "", 500.0))
    monkeypatch.setattr(torch_profile, "spent", lambda *_: (parts, 1000.0))
    assert ENGINE.operators(artefact, []) == parts
    monkeypatch.setattr(torch_profile, "spent", lambda *_: (parts, 900.0))
    with pytest.raises(EngineError, match=r"1\.4 µs under it and 0\.9 µs without: it slows"):
        ENGINE.operators(artefact, [])


@pytest.mark.frameworks
def test_a_call_path_tells_its_operators_from_a_process_of_its_own(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    cloudpickle = pytest.importorskip("cloudpickle")
    module = torch.nn.Sequential(torch.nn.Linear(512, 512), torch.nn.Tanh()).eval()
    source = tmp_path / "module.cloudpickle"
    source.write_bytes(cloudpickle.dumps(module))
    specs = (TensorSpec("x", "float32", (8, 512)),), (TensorSpec("y", "float32", (8, 512)),)
    candidate = Candidate("torch", "float32", 1, 8, (("fed", "numpy"), ("path", "inference_mode")))
    made = ENGINE.build(BuildRequest(candidate, None, source, "torch", *specs, tmp_path / "built"))
    operators, whole_ns = torch_profile.spent(made, [np.ones((8, 512), np.float32)])
    times = {op: nanos for _, op, nanos in operators}
    assert whole_ns > 0 and times["linear"] > 0 and times["tanh"] > 0
    assert any("8×512 · 512×512" in name for name, *_ in operators)
    assert operators[-1][:2] == ("between them", "")


@pytest.mark.frameworks
def test_a_path_that_does_not_open_says_why(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "package.pt2").write_bytes(b"none")
    candidate = Candidate("torch", options=(("fed", "numpy"), ("path", "aot_inductor")))
    made = Artefact(candidate, tmp_path, ("package.pt2",), (), (), portable=False, details={"file": "package.pt2"})
    with pytest.raises(EngineError, match=r"^PyTorch's profiler: torch aot_inductor: cannot open the model"):
        ENGINE.operators(made, [])
