"""Graph nodes enter, steps leave. Each kernel family brings a table ``LOWER``: operator → function; here they join.

Shapes are static here. Operators that only move the point of view (Transpose, Reshape, Slice …) become views and cost
nothing; a kernel that needs another layout asks for ``contiguous``, which adds a copy only where one is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.native.expr import load
from hasten.native.isa import Isa
from hasten.native.kernels import families
from hasten.native.kernels.arithmetic import cast
from hasten.native.kernels.elementwise import Elementwise
from hasten.native.kernels.typed import HALVES, NARROW
from hasten.native.program import C_TYPES, Program, Step, Tensor, View
from hasten.types import Array

__all__ = ["Lower", "Lowering", "finish", "lower", "lower_nodes"]

Lower = Callable[["Lowering", ir.Node], None]

_LARGEST = 2**31 - 64
_DTYPES = {d: d.numpy().name for d in (ir.DataType[n] for n in (
    "FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16",
    "UINT32", "UINT64", "INT4", "UINT4", "INT2", "UINT2", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2",
    "FLOAT8E5M2FNUZ", "FLOAT4E2M1", "FLOAT8E8M0",
))}  # fmt: skip
# What moves values, whatever they are.
_MOVES = (
    "Cast", "CastLike", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Slice",
    "Split", "Concat", "Gather", "Shape", "Size", "If",
)  # fmt: skip
# What float16 and bfloat16 go through as they are; everything else computes on them in float32.
_KEEPS_HALVES = frozenset((
    *_MOVES, "BitCast", "Dropout", "Compress", "Tile", "Where", "GatherElements", "GatherND", "TensorScatter",
    "DepthToSpace", "SpaceToDepth", "Pad", "ReverseSequence", "Trilu", "Constant", "ConstantOfShape", "EyeLike",
    "Range", "OneHot", "CenterCropPad",
))  # fmt: skip
# What takes values of four bits and the like: it moves them, or makes them and turns them back.
_KEEPS_NARROW = frozenset((*_MOVES, "QuantizeLinear", "DequantizeLinear"))


@dataclass
class Lowering:
    """The state while one graph is lowered: what every value became, and the steps so far."""

    name: str
    isa: Isa
    steps: list[Step] = field(default_factory=list)
    _views: dict[int, View] = field(default_factory=dict)
    _known: dict[int, Array] = field(default_factory=dict)
    _wide: dict[int, View] = field(default_factory=dict)
    _copies: dict[tuple[Any, ...], View] = field(default_factory=dict)
    _counter: int = 0

    @property
    def lanes(self) -> int:
        """float32 values per vector of the target: some families pad to it."""
        return self.isa.lanes

    @property
    def unsigned_bytes(self) -> bool:
        """The target's byte dot products take unsigned inputs (x86), not signed ones (Arm)."""
        return self.isa.arch != "aarch64"

    def view(self, value: ir.Value | None) -> View:
        """Where the value lies; a constant becomes a tensor with data."""
        assert value is not None
        if id(value) not in self._views:
            data = self.constant(value)
            if data is None:
                raise UnsupportedOpError(f"native cannot find value '{value.name}'")
            self._views[id(value)] = self.data(data)
        return self._views[id(value)]

    def has(self, value: ir.Value | None) -> bool:
        """True for an input that is there (optional inputs may be absent or empty)."""
        return value is not None and value.name != ""

    def constant(self, value: ir.Value | None) -> Array | None:
        """The value's array when it is known now, else None."""
        if value is not None and id(value) in self._known:
            return self._known[id(value)]
        if value is None or value.const_value is None or value.is_graph_input():
            return None
        return value.const_value.numpy()

    def know(self, value: ir.Value, array: Array) -> None:
        """The node's output is this array, whatever the inputs hold."""
        self._known[id(value)] = array
        self.set(value, self.data(array))

    def data(self, array: Array) -> View:
        """A constant as a view."""
        array = np.ascontiguousarray(array).reshape(array.shape)
        if array.dtype.name not in C_TYPES:
            raise UnsupportedOpError(f"native has no kernels for constants of {array.dtype.name}")
        self._counter += 1
        tensor = Tensor(f"c{self._counter}", array.size, array.dtype.name, "constant", data=array)
        return View.whole(tensor, array.shape)

    def new(self, shape: Sequence[int], dtype: str = "float32", order: Sequence[int] | None = None) -> View:
        """A fresh temporary, row-major in dimension ``order`` (outermost first)."""
        self._counter += 1
        size = int(np.prod(shape, dtype=np.int64))
        if size > _LARGEST:
            raise UnsupportedOpError(f"native counts elements in 32 bits: {size} are too many")
        tensor = Tensor(f"t{self._counter}", size, dtype)
        if order is None:
            return View.whole(tensor, shape)
        inverse = np.argsort(order)
        return View.whole(tensor, [shape[d] for d in order]).transpose([int(i) for i in inverse])

    def set(self, value: ir.Value, view: View) -> None:
        """The node's output lies here. Its shape must be what shape inference said."""
        expected = shape_of(value)
        if expected is not None and tuple(expected) != view.shape:
            raise UnsupportedOpError(f"native made '{value.name}' {view.shape}, shape inference said {tuple(expected)}")
        self._views[id(value)] = view

    def add(self, step: Step) -> None:
        """Appends a step."""
        self.steps.append(step)

    def branch(self, graph: ir.Graph) -> None:
        """Adds the steps of a subgraph, which sees all values of the graph around it."""
        lower_nodes(self, graph)

    def contiguous(self, view: View, order: Sequence[int] | None = None) -> View:
        """The view itself when dense in this dimension order, else a copy that is: one for all who ask.

        What is known now is copied now, but not to more than it was.
        """
        if view.is_contiguous(order):
            return view
        order = tuple(range(view.rank) if order is None else order)
        key = (view.tensor, view.shape, view.strides, view.offset, order)
        if key not in self._copies:
            data = view.tensor.data
            if data is not None and 0 < view.size <= view.tensor.size:
                self._copies[key] = self._arranged(view, data, order)
            else:
                self._copies[key] = self.new(view.shape, view.dtype, order)
                self.copy(view, self._copies[key])
        return self._copies[key]

    def _arranged(self, view: View, data: Array, order: Sequence[int]) -> View:
        strides = [n * data.itemsize for n in view.strides]
        found = np.lib.stride_tricks.as_strided(data.reshape(-1)[view.offset :], view.shape, strides)
        inverse = [int(i) for i in np.argsort(order)]
        return self.data(found.transpose(order)).transpose(inverse)

    def copy(self, source: View, target: View) -> None:
        """Adds a step that copies ``source`` to ``target``."""
        self.add(Elementwise(target, load(source)))

    def reshape(self, view: View, shape: Sequence[int]) -> View:
        """The same elements in row-major order under another shape; copies only where it must."""
        found = view.reshape(shape)
        if found is None:
            found = self.contiguous(view).reshape(shape)
        assert found is not None
        return found


