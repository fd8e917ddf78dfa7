"""Element-wise operators of any dtype → ``Elementwise``; the fuser then folds them into their neighbours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.native.expr import Expr, call, const, is_vector, load, loads
from hasten.native.kernels.elementwise import Elementwise
from hasten.native.kernels.typed import FLOATS, INTEGERS, is_scalar, power_of_two, saturated
from hasten.native.lower_shape import static
from hasten.native.program import C_TYPES, View

if TYPE_CHECKING:
    from hasten.native.lower import Lowering

__all__ = ["LOWER", "apply", "batch_norm", "cast", "compute", "elementwise", "terms"]

Lower = Callable[["Lowering", ir.Node], None]


def compute(low: Lowering, expr: Expr, shape: Sequence[int]) -> View:
    """Adds ``y = expr``; y takes the memory order of its largest operand, so that layouts pass through."""
    operands = [e.view for e in loads(expr) if e.view is not None]
    y = low.new(shape, expr.dtype, _order(operands, len(shape)))
    low.add(Elementwise(y, expr))
    return y


def _order(operands: Sequence[View], rank: int) -> list[int] | None:
    if not operands or rank == 0:
        return None
    full = max(operands, key=lambda v: prod(n for n, s in zip(v.shape, v.strides, strict=True) if s != 0))
    order = list(range(rank))
    return sorted(order, key=lambda d: -abs(full.strides[d]) if full.shape[d] != 1 and full.strides[d] else -(10**18))


def elementwise(low: Lowering, node: ir.Node, expr: Expr, shape: Sequence[int]) -> None:
    """``compute`` for the node's result.

    Raises:  UnsupportedOpError: an operation in it has no C form for its dtype
    """
    if not is_vector(expr) and not is_scalar(expr):
        held = sorted({e.dtype for e in loads(expr)})
        raise UnsupportedOpError(f"op {node.op_type} (node '{node.name}') on {', '.join(held)} has no native kernel")
    low.set(node.outputs[0], compute(low, expr, shape))


def apply(low: Lowering, op: str, *operands: View | float, dtype: str | None = None) -> View:
    """Adds one operation on operands that broadcast; the result has the first view's dtype, or ``dtype``."""
    views = [v for v in operands if isinstance(v, View)]
    shape = np.broadcast_shapes(*(v.shape for v in views))
    own = views[0].dtype
    args = [load(v.broadcast(shape)) if isinstance(v, View) else const(v, own) for v in operands]
    return compute(low, call(op, *args, dtype=dtype or own), shape)


def cast(low: Lowering, view: View, dtype: str) -> View:
    """The view's values in another dtype; itself where it already is."""
    return view if view.dtype == dtype else apply(low, "cast", view, dtype=dtype)


def terms(low: Lowering, values: Sequence[ir.Value | None]) -> tuple[list[Expr], tuple[int, ...]]:
    """An expression for each operand, broadcast together; a constant that never changes is a number."""
    views = [low.view(v) for v in values if low.has(v)]
    shape = np.broadcast_shapes(*(v.shape for v in views))
    return [_term(v, shape) for v in views], shape


def _term(view: View, shape: Sequence[int]) -> Expr:
    data = view.tensor.data
    if data is not None and data.size == 1:
        return const(data.reshape(-1)[0].item(), view.dtype)
    return load(view.broadcast(shape))


def _function(name: str, dtype: str | None = None) -> Lower:
    def lower(low: Lowering, node: ir.Node) -> None:
        found, shape = terms(low, node.inputs)
        elementwise(low, node, call(name, *found, dtype=dtype or found[0].dtype), shape)

    return lower


def _fold(name: str, *, mean: bool = False) -> Lower:
    def lower(low: Lowering, node: ir.Node) -> None:
        found, shape = terms(low, node.inputs)
        expr = found[0]
        for term in found[1:]:
            expr = call(name, expr, term, dtype=expr.dtype)
        if mean and len(found) > 1:
            expr = call("div", expr, const(len(found), expr.dtype), dtype=expr.dtype)
        elementwise(low, node, expr, shape)

    return lower


def _with(name: str, *attributes: tuple[str, float]) -> Lower:
    def lower(low: Lowering, node: ir.Node) -> None:
        (x,), shape = terms(low, node.inputs)
        numbers = [const(node.attributes.get_float(key, default), x.dtype) for key, default in attributes]
        elementwise(low, node, call(name, x, *numbers, dtype=x.dtype), shape)

    return lower


