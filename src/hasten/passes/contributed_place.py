"""What rewrites of ONNX Runtime's own operators share: the node at hand, and short words for what stands for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from hasten.graph.walk import all_nodes
from hasten.passes.surgery import Editor, attribute, constant, input_of

__all__ = ["DOMAIN", "FLOAT", "Place", "Results", "Rewrite", "Value", "rewrite_all"]

DOMAIN = "com.microsoft"
FLOAT = ir.DataType.FLOAT
# The one operator of theirs that is written without their domain.
_WITHOUT_DOMAIN = "SimplifiedLayerNormalization"

Value = ir.Value | None
Results = Sequence[Value]


@dataclass(frozen=True)
class Place:
    """The node to replace, and a way to write new ones before it."""

    editor: Editor
    node: ir.Node

    def given(self, index: int) -> Value:
        """The input, or None where it is left out."""
        return input_of(self.node, index)

    def setting(self, name: str, default: Any) -> Any:
        """The node's attribute."""
        return attribute(self.node, name, default)

    def op(self, op_type: str, *inputs: Value, **attributes: Any) -> ir.Value:
        """The result of a new node, typed like its first input."""
        return self.editor.value(self.node, op_type, inputs, attributes)

    def number(self, value: float, like: Value) -> ir.Value:
        """A constant of the type of ``like``, float32 without."""
        dtype = (None if like is None else like.dtype) or FLOAT
        return self.editor.weight(np.asarray(value, dtype.numpy()), f"{self.node.name}_number")

    def answers_only(self, count: int) -> bool:
        """True where nobody reads more than the first ``count`` results."""
        return not any(v.uses() or v.is_graph_output() for v in self.node.outputs[count:])

    def kept(self, *names: str) -> dict[str, Any]:
        """Those of the node's attributes, for the node that replaces it."""
        return {name: self.node.attributes[name].value for name in names if name in self.node.attributes}

    def dequantised(self, x: Value, scale: Value, zero: Value, **attributes: Any) -> ir.Value:
        """What bytes stand for, in float32."""
        made = self.op("DequantizeLinear", x, self._whole(scale), self._whole(zero), **attributes)
        made.dtype = FLOAT
        return made

    def quantised(self, x: Value, scale: Value, zero: Value, like: Value) -> ir.Value:
        """Bytes; without a zero point, of the type of ``like``."""
        if zero is None:
            dtype = (None if like is None else like.dtype) or ir.DataType.UINT8
            zero = self.editor.weight(np.zeros((), dtype.numpy()), f"{self.node.name}_zero")
        made = self.op("QuantizeLinear", x, self._whole(scale), self._whole(zero))
        made.dtype = zero.dtype or ir.DataType.UINT8
        return made

    def _whole(self, value: Value) -> Value:
        """A vector of one number as a number: what the standard has for a whole tensor."""
        data = constant(value)
        if data is None or data.shape != (1,):
            return value
        return self.editor.weight(data.reshape(()), f"{self.node.name}_whole")

    def dynamically_quantised(self, x: Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Bytes, their scale and zero point, chosen for what ``x`` holds."""
        made = self.editor.node(self.node, "DynamicQuantizeLinear", [x], outputs=3)
        quantised, step, zero = made.outputs
        quantised.dtype, step.dtype, zero.dtype = ir.DataType.UINT8, FLOAT, ir.DataType.UINT8
        return quantised, step, zero

    def scaled_product(self, integers: tuple[Value, Value, Value, Value], scale: ir.Value, bias: Value) -> ir.Value:
        """scale · (a·b) + bias; ``integers``: a, b and their zero points."""
        sums = self.op("MatMulInteger", *integers)
        sums.dtype = ir.DataType.INT32
        whole = self.op("Cast", sums, to=int(FLOAT))
        whole.dtype = FLOAT
        y = self.op("Mul", whole, scale)
        return y if bias is None else self.op("Add", y, bias)

    def parts(self, x: Value, widths: Sequence[int]) -> list[ir.Value]:
        """x cut along its last axis."""
        made = self.editor.node(self.node, "Split", [x, self.editor.ints(widths)], {"axis": -1}, outputs=len(widths))
        for value in made.outputs:
            value.dtype = FLOAT if x is None or x.dtype is None else x.dtype
        return list(made.outputs)

    def channels_first(self, x: ir.Value, count: int) -> ir.Value:
        """From (batch, …, channels), of so many dimensions."""
        return self.op("Transpose", x, perm=[0, count - 1, *range(1, count - 1)])

    def channels_last(self, x: ir.Value, count: int) -> ir.Value:
        """The way back."""
        return self.op("Transpose", x, perm=[0, *range(2, count), 1])


Rewrite = Callable[[Place], Results]
"""What stands for each of the node's results, None or left out where it stays."""


def rewrite_all(model: ir.Model, rewrites: Mapping[str, Rewrite]) -> int:
    """Replaces nodes of the operators in the table, wherever their rewrite gives results; returns how many results."""
    editor = Editor(model)
    for node in list(all_nodes(model.graph)):
        if node.op_type not in rewrites or (node.domain != DOMAIN and node.op_type != _WITHOUT_DOMAIN):
            continue
        for old, new in zip(node.outputs, rewrites[node.op_type](Place(editor, node)), strict=False):
            if new is not None:
                editor.swap(old, new)
    changes = editor.finish()
    if changes and not any(node.domain == DOMAIN for node in all_nodes(model.graph)):
        model.graph.opset_imports.pop(DOMAIN, None)
    return changes
