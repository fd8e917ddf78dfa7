"""MatMulInteger and QLinearMatMul where both matrices come at run time: whole numbers less their zero points.

Where no sum can leave the whole numbers that float32 has, products are those of float32, exact and by vectors.

Source: ONNX operators QLinearMatMul-21, MatMulInteger-10.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hasten.native.expr import Expr, call, const, load
from hasten.native.kernels.arithmetic import apply, cast
from hasten.native.kernels.elementwise import Elementwise
from hasten.native.kernels.matmul import product
from hasten.native.kernels.quantised_values import BYTES, rounded
from hasten.native.program import View
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.lower import Lowering

__all__ = ["integer_sums", "quantised_sums"]

_LARGEST_PRODUCT = 255 * 255
_EXACT = 1 << 24  # float32 has all whole numbers up to here


def integer_sums(low: Lowering, a: tuple[View, View | None], b: tuple[View, View | None]) -> View | None:
    """``(a - its zero point) · (b - its zero point)`` as float32 or int32, exact; None where it is not of matrices.

    Shapes:  each a matrix (batch…, rows, columns) of int8 or uint8, and a zero point that broadcasts to it, or None
    """
    views = [view for view, _ in (a, b)]
    if any(view.rank < 2 or view.dtype not in BYTES for view in views):
        return None
    dtype = "float32" if a[0].shape[-1] * _LARGEST_PRODUCT <= _EXACT else "int32"
    left, right = (
        cast(low, view, dtype) if zero is None else apply(low, "sub", cast(low, view, dtype), cast(low, zero, dtype))
        for view, zero in (a, b)
    )
    return product(low, left, right)


def quantised_sums(low: Lowering, sums: View, factor: Array, zero: int, dtype: str) -> View:
    """``saturate(round(sums · factor) + zero)``, ties to even; ``factor``: (1,) or (columns,)."""
    times: Expr = const(float(factor[0])) if factor.size == 1 else load(low.data(factor).broadcast(sums.shape))
    wide = load(sums) if sums.dtype == "float32" else call("cast", load(sums))
    limits = np.iinfo(dtype)
    expr = rounded(call("mul", wide, times), const(float(zero)), (float(limits.min), float(limits.max)), 0)
    y = low.new(sums.shape, dtype)
    low.add(Elementwise(y, expr))
    return y