def _clip(low: Lowering, node: ir.Node) -> None:
    view = low.view(node.inputs[0])
    expr = load(view)
    for index, name, attribute in ((1, "clip_low", "min"), (2, "clip_high", "max")):
        if len(node.inputs) > index and low.has(node.inputs[index]):
            expr = call(name, expr, _term(low.view(node.inputs[index]), view.shape), dtype=view.dtype)
        elif attribute in node.attributes:
            expr = call(name, expr, const(node.attributes.get_float(attribute, 0.0), view.dtype), dtype=view.dtype)
    elementwise(low, node, expr, view.shape)


def _gelu(low: Lowering, node: ir.Node) -> None:
    _function("gelu_tanh" if node.attributes.get_string("approximate", "none") == "tanh" else "gelu")(low, node)


def _swish(low: Lowering, node: ir.Node) -> None:
    (x,), shape = terms(low, node.inputs)
    elementwise(low, node, _swished(node, x), shape)


def _swiglu(low: Lowering, node: ir.Node) -> None:
    (gate, x), shape = terms(low, node.inputs)
    elementwise(low, node, call("mul", _swished(node, gate), x, dtype=x.dtype), shape)


def _swished(node: ir.Node, x: Expr) -> Expr:
    alpha = node.attributes.get_float("alpha", 1.0)
    if alpha == 1.0:
        return call("silu", x, dtype=x.dtype)
    gate = call("sigmoid", call("mul", x, const(alpha, x.dtype), dtype=x.dtype), dtype=x.dtype)
    return call("mul", x, gate, dtype=x.dtype)


def _pow(low: Lowering, node: ir.Node) -> None:
    (base, exponent), shape = terms(low, node.inputs)
    own = base.dtype
    if exponent.op == "const" and exponent.value in (1.0, 2.0, 0.5) and own in ("float32", "float64"):
        expr = {1.0: base, 2.0: call("square", base, dtype=own), 0.5: call("sqrt", base, dtype=own)}[exponent.value]
        return elementwise(low, node, expr, shape)
    between = own if own == "float32" or (exponent.dtype in INTEGERS and own in INTEGERS) else "float64"
    sides = [e if e.dtype == between else _as(e, between) for e in (base, exponent)]
    if own == "float32" and exponent.dtype != own and exponent.op != "const":
        sides[1] = load(cast(low, low.view(node.inputs[1]), own).broadcast(shape))
    expr = call("pow", *sides, dtype=between)
    return elementwise(low, node, expr if between == own else call("cast", expr, dtype=own), shape)


def _as(e: Expr, dtype: str) -> Expr:
    return const(e.value, dtype) if e.op == "const" else call("cast", e, dtype=dtype)


def _mod(low: Lowering, node: ir.Node) -> None:
    (a, b), shape = terms(low, node.inputs)
    own = a.dtype
    if node.attributes.get_int("fmod", 0) or own in INTEGERS:
        name = "fmod" if node.attributes.get_int("fmod", 0) else "mod"
        return elementwise(low, node, call(name, a, b, dtype=own), shape)
    # The sign of b: what fmod leaves, moved by one b where the signs differ.
    rest, zero = call("fmod", a, b, dtype=own), const(0.0, own)
    moved = _where(_less(call("mul", rest, b, dtype=own), zero), call("add", rest, b, dtype=own), rest)
    return elementwise(low, node, moved, shape)


def _less(a: Expr, b: Expr) -> Expr:
    return call("lt", a, b, dtype="bool")


def _where(test: Expr, a: Expr, b: Expr) -> Expr:
    if test.args[0].dtype == "float32":
        return call("select_lt", *test.args, a, b)
    return call("where", test, a, b, dtype=a.dtype)


def _is_inf(low: Lowering, node: ir.Node) -> None:
    (x,), shape = terms(low, node.inputs)
    up, down = (node.attributes.get_int(f"detect_{word}", 1) for word in ("positive", "negative"))
    above, below = (call("eq", x, const(v, x.dtype), dtype="bool") for v in (np.inf, -np.inf))
    if up and down:
        expr = call("isinf", x, dtype="bool")
    else:
        expr = above if up else below if down else call("ne", x, x, dtype="bool")
    if not up and not down:
        expr = call("and", expr, const(0, "bool"), dtype="bool")
    elementwise(low, node, expr, shape)


def _shift(low: Lowering, node: ir.Node) -> None:
    found, shape = terms(low, node.inputs)
    direction = node.attributes.get_string("direction", "LEFT").lower()
    elementwise(low, node, call(f"shift_{direction}", *found, dtype=found[0].dtype), shape)


