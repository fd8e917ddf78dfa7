"""Every call path of the user's own framework gives the framework's own answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from hasten.engines import BuildRequest, Offer, engine  # noqa: E402
from hasten.errors import EngineError  # noqa: E402
from hasten.records import Artefact, Candidate  # noqa: E402
from hasten.sessions import open_session  # noqa: E402
from hasten.sources import Source, SourceRequest  # noqa: E402
from hasten.sources.keras import open_keras  # noqa: E402

pytestmark = pytest.mark.frameworks

L = keras.layers
OFFER = Offer("keras", ".keras", has_graph=True, threads=(1, 2), batches=(1,))


def built(source: Source, candidate: Candidate, folder: Path) -> Artefact:
    dims = {"batch": candidate.batch}
    request = BuildRequest(
        candidate=candidate, graph=None, source=source.path, framework=source.framework,
        inputs=tuple(s.fixed(dims) for s in source.inputs), outputs=tuple(s.fixed(dims) for s in source.outputs),
        folder=folder, trust=source.trusted,
    )  # fmt: skip
    return engine("keras").build(request)


def flat(answer: Any) -> list[np.ndarray]:
    return list(answer) if isinstance(answer, tuple) else [answer]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Source:
    model = keras.Sequential([keras.Input((6, 3)), L.LSTM(4), L.Dense(2, activation="softmax")])
    return open_keras(model, SourceRequest(work=tmp_path_factory.mktemp("one")))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Source:
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    model = keras.Model({"b": b, "a": a}, {"y": L.Dense(2)(L.Concatenate()([a, b])), "x": a * 2.0})
    return open_keras(model, SourceRequest(work=tmp_path_factory.mktemp("many")))


PATHS = ["predict", "predict_on_batch", "call numpy", "call tensor", "tf.function", "concrete", "xla"]


def test_offers_every_path_and_few_candidates() -> None:
    offered = engine("keras").candidates(OFFER)
    assert [c.option("path") for c in offered if c.threads == 1] == PATHS
    assert [c.label for c in offered][:2] == ["keras predict", "keras predict_on_batch"]
    assert {c.option("path") for c in offered if c.threads == 2} == {"concrete", "xla"}
    quick = engine("keras").candidates(Offer("keras", ".keras", has_graph=True, quick=True))
    assert [c.label for c in quick] == ["keras predict", "keras concrete"]
    assert engine("keras").candidates(Offer("onnx", ".onnx", has_graph=True)) == ()
    assert engine("keras").missing() is None


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("batch", [1, 3])
def test_path_answers_as_the_model(path: str, batch: int, one: Source, many: Source, tmp_path: Path) -> None:
    rng = np.random.default_rng(batch)
    for name, source in (("one", one), ("many", many)):
        artefact = built(source, Candidate("keras", batch=batch, options=(("path", path),)), tmp_path / name)
        assert artefact.details["framework"] and all((artefact.folder / f).is_file() for f in artefact.files)
        session = open_session(Artefact.from_json({**_json(artefact)}))
        given = [rng.standard_normal(s.static_shape).astype(s.dtype) for s in session.inputs]
        first = flat(session.call(*given))
        kept = [a.copy() for a in first]
        for have, want, spec in zip(first, source.reference(given), session.outputs, strict=True):
            assert type(have) is np.ndarray and have.shape == spec.static_shape and have.dtype == spec.dtype
            np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-6)
        session.call(*[g + 1 for g in given])
        for have, want in zip(first, kept, strict=True):
            np.testing.assert_array_equal(have, want)
        session.close()
        with pytest.raises(EngineError, match="closed"):
            session.call(*given)


def _json(artefact: Artefact) -> dict[str, Any]:
    from hasten.records import to_json

    found: dict[str, Any] = to_json(artefact)
    return found


def test_damaged_file_is_an_engine_error(one: Source, tmp_path: Path) -> None:
    artefact = built(one, Candidate("keras", options=(("path", "predict"),)), tmp_path)
    (tmp_path / artefact.files[0]).write_bytes(b"not a model")
    with pytest.raises(EngineError, match="cannot open"):
        open_session(artefact)


def test_unknown_path_is_an_engine_error(one: Source, tmp_path: Path) -> None:
    artefact = built(one, Candidate("keras", options=(("path", "telepathy"),)), tmp_path)
    with pytest.raises(EngineError, match="telepathy"):
        open_session(artefact)


def test_missing_source_is_an_engine_error(one: Source, tmp_path: Path) -> None:
    candidate = Candidate("keras", options=(("path", "predict"),))
    request = BuildRequest(candidate, None, tmp_path / "gone.keras", "keras", one.inputs, one.outputs, tmp_path / "a")
    with pytest.raises(EngineError, match="gone"):
        engine("keras").build(request)
