"""Vectors of half the width: the same functions, used where they take fewer turns, and nowhere else."""

from __future__ import annotations

import ctypes
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from native_cases import mlp, recurrent
from spatial_cases import assert_close, build, call, host_isas, model_of, sanitised
from test_native_math import UNARY

from hasten.graph import reference
from hasten.native.build import compile_library
from hasten.native.compile import program_of
from hasten.native.emit import Emitted, emit
from hasten.native.isa import ISAS, isa
from hasten.native.vectors import MATH, helpers

HERE = "zen4" in host_isas()
needs_zen4 = pytest.mark.skipif(not HERE, reason="this machine has no AVX-512 with VNNI and BF16")
ANGLES = ("sin", "cos", "tan")


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def conv(depth: int, columns: int, kind: str = "Conv", **attributes: Any) -> tuple[ir.Model, np.ndarray]:
    """A convolution of 3x3 taps, then Relu, and its input."""
    x, groups = numbers(1, depth, 9, 11), attributes.get("group", 1)
    shape = (columns, depth // groups, 3, 3) if kind == "Conv" else (depth, columns // groups, 3, 3)
    given = {"w": numbers(*shape), "b": numbers(columns)}
    return model_of(kind, x, given, {"pads": [1] * 4, **attributes}, "Relu"), x


def pool(channels: int) -> tuple[ir.Model, np.ndarray]:
    x = numbers(1, channels, 8, 8)
    return model_of("AveragePool", x, {}, {"kernel_shape": [3, 3]}), x


def layer(model: ir.Model) -> tuple[ir.Model, np.ndarray]:
    return model, numbers(*model.graph.inputs[0].shape.numpy())


NARROW = {
    "conv": lambda: conv(3, 8, strides=[2, 2]),
    "conv of 24": lambda: conv(5, 24),
    "conv of 40 in the last vector": lambda: conv(16, 37, strides=[2, 2]),
    "minimal filtering": lambda: conv(40, 24),
    "grouped": lambda: conv(12, 16, group=4),
    "depthwise": lambda: conv(8, 8, group=8),
    "depthwise of 20": lambda: conv(20, 20, group=20),
    "transposed": lambda: conv(6, 8, "ConvTranspose", strides=[2, 2]),
    "pool": lambda: pool(8),
    "one row": lambda: layer(mlp([50, 8])),
    "many rows": lambda: layer(mlp([24, 24], rows=30)),
    "LSTM": lambda: layer(recurrent("LSTM", 5, 3, 7)),
    "GRU": lambda: layer(recurrent("GRU", 5, 3, 8)),
}
WIDE = {
    "conv": lambda: conv(3, 16, strides=[2, 2]),
    "depthwise": lambda: conv(32, 32, group=32),
    "pool": lambda: pool(16),
    "row": lambda: layer(mlp([50, 12])),
    "LSTM": lambda: layer(recurrent("LSTM", 5, 3, 20)),
}


def source(model: ir.Model, name: str) -> str:
    return emit(program_of(model, "case", isa(name)), isa(name)).source


@pytest.mark.parametrize("case", NARROW)
def test_few_channels_take_half_vectors(case: str) -> None:
    model, _ = NARROW[case]()
    assert "vf8 " in source(model, "zen4")
    assert "vf8 " not in source(model, "x86-64-v4"), "elsewhere a whole vector takes no longer than half of one"


@pytest.mark.parametrize("case", WIDE)
def test_enough_channels_take_whole_vectors(case: str) -> None:
    model, _ = WIDE[case]()
    assert "vf8 " not in source(model, "zen4")


@needs_zen4
@pytest.mark.parametrize("case", NARROW)
def test_half_vectors_are_right(case: str) -> None:
    model, x = NARROW[case]()
    wanted = reference.run(model, [x])
    for got, want in zip(call(build(model, "zen4"), x), wanted, strict=True):
        assert_close(got, want, float(np.abs(want).max()) + 1, tolerance=5e-6)


@needs_zen4
@pytest.mark.skipif(shutil.which("gcc") is None, reason="sanitisers need gcc")
@pytest.mark.parametrize("case", ["conv of 40 in the last vector", "depthwise of 20"])
def test_half_vectors_under_sanitisers(case: str, tmp_path: Path) -> None:
    model, x = NARROW[case]()
    (want,) = reference.run(model, [x])
    assert_close(sanitised("gcc", build(model, "zen4"), x, tmp_path, "zen4"), want, float(np.abs(want).max()) + 1)


@pytest.mark.parametrize(
    ("name", "columns", "lanes"),
    [
        ("zen4", 1, (8, 16)), ("zen4", 8, (8, 16)), ("zen4", 9, (16,)), ("zen4", 16, (16,)), ("zen4", 24, (8, 16)),
        ("zen4", 25, (16,)), ("zen4", 40, (8, 16)), ("x86-64-v4", 8, (16,)), ("x86-64-v4", 24, (16,)),
        ("x86-64-v3", 4, (8,)), ("c", 3, (1,)),
    ],
)  # fmt: skip
def test_widths_to_choose_from(name: str, columns: int, lanes: tuple[int, ...]) -> None:
    assert tuple(unit.lanes for unit in isa(name).widths(columns)) == lanes


@pytest.mark.parametrize("tier", MATH)
def test_both_widths_in_one_file(tier: str) -> None:
    """Nothing is defined twice, and all that a half function calls is one too."""
    names = [f"{v}_{n}" for n in UNARY for v in ("v", "v8")] + ["v8_lstm", "v8_pow", "v8_store_b", "v8_load_u8_n"]
    text = re.sub(r"/\*.*?\*/", "", "\n".join(helpers(isa("zen4"), names, math=tier)), flags=re.DOTALL)
    heads = re.findall(r"^static[^{;]*?(\w+)\([^{]*\{", text, re.MULTILINE)
    assert "v8_exp" in heads and "v_exp" in heads
    apart = text.replace("#if", "\0").split("\0")[0]  # alternatives under #if share their names
    once = re.findall(r"^static[^{;]*?(\w+)\([^{]*\{", apart, re.MULTILINE)
    assert len(once) == len(set(once))
    assert set(re.findall(r"\b(v8_\w+)\(", text)) <= set(heads)


def test_no_other_target_has_halves() -> None:
    assert [name for name, target in ISAS.items() if target.half] == ["zen4"]


@needs_zen4
def test_half_functions_give_the_same_bits() -> None:
    """Angles alone may differ by a rounding: a vector with a large one is reduced in float64 as a whole."""
    names = [f"{v}_{n}" for n in (*UNARY, "load", "store") for v in ("v", "v8")]
    text = "\n".join(helpers(isa("zen4"), names)) + '\n#define API __attribute__((visibility("default")))\n'
    for name in UNARY:
        for v, lanes in (("v", "VL"), ("v8", "VL8")):
            text += f"API void {v}map_{name}(const float *x, float *y, long n);\n"
            text += f"void {v}map_{name}(const float *x, float *y, long n) {{\n"
            text += f"    for (long i = 0; i < n; i += {lanes}) {v}_store(y + i, {v}_{name}({v}_load(x + i)));\n}}\n"
    with tempfile.TemporaryDirectory() as folder:
        emitted = Emitted(text, b"", 0, (), 0)
        library = ctypes.CDLL(str(compile_library(emitted, isa("zen4"), Path(folder), ("-Werror",))))
    bits = np.arange(0, 2**32, 65_521, dtype=np.uint64).astype(np.uint32)
    x = np.resize(bits.view(np.float32), -(-len(bits) // 16) * 16)
    for name in UNARY:
        whole, half = np.empty_like(x), np.empty_like(x)
        for prefix, y in (("v", whole), ("v8", half)):
            getattr(library, f"{prefix}map_{name}")(
                ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data), ctypes.c_long(len(x))
            )
        if name in ANGLES:
            np.testing.assert_allclose(half, whole, rtol=2e-6, atol=3e-7)
        else:
            np.testing.assert_array_equal(half, whole, err_msg=name)
