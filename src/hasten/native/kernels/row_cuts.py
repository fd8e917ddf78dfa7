"""How a step is cut into parts of its rows, so that none needs what another part computes in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hasten.native.expr import loads, substitute
from hasten.native.kernels.attend import Attend
from hasten.native.kernels.byte_depthwise import ByteDepthwise
from hasten.native.kernels.byte_products import ByteConv
from hasten.native.kernels.byte_sum import ByteSum
from hasten.native.kernels.byte_table import ByteTable
from hasten.native.kernels.conv import Conv
from hasten.native.kernels.dense import Dense
from hasten.native.kernels.depthwise import Depthwise
from hasten.native.kernels.elementwise import Elementwise
from hasten.native.kernels.matmul import Product
from hasten.native.kernels.norm import Normalise
from hasten.native.kernels.rows import Softmax
from hasten.native.kernels.spatial import axes_of
from hasten.native.kernels.sweep import peels
from hasten.native.kernels.transpose import Transpose
from hasten.native.program import Step, View

__all__ = ["Cut", "cuts", "part_of", "reads", "sees"]

_ROWS = 8
_EXPRESSIONS = {Elementwise: "expr", Attend: "scores"}


@dataclass(frozen=True)
class Cut:
    """The axis over rows of each field of a step that is cut; what an expression loads has that of ``y``."""

    fields: Mapping[str, int]
    slides: bool = False
    """A window reads rows around its own: x must be complete."""
    least: int = 3
    """Rows of each part: of images, whose lines have many positions, a few; of products so many that weights, which
    every part reads, are reused.
    """


def cuts(step: Step) -> list[Cut]:
    """Every way to cut a step."""
    kind = type(step)
    if isinstance(step, Dense):
        return [Cut({"x": 0, "y": 0}, least=_ROWS)] if kind is Dense and step.rows > 1 else []
    if kind in (Normalise, Softmax):
        return [Cut({"x": 0, "y": 0})]
    if isinstance(step, Transpose):
        return [Cut({"x": axis, "y": axis}) for axis in range(step.y.rank)]
    if isinstance(step, Product):
        return _of_product(step)
    if isinstance(step, Elementwise):
        return [Cut({"y": axis}) for axis in range(step.y.rank)]
    if isinstance(step, Attend):
        return [Cut({"q": step.q.rank - 2, "y": step.y.rank - 2}, least=_ROWS)]
    if isinstance(step, (ByteSum, ByteTable)):
        names = [name for name in ("x", "other", "y") if hasattr(step, name)]
        same = len({getattr(step, name).shape for name in names}) == 1
        return [Cut(dict.fromkeys(names, axis)) for axis in range(step.y.rank)] if same else []
    if kind in (Conv, Depthwise, ByteConv, ByteDepthwise):
        first = _first(step)
        return [Cut({"x": axis, "y": axis}, _slides(step, axis - first)) for axis in range(first, first + _rank(step))]
    return []


def _of_product(step: Product) -> list[Cut]:
    """Its outermost dimension: of a batch, or rows."""
    batch = [axis for axis, n in enumerate(step.y.shape[:-2]) if n > 1]
    if not batch:
        return [Cut({"a": step.a.rank - 2, "y": step.y.rank - 2}, least=_ROWS)]
    both = all(view.rank == step.y.rank and view.shape[batch[0]] == step.y.shape[batch[0]] for view in (step.a, step.b))
    return [Cut(dict.fromkeys(("a", "b", "y"), batch[0]), least=1)] if both else []


def _first(step: Any) -> int:
    """The first spatial axis: bytes lie with their channels last."""
    return 1 if isinstance(step, (ByteConv, ByteDepthwise)) else 2


def _rank(step: Any) -> int:
    return 2 if isinstance(step, (ByteConv, ByteDepthwise)) else len(step.window.kernel)


def _along(step: Any, i: int) -> tuple[int, int, int, int]:
    """Taps, stride, dilation and what is missing before x along a spatial axis."""
    if isinstance(step, (ByteConv, ByteDepthwise)):
        g = step.geometry
        return int(step.weight.shape[i]), g.strides[i], g.dilations[i], g.pads[i]
    w = step.window
    return w.kernel[i], w.strides[i], w.dilations[i], w.pads_begin[i]


def _slides(step: Any, i: int) -> bool:
    taps, stride, _, pad = _along(step, i)
    return (taps, stride, pad) != (1, 1, 0)


def _reach(step: Any, cut: Cut, rows: tuple[int, int]) -> tuple[int, int]:
    """Rows of x that a window sees from some rows of y, half-open; some may not be there."""
    taps, stride, dilation, pad = _along(step, cut.fields["x"] - _first(step))
    return rows[0] * stride - pad, (rows[1] - 1) * stride - pad + (taps - 1) * dilation + 1


def sees(step: Any, cut: Cut, rows: tuple[int, int]) -> bool:
    """True where some rows of y have rows of x under them, and float32 convolutions an axis to go along."""
    if not cut.slides:
        return True
    start, stop = _reach(step, cut, rows)
    if start >= step.x.shape[cut.fields["x"]] or stop < 1:
        return False
    part = part_of(step, cut, rows, step.y.shape[cut.fields["y"]], lambda view: view)
    return not isinstance(part, (Conv, Depthwise)) or peels(axes_of(part.x, part.y, part.window))


def reads(step: Step, cut: Cut) -> Iterator[tuple[View, int | None]]:
    """What a step reads, and the axis over rows where it has one."""
    for name in step.READS:
        view = getattr(step, name)
        if isinstance(view, View):
            yield view, cut.fields.get(name)
    expr = getattr(step, _expression(step), None)
    for e in loads(expr) if expr is not None else ():
        if e.view is not None:
            yield e.view, cut.fields["y"]


def _expression(step: Step) -> str:
    return _EXPRESSIONS.get(type(step), "epilogue")


def part_of(step: Any, cut: Cut, rows: tuple[int, int], total: int, moved: Callable[[View], View]) -> Any:
    """The step over some rows of ``total``; ``moved``: where a view lies for this part."""

    def part(view: View, axis: int) -> View:
        each = view.shape[axis] // total
        return moved(view.slice(axis, rows[0] * each, (rows[1] - rows[0]) * each))

    changed: dict[str, Any] = {
        name: moved(getattr(step, name)) for name in step.READS if isinstance(getattr(step, name), View)
    }
    changed |= {name: part(getattr(step, name), axis) for name, axis in cut.fields.items()}
    if cut.slides:
        changed |= _window(step, cut, rows, moved)
    expr = getattr(step, _expression(step), None)
    if expr is not None:
        # As many positions as y has, or one that stands for all.
        found = {id(e): replace(e, view=part(e.view, cut.fields["y"])) for e in loads(expr) if e.view is not None}
        changed[_expression(step)] = substitute(expr, found)
    if isinstance(step, (ByteConv, ByteDepthwise)):
        own = step.over(changed["x"], changed["y"], changed.get("geometry", step.geometry))
        return replace(own, late=changed["late"]) if "late" in changed else own
    return replace(step, **changed, **({"schedule": None} if hasattr(step, "schedule") else {}))


def _window(step: Any, cut: Cut, rows: tuple[int, int], moved: Callable[[View], View]) -> dict[str, Any]:
    """The rows of x under some rows of y, and how many are missing before them."""
    axis, (start, stop) = cut.fields["x"], _reach(step, cut, rows)
    i, x = axis - _first(step), step.x
    low, high = max(start, 0), min(stop, x.shape[axis])
    name, field = ("geometry", "pads") if hasattr(step, "geometry") else ("window", "pads_begin")
    pads = getattr(getattr(step, name), field)
    pads = (*pads[:i], low - start, *pads[i + 1 :])
    return {"x": moved(x.slice(axis, low, high - low)), name: replace(getattr(step, name), **{field: pads})}
