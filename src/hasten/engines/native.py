"""The native compiler as an engine."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Sequence

import onnx_ir as ir

from hasten.engines import BuildRequest, Offer
from hasten.engines.onnxruntime import QUANTISED, QUANTISED_FILE, quantised_graph
from hasten.errors import EngineError, HastenError, UnsupportedOpError
from hasten.graph import read
from hasten.native.compile import Numerics, compile_graph, far_share, fused_program, rounded_share, shortened
from hasten.native.isa import for_host
from hasten.native.precision import STORED
from hasten.native.program import Program
from hasten.passes.contributed_rounding import contributed_rounding
from hasten.passes.recognise_groups import recognise_groups
from hasten.passes.recognise_normalisation import recognise_inner_normalisation
from hasten.quiet import unlogged
from hasten.records import Artefact, Candidate

__all__ = ["ENGINE", "graph_of", "math_option", "numerics"]

# A call longer than about 5 µs lets other Python threads run; below, the switch would cost more than it gives.
_RELEASE_GIL_MACS = 150_000
_LEAST_ROUNDED = _LEAST_FAR = 0.25  # of all multiplications
_MOST_THREADS = 8  # of a team, as src/hasten/_team.h has it

PRECISIONS = ("float32", *STORED, *QUANTISED)


def math_option(tier: str) -> tuple[tuple[str, str], ...]:
    """A candidate's options for one tier of mathematics; none for the default."""
    return () if tier == "default" else (("math", tier),)


def numerics(candidate: Candidate) -> Numerics:
    """How the compiled program of a candidate computes."""
    return Numerics(
        candidate.precision if candidate.precision in STORED else "float32",
        candidate.option("activations", "float32"),
        candidate.option("math", "default"),
        candidate.option("weights", "float32"),
    )


def graph_of(request: BuildRequest) -> ir.Model:
    """The graph that is compiled: the request's own, or in a quantiser's precision what that makes (made) of it.

    Raises:  EngineError: no calibration data for int8, or the quantiser refuses the graph
    """
    assert request.graph is not None
    if request.candidate.precision not in QUANTISED:
        model = read(request.graph)
    else:
        with unlogged("root"):  # where the quantiser tells of what was done to this graph already
            model = read(request.quantised or quantised_graph(request))
        contributed_rounding.apply(model)  # a quantised LSTM is an operator of ONNX Runtime's own
    recognise_groups.apply(model)
    recognise_inner_normalisation.apply(model)
    return model


class NativeEngine:
    """Compiles the graph for this host."""

    name = "native"
    graph_alone = True

    def missing(self) -> str | None:
        """None where a C compiler can be found."""
        if os.environ.get("HASTEN_CC") or importlib.util.find_spec("ziglang") or shutil.which("clang"):
            return None
        return "no C compiler: install hasten[native]"

    def candidates(self, offer: Offer) -> Sequence[Candidate]:
        """One per batch, precision and tier of mathematics; fast functions stand beside the default ones.

        Precisions that would store nothing in fewer bits are left out: they are float32 by another name. Where much of
        the model multiplies weights that are exactly int8, another candidate rounds what they meet to 16 bits; where
        much of it waits for the weights of single rows, another one rounds these to 21. Both count as float32: they are
        held to its tolerance.
        """
        if not offer.has_graph:
            return ()
        program = _program(offer)
        same = _unshortened(offer, program)
        tiers = ("default", "fast") if offer.math == "fast" else (offer.math,)
        plain = [
            Candidate("native", precision, threads, batch, math_option(tier))
            for batch in offer.batches
            for precision in offer.precisions
            for threads in offer.threads
            if precision in PRECISIONS and precision not in same and threads <= _MOST_THREADS
            for tier in tiers
        ]
        if "float32" not in offer.precisions or program is None:
            return plain
        tier = math_option(tiers[-1])
        shown = offer.threads[:1] if offer.quick else tuple(t for t in offer.threads if t <= _MOST_THREADS)
        return plain + [
            Candidate("native", "float32", threads, batch, (*rounding, *tier))
            for batch in offer.batches
            for threads in shown
            for rounding in _roundings(program, threads)
        ]

    def build(self, request: BuildRequest) -> Artefact:
        """``model.so`` with its ``model.c``, and the quantised graph if there is one.

        Without that graph nobody could compile it for another processor: the rows that set its ranges are not kept.
        """
        if request.graph is None:
            raise EngineError("native needs the portable graph: no importer could read this source")
        target = for_host()
        threads = request.candidate.threads
        if threads > _MOST_THREADS:
            raise EngineError(f"a team has at most {_MOST_THREADS} threads, received {threads}")
        how = numerics(request.candidate)
        built = compile_graph(
            graph_of(request), target, request.folder, request.source.stem, threads=threads, precision=how.precision,
            math=how.math, activations=how.activations, weights=how.weights, schedule=request.schedule,
        )  # fmt: skip
        _refuse_other_shapes(request, built.program)
        if threads > 1 and not built.emitted.splits:
            raise UnsupportedOpError(f"nothing in this model is large enough to share among {threads} threads")
        macs = sum(step.macs() for step in built.program.steps)
        kept = QUANTISED_FILE if request.candidate.precision in QUANTISED and request.quantised is None else None
        return Artefact(
            candidate=request.candidate,
            folder=request.folder,
            files=("model.so", "model.c", *(() if kept is None else (kept,))),
            inputs=request.inputs,
            outputs=request.outputs,
            portable=False,
            target=target.name,
            details={
                "arena_bytes": built.emitted.arena_bytes,
                "weights_bytes": len(built.emitted.weights),
                "release_gil": macs > _RELEASE_GIL_MACS,
                "macs": macs,
                **({} if kept is None else {"graph": kept}),
            },
        )


def _refuse_other_shapes(request: BuildRequest, program: Program) -> None:
    """A call writes each answer into an array made by its spec: one that is longer would end in foreign memory."""
    for specs, views in ((request.inputs, program.inputs), (request.outputs, program.outputs)):
        for spec, view in zip(specs, views, strict=True):
            if spec.static_shape != view.shape or spec.dtype != view.dtype:
                raise EngineError(
                    f"the graph's '{spec.name}' is {view.dtype}{list(view.shape)}: expected {spec.dtype}"
                    f"{list(spec.static_shape)} as the model answers; use engine=onnxruntime"
                )


def _program(offer: Offer) -> Program | None:
    """What the graph becomes here; None without one, or where the plain candidates will tell what is wrong with it."""
    wanted = {"float32", *STORED} & set(offer.precisions)
    if offer.graph is None or not wanted:
        return None
    try:
        return fused_program(read(offer.graph), "model", for_host())
    except HastenError:
        return None


def _unshortened(offer: Offer, program: Program | None) -> frozenset[str]:
    """The precisions that would change nothing of this graph here, where it is tried in float32 too."""
    if program is None or "float32" not in offer.precisions or not set(STORED) & set(offer.precisions):
        return frozenset()
    return frozenset(STORED) - shortened(program, for_host())


def _roundings(program: Program, threads: int) -> list[tuple[tuple[str, str], ...]]:
    """Options that round what float32 would not, each where it may clearly shorten the call."""
    found: list[tuple[tuple[str, str], ...]] = []
    if rounded_share(program, for_host()) >= _LEAST_ROUNDED:
        found.append((("activations", "int16"),))
    if far_share(program, for_host(), threads) >= _LEAST_FAR:
        found.append((("weights", "int21"),))
    return found


ENGINE = NativeEngine()
