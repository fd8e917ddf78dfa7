"""ONNX nodes written one after another: operator names and values enter, values leave. Used by every emitter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.types import Array

__all__ = ["ACTIVATIONS", "Writer"]

# ActivationFunctionType of the schema → its name, and the ONNX activation that a recurrent node knows it by.
ACTIVATIONS = {0: "NONE", 1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6", 4: "TANH", 5: "SIGN_BIT"}


@dataclass(frozen=True)
class Writer:
    """A growing list of nodes."""

    tape: Any = field(default_factory=ir.tape.Tape)

    def op(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """The one output of a new node."""
        value: ir.Value = self.tape.op(op_type, list(inputs), attributes)
        return value

    def ops(self, op_type: str, inputs: Sequence[ir.Value | None], count: int, **attributes: Any) -> list[ir.Value]:
        """The outputs of a new node that has several."""
        return list(self.tape.op_multi_out(op_type, list(inputs), attributes, num_outputs=count))

    def const(self, value: Array | np.floating[Any], dtype: str = "float32") -> ir.Value:
        """A constant."""
        return self.op("Constant", value=ir.tensor(np.ascontiguousarray(value, dtype=np.dtype(dtype))))

    def ints(self, *values: int) -> ir.Value:
        """A constant list of int64, the form in which operators take axes and shapes."""
        return self.const(np.array(values, np.int64), "int64")

    def linear(self, x: ir.Value, weights: Array) -> ir.Value:
        """``x`` times the transpose of ``weights``.

        Shapes:  x (N, in) · weights (out, in) · returns (N, out)
        """
        return self.op("MatMul", x, self.const(weights.T))

    def add(self, x: ir.Value, bias: Array | None) -> ir.Value:
        """``x`` plus a constant, or ``x`` itself without one."""
        return x if bias is None else self.op("Add", x, self.const(bias))

    def clip(self, x: ir.Value, limit: float) -> ir.Value:
        """``x`` within ±limit; a limit of 0 means none."""
        if limit <= 0:
            return x
        return self.op("Clip", x, self.const(np.float32(-limit)), self.const(np.float32(limit)))

    def activate(self, x: ir.Value, function: int) -> ir.Value:
        """A fused activation function.

        Raises:  UnsupportedOpError: it has no counterpart
        """
        name = ACTIVATIONS.get(function, str(function))
        if name == "NONE":
            return x
        if name in ("RELU", "TANH"):
            return self.op(name.title(), x)
        if name == "RELU6":
            return self.op("Clip", x, self.const(np.float32(0)), self.const(np.float32(6)))
        if name == "RELU_N1_TO_1":
            return self.clip(x, 1.0)
        raise UnsupportedOpError(f"fused activation {name} has no importer")

    def zeros(self, rows_of: ir.Value, axis: int, width: int) -> ir.Value:
        """Zeros with as many rows as ``rows_of`` is long along ``axis``.

        Shapes:  returns (rows, width)
        """
        rows = self.op("Gather", self.op("Shape", rows_of), self.ints(axis), axis=0)
        shape = self.op("Concat", rows, self.ints(width), axis=0)
        return self.op("ConstantOfShape", shape, value=ir.tensor(np.zeros(1, np.float32)))
