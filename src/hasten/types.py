"""What a tensor looks like from outside: its name, dtype and shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

__all__ = ["Array", "TensorSpec"]


@dataclass(frozen=True)
class TensorSpec:
    """Name, numpy dtype name and shape of one input or output.

    Shapes:  a free dimension is its name (``"batch"``); only dimension 0 may be called ``"batch"``, and then the
             tensor holds that many independent rows.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    @property
    def is_static(self) -> bool:
        """True when every dimension is a number."""
        return all(isinstance(d, int) for d in self.shape)

    @property
    def is_batched(self) -> bool:
        """True when dimension 0 is the free batch dimension."""
        return bool(self.shape) and self.shape[0] == "batch"

    @property
    def static_shape(self) -> tuple[int, ...]:
        """The shape as numbers.

        Raises:  ValueError: a dimension is still free
        """
        if not self.is_static:
            raise ValueError(f"tensor '{self.name}' has free dimensions {self.shape}")
        return tuple(int(d) for d in self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of one such tensor; free dimensions count as 1."""
        size = np.dtype(self.dtype).itemsize
        for d in self.shape:
            size *= d if isinstance(d, int) else 1
        return size

    def fixed(self, dims: Mapping[str, int]) -> TensorSpec:
        """This spec with the named free dimensions replaced by numbers."""
        return replace(self, shape=tuple(dims.get(d, d) if isinstance(d, str) else d for d in self.shape))

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; ``from_json`` reverses it."""
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> TensorSpec:
        """The spec that ``to_json`` wrote."""
        return TensorSpec(data["name"], data["dtype"], tuple(data["shape"]))

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"
