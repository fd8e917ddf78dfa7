"""A state that decays for a million steps is normal or exactly zero at every one of them, so that no step is slow."""

from __future__ import annotations

import ctypes
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from decaying import decaying
from native_cases import HERE, RUNNABLE

from hasten.native.build import compile_library
from hasten.native.compile import program_of
from hasten.native.emit import Emitted, emit
from hasten.native.isa import isa

STEPS = 1_000_000
TARGETS = [name for name in RUNNABLE if isa(name).arch == "x86_64"]
pytestmark = pytest.mark.skipif(not TARGETS, reason="x86 alone computes with denormals so slowly")

# As a caller's loop: the states of a step go into the next. Their bits are counted as whole numbers, which no mode of
# the processor changes.
LOOP = r"""
typedef void (*run_t)(const unsigned char *, unsigned char *, const void *const *, void *const *);
#define API __attribute__((visibility("default")))
API const unsigned char *hasten_weights(void);
API void hasten_steps(run_t run, const unsigned char *weights, unsigned char *arena, const void *x, unsigned **states,
                      int counts[3], long *found);
const unsigned char *hasten_weights(void) { return 0; }
void hasten_steps(run_t run, const unsigned char *weights, unsigned char *arena, const void *x, unsigned **states,
                  int counts[3], long *found) {
    const int units = counts[0], held = counts[1], steps = counts[2];
    for (int t = 0; t < steps; t++) {
        unsigned **from = states + t % 2 * held, **to = states + (t + 1) % 2 * held;
        const void *in[] = {x, from[0], from[held - 1]};
        run(weights, arena, in, (void *const *)to);
        int denormal = 0, zero = 0;
        for (int s = 0; s < held; s++)
            for (int i = 0; i < units; i++) {
                const unsigned size = to[s][i] & 0x7fffffff;
                denormal += size != 0 && size < 0x00800000;
                zero += size == 0;
            }
        found[0] += denormal > 0;
        found[1] += zero == held * units;
    }
}
"""


@dataclass(frozen=True)
class Decay:
    """Of so many steps: those with a denormal in the state after them, and those after which it was all zero."""

    denormal: int
    zero: int


def decay(emitted: Emitted, target, held: int, units: int) -> Decay:
    """A million steps from a state of ones, nothing coming in."""
    with tempfile.TemporaryDirectory() as folder:
        loop = ctypes.CDLL(str(compile_library(Emitted(LOOP, b"", 0, (), 0), target, Path(folder) / "loop")))
        library = ctypes.CDLL(str(compile_library(emitted, target, Path(folder) / "model")))
        library.hasten_weights.restype = ctypes.c_void_p
        states = [np.ones(units, np.float32) for _ in range(2 * held)]
        arena = np.zeros(emitted.arena_bytes + 128, np.uint8)
        start = ctypes.c_void_p((arena.ctypes.data + 63) // 64 * 64)
        x, found = np.zeros(8, np.float32), np.zeros(2, np.int64)
        rooms = (ctypes.c_void_p * len(states))(*(s.ctypes.data for s in states))
        counts = (ctypes.c_int * 3)(units, held, STEPS)
        loop.hasten_steps(
            library.hasten_run, ctypes.c_void_p(library.hasten_weights()), start, ctypes.c_void_p(x.ctypes.data),
            rooms, counts, ctypes.c_void_p(found.ctypes.data),
        )  # fmt: skip
    return Decay(*found.tolist())


def emitted_for(kind: str, target) -> tuple[Emitted, int]:
    program = program_of(decaying(kind), "case", target)
    assert [v.tensor.index for v in program.inputs] == list(range(len(program.inputs)))
    return emit(program, target), len(program.outputs)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_a_decaying_state_is_normal_or_zero_at_every_step(kind, target):
    emitted, held = emitted_for(kind, isa(target))
    found = decay(emitted, isa(target), held, 20)
    assert found.denormal == 0
    assert STEPS / 2 < found.zero < STEPS * 0.9, "it ends at zero, after a time among small numbers"


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_without_the_processors_mode_it_would_stay_among_denormals(kind):
    emitted, held = emitted_for(kind, HERE)
    assert emitted.source.count("_mm_setcsr(state | 0x8040);") == 1
    changed = replace(emitted, source=emitted.source.replace("_mm_setcsr(state | 0x8040);", ""))
    found = decay(changed, HERE, held, 20)
    assert found.denormal > STEPS / 2 and found.zero == 0
