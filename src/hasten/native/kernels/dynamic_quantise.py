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
        """Two loops: for the range, then for the bytes."""
        out.need(
            "v_load", "v_load_n", "v_set1", "v_set1i", "v_min", "v_max", "v_hmin", "v_hmax", "v_toint", "v_store_b"
        )
        whole, left = self.x.size // out.lanes * out.lanes, self.x.size % out.lanes
        lines = [
            "    vf least = v_set1(0.0f), most = v_set1(0.0f);",
            f"    for (int i = 0; i < {whole}; i += VL) {{",
            "        least = v_min(v_load(x + i), least);",
            "        most = v_max(v_load(x + i), most);",
            "    }",
        ]
        if left:
            lines.append(f"    least = v_min(v_load_n(x + {whole}, {left}), least); /* zeros count anyway */")
            lines.append(f"    most = v_max(v_load_n(x + {whole}, {left}), most);")
        lines += [
            "    const float low = v_hmin(least), high = v_hmax(most);",
            "    const float s = (high - low) / 255.0f, d = s == 0.0f ? 1.0f : s;",
            "    float z = __builtin_rintf(-low / d);",
            "    z = z > 0.0f ? z < 255.0f ? z : 255.0f : 0.0f;",
            "    *scale = s;",
            "    *zero = (uint8_t)z;",
            "    const vf by = v_set1(d), over = v_set1(255.0f - z), under = v_set1(-z);",
            "    const vi moved = v_set1i((int)z);",
        ]
        one = "v_store_b(y + {at}, v_toint(v_max(v_min({load} / by, over), under)) + moved, {count});"
        lines.append(
            f"    for (int i = 0; i < {whole}; i += VL) {one.format(at='i', load='v_load(x + i)', count='VL')}"
        )
        if left:
            load = f"v_load_n(x + {whole}, {left})"
            lines.append(f"    {one.format(at=whole, load=load, count=left)}")
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