def _choose(low: Lowering, node: ir.Node) -> None:
    found, shape = terms(low, node.inputs)
    elementwise(low, node, call("where", *found, dtype=found[1].dtype), shape)


def _cast(low: Lowering, node: ir.Node) -> None:
    target, view = node.outputs[0].dtype, low.view(node.inputs[0])
    name = "" if target is None else target.numpy().name
    if name not in C_TYPES:
        raise UnsupportedOpError(f"op {node.op_type} (node '{node.name}') to {target} has no native kernel")
    if name == view.dtype:
        return low.set(node.outputs[0], view)
    given = load(view)
    held = bool(node.attributes.get_int("saturate", 1))
    if name == "float8_e8m0fnu":
        given = power_of_two(given, node.attributes.get_string("round_mode", "up"), held=held)
    given = saturated(given, name) if held else given
    return elementwise(low, node, call("cast", given, dtype=name), view.shape)


def _bit_cast(low: Lowering, node: ir.Node) -> None:
    target, view = node.outputs[0].dtype, low.view(node.inputs[0])
    name = "" if target is None else target.numpy().name
    if name not in C_TYPES or np.dtype(name).itemsize != np.dtype(view.dtype).itemsize:
        raise UnsupportedOpError(f"op BitCast (node '{node.name}') from {view.dtype} to {target} has no native kernel")
    low.set(node.outputs[0], compute(low, call("bits", load(view), dtype=name), view.shape))


def _shrink(low: Lowering, node: ir.Node) -> None:
    (x,), shape = terms(low, node.inputs)
    own, bias = x.dtype, const(node.attributes.get_float("bias", 0.0), x.dtype)
    edge = node.attributes.get_float("lambd", 0.5)
    zero = const(0, own)
    inner = call(
        "where", call("gt", x, const(edge, own), dtype="bool"), call("sub", x, bias, dtype=own), zero, dtype=own
    )
    low_side = call("lt", x, const(-edge, own), dtype="bool")
    whole = call("where", low_side, call("add", x, bias, dtype=own), inner, dtype=own)
    if own in INTEGERS:
        raise UnsupportedOpError(f"op Shrink (node '{node.name}') on {own} has no native kernel")
    elementwise(low, node, whole, shape)


def _prelu(low: Lowering, node: ir.Node) -> None:
    view = low.view(node.inputs[0])
    slope = low.view(node.inputs[1]).broadcast(view.shape)
    elementwise(low, node, call("prelu", load(view), load(slope), dtype=view.dtype), view.shape)


def batch_norm(low: Lowering, node: ir.Node) -> None:
    """(x - mean) · scale / √(variance + ε) + bias; with constants it is one multiply-add."""
    x, epsilon = low.view(node.inputs[0]), node.attributes.get_float("epsilon", 1e-5)
    shape = (1, -1, *(1,) * (x.rank - 2)) if x.rank > 1 else (-1,)
    known = [low.constant(v) for v in node.inputs[1:5]]
    if all(k is not None for k in known):
        scale, bias, mean, variance = (np.asarray(k, np.float64) for k in known)
        factor = scale / np.sqrt(variance + epsilon)
        parts = [low.data(a.astype(x.dtype).reshape(shape)) for a in (factor, bias - mean * factor)]
        factor_e, offset = (load(p.broadcast(x.shape)) for p in parts)
        expr = call("add", call("mul", load(x), factor_e, dtype=x.dtype), offset, dtype=x.dtype)
        return elementwise(low, node, expr, x.shape)
    views = [
        low.reshape(cast(low, low.view(v), x.dtype), [x.shape[1] if n == -1 else n for n in shape])
        for v in node.inputs[1:5]
    ]
    scale_v, bias_v, mean_v, variance_v = views
    root = apply(low, "sqrt", apply(low, "add", variance_v, epsilon))
    factor_v = apply(low, "div", scale_v, root)
    low.set(node.outputs[0], apply(low, "add", apply(low, "mul", apply(low, "sub", x, mean_v), factor_v), bias_v))
    return None


