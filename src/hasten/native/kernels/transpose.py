"""Copies that turn rows into columns: blocks of vectors transposed in registers instead of values fetched one by one.

The fuser leaves such a copy as an ``Elementwise`` of a single load; ``transposes`` swaps in this kernel where the inner
dimension of one side is an outer dimension of the other (channels first against channels last, above all).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hasten.native.kernels.elementwise import Elementwise
from hasten.native.program import Step, View

if TYPE_CHECKING:
    from hasten.native.emit import Emitter

__all__ = ["Transpose", "transposes"]

_WORTH = 256  # elements; below, a loop of single values is over as soon


@dataclass(frozen=True)
class _Plane:
    """The two dimensions that swap, and the loops around them, each (count, stride in y, stride in x)."""

    rows: tuple[int, int, int]
    """Dense in x."""
    columns: tuple[int, int, int]
    """Dense in y."""
    around: tuple[tuple[int, int, int], ...]


@dataclass(eq=False)
class Transpose(Step):
    """``y = x`` where their memory orders differ in the innermost dimension. Shapes: equal."""

    x: View
    y: View
    READS = ("x",)
    WRITES = ("y",)

    @property
    def title(self) -> str:
        """Sizes of the plane that turns."""
        plane = _plane(self.x, self.y)
        assert plane is not None
        return f"{plane.rows[0]} x {plane.columns[0]}, turned"

    def emit(self, out: Emitter) -> None:
        """Blocks of vectors; the last of a row or column reaches back, a plane narrower than a block is part of one."""
        plane = _plane(self.x, self.y)
        assert plane is not None
        (rows, y_row, _), (columns, _, x_column) = plane.rows, plane.columns
        lanes = out.lanes
        lines, indent = [], "    "
        base_x, base_y = ["x"], ["y"]
        for d, (count, y_stride, x_stride) in enumerate(plane.around):
            lines.append(f"{indent}for (int i{d} = 0; i{d} < {count}; i{d}++) {{")
            indent += "    "
            base_x.append(f"i{d} * {x_stride}")
            base_y.append(f"i{d} * {y_stride}")
        lines.append(f"{indent}const float *from = {' + '.join(base_x)};")
        lines.append(f"{indent}float *to = {' + '.join(base_y)};")
        high, wide = min(rows, lanes), min(columns, lanes)
        if high * wide >= 2 * lanes > 2:
            fetch = "v_load(from + {})" if high == lanes else f"v_load_n(from + {{}}, {high})"
            keep = "v_store(to + {}, a[i])" if wide == lanes else f"v_store_n(to + {{}}, a[i], {wide})"
            out.need("v_turn", "v_set1", fetch[: fetch.index("(")], keep[: keep.index("(")])
            rest = f"{indent}        UNROLL for (int i = {wide}; i < VL; i++) a[i] = v_set1(0);"
            lines += [
                f"{indent}for (int c0 = 0; c0 < {columns}; c0 += VL)",
                f"{indent}    for (int r0 = 0; r0 < {rows}; r0 += VL) {{",
                f"{indent}        const int c = c0 < {columns - wide} ? c0 : {columns - wide};",
                f"{indent}        const int r = r0 < {rows - high} ? r0 : {rows - high};",
                f"{indent}        vf a[VL];",
                f"{indent}        UNROLL for (int i = 0; i < {wide}; i++)",
                f"{indent}            a[i] = {fetch.format(f'(long)(c + i) * {x_column} + r')};",
                *([rest] if wide < lanes else []),
                f"{indent}        v_turn(a);",
                f"{indent}        UNROLL for (int i = 0; i < {high}; i++)",
                f"{indent}            {keep.format(f'(long)(r + i) * {y_row} + c')};",
                f"{indent}    }}",
            ]
        else:
            lines += [
                f"{indent}for (int r = 0; r < {rows}; r++)",
                f"{indent}    for (int c = 0; c < {columns}; c++)",
                f"{indent}        to[(long)r * {y_row} + c] = from[(long)c * {x_column} + r];",
            ]
        lines += ["    " * (len(plane.around) - d) + "}" for d in range(len(plane.around))]
        signature = [("const float *restrict x", out.pointer(self.x)), ("float *restrict y", out.pointer(self.y))]
        out.function("transpose", self.title, signature, "\n".join(lines))


def _plane(x: View, y: View) -> _Plane | None:
    """The plane of a copy that turns, or None for any other copy."""
    dims = [(n, sy, sx) for n, sy, sx in zip(y.shape, y.strides, x.strides, strict=True) if n != 1]
    columns = next((d for d in dims if d[1] == 1 and d[2] > 1), None)
    rows = next((d for d in dims if d[2] == 1 and d[1] > 1), None)
    if columns is None or rows is None:
        return None
    around = [d for d in dims if d is not columns and d is not rows]
    # Neighbouring dimensions that both sides walk alike are one: a plane of (height · width) turns as a whole.
    merged, columns, rows = _merged(around, columns, rows)
    return _Plane(rows, columns, tuple(sorted(merged, key=lambda d: -d[1])))


def _merged(
    around: Sequence[tuple[int, int, int]], columns: tuple[int, int, int], rows: tuple[int, int, int]
) -> tuple[list[tuple[int, int, int]], tuple[int, int, int], tuple[int, int, int]]:
    left = list(around)
    changed = True
    while changed:
        changed = False
        for outer in left:
            for name, inner in (("columns", columns), ("rows", rows)):
                if outer[1] == inner[0] * inner[1] and outer[2] == inner[0] * inner[2]:
                    joined = (outer[0] * inner[0], inner[1], inner[2])
                    columns, rows = (joined, rows) if name == "columns" else (columns, joined)
                    left.remove(outer)
                    changed = True
                    break
            if changed:
                break
    return left, columns, rows


def transposes(steps: Sequence[Step]) -> list[Step]:
    """The steps with every copy that turns as a ``Transpose``."""
    found: list[Step] = []
    for step in steps:
        source = step.expr.view if isinstance(step, Elementwise) and step.expr.op == "load" else None
        if source is not None and isinstance(step, Elementwise) and source.dtype == step.y.dtype == "float32":
            plane = _plane(source, step.y) if step.y.size >= _WORTH else None
            if plane is not None and min(plane.rows[0], plane.columns[0]) >= 2:
                found.append(Transpose(source, step.y, nodes=step.nodes))
                continue
        found.append(step)
    return found
