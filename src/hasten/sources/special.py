"""Special functions that ONNX lacks, as formulas of its operators: lgamma, digamma and the inverse of erf, in float32.

``op`` writes nodes: ``op.Add(x, 2.0)`` is a node of that operator, numbers are constants of the other operands' dtype.
Importers write them where their framework calls the function; ``replace`` does where a converter copied its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir

__all__ = ["FORMULAS", "digamma", "erfinv", "lgamma", "replace"]

# Rational least squares of ln Γ(z) / ((z - 1)(z - 2)) in z - 2 over 1 ≤ z ≤ 3.5: 7.4e-9 off at most, relative.
_ABOVE = (0.422784333, 0.298869985, 0.0528576381, 0.00110773596, -2.68778801e-05)
_BELOW = (1.0, 0.944186542, 0.271085811, 0.0226154733)
# Coefficients of Giles, in w - 2.5 and in sqrt(w) - 3.
_NEAR = (1.50140941, 0.246640727, -0.00417768164, -0.00125372503, 0.00021858087, -4.39150654e-06, -3.5233877e-06,
         3.43273939e-07, 2.81022636e-08)  # fmt: skip
_FAR = (2.83297682, 1.00167406, 0.00943887047, -0.0076224613, 0.00573950773, -0.00367342844, 0.00134934322,
        0.000100950558, -0.000200214257)  # fmt: skip
_STEPS = 6


def lgamma(op: Any, x: Any) -> Any:
    """ln |Γ(x)|: 1e-8 off at most for x > 0, relative; below, the logarithms of the reflection cancel near its zeros.

    Source:  Abramowitz & Stegun 1964, 6.1.41 (Stirling's series from 3.5 on), 6.1.15 and 6.1.17
    """
    a = op.Abs(x)
    small = op.Less(a, 1.0)
    z = op.Where(small, op.Add(a, 1.0), a)
    t = op.Sub(op.Min(z, 3.5), 2.0)
    ratio = op.Div(_polynomial(op, t, _ABOVE), _polynomial(op, t, _BELOW))
    low = op.Mul(op.Mul(t, op.Add(t, 1.0)), ratio)
    s = op.Reciprocal(z)
    tail = op.Mul(s, _polynomial(op, op.Mul(s, s), (1 / 12, -1 / 360, 1 / 1260, -1 / 1680)))
    rest = op.Add(tail, math.log(2 * math.pi) / 2 - 0.5)
    high = op.Add(op.Mul(op.Sub(z, 0.5), op.Sub(op.Log(z), 1.0)), rest)
    logarithm = op.Log(a)
    above = op.Where(op.Less(z, 3.5), low, high)
    positive = op.Where(small, op.Sub(above, logarithm), above)
    sine = op.Log(op.Abs(op.Sin(op.Mul(op.Sub(a, op.Round(a)), math.pi))))
    negative = op.Sub(op.Sub(op.Sub(math.log(math.pi), logarithm), sine), positive)
    return op.Where(op.Less(x, 0.0), op.Where(op.IsInf(x), a, negative), positive)


def digamma(op: Any, x: Any) -> Any:
    """The derivative of ln Γ(x): 1e-9 off at most for x > 0, absolute near its zero; NaN at negative whole numbers.

    Source:  Abramowitz & Stegun 1964, 6.3.18 (asymptotic from 6 on), 6.3.6 and 6.3.7
    """
    a = op.Abs(x)
    small = op.Less(a, float(_STEPS))
    z = op.Where(small, op.Add(a, float(_STEPS)), a)
    s = op.Reciprocal(z)
    square = op.Mul(s, s)
    tail = op.Mul(square, _polynomial(op, square, (1 / 12, -1 / 120, 1 / 252, -1 / 240)))
    far = op.Sub(op.Sub(op.Log(z), op.Mul(s, 0.5)), tail)
    below = op.Reciprocal(op.Add(a, float(_STEPS - 1)))
    for k in range(_STEPS - 2, 0, -1):
        below = op.Add(below, op.Reciprocal(op.Add(a, float(k))))
    inverse = op.Reciprocal(a)
    positive = op.Where(small, op.Sub(op.Sub(far, below), inverse), far)
    part = op.Sub(a, op.Round(a))
    turned = op.Div(math.pi, op.Tan(op.Mul(part, math.pi)))
    negative = op.Add(op.Add(positive, inverse), turned)
    undefined = op.Where(op.Equal(part, 0.0), math.nan, negative)
    return op.Where(op.Less(x, 0.0), undefined, positive)


def erfinv(op: Any, x: Any) -> Any:
    """The y of which x is the error function: 1.3e-7 off at most for x of float32, relative; NaN beyond ±1.

    Source:  Giles 2010, Approximating the erfinv function (single precision)
    """
    w = op.Neg(op.Log(op.Mul(op.Sub(1.0, x), op.Add(x, 1.0))))
    near = _polynomial(op, op.Sub(w, 2.5), _NEAR)
    far = _polynomial(op, op.Sub(op.Sqrt(op.Max(w, 5.0)), 3.0), _FAR)
    found = op.Mul(op.Where(op.Less(w, 5.0), near, far), x)
    return op.Where(op.Equal(op.Abs(x), 1.0), op.Mul(x, math.inf), found)


def _polynomial(op: Any, x: Any, coefficients: Sequence[float]) -> Any:
    """Coefficients from the constant one on, by Horner's rule."""
    *rest, found = coefficients
    for coefficient in reversed(rest):
        found = op.Add(op.Mul(x, found), coefficient)
    return found


Formula = Callable[[Any, Any], Any]
FORMULAS: dict[str, Formula] = {"Lgamma": lgamma, "Digamma": digamma, "Erfinv": erfinv}
"""By the names of TensorFlow's operations."""


class _Nodes:
    """Writes nodes of one graph, before ``place``."""

    def __init__(self, graph: ir.Graph, place: ir.Node) -> None:
        self._graph, self._place, self._count = graph, place, 0

    def __getattr__(self, kind: str) -> Callable[..., ir.Value]:
        def write(*operands: ir.Value | float) -> ir.Value:
            self._count += 1
            name = f"{self._place.name or self._place.outputs[0].name}/{kind}_{self._count}"
            given = [v if isinstance(v, ir.Value) else self._constant(f"{name}/{i}", v) for i, v in enumerate(operands)]
            node = ir.node(kind, given, name=name)
            node.outputs[0].name = f"{name}:0"
            self._graph.insert_before(self._place, node)
            return node.outputs[0]

        return write

    def _constant(self, name: str, number: float) -> ir.Value:
        value = ir.val(name, const_value=ir.tensor(number, dtype=ir.DataType.FLOAT, name=name))
        self._graph.register_initializer(value)
        return value


def replace(model: ir.Model) -> None:
    """Writes out the functions that a converter copied by name, of float32."""
    for node in [node for node in model.graph if not node.domain and node.op_type in FORMULAS]:
        x, output = node.inputs[0], node.outputs[0]
        if x is None or x.dtype not in (None, ir.DataType.FLOAT):
            continue
        found = FORMULAS[node.op_type](_Nodes(model.graph, node), x)
        found.shape, found.type = output.shape, output.type
        if output.is_graph_output():
            model.graph.outputs[:] = [found if value is output else value for value in model.graph.outputs]
        name = output.name
        output.replace_all_uses_with(found)
        model.graph.remove(node, safe=True)
        found.name = name
