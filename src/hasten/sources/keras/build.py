"""Emits ONNX nodes one at a time, each result with its shape and dtype known, so that converters read like arithmetic.

A ``Builder`` is the graph being written. ``Tensor`` is one of its values; ``None`` in a shape is the batch dimension
(or a multiple of it). Weights become initialisers, equal content once only.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from hasten.types import Array

__all__ = ["OPSET", "Builder", "Dim", "Shape", "Tensor", "Unsupported", "broadcast", "ir_dtype", "octets"]

OPSET = 20
"""The newest opset that ONNX Runtime, OpenVINO and tf2onnx-era tools all read; it brings Gelu and 3-D Resize."""

Dim = int | None
Shape = tuple[Dim, ...]


class Unsupported(Exception):
    """No converter for a layer, or none for this setting of it; the text names both."""


@dataclass(frozen=True, eq=False)
class Tensor:
    """A value of the graph. ``mask`` is the Keras mask that travels with it; ``constant`` its content where known."""

    value: ir.Value
    shape: Shape
    dtype: str
    mask: Tensor | None = None
    constant: Array | None = None

    @property
    def rank(self) -> int:
        """How many dimensions."""
        return len(self.shape)

    def masked(self, mask: Tensor | None) -> Tensor:
        """The same value with another mask."""
        return replace(self, mask=mask)

    def size(self, axis: int) -> int:
        """The length of one dimension.

        Raises:  Unsupported: it is not known before the model runs
        """
        dim = self.shape[axis]
        if dim is None:
            raise Unsupported(f"dimension {axis} of {self.value.name} is not known before the model runs")
        return dim


def ir_dtype(dtype: str) -> ir.DataType:
    """The ONNX element type of a numpy or Keras dtype name."""
    return ir.DataType[{"float32": "FLOAT", "float64": "DOUBLE"}.get(dtype, dtype.upper())]


def broadcast(*shapes: Shape) -> Shape:
    """The shape of an elementwise result.

    Raises:  Unsupported: the shapes do not fit
    """
    rank = max(map(len, shapes))
    dims: list[Dim] = []
    for axis in range(-rank, 0):
        here: set[Dim] = {s[axis] for s in shapes if len(s) >= -axis} - {1}
        if len(here) > 1 and None not in here:
            raise Unsupported(f"shapes {shapes} do not broadcast")
        numbers = here - {None}
        dims.append(None if None in here else (numbers.pop() if numbers else 1))
    return tuple(dims)


def octets(array: Array) -> memoryview:
    """The bytes of a contiguous array, without a copy; also of dtypes that Python's buffers do not know."""
    return array.reshape(-1).view(np.uint8).data


def _attribute(name: str, value: Any) -> Any:
    """Integers as the list that they are: onnx_ir would ask of any list first whether it is a tensor, by protocols."""
    integers = isinstance(value, (list, tuple)) and value and all(type(v) is int for v in value)
    return ir.AttrInt64s(name, value) if integers else value


