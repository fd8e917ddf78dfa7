"""Every way to call a PyTorch model gives the module's own answers, in arrays of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hasten.engines import BuildRequest, Offer
from hasten.engines.torch import ENGINE
from hasten.errors import EngineError, MissingLibraryError
from hasten.records import Artefact, Candidate, to_json
from hasten.sessions import open_session
from hasten.types import TensorSpec

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.frameworks


class Net(torch.nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.head, self.drop = torch.nn.Linear(6, 3), torch.nn.Dropout(0.5)

    def forward(self, a, b):
        return {"out": self.drop(self.head(a)) + b, "more": (torch.tanh(a),)}


class Passing(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, x):
        return x.view(2, 3)


def saved(folder: Path, module: Any) -> Path:
    cloudpickle = pytest.importorskip("cloudpickle")
    path = folder / "module.cloudpickle"
    path.write_bytes(cloudpickle.dumps(module))
    return path


NET = (TensorSpec("a", "float32", (1, 6)), TensorSpec("b", "float32", (1, 3)))
NET_OUT = (TensorSpec("output_0", "float32", (1, 3)), TensorSpec("output_1", "float32", (1, 6)))


def asked(folder: Path, source: Path, candidate: Candidate, specs: Any = (NET, NET_OUT), **more: Any) -> BuildRequest:
    return BuildRequest(candidate, None, source, "torch", *specs, folder, **more)


def way(path: str, fed: str = "numpy") -> Candidate:
    return Candidate("torch", options=(("fed", fed), ("path", path)))


def test_what_is_offered() -> None:
    offer = Offer("torch", ".pt2", has_graph=True, threads=(1, 2))
    paths = [(c.option("path"), c.option("fed"), c.threads) for c in ENGINE.candidates(offer)]
    assert len(paths) == len(set(paths)) == 12
    assert {p for p, _, _ in paths} == {
        "eager", "no_grad", "inference_mode", "scripted_frozen", "compile", "aot_inductor",
    }  # fmt: skip
    quick = ENGINE.candidates(Offer("torch", ".pt2", has_graph=True, quick=True))
    assert [c.option("path") for c in quick] == ["inference_mode", "scripted_frozen"]
    assert ENGINE.candidates(Offer("keras", ".keras", has_graph=True)) == ()


@pytest.mark.parametrize("fed", ["numpy", "tensor"])
@pytest.mark.parametrize("path", ["eager", "no_grad", "inference_mode", "scripted_frozen"])
def test_every_path_answers_as_the_module(tmp_path: Path, path: str, fed: str) -> None:
    module = Net()
    made = ENGINE.build(asked(tmp_path / "out", saved(tmp_path, module), way(path, fed)))
    assert made.details["framework"] is True
    session = open_session(Artefact.from_json(to_json(made), made.folder))
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((1, 6)).astype(np.float32), rng.standard_normal((1, 3)).astype(np.float32)
    wanted = module.eval()(torch.from_numpy(a), torch.from_numpy(b))
    answers = session.call(a, b)
    np.testing.assert_allclose(answers[0], wanted["out"].detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(answers[1], np.tanh(a), rtol=1e-5)
    kept = [y.copy() for y in answers]
    session.call(-a, -b)
    for answer, copy in zip(answers, kept, strict=True):
        np.testing.assert_array_equal(answer, copy)
    session.close()
    with pytest.raises(EngineError, match="closed"):
        session.call(a, b)


@pytest.mark.parametrize("fed", ["numpy", "tensor"])
def test_an_answer_that_is_a_view_of_the_input_is_copied(tmp_path: Path, fed: str) -> None:
    specs = (TensorSpec("x", "float32", (1, 6)),), (TensorSpec("output", "float32", (2, 3)),)
    source = saved(tmp_path, Passing())
    session = open_session(ENGINE.build(asked(tmp_path / "out", source, way("inference_mode", fed), specs)))
    x = np.arange(6, dtype=np.float32)[None]
    answer = session.call(x)
    x += 100
    session.call(x)
    np.testing.assert_array_equal(answer, [[0, 1, 2], [3, 4, 5]])


def test_inductor_without_a_compiler_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_: None)
    for path in ("compile", "aot_inductor"):
        with pytest.raises(MissingLibraryError, match=r"no C\+\+ compiler"):
            ENGINE.build(asked(tmp_path / path, saved(tmp_path, Net()), way(path)))


def test_a_pickle_of_unknown_origin_is_not_opened(tmp_path: Path) -> None:
    torch.save(Net(), tmp_path / "module.pt")
    made = ENGINE.build(asked(tmp_path / "out", tmp_path / "module.pt", way("eager")))
    with pytest.raises(EngineError, match="trust=True"):
        open_session(made)


def test_inductor_packages_answer_as_the_module(tmp_path: Path) -> None:
    import shutil

    if shutil.which("g++") is None:
        pytest.skip("no g++")
    module = Net().eval()
    session = open_session(ENGINE.build(asked(tmp_path / "out", saved(tmp_path, module), way("aot_inductor"))))
    a, b = np.ones((1, 6), np.float32), np.ones((1, 3), np.float32)
    wanted = module(torch.from_numpy(a), torch.from_numpy(b))["out"].detach().numpy()
    np.testing.assert_allclose(session.call(a, b)[0], wanted, rtol=1e-5, atol=1e-6)
    assert (tmp_path / "out" / "inductor").is_dir()


@pytest.mark.parametrize("path", ["inference_mode", "scripted_frozen"])
def test_an_exported_program_takes_every_path(tmp_path: Path, path: str) -> None:
    module, (a, b) = Net().eval(), (torch.ones(1, 6), torch.ones(1, 3))
    torch.export.save(torch.export.export(module, (a, b)), tmp_path / "net.pt2")
    session = open_session(ENGINE.build(asked(tmp_path / "out", tmp_path / "net.pt2", way(path))))
    wanted = module(a, b)["out"].detach().numpy()
    np.testing.assert_allclose(session.call(a.numpy(), b.numpy())[0], wanted, rtol=1e-5, atol=1e-6)
