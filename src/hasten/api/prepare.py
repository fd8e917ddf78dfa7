"""From a source to a ``Plan``: sample inputs, the source's own answers, and one optimised graph per batch size."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import psutil

from hasten import graph
from hasten.api.labels import Labels, read_labels, scored
from hasten.api.sample import ordered, request
from hasten.api.settings import Settings
from hasten.engines import ENGINES, Offer
from hasten.errors import SettingsError
from hasten.passes import Rewrite
from hasten.passes.fix_shapes import fix_shapes
from hasten.passes.phases import OPTIMISE, TIDY
from hasten.passes.run import LastAnswers, run_phases
from hasten.sources import Source
from hasten.sources.detect import kind_of_file, kind_of_object
from hasten.sources.determinism import check_deterministic
from hasten.sources.rounding import is_quantised
from hasten.sources.samples import draw, holding, index_limits
from hasten.tune.arrays import write_groups
from hasten.tune.candidates import gather
from hasten.tune.plan import Checks, Labelled, Plan, record_checks
from hasten.tune.processes import WarmPool
from hasten.types import Array, TensorSpec
from hasten.verify import edge_inputs, metric, nearby_inputs

__all__ = [
    "Graphs",
    "Labels",
    "asked",
    "batches",
    "calibration",
    "graphs",
    "offer",
    "optimised",
    "ordered",
    "plan",
    "preload",
    "read_labels",
    "request",
    "stacked",
]

# A reference call slower than this answers fewer checks, so that they take seconds and not minutes.
_SLOW_S, _VERY_SLOW_S = 0.1, 1.0
_ROWS_AT_ONCE = 64
# What a source is → the engine that calls it as its users do.
_OWN_ENGINE = {"keras": "keras", "saved_model": "keras", "tf_function": "keras", "torch": "torch"}


@dataclass(frozen=True)
class Graphs:
    """The portable graph, and its optimised form at each batch size; all None and empty where there is none."""

    tidy: ir.Model | None
    by_batch: Mapping[int, Path]
    rewrites: Mapping[int, tuple[Rewrite, ...]]
    """Batch size → what made its graph out of the source's."""
    before: Mapping[str, int]
    """Operator → nodes, as imported."""
    after: Mapping[str, int]
    """The same, optimised at the first batch size."""
    computes_in: str
    """The coarsest dtype that the source computes in: "float32", "float16", "bfloat16" or "int8"."""


def preload(pool: WarmPool, model: Any, settings: Settings) -> None:
    """Begins to import the framework whose calls will be timed, in a process of its own, while the model is read."""
    kind = kind_of_file(Path(model)) if isinstance(model, (str, Path)) else kind_of_object(model)
    engine = _OWN_ENGINE.get(kind)
    if engine is not None and engine in (settings.engines or ENGINES) and (psutil.cpu_count() or 1) > 1:
        pool.begin(ENGINES[engine])


def batches(source: Source, settings: Settings) -> tuple[int, ...]:
    """The batch sizes to compile for.

    Raises:  SettingsError: the model's batch is fixed, and another one was asked for
    """
    if any(spec.is_batched for spec in source.inputs):
        return settings.batch
    if settings.batch == (1,):
        return (1,)
    shapes = ", ".join(map(str, source.inputs))
    received = ", ".join(map(str, settings.batch))
    if source.rows_mix:
        raise SettingsError(
            f"batch: expected none, received {received}: in this model the answer to a row depends on the rows beside "
            f"it, so it is compiled for as many rows as its sample has ({shapes}); give a sample of that many rows "
            "instead"
        )
    raise SettingsError(f"batch: expected none, because this model's shapes are fixed ({shapes}), received {received}")


def tidied(
    source: Source, sample: Sequence[Array], last: LastAnswers | None = None
) -> tuple[ir.Model | None, tuple[Rewrite, ...]]:
    """The portable graph in its one form, whatever wrote it, and what was done to it."""
    if source.model is None:
        return None, ()
    return run_phases(source.model, [TIDY], probe=sample, last=last)


