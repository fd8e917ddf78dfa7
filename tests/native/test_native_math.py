"""Mathematical functions of the emitted code against float64, over a dense sweep of all float32 values."""

from __future__ import annotations

import ctypes
import math
import re
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from native_cases import RUNNABLE, mlp
from scipy import special

from hasten.api.settings import Settings
from hasten.engines import Offer
from hasten.engines.native import ENGINE
from hasten.errors import SettingsError
from hasten.native.build import compile_library
from hasten.native.compile import program_of
from hasten.native.emit import Emitted, emit
from hasten.native.isa import isa
from hasten.native.vectors import MATH, helpers


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# name → (float64 reference, ULP allowed, absolute error allowed beside it)
UNARY = {
    "exp": (np.exp, 2, 0), "expm1": (np.expm1, 6, 0), "log": (np.log, 2, 0), "log1p": (np.log1p, 6, 0),
    "sigmoid": (sigmoid, 4, 0), "tanh": (np.tanh, 6, 0), "erf": (special.erf, 6, 0), "sin": (np.sin, 2, 0),
    "cos": (np.cos, 2, 0), "tan": (np.tan, 6, 0), "atan": (np.arctan, 4, 0), "asin": (np.arcsin, 6, 0),
    "acos": (np.arccos, 6, 0), "sinh": (np.sinh, 6, 0), "cosh": (np.cosh, 6, 0), "asinh": (np.arcsinh, 6, 0),
    "acosh": (np.arccosh, 6, 0), "atanh": (np.arctanh, 6, 0), "relu": (lambda x: np.maximum(x, 0), 0, 0),
    "silu": (lambda x: x * sigmoid(x), 6, 0), "softsign": (lambda x: x / (1 + np.abs(x)), 3, 0),
    "softplus": (lambda x: np.logaddexp(0, x), 6, 0),
    "gelu": (lambda x: x * special.ndtr(x), 6, 0),
    "gelu_tanh": (lambda x: x * sigmoid(1.5957691216057308 * (x + 0.044715 * x**3)), 6, 0),
    "mish": (lambda x: x * np.tanh(np.logaddexp(0, x)), 6, 0), "rsqrt": (lambda x: 1 / np.sqrt(x), 2, 0),
    "reciprocal": (lambda x: 1 / x, 1, 0), "round": (np.round, 0, 0), "floor": (np.floor, 0, 0),
    "ceil": (np.ceil, 0, 0),
    "abs": (np.abs, 0, 0), "sqrt": (np.sqrt, 1, 0), "sign": (np.sign, 0, 0),
    "hard_swish": (lambda x: x * np.clip(x + 3, 0, 6) / 6, 4, 0),
}  # fmt: skip

# What takes numbers beside x: C → (the same in float64, ULP allowed, absolute error allowed). 0.2·x + 0.5 loses
# as much beside -2.5 as the product and the sum are rounded by.
GIVEN = {
    "v_elu(x, v_set1(1.5f))": (lambda x: np.where(x > 0, x, 1.5 * np.expm1(np.minimum(x, 0))), 6, 0),
    "v_celu(x, v_set1(1.5f))": (lambda x: np.where(x > 0, x, 1.5 * np.expm1(np.minimum(x, 0) / 1.5)), 6, 0),
    "v_selu(x, v_set1(1.5f), v_set1(1.25f))": (
        lambda x: 1.25 * np.where(x > 0, x, 1.5 * np.expm1(np.minimum(x, 0))), 6, 0,
    ),
    "v_leaky_relu(x, v_set1(0.125f))": (lambda x: np.where(x < 0, 0.125 * x, x), 1, 0),
    "v_thresholded_relu(x, v_set1(0.5f))": (lambda x: np.where(x > 0.5, x, 0.0 * (x == x)), 0, 0),
    "v_hard_sigmoid(x, v_set1(0.2f), v_set1(0.5f))": (
        lambda x: np.clip(float(np.float32(0.2)) * x + 0.5, 0, 1), 1, 6e-8,
    ),
    "v_weight(v_min(v_set1(0.0f), x), v_set1(0.0f))": (lambda x: np.exp(np.minimum(x, 0)), 6, 0),
}  # fmt: skip


