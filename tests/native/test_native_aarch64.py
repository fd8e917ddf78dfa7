"""Emitted code for aarch64, run under qemu: models against the reference, mathematics against float64."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys

import numpy as np
import onnx_ir as ir
import pytest
from int8_cases import small_net
from native_cases import attention, graph, mlp, recurrent
from onnx import TensorProto, helper
from test_native_math import UNARY, check, exact_angles, sweep

from hasten.graph import reference
from hasten.native.build import weights_assembly
from hasten.native.compile import program_of
from hasten.native.emit import ARGUMENTS, emit, inner
from hasten.native.isa import isa
from hasten.native.vectors import MATH, helpers

pytestmark = pytest.mark.skipif(
    shutil.which("qemu-aarch64") is None or importlib.util.find_spec("ziglang") is None,
    reason="needs qemu-aarch64 and ziglang",
)


def convolutions():
    """Dense, depthwise and pooled."""
    rng = np.random.default_rng(3)
    weights = {
        "w": rng.standard_normal((6, 2, 3, 3)).astype(np.float32),
        "d": rng.standard_normal((6, 1, 3, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "d"], ["e"], group=6, strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["e"], ["y"]),
    ]
    return graph(nodes, {"x": (1, 2, 9, 7)}, {"y": (1, 6, 1, 1)}, weights)


def bytes_product():
    """A dense layer over int8: rows quantised as they come, weights by the dot product of bytes."""
    rng = np.random.default_rng(4)
    weights = {"w": rng.integers(-127, 128, (37, 21)).astype(np.int8), "z": np.int8(0)}
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "p"]),
        helper.make_node("MatMulInteger", ["q", "w", "p", "z"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "s"], ["y"]),
    ]
    return graph(nodes, {"x": (3, 37)}, {"y": (3, 21)}, weights)


MODELS = {
    "mlp": lambda: mlp([20, 17, 3], rows=2),
    "tanh": lambda: mlp([13, 40, 5], activation="Tanh"),
    "lstm": lambda: recurrent("LSTM", 5, 3, 10),
    "gru": lambda: recurrent("GRU", 5, 3, 7, batch=2, direction="bidirectional", linear_before_reset=1),
    "attention": lambda: attention(21, 2, 5),
    "conv": convolutions,
    "bytes": bytes_product,
    "bytes_net": lambda: ir.from_proto(small_net()),
}

MAIN = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef void model(const unsigned char *, unsigned char *, const void *const *, void *const *);
%(declarations)s
static unsigned char arena[1 << 20] __attribute__((aligned(64)));
int main(int argc, char **argv) {
    const long room = 1 << 24;
    char *x = malloc((size_t)room), *y = malloc((size_t)room);
    const long n = (long)fread(x, 1, (size_t)room, stdin);
    long size = n;
    if (argc != 2) return 2;
%(cases)s
    return fwrite(y, 1, (size_t)size, stdout) == (size_t)size ? 0 : 1;
}
"""


def sources(target, folder):
    """The C of all models and of every mathematical function of each tier, and a program that runs one of them."""
    declarations, cases, files = [], [], []
    for name, made in MODELS.items():
        program = program_of(made(), name, target)
        emitted = emit(program, target, name)
        assert emitted.arena_bytes <= 1 << 20
        entry = f"void {name}_run({ARGUMENTS})"
        text = f"{emitted.source}{entry};\n{entry} {{ {inner(name)}(weights, arena, inputs, outputs); }}\n"
        (folder / f"{name}.c").write_text(text)
        (folder / f"{name}.bin").write_bytes(emitted.weights or b"\0")
        (folder / f"{name}.S").write_text(weights_assembly(name, f"{name}.bin"))
        files += [f"{name}.c", f"{name}.S"]
        sizes = [int(np.prod(v.shape)) * 4 for v in program.outputs]
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        declarations += [f"model {name}_run;", f"const unsigned char *{name}_weights(void);"]
        outputs = ", ".join(f"y + {at}" for at in starts)
        cases.append(
            f'    if (!strcmp(argv[1], "{name}")) {{ const void *in[] = {{x}}; void *out[] = {{{outputs}}}; '
            f"size = {sum(sizes)}; {name}_run({name}_weights(), arena, in, out); }}"
        )
    for tier in MATH:
        text = "\n".join(helpers(target, [f"v_{n}" for n in UNARY] + ["v_load", "v_store"], math=tier))
        for name in UNARY:
            signature = f"void {tier}_{name}(const float *x, float *y, long n)"
            text += f"\n{signature};\n{signature} {{ for (long i = 0; i < n; i += VL) "
            text += f"v_store(y + i, v_{name}(v_load(x + i))); }}\n"
            declarations.append(f"{signature};")
            call = f"{tier}_{name}((const float *)x, (float *)y, n / 4)"
            cases.append(f'    if (!strcmp(argv[1], "{tier}_{name}")) {call};')
        (folder / f"{tier}.c").write_text(text)
        files.append(f"{tier}.c")
    (folder / "main.c").write_text(MAIN % {"declarations": "\n".join(declarations), "cases": "\n".join(cases)})
    return [*files, "main.c"]


