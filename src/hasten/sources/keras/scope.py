"""What a converter is given: the call of one layer or operation, and the graph to write it into."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hasten.sources.keras.build import Builder, Shape, Tensor, Unsupported
from hasten.types import Array

__all__ = ["Call", "Converter", "Result", "Scope", "weight"]


@dataclass(frozen=True)
class Call:
    """One call of a layer or operation: its arguments by name, tensors in place, and what Keras says comes out."""

    layer: Any
    arguments: Mapping[str, Any]
    shapes: tuple[Shape, ...]
    dtypes: tuple[str, ...]

    def __getitem__(self, name: str) -> Any:
        return self.arguments.get(name)

    def setting(self, name: str) -> Any:
        """An attribute of the layer or operation: one of its constructor's arguments."""
        return getattr(self.layer, name)

    @property
    def first(self) -> Any:
        """The first argument: the layer's input, or a structure of them."""
        return next(iter(self.arguments.values()))

    @property
    def x(self) -> Tensor:
        """The first argument, which must be one tensor.

        Raises:  Unsupported: it is a structure
        """
        first = self.first
        if isinstance(first, (list, tuple)) and len(first) == 1:
            first = first[0]
        if not isinstance(first, Tensor):
            raise Unsupported(f"{type(self.layer).__name__} of a {type(first).__name__}: expected one tensor")
        return first

    @property
    def shape(self) -> Shape:
        """The shape of the first output."""
        return self.shapes[0]

    @property
    def dtype(self) -> str:
        """The dtype of the first output."""
        return self.dtypes[0]


class Scope(Builder):
    """A ``Builder`` that also converts whole layers, for those made of others (wrappers, bidirectional, attention)."""

    def tensor(self, value: Any, dtype: str | None = None) -> Any:
        """A tensor of the graph: itself, or the constant that a variable, array or number is; None stays None."""
        if value is None:
            return None
        if isinstance(value, Tensor):
            return value if dtype is None else self.cast(value, dtype)
        plain = isinstance(value, (int, float, bool, list, tuple, np.ndarray, np.generic))
        array = _one_row(np.asarray(value) if plain else weight(value), self.batch)
        return self.constant(array, dtype, getattr(value, "name", None) or "constant")

    @abstractmethod
    def apply(self, layer: Any, arguments: Sequence[Any], named: Mapping[str, Any] | None = None) -> Any:
        """What calling ``layer`` on these tensors returns."""

    @abstractmethod
    def inline(self, call: Callable[..., Any], arguments: Sequence[Any], named: Mapping[str, Any] | None = None) -> Any:
        """What ``call`` returns, traced operation by operation."""


Result = Any
Converter = Callable[[Scope, Call], Result]


def _one_row(array: Array, batch: int | None) -> Array:
    """An array made for the stand-in batch, as the one row that broadcasts to any batch.

    Raises:  Unsupported: its rows differ
    """
    for axis, size in enumerate(array.shape if batch else ()):
        if size == batch:
            row = array.take([0], axis=axis)
            if not np.array_equal(array, np.broadcast_to(row, array.shape)):
                raise Unsupported("a constant with unlike rows for every element of the batch")
            array = row
    return array


def weight(variable: Any) -> Array:
    """A Keras variable or backend tensor as numpy, whatever the backend."""
    import keras  # noqa: PLC0415

    array: Array = keras.ops.convert_to_numpy(variable)
    return array
