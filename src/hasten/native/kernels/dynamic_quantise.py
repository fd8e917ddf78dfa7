"""DynamicQuantizeLinear: bytes by the range that their values turn out to have.

Source: ONNX operator DynamicQuantizeLinear-11.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from hasten.native.program import Step, View

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.lower import Lowering

__all__ = ["DynamicQuantise", "dynamic_quantise"]


@dataclass(eq=False)
class DynamicQuantise(Step):
    """uint8 values, scale and zero point of a float32 tensor, from its own range (zero included).

    Shapes:  x, y dense in the same order · scale, zero: scalars
    """

    x: View
    y: View
    scale: View
    zero: View
    READS = ("x",)
    WRITES = ("y", "scale", "zero")

    @property
    def title(self) -> str:
        """How many values."""
        return f"{self.x.size} values to uint8 by their range"

    def emit(self, out: Emitter) -> None:
        """The range, then one loop."""
        lines = [
            "    float low = 0.0f, high = 0.0f;",
            f"    for (int i = 0; i < {self.x.size}; i++) {{",
            "        low = x[i] < low ? x[i] : low;",
            "        high = x[i] > high ? x[i] : high;",
            "    }",
            "    const float s = (high - low) / 255.0f, d = s == 0.0f ? 1.0f : s;",
            "    float z = __builtin_rintf(-low / d);",
            "    z = z < 0.0f ? 0.0f : z > 255.0f ? 255.0f : z;",
            "    *scale = s;",
            "    *zero = (uint8_t)z;",
            f"    for (int i = 0; i < {self.x.size}; i++) {{",
            "        float v = __builtin_rintf(x[i] / d) + z;",
            "        v = v > 255.0f ? 255.0f : v;",
            "        y[i] = (uint8_t)(v > 0.0f ? v : 0.0f);",
            "    }",
        ]
        signature = [
            ("const float *restrict x", out.pointer(self.x)),
            ("uint8_t *restrict y", out.pointer(self.y)),
            ("float *scale", out.pointer(self.scale)),
            ("uint8_t *zero", out.pointer(self.zero)),
        ]
        out.function("dynamicquantise", self.title, signature, "\n".join(lines))


def dynamic_quantise(low: Lowering, node: ir.Node) -> None:
    """The bytes, their scale and their zero point."""
    x = low.view(node.inputs[0])
    x = x if x.order is not None else low.contiguous(x)
    y, scale, zero = low.new(x.shape, "uint8", x.order), low.new((), "float32"), low.new((), "uint8")
    low.add(DynamicQuantise(x, y, scale, zero))
    for value, view in zip(node.outputs, (y, scale, zero), strict=True):
        low.set(value, view)