def shape_of(value: ir.Value) -> tuple[int, ...] | None:
    """The static shape that shape inference found, or None."""
    if value.shape is None or not all(isinstance(d, int) for d in value.shape):
        return None
    return tuple(int(d) for d in value.shape)  # type: ignore[arg-type]


def _table() -> Mapping[str, Lower]:
    table: dict[str, Lower] = {}
    for family in families():
        table.update(family)
    return table


def unsupported(graph: ir.Graph) -> tuple[str, ...]:
    """Names of operators in the graph that no family lowers."""
    table = _table()
    return tuple(sorted({n.op_type for n in graph if n.domain not in ("", "ai.onnx") or n.op_type not in table}))


def lower(model: ir.Model, name: str, isa: Isa) -> Program:
    """The program of a graph with static shapes, laid out for a target.

    Raises:  UnsupportedOpError: names the operator and node that have no kernel
    """
    low = Lowering(name, isa)
    inputs = [
        _input(low, v, i) for i, v in enumerate(v for v in model.graph.inputs if v.name not in model.graph.initializers)
    ]
    lower_nodes(low, model.graph)
    return finish(low, inputs, [low.view(value) for value in model.graph.outputs])


def _input(low: Lowering, value: ir.Value, index: int) -> View:
    shape = shape_of(value)
    if shape is None or value.dtype is None:
        raise UnsupportedOpError(f"native needs static shapes: input '{value.name}' has shape {value.shape}")
    if value.dtype not in _DTYPES:
        raise UnsupportedOpError(f"native has no kernels for {value.dtype}: input '{value.name}'")
    tensor = Tensor(value.name or "", int(np.prod(shape, dtype=np.int64)), value.dtype.numpy().name, "input", index)
    low._views[id(value)] = View.whole(tensor, shape)
    return low._views[id(value)]