@pytest.fixture(scope="module", params=["aarch64", "aarch64-dotprod"])
def run(request, tmp_path_factory):
    """Runs a model or function by name on the bytes of an array."""
    target, folder = isa(request.param), tmp_path_factory.mktemp(request.param)
    built = subprocess.run(
        [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl", f"-mcpu={target.cpu}", "-static",
         "-O2", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Wextra", "-Werror",
         "-o", "program", *sources(target, folder)],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr[:2000]

    def call(name, x):
        done = subprocess.run(
            ["qemu-aarch64", "./program", name], cwd=folder, input=x.tobytes(), capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return np.frombuffer(done.stdout, np.float32)

    return call


@pytest.mark.parametrize("name", MODELS)
def test_models_answer_like_the_reference(run, name):
    model = MODELS[name]()
    x = np.random.default_rng(1).standard_normal([int(d) for d in model.graph.inputs[0].shape]).astype(np.float32)
    expected = np.concatenate([np.ravel(y) for y in reference.run(model, [x])])
    np.testing.assert_allclose(run(name, x), expected, rtol=1e-5, atol=1e-5)


def thinned():
    """Every 29th value of the sweep and its corners, a whole number of vectors."""
    corners = np.array([0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 88.72, 88.73, -87.3, -103.9, 3.4e38], np.float32)
    x = np.concatenate([corners, sweep()[::29]])
    return x[: len(x) // 4 * 4]


@pytest.mark.parametrize("name", UNARY)
def test_functions_are_within_their_bounds(run, name):
    x, (reference_of, ulps, absolute) = thinned(), UNARY[name]
    with np.errstate(all="ignore"):
        check(x, run(f"default_{name}", x), reference_of(x.astype(np.float64)), ulps, absolute)


@pytest.mark.parametrize("name", UNARY)
def test_strict_functions_are_within_two_ulp(run, name):
    x, (reference_of, ulps, _) = thinned(), UNARY[name]
    with np.errstate(all="ignore"):
        check(x, run(f"strict_{name}", x), reference_of(x.astype(np.float64)), min(ulps, 2), 0)


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_angles_of_every_size_are_within_their_bounds(run, name):
    x, exact = exact_angles()
    check(x, run(f"default_{name}", x), exact[name], UNARY[name][1], 0)


@pytest.mark.parametrize("name", ["exp", "sigmoid", "tanh", "erf", "gelu", "softplus", "log", "silu"])
def test_fast_functions_are_within_their_bound(run, name):
    x = thinned()
    y = run(f"fast_{name}", x)
    with np.errstate(all="ignore"):
        expected = UNARY[name][0](x.astype(np.float64))
        rounded = expected.astype(np.float32)
        np.testing.assert_array_equal(np.isnan(y), np.isnan(rounded))
        finite = np.isfinite(rounded) & np.isfinite(y)
        assert np.max(np.abs(y - expected)[finite] / np.maximum(1, np.abs(expected[finite]))) <= 5e-4
