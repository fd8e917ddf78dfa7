"""The promises for control loops, each with a positive control that shows the test would notice a breach."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from int8_cases import raw_layers
from native_cases import HERE, Built, attention, graph, mlp, recurrent
from onnx import helper

import hasten
from hasten.native.build import compile_library
from hasten.native.compile import program_of
from hasten.native.emit import Emitted, emit
from hasten.native.isa import isa

pytestmark = pytest.mark.skipif(sys.platform != "linux" or HERE.arch == "any", reason="Linux, x86-64 or aarch64")

# Loads a model, warms it up, then runs it in the mode asked for. malloc and its kin are this program's own and count;
# after prctl(PR_SET_SECCOMP, STRICT) any system call but read, write and exit kills the process.
HARNESS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
static long allocations;
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void __libc_free(void *);
void *malloc(size_t n) { allocations++; return __libc_malloc(n); }
void *calloc(size_t n, size_t size) { allocations++; return __libc_calloc(n, size); }
void *realloc(void *p, size_t n) { allocations++; return __libc_realloc(p, n); }
void free(void *p) { allocations++; __libc_free(p); }
typedef void (*run_t)(const unsigned char *, unsigned char *, const void *const *, void *const *);
int main(int argc, char **argv) {
    const char *mode = argv[2];
    void *library = dlopen(argv[1], RTLD_NOW);
    if (argc < 3 || !library) return 9;
    run_t run = (run_t)dlsym(library, "hasten_run");
    const unsigned char *(*weights)(void) = (const unsigned char *(*)(void))dlsym(library, "hasten_weights");
    static _Alignas(64) unsigned char arena[1 << 20];
    static float in[1 << 16], out[4][1 << 16];
    for (int i = 0; i < 1 << 16; i++) in[i] = (float)(i % 7) - 3;
    const void *inputs[] = {in};
    void *outputs[] = {out[0], out[1], out[2], out[3]};
    for (int i = 0; i < 10; i++) run(weights(), arena, inputs, outputs);
    if (!strcmp(mode, "seccomp") || !strcmp(mode, "seccomp-control")) {
        if (prctl(PR_SET_SECCOMP, 1)) return 8;
        for (int i = 0; i < 1000; i++) run(weights(), arena, inputs, outputs);
        if (!strcmp(mode, "seccomp-control")) syscall(SYS_getpid);
        syscall(SYS_exit, 0);
    }
    allocations = 0;
    for (int i = 0; i < 1000; i++) run(weights(), arena, inputs, outputs);
    if (!strcmp(mode, "malloc-control")) {
        void *volatile p = malloc(1);
        free(p);
        p = calloc(1, 1);
        p = realloc(p, 2);
        free(p);
    }
    return allocations > 100 ? 100 : (int)allocations;
}
"""


@pytest.fixture(scope="module")
def harness():
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder) / "harness.c", Path(folder) / "harness"
        source.write_text(HARNESS)
        if shutil.which("gcc") is None:
            pytest.skip("no gcc here")
        subprocess.run(["gcc", "-O1", "-o", program, source, "-ldl"], check=True)
        models = {}
        for name, model in {"mlp": mlp([20, 10, 2]), "lstm": recurrent("LSTM", 10, 8, 64)}.items():
            emitted = emit(program_of(model, name, HERE), HERE)
            models[name] = compile_library(emitted, HERE, Path(folder) / name)
        yield lambda name, mode: subprocess.run([program, models[name], mode], check=False).returncode


@pytest.mark.parametrize("name", ["mlp", "lstm"])
def test_no_allocation_in_a_call(harness, name):
    assert harness(name, "malloc") == 0
    assert harness(name, "malloc-control") == 5, "the counter must see every malloc, calloc, realloc and free"


def test_a_bound_call_from_python_allocates_nothing(tmp_path):
    """Neither Python's objects nor numpy's arrays; the control makes an array and lets it go."""
    pytest.importorskip("hasten._call")
    onnx.save(ir.to_proto(mlp([20, 10, 2])), tmp_path / "mlp.onnx")
    model, x, y = hasten.compile(tmp_path / "mlp.onnx"), np.ones((1, 20), np.float32), np.empty((1, 2), np.float32)
    bound = model.bind(x, y)

    def most(call) -> int:
        """Bytes that the call held at once beyond those before it."""
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        call()
        return tracemalloc.get_traced_memory()[1] - before

    tracemalloc.start()
    try:
        least = max(most(int) for _ in range(5))  # what the measuring itself takes: a call that makes nothing
        assert min(most(bound) for _ in range(5)) <= least
        assert min(most(lambda: model(x)) for _ in range(5)) > least
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["mlp", "lstm"])
def test_no_system_call_in_a_call(harness, name):
    assert harness(name, "seccomp") == 0
    assert harness(name, "seccomp-control") == -9, "the kernel must kill a process that makes one"


def test_only_known_symbols_are_undefined():
    allowed = {"memcpy", "memset", "memmove"}
    with tempfile.TemporaryDirectory() as folder:
        for i, make in enumerate(MODELS.values()):
            emitted = emit(program_of(make(), "case", HERE), HERE)
            path = compile_library(emitted, HERE, Path(folder) / str(i))
            listed = subprocess.run(["nm", "-D", "--undefined-only", path], capture_output=True, text=True, check=True)
            names = {line.split()[-1].split("@")[0] for line in listed.stdout.splitlines() if line.strip()}
            assert names <= allowed, names - allowed
    listed = subprocess.run(
        ["nm", "-D", "--undefined-only", sys.executable], capture_output=True, text=True, check=True
    )
    assert "U " in listed.stdout, "nm must be able to list undefined symbols"


