"""Every ONNX node test and every kernel family under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import importlib
import itertools
import pkgutil
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from backend_cases import Case, node_cases
from exact_cases import pointwise, shrunk, shrunk_recurrent
from int8_cases import dynamic_layers, layers, small_net
from native_cases import HERE, RUNNABLE, attention, graph, mlp, recurrent
from onnx import helper
from sanitised import findings
from test_native_blocks import BLOCKS
from test_native_branch import nested
from test_native_bytes import SHARED, shared_layer
from test_native_exact import kept, words
from test_native_fuzz import Graph, random_model
from test_native_fuzz_layers import Layers
from test_native_integer import deep_pools
from test_native_norm_channels import CASES as NORMALISED
from test_native_norm_channels import normalised
from test_native_realtime import MODELS as GUARDED
from test_native_row_chain import MODELS as BY_ROWS
from test_native_word_conv import conv as windows

import hasten.native.kernels
from hasten.native.compile import program_of
from hasten.native.emit import Emitter
from hasten.native.isa import Isa, isa
from hasten.native.program import Program, Step, Tensor, View

sys.path.insert(0, str(Path(__file__).parents[1] / "suite"))
from suite_models import CASES

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here")
# Sanitizers do not see masked loads and stores: node tests run on vectors without any.
VECTORS = next((n for n in RUNNABLE if n in ("x86-64-v2", "aarch64")), "c-vector")


def convolution(channels: int, columns: int, sizes: tuple[int, ...], kernel: int, **attributes) -> ir.Model:
    """One layer, padded so that strides alone make the image smaller."""
    rng, rank = np.random.default_rng(channels), len(sizes)
    shape = (columns, channels // attributes.get("group", 1), *[kernel] * rank)
    node = helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER", **attributes)
    out = tuple(-(-n // s) for n, s in zip(sizes, attributes.get("strides", [1] * rank), strict=True))
    weights = {"w": rng.standard_normal(shape).astype(np.float32)}
    return graph([node], {"x": (1, channels, *sizes)}, {"y": (1, columns, *out)}, weights)


# What the table of small models, random graphs and ONNX's own tests have none of, or only of a few values.
MODELS: dict[str, Callable[[], ir.Model]] = {
    **GUARDED,
    "RNN": lambda: recurrent("RNN", 3, 5, 35, direction="reverse"),
    "attention, long": lambda: attention(70, 3, 24),
    **BLOCKS,
    "points": lambda: pointwise(67, 33, (5, 7), stride=2),
    "exact": lambda: shrunk(5, 131, 67),
    "filters": lambda: convolution(24, 40, (13, 11), 3),
    "filters on a line": lambda: convolution(24, 40, (37,), 3),
    "filters, strides": lambda: convolution(3, 19, (13, 11), 5, strides=[2, 3]),
    "filters apart": lambda: convolution(35, 35, (9, 10), 3, group=35),
    "bytes": lambda: ir.from_proto(layers("int8")),
    "bytes without sign": lambda: ir.from_proto(layers("uint8", seed=1)),
    "bytes in depth": lambda: deep_pools(np.zeros((2, 67, 5, 7, 6), np.int8)),
    "bytes at run time": lambda: ir.from_proto(dynamic_layers()),
    "bytes throughout": lambda: ir.from_proto(small_net()),
    **{f"normalised, {name}": partial(normalised, name) for name in NORMALISED},
    **{f"bytes, {name}": partial(shared_layer, name) for name in SHARED},
}
# Programs that an option, other caches or other processors ask for.
OTHERWISE: dict[str, Callable[[Isa], Program]] = {
    "words": lambda target: words(shrunk(18, 101, 67), "case", target),
    "halves of words": lambda target: words(shrunk(1, 101, 67), "case", target, count=2),
    "far weights": lambda target: program_of(mlp([131, 260, 3]), "case", replace(target, near_bytes=1000)),
    "far weights of 21 bits": lambda target: program_of(
        mlp([131, 260, 3]), "case", replace(target, near_bytes=1000), weights="int21"
    ),
    "both directions": lambda target: program_of(
        recurrent("LSTM", 5, 3, 40, direction="bidirectional"), "case", target, threads=2
    ),
    **{
        f"bytes by two, {name}": lambda target, name=name: program_of(shared_layer(name), "case", target, threads=2)
        for name in SHARED
    },
    **{
        f"rows by two, {name}": lambda target, make=make: program_of(make(), "case", target, threads=2)
        for name, (make, _) in BY_ROWS.items()
    },
    "layers between meetings": lambda target: program_of(mlp([200, 385, 131, 77]), "case", target, threads=2),
    "windows of words": lambda target: program_of(
        windows("image, one input channel, stride 2"), "case", target, threads=2, activations="int16"
    ),
    "windows of words, dilated": lambda target: program_of(
        windows("line, dilated"), "case", target, activations="int16"
    ),
    "narrow states": lambda target: kept(shrunk_recurrent("LSTM", 67, batch=2), "case", target),
    "bfloat16": lambda target: program_of(mlp([67, 131, 5]), "case", target, precision="bfloat16"),
    "bfloat16 states": lambda target: program_of(
        recurrent("LSTM", 3, 5, 67, batch=2), "case", target, precision="bfloat16"
    ),
    "float16": lambda target: program_of(mlp([67, 131, 5]), "case", target, precision="float16"),
    "int11-weights": lambda target: program_of(mlp([67, 131, 5]), "case", target, precision="int11-weights"),
    "int11-weights by two": lambda target: program_of(
        mlp([67, 131, 70, 5]), "case", target, precision="int11-weights", threads=2
    ),
    "int8-weights": lambda target: program_of(mlp([67, 131, 5]), "case", target, precision="int8-weights"),
    "int8-weights from memory": lambda target: program_of(
        mlp([37, 31, 5], rows=3), "case", replace(target, second_bytes=0, last_bytes=0), precision="int8-weights"
    ),
}


def families(target: Isa) -> Iterator[Case]:
    """Programs of every kernel family."""
    for case in CASES:
        yield case_of(case.name, program_of(ir.from_proto(case.make()), "case", target))
    for name, make in MODELS.items():
        yield case_of(name, program_of(make(), "case", target))
    for name, lower in OTHERWISE.items():
        yield case_of(name, lower(target))
    for seed in range(8):  # either branch within either branch
        yield case_of(f"branches {seed}", program_of(nested(), "case", target), seed)
    for seed, kind in itertools.product(range(20), (Graph, Layers)):
        model, x = random_model(seed, 10, kind)
        yield Case(f"{kind.__name__} {seed}", program_of(model, "fuzz", target), "", (x,))


def case_of(name: str, program: Program, seed: int = 0) -> Case:
    """The program with random numbers to read: whole ones are 0 or 1, places that every array has."""
    rng = np.random.default_rng(seed)
    arrays = [
        rng.standard_normal(v.shape).astype(v.dtype) if "float" in v.dtype else rng.integers(0, 2, v.shape, v.dtype)
        for v in program.inputs
    ]
    return Case(name, program, "", tuple(arrays))


@pytest.mark.parametrize("target", dict.fromkeys(["c", "c-vector", VECTORS, HERE.name]))
def test_nothing_is_found_in_any_family(target, tmp_path):
    assert findings(families(isa(target)), isa(target), tmp_path) == {}


@pytest.fixture(scope="module")
def onnx_cases():
    return node_cases(isa(VECTORS))


@pytest.mark.parametrize("half", [0, 1])  # a slow machine has the time limit of a test for each
def test_nothing_is_found_in_onnx_node_tests(onnx_cases, half, tmp_path):
    """Their results are compared too."""
    assert sum(case.program is not None for case in onnx_cases) > 1300
    assert findings(onnx_cases[half::2], isa(VECTORS), tmp_path) == {}


def test_every_kernel_is_among_them(onnx_cases):
    for module in pkgutil.iter_modules(hasten.native.kernels.__path__, "hasten.native.kernels."):
        importlib.import_module(module.name)
    cases = [*families(HERE), *families(isa(VECTORS)), *onnx_cases]
    seen = {type(step) for case in cases if case.program is not None for step in case.program.steps}
    kinds: list[type] = [Step]
    for kind in kinds:
        kinds += (k for k in kind.__subclasses__() if k.__module__.startswith("hasten.") and k not in kinds)
    missing = {kind.__name__ for kind in kinds if kind not in seen and not kind.__subclasses__()}
    assert not missing, f"add a model with {sorted(missing)}"


# ---- controls ------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Planted(Step):
    """One statement that no program may hold."""

    x: View
    y: View
    statement: str
    READS = ("x",)
    WRITES = ("y",)

    def emit(self, out: Emitter) -> None:
        signature = [("const float *x", out.pointer(self.x)), ("float *y", out.pointer(self.y, write=True))]
        signature += [("const unsigned char *weights", "weights"), ("unsigned char *arena", "arena")]
        out.function(
            "planted", "what must be found", signature, f"    {self.statement}\n    (void)weights, (void)arena;"
        )


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("y[5] = x[0];", "heap-buffer-overflow"),
        ("y[-1] = x[0];", "heap-buffer-overflow"),
        ("y[0] = x[5];", "heap-buffer-overflow"),
        ("y[0] = weights[1] + x[0];", "heap-buffer-overflow"),
        ("arena[1] = 1, y[0] = x[0];", "heap-buffer-overflow"),
        ("y[0] = (float)(1 << (32 + (x[0] > 100)));", "shift exponent"),
        ("y[0] = (float)(7 / (x[0] > 100));", "division by zero"),
    ],
)
def test_what_is_planted_is_found(statement, finding, tmp_path):
    """In the midst of an executable, and there alone: the program behind it runs too."""
    x = View.whole(Tensor("x", 5, kind="input"), (5,))
    y = View.whole(Tensor("y", 5, kind="output"), (5,))
    wrong = case_of("planted", Program("case", [Planted(x, y, statement)], (x,), (y,)))
    plain = case_of("plain", program_of(mlp([3, 2]), "case", isa("c")))
    differs = replace(plain, name="differs", outputs=(np.full((1, 2), 1e9, np.float32),))
    found = findings([plain, wrong, differs], isa("c"), tmp_path)
    assert list(found) == ["planted", "differs"]
    assert finding in found["planted"] and "Not equal to tolerance" in found["differs"]
