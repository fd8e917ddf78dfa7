"""What ``explain`` and ``export`` look at: one optimised graph with inputs and answers, from a bundle or a model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from hasten import bundle, graph
from hasten.api import prepare
from hasten.api.settings import Settings
from hasten.errors import SettingsError, SourceError
from hasten.sources.detect import open_source
from hasten.sources.determinism import check_deterministic
from hasten.sources.samples import samples
from hasten.types import Array

__all__ = ["Subject", "subject"]


@dataclass(frozen=True)
class Subject:
    """A graph with static shapes, and answers of the model's own framework.

    Shapes:  checks: pairs of (inputs, expected outputs) at the graph's shapes
    """

    name: str
    model: ir.Model
    checks: tuple[tuple[tuple[Array, ...], tuple[Array, ...]], ...]


def subject(model: Any, sample: Any, settings: Settings, work: Path) -> Subject:
    """The optimised graph of a bundle or of anything that ``open_source`` reads, at the one batch size asked for.

    Raises:  SourceError: no importer reads it as a graph; BundleError: a damaged bundle; SettingsError: several batch
             sizes, or another than that of a model whose batch is fixed
    """
    if len(settings.batch) > 1:
        received = ", ".join(map(str, settings.batch))
        raise SettingsError(f"batch: expected one size, received {received}; run it once for each")
    (size,) = settings.batch
    if isinstance(model, (str, Path)) and str(model).endswith(".hasten"):
        return _of_bundle(Path(model), size)
    request = prepare.request(sample, settings, work)
    source = open_source(model, request)
    prepare.batches(source, settings)
    given = prepare.ordered(source, sample)
    examples = samples(source, replace(request, sample=given), settings.seed, 2)
    check_deterministic(source, examples)
    tidy, _ = prepare.tidied(source, examples[0])
    if tidy is None:
        raise SourceError(f"cannot compile '{source.path.name}': {'; '.join(source.notes) or 'no importer reads it'}")
    checks = [prepare.stacked(source.inputs, [example], size) for example in examples]
    optimised, _ = prepare.optimised(tidy, size, checks[0])
    name = Path(model).stem if isinstance(model, (str, Path)) else type(model).__name__.lower()
    return Subject(name, optimised, tuple((c, source.reference(c)) for c in checks))


def _of_bundle(path: Path, size: int) -> Subject:
    opened = bundle.read(path)
    data = opened.graph()
    if data is None:
        raise SourceError(f"bundle '{path}' holds no portable graph: expected one made from an importable model")
    optimised, _ = prepare.optimised(graph.read(data), size, None)
    inputs, _ = graph.specs(optimised)
    fitting = [
        (given, expected)
        for given, expected in opened.checks()
        if all(tuple(a.shape) == s.shape for a, s in zip(given, inputs, strict=True))
    ]
    if not fitting:
        raise SourceError(f"bundle '{path}' holds no stored answers at batch {size}: export at a batch it was made for")
    return Subject(path.stem, optimised, tuple(fitting[:3]))
