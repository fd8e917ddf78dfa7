"""Expressions that are not all float32, one value at a time: C of integers, booleans, float64, float16 and bfloat16.

Loops of these are plain C that the compiler turns into vectors where it can. Nothing is undefined: signed arithmetic
wraps (it runs unsigned), division by zero gives zero, and a float that does not fit an integer is held to its range.
float16, bfloat16 and floats of eight bits or fewer are stored as bits and computed in float32; integers of four or two
bits lie in the low bits of a byte, as numpy holds them, and are computed in eight.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from hasten.native.expr import VECTOR, Expr, call, const

if TYPE_CHECKING:
    from hasten.native.emit import Emitter

__all__ = [
    "COMPARISONS",
    "FLOATS",
    "HALVES",
    "INTEGERS",
    "NARROW",
    "c_type",
    "emit_scalar",
    "is_scalar",
    "number",
    "operation",
    "power_of_two",
    "saturated",
    "vectorised",
]

HALVES = ("float16", "bfloat16")
FLOATS = ("float32", "float64", *HALVES)
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
# mantissa bits, bias, the sign's bit, the largest number's bits, those of infinity (or what stands for it), and of NaN
_SMALL = {
    "float8_e4m3fn": (3, 7, 0x80, 0x7E, 0x7F, 0x7F),
    "float8_e4m3fnuz": (3, 8, 0x80, 0x7F, 0x80, 0x80),
    "float8_e5m2": (2, 15, 0x80, 0x7B, 0x7C, 0x7F),
    "float8_e5m2fnuz": (2, 16, 0x80, 0x7F, 0x80, 0x80),
    "float4_e2m1fn": (1, 1, 0x08, 0x07, 0x07, 0x00),
}
# bits, and the type that they are computed in
_NIBBLES = {"int4": (4, "int8_t"), "uint4": (4, "uint8_t"), "int2": (2, "int8_t"), "uint2": (2, "uint8_t")}
_POWER = "float8_e8m0fnu"  # an exponent alone: powers of two from 2 ** -127 on, and NaN
NARROW = (*_NIBBLES, *_SMALL, _POWER)
COMPARISONS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "eq": "==", "ne": "!="}
# What is added to a number's bits so that those of its exponent are rounded, whether ties go up, and the last exponent.
_ROUNDED_BY = {"up": "0x7fffff, 0", "nearest": "0x3fffff, 1", "down": "0, 0"}
_LAST = {"held": "254", "open": "255"}
_BITS = {"and": "&", "or": "|", "xor": "^"}

# Forms that serve float32 and float64; F stands for the suffix that a C built-in takes for float.
_REAL: dict[str, str] = {
    "add": "({0} + {1})", "sub": "({0} - {1})", "mul": "({0} * {1})", "div": "({0} / {1})", "neg": "(-{0})",
    "square": "({0} * {0})", "abs": "__builtin_fabsF({0})", "sqrt": "__builtin_sqrtF({0})", "reciprocal": "(1 / {0})",
    "floor": "__builtin_floorF({0})", "ceil": "__builtin_ceilF({0})", "round": "__builtin_rintF({0})",
    "relu": "({0} < 0 ? 0 : {0})", "sign": "({0} > 0 ? 1 : {0} < 0 ? -1 : {0})",
    "maximum": "({0} > {1} || {0} != {0} ? {0} : {1})", "minimum": "({0} < {1} || {0} != {0} ? {0} : {1})",
    "clip_low": "({0} < {1} ? {1} : {0})", "clip_high": "({0} > {1} ? {1} : {0})",
    "leaky_relu": "({0} < 0 ? {1} * {0} : {0})", "prelu": "({0} < 0 ? {1} * {0} : {0})",
    "thresholded_relu": "({0} > {1} ? {0} : 0)", "softsign": "({0} / (1 + __builtin_fabsF({0})))",
}  # fmt: skip
# The mathematical functions of float64 come from libm.
_DOUBLE: dict[str, str] = {
    **{
        name: f"__builtin_{name}({{0}})"
        for name in (
            "exp", "log", "log1p", "expm1", "erf", "tanh", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh",
            "asinh", "acosh", "atanh",
        )
    },
    "pow": "__builtin_pow({0}, {1})", "fmod": "__builtin_fmod({0}, {1})", "sigmoid": "(1 / (1 + __builtin_exp(-{0})))",
    "rsqrt": "(1 / __builtin_sqrt({0}))", "silu": "({0} / (1 + __builtin_exp(-{0})))",
    "softplus": "(({0} > 0 ? {0} : 0) + __builtin_log1p(__builtin_exp(-__builtin_fabs({0}))))",
    "gelu": "(0.5 * {0} * __builtin_erfc({0} * -0.70710678118654752440))",
    "gelu_tanh": "({0} / (1 + __builtin_exp(-1.5957691216057307 * ({0} + 0.044715 * {0} * {0} * {0}))))",
    "mish": "({0} * __builtin_tanh(__builtin_log1p(__builtin_exp({0}))))",
    "elu": "({0} > 0 ? {0} : {1} * __builtin_expm1({0}))",
    "celu": "({0} > 0 ? {0} : {1} * __builtin_expm1({0} / {1}))",
    "selu": "({2} * ({0} > 0 ? {0} : {1} * __builtin_expm1({0})))",
    "hard_sigmoid": "__builtin_fmax(0, __builtin_fmin(1, {1} * {0} + {2}))",
    "hard_swish": "({0} * (__builtin_fmax(0, __builtin_fmin(6, {0} + 3)) / 6))",
}  # fmt: skip
# T the type, U an unsigned one in which it cannot overflow, W the wide function's letter.
_WHOLE: dict[str, str] = {
    "add": "(T)((U){0} + (U){1})", "sub": "(T)((U){0} - (U){1})", "mul": "(T)((U){0} * (U){1})",
    "neg": "(T)(0 - (U){0})",
    "square": "(T)((U){0} * (U){0})", "maximum": "({0} > {1} ? {0} : {1})", "minimum": "({0} < {1} ? {0} : {1})",
    "clip_low": "({0} < {1} ? {1} : {0})", "clip_high": "({0} > {1} ? {1} : {0})", "relu": "({0} > 0 ? {0} : 0)",
    "not": "(T)~{0}", "floor": "{0}", "ceil": "{0}", "round": "{0}",
}  # fmt: skip


def c_type(dtype: str) -> str:
    """The C type in which values of the dtype are computed."""
    if dtype in _NIBBLES:
        return _NIBBLES[dtype][1]
    if dtype in _SMALL or dtype == _POWER:
        return "float"
    return {"float64": "double", "bool": "uint8_t"}.get(dtype, "float" if dtype in FLOATS else f"{dtype}_t")


def number(value: float, dtype: str, out: Emitter) -> str:
    """A C literal of the dtype."""
    if dtype == "float64":
        if np.isnan(value):
            return '__builtin_nan("")'
        if np.isinf(value):
            return "__builtin_inf()" if value > 0 else "-__builtin_inf()"
        return repr(float(value))
    if dtype in FLOATS:
        return out.number(value)
    if dtype == "bool":
        return str(int(bool(value)))
    if dtype == "int64":
        return f"INT64_C({value})" if value > -(2**63) else "INT64_MIN"
    if dtype == "uint64":
        return f"UINT64_C({value})"
    return f"(({c_type(dtype)}){value})" if value != -(2**31) else "INT32_MIN"


def _template(e: Expr) -> tuple[str, tuple[str, ...]] | None:
    """The C form of one operation and the functions that it needs; None where there is none."""
    source = e.args[0].dtype if e.args else e.dtype
    if e.op == "where":
        return "({0} ? {1} : {2})", ()
    if e.op == "cast":
        return _cast(source, e.dtype)
    if e.op == "bits":
        return None
    if e.op.startswith("power_of_two"):
        _, mode, most = e.op.rsplit("_", 2)
        return f"s_power({{0}}, {_ROUNDED_BY[mode]}, {_LAST[most]})", ("s_power",)
    if e.op in COMPARISONS:
        return f"({{0}} {COMPARISONS[e.op]} {{1}})", ()
    if e.op in _BITS and source in (*INTEGERS, "bool"):
        return f"(T)({{0}} {_BITS[e.op]} {{1}})".replace("T", c_type(source)), ()
    if source == "bool":
        found = {"not": "(uint8_t)!{0}", "maximum": "(uint8_t)({0} | {1})", "minimum": "(uint8_t)({0} & {1})"}.get(e.op)
        return None if found is None else (found, ())
    if source in INTEGERS:
        return _integer(e.op, source)
    if source in HALVES or source in NARROW:
        return None
    simple = {"isnan": "({0} != {0})", "isinf": "(__builtin_fabsF({0}) == __builtin_infF())", **_REAL}
    suffix = "" if source == "float64" else "f"
    if e.op in simple:
        return simple[e.op].replace("F(", f"{suffix}("), ()
    return (_DOUBLE[e.op], ()) if source == "float64" and e.op in _DOUBLE else None


def _integer(op: str, dtype: str) -> tuple[str, tuple[str, ...]] | None:
    plain, wide = c_type(dtype), "uint64_t" if dtype.endswith("64") else "uint32_t"
    unsigned = dtype.startswith("u")
    bits = np.dtype(dtype).itemsize * 8
    named = {"div": "s_udiv" if unsigned else "s_idiv", "mod": "s_umod" if unsigned else "s_imod",
             "fmod": "s_umod" if unsigned else "s_ifmod", "pow": "s_ipow"}  # fmt: skip
    if op in named:
        inside = "(int64_t){0}, (int64_t){1}" if op == "pow" else "{0}, {1}"
        return f"({plain}){named[op]}({inside})", (named[op],)
    if op == "abs":
        return ("{0}" if unsigned else f"({plain})({{0}} < 0 ? 0 - ({wide}){{0}} : ({wide}){{0}})"), ()
    if op == "sign":
        return (f"({plain})({{0}} > 0)" if unsigned else f"({plain})(({{0}} > 0) - ({{0}} < 0))"), ()
    if op == "shift_left":
        return f"({plain})((uint64_t){{1}} >= {bits} ? 0 : ({wide}){{0}} << {{1}})", ()
    if op == "shift_right" and unsigned:
        return f"({plain})({{1}} >= {bits} ? 0 : {{0}} >> {{1}})", ()
    if op == "shift_right":
        return f"({plain})({{0}} >> ((uint64_t){{1}} >= {bits} ? {bits - 1} : {{1}}))", ()
    if op not in _WHOLE:
        return None
    return _WHOLE[op].replace("T", plain).replace("(U)", f"({wide})"), ()


def _cast(source: str, target: str) -> tuple[str, tuple[str, ...]] | None:
    if target == "bool":
        return "({0} != 0)", ()
    if target in HALVES and source != target:
        name = {"float16": "f16", "bfloat16": "bf16"}[target]
        return f"s_from_{name}(s_to_{name}((float){{0}}))", (f"s_from_{name}", f"s_to_{name}")
    if (target in _SMALL or target == _POWER) and source != target:
        text, needs = _stored("(float){0}", target)
        whole, more = _loaded(text, target)
        return whole, (*needs, *more)
    if target in _NIBBLES and source != target:
        whole, needs = (
            ("s_int32_float((float){0})", ("s_int32_float",)) if source in (*FLOATS, *_SMALL, _POWER) else ("{0}", ())
        )
        return _loaded(whole, target)[0], needs
    if target in INTEGERS and source in (*FLOATS, *_SMALL, _POWER):
        name = f"s_{target}_{'double' if source == 'float64' else 'float'}"
        return f"{name}({{0}})", (name,)
    return f"({c_type(target)}){{0}}", ()


def saturated(x: Expr, dtype: str) -> Expr:
    """A value as float32 held to the range of a float of eight bits or fewer, where NaN stays; as it is for others."""
    if dtype not in _SMALL:
        return x
    mantissa, bias, _, most, *_ = _SMALL[dtype]
    largest = (1 + (most & ((1 << mantissa) - 1)) / (1 << mantissa)) * 2.0 ** ((most >> mantissa) - bias)
    x = x if x.dtype == "float32" else call("cast", x)
    return call("clip_low", call("clip_high", x, const(largest)), const(-largest))


def power_of_two(x: Expr, mode: str, *, held: bool) -> Expr:
    """The power of two that a value is rounded to, "up", "down" or to the "nearest"; past the last of them NaN or held.

    Source:  ONNX operator Cast-24, ``round_mode`` and ``saturate``
    """
    return call(f"power_of_two_{mode}_{'held' if held else 'open'}", x if x.dtype == "float32" else call("cast", x))


def operation(op: str, dtype: str, out: Emitter, *args: str) -> str:
    """The C expression of one operation on C expressions of the dtype."""
    template = _template(Expr(op, tuple(Expr("acc", dtype=dtype) for _ in args), dtype=dtype))
    assert template is not None, f"lowering lets nothing through that has no C form: {op} of {dtype}"
    out.need(*template[1])
    return template[0].format(*args)


def is_scalar(expr: Expr) -> bool:
    """True where every operation below has a plain C form."""
    done: set[int] = set()

    def walk(e: Expr) -> bool:
        if id(e) in done:
            return True
        done.add(id(e))
        return e.op in ("load", "const") or (_template(e) is not None and all(map(walk, e.args)))

    return walk(expr)


def vectorised(expr: Expr) -> Expr | None:
    """The expression all in float32, truth as 1 and 0; None where something in it is neither float32 nor a truth."""
    done: dict[int, Expr | None] = {}

    def walk(e: Expr) -> Expr | None:
        if id(e) not in done:
            done[id(e)] = inside(e)
        return done[id(e)]

    def inside(e: Expr) -> Expr | None:
        if e.op == "const" and e.dtype in ("float32", "bool"):
            return const(float(e.value))
        if e.op in ("load", "acc", "const"):
            return e if e.dtype == "float32" else None
        args = [walk(a) for a in e.args]
        first = args[0]
        if e.op == "where":
            test = e.args[0]
            sides = [walk(a) for a in test.args] if test.op in COMPARISONS else []
            if sides and None not in sides and None not in args[1:]:
                return call(f"select_{test.op}", *sides, *args[1:])  # type: ignore[arg-type]
        if first is None or None in args:
            return None
        if e.op == "where":
            return call("select_ne", first, const(0.0), *args[1:])  # type: ignore[arg-type]
        if e.op in COMPARISONS:
            return call(f"select_{e.op}", *args, const(1.0), const(0.0))  # type: ignore[arg-type]
        if e.op == "cast" and e.dtype in ("float32", "bool"):
            to_truth = e.dtype == "bool" and e.args[0].dtype != "bool"
            return call("select_ne", first, const(0.0), const(1.0), const(0.0)) if to_truth else first
        if e.args[0].dtype == "bool":
            if e.op == "not":
                return call("sub", const(1.0), first)
            if e.op == "xor":
                return call("select_ne", *args, const(1.0), const(0.0))  # type: ignore[arg-type]
            name = {"and": "mul", "or": "maximum", "maximum": "maximum", "minimum": "minimum"}.get(e.op)
            return None if name is None else call(name, *args)  # type: ignore[arg-type]
        return call(e.op, *args) if e.op in VECTOR and e.dtype in ("float32", "bool") else None  # type: ignore[arg-type]

    return walk(expr)


def emit_scalar(expr: Expr, out: Emitter, leaf: Callable[[Expr], str], indent: str) -> tuple[list[str], str]:
    """Statements and the C expression of the result, for one position; ``leaf`` gives that of a ``load``."""
    lines: list[str] = []
    names: dict[int, str] = {}

    def text(e: Expr) -> str:
        if e.op == "const":
            return number(e.value, e.dtype, out)
        if id(e) in names:
            return names[id(e)]
        if e.op == "load":
            found, needs = _loaded(leaf(e), e.dtype)
            out.need(*needs)
        else:
            template = _template(e)
            assert template is not None, f"lowering lets nothing through that has no C form: {e.op} of {e.dtype}"
            out.need(*template[1])
            found = template[0].format(*map(text, e.args))
        name = out.fresh("v")
        lines.append(f"{indent}const {c_type(e.dtype)} {name} = {found};")
        names[id(e)] = name
        return name

    if expr.op == "load":
        return [], leaf(expr)  # a copy moves bits, whatever they mean
    result, needs = _stored(text(expr), expr.dtype)
    out.need(*needs)
    return lines, result


def _loaded(text: str, dtype: str) -> tuple[str, tuple[str, ...]]:
    """The C expression of the value that these bits are, and the functions that it needs."""
    if dtype in _SMALL:
        mantissa, bias, sign, _, infinity, nan = _SMALL[dtype]
        ends = f"{infinity if dtype == 'float8_e5m2' else 0x100:#x}, {nan or 0x100:#x}"
        return f"s_from_small({text}, {mantissa}, {bias}, {sign:#x}, {ends})", ("s_from_small",)
    if dtype == _POWER:
        return f"s_from_exponent({text})", ("s_from_exponent",)
    if dtype in _NIBBLES:
        bits, plain = _NIBBLES[dtype]
        if plain == "uint8_t":
            return f"(uint8_t)({text} & {(1 << bits) - 1})", ()
        return f"(int8_t)((int8_t)((uint8_t){text} << {8 - bits}) >> {8 - bits})", ()
    name = {"float16": "s_from_f16", "bfloat16": "s_from_bf16"}.get(dtype)
    return (text, ()) if name is None else (f"{name}({text})", (name,))


def _stored(text: str, dtype: str) -> tuple[str, tuple[str, ...]]:
    """The C expression of the bits that keep a value, and the functions that it needs."""
    if dtype in _SMALL:
        mantissa, bias, sign, *ends = _SMALL[dtype]
        rest = ", ".join(f"{end:#x}" for end in ends)
        return f"s_to_small({text}, {mantissa}, {bias}, {sign:#x}, {rest})", ("s_to_small",)
    if dtype == _POWER:
        return f"(uint8_t)(s_bits({text}) >> 23)", ("s_bits",)
    if dtype in _NIBBLES:
        return f"(uint8_t)({text} & {(1 << _NIBBLES[dtype][0]) - 1})", ()
    name = {"float16": "s_to_f16", "bfloat16": "s_to_bf16"}.get(dtype)
    return (text, ()) if name is None else (f"{name}({text})", (name,))
