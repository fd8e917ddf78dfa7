"""The lowered form: tensors in memory, strided views of them, and the steps that run in order.

A ``View`` is how numpy sees memory (shape, strides, offset; counted in elements), so that transposes, slices, splits,
squeezes and most reshapes cost nothing: they only change the view. Kernels ask for the layout they need.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.isa import Isa

__all__ = ["C_TYPES", "Kind", "Program", "Step", "Tensor", "View", "contiguous_strides"]

C_TYPES = {
    "float32": "float", "float64": "double", "int64": "int64_t", "int32": "int32_t", "int16": "int16_t",
    "int8": "int8_t", "uint8": "uint8_t", "uint16": "uint16_t", "uint32": "uint32_t", "uint64": "uint64_t",
    "bool": "uint8_t", "float16": "uint16_t", "bfloat16": "uint16_t",
    "int4": "uint8_t", "uint4": "uint8_t", "int2": "uint8_t", "uint2": "uint8_t", "float8_e4m3fn": "uint8_t",
    "float8_e4m3fnuz": "uint8_t", "float8_e5m2": "uint8_t", "float8_e5m2fnuz": "uint8_t", "float4_e2m1fn": "uint8_t",
    "float8_e8m0fnu": "uint8_t",
}  # fmt: skip
"""How values of each dtype are stored in C; half-wide floats as their bits, and what is narrower than a byte in one."""

# Multiply-adds and values of a program that takes about as long as setting the processor's mode and putting it back.
_BRIEF = 512

Kind = Literal["input", "output", "temporary", "constant"]


@dataclass(eq=False)
class Tensor:
    """A block of ``size`` elements. Identity, not name, tells two tensors apart; names appear in the emitted C."""

    name: str
    size: int
    dtype: str = "float32"
    kind: Kind = "temporary"
    index: int = 0
    """Position among the inputs or outputs."""
    data: Array | None = None
    """The values of a constant."""

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * np.dtype(self.dtype).itemsize


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Row-major strides in elements."""
    strides, step = [], 1
    for d in reversed(shape):
        strides.append(step)
        step *= d
    return tuple(reversed(strides))