def sweep():
    """About two million values over every exponent and sign, with the corners."""
    bits = np.arange(0, 2**32, 2039, dtype=np.uint64).astype(np.uint32)
    with np.errstate(all="ignore"):
        x = bits.view(np.float32)
    corners = np.array(
        [0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 88.72, 88.73, -87.3, -103.9, 3.4e38, 1e-38], np.float32
    )
    dense = np.linspace(-12, 12, 200_001, dtype=np.float32)
    root = np.linspace(-3.001, -2.999, 10_001, dtype=np.float32)  # of hard swish
    tail = np.linspace(-106, -80, 20_001, dtype=np.float32)  # where e^x goes below the normal numbers
    bell = np.linspace(-15, -3, 100_001, dtype=np.float32)  # where the gelus do
    x = np.concatenate([x, corners, dense, root, tail, bell])
    tiny = (np.abs(x) < np.finfo(np.float32).tiny) & (x != 0)  # denormals count as zero inside a call
    return np.resize(x[~tiny], -(-len(x) // 16) * 16)


@cache
def mapped(instruction_set, math):
    """Every function of one instruction set and tier, compiled into one library that maps arrays."""
    target = isa(instruction_set)
    asked = [f"v_{n}" for n in UNARY] + ["v_load", "v_store", "v_pow", "v_fmod", "v_lstm", "v_set1", "v_min"]
    asked += [text.partition("(")[0] for text in GIVEN]
    text = "\n".join(helpers(target, asked, math=math))
    text += '\n#define API __attribute__((visibility("default")))\n'
    for name in UNARY:
        text += (
            f"API void map_{name}(const float *x, float *y, long n);\n"
            f"void map_{name}(const float *x, float *y, long n) "
            f"{{ for (long i = 0; i < n; i += VL) v_store(y + i, v_{name}(v_load(x + i))); }}\n"
        )
    for number, call in enumerate(GIVEN):
        text += (
            f"API void map_given{number}(const float *p, float *y, long n);\n"
            f"void map_given{number}(const float *p, float *y, long n) "
            f"{{ for (long i = 0; i < n; i += VL) {{ const vf x = v_load(p + i); v_store(y + i, {call}); }} }}\n"
        )
    for name in ("pow", "fmod"):
        text += (
            f"API void map_{name}(const float *a, const float *b, float *y, long n);\n"
            f"void map_{name}(const float *a, const float *b, float *y, long n) "
            f"{{ for (long i = 0; i < n; i += VL) v_store(y + i, v_{name}(v_load(a + i), v_load(b + i))); }}\n"
        )
    text += (
        "API void map_lstm(const float *x, float *c, float *y, long n);\n"
        "void map_lstm(const float *x, float *c, float *y, long n) { for (long i = 0; i < n; i += VL) { "
        "vf a[4], s = v_load(c + i); for (long g = 0; g < 4; g++) a[g] = v_load(x + g * n + i); "
        "v_store(y + i, v_lstm(a, &s)); v_store(c + i, s); } }\n"
    )
    extra = ("-Werror", "-lm") if target.name == "c" else ("-Werror",)
    with tempfile.TemporaryDirectory() as folder:
        return ctypes.CDLL(str(compile_library(Emitted(text, b"", 0, (), 0), target, Path(folder), extra)))


@pytest.fixture(scope="module", params=RUNNABLE)
def functions(request):
    return mapped(request.param, "default")


@pytest.fixture(scope="module", params=RUNNABLE)
def strict(request):
    return mapped(request.param, "strict")


@pytest.fixture(scope="module", params=RUNNABLE)
def fast(request):
    return mapped(request.param, "fast")


def pointer(a):
    return ctypes.c_void_p(a.ctypes.data)


def applied(functions, name, x):
    y = np.empty_like(x)
    getattr(functions, f"map_{name}")(pointer(x), pointer(y), ctypes.c_long(len(x)))
    return y


def check(x, found, expected, ulps, absolute):
    with np.errstate(all="ignore"):
        rounded = expected.astype(np.float32)
        np.testing.assert_array_equal(np.isnan(found), np.isnan(rounded), err_msg="NaN where the reference has one")
        finite = np.isfinite(rounded) & np.isfinite(found)
        big = np.isinf(rounded) | np.isinf(found)
        limit, tiny = np.finfo(np.float32).max, float(np.finfo(np.float32).tiny)
        both = big & ~np.isnan(rounded)
        assert np.all((found[both] == rounded[both]) | (np.abs(expected[both]) > 0.999999 * limit))
        error = np.abs(found[finite].astype(np.float64) - expected[finite])
        size = np.abs(rounded[finite])
        unit = np.where(size < tiny, tiny, np.spacing(size).astype(np.float64))  # denormals count as zero
        bad = error > ulps * unit * 1.001 + absolute + unit * 0.5 * (ulps > 0)
    if bad.any():
        worst = int(np.argmax(np.where(bad, error / unit, 0)))
        at = x[finite][worst]
        raise AssertionError(
            f"{bad.sum()} values off; worst {error[worst] / unit[worst]:.1f} ULP at {at!r}: {found[finite][worst]!r}"
        )


@pytest.mark.parametrize("name", UNARY)
def test_within_its_bound(functions, name):
    reference, ulps, absolute = UNARY[name]
    x = sweep()
    with np.errstate(all="ignore"):
        check(x, applied(functions, name, x), reference(x.astype(np.float64)), ulps, absolute)


@pytest.mark.parametrize("name", UNARY)
def test_strict_functions_are_within_two_ulp(strict, name):
    """Every argument, sines of the largest numbers too; nothing is allowed for cancellation."""
    x = sweep()
    reference, ulps, _ = UNARY[name]
    with np.errstate(all="ignore"):
        check(x, applied(strict, name, x), reference(x.astype(np.float64)), min(ulps, 2), 0)


@pytest.mark.parametrize("number,tier", [(n, tier) for n in range(len(GIVEN)) for tier in ("default", "strict")])
@pytest.mark.parametrize("instruction_set", RUNNABLE)
def test_functions_of_numbers_beside_x_are_within_their_bound(number, tier, instruction_set):
    call, x = list(GIVEN)[number], sweep()
    reference, ulps, absolute = GIVEN[call]
    with np.errstate(all="ignore"):
        y = applied(mapped(instruction_set, tier), f"given{number}", x)
        check(x, y, reference(x.astype(np.float64)), ulps, absolute)


@pytest.mark.parametrize("instruction_set", RUNNABLE)
@pytest.mark.parametrize("name,least", [("gelu", -15), ("gelu_tanh", -11), ("silu", -110)])
def test_far_tails_are_zero_and_not_denormal(name, least, instruction_set):
    """What a call reads next would take a processor long, where denormals do not count as zero."""
    x = np.resize(np.geomspace(-least, 3.4e38, 4000), 4000).astype(np.float32)
    y = applied(mapped(instruction_set, "default"), name, -x)
    np.testing.assert_array_equal(y, np.zeros_like(x))


@pytest.mark.parametrize("instruction_set", RUNNABLE)
def test_what_weighs_nothing_in_a_softmax_is_zero(instruction_set):
    number = next(i for i, call in enumerate(GIVEN) if call.startswith("v_weight"))
    x = np.concatenate([-np.geomspace(87.7, 3.4e38, 4095), [-np.inf]]).astype(np.float32)
    np.testing.assert_array_equal(applied(mapped(instruction_set, "default"), f"given{number}", x), np.zeros_like(x))


BITS = 400  # of 2/π: the largest float32 takes 128 before those that decide what is left of it


@cache
def two_over_pi():
    """2^BITS · 2/π, by Machin's formula."""

    def arctan(n):  # of 1/n
        total, term, k = 0, (1 << 2 * BITS) // n, 1
        while term:
            total, term, k = total + term // k * (2 - k % 4), term // (n * n), k + 2
        return total

    return (1 << 3 * BITS + 1) // (4 * (4 * arctan(5) - arctan(239)))


def least_left(exponent):
    """The m from 2^23 to 2^24 for which m·2^exponent is nearest to a whole number of right angles: a multiple of the
    denominator of a convergent."""
    a, b = 1 << BITS + 150, (two_over_pi() << exponent + 150) % (1 << BITS + 150)
    before, q, found = 0, 1, set()
    while q < 1 << 24:
        found.add(-(-(1 << 23) // q) * q)
        before, q = q, a // b * q + before
        a, b = b, a % b
    return sorted(m for m in found if m < 1 << 24)


def hard_angles():
    """Of every exponent a few arguments with the digits of π they take, and the hardest; NaN and infinities between."""
    rng = np.random.default_rng(3)
    hardest = [(m, e) for e in range(-149, 105) for m in least_left(e) + rng.integers(1 << 23, 1 << 24, 12).tolist()]
    x = np.array([m * 2.0**e for m, e in hardest], np.float32)
    x = np.concatenate([x, -x, np.resize([np.nan, np.inf, -np.inf, 1, 0], 999).astype(np.float32)])
    return np.resize(rng.permutation(x), -(-len(x) // 16) * 16)


def turned(x):
    """The number of right angles in a float32, modulo 4, and what is left of it in radians, by whole numbers alone."""
    m, one = int(abs(x) * 2.0**149), 1 << BITS + 149
    quarters = m * two_over_pi()
    n = (quarters + one // 2) // one
    left = (quarters - n * one) / one * (math.pi / 2)
    return (n % 4, left) if x > 0 else (-n % 4, -left)


@cache
def exact_angles():
    """``hard_angles``, their sines, cosines and tangents."""
    x = hard_angles()
    turns = [turned(float(v)) if np.isfinite(v) else (0, math.nan) for v in x]
    sine = np.array([(math.sin(r), math.cos(r), -math.sin(r), -math.cos(r))[k] for k, r in turns])
    cosine = np.array([(math.cos(r), -math.sin(r), -math.cos(r), math.sin(r))[k] for k, r in turns])
    return x, {"sin": sine, "cos": cosine, "tan": sine / cosine}


@pytest.mark.parametrize("instruction_set", RUNNABLE)
@pytest.mark.parametrize("tier", MATH)
@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_angles_of_every_size_are_reduced_by_as_many_digits_of_pi_as_it_takes(name, tier, instruction_set):
    """Large and small ones side by side in a vector."""
    x, exact = exact_angles()
    ulps = 2 if tier == "strict" else UNARY[name][1]
    check(x, applied(mapped(instruction_set, tier), name, x), exact[name], ulps, 0)


@pytest.mark.parametrize(
    "name", ["exp", "sigmoid", "tanh", "erf", "gelu", "gelu_tanh", "softplus", "log", "silu", "mish"]
)
def test_fast_functions_are_within_their_bound(fast, name):
    """Off by 5e-4 at most, or by that share of a result above 1; NaN and infinities as they must be."""
    x = sweep()
    y = applied(fast, name, x)
    with np.errstate(all="ignore"):
        expected = UNARY[name][0](x.astype(np.float64))
        rounded = expected.astype(np.float32)
        np.testing.assert_array_equal(np.isnan(y), np.isnan(rounded))
        np.testing.assert_array_equal(y[np.isinf(x)], rounded[np.isinf(x)])
        finite = np.isfinite(rounded) & np.isfinite(y)
        assert np.all(finite | np.isnan(rounded) | (y == rounded) | (np.abs(expected) > 3.4e38))
        error = np.abs(y - expected)[finite] / np.maximum(1, np.abs(expected[finite]))
        relative = np.abs(y - expected)[finite] / np.abs(expected[finite])
    assert error.max() <= 5e-4, f"{error.max()} at {x[finite][error.argmax()]}"
    if name == "exp":
        assert np.nanmax(relative[expected[finite] > 1e-37]) <= 5e-4


def test_fast_functions_are_exact_at_zero(fast):
    x = np.zeros(16, np.float32)
    for name, value in (("exp", 1), ("sigmoid", 0.5), ("tanh", 0), ("erf", 0), ("gelu", 0), ("silu", 0)):
        np.testing.assert_array_equal(applied(fast, name, x), np.full(16, value, np.float32), err_msg=name)
    np.testing.assert_array_equal(applied(fast, "log", x + 1), x)


@pytest.mark.parametrize("instruction_set", RUNNABLE)
@pytest.mark.parametrize("tier", MATH)
def test_bounded_functions_stay_in_range(tier, instruction_set):
    functions, x = mapped(instruction_set, tier), sweep()
    for name, low, high in (("sigmoid", 0, 1), ("tanh", -1, 1), ("erf", -1, 1), ("sin", -1, 1), ("cos", -1, 1)):
        y = applied(functions, name, x)
        kept = y[~np.isnan(y)]
        assert kept.min() >= low and kept.max() <= high, name


@pytest.mark.parametrize("instruction_set", RUNNABLE)
@pytest.mark.parametrize("tier,allowed", [("default", 2e-6), ("strict", 1.5e-7), ("fast", 5e-4)])
def test_lstm_cell(tier, allowed, instruction_set):
    """New state and result."""
    functions, n = mapped(instruction_set, tier), 100_000
    rng = np.random.default_rng(2)
    gates, c = rng.normal(0, 4, (4, n)).astype(np.float32), rng.uniform(-1, 1, n).astype(np.float32)
    i, o, f, g = gates.astype(np.float64)
    state = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    y = np.empty_like(c)
    functions.map_lstm(pointer(gates), pointer(c), pointer(y), ctypes.c_long(n))
    np.testing.assert_allclose(c, state, rtol=0, atol=allowed)
    np.testing.assert_allclose(y, sigmoid(o) * np.tanh(state), rtol=0, atol=allowed)


@pytest.mark.parametrize("name,reference", [("pow", np.power), ("fmod", np.fmod)])
def test_binary_functions(functions, name, reference):
    rng = np.random.default_rng(0)
    special_values = np.array(
        [0, -0.0, 1, -1, 2, -2, 3, -3, 0.5, -0.5, np.inf, -np.inf, np.nan, 1e10, -7.25], np.float32
    )
    a, b = (g.reshape(-1) for g in np.meshgrid(special_values, special_values))
    a = np.concatenate(
        [a, rng.uniform(0, 50, 20_000).astype(np.float32), rng.uniform(-9, 9, 20_000).astype(np.float32)]
    )
    b = np.concatenate(
        [b, rng.uniform(-20, 20, 20_000).astype(np.float32), rng.integers(-9, 9, 20_000).astype(np.float32)]
    )
    a, b = (np.resize(v, len(v) // 16 * 16) for v in (a, b))
    y = np.empty_like(a)
    getattr(functions, f"map_{name}")(pointer(a), pointer(b), pointer(y), ctypes.c_long(len(a)))
    with np.errstate(all="ignore"):
        check(a, y, reference(a.astype(np.float64), b.astype(np.float64)), 2, 0)


@pytest.mark.parametrize("asked,offered", [("default", [()]), ("strict", [("strict",)]), ("fast", [(), ("fast",)])])
def test_tiers_are_offered_when_asked_for(asked, offered):
    offer = Offer("onnx", ".onnx", has_graph=True, threads=(1,), math=Settings(math=asked).math)
    assert [tuple(v for _, v in c.options) for c in ENGINE.candidates(offer)] == offered
    assert (Settings(math=asked).allowed is None) == (asked != "fast")


def test_an_unknown_tier_is_refused():
    with pytest.raises(SettingsError, match="math: expected one of default, strict, fast, received 'loose'"):
        Settings(math="loose")
    with pytest.raises(SettingsError, match="unknown mathematics 'loose'"):
        helpers(isa("c"), ["v_exp"], math="loose")


def test_only_the_asked_tier_changes_the_emitted_code():
    program = program_of(mlp([4, 4, 2], activation="Tanh"), "case", isa("c"))
    default, strict, fast = (emit(program, isa("c"), math=tier).source for tier in MATH)
    assert default == emit(program, isa("c")).source
    assert "d_tanh" in strict and "d_tanh" not in default + fast
    assert "v_rcp" in fast and "v_rcp" not in default + strict


@pytest.mark.parametrize("tier", MATH)
@pytest.mark.parametrize("target", RUNNABLE)
def test_every_function_names_what_it_needs(target, tier):
    """Each function is emitted with all that it calls, and before what calls it."""
    for name in [f"v_{n}" for n in UNARY] + ["v_pow", "v_fmod", "v_lstm"]:
        known: set[str] = set()
        for text in helpers(isa(target), [name], math=tier):
            code = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
            defined = set(re.findall(r"\b([vs]_\w+)\(", "\n".join(re.findall(r"^static[^{]*", code, re.MULTILINE))))
            called = set(re.findall(r"\b([vs]_\w+)\(", code)) - defined
            assert called <= known, f"{name}: {called - known} in {sorted(defined)}"
            known |= defined
