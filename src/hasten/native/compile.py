"""Graph → program → C → library: the native compiler as one function."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from hasten.graph import clone, shapes
from hasten.native.build import compile_library
from hasten.native.emit import SPLIT_MACS, Emitted, emit
from hasten.native.fuse import fuse
from hasten.native.isa import Isa
from hasten.native.kernels.attend_chain import attentions
from hasten.native.kernels.dense_chain import chained
from hasten.native.kernels.far_dense import FarDense, kept_far
from hasten.native.kernels.recurrent_pair import paired
from hasten.native.kernels.row_chain import row_chains
from hasten.native.kernels.transpose import transposes
from hasten.native.kernels.word_conv import WordConv
from hasten.native.kernels.word_product import WordProduct
from hasten.native.lower import lower
from hasten.native.precision import STORED, as_they_are, in_words, reduce_weights
from hasten.native.program import Program
from hasten.native.schedule import scheduled

__all__ = [
    "Compiled",
    "Numerics",
    "compile_graph",
    "far_share",
    "fused_program",
    "program_of",
    "rounded_share",
    "shortened",
]


@dataclass(frozen=True)
class Compiled:
    """A built model: its library, the C it came from, and the program for the report."""

    library: Path
    emitted: Emitted
    program: Program


@dataclass(frozen=True)
class Numerics:
    """How a program computes: its weights in ``precision`` ("float32", or one of ``precision.STORED``), ``activations``
    of "float32" or, where they meet weights that are exactly int8, "int16"; and its tier of mathematics. ``weights``:
    "float32", or "int21" where single rows wait for them: within its tolerance, but less exact than float32.
    """

    precision: str = "float32"
    activations: str = "float32"
    math: str = "default"
    weights: str = "float32"


def program_of(
    model: ir.Model, name: str, isa: Isa, *, precision: str = "float32", activations: str = "float32",
    weights: str = "float32", schedule: str = "model", threads: int = 1,
) -> Program:  # fmt: skip
    """The fused program of a graph with static shapes, scheduled for one thread or a team.

    ``precision``: how its weights are stored.

    ``activations``: "int16" rounds them to 16 bits where they meet weights that are exactly int8; ``weights``: "int21"
    rounds those that single rows wait for; ``schedule``: one of ``schedule.SCHEDULES``, but "model" for a team, whose
    shares depend on the tiles.
    """
    stored = reduce_weights(fused_program(model, name, isa), precision, isa, threads)
    if precision == "float32":
        stored = as_they_are(in_words(stored, isa, threads) if activations == "int16" else stored, isa)
    stored = kept_far(stored, isa, threads, 21 if weights == "int21" else 24)
    if threads == 1:
        return scheduled(stored, isa, schedule)
    settled = scheduled(stored, isa)
    settled = replace(settled, steps=paired([step.shared(isa, threads) for step in settled.steps]))
    return row_chains(chained(settled, threads, isa.lanes), isa, threads, SPLIT_MACS)


def fused_program(model: ir.Model, name: str, isa: Isa) -> Program:
    """The program of a graph with static shapes as it is in float32, before anything is shared or rounded.

    Raises:  UnsupportedOpError: an operator has no kernel
    """
    fused = fuse(without_dead_steps(lower(_known_inside(model), name, isa)))
    fused = fuse(without_dead_steps(attentions(fused, isa.lanes)))
    return replace(fused, steps=transposes(fused.steps))


def _known_inside(model: ir.Model) -> ir.Model:
    """The model itself where the shapes in every body are known; else a copy in which they were inferred."""
    if all(value.shape is not None for body in model.graph.subgraphs() for node in body for value in node.outputs):
        return model
    copy = clone(model)
    shapes.infer(copy)
    return copy


def shortened(program: Program, isa: Isa) -> frozenset[str]:
    """The precisions among ``precision.STORED`` that store anything of a fused program in fewer bits."""

    def changes(precision: str) -> bool:
        less = reduce_weights(program, precision, isa)
        return any(a is not b for a, b in zip(program.steps, less.steps, strict=True))

    return frozenset(precision for precision in STORED if changes(precision))


def rounded_share(program: Program, isa: Isa) -> float:
    """The share of a program's multiplications that activations of 16 bits would speed up on this instruction set."""
    if "vnni" not in isa.features:
        return 0.0
    steps = in_words(program, isa).steps
    total = sum(step.macs() for step in steps)
    return sum(step.macs() for step in steps if isinstance(step, (WordConv, WordProduct))) / max(1, total)


def far_share(program: Program, isa: Isa, threads: int) -> float:
    """The share of a program's multiplications that wait for weights of single rows."""
    steps = kept_far(as_they_are(program, isa), isa, threads).steps
    total = sum(step.macs() for step in steps)
    return sum(step.macs() for step in steps if isinstance(step, FarDense)) / max(1, total)


def without_dead_steps(program: Program) -> Program:
    """The program without the steps whose results nobody reads."""
    wanted = {id(v.tensor) for v in program.outputs}
    kept = []
    for step in reversed(program.steps):
        if any(id(v.tensor) in wanted for v in step.writes()):
            kept.append(step)
            wanted.update(id(v.tensor) for v in step.reads())
    return replace(program, steps=kept[::-1])


def compile_graph(
    model: ir.Model, isa: Isa, folder: Path, name: str = "model", *, threads: int = 1, math: str = "default",
    precision: str = "float32", activations: str = "float32", weights: str = "float32", schedule: str = "model",
) -> Compiled:  # fmt: skip
    """``model.so`` and ``model.c`` in ``folder``, for one thread or a team; ``math``: one of ``vectors.MATH``.

    ``precision``: "float32", or one of ``precision.STORED``; ``activations``: "float32", or "int16"; ``weights``:
    "float32", or "int21"; ``schedule``: one of ``schedule.SCHEDULES``.

    Raises:  UnsupportedOpError: an operator has no kernel; CompilerError: the compiler failed
    """
    program = program_of(
        model, name, isa, precision=precision, activations=activations, weights=weights, schedule=schedule,
        threads=threads,
    )  # fmt: skip
    emitted = emit(program, isa, threads=threads, math=math)
    return Compiled(compile_library(emitted, isa, folder), emitted, program)