def optimised(
    tidy: ir.Model, batch: int, sample: Sequence[Array] | None, last: LastAnswers | None = None
) -> tuple[ir.Model, tuple[Rewrite, ...]]:
    """The graph at one batch size: shapes fixed, then made cheaper; answers on ``sample`` stay the same."""
    inputs, _ = graph.specs(tidy)
    dims = {"batch": batch} if any(spec.is_batched for spec in inputs) else {}
    return run_phases(tidy, [(fix_shapes(dims),), OPTIMISE], probe=sample, last=last)


def graphs(source: Source, sizes: Sequence[int], sample: Sequence[Array], folder: Path) -> Graphs:
    """Every graph that the engines build from, on disk."""
    last = LastAnswers() if source.answered is None else LastAnswers(source.model, *source.answered)
    tidy, first = tidied(source, sample, last)
    if tidy is None or source.model is None:
        return Graphs(None, {}, {}, {}, {}, computes_in="int8" if source.framework == "tflite" else "float32")
    paths, rewrites, after = {}, {}, {}
    for size in sizes:
        rows = stacked(source.inputs, [sample], size)
        model, then = optimised(tidy, size, rows, last)
        rewrites[size] = (*first, *then)
        paths[size] = folder / f"batch{size}.onnx"
        graph.write(model, paths[size])
        if size == sizes[0]:
            after = _operators(model)
    before = _operators(source.model)
    return Graphs(tidy, paths, rewrites, before, after, _computes_in(source.model))


def _computes_in(model: ir.Model) -> str:
    if is_quantised(model):
        return "int8"
    nodes = [
        node for node in model.graph.all_nodes() if node.op_type not in ("Cast", "CastLike", "Identity", "Constant")
    ]
    dtypes = {value.dtype for node in nodes for value in node.outputs}
    for dtype in (ir.DataType.BFLOAT16, ir.DataType.FLOAT16):
        if dtype in dtypes:
            return str(dtype.name.lower())
    return "float32"


def plan(
    source: Source,
    made: Graphs,
    settings: Settings,
    examples: Sequence[Sequence[Array]],
    folders: tuple[Path, Path],
) -> Plan:
    """What is to be built and tried; ``folders``: one for this run, one where trials outlive it."""
    work, store = folders
    chosen = {name: home for name, home in ENGINES.items() if not settings.engines or name in settings.engines}
    candidates, skipped = gather(offer(source, made, settings), chosen)
    labels = None if settings.data is None else read_labels(source, settings.data)
    return Plan(
        fingerprint=source.fingerprint,
        framework=source.framework,
        source=source.path,
        inputs=source.inputs,
        outputs=source.outputs,
        graphs=made.by_batch,
        checks={},
        candidates=candidates,
        store=store,
        skipped=skipped,
        limits=settings.limits,
        tolerance=settings.allowed,
        calibration=calibration(source, labels, examples, work),
        computes_in=made.computes_in,
        steps=source.steps,
        spread=source.spread,
        trust=settings.trust,
        schedule=settings.schedule or ("kept" if settings.quick else "timed"),
    )


def offer(source: Source, made: Graphs, settings: Settings) -> Offer:
    """What engines are asked about this source."""
    sizes = batches(source, settings)
    return Offer(
        framework=source.framework,
        source_suffix=source.path.suffix,
        has_graph=bool(made.by_batch),
        precisions=settings.precisions,
        threads=settings.threads or _thread_counts(),
        batches=sizes,
        quick=settings.quick,
        math=settings.math,
        graph=made.by_batch.get(sizes[0]),
    )


def asked(unasked: Plan, source: Source, settings: Settings, examples: Sequence[Sequence[Array]], work: Path) -> Plan:
    """The plan with what its candidates are held against: the source's own answers, once it is known to repeat them.

    Raises:  NondeterministicError: it does not
    """
    check_deterministic(source, examples)
    labels = None if settings.data is None else read_labels(source, settings.data)
    return replace(
        unasked,
        checks={
            size: _checks(source, settings, examples, size, work / f"checks{size}")
            for size in batches(source, settings)
        },
        labelled=None if labels is None else _labelled(source, settings, labels, work),
    )


