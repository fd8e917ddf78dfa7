"""Convolutions and pools for the native compiler's tests: one-node models, a float64 reference, and a direct call."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from hasten import host
from hasten.native.compile import Compiled, compile_graph
from hasten.native.isa import ISAS, isa

LIBRARIES = tempfile.TemporaryDirectory(prefix="hasten-test-")
"""The loader takes equal paths for the same library: each has its own, until the tests end."""
ORDER = ("c", "x86-64-v2", "x86-64-v3", "x86-64-v4-base")


@cache
def host_isas() -> tuple[str, ...]:
    """Every instruction set that this machine runs."""
    found = host.isa()
    if found.name == "aarch64":
        return ("c", "aarch64")
    if found.name == "x86-64-v4":
        return (*ORDER, "zen4") if found.whole else ORDER
    return ORDER[: ORDER.index(found.name) + 1] if found.name in ORDER else ("c",)


def numbers(seed: int, *shape: int) -> np.ndarray:
    """Normal random numbers, float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def model_of(
    op: str, x: np.ndarray, weights: dict[str, np.ndarray], attributes: dict[str, Any], then: str = ""
) -> ir.Model:
    """``y = op(x, weights…)``, and ``then`` applied to it."""
    nodes = [helper.make_node(op, ["x", *weights], ["y"], **attributes)]
    if then:
        nodes.append(helper.make_node(then, ["y"], ["z"]))
    graph = helper.make_graph(
        nodes,
        "case",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("z" if then else "y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True))


def build(model: ir.Model, name: str, *, threads: int = 1) -> Compiled:
    """The model compiled for one instruction set."""
    with tempfile.TemporaryDirectory(prefix="hasten-test-") as folder:
        built = compile_graph(model, isa(name), Path(folder), threads=threads)
        library = Path(tempfile.mkdtemp(dir=LIBRARIES.name)) / "model.so"
        library.write_bytes(built.library.read_bytes())
    return Compiled(library, built.emitted, built.program)


GUARD = 64
"""Elements around every output that must keep their value."""


def call(built: Compiled, *inputs: np.ndarray, parts: int = 0) -> tuple[np.ndarray, ...]:
    """One call; ``parts`` threads where more than none. Fails when anything outside the outputs is written."""
    library = ctypes.CDLL(str(built.library))
    library.hasten_weights.restype = ctypes.c_void_p
    room = np.zeros(built.emitted.arena_bytes + 128, np.uint8)
    room[:] = 0xFF  # NaN: what is read before it is written shows
    arena = ctypes.c_void_p(-(-room.ctypes.data // 64) * 64)
    wide = [np.full(v.size + 2 * GUARD, 7, v.dtype) for v in built.program.outputs]
    given = (ctypes.c_void_p * len(inputs))(*(x.ctypes.data for x in inputs))
    taken = (ctypes.c_void_p * len(wide))(*(w[GUARD:].ctypes.data for w in wide))
    weights = ctypes.c_void_p(library.hasten_weights())
    if parts:
        flags = np.zeros(16 * parts + 16, np.uint32)
        _team(library, parts, (weights, arena, given, taken), flags)
    else:
        library.hasten_run(weights, arena, given, taken)
    for w in wide:
        assert (w[:GUARD] == 7).all(), "written before the output"
        assert (w[-GUARD:] == 7).all(), "written past the output"
    return tuple(w[GUARD:-GUARD].reshape(v.shape) for w, v in zip(wide, built.program.outputs, strict=True))


def _team(library: Any, parts: int, arguments: tuple[Any, ...], flags: np.ndarray) -> None:
    import threading

    pointer = ctypes.c_void_p(flags.ctypes.data)
    team = [threading.Thread(target=library.hasten_part, args=(*arguments, p, parts, pointer)) for p in range(parts)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()


def assert_close(got: np.ndarray, want: np.ndarray, scale: float, tolerance: float = 2e-6) -> None:
    """Equal within ``tolerance`` of the largest sum of magnitudes that any output is made of."""
    assert got.shape == want.shape
    worst = float(np.abs(got - want).max(initial=0.0))
    assert worst <= tolerance * scale, f"off by {worst:.3g} at scale {scale:.3g}"


@dataclass(frozen=True)
class Slide:
    """Attributes of a window with every dimension given.

    Shapes:  pads: begins, then ends
    """

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    groups: int = 1

    @property
    def attributes(self) -> dict[str, Any]:
        """For ONNX."""
        return {"strides": self.strides, "dilations": self.dilations, "pads": self.pads}


def conv(x: np.ndarray, w: np.ndarray, b: np.ndarray, slide: Slide) -> np.ndarray:
    """Convolution in float64."""
    rank = x.ndim - 2
    pads = [(0, 0), (0, 0), *zip(slide.pads[:rank], slide.pads[rank:], strict=True)]
    wide = np.pad(x.astype(np.float64), pads)
    sizes = [
        (n - (k - 1) * d - 1) // s + 1
        for n, k, d, s in zip(wide.shape[2:], w.shape[2:], slide.dilations, slide.strides, strict=True)
    ]
    groups, columns = slide.groups, w.shape[0] // slide.groups
    y = np.zeros((x.shape[0], w.shape[0], *sizes)) + b.astype(np.float64).reshape(1, -1, *(1,) * rank)
    for tap in product(*(range(k) for k in w.shape[2:])):
        cut = tuple(
            slice(t * d, t * d + (n - 1) * s + 1, s)
            for t, d, n, s in zip(tap, slide.dilations, sizes, slide.strides, strict=True)
        )
        seen = wide[(slice(None), slice(None), *cut)].reshape(x.shape[0], groups, -1, *sizes)
        taps = w[(slice(None), slice(None), *tap)].astype(np.float64).reshape(groups, columns, -1)
        y += np.einsum("ngc...,gmc->ngm...", seen, taps).reshape(y.shape)
    return y


def conv_transpose(x: np.ndarray, w: np.ndarray, b: np.ndarray, slide: Slide, extra: tuple[int, ...]) -> np.ndarray:
    """Transposed convolution in float64; ``extra`` is ONNX's output_padding."""
    rank, groups = x.ndim - 2, slide.groups
    full = [
        (n - 1) * s + (k - 1) * d + 1 + e
        for n, s, k, d, e in zip(x.shape[2:], slide.strides, w.shape[2:], slide.dilations, extra, strict=True)
    ]
    columns = w.shape[1]
    y = np.zeros((x.shape[0], groups * columns, *full))
    parts = x.astype(np.float64).reshape(x.shape[0], groups, -1, *x.shape[2:])
    for tap in product(*(range(k) for k in w.shape[2:])):
        cut = tuple(
            slice(t * d, t * d + (n - 1) * s + 1, s)
            for t, d, n, s in zip(tap, slide.dilations, x.shape[2:], slide.strides, strict=True)
        )
        taps = w[(slice(None), slice(None), *tap)].astype(np.float64).reshape(groups, -1, columns)
        found = np.einsum("ngc...,gcm->ngm...", parts, taps)
        y[(slice(None), slice(None), *cut)] += found.reshape(x.shape[0], -1, *x.shape[2:])
    begins, ends = slide.pads[:rank], slide.pads[rank:]
    y = y[(slice(None), slice(None), *(slice(p, n - q) for p, q, n in zip(begins, ends, full, strict=True)))]
    return y + b.astype(np.float64).reshape(1, -1, *(1,) * rank)


SANITISED = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
void hasten_run(const unsigned char *, unsigned char *, const void *const *, void *const *);
const unsigned char *hasten_weights(void);
/* argv: arena bytes, output bytes, input files; every buffer exactly as large as it must be */
int main(int argc, char **argv) {
    unsigned char *arena = aligned_alloc(64, (strtoul(argv[1], 0, 10) + 127) / 64 * 64);
    unsigned char *y = malloc(strtoul(argv[2], 0, 10));
    const void *inputs[8];
    void *outputs[1] = {y};
    for (int i = 3; i < argc; i++) {
        FILE *f = fopen(argv[i], "rb");
        fseek(f, 0, SEEK_END);
        long n = ftell(f);
        rewind(f);
        void *x = malloc((size_t)n);
        if (fread(x, 1, (size_t)n, f) != (size_t)n) return 2;
        fclose(f);
        inputs[i - 3] = x;
    }
    hasten_run(hasten_weights(), arena, inputs, outputs);
    fwrite(y, 1, strtoul(argv[2], 0, 10), stdout);
    return 0;
}
"""


def sanitised(compiler: str, built: Compiled, x: np.ndarray, folder: Path, name: str) -> np.ndarray:
    """The answer of a build with AddressSanitizer and UndefinedBehaviorSanitizer; it fails at the first finding."""
    (folder / "main.c").write_text(SANITISED)
    (folder / "model.c").write_text(built.emitted.source)
    (folder / "weights.bin").write_bytes(built.emitted.weights or b"\0")
    (folder / "weights.S").write_text(
        ".section .rodata\n.balign 64\n.globl hasten_weight_data\nhasten_weight_data:\n"
        '.incbin "weights.bin"\n.section .note.GNU-stack,"",%progbits\n'
    )
    x.tofile(folder / "x.bin")
    flags = ["-O2", "-g", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined"]
    flags += ["-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
    march = [f"-march={ISAS[name].march}"] if ISAS[name].march else []
    command = [compiler, *flags, *march, "-o", "case", "main.c", "model.c", "weights.S", "-lm"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (y,) = built.program.outputs
    ran = subprocess.run(
        ["./case", str(built.emitted.arena_bytes), str(4 * y.size), "x.bin"],
        cwd=folder,
        capture_output=True,
        check=False,
        env={"ASAN_OPTIONS": "detect_leaks=0"},
    )
    assert ran.returncode == 0, ran.stderr.decode()[:2000]
    return np.frombuffer(ran.stdout, np.float32).reshape(y.shape)
