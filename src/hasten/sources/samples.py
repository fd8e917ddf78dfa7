"""Sample inputs: a source's specs and graph enter, arrays that the model can safely be called with leave.

Integers are the danger: an index past the end of a table is an error or garbage, so a table's length is looked up in
the graph. The user's own sample comes first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import psutil

from hasten.errors import InputError
from hasten.sources import Source, SourceRequest
from hasten.types import Array, TensorSpec

__all__ = ["draw", "holding", "index_limits", "samples"]

_DEFAULT_LIMIT = 8
_DRAWN_BYTES = 8
"""Of each element as numpy draws it, whatever the dtype that it is given then."""
# Value-preserving operators between an input and the table that it indexes.
_THROUGH = {"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Concat", "Expand", "Flatten"}


def samples(source: Source, request: SourceRequest, seed: int, count: int) -> list[tuple[Array, ...]]:
    """``count`` inputs for the source at batch 1: rows of the user's sample first, then random ones.

    Raises:  InputError: the user's sample has another count, dtype or shape than the model's inputs
    """
    rng = np.random.default_rng(seed)
    found = [] if request.sample is None else _rows(source.inputs, request.sample)[:count]
    limits = index_limits(source.model)
    found += [holding(source, draw(source.inputs, limits, rng), k) for k in range(len(found), count)]
    return found


def draw(
    specs: Sequence[TensorSpec], limits: dict[str, int], rng: np.random.Generator, rows: int = 1
) -> tuple[Array, ...]:
    """One random array for each spec; ``limits`` holds the exclusive upper bound of integer inputs that are indices.

    Raises:  InputError: a spec takes no numbers, or more of them than this machine has memory for
    """
    fixed = [spec.fixed({"batch": rows}) for spec in specs]
    for spec in fixed:
        _refuse_beyond_memory(spec)
    return tuple(_draw(spec, limits.get(spec.name), rng) for spec in fixed)


def _refuse_beyond_memory(spec: TensorSpec) -> None:
    """A size of its own is no sign of damage: volumes and large images have as many elements as a flipped bit makes."""
    needed, free = math.prod(spec.static_shape) * _DRAWN_BYTES, psutil.virtual_memory().available
    if needed > free:
        raise InputError(
            f"cannot make a sample for input {spec}: expected at most {free / 2**30:.1f} GiB, which is free here, "
            f"received a shape that takes {needed / 2**30:.1f} GiB; check the shape, or whether the file is damaged"
        )


def holding(source: Source, arrays: Sequence[Array], k: int) -> tuple[Array, ...]:
    """Drawn inputs of any number of rows, their integers replaced where they have to obey a rule; ``k`` picks which."""
    held = source.held[k % len(source.held)] if source.held else {}
    return tuple(
        np.resize(held[spec.name], array.shape) if spec.name in held else array
        for spec, array in zip(source.inputs, arrays, strict=True)
    )


def index_limits(model: ir.Model | None) -> dict[str, int]:
    """Input name → the length of the shortest table that it indexes (Gather, OneHot), where there is one."""
    if model is None:
        return {}
    integers = (v for v in model.graph.inputs if v.dtype is not None and v.dtype.is_integer())
    limits = {v.name or "": _limit(v, set()) for v in integers}
    return {name: limit for name, limit in limits.items() if limit is not None}


def _limit(value: ir.Value, seen: set[int]) -> int | None:
    if id(value) in seen:
        return None
    seen.add(id(value))
    found = [limit for node, index in value.uses() if (limit := _limit_at(node, index, seen)) is not None]
    return min(found, default=None)


def _limit_at(node: ir.Node, index: int, seen: set[int]) -> int | None:
    if node.op_type in ("Gather", "GatherElements") and index == 1 and node.inputs[0] is not None:
        return _length(node.inputs[0], node.attributes.get_int("axis", 0))
    if node.op_type == "EmbedLayerNormalization" and index in _TABLES:
        table = node.inputs[_TABLES[index]]
        return None if table is None else _length(table, 0)
    if node.op_type == "OneHot" and index == 0 and node.inputs[1] is not None:
        depth = node.inputs[1].const_value
        return None if depth is None else int(depth.numpy().reshape(-1)[0])
    if node.op_type in _THROUGH and index == 0:
        return min((n for out in node.outputs if (n := _limit(out, seen)) is not None), default=None)
    return None


# Ids of words, segments and places -> the table that ONNX Runtime's own embedding looks them up in.
_TABLES = {0: 2, 1: 4, 8: 3}


def _length(table: ir.Value, axis: int | None) -> int | None:
    shape = table.const_value.shape if table.const_value is not None else table.shape
    if shape is None or len(shape) == 0:
        return None
    length = shape[axis or 0]
    return length if isinstance(length, int) else None


def _draw(spec: TensorSpec, limit: int | None, rng: np.random.Generator) -> Array:
    dtype, shape = np.dtype(spec.dtype), spec.static_shape
    if dtype == np.bool_:
        return rng.integers(0, 2, shape).astype(np.bool_)
    if np.issubdtype(dtype, np.integer):
        if limit is None and dtype.itemsize == 1:
            # One byte means quantised: the whole range is meant to be used.
            info = np.iinfo(dtype)
            return rng.integers(info.min, info.max, shape, endpoint=True).astype(dtype)
        if limit is None and "mask" in spec.name.lower():
            return np.ones(shape, dtype)
        return rng.integers(0, limit or _DEFAULT_LIMIT, shape).astype(dtype)
    if np.issubdtype(dtype, np.complexfloating):
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)
    if np.issubdtype(dtype, np.floating) or dtype.name.startswith(("bfloat", "float")):
        return rng.standard_normal(shape).astype(dtype)
    raise InputError(f"input {spec} takes no numbers: expected numbers or booleans; leave text processing outside")


def _rows(specs: Sequence[TensorSpec], sample: Sequence[Array]) -> list[tuple[Array, ...]]:
    if len(sample) != len(specs):
        raise InputError(f"sample has {len(sample)} arrays: expected {len(specs)}")
    arrays = [np.ascontiguousarray(a) for a in sample]
    counts = set()
    for spec, array in zip(specs, arrays, strict=True):
        fits = len(spec.shape) == array.ndim and all(
            d in ("batch", n) for d, n in zip(spec.shape, array.shape, strict=True)
        )
        if not fits or array.dtype != np.dtype(spec.dtype):
            raise InputError(f"sample for input {spec}: expected that dtype and shape, received {_describe(array)}")
        if spec.is_batched:
            counts.add(array.shape[0])
    if len(counts) > 1:
        raise InputError(f"sample arrays have unlike batch sizes: expected one, received {sorted(counts)}")
    return [
        tuple(a[row : row + 1] if s.is_batched else a for s, a in zip(specs, arrays, strict=True))
        for row in range(counts.pop() if counts else 1)
    ]


def _describe(array: Array) -> str:
    return f"{array.dtype.name}[{', '.join(map(str, array.shape))}]"