def _thread_counts() -> tuple[int, ...]:
    cores = psutil.cpu_count(logical=False) or 1
    return (1,) if cores == 1 else (1, min(cores, 8))


def _operators(model: ir.Model) -> dict[str, int]:
    counts: dict[str, int] = {}
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts


def _checks(source: Source, settings: Settings, examples: Sequence[Sequence[Array]], size: int, folder: Path) -> Checks:
    """The sample, random inputs and edges at one batch size, with the source's own answers to them."""
    specs = [spec.fixed({"batch": size}) for spec in source.inputs]
    bounds = {name: (0, limit - 1) for name, limit in index_limits(source.model).items()}
    edges = edge_inputs(specs, np.random.default_rng(settings.seed), bounds, randoms=2 if settings.quick else 4)
    inputs = {"sample": stacked(source.inputs, examples, size)}
    inputs |= {name: holding(source, arrays, k) for k, (name, arrays) in enumerate(edges.items())}
    start = time.perf_counter()
    expected = {"sample": source.reference(inputs["sample"])}
    slow = time.perf_counter() - start
    names = list(inputs)
    if slow > _SLOW_S:
        names = ["sample", "random 0", "zeros", "large"][: 3 if slow > _VERY_SLOW_S else 4]
    for name in names[1:]:
        expected[name] = source.reference(inputs[name])
    asked = {name: inputs[name] for name in names}
    as_given = slow > _SLOW_S or settings.tolerance is not None  # a tolerance of the user's own is never widened
    return record_checks(
        folder, asked, expected, None if as_given else _nearby(source, asked, expected, settings.rounding)
    )


def _nearby(
    source: Source, inputs: Mapping[str, Sequence[Array]], expected: Mapping[str, Sequence[Array]], rounding: str
) -> dict[str, Sequence[Array]]:
    """The source's answers to what lies one rounding from ``inputs``."""
    rng, found = np.random.default_rng(0), dict(expected)
    for name, arrays in inputs.items():
        moved = nearby_inputs(arrays, rng, rounding)
        if not all(map(np.array_equal, arrays, moved)):
            found[name] = source.reference(moved)
    return found


def stacked(specs: Sequence[TensorSpec], examples: Sequence[Sequence[Array]], size: int) -> tuple[Array, ...]:
    """``size`` rows out of the examples (each of one row), again from the first when they run out."""
    chosen = [examples[k % len(examples)] for k in range(size)]
    return tuple(
        np.concatenate([e[i] for e in chosen]) if spec.is_batched else np.asarray(examples[0][i])
        for i, spec in enumerate(specs)
    )


def _labelled(source: Source, settings: Settings, labels: Labels, work: Path) -> Labelled:
    path = work / "labelled.npz"
    write_groups(path, [labels.inputs])
    step = _ROWS_AT_ONCE if all(spec.is_batched for spec in source.inputs) else 1
    parts = [
        source.reference([array[k : k + step] for array in labels.inputs]) for k in range(0, len(labels.labels), step)
    ]
    outputs = tuple(np.concatenate([part[i] for part in parts]) for i in range(len(source.outputs)))
    score = scored(metric(settings.metric), outputs, labels.labels, path if settings.data is None else settings.data)
    return Labelled(path, labels.labels, settings.metric, settings.max_drop, score)


def calibration(source: Source, labels: Labels | None, examples: Sequence[Sequence[Array]], work: Path) -> Path:
    """Rows by which quantisers set their ranges: the labelled ones, else the sample and random ones."""
    path = work / "calibration.npz"
    if labels is not None:
        arrays = [array[:256] for array in labels.inputs]
    else:
        rng = np.random.default_rng(0)
        limits = index_limits(source.model)
        drawn = [tuple(e) for e in examples] + [holding(source, draw(source.inputs, limits, rng), k) for k in range(32)]
        arrays = [np.concatenate([np.atleast_1d(d[i]) for d in drawn]) for i in range(len(source.inputs))]
    named = {spec.name: array for spec, array in zip(source.inputs, arrays, strict=True)}
    np.savez(path, **named)  # type: ignore[arg-type]  # numpy's stub takes the keywords for allow_pickle
    return path
