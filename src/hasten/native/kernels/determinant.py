"""Det: elimination row by row, the largest number of each column first.

Source: ONNX operator Det-22; Golub and Van Loan, Matrix Computations, section 3.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.native.program import C_TYPES, Step, View

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.lower import Lowering

__all__ = ["LOWER", "Determinant"]


@dataclass(eq=False)
class Determinant(Step):
    """``y[b] = det x[b]``; ``work`` is where a matrix is taken apart.

    Shapes:  x (batch, n, n), y (batch,), work (n, n), dense, of one type of float
    """

    x: View
    y: View
    work: View
    READS = ("x",)
    WRITES = ("y", "work")

    @property
    def title(self) -> str:
        """How many of what size."""
        return f"{self.x.shape[0]} of {self.x.shape[1]} x {self.x.shape[1]}"

    def macs(self) -> int:
        """Batch · n³ / 3."""
        return self.x.size * self.x.shape[1] // 3

    def emit(self, out: Emitter) -> None:
        """The product of the pivots, its sign turned where two rows change places."""
        batch, n, _ = self.x.shape
        kind = C_TYPES[self.y.dtype]
        size = "__builtin_fabs" if self.y.dtype == "float64" else "__builtin_fabsf"
        signature = [
            (f"const {kind} *x", out.pointer(self.x)), (f"{kind} *y", out.pointer(self.y)),
            (f"{kind} *a", out.pointer(self.work)),
        ]  # fmt: skip
        body = f"""    for (int b = 0; b < {batch}; b++) {{
        {kind} det = 1;
        for (int i = 0; i < {n * n}; i++) a[i] = x[b * {n * n} + i];
        for (int k = 0; k < {n}; k++) {{
            int top = k;
            for (int i = k + 1; i < {n}; i++)
                if ({size}(a[i * {n} + k]) > {size}(a[top * {n} + k])) top = i;
            const {kind} pivot = a[top * {n} + k];
            det *= top == k ? pivot : -pivot;
            if (pivot == 0) break;
            for (int j = k; j < {n}; j++) {{
                const {kind} v = a[top * {n} + j];
                a[top * {n} + j] = a[k * {n} + j];
                a[k * {n} + j] = v;
            }}
            for (int i = k + 1; i < {n}; i++) {{
                const {kind} factor = a[i * {n} + k] / pivot;
                for (int j = k + 1; j < {n}; j++) a[i * {n} + j] -= factor * a[k * {n} + j];
            }}
        }}
        y[b] = det;
    }}"""
        out.function("determinant", self.title, signature, body)


def _det(low: Lowering, node: ir.Node) -> None:
    x = low.view(node.inputs[0])
    if x.dtype not in ("float32", "float64"):
        raise UnsupportedOpError(f"op Det (node '{node.name}') on {x.dtype} has no native kernel")
    *batch, n, _ = x.shape
    flat = low.reshape(low.contiguous(x), (prod(batch), n, n))
    y = low.new((prod(batch),), x.dtype)
    low.add(Determinant(flat, y, low.new((n, n), x.dtype)))
    low.set(node.outputs[0], low.reshape(y, batch))


LOWER: Mapping[str, Any] = {"Det": _det}
