"""``keras.ops`` of one element at a time: arithmetic, comparisons, logic, rounding, powers, casts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from hasten.sources.keras.build import Tensor, Unsupported, broadcast
from hasten.sources.keras.scope import Call, Converter, Scope
from hasten.sources.special import erfinv

__all__ = ["OPERATIONS", "operands"]


def operands(g: Scope, call: Call, names: tuple[str, ...] = ("x1", "x2")) -> list[Tensor]:
    """The named arguments, all in the dtype to which Keras promotes them."""
    import keras  # noqa: PLC0415

    values = [call[name] for name in names]
    kinds = [v.dtype if hasattr(v, "dtype") else type(v) for v in values]
    dtype = keras.backend.result_type(
        *(k if isinstance(k, type) else keras.backend.standardize_dtype(k) for k in kinds)
    )
    return [g.tensor(v, dtype) for v in values]


def _binary(kind: str) -> Converter:
    def convert(g: Scope, call: Call) -> Tensor:
        names = tuple(call.arguments)[:2]
        a, b = (g.tensor(call[n], call.dtype) for n in names)
        if call.dtype == "bool":
            logic = {"Add": "Or", "Mul": "And", "Max": "Or", "Min": "And"}.get(kind, kind)
            return g.binary(logic, a, b)
        return g.binary(kind, a, b)

    return convert


def _compare(kind: str, *, inverted: bool = False) -> Converter:
    def convert(g: Scope, call: Call) -> Tensor:
        a, b = operands(g, call)
        if a.dtype == "bool" and kind != "Equal":
            a, b = g.cast(a, "int32"), g.cast(b, "int32")
        found = g.binary(kind, a, b, dtype="bool")
        return g.unary("Not", found) if inverted else found

    return convert


def _logic(kind: str) -> Converter:
    def convert(g: Scope, call: Call) -> Tensor:
        return g.binary(kind, g.tensor(call["x1"], "bool"), g.tensor(call["x2"], "bool"))

    return convert


def _unary(kind: str) -> Converter:
    def convert(g: Scope, call: Call) -> Tensor:
        return g.unary(kind, g.tensor(call.first, call.dtype))

    return convert


def _formula(write: Callable[[Scope, Tensor], Tensor]) -> Converter:
    def convert(g: Scope, call: Call) -> Tensor:
        return write(g, g.tensor(call.first, call.dtype))

    return convert


def _test(kind: str) -> Converter:
    def convert(g: Scope, call: Call) -> Tensor:
        x = g.tensor(call.first)
        if x.dtype not in ("float16", "bfloat16", "float32", "float64"):
            x = g.cast(x, "float32")
        return g.op(kind, [x], x.shape, dtype="bool")

    return convert


def identity(g: Scope, call: Call) -> Tensor:
    """The input as it is, in the dtype asked for."""
    found: Tensor = g.tensor(call.first, call.dtype)
    return found


def _power(g: Scope, call: Call) -> Tensor:
    return g.binary("Pow", g.tensor(call["x1"], call.dtype), g.tensor(call["x2"], call.dtype))


def _floor_divide(g: Scope, call: Call) -> Tensor:
    a, b = g.tensor(call["x1"], call.dtype), g.tensor(call["x2"], call.dtype)
    if call.dtype.startswith("float"):
        return g.unary("Floor", g.div(a, b))
    wide = g.div(g.cast(a, "float64"), g.cast(b, "float64"))
    return g.cast(g.unary("Floor", wide), call.dtype)


def _mod(g: Scope, call: Call) -> Tensor:
    a, b = g.tensor(call["x1"], call.dtype), g.tensor(call["x2"], call.dtype)
    if not call.dtype.startswith("float"):
        return g.binary("Mod", a, b)
    return g.sub(a, g.mul(g.unary("Floor", g.div(a, b)), b))


def _divide_no_nan(g: Scope, call: Call) -> Tensor:
    a, b = g.tensor(call["x1"], call.dtype), g.tensor(call["x2"], call.dtype)
    zero = g.binary("Equal", b, 0.0, dtype="bool")
    return g.where(zero, g.constant(0.0, call.dtype), g.div(a, g.where(zero, g.constant(1.0, call.dtype), b)))


def _clip(g: Scope, call: Call) -> Tensor:
    x = g.tensor(call.first, call.dtype)
    low, high = (g.tensor(call.setting(n), call.dtype) for n in ("x_min", "x_max"))
    if low.rank == high.rank == 0:
        return g.op("Clip", [x, low, high], x.shape)
    return g.binary("Min", g.binary("Max", x, low), high)


def _where(g: Scope, call: Call) -> Tensor:
    if call["x1"] is None:
        raise Unsupported("where of a condition alone has an output of unknown length")
    condition = g.tensor(call["condition"], "bool")
    g.mixes |= condition.rank == 0 and condition.constant is None
    a, b = g.tensor(call["x1"], call.dtype), g.tensor(call["x2"], call.dtype)
    return g.op("Where", [condition, a, b], broadcast(condition.shape, a.shape, b.shape), dtype=call.dtype)


def _round(g: Scope, call: Call) -> Tensor:
    x = g.tensor(call.first, call.dtype)
    scale = 10.0 ** (call.setting("decimals") or 0)
    return g.unary("Round", x) if scale == 1 else g.div(g.unary("Round", g.mul(x, scale)), scale)


def _like(value: float | None) -> Converter:
    def convert(g: Scope, call: Call) -> Tensor:
        x = g.tensor(call.first)
        fill = g.tensor(call["fill_value"] if value is None else value, call.dtype)
        return g.expand(fill, x.shape, like=x)

    return convert


def _full(g: Scope, call: Call) -> Tensor:
    return g.expand(g.tensor(call.first, call.dtype), call.shape)


def _log_of(base: float) -> Callable[[Scope, Tensor], Tensor]:
    return lambda g, x: g.mul(g.unary("Log", x), 1.0 / math.log(base))


def _arctan2(g: Scope, call: Call) -> Tensor:
    y, x = g.tensor(call["x1"], call.dtype), g.tensor(call["x2"], call.dtype)
    safe = g.where(g.binary("Equal", x, 0.0, dtype="bool"), g.constant(1.0, call.dtype), x)
    base = g.unary("Atan", g.div(y, safe))
    up = g.binary("GreaterOrEqual", y, 0.0, dtype="bool")
    turned = g.add(base, g.where(up, g.constant(math.pi, call.dtype), g.constant(-math.pi, call.dtype)))
    left = g.where(g.binary("Less", x, 0.0, dtype="bool"), turned, base)
    upright = g.mul(g.unary("Sign", y), math.pi / 2)
    return g.where(g.binary("Equal", x, 0.0, dtype="bool"), upright, left)


def _logaddexp(g: Scope, call: Call) -> Tensor:
    a, b = g.tensor(call["x1"], call.dtype), g.tensor(call["x2"], call.dtype)
    gap = g.unary("Neg", g.unary("Abs", g.sub(a, b)))
    return g.add(g.binary("Max", a, b), g.unary("Log", g.add(g.unary("Exp", gap), 1.0)))


class _Nodes:
    """Writes the nodes of a formula by their operators' names; numbers are constants of the tensors' dtype."""

    def __init__(self, g: Scope, dtype: str) -> None:
        self._g, self._dtype = g, dtype

    def __getattr__(self, kind: str) -> Callable[..., Tensor]:
        def write(*operands: Tensor | float) -> Tensor:
            given = [v if isinstance(v, Tensor) else self._g.constant(v, self._dtype) for v in operands]
            dtype = "bool" if kind in ("Less", "Equal", "IsInf") else self._dtype
            return self._g.op(kind, given, broadcast(*(t.shape for t in given)), dtype=dtype)

        return write


def _special(formula: Callable[[Any, Any], Any]) -> Converter:
    def convert(g: Scope, call: Call) -> Any:
        if call.dtype == "float64":
            raise Unsupported(
                f"{type(call.layer).__name__} of float64: expected float32, to which its formula is exact"
            )
        return g.cast(formula(_Nodes(g, "float32"), g.tensor(call.first, "float32")), call.dtype)

    return convert


def _nan_to_num(g: Scope, call: Call) -> Tensor:
    x = g.tensor(call.first, call.dtype)
    limits: Any = np.finfo(call.dtype)
    high, low = call.setting("posinf"), call.setting("neginf")
    x = g.where(g.op("IsNaN", [x], x.shape, dtype="bool"), g.constant(call.setting("nan"), call.dtype), x)
    for sign, value in (
        ("detect_negative", limits.max if high is None else high),
        ("detect_positive", limits.min if low is None else low),
    ):
        found = g.op("IsInf", [x], x.shape, dtype="bool", attributes={sign: 0})
        x = g.where(found, g.constant(value, call.dtype), x)
    return x


OPERATIONS: dict[str, Converter] = {
    "Add": _binary("Add"),
    "Subtract": _binary("Sub"),
    "Multiply": _binary("Mul"),
    "Divide": _binary("Div"),
    "TrueDivide": _binary("Div"),
    "DivideNoNan": _divide_no_nan,
    "FloorDivide": _floor_divide,
    "Mod": _mod,
    "Power": _power,
    "Maximum": _binary("Max"),
    "Minimum": _binary("Min"),
    "Fmax": _binary("Max"),
    "Fmin": _binary("Min"),
    "Equal": _compare("Equal"),
    "NotEqual": _compare("Equal", inverted=True),
    "Greater": _compare("Greater"),
    "GreaterEqual": _compare("GreaterOrEqual"),
    "Less": _compare("Less"),
    "LessEqual": _compare("LessOrEqual"),
    "LogicalAnd": _logic("And"),
    "LogicalOr": _logic("Or"),
    "LogicalXor": _logic("Xor"),
    "LogicalNot": lambda g, call: g.unary("Not", g.tensor(call.first, "bool")),
    "BitwiseAnd": _binary("BitwiseAnd"),
    "BitwiseOr": _binary("BitwiseOr"),
    "BitwiseXor": _binary("BitwiseXor"),
    "Absolute": _unary("Abs"),
    "Abs": _unary("Abs"),
    "Fabs": _unary("Abs"),
    "Negative": _unary("Neg"),
    "Sign": _unary("Sign"),
    "Ceil": _unary("Ceil"),
    "Floor": _unary("Floor"),
    "Trunc": _formula(lambda g, x: g.mul(g.unary("Sign", x), g.unary("Floor", g.unary("Abs", x)))),
    "Round": _round,
    "Exp": _unary("Exp"),
    "Exp2": _formula(lambda g, x: g.unary("Exp", g.mul(x, math.log(2)))),
    "Expm1": _formula(lambda g, x: g.sub(g.unary("Exp", x), 1.0)),
    "Log": _unary("Log"),
    "Log1p": _formula(lambda g, x: g.unary("Log", g.add(x, 1.0))),
    "Log2": _formula(_log_of(2)),
    "Log10": _formula(_log_of(10)),
    "Logaddexp": _logaddexp,
    "Sqrt": _unary("Sqrt"),
    "Rsqrt": _formula(lambda g, x: g.unary("Reciprocal", g.unary("Sqrt", x))),
    "Square": _formula(lambda g, x: g.mul(x, x)),
    "Reciprocal": _unary("Reciprocal"),
    "Sin": _unary("Sin"),
    "Cos": _unary("Cos"),
    "Tan": _unary("Tan"),
    "Sinh": _unary("Sinh"),
    "Cosh": _unary("Cosh"),
    "Tanh": _unary("Tanh"),
    "Arcsin": _unary("Asin"),
    "Arccos": _unary("Acos"),
    "Arctan": _unary("Atan"),
    "Arcsinh": _unary("Asinh"),
    "Arccosh": _unary("Acosh"),
    "Arctanh": _unary("Atanh"),
    "Arctan2": _arctan2,
    "Erf": _unary("Erf"),
    "Erfinv": _special(erfinv),
    "Hypot": lambda g, call: g.unary("Sqrt", g.add(*(g.mul(t, t) for t in operands(g, call)))),
    "Deg2rad": _formula(lambda g, x: g.mul(x, math.pi / 180)),
    "Rad2deg": _formula(lambda g, x: g.mul(x, 180 / math.pi)),
    "Isnan": _test("IsNaN"),
    "Isinf": _test("IsInf"),
    "Isfinite": lambda g, call: g.unary("Not", g.binary("Or", _test("IsNaN")(g, call), _test("IsInf")(g, call))),
    "NanToNum": _nan_to_num,
    "Clip": _clip,
    "Where": _where,
    "ZerosLike": _like(0.0),
    "OnesLike": _like(1.0),
    "FullLike": _like(None),
    "Full": _full,
    "Cast": identity,
    "Copy": identity,
    "Array": identity,
    "ConvertToTensor": identity,
    "StopGradient": identity,
    "Real": identity,
}
