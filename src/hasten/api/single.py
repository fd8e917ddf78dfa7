"""One engine, at once: built and opened in this process, checked on a few inputs, neither searched nor timed."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from hasten import bundle, graph
from hasten.api import prepare, ship
from hasten.api.collecting import rarely_collected
from hasten.api.settings import Settings
from hasten.bundle import Contents, Entry
from hasten.engines import BuildRequest
from hasten.engines import engine as engine_named
from hasten.engines.native import math_option
from hasten.errors import EngineError, MissingLibraryError, VerifyError
from hasten.records import Artefact, Candidate, to_json
from hasten.runtime import Model
from hasten.runtime.loading import open_bundle
from hasten.sources import Source
from hasten.sources.detect import open_source
from hasten.sources.determinism import check_deterministic
from hasten.sources.samples import samples
from hasten.verify import Tolerance, compare

__all__ = ["compile"]


@rarely_collected()
def compile(
    model: Any,
    engine: str = "native",
    *,
    sample: Any = None,
    precision: str = "float32",
    threads: int = 1,
    settings: Settings | None = None,
) -> Model:
    """``model`` on one engine, straight away: no search, no timing, two checks against the model's own answers.

    ``settings`` gives the rest: batch sizes, shapes, trust; with ``schedule="timed"`` in it heavy steps of native code
    are timed after all.

    Raises:  EngineError: the engine is missing or cannot run the graph; VerifyError: its answers differ;
             SourceError: the model cannot be read

    Example:
        >>> fast = hasten.compile("model.onnx", engine="onnxruntime")  # doctest: +SKIP
    """
    used = replace(settings or Settings(), engines=(engine,), precision=precision, threads=(threads,))
    missing = engine_named(engine).missing()
    if missing is not None:
        raise MissingLibraryError(f"cannot compile with {engine}: {missing}")
    folder = Path(tempfile.mkdtemp(prefix="hasten-"))
    try:
        contents, allowed = _contents(model, sample, used, folder)
        bundle.write(folder / "model.hasten", contents)
        opened = open_bundle(folder / "model.hasten", trust=True, engine=engine, keep=folder)
        _verify(opened, contents, allowed)
        return opened
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _contents(model: Any, sample: Any, settings: Settings, folder: Path) -> tuple[Contents, Tolerance]:
    """A bundle with one artefact per batch size, and what its answers are held to."""
    alone = getattr(engine_named(settings.engines[0]), "graph_alone", False)
    request = replace(prepare.request(sample, settings, folder), copy=not alone)
    source = open_source(model, request)
    sizes = prepare.batches(source, settings)
    given = prepare.ordered(source, sample)
    examples = samples(source, replace(request, sample=given), settings.seed, 2)
    source = check_deterministic(source, examples)
    made = prepare.graphs(source, sizes, examples[0], folder)
    # Weights and sums of floats have no ranges to set.
    rows = None if settings.precision == "float32" else prepare.calibration(source, None, examples, folder)
    artefacts = [
        _built(source, made, _candidate(source, made, settings, size), (settings, folder, rows)) for size in sizes
    ]
    checks = [prepare.stacked(source.inputs, [example], min(sizes)) for example in examples]
    allowed = (settings.allowed or Tolerance()).for_source(made.computes_in, source.steps, source.spread)
    contents = Contents(
        inputs=source.inputs,
        outputs=source.outputs,
        entries=tuple(Entry(artefact, library=ship.imported_version(settings.engines[0])) for artefact in artefacts),
        graph=None if made.tidy is None else graph.to_bytes(made.tidy),
        samples=tuple(checks),
        expected=tuple(source.reference(check) for check in checks),
        tolerance=to_json(allowed),
        facts=ship.facts(source, settings),
        rewrites=ship.rewrites(made),
    )
    return contents, allowed


def _candidate(source: Source, made: prepare.Graphs, settings: Settings, size: int) -> Candidate:
    """What is asked for; of an engine that calls the source in several ways, the best that ``--quick`` would try."""
    name, precision, threads = settings.engines[0], settings.precision, settings.threads[0]
    engine = engine_named(name)
    if getattr(engine, "graph_alone", False):
        return Candidate(name, precision, threads, size, math_option(settings.math) if name == "native" else ())
    offered = engine.candidates(replace(prepare.offer(source, made, settings), quick=True))
    fitting = [candidate.options for candidate in offered if candidate.batch == size]
    if not fitting:
        raise EngineError(f"{name} cannot run a model of {source.framework}: expected another engine, such as native")
    return Candidate(name, precision, threads, size, fitting[-1])


def _built(
    source: Source, made: prepare.Graphs, candidate: Candidate, given: tuple[Settings, Path, Path | None]
) -> Artefact:
    settings, folder, rows = given
    size, path = candidate.batch, made.by_batch.get(candidate.batch)
    built = folder / f"built{size}"
    built.mkdir()
    request = BuildRequest(
        candidate=candidate,
        graph=path,
        source=source.path,
        framework=source.framework,
        inputs=tuple(s.fixed({"batch": size}) for s in source.inputs),
        outputs=tuple(s.fixed({"batch": size}) for s in source.outputs),
        folder=built,
        calibration=rows,
        trust=settings.trust,
        schedule=settings.schedule or "kept",
    )
    try:
        return engine_named(candidate.engine).build(request)
    except EngineError as error:
        if path is None and source.notes:
            raise EngineError(f"{error}: {source.notes[-1]}") from error
        raise


def _verify(model: Model, contents: Contents, allowed: Tolerance) -> None:
    """Raises VerifyError when the model's own answers are not repeated."""
    found = [model(*check) for check in contents.samples]
    received = [y if isinstance(y, tuple) else (y,) for y in found]
    outcome = compare(contents.expected, received, allowed)
    if not outcome.passed:
        raise VerifyError(f"cannot compile: the answers differ from the model's own: {outcome.reason}")
