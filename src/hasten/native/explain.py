"""Where the time of a compiled model goes: every step timed inside the whole call, beside what this machine can do.

A build with time stamps between the steps runs a few thousand times, every other time with stamps at its ends alone.
The gaps, averaged over the calls of middling length, are the steps' times once each has lost what makes the stamped
calls longer than the others: a stamp may cost as much as a small step. What a step could take at best: the products it
makes at the peak rate of their kind, or its bytes at the rate of the cache they fit, the larger.
"""

from __future__ import annotations

import ctypes
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from hasten.errors import InputError
from hasten.host import Peaks, host
from hasten.native.build import compile_library
from hasten.native.compile import Numerics, program_of
from hasten.native.emit import Emitted
from hasten.native.emit_timed import emit_profiled
from hasten.native.isa import Isa, for_host
from hasten.native.kernels.byte_image import in_words
from hasten.native.kernels.dense_chain import DenseChain
from hasten.native.kernels.rounded_dense import RoundedDense
from hasten.native.kernels.word_conv import WordConv
from hasten.native.kernels.word_product import WordProduct
from hasten.native.program import Program, Step, View
from hasten.types import Array

__all__ = ["Profile", "StepTime", "profile"]

_SECONDS, _MOST, _LEAST = 0.5, 4000, 5
_PLAIN = Numerics()


@dataclass(frozen=True)
class StepTime:
    """One step of the compiled program.

    Units:   time_ns: typical nanoseconds; limit_ns: the least that this machine could need; bytes: weights and
             tensors touched
    """

    function: str
    title: str
    nodes: tuple[str, ...]
    time_ns: float
    limit_ns: float | None
    macs: int
    bytes: int
    way: str = ""
    """How it is computed, where there was a choice."""
    timed: bool = False
    """That was found the fastest on this machine, not by a model of it."""
    is_integer: bool = False
    """Its products are of 8- or 16-bit integers."""


@dataclass(frozen=True)
class Profile:
    """A compiled model's time, step by step.

    Units:   call_ns: typical nanoseconds of the whole call, without Python and without stamps inside it, the sum over
             the steps; limit_ns: likewise; stamp_ns: what one stamp between steps cost, already taken off them
    """

    steps: tuple[StepTime, ...]
    call_ns: float
    limit_ns: float | None
    weight_bytes: int
    arena_bytes: int
    source: str
    """The emitted C."""
    stamp_ns: float = 0.0

    def has_rates(self, step: StepTime) -> bool:
        """Whether a step took long enough to divide by: at least half of what was taken off it for its stamp."""
        return step.time_ns > 0 and step.time_ns >= self.stamp_ns / 2


def profile(
    model: ir.Model, isa: Isa, arrays: Sequence[Array], peaks: Peaks | None = None, *,
    numerics: Numerics = _PLAIN, threads: int = 1,
) -> Profile:  # fmt: skip
    """The profile of a graph with static shapes on ``arrays``, timed on one thread.

    ``threads``: of the team that the program is made for. Steps are computed as a build for this machine would: in the
    ways that were found the fastest, where those are kept.

    Raises:  UnsupportedOpError: an operator has no kernel; CompilerError: the compiler failed
    """
    program = program_of(
        model, "model", isa, precision=numerics.precision, activations=numerics.activations, weights=numerics.weights,
        schedule="kept" if isa == for_host() else "model", threads=threads,
    )  # fmt: skip
    emitted = emit_profiled(program, isa, threads=threads, math=numerics.math)
    if len(arrays) != len(program.inputs):
        raise InputError(f"cannot profile: expected {len(program.inputs)} arrays, received {len(arrays)}")
    with tempfile.TemporaryDirectory(prefix="hasten-") as folder:
        library = ctypes.CDLL(str(compile_library(emitted, isa, Path(folder))))
    gaps, call_ns = _measure(library, [np.ascontiguousarray(a) for a in arrays], program, emitted)
    times, stamp_ns = _without_stamps(gaps, call_ns)
    steps = tuple(_step_times(program, emitted, times.tolist(), peaks))
    limits = [s.limit_ns for s in steps if s.limit_ns is not None]
    least = sum(limits) if limits else None
    return Profile(steps, call_ns, least, len(emitted.weights), emitted.arena_bytes, emitted.source, stamp_ns)


def _step_times(program: Program, emitted: Emitted, gaps: Sequence[float], peaks: Peaks | None) -> Iterator[StepTime]:
    """Each call of the emitted code; a step of several calls has its arithmetic and tensors at the first."""
    spared = {index: _spared(program.steps[owner]) for index, owner in enumerate(emitted.owners)}
    resident = len(emitted.weights) - max(spared.values(), default=0) + emitted.arena_bytes
    for index, (name, gap) in enumerate(zip(emitted.calls, gaps, strict=True)):
        step = program.steps[emitted.owners[index]]
        first = index == 0 or emitted.owners[index - 1] != emitted.owners[index]
        macs, products = (step.macs(), step.products()) if first else (0, 0)
        moved = emitted.step_bytes[index] + (_tensor_bytes(step) - spared[index] if first else 0)
        whole = _is_integer(step)
        made = products * _bytes_of(step)
        limit = None if peaks is None else _limit(peaks, made, moved, resident, is_integer=whole)
        timed = emitted.owners[index] in program.timed
        yield StepTime(name, step.title, step.nodes, gap, limit, macs, moved, step.way, timed, whole)


