"""A huge embedding of which each run reads a few rows.

## What it does
Finds `Gather` on a weight of 16 MiB and more that picks less than one row in a hundred.

## Why is this bad
The table must be loaded, and often copied by each process and engine, though a run touches kilobytes of it. Each row
read misses every cache.

## Cost
Start-up time and memory: the whole table for each process.

## Example
A vocabulary of 250,000 words by 768 numbers is 733 MiB in float32.

## Use instead
Store the table as float16 or int8 and convert the rows that are read, prune the vocabulary, or keep the table outside
the model in a memory-mapped file (`np.load(..., mmap_mode="r")`).

## Fix safety
No fix: which rows, digits or file the table can do with is yours to say.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from hasten.doctor.graphs import GraphHit, GraphRule, ModelView

_HUGE_BYTES = 16 * 2**20
_SHARE = 100


def check(view: ModelView) -> Iterator[GraphHit]:
    """Large tables with few rows read."""
    for node in view.nodes:
        if node.op_type != "Gather" or node.inputs[0] is None or node.inputs[1] is None:
            continue
        table = node.inputs[0].const_value
        if table is None or table.nbytes < _HUGE_BYTES:
            continue
        rows, read = int(np.prod(table.shape.numpy()[:1])), _rows_read(node.inputs[1], view)
        if read * _SHARE <= rows:
            size = table.nbytes / 2**20
            yield GraphHit(f"node '{node.name}'", f"reads at most {read} of {rows} rows of a {size:.0f} MiB table")


def _rows_read(indices: ir.Value, view: ModelView) -> int:
    """A free dimension counts one; where an importer lost the shape, as many are read as the inputs hold numbers."""
    if indices.shape is not None:
        return _size(indices)
    return sum(_size(v) for v in view.inputs if v.dtype is not None and v.dtype.is_integer()) or 1


def _size(value: ir.Value) -> int:
    return math.prod(d for d in value.shape or () if isinstance(d, int))


RULE = GraphRule(
    "H611", "huge-embedding", "Store it smaller (float16, int8), prune it, or keep it memory-mapped.", check
)
