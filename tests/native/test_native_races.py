"""Every kernel family that a team shares out, by two threads under ThreadSanitizer: no part touches what another needs.

Limits are taken away, so that steps of any size are shared. What one thread computes must come out bit by bit.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from backend_cases import Case, joined
from native_cases import HERE, RUNNABLE, mlp
from test_native_row_chain import MODELS as BY_ROWS
from test_native_sanitised import MODELS, case_of
from test_native_team import CASES as SHARED

from hasten.native import compile as compiling
from hasten.native import emit
from hasten.native.compile import program_of
from hasten.native.emit import ARGUMENTS, Emitter
from hasten.native.isa import Isa, isa
from hasten.native.kernels import dense_chain, recurrent_loops
from hasten.native.program import Program, Step, Tensor, View

pytestmark = [
    pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here"),
    pytest.mark.skipif(HERE.arch == "any", reason="plain C has no team"),
]
# The sanitizer does not see masked loads and stores: one set of vectors has none.
TARGETS = tuple(dict.fromkeys(n for n in (HERE.name, "x86-64-v2") if n in RUNNABLE))
FLAGS = ("-std=gnu11", "-O1", "-g", "-fsanitize=thread")
# argv[1]: weights, then the inputs; both ways must give the same outputs, or it ends with 3.
MAIN = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static unsigned char *weights, *arena;
static void *arrays[64];
static unsigned flags[256] __attribute__((aligned(64)));
static unsigned char *room(size_t bytes) {
    unsigned char *p = aligned_alloc(4096, (bytes / 4096 + 1) * 4096);
    memset(p, 7, bytes);
    return p;
}
static void *other(void *run) {
    PART(weights, arena, (const void *const *)arrays, arrays + INPUTS, 1, 2, flags);
    return run;
}
int main(int argc, char **argv) {
    static const size_t bytes[] = {BYTES};
    FILE *in = fopen(argv[argc - 1], "rb");
    void *alone[64];
    weights = room(WEIGHTS);
    if (!in || fread(weights, 1, WEIGHTS, in) != WEIGHTS) return 8;
    for (int k = 0; k < ARRAYS; k++) {
        arrays[k] = room(bytes[k]), alone[k] = k < INPUTS ? arrays[k] : room(bytes[k]);
        if (k < INPUTS && fread(arrays[k], 1, bytes[k], in) != bytes[k]) return 8;
    }
    arena = room(ARENA);
    RUN(weights, arena, (const void *const *)alone, alone + INPUTS);
    arena = room(ARENA);
    pthread_t thread;
    if (pthread_create(&thread, NULL, other, NULL)) return 9;
    PART(weights, arena, (const void *const *)arrays, arrays + INPUTS, 0, 2, flags);
    pthread_join(thread, NULL);
    for (int k = INPUTS; k < ARRAYS; k++)
        if (memcmp(arrays[k], alone[k], bytes[k])) return 3;
    return 0;
}
"""


