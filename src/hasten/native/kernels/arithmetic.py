"""Element-wise operators of float32 → ``Elementwise``; the fuser then folds them into their neighbours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.native.expr import Expr, call, const, load
from hasten.native.kernels.elementwise import Elementwise
from hasten.native.program import View

if TYPE_CHECKING:
    from hasten.native.lower import Lowering

__all__ = ["LOWER", "elementwise"]


def elementwise(low: Lowering, node: ir.Node, expr: Expr, operands: tuple[View, ...]) -> None:
    """Adds ``y = expr`` for the node; y takes the memory order of its largest operand, so that layouts pass through."""
    shape = operands[0].shape
    full = max(operands, key=lambda v: prod(n for n, s in zip(v.shape, v.strides, strict=True) if s != 0))
    order = sorted(
        range(len(shape)), key=lambda d: -full.strides[d] if full.shape[d] != 1 and full.strides[d] else -(10**18)
    )
    y = low.new(shape, "float32", order)
    low.add(Elementwise(y, expr))
    low.set(node.outputs[0], y)


def _operands(low: Lowering, node: ir.Node) -> tuple[View, ...]:
    views = [low.view(v) for v in node.inputs if low.has(v)]
    for v in views:
        if v.dtype != "float32":
            raise UnsupportedOpError(f"op {node.op_type} (node '{node.name}') on {v.dtype} has no native kernel")
    shape = np.broadcast_shapes(*(v.shape for v in views))
    return tuple(v.broadcast(shape) for v in views)


def _term(view: View) -> Expr:
    """A number where the operand is a constant that never changes, else a load."""
    data = view.tensor.data
    if data is not None and data.size == 1:
        return const(float(data.reshape(-1)[0]))
    return load(view)


def _function(name: str) -> Callable[[Lowering, ir.Node], None]:
    def lower(low: Lowering, node: ir.Node) -> None:
        views = _operands(low, node)
        elementwise(low, node, call(name, *map(_term, views)), views)

    return lower


def _fold(name: str, *, mean: bool = False) -> Callable[[Lowering, ir.Node], None]:
    def lower(low: Lowering, node: ir.Node) -> None:
        views = _operands(low, node)
        terms = list(map(_term, views))
        expr = terms[0]
        for term in terms[1:]:
            expr = call(name, expr, term)
        if mean and len(terms) > 1:
            expr = call("mul", expr, const(1.0 / len(terms)))
        elementwise(low, node, expr, views)

    return lower


def _with(name: str, *attributes: tuple[str, float]) -> Callable[[Lowering, ir.Node], None]:
    def lower(low: Lowering, node: ir.Node) -> None:
        (view,) = _operands(low, node)
        numbers = [const(node.attributes.get_float(key, default)) for key, default in attributes]
        elementwise(low, node, call(name, load(view), *numbers), (view,))

    return lower


def _clip(low: Lowering, node: ir.Node) -> None:
    view = low.view(node.inputs[0])
    if view.dtype != "float32":
        raise UnsupportedOpError(f"op Clip (node '{node.name}') on {view.dtype} has no native kernel")
    expr = load(view)
    for index, name in ((1, "clip_low"), (2, "clip_high")):
        if len(node.inputs) > index and low.has(node.inputs[index]):
            expr = call(name, expr, _term(low.view(node.inputs[index]).broadcast(view.shape)))
    elementwise(low, node, expr, (view,))


def _gelu(low: Lowering, node: ir.Node) -> None:
    (view,) = _operands(low, node)
    name = "gelu_tanh" if node.attributes.get_string("approximate", "none") == "tanh" else "gelu"
    elementwise(low, node, call(name, load(view)), (view,))


LOWER: Mapping[str, Any] = {
    **{
        op: _function(name)
        for op, name in {
            "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Neg": "neg", "Relu": "relu", "Sigmoid": "sigmoid",
            "Tanh": "tanh", "Exp": "exp", "Abs": "abs", "Sqrt": "sqrt", "Floor": "floor", "Ceil": "ceil", "Round": "round",
            "Sign": "sign", "Log": "log", "Erf": "erf", "Softplus": "softplus", "Softsign": "softsign", "Mish": "mish",
            "HardSwish": "hard_swish", "Reciprocal": "reciprocal", "Pow": "pow", "PRelu": "prelu", "Sin": "sin", "Cos": "cos",
            "Tan": "tan", "Asin": "asin", "Acos": "acos", "Atan": "atan", "Sinh": "sinh", "Cosh": "cosh", "Asinh": "asinh",
            "Acosh": "acosh", "Atanh": "atanh",
        }.items()
    },
    "Max": _fold("maximum"), "Min": _fold("minimum"), "Sum": _fold("add"), "Mean": _fold("add", mean=True),
    "Clip": _clip, "Gelu": _gelu,
    "LeakyRelu": _with("leaky_relu", ("alpha", 0.01)),
    "Elu": _with("elu", ("alpha", 1.0)),
    "Celu": _with("celu", ("alpha", 1.0)),
    "Selu": _with("selu", ("alpha", 1.67326319217681884765625), ("gamma", 1.05070102214813232421875)),
    "HardSigmoid": _with("hard_sigmoid", ("alpha", 0.2), ("beta", 0.5)),
    "ThresholdedRelu": _with("thresholded_relu", ("alpha", 1.0)),
}  # fmt: skip