def test_every_thread_gets_the_same_bits():
    model = recurrent("LSTM", 20, 8, 48)
    built = Built(model, HERE)
    x = np.random.default_rng(0).standard_normal((20, 1, 8)).astype(np.float32)
    expected = [y.tobytes() for y in built(x)]
    wrong = []

    def work():
        for _ in range(50):
            if [y.tobytes() for y in built(x)] != expected:
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


@pytest.mark.skipif(HERE.arch != "x86_64", reason="reads the x86 control register")
def test_the_callers_floating_point_state_is_untouched():
    code = (
        '#include <immintrin.h>\n#define API __attribute__((visibility("default")))\n'
        "API unsigned get(void) { return _mm_getcsr(); }\nAPI void set(unsigned v) { _mm_setcsr(v); }\n"
        "const unsigned char *hasten_weights(void) { return 0; }\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        control = ctypes.CDLL(str(compile_library(Emitted(code, b"", 0, (), 0), HERE, Path(folder))))
    x = np.ones((1, 20), np.float32)
    before = control.get()
    try:
        for built in (Built(mlp([20, 10, 2]), HERE), Built(mlp([20, 100, 2]), HERE)):
            for state in (0x1F80, 0x1F80 | 0x2000, 0x1F80 | 0x8040):  # default; round down; flush to zero
                control.set(state)
                built(x)
                assert control.get() & 0xFFC0 == state & 0xFFC0, "rounding, masks and flush modes as they were"
    finally:
        control.set(before)


def test_only_what_is_brief_and_keeps_no_state_leaves_the_mode_alone_unless_near_zero():
    target = isa("x86-64-v3")
    models = {
        "brief": mlp([20, 10, 2]),
        "longer": mlp([20, 100, 2]),
        "recurrent": recurrent("RNN", 2, 1, 4),
        "a state handed in": graph(
            [helper.make_node("Mul", ["x", "h"], ["y"])], {"x": (4,), "h": (4,)}, {"y": (4,)}, {}
        ),
    }
    sources = {name: emit(program_of(model, "m", target), target).source for name, model in models.items()}
    assert [name for name, source in sources.items() if "near_zero" in source] == ["brief"]


@pytest.mark.parametrize(("scale", "weight"), [(1e-26, 1e-14), (1e-40, 1.0)])
def test_a_brief_call_counts_denormals_as_zero_when_its_input_is_near_zero(scale, weight):
    model = graph(
        [helper.make_node("Mul", ["x", "w"], ["y"])], {"x": (7,)}, {"y": (7,)}, {"w": np.full(7, weight, "f4")}
    )
    built = Built(model, HERE)
    x = np.full(7, scale, np.float32)
    x[3] = 1.0
    assert np.flatnonzero(built(x)[0]).tolist() == [3]


MODELS = {
    "mlp": lambda: mlp([19, 131, 5]),
    "gemm": lambda: mlp([19, 131, 5], rows=7),
    "lstm": lambda: recurrent("LSTM", 3, 5, 21, batch=2, direction="bidirectional"),
    "gru": lambda: recurrent("GRU", 3, 5, 21, linear_before_reset=1),
    "attention": lambda: attention(21, 2, 5),
    "bytes in and out": lambda: ir.from_proto(raw_layers("int8", 67)),
    "few bytes in and out": lambda: ir.from_proto(raw_layers("uint8", 5)),
}


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here")
@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_touched_beyond_an_array(name, tmp_path):
    """Every input and output ends where a page begins that may not be touched."""
    assert _watched(MODELS[name](), HERE, tmp_path, ("-O1",)) == 0


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here")
def test_the_watch_would_notice(tmp_path):
    """An output that is one element short must be reported."""
    assert _watched(mlp([19, 131, 5]), HERE, tmp_path, ("-O1",), short=1) != 0


_GUARDED = r"""
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
static unsigned char *room(size_t n) {
    size_t pages = (n + 4095) / 4096 * 4096;
    unsigned char *p = mmap(0, pages + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(p + pages, 4096, PROT_NONE);
    p += pages - n;
    memset(p, 0, n);
    return p;
}
"""


def _watched(model, target, folder, flags, short=0) -> int:
    program = program_of(model, "case", target)
    emitted = emit(program, target)
    (folder / "model.c").write_text(emitted.source)
    blob = ",".join(map(str, emitted.weights or b"\0"))
    arrays, names = [], []
    for word, views in (("in", program.inputs), ("out", program.outputs)):
        sizes = [v.tensor.nbytes - (4 * short if word == "out" else 0) for v in views]
        arrays += [f"unsigned char *{word}{i} = room({size});" for i, size in enumerate(sizes)]
        names.append(", ".join(f"{word}{i}" for i in range(len(views))))
    (folder / "main.c").write_text(
        _GUARDED + "void hasten_run(const unsigned char *, unsigned char *, const void *const *, void *const *);\n"
        f"_Alignas(64) const unsigned char hasten_weight_data[] = {{{blob}}};\n"
        f"int main(void) {{ {' '.join(arrays)}\n"
        f"unsigned char *arena = aligned_alloc(64, {max(64, emitted.arena_bytes)});\n"
        f"const void *i[] = {{{names[0]}}}; void *o[] = {{{names[1]}}};\n"
        "hasten_run(hasten_weight_data, arena, i, o); return 0; }\n"
    )
    march = (f"-march={target.march}",) if target.march else ()
    command = ["gcc", "-std=gnu11", *march, *flags, "-o", "check", "main.c", "model.c", "-lm"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return subprocess.run([folder / "check"], capture_output=True, check=False).returncode
