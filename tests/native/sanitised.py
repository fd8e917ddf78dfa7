"""Many programs in few executables with AddressSanitizer and UndefinedBehaviorSanitizer: what those find, by case.

Every array that a program is handed is a piece of the heap of exactly its size: inputs, outputs, weights and arena.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from backend_cases import BATCH, Case, compare, joined

from hasten.native.emit import ARGUMENTS, Emitted
from hasten.native.isa import Isa

__all__ = ["findings"]

# Not optimised: every access is still there to be watched, and building takes a third of the time.
FLAGS = ("-std=gnu11", "-O0", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
ENVIRONMENT: Mapping[str, str] = {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}

# Reads the arrays of the cases from argv[1], writes their results to argv[2], a record a case; argv[3]: the first case.
MAIN = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef struct {
    void (*run)(const unsigned char *, unsigned char *, const void *const *, void *const *);
    long at;                               /* of its arrays in the file */
    size_t weights, arena, inputs, arrays; /* bytes; how many arrays there are, inputs first */
    size_t bytes[64];
} item;
static unsigned char *room(size_t alignment, size_t bytes, int filling) {
    void *p = 0;
    if (posix_memalign(&p, alignment, bytes)) exit(7);
    memset(p, filling, bytes);
    return p;
}
static void fill(void *p, size_t bytes, FILE *from) {
    if (fread(p, 1, bytes, from) != bytes) exit(8);
}
int main(int argc, char **argv) {
    FILE *in = fopen(argv[1], "rb"), *out = fopen(argv[2], "wb");
    if (argc != 4 || !in || !out) return 9;
    for (size_t i = strtoul(argv[3], 0, 10); i < sizeof items / sizeof *items; i++) {
        const item *it = &items[i];
        void *arrays[64];
        unsigned char *weights = room(4096, it->weights, 0), *arena = room(64, it->arena, 0xA5);
        fseek(in, it->at, SEEK_SET);
        fill(weights, it->weights, in);
        for (size_t k = 0; k < it->arrays; k++) {
            arrays[k] = room(8, it->bytes[k], 7);
            if (k < it->inputs) fill(arrays[k], it->bytes[k], in);
        }
        it->run(weights, arena, (const void *const *)arrays, arrays + it->inputs);
        for (size_t k = it->inputs; k < it->arrays; k++) fwrite(arrays[k], 1, it->bytes[k], out);
        fputc('.', out);
        fflush(out);
        for (size_t k = 0; k < it->arrays; k++) free(arrays[k]);
        free(weights);
        free(arena);
    }
    return 0;
}
"""


def findings(cases: Iterable[Case], target: Isa, folder: Path, *, size: int = BATCH) -> dict[str, str]:
    """Name → what a sanitizer says of it, or how its results differ from those expected where it has any.

    ``size``: how many cases are built into one executable.
    """
    todo = [case for case in cases if case.program is not None]
    batches = [todo[i : i + size] for i in range(0, len(todo), size)]

    def found(i: int) -> dict[str, str]:
        place = folder / f"{target.name} {i}"
        place.mkdir()
        return _of_batch(batches[i], _build(batches[i], target, place), place)

    with ThreadPoolExecutor(2) as pool:
        return {name: why for part in pool.map(found, range(len(batches))) for name, why in part.items()}


def _build(batch: Sequence[Case], target: Isa, folder: Path) -> list[Emitted]:
    text, emitted = joined([case.program for case in batch if case.program is not None], target)
    items, declared = [], []
    with (folder / "arrays").open("wb") as file:
        for i, (case, made) in enumerate(zip(batch, emitted, strict=True)):
            assert case.program is not None
            nbytes = [a.nbytes for a in case.inputs] + [v.tensor.nbytes for v in case.program.outputs]
            parts = [made.weights, *(np.ascontiguousarray(a).tobytes() for a in case.inputs)]
            counts = f"{len(made.weights)}, {made.arena_bytes}, {len(case.inputs)}, {len(nbytes)}"
            items.append(f"{{p{i}_run, {file.tell()}, {counts}, {{{', '.join(map(str, nbytes)) or 0}}}}},")
            declared.append(f"void p{i}_run({ARGUMENTS});\nconst unsigned char p{i}_weight_data[1];")
            file.write(b"".join(parts))
    table = "\n".join(["static const item items[] = {", *items, "};\n"])
    (folder / "main.c").write_text("\n".join(declared) + MAIN.replace("} item;\n", "} item;\n" + table))
    (folder / "all.c").write_text(text)
    command = ["gcc", *FLAGS, *target.compiler_flags, "-o", "check", "main.c", "all.c", "-lm"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:3000]
    return emitted


def _of_batch(batch: Sequence[Case], emitted: Sequence[Emitted], folder: Path) -> dict[str, str]:
    """The executable stops at its first finding: it is begun again behind that case."""
    found: dict[str, str] = {}
    first = 0
    while first < len(batch):
        ran = subprocess.run(
            ["./check", "arrays", "results", str(first)],
            cwd=folder, capture_output=True, text=True, check=False, env=os.environ | ENVIRONMENT,
        )  # fmt: skip
        records = list(_records(batch[first:], (folder / "results").read_bytes()))
        for case, arrays in zip(batch[first:], records, strict=False):
            try:
                if case.outputs:
                    compare(case, arrays)
            except AssertionError as error:
                found[case.name] = str(error)
        if ran.returncode == 0:
            assert len(records) == len(batch) - first
            break
        first += len(records) + 1
        found[batch[first - 1].name] = ran.stderr[:2000] or f"ended with {ran.returncode}"
    return found


def _records(batch: Sequence[Case], data: bytes) -> Iterator[list[np.ndarray]]:
    """The results of each case that came to its end."""
    at = 0
    for case in batch:
        assert case.program is not None
        views = case.program.outputs
        if at + sum(v.tensor.nbytes for v in views) >= len(data):
            return
        arrays = []
        for view in views:
            arrays.append(np.frombuffer(data, view.dtype, view.size, at).reshape(view.shape))
            at += view.tensor.nbytes
        yield arrays
        at += 1  # the mark behind them