@dataclass(frozen=True, eq=False)
class View:
    """A logical array: element ``i`` lies at ``offset + Σ i·strides`` of its tensor. Stride 0 repeats (broadcasts)."""

    tensor: Tensor
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @staticmethod
    def whole(tensor: Tensor, shape: Sequence[int]) -> View:
        """The tensor, row-major."""
        return View(tensor, tuple(shape), contiguous_strides(shape))

    @property
    def dtype(self) -> str:
        """The tensor's dtype."""
        return self.tensor.dtype

    @property
    def size(self) -> int:
        """Number of logical elements."""
        return prod(self.shape)

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def is_contiguous(self, order: Sequence[int] | None = None) -> bool:
        """True when the elements, read with dimensions in ``order``, lie row-major without gaps from ``offset``."""
        order = range(self.rank) if order is None else order
        step = 1
        for d in reversed(list(order)):
            if self.shape[d] != 1 and self.strides[d] != step:
                return False
            step *= self.shape[d]
        return True

    @property
    def is_whole(self) -> bool:
        """True when the view covers its tensor densely, in whatever dimension order."""
        return self.offset == 0 and self.size == self.tensor.size and self.order is not None

    @property
    def order(self) -> tuple[int, ...] | None:
        """The dimension order, outermost first, in which the view is dense and row-major; None where there is none."""
        order = tuple(
            sorted(range(self.rank), key=lambda d: (-self.strides[d] if self.shape[d] != 1 else -(10**18), d))
        )
        return order if self.is_contiguous(order) else None

    def transpose(self, perm: Sequence[int]) -> View:
        """Dimensions reordered; no data moves."""
        return replace(self, shape=tuple(self.shape[p] for p in perm), strides=tuple(self.strides[p] for p in perm))

    def slice(self, axis: int, start: int, count: int, step: int = 1) -> View:
        """``count`` elements of one axis from ``start``, every ``step`` (may be negative)."""
        shape, strides = list(self.shape), list(self.strides)
        offset = self.offset + start * strides[axis]
        shape[axis], strides[axis] = count, strides[axis] * step
        return View(self.tensor, tuple(shape), tuple(strides), offset)

    def split(self, axis: int, inner: int) -> View:
        """One axis as two, the second of ``inner`` neighbours; its size is a multiple of that."""
        shape, strides = self.shape, self.strides
        return replace(
            self,
            shape=(*shape[:axis], shape[axis] // inner, inner, *shape[axis + 1 :]),
            strides=(*strides[:axis], strides[axis] * inner, strides[axis], *strides[axis + 1 :]),
        )

    def broadcast(self, shape: Sequence[int]) -> View:
        """The view repeated to ``shape`` by numpy's rules.

        Raises:  ValueError: the shapes do not broadcast
        """
        lead = len(shape) - self.rank
        strides = [0] * lead + list(self.strides)
        own = (1,) * lead + self.shape
        for d, (have, want) in enumerate(zip(own, shape, strict=True)):
            if have != want:
                if have != 1:
                    raise ValueError(f"cannot broadcast {self.shape} to {tuple(shape)}")
                strides[d] = 0
        return View(self.tensor, tuple(shape), tuple(strides), self.offset)

    def reshape(self, shape: Sequence[int]) -> View | None:
        """The same elements under another shape, or None where that needs a copy."""
        shape = tuple(shape)
        if self.size == 0:
            return View(self.tensor, shape, contiguous_strides(shape), self.offset)
        old = [(n, s) for n, s in zip(self.shape, self.strides, strict=True) if n != 1]
        strides: list[int] = []
        i = 0
        while len(strides) < len(shape):
            want = shape[len(strides)]
            if want == 1:
                strides.append(0)
                continue
            if i == len(old):
                return None
            have, last = old[i]
            i += 1
            group = [want]
            while prod(group) != have:
                if prod(group) < have:
                    nxt = len(strides) + len(group)
                    if nxt >= len(shape):
                        return None
                    group.append(shape[nxt])
                else:
                    if i == len(old) or last != old[i][0] * old[i][1]:
                        return None
                    have, last = have * old[i][0], old[i][1]
                    i += 1
            inner = contiguous_strides(group)
            strides += [s * last for s in inner]
        return View(self.tensor, shape, tuple(strides), self.offset)


@dataclass(eq=False)
class Step:
    """One kernel call. Families subclass it: fields say what to compute, ``emit`` writes the C function.

    Fields that hold a ``View`` are found by name in ``READS`` and ``WRITES``, so that planning and fusing need to know
    nothing of any family.
    """

    READS: ClassVar[tuple[str, ...]] = ()
    """Fields that hold a view, or views, that the step reads."""
    WRITES: ClassVar[tuple[str, ...]] = ()
    FEEDS_BACK: ClassVar[bool] = False
    """True where a result is the input of the same arithmetic again, within one call."""
    STORES_BYTES: ClassVar[bool] = False
    """True where an epilogue may end in int8 or uint8."""
    TABLE: ClassVar[str] = ""
    """The field of which only as much is read as is written: what rows are picked from."""
    nodes: tuple[str, ...] = field(default=(), kw_only=True)
    """Names of the graph nodes that this step computes, for the report."""

    def reads(self) -> Iterator[View]:
        """Every view that the step reads."""
        for name in self.READS:
            value = getattr(self, name)
            if isinstance(value, View):
                yield value
            elif value is not None:
                yield from value

    def writes(self) -> Iterator[View]:
        """Every view that the step writes; what it writes is written in full before anybody reads it."""
        for name in self.WRITES:
            value = getattr(self, name)
            if isinstance(value, View):
                yield value
            elif value is not None:
                yield from value

    def accepts(self, name: str, view: View) -> bool:
        """True where the step can write its result ``name`` straight to this view, maybe inside a larger tensor."""
        return False

    @property
    def kernel(self) -> str:
        """The family's name; the stem of the emitted function."""
        return type(self).__name__.lower()

    @property
    def title(self) -> str:
        """One line for people: what is computed, with sizes."""
        return self.kernel

    @property
    def way(self) -> str:
        """How it is computed, in a few words, where there is a choice."""
        return ""

    def preferred(self, isa: Isa) -> Step:
        """The step that computes the same in the way that a model of the machine prefers."""
        return self

    def shared(self, isa: Isa, threads: int) -> Step:
        """As ``preferred`` made it, or in a way nearly as cheap whose parts, one for each thread, read less of what
        another one wrote.
        """
        return self

    def others(self, isa: Isa) -> tuple[Step, ...]:
        """Steps that compute the same in other ways, those that the model likes best first."""
        return ()

    def macs(self) -> int:
        """Multiply-accumulates of one call."""
        return 0

    def products(self) -> int:
        """Multiply-accumulates that the machine makes: fewer where minimal filtering saves some."""
        return self.macs()

    def emit(self, out: Emitter) -> None:
        """Writes the C function through ``out`` (see ``Emitter``)."""
        raise NotImplementedError(self.kernel)


@dataclass(eq=False)
class Program:
    """Steps in order, with the tensors the caller hands in and takes out."""

    name: str
    steps: list[Step]
    inputs: tuple[View, ...]
    outputs: tuple[View, ...]
    timed: frozenset[int] = frozenset()
    """Positions of the steps whose way was found the fastest on this machine, not by a model."""

    @property
    def is_brief(self) -> bool:
        """True where so little is computed that setting the processor's mode for denormals is a good part of the call.

        There the one input tells whether any can arise: nothing is fed back, within a call or as a state between calls.
        """
        if len(self.inputs) != 1 or self.inputs[0].dtype != "float32":
            return False
        feeds_back = any(step.FEEDS_BACK for step in self.steps)
        values = sum(view.size for step in self.steps for view in (*step.reads(), *step.writes()))
        return not feeds_back and sum(step.macs() for step in self.steps) + values <= _BRIEF

    @property
    def weight_bytes(self) -> int:
        """Bytes of the arrays that the steps bring along, before any is stored in fewer."""
        return sum(
            value.nbytes for step in self.steps for value in vars(step).values() if isinstance(value, np.ndarray)
        )