class Builder:
    """The graph being written: nodes in order, initialisers, and the name of the layer that is being converted."""

    def __init__(self, batch: int | None = None) -> None:
        self.batch = batch
        """What stands for the batch in symbolic shapes: nothing, or a large prime for code that computes with it."""
        self.nodes: list[ir.Node] = []
        self.initializers: dict[str, ir.Value] = {}
        self.scope: tuple[str, ...] = ()
        self.notes: list[str] = []
        self.mixes = False
        """Whether one number, made of all rows, decides on the answer to each of them."""
        self._names: dict[str, int] = {}
        self._content: dict[tuple[bytes, str, tuple[int, ...]], Tensor] = {}

    def name(self, stem: str) -> str:
        """A name not used yet, under the layer being converted."""
        full = "/".join((*self.scope, stem))
        count = self._names[full] = self._names.get(full, -1) + 1
        return f"{full}_{count}" if count else full

    @contextmanager
    def within(self, name: str) -> Iterator[None]:
        """Nodes and weights written inside carry this name in front."""
        outer, self.scope = self.scope, (*self.scope, name)
        try:
            yield
        finally:
            self.scope = outer

    @contextmanager
    def body(self) -> Iterator[Body]:
        """Nodes written inside go to the body of a loop; weights stay outside, where the body sees them."""
        outer, self.nodes = self.nodes, []
        try:
            yield Body(self)
        finally:
            self.nodes = outer

    def constant(self, value: Any, dtype: str | None = None, name: str = "constant") -> Tensor:
        """An initialiser of this content; equal content is stored once."""
        array = np.asarray(value)
        array = np.ascontiguousarray(array if dtype is None else array.astype(_numpy_dtype(dtype))).reshape(array.shape)
        kind = array.dtype.name
        key = (hashlib.sha1(octets(array)).digest(), kind, array.shape)
        if key not in self._content:
            full = self.name(name)
            tensor = ir.Tensor(array, dtype=ir_dtype(kind), name=full)
            node_value = ir.Value(
                name=full, shape=ir.Shape(array.shape), type=ir.TensorType(ir_dtype(kind)), const_value=tensor
            )
            self.initializers[full] = node_value
            self._content[key] = Tensor(node_value, tuple(array.shape), kind, constant=array)
        return self._content[key]

    def nodes_of(
        self, kind: str, inputs: Sequence[Tensor | None], outputs: int, attributes: Mapping[str, Any] | None = None
    ) -> list[ir.Value]:
        """One node; its ``outputs`` values, their shapes for the caller to say."""
        name = self.name(kind)
        results = [ir.Value(name=f"{name}:{i}") for i in range(outputs)]
        given = {k: _attribute(k, v) for k, v in (attributes or {}).items() if v is not None}
        node = ir.node(
            kind, [None if x is None else x.value for x in inputs], attributes=given, outputs=results, name=name
        )
        self.nodes.append(node)
        return results

    def op(
        self,
        kind: str,
        inputs: Sequence[Tensor | None],
        shape: Shape,
        *,
        dtype: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """One node with one result, of the first input's dtype unless another is given."""
        first = next(x for x in inputs if x is not None)
        kept = dtype or first.dtype
        value = self.nodes_of(kind, inputs, 1, attributes)[0]
        value.type = ir.TensorType(ir_dtype(kept))
        return Tensor(value, shape, kept)

    def unary(self, kind: str, x: Tensor, **attributes: float | int | str) -> Tensor:
        """An elementwise node."""
        return self.op(kind, [x], x.shape, attributes=attributes)

    def like(self, value: Any, x: Tensor) -> Tensor:
        """``value`` as a tensor of ``x``'s dtype; tensors are cast, numbers become constants."""
        return self.cast(value, x.dtype) if isinstance(value, Tensor) else self.constant(value, x.dtype)

    def binary(self, kind: str, a: Tensor | float, b: Tensor | float, *, dtype: str | None = None) -> Tensor:
        """An elementwise node of two inputs; the second (or a number) takes the dtype of the first tensor."""
        ref = a if isinstance(a, Tensor) else b
        assert isinstance(ref, Tensor)
        x, y = self.like(a, ref), self.like(b, ref)
        return self.op(kind, [x, y], broadcast(x.shape, y.shape), dtype=dtype)

    def add(self, a: Tensor | float, b: Tensor | float) -> Tensor:
        """a + b."""
        return self.binary("Add", a, b)

    def sub(self, a: Tensor | float, b: Tensor | float) -> Tensor:
        """a - b."""
        return self.binary("Sub", a, b)

    def mul(self, a: Tensor | float, b: Tensor | float) -> Tensor:
        """a * b."""
        return self.binary("Mul", a, b)

    def div(self, a: Tensor | float, b: Tensor | float) -> Tensor:
        """a / b."""
        return self.binary("Div", a, b)

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        """``x`` as another dtype; itself where it has it already."""
        if x.dtype == dtype:
            return x
        if x.constant is not None:
            return self.constant(x.constant, dtype).masked(x.mask)
        to = int(ir_dtype(dtype))
        return self.op("Cast", [x], x.shape, dtype=dtype, attributes={"to": to}).masked(x.mask)

    def reshape(self, x: Tensor, shape: Sequence[Dim]) -> Tensor:
        """``x`` in another shape, at most one dimension of it unknown.

        Raises:  Unsupported: two unknown dimensions
        """
        target = tuple(shape)
        if target == x.shape and target.count(None) <= 1:
            return x
        if target.count(None) > 1:
            raise Unsupported(f"reshape to {target}: expected one free dimension at most")
        kept = bool(target) and bool(x.shape) and target[0] is None and x.shape[0] is None
        same_rest = kept and None not in x.shape[1:] and _product(x.shape) == _product(target)
        numbers = [(0 if same_rest else -1) if d is None else d for d in target]
        return self.op("Reshape", [x, self.constant(np.array(numbers, np.int64), name="shape")], target)

    def transpose(self, x: Tensor, order: Sequence[int]) -> Tensor:
        """Dimensions in another order."""
        if list(order) == list(range(x.rank)):
            return x
        return self.op("Transpose", [x], tuple(x.shape[i] for i in order), attributes={"perm": list(order)})

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        """Matrix product, stacked over leading dimensions, by numpy's rules."""
        lead = broadcast(a.shape[:-2], b.shape[:-2]) if a.rank > 2 or b.rank > 2 else ()
        rows = a.shape[-2:-1] if a.rank > 1 else ()
        return self.op("MatMul", [a, b], (*lead, *rows, *(b.shape[-1:] if b.rank > 1 else ())))

    def reduce(self, kind: str, x: Tensor, axes: Sequence[int], *, keepdims: bool = False) -> Tensor:
        """``ReduceMean`` and its like over ``axes``."""
        where = sorted(a % x.rank for a in axes)
        shape = tuple(1 if i in where else d for i, d in enumerate(x.shape) if keepdims or i not in where)
        given = self.constant(np.array(where, np.int64), name="axes")
        return self.op(kind, [x, given], shape, attributes={"keepdims": int(keepdims)})

    def concat(self, parts: Sequence[Tensor], axis: int) -> Tensor:
        """Tensors one after another along ``axis``."""
        if len(parts) == 1:
            return parts[0]
        axis %= parts[0].rank
        sizes = [p.shape[axis] for p in parts]
        total = None if None in sizes else sum(map(int, _known(tuple(sizes))))
        shape = (*parts[0].shape[:axis], total, *parts[0].shape[axis + 1 :])
        merged = tuple(
            d if i == axis else next((p.shape[i] for p in parts if p.shape[i] is not None), None)
            for i, d in enumerate(shape)
        )
        return self.op("Concat", parts, merged if None not in sizes else shape, attributes={"axis": axis})

    def slice(self, x: Tensor, axis: int, start: int, stop: int, step: int = 1) -> Tensor:
        """``x[start:stop:step]`` along one dimension, numbers as Python has them."""
        axis %= x.rank
        size = x.shape[axis]
        if size is None:
            raise Unsupported("a slice of the batch dimension")
        picked = range(size)[start:stop:step]
        if picked == range(size):
            return x
        first, last = picked.start, picked.stop
        if last < 0:  # past the front: Python's ranges say -1, ONNX takes that for the last element
            last = -size - 1
        args = [self.constant(np.array([n], np.int64), name="slice") for n in (first, last, axis, step)]
        return self.op("Slice", [x, *args], (*x.shape[:axis], len(picked), *x.shape[axis + 1 :]))

    def flip(self, x: Tensor, axis: int) -> Tensor:
        """One dimension backwards."""
        return self.slice(x, axis, x.size(axis % x.rank) - 1, -x.size(axis % x.rank) - 1, -1)

    def squeeze(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        """Without these dimensions of length 1."""
        where = sorted(a % x.rank for a in axes)
        shape = tuple(d for i, d in enumerate(x.shape) if i not in where)
        return self.op("Squeeze", [x, self.constant(np.array(where, np.int64), name="axes")], shape) if where else x

    def unsqueeze(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        """With new dimensions of length 1 at these places of the result."""
        rank = x.rank + len(axes)
        where = sorted(a % rank for a in axes)
        old = iter(x.shape)
        shape = tuple(1 if i in where else next(old) for i in range(rank))
        return self.op("Unsqueeze", [x, self.constant(np.array(where, np.int64), name="axes")], shape)

    def pad(self, x: Tensor, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Tensor:
        """``x`` with ``before[i]`` and ``after[i]`` constant elements around dimension i."""
        if not any(before) and not any(after):
            return x
        shape = tuple(None if d is None else d + b + a for d, b, a in zip(x.shape, before, after, strict=True))
        pads = self.constant(np.array([*before, *after], np.int64), name="pads")
        return self.op("Pad", [x, pads, self.constant(value, x.dtype)], shape)

    def where(self, condition: Tensor, a: Tensor | float, b: Tensor | float) -> Tensor:
        """Elements of ``a`` where the condition holds, else of ``b``."""
        ref = a if isinstance(a, Tensor) else b
        assert isinstance(ref, Tensor)
        x, y = self.like(a, ref), self.like(b, ref)
        shape = broadcast(condition.shape, x.shape, y.shape)
        return self.op("Where", [self.cast(condition, "bool"), x, y], shape, dtype=ref.dtype)

    def shape_of(self, x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
        """The lengths as the model runs, as int64."""
        whole = self.op("Shape", [x], (x.rank,), dtype="int64")
        if axes is None:
            return whole
        return self.op("Gather", [whole, self.constant(np.array(axes, np.int64))], (len(axes),))

    def expand(self, x: Tensor, shape: Shape, like: Tensor | None = None) -> Tensor:
        """``x`` repeated to ``shape``; an unknown dimension 0 is taken from ``like``."""
        if x.shape == shape:
            return x
        if None not in shape:
            target = self.constant(np.array(shape, np.int64), name="shape")
        elif like is not None and shape[0] is None and None not in shape[1:]:
            rest = self.constant(np.array(shape[1:], np.int64), name="shape")
            target = self.concat([self.shape_of(like, [0]), rest], 0) if len(shape) > 1 else self.shape_of(like, [0])
        else:
            raise Unsupported(f"a broadcast to {shape}")
        return self.op("Expand", [x, target], shape)


class Body:
    """The inside of a loop: its inputs are made first, ``finish`` closes it over its outputs."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._inputs: list[ir.Value] = []

    def input(self, shape: Shape, dtype: str) -> Tensor:
        """One more input."""
        name = self._builder.name("step")
        value = ir.Value(name=name, shape=ir.Shape(list(shape)), type=ir.TensorType(ir_dtype(dtype)))
        self._inputs.append(value)
        return Tensor(value, shape, dtype)

    def finish(self, outputs: Sequence[Tensor]) -> ir.Graph:
        """The body as a graph; every output a value of its own."""
        own = [self._builder.op("Identity", [t], t.shape) for t in outputs]
        name = self._builder.name("body")
        return ir.Graph(
            self._inputs, [t.value for t in own], nodes=self._builder.nodes, name=name, opset_imports={"": OPSET}
        )


def _numpy_dtype(dtype: str) -> np.dtype[Any]:
    return np.dtype(ir_dtype(dtype).numpy())


def _known(shape: Shape) -> tuple[int, ...]:
    return tuple(d for d in shape if d is not None)


def _product(shape: Shape) -> int:
    return math.prod(_known(shape))
