"""What ``explain`` and ``export`` look at: one optimised graph with inputs and answers, from a bundle or a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from hasten import bundle, graph
from hasten.api import prepare
from hasten.api.settings import Settings
from hasten.bundle import Bundle, Entry
from hasten.engines import BuildRequest
from hasten.engines.native import graph_of, numerics
from hasten.errors import BundleError, SettingsError, SourceError
from hasten.native.compile import Numerics
from hasten.passes import Rewrite
from hasten.passes.run import LastAnswers
from hasten.records import Candidate
from hasten.sources.detect import open_source
from hasten.sources.determinism import check_deterministic
from hasten.sources.samples import samples
from hasten.types import Array
from hasten.verify import Tolerance

__all__ = ["Subject", "is_bundle", "subject"]


@dataclass(frozen=True)
class Subject:
    """A graph with static shapes, and answers of the model's own framework.

    Shapes:  checks: pairs of (inputs, expected outputs) at the graph's shapes
    """

    name: str
    model: ir.Model
    checks: tuple[tuple[tuple[Array, ...], tuple[Array, ...]], ...]
    rewrites: tuple[Rewrite, ...]
    """What made the graph what it is."""
    numerics: Numerics
    rewritten_since: str = "source"
    """``portable graph`` of a bundle that does not say what had made that one."""
    threads: int = 1
    """Of the team that a bundle's own program is made for."""
    candidate: Candidate | None = None
    """The winner of a bundle, where it is native code and so the very program that is looked at."""
    tolerance: Tolerance | None = None
    """What a bundle was held to, where its program computes in less than float32."""
    is_recalibrated: bool = False
    """True where its int8 ranges come of a bundle's stored inputs: one that holds neither its quantised graph nor the
    rows of its making."""


def is_bundle(model: Any) -> bool:
    """Whether it is the path of a bundle, by its ending."""
    return isinstance(model, (str, Path)) and str(model).endswith(".hasten")


def subject(model: Any, sample: Any, settings: Settings, work: Path) -> Subject:
    """The optimised graph of a bundle or of anything that ``open_source`` reads, at the one batch size asked for.

    Raises:  SourceError: no importer reads it as a graph; BundleError: a damaged bundle; SettingsError: several batch
             sizes, or another than that of a model whose batch is fixed
    """
    if len(settings.batch) > 1:
        received = ", ".join(map(str, settings.batch))
        raise SettingsError(f"batch: expected one size, received {received}; run it once for each")
    (size,) = settings.batch
    if is_bundle(model):
        return _of_bundle(Path(model), size, settings, work)
    request = replace(prepare.request(sample, settings, work), copy=False)
    source = open_source(model, request)
    prepare.batches(source, settings)
    given = prepare.ordered(source, sample)
    examples = samples(source, replace(request, sample=given), settings.seed, 2)
    source = check_deterministic(source, examples)
    last = LastAnswers()
    tidy, first = prepare.tidied(source, examples[0], last)
    if tidy is None:
        raise SourceError(f"cannot compile '{source.path.name}': {'; '.join(source.notes) or 'no importer reads it'}")
    checks = [prepare.stacked(source.inputs, [example], size) for example in examples]
    optimised, then = prepare.optimised(tidy, size, checks[0], last)
    name = Path(model).stem if isinstance(model, (str, Path)) else type(model).__name__.lower()
    answers = tuple((c, source.reference(c)) for c in checks)
    return Subject(name, optimised, answers, (*first, *then), Numerics(math=settings.math))


def _of_bundle(path: Path, size: int, settings: Settings, work: Path) -> Subject:
    opened = bundle.read(path)
    data = opened.graph()
    if data is None:
        raise SourceError(f"bundle '{path}' holds no portable graph: expected one made from an importable model")
    optimised, since = prepare.optimised(graph.read(data), size, None)
    inputs, _ = graph.specs(optimised)
    fitting = [
        (given, expected)
        for given, expected in opened.checks()
        if all(tuple(a.shape) == s.shape for a, s in zip(given, inputs, strict=True))
    ]
    if not fitting:
        raise SourceError(f"bundle '{path}' holds no stored answers at batch {size}: export at a batch it was made for")
    kept = opened.rewrites(size)
    rewrites = since if kept is None else _rewrites(path, kept)
    begun = "portable graph" if kept is None else "source"
    plain = Subject(path.stem, optimised, tuple(fitting[:3]), rewrites, Numerics(math=settings.math), begun)
    winner = next((entry for entry in opened.entries if entry.artefact.candidate.batch == size), None)
    if winner is None or winner.artefact.candidate.engine != "native":
        return plain
    return _as_won(plain, winner, opened, work)


def _rewrites(path: Path, kept: Sequence[Mapping[str, Any]]) -> tuple[Rewrite, ...]:
    """As a bundle keeps them; one by a newer hasten may tell more."""
    known = [f.name for f in fields(Rewrite)]
    try:
        return tuple(Rewrite(**{name: told[name] for name in known if name in told}) for told in kept)
    except TypeError as error:
        raise BundleError(f"damaged bundle '{path}': its manifest lacks what a rewrite did ({error})") from error


def _as_won(plain: Subject, entry: Entry, opened: Bundle, work: Path) -> Subject:
    """The winner's own program; ``math`` asked for goes before the winner's."""
    winner = entry.artefact.candidate
    asked, how = plain.numerics.math, numerics(winner)
    lower = winner.precision != "float32" or how != Numerics()
    member = entry.graph_member
    return replace(
        plain,
        model=_reduced(plain, winner, opened, work) if member is None else graph.read(opened.member(member)),
        numerics=how if asked == "default" else replace(how, math=asked),
        threads=winner.threads,
        candidate=winner,
        tolerance=Tolerance(**opened.tolerance) if lower and opened.tolerance else None,
        is_recalibrated=member is None and winner.precision == "int8",
    )


def _reduced(plain: Subject, winner: Candidate, opened: Bundle, work: Path) -> ir.Model:
    """What a quantiser makes of the optimised graph; in any other precision that graph."""
    path, rows = work / "optimised.onnx", work / "calibration.npz"
    graph.write(plain.model, path)
    given = [inputs for inputs, _ in plain.checks]
    named = {s.name: np.concatenate([np.atleast_1d(g[i]) for g in given]) for i, s in enumerate(opened.inputs)}
    np.savez(rows, **named)  # type: ignore[arg-type]  # numpy's stub takes the keywords for allow_pickle
    return graph_of(BuildRequest(winner, path, path, "onnx", opened.inputs, opened.outputs, work, calibration=rows))
