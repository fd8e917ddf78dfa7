"""PyTorch modules that take dicts, tuples and lists of tensors, or answer with them, are optimised by name."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import hasten
from hasten.api import Settings, study
from hasten.errors import SourceError
from hasten.graph.reference import run
from hasten.sources import SourceRequest
from hasten.sources.detect import open_source

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.frameworks
RNG = np.random.default_rng(0)


def drawn(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


class Mixed(torch.nn.Module):  # type: ignore[misc,name-defined]
    """Takes one dict."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = torch.nn.Linear(4, 3), torch.nn.Linear(5, 3)

    def forward(self, batch):
        left = self.left(batch["left"])
        return {"total": left + self.right(batch["right"]), "left": left}


class Deep(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, x, parts):
        return x + parts["inner"]["one"] * parts["pair"][0] - parts["pair"][1]


class Listed(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, xs):
        return xs[0] - 2 * xs[1]


class Stepped(torch.nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.cell = torch.nn.LSTMCell(4, 6)

    def forward(self, x, state):
        return self.cell(x, state)


@dataclasses.dataclass
class Guess:
    mean: Any
    spread: Any


class Keyed(torch.nn.Module):  # type: ignore[misc,name-defined]
    """Takes a scale by name alone and answers with a data class."""

    def forward(self, x, shift=None, *, scale):
        y = x * scale
        return Guess(y if shift is None else y + shift, [y.abs(), None])


class Pair(NamedTuple):
    first: Any
    second: Any


CASES = {
    "a dict": (Mixed(), {"left": drawn(1, 4), "right": drawn(1, 5)}, ["left", "right"], ["total", "left_out"]),
    "a dict in a tuple": (
        Mixed(),
        ({"left": drawn(1, 4), "right": drawn(1, 5)},),
        ["left", "right"],
        ["total", "left_out"],
    ),
    "nested": (
        Deep(),
        (drawn(1, 3), {"inner": {"one": drawn(1, 3)}, "pair": (drawn(1, 3), drawn(1, 3))}),
        ["x", "parts_inner_one", "parts_pair_0", "parts_pair_1"],
        ["output"],
    ),
    "a list": (Listed(), [drawn(1, 3), drawn(1, 3)], ["xs_0", "xs_1"], ["output"]),
    "a named tuple": (Listed(), (Pair(drawn(1, 3), drawn(1, 3)),), ["xs_first", "xs_second"], ["output"]),
    "a state": (
        Stepped(),
        (drawn(1, 4), (drawn(1, 6), drawn(1, 6))),
        ["x", "state_0", "state_1"],
        ["output_0", "output_1"],
    ),
    "by name": (Keyed(), {"scale": drawn(1, 3), "x": drawn(1, 3)}, ["x", "scale"], ["mean", "spread_0"]),
}


@pytest.mark.parametrize("case", CASES)
def test_structures_become_named_inputs_and_outputs(tmp_path: Path, case: str) -> None:
    module, sample, inputs, outputs = CASES[case]
    model = hasten.compile(module, engine="onnxruntime", sample=sample)
    assert [spec.name for spec in model.inputs] == inputs
    assert [spec.name for spec in model.outputs] == outputs


def test_answers_are_the_modules_own_by_the_names_that_it_takes() -> None:
    module, sample, *_ = CASES["a dict"]
    rows = {"left": drawn(5, 4), "right": drawn(5, 5)}
    model = hasten.compile(module, engine="onnxruntime", sample=sample)
    with torch.no_grad():
        wanted = module({name: torch.from_numpy(value) for name, value in rows.items()})
    for got, expected in zip(model.predict(rows), wanted.values(), strict=True):
        np.testing.assert_allclose(got, expected.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(model(**rows)[0], model(rows["left"], rows["right"])[0])


def test_inputs_in_the_middle_may_be_left_out(tmp_path: Path) -> None:
    class Optional(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, ids, mask=None, kinds=None):
            return ids * 2.0 + (0 if mask is None else mask) - (0 if kinds is None else kinds)

    example = {"kinds": drawn(1, 3), "ids": np.arange(3).reshape(1, 3)}
    source = open_source(Optional(), SourceRequest(example=example, work=tmp_path))
    assert [str(spec) for spec in source.inputs] == ["ids: int64[batch, 3]", "kinds: float32[batch, 3]"]
    assert source.sample is not None and source.model is not None
    np.testing.assert_allclose(run(source.model, source.sample)[0], example["ids"] * 2 - example["kinds"], rtol=1e-5)


def test_a_search_times_the_modules_own_calls_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    module, sample, *_ = CASES["by name"]
    settings = Settings(engines=("onnxruntime", "torch"), quick=True, threads=1, fresh=True, budget_s=90)
    outcome = study(module, sample, output=tmp_path / "m.hasten", settings=settings)
    judged = {t.candidate.engine: (t.status, t.reason) for t in outcome.report.trials}
    assert {engine: status for engine, (status, _) in judged.items()} == {"onnxruntime": "ok", "torch": "ok"}, judged


def test_programs_and_scripts_of_structures(tmp_path: Path) -> None:
    module, sample, inputs, _ = CASES["a dict"]
    tensors = {name: torch.from_numpy(value) for name, value in sample.items()}
    torch.export.save(torch.export.export(module.eval(), (tensors,)), tmp_path / "program.pt2")
    torch.jit.save(torch.jit.trace(module.eval(), (tensors,), strict=False), tmp_path / "script.pt")
    torch.save(module, tmp_path / "module.pt")
    with torch.no_grad():
        wanted = [y.numpy() for y in module(tensors).values()]
    for name, example in [("program.pt2", None), ("script.pt", sample), ("module.pt", sample)]:
        work = tmp_path / f"work {name}"
        source = open_source(tmp_path / name, SourceRequest(trust=True, example=example, work=work))
        assert sorted(spec.name for spec in source.inputs) == inputs
        given = [sample[spec.name] for spec in source.inputs]
        assert source.model is not None, source.notes
        for answers in (source.reference(given), run(source.model, given)):
            for got, expected in zip(answers, wanted, strict=True):
                np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


class Scripted(torch.nn.Module):  # type: ignore[misc,name-defined]
    """What it runs is decided by a value, and ``scale`` may be left out."""

    def __init__(self) -> None:
        super().__init__()
        self.left = torch.nn.Linear(4, 3)

    def forward(self, parts: dict[str, torch.Tensor], scale: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        left = self.left(parts["a"])
        if bool(parts["b"].sum() > 0):
            left = left + parts["b"]
        if scale is not None:
            left = left * scale
        return {"left": left, "twice": left * 2}


@pytest.mark.parametrize("keys", [("parts",), ("parts", "scale")], ids=str)
def test_scripts_keep_their_choices_with_structures_and_optional_inputs(keys: tuple[str, ...], tmp_path: Path) -> None:
    module = Scripted().eval()
    sample = {"parts": {"a": drawn(1, 4), "b": drawn(1, 3)}, "scale": drawn(1, 3)}
    request = SourceRequest(example={key: sample[key] for key in keys}, work=tmp_path)
    source = open_source(torch.jit.script(module), request)
    assert [spec.name for spec in source.inputs] == (["a", "b"] if len(keys) == 1 else ["parts_a", "parts_b", "scale"])
    assert [spec.name for spec in source.outputs] == ["left", "twice"]
    assert source.model is not None, source.notes
    for sign in (1, -1):
        a, b, scale = drawn(1, 4), sign * np.ones((1, 3), np.float32), drawn(1, 3)
        tensors = {"a": torch.from_numpy(a), "b": torch.from_numpy(b)}
        wanted = module(tensors, torch.from_numpy(scale) if "scale" in keys else None)
        for got, expected in zip(run(source.model, [a, b, scale][: len(keys) + 1]), wanted.values(), strict=True):
            np.testing.assert_allclose(got, expected.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_what_fits_no_input_is_said_in_one_line() -> None:
    x = drawn(1, 4)
    cases: list[tuple[Any, Any, str]] = [
        (Mixed(), {"left": x}, "it looks up 'right', which the sample lacks"),
        (Mixed(), (x, x, x), "sample has 3 arrays: the model takes 1: batch"),
        (Deep(), {"x": x, "other": x}, "sample has arrays named x, other: the model takes 2: x, parts"),
    ]
    for module, sample, message in cases:
        with pytest.raises(SourceError, match=message):
            hasten.compile(module, engine="onnxruntime", sample=sample)


def test_the_saved_module_opens_without_the_importers(tmp_path: Path) -> None:
    module, sample, *_ = CASES["a dict"]
    source = open_source(module, SourceRequest(example=sample, work=tmp_path))
    assert source.path.suffix == ".cloudpickle"
    code = (
        "import sys; sys.modules['hasten.sources'] = None\n"  # an import of it fails
        "import numpy as np, pickle, torch\n"
        "module = pickle.load(open(sys.argv[1], 'rb'))\n"
        "print(len(module(torch.zeros(2, 4), torch.zeros(2, 5))))"
    )
    command = [sys.executable, "-c", code, str(source.path)]
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    assert subprocess.run(command, capture_output=True, text=True, check=True, env=here).stdout == "2\n"


@pytest.mark.parametrize("own", ["float32", "float64"])
def test_real_numbers_of_a_sample_take_the_dtype_of_the_module(own: str) -> None:
    module = Mixed().to(getattr(torch, own)).eval()
    other = {"float32": np.float64, "float64": np.float32}[own]
    batch = {"left": np.ones((1, 4), other), "right": np.ones((1, 5), other)}
    with hasten.compile(module, engine="onnxruntime", sample=(batch,)) as fast:
        assert [spec.dtype for spec in fast.inputs] == [own, own]


def test_a_module_that_narrows_float64_itself_is_given_it() -> None:
    class Narrowing(torch.nn.Linear):  # type: ignore[misc,name-defined]
        def forward(self, x):
            return super().forward(x.float())

    with hasten.compile(Narrowing(4, 2).eval(), engine="onnxruntime", sample=np.ones((1, 4))) as fast:
        assert fast.inputs[0].dtype == "float64"
