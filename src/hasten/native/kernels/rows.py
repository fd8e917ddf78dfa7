"""Reductions along the last dimension, row by row: Softmax."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from hasten.native.program import Step, View

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.lower import Lowering

__all__ = ["LOWER", "Softmax"]


@dataclass(eq=False)
class Softmax(Step):
    """``y = exp(x - max x) / Σ`` for every row.

    Shapes:  x, y (rows, columns), dense
    """

    x: View
    y: View
    READS = ("x",)
    WRITES = ("y",)

    @property
    def title(self) -> str:
        """Sizes."""
        return f"{self.x.shape[0]} x {self.x.shape[1]}"

    def emit(self, out: Emitter) -> None:
        """Three passes over a row: maximum, exponentials with their sum, scale."""
        rows, columns = self.x.shape
        full, tail = columns // out.lanes * out.lanes, columns % out.lanes
        out.need("v_load", "v_store", "v_load_n", "v_store_n", "v_max", "v_exp", "v_sum", "v_hmax", "v_set1", "v_lanes")
        body = [f"    for (int r = 0; r < {rows}; r++, x += {columns}, y += {columns}) {{"]
        body.append("        vf top = v_set1(-__builtin_inff()), sum = v_set1(0.0f);")
        if full:
            body.append(f"        for (int i = 0; i < {full}; i += VL) top = v_max(top, v_load(x + i));")
        if tail:
            body.append(f"        top = v_max(top, v_lanes(v_load_n(x + {full}, {tail}), {tail}, -__builtin_inff()));")
        body.append("        top = v_set1(v_hmax(top));")
        if full:
            body.append(f"        for (int i = 0; i < {full}; i += VL) {{")
            body.append("            const vf e = v_exp(v_load(x + i) - top);")
            body.append("            sum += e;")
            body.append("            v_store(y + i, e);")
            body.append("        }")
        if tail:
            body.append(f"        const vf last = v_lanes(v_exp(v_load_n(x + {full}, {tail}) - top), {tail}, 0.0f);")
            body.append("        sum += last;")
        body.append("        const vf scale = v_set1(1.0f / v_sum(sum));")
        if full:
            body.append(f"        for (int i = 0; i < {full}; i += VL) v_store(y + i, v_load(y + i) * scale);")
        if tail:
            body.append(f"        v_store_n(y + {full}, last * scale, {tail});")
        body.append("    }")
        signature = [("const float *x", out.pointer(self.x)), ("float *y", out.pointer(self.y))]
        out.function("softmax", self.title, signature, "\n".join(body))


def _softmax(low: Lowering, node: ir.Node) -> None:
    view = low.view(node.inputs[0])
    axis = node.attributes.get_int("axis", -1) % view.rank
    order = [d for d in range(view.rank) if d != axis] + [axis]
    x = low.contiguous(view, order)
    y = low.new(view.shape, "float32", order)
    columns = view.shape[axis]
    flat = (view.size // columns, columns)
    low.add(Softmax(low.reshape(x.transpose(order), flat), low.reshape(y.transpose(order), flat)))
    low.set(node.outputs[0], y)


LOWER: Mapping[str, Any] = {"Softmax": _softmax}