def findings(cases: Sequence[Case], target: Isa, folder: Path) -> tuple[dict[str, str], int]:
    """Name → what the sanitizer says of it; and how many of the cases a team shares out."""
    text, emitted = joined([case.program for case in cases if case.program is not None], target, threads=2)
    (folder / "all.c").write_text(text)
    _gcc(folder, target, "-c", "all.c", "-o", "all.o")
    shared = [i for i, made in enumerate(emitted) if made.splits]

    def found(i: int) -> str:
        case, made = cases[i], emitted[i]
        assert case.program is not None
        (folder / f"arrays{i}").write_bytes(made.weights + b"".join(a.tobytes() for a in case.inputs))
        nbytes = [a.nbytes for a in case.inputs] + [v.tensor.nbytes for v in case.program.outputs]
        names = {
            "RUN": f"p{i}_run", "PART": f"p{i}_part", "WEIGHTS": len(made.weights), "ARENA": made.arena_bytes,
            "INPUTS": len(case.inputs), "ARRAYS": len(nbytes), "BYTES": ", ".join(map(str, nbytes)),
        }  # fmt: skip
        declared = f"void p{i}_run({ARGUMENTS});\nvoid p{i}_part({ARGUMENTS}, int part, int parts, unsigned *flags);\n"
        data = "".join(f"const unsigned char p{k}_weight_data[1];\n" for k in range(len(emitted)))
        defined = "".join(f"#define {name} {value}\n" for name, value in names.items())
        (folder / f"main{i}.c").write_text(declared + data + defined + MAIN)
        _gcc(folder, target, f"main{i}.c", "all.o", "-o", f"check{i}", "-lm", "-lpthread")
        ran = subprocess.run(
            [f"./check{i}", f"arrays{i}"], cwd=folder, capture_output=True, text=True, check=False, timeout=120,
            env=os.environ | {"TSAN_OPTIONS": "halt_on_error=1"},
        )  # fmt: skip
        return "" if ran.returncode == 0 else ran.stderr[:2000] or f"ended with {ran.returncode}"

    with ThreadPoolExecutor(2) as pool:
        told = dict(zip([cases[i].name for i in shared], pool.map(found, shared), strict=True))
    return {name: why for name, why in told.items() if why}, len(shared)


def _gcc(folder: Path, target: Isa, *arguments: str) -> None:
    command = ["gcc", *FLAGS, *target.compiler_flags, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:3000]


@pytest.fixture
def no_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (emit, compiling):
        monkeypatch.setattr(module, "SPLIT_MACS", 1)
    monkeypatch.setattr(recurrent_loops, "_SPLIT_MACS", 1)
    for name in ("_MEETING", "_LINE"):
        monkeypatch.setattr(dense_chain, name, 0)


def shared(target: Isa) -> Iterator[Case]:
    made: dict[str, Callable[[], ir.Model]] = {**MODELS, **{f"team, {n}": make for n, (make, _) in SHARED.items()}}
    made |= {f"rows, {n}": make for n, (make, _) in BY_ROWS.items()}
    for name, make in made.items():
        yield case_of(name, program_of(make(), "case", target, threads=2))


@pytest.mark.parametrize("target", TARGETS)
def test_no_part_touches_what_another_needs(target: str, no_limits: None, tmp_path: Path) -> None:
    cases = list(shared(isa(target)))
    found, count = findings(cases, isa(target), tmp_path)
    assert found == {}
    assert count > 25, "programs that a team shares out"


@dataclass(eq=False)
class Sum(Step):
    """Each part adds its half of x to y[0]; ``held``: one after the other."""

    x: View
    y: View
    held: bool
    READS, WRITES = ("x",), ("y",)
    kernel, title = "sum", "planted"

    def emit(self, out: Emitter) -> None:
        """Both parts write to one place."""
        wait = "meet(flags, part, parts);" if self.held else ""
        body = f"    if (part == 0) y[0] = x[0];\n    {wait}\n    if (part == parts - 1) y[0] += x[1];\n"
        signature = [("const float *x", out.pointer(self.x)), ("float *y", out.pointer(self.y))]
        out.function(self.kernel, self.title, signature, body, split=True)


def test_a_race_is_found_where_there_is_one(tmp_path: Path) -> None:
    x = View.whole(Tensor("x", 2, kind="input"), (2,))
    y = View.whole(Tensor("y", 1, kind="output"), (1,))
    wrong = case_of("wrong", Program("case", [Sum(x, y, held=False)], (x,), (y,)))
    right = case_of("right", Program("case", [Sum(x, y, held=True)], (x,), (y,)))
    plain = replace(case_of("plain", program_of(mlp([3, 2]), "case", HERE)), inputs=(np.zeros((1, 3), np.float32),))
    found, count = findings([right, wrong, plain], HERE, tmp_path)
    assert count == 2 and list(found) == ["wrong"]
    assert "data race" in found["wrong"]
