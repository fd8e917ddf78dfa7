"""Functions of one byte as tables: DequantizeLinear → Sigmoid → QuantizeLinear is 256 answers, known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import erf
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from hasten.native.kernels.quantised_values import BYTES, scale_of, shift_of
from hasten.native.program import Step, View
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.lower import Lowering

__all__ = ["ByteTable", "looked_up"]

_DEEPEST = 8
_erf = np.vectorize(erf, otypes=[np.float64])


def _number(name: str, default: float) -> Callable[[ir.Node], float]:
    return lambda node: node.attributes.get_float(name, default)


def _gelu(x: Array, node: ir.Node) -> Array:
    if node.attributes.get_string("approximate", "none") == "tanh":
        return np.asarray(0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))))
    return np.asarray(0.5 * x * (1 + _erf(x / np.sqrt(2))))


def _elu(x: Array, node: ir.Node) -> Array:
    return np.where(x > 0, x, _number("alpha", 1.0)(node) * np.expm1(np.minimum(x, 0)))


def _hard_sigmoid(x: Array, node: ir.Node) -> Array:
    return np.clip(_number("alpha", 0.2)(node) * x + _number("beta", 0.5)(node), 0, 1)


# What costs more than a look into a table.
_FUNCTIONS: Mapping[str, Callable[[Array, ir.Node], Array]] = {
    "Sigmoid": lambda x, _: 1 / (1 + np.exp(-x)),
    "Tanh": lambda x, _: np.tanh(x),
    "Exp": lambda x, _: np.exp(x),
    "Erf": lambda x, _: _erf(x),
    "Softplus": lambda x, _: np.logaddexp(x, 0),
    "Elu": _elu,
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda x, _: x * np.clip(x / 6 + 0.5, 0, 1),
    "Sin": lambda x, _: np.sin(x),
    "Cos": lambda x, _: np.cos(x),
}
_PAIRS: Mapping[str, Callable[[Array, Array], Array]] = {
    "Mul": lambda a, b: a * b,
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
}


@dataclass(eq=False)
class ByteTable(Step):
    """``y = table[x]``.

    Shapes:  x, y dense in the same order · table (256,) by the bits of x
    """

    x: View
    y: View
    table: Array
    READS = ("x",)
    WRITES = ("y",)

    @property
    def title(self) -> str:
        """How many."""
        return f"{self.x.size} bytes looked up"

    def emit(self, out: Emitter) -> None:
        """One loop."""
        size, split = self.x.size, out.splits(8 * self.x.size)
        signature = [
            ("const uint8_t *restrict x", f"(const uint8_t *)({out.pointer(self.x)})"),
            ("const uint8_t *restrict table", f"(const uint8_t *)({out.constant(self.table)})"),
            ("uint8_t *restrict y", f"(uint8_t *)({out.pointer(self.y)})"),
        ]
        low, high = (
            (f"(long){size} * part / parts", f"(long){size} * (part + 1) / parts") if split else ("0", str(size))
        )
        lines = ["    (void)flags;"] if split else []
        lines.append(f"    for (long i = {low}; i < {high}; i++) y[i] = table[x[i]];")
        out.function("bytetable", self.title, signature, "\n".join(lines), split=split)


@dataclass(frozen=True)
class _Source:
    """The DequantizeLinear that everything comes from, and its 256 possible values by the bits of its bytes."""

    node: ir.Node
    values: Array


def looked_up(low: Lowering, node: ir.Node, target: tuple[float, int, tuple[int, int], str]) -> View | None:
    """The result of QuantizeLinear as a table of the bytes it comes from; None where it comes from more, or is cheap.

    ``target``: scale, zero point as held, bounds as declared, and the dtype that holds the result.
    """
    value = node.inputs[0]
    source = _source(low, value)
    if source is None or value is None:
        return None
    with np.errstate(all="ignore"):
        values = _values(low, value, source, _DEEPEST)
    if values is None:
        return None
    scale, zero, (least, most), held = target
    shift = 128 if held == "uint8" and least < 0 else 0
    rounded = np.rint(values.astype(np.float32) / np.float32(scale)) + zero
    table = np.clip(np.nan_to_num(rounded, nan=zero), least + shift, most + shift).astype(held)
    x = low.view(source.node.inputs[0])
    x = x if x.order is not None and x.is_whole else low.contiguous(x)
    y = low.new(x.shape, held, x.order)
    low.add(ByteTable(x, y, table))
    return y


def _source(low: Lowering, value: ir.Value | None) -> _Source | None:
    """The one DequantizeLinear behind a value that some costly function was applied to."""
    costly, sources, waiting, seen = False, [], [value], 0
    while waiting:
        maker, seen = (v.producer() if (v := waiting.pop()) is not None else None), seen + 1
        if seen > 2 * _DEEPEST or maker is None:
            return None
        if maker.op_type == "DequantizeLinear":
            if maker not in sources:
                sources.append(maker)
        elif maker.op_type in _FUNCTIONS or maker.op_type in _PAIRS:
            costly = costly or maker.op_type in _FUNCTIONS
            waiting += [v for v in maker.inputs if low.constant(v) is None]
        else:
            return None
    if not costly or len(sources) != 1:
        return None
    view, scale = low._views.get(id(sources[0].inputs[0])), scale_of(low, sources[0])
    if view is None or view.dtype not in BYTES or scale is None or not scale.is_scalar:
        return None
    held = np.arange(256, dtype=np.uint8).view(view.dtype).astype(np.float32)
    zero = np.float32(scale.zero[0] + shift_of(sources[0].inputs[0], view))
    return _Source(sources[0], (held - zero) * scale.scale[0])


def _values(low: Lowering, value: ir.Value | None, source: _Source, depth: int) -> Array | None:
    """What a value can be, for each of the 256 bytes; None where it is not a function of them alone."""
    data = low.constant(value)
    if data is not None:
        return data.reshape(()).astype(np.float64) if data.size == 1 and data.dtype == np.float32 else None
    maker = value.producer() if value is not None else None
    if maker is source.node:
        return source.values.astype(np.float64)
    if maker is None or depth == 0:
        return None
    given = [_values(low, v, source, depth - 1) for v in maker.inputs]
    if any(g is None for g in given):
        return None
    known = [g for g in given if g is not None]
    if maker.op_type in _FUNCTIONS:
        return _FUNCTIONS[maker.op_type](known[0], maker)
    return _PAIRS[maker.op_type](known[0], known[1])