def lower_nodes(low: Lowering, graph: ir.Graph) -> None:
    """The steps of every node of a graph, or of one branch of an ``If``."""
    table = _table()
    for node in graph:
        label = f"op {node.op_type} (node '{node.name}')"
        if node.domain not in ("", "ai.onnx") or node.op_type not in table:
            raise UnsupportedOpError(f"{label} has no native kernel")
        for output in node.outputs:
            if output.type is not None and (not isinstance(output.type, ir.TensorType) or output.dtype not in _DTYPES):
                raise UnsupportedOpError(f"{label} with a result of type {output.type} has no native kernel")
        dtypes = {v.dtype for v in (*node.inputs, *node.outputs) if v is not None and v.dtype is not None}
        narrow = sorted(d.name for d in dtypes if _DTYPES.get(d) in NARROW)
        if narrow and node.op_type not in _KEEPS_NARROW:
            raise UnsupportedOpError(f"{label} on {', '.join(narrow)} has no native kernel")
        start = len(low.steps)
        if node.op_type in _KEEPS_HALVES:
            table[node.op_type](low, node)
        else:
            _widened(low, node, table[node.op_type])
        for step in low.steps[start:]:
            step.nodes = step.nodes or (node.name or node.op_type,)


def _widened(low: Lowering, node: ir.Node, family: Lower) -> None:
    """Lowers a node whose float16 and bfloat16 inputs are float32 meanwhile; results become half-wide again."""
    saved: list[tuple[int, View, Array | None]] = []
    for value in node.inputs:
        if value is None or not low.has(value) or id(value) in {s[0] for s in saved}:
            continue
        view = low._views.get(id(value))
        data = low.constant(value)
        dtype = view.dtype if view is not None else data.dtype.name if data is not None else ""
        if dtype not in HALVES:
            continue
        if view is None:
            view = low.view(value)
        saved.append((id(value), view, low._known.get(id(value))))
        if data is not None:
            low._known[id(value)] = data.astype(np.float32)
            low._views[id(value)] = low.data(data.astype(np.float32))
        else:
            if id(value) not in low._wide:
                low._wide[id(value)] = cast(low, view, "float32")
            low._views[id(value)] = low._wide[id(value)]
    family(low, node)
    for key, view, known in saved:
        low._views[key] = view
        low._known.pop(key, None)
        if known is not None:
            low._known[key] = known
    for value in node.outputs:
        dtype = "" if value.dtype is None else _DTYPES[value.dtype]
        made = low._views.get(id(value))  # none where nobody reads it
        if dtype in HALVES and made is not None and made.dtype == "float32":
            low._wide[id(value)] = made
            low._views[id(value)] = cast(low, made, dtype)


def finish(low: Lowering, inputs: list[View], outputs: list[View]) -> Program:
    """The program of what was lowered. Every output becomes a tensor of its own that the caller supplies.

    It is written in place where that is possible.
    """
    final: list[View] = []
    taken: set[int] = set()
    for index, view in enumerate(outputs):
        if view.tensor.kind == "temporary" and view.is_whole and view.is_contiguous() and id(view.tensor) not in taken:
            view.tensor.kind, view.tensor.index = "output", index
            taken.add(id(view.tensor))
            final.append(view)
            continue
        tensor = Tensor(f"out{index}", view.size, view.dtype, "output", index)
        target = View.whole(tensor, view.shape)
        low.copy(view, target)
        final.append(target)
    return Program(low.name, _needed(low.steps), tuple(inputs), tuple(final))


def _needed(steps: list[Step]) -> list[Step]:
    """Without the steps whose results are empty, or read by nobody."""
    wanted: set[int] = set()
    kept: list[Step] = []
    for step in reversed(steps):
        if any(v.size and (v.tensor.kind == "output" or id(v.tensor) in wanted) for v in step.writes()):
            kept.append(step)
            wanted.update(id(v.tensor) for v in step.reads())
    return kept[::-1]