def _tensor_bytes(step: Step) -> int:
    """What it reads and writes besides weights."""
    return sum(_bytes(view) for view in (*step.reads(), *step.writes()) if view.tensor.kind != "constant")


def _spared(step: Step) -> int:
    """Bytes of a table that it does not read, for it picks rows."""
    if not step.TABLE:
        return 0
    return max(0, _bytes(getattr(step, step.TABLE)) - sum(map(_bytes, step.writes())))


def _bytes(view: View) -> int:
    return view.size * np.dtype(view.dtype).itemsize


def _is_integer(step: Step) -> bool:
    return _multiplies_words(step) or any(view.dtype in ("int8", "uint8") for view in step.reads())


def _multiplies_words(step: Step) -> bool:
    layers = step.layers if isinstance(step, DenseChain) else (step,)
    return any(isinstance(layer, (RoundedDense, WordConv, WordProduct)) for layer in layers)


def _bytes_of(step: Step) -> int:
    """Products of bytes that one of its own takes the place of, where the peak of integers is that of bytes."""
    if not _multiplies_words(step):
        return 1
    words = step.words if isinstance(step, WordProduct) else 1
    return words * (1 if in_words(for_host()) else 2)


def _measure(library: ctypes.CDLL, arrays: list[Array], program: Program, emitted: Emitted) -> tuple[Array, float]:
    """Nanoseconds between the stamps after each step, and of a call that has none inside it."""
    library.hasten_weights.restype = ctypes.c_void_p
    weights = library.hasten_weights()
    made = [np.zeros(v.shape, v.dtype) for v in program.outputs]
    arena = np.zeros(emitted.arena_bytes + 128, np.uint8)
    start = (arena.ctypes.data + 63) // 64 * 64
    inputs = (ctypes.c_void_p * max(1, len(arrays)))(*(a.ctypes.data for a in arrays))
    outputs = (ctypes.c_void_p * len(made))(*(y.ctypes.data for y in made))
    ticks = np.zeros(len(emitted.calls) + 2, np.uint64)
    call = library.hasten_profile
    call.argtypes, call.restype = [*[ctypes.c_void_p] * 5, ctypes.c_int], None
    rows: list[Array] = []
    ends: list[Array] = []
    began, first = time.perf_counter_ns(), None
    while len(rows) < _LEAST or (len(rows) < _MOST and time.perf_counter_ns() - began < _SECONDS * 1e9):
        for inner, kept in ((1, rows), (0, ends)):
            call(weights, start, inputs, outputs, ticks.ctypes.data, inner)
            now = time.perf_counter_ns()
            kept.append(ticks.astype(np.int64))
        first = first or (now, int(ends[-1][-1]))
    assert first is not None
    rate = (now - first[0]) / max(1, int(ends[-1][-1]) - first[1])
    gaps = _typical(np.stack(rows[1:])[:, 1:])
    pair, whole = _typical(np.stack(ends[1:])[:, [0, 1, -1]])
    return gaps * rate, float(max(0.0, whole - pair) * rate)


def _without_stamps(gaps: Array, call_ns: float) -> tuple[Array, float]:
    """The steps' times, which add up to the call, and what a stamp cost: as much after every step, of what there is.

    Shapes:  gaps (S,) nanoseconds, each with the stamp at its end · returns (S,)
    """
    if not gaps.size:
        return gaps, 0.0
    stamp_ns = max(0.0, float(gaps.sum() - call_ns) / gaps.size)
    times = np.maximum(gaps - stamp_ns, 0.0)
    total = float(times.sum())
    return (times * (call_ns / total) if total else times), stamp_ns


def _typical(stamps: Array) -> Array:
    """The gaps between the stamps of a call of middling length.

    A processor's clock may advance in strides as long as a step: a median is then a whole stride, or none, whatever the
    step takes. The mean is not, and the steps add up to the call; calls that were interrupted are left out, and as many
    of the shortest.

    Shapes:  stamps (calls, S) integer ticks · returns (S - 1,) ticks
    """
    order = np.argsort(stamps[:, -1] - stamps[:, 0], kind="stable")
    quarter = len(order) // 4
    gaps: Array = np.diff(stamps[order[quarter : len(order) - quarter]], axis=1).mean(axis=0)
    return gaps


def _limit(peaks: Peaks, products: int, moved: int, resident: int, *, is_integer: bool) -> float:
    """The larger of arithmetic at the peak and traffic at the rate of the nearest cache that holds the whole model."""
    peak = peaks.int8_gmac_per_s if is_integer else peaks.gmac_per_s
    arithmetic = products / peak if peak else 0.0
    caches = host().caches
    level = next((name for name in ("L1d", "L2", "L3") if resident <= caches.get(name, 0)), "memory")
    rate = peaks.bandwidth.get(level, peaks.gb_per_s)
    return max(arithmetic, moved / rate if rate else 0.0)
