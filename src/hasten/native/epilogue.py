"""What happens to a kernel's results while still in registers: bias, activation, residual, scale, then the store.

The kernel's output is seen as (rows, columns) with dense columns. An operand of the expression is a scalar, a vector
over columns (the same for every row), or a tensor that lies in memory exactly as the output does.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from hasten.native.expr import Expr, emit_vector, load_name, loads
from hasten.native.program import C_TYPES, Step, View

if TYPE_CHECKING:
    from hasten.native.emit import Emitter

__all__ = ["Epilogue", "Finished", "fits", "put"]

Role = Literal["scalar", "column", "element"]


def fits(operand: View, y: View) -> Role | None:
    """How an epilogue over ``y`` can read ``operand`` (of y's logical shape); None where it cannot."""
    if all(s == 0 or n == 1 for s, n in zip(operand.strides, operand.shape, strict=True)):
        return "scalar"
    order = y.order
    if order is None:
        return None
    dims = [d for d in order if y.shape[d] != 1]
    if all(operand.strides[d] == y.strides[d] for d in dims) and dims:
        return "element"
    last = dims[-1] if dims else -1
    if all(operand.strides[d] == (1 if d == last else 0) for d in dims):
        return "column"
    return None


@dataclass(frozen=True)
class Epilogue:
    """An expression over ``acc`` and where its operands lie.

    Kernels address y as ``y[row · columns + column]`` and column operands as ``[column]``.
    """

    expr: Expr
    y: View
    columns: int

    @property
    def operands(self) -> tuple[View, ...]:
        """The views that the expression reads besides the kernel's result."""
        return tuple(e.view for e in loads(self.expr) if e.view is not None)

    @property
    def title(self) -> str:
        """The operations in order, as a suffix for a title."""
        names: list[str] = []

        def walk(e: Expr) -> None:
            for a in e.args:
                walk(a)
            if e.op not in ("acc", "const", "load"):
                names.append(e.op)

        walk(self.expr)
        return "".join(f", {n}" for n in dict.fromkeys(names))

    @property
    def _has_room(self) -> bool:
        """True where y is one row with a temporary's spare line behind it.

        What was stored by mask waits for the cache before it is read again; a whole vector does not.
        """
        tensor = self.y.tensor
        return tensor.kind == "temporary" and self.y.size == self.columns == tensor.size - self.y.offset

    def signature(self, out: Emitter) -> list[tuple[str, str]]:
        """Parameters that bring the operands into the function: ``e0``, ``e1`` …"""
        found = []
        for i, e in enumerate(loads(self.expr)):
            assert e.view is not None
            data = e.view.tensor.data
            if data is not None and fits(e.view, self.y) == "column":
                # Padded to whole vectors, so that the last load needs no mask.
                values = np.zeros(-(-self.columns // out.lanes) * out.lanes, np.float32)
                values[: self.columns] = data.reshape(-1)[e.view.offset : e.view.offset + self.columns]
                pointer = out.constant(values)
            else:
                pointer = out.pointer(e.view)
            found.append((f"const {C_TYPES[e.view.dtype]} *e{i}", pointer))
        return found

    def apply(
        self, out: Emitter, acc: str, *, column: str, element: str, count: int | None = None, indent: str = "    "
    ) -> tuple[list[str], str]:
        """Statements and the resulting vector for one accumulator.

        ``column`` and ``element`` are C index expressions of its first lane; ``count`` its lanes where it is the tail.
        """
        leaves = list(loads(self.expr))

        def leaf(e: Expr) -> str:
            assert e.view is not None
            i, role = next(n for n, have in enumerate(leaves) if have is e), fits(e.view, self.y)
            if role == "scalar":
                out.need("v_set1")
                return f"v_set1((float)e{i}[0])" if e.view.dtype != "float32" else f"v_set1(e{i}[0])"
            at = f"e{i} + {column if role == 'column' else element}"
            if count is None or (role == "column" and e.view.tensor.kind == "constant"):
                out.need(load_name(e.view))
                return f"{load_name(e.view)}({at})"
            out.need(f"{load_name(e.view)}_n")
            return f"{load_name(e.view)}_n({at}, {count})"

        return emit_vector(self.expr, out, leaf, acc=acc, indent=indent)

    def put(self, out: Emitter, place: str, value: str, count: int | None) -> str:
        """The statement that stores one vector at the C index ``place`` of y; into bytes, its whole numbers."""
        return put(out, self.y.dtype, f"y + {place}", value, count)

    def store(
        self, out: Emitter, acc: str, rows: int, width: int, tail: int, column: str, *, row: str, indent: str
    ) -> Iterator[str]:
        """Applies the epilogue to ``acc[rows][width]``, stores ``y``; ``tail``: lanes of the last one (0: all)."""
        ldy = self.columns
        whole = width - 1 if tail else width
        base = f"({row} + i) * {ldy} + {column}" if rows > 1 or row != "0" else column
        if rows > 1:
            yield f"{indent}for (int i = 0; i < {rows}; i++) {{"
        elif row != "0":
            base = f"{row} * {ldy} + {column}"
            yield f"{indent}{{"
        inner = indent + ("    " if rows > 1 or row != "0" else "")
        first = f"i * {width} + " if rows > 1 else ""
        if whole:
            yield from self._whole_vectors(out, f"{acc}[{first}", whole, (column, base), inner)
        if tail:
            at = f" + {whole * out.lanes}" if whole else ""
            yield from self._tail(out, f"{acc}[{first}{whole}]", tail, (f"{column}{at}", f"{base}{at}"), inner)
        if rows > 1 or row != "0":
            yield f"{indent}}}"

    def _whole_vectors(self, out: Emitter, acc: str, count: int, at: tuple[str, str], indent: str) -> Iterator[str]:
        """``count`` vectors side by side; ``at``: column and element of the first, ``acc`` up to its index."""
        column, element = at
        loop = count > 1
        j, deeper = (" + j * VL", "    ") if loop else ("", "")
        lines, value = self.apply(
            out, f"{acc}{'j' if loop else '0'}]", column=f"{column}{j}", element=f"{element}{j}", indent=indent + deeper
        )
        out.need("v_store")
        if loop:
            yield f"{indent}for (int j = 0; j < {count}; j++) {{"
        yield from lines
        yield f"{indent}{deeper}v_store(y + {element}{j}, {value});"
        if loop:
            yield f"{indent}}}"

    def _tail(self, out: Emitter, acc: str, lanes: int, at: tuple[str, str], indent: str) -> Iterator[str]:
        """The last vector, of which only ``lanes`` count; ``at``: its column and element."""
        lines, value = self.apply(out, acc, column=at[0], element=at[1], count=lanes, indent=indent)
        yield from lines
        if self._has_room:
            out.need("v_store")
            yield f"{indent}v_store(y + {at[1]}, {value});"
        else:
            out.need("v_store_n")
            yield f"{indent}v_store_n(y + {at[1]}, {value}, {lanes});"


class Finished(Step):
    """A step that applies ``epilogue`` to its results before it stores them as ``y``."""

    y: View
    epilogue: Expr

    @property
    @abstractmethod
    def _row_length(self) -> int:
        """Values of a row of ``y`` as the kernel sees it."""

    @property
    def _epilogue(self) -> Epilogue:
        return Epilogue(self.epilogue, self.y, self._row_length)

    @property
    def operands(self) -> tuple[View, ...]:
        """Tensors that the epilogue reads."""
        return self._epilogue.operands


def put(out: Emitter, dtype: str, place: str, value: str, count: int | None) -> str:
    """The statement that stores a vector, or ``count`` lanes of it; into int8 or uint8, the whole numbers it holds."""
    if dtype in ("int8", "uint8"):
        out.need("v_store_b", "v_toint")
        return f"v_store_b((uint8_t *)({place}), v_toint({value}), {'VL' if count is None else count});"
    out.need("v_store" if count is None else "v_store_n")
    return f"v_store({place}, {value});" if count is None else f"v_store_n({place}, {value}, {count});"