def _one_hot(low: Lowering, node: ir.Node) -> None:
    """Every position compares the index with its own number along the axis."""
    index, shape = low.view(node.inputs[0]), static(node, node.outputs[0])
    axis = node.attributes.get_int("axis", -1) % len(shape)
    depth, own = shape[axis], index.dtype
    wide = low.reshape(index, (*shape[:axis], 1, *shape[axis + 1 :])).broadcast(shape)
    count = low.data(np.arange(depth).astype(own).reshape(depth, *(1,) * (len(shape) - axis - 1))).broadcast(shape)
    at = load(wide)
    if not own.startswith("uint"):
        below = call("lt", at, const(0, own), dtype="bool")
        at = call("where", below, call("add", at, const(depth, own), dtype=own), at, dtype=own)
    values = low.view(node.inputs[2])
    off, on = (load(values.slice(0, i, 1).broadcast(shape)) for i in (0, 1))
    elementwise(low, node, call("where", call("eq", at, load(count), dtype="bool"), on, off, dtype=values.dtype), shape)


def _trilu(low: Lowering, node: ir.Node) -> None:
    view = low.view(node.inputs[0])
    k = 0
    if len(node.inputs) > 1 and low.has(node.inputs[1]):
        found = low.constant(node.inputs[1])
        if found is None:
            raise UnsupportedOpError(f"op Trilu (node '{node.name}') with k computed at run time has no native kernel")
        k = int(found.reshape(-1)[0])
    rows, columns = view.shape[-2:]
    keep = np.tri(rows, columns, k if not node.attributes.get_int("upper", 1) else k - 1, dtype=bool)
    keep = ~keep if node.attributes.get_int("upper", 1) else keep
    mask = load(low.data(keep).broadcast(view.shape))
    elementwise(low, node, call("where", mask, load(view), const(0, view.dtype), dtype=view.dtype), view.shape)


def _only(dtypes: Sequence[str], lower: Lower) -> Lower:
    def checked(low: Lowering, node: ir.Node) -> None:
        own = low.view(node.inputs[0]).dtype
        if own not in dtypes:
            raise UnsupportedOpError(f"op {node.op_type} (node '{node.name}') on {own} has no native kernel")
        lower(low, node)

    return checked


_SIMPLE = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Neg": "neg", "Relu": "relu", "Sigmoid": "sigmoid",
    "Tanh": "tanh", "Exp": "exp", "Abs": "abs", "Sqrt": "sqrt", "Floor": "floor", "Ceil": "ceil", "Round": "round",
    "Sign": "sign", "Log": "log", "Erf": "erf", "Softplus": "softplus", "Softsign": "softsign", "Mish": "mish",
    "HardSwish": "hard_swish", "Reciprocal": "reciprocal", "Sin": "sin", "Cos": "cos", "Tan": "tan", "Asin": "asin",
    "Acos": "acos", "Atan": "atan", "Sinh": "sinh", "Cosh": "cosh", "Asinh": "asinh",
    "Acosh": "acosh", "Atanh": "atanh",
}  # fmt: skip
_TRUTHS = {
    "Greater": "gt", "GreaterOrEqual": "ge", "Less": "lt", "LessOrEqual": "le", "Equal": "eq", "And": "and", "Or": "or",
    "Xor": "xor", "Not": "not",
}  # fmt: skip
_BITS = {"BitwiseAnd": "and", "BitwiseOr": "or", "BitwiseXor": "xor", "BitwiseNot": "not"}

LOWER: Mapping[str, Any] = {
    **{op: _function(name) for op, name in _SIMPLE.items()},
    **{op: _function(name, "bool") for op, name in _TRUTHS.items()},
    **{op: _only(INTEGERS, _function(name)) for op, name in _BITS.items()},
    "Max": _fold("maximum"), "Min": _fold("minimum"), "Sum": _fold("add"),
    "Mean": _only(FLOATS, _fold("add", mean=True)),
    "Clip": _clip, "Gelu": _gelu, "Swish": _swish, "SwiGLU": _swiglu, "Pow": _pow, "Mod": _mod,
    "IsNaN": _function("isnan", "bool"), "IsInf": _is_inf, "BitShift": _shift, "Where": _choose, "Cast": _cast,
    "CastLike": _cast, "PRelu": _prelu, "Shrink": _shrink, "OneHot": _one_hot, "Trilu": _trilu, "BitCast": _bit_cast,
    "LeakyRelu": _with("leaky_relu", ("alpha", 0.01)),
    "Elu": _with("elu", ("alpha", 1.0)),
    "Celu": _with("celu", ("alpha", 1.0)),
    "Selu": _with("selu", ("alpha", 1.67326319217681884765625), ("gamma", 1.05070102214813232421875)),
    "HardSigmoid": _with("hard_sigmoid", ("alpha", 0.2), ("beta", 0.5)),
    "ThresholdedRelu": _with("thresholded_relu", ("alpha", 1.0)),
}  # fmt: skip
