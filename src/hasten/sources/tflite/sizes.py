"""What a file says of its tensors' sizes enters; numbers that stand for a free dimension, and a refusal, leave.

One damaged number in an input's shape makes LiteRT reserve, and fill, tensors of many gigabytes before it can tell.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from hasten.errors import SourceError
from hasten.quiet import quiet_start
from hasten.sources.tflite.model import Flat, listed, shape_of, text

__all__ = ["refuse_swollen", "settle_free"]

# LiteRT's shapes may differ from those stored (some tools write another batch into the input alone): that is harmless
# where the tensors stay small.
_SWOLLEN_BYTES = 1 << 30


def settle_free(flat: Flat) -> bool:
    """Stores 1 for every free dimension of an input, as converters do; returns whether anything else was there."""
    changed = False
    for place in listed(flat.main.inputs):
        tensor = flat.main.tensors[place]
        stored, signature = shape_of(tensor), listed(tensor.shapeSignature)
        if len(stored) != len(signature):
            continue
        settled = [1 if free < 0 else size for size, free in zip(stored, signature, strict=True)]
        if settled != list(stored):
            tensor.shape, changed = settled, True
    return changed


def refuse_swollen(data: bytes, flat: Flat, name: str) -> None:
    """Holds every tensor's stored shape against the one that follows from the inputs.

    Raises:  SourceError: together they are more than a gigabyte larger than the file says
    """
    graph = flat.main
    beyond, worst = 0, (0, "")
    for index, dtype, found in _prepared(data, [shape_of(graph.tensors[place]) for place in listed(graph.inputs)]):
        if index < len(graph.tensors) and flat.raw(graph.tensors[index]) is None:
            stored = shape_of(graph.tensors[index])
            more = (math.prod(found) - math.prod(stored)) * np.dtype(dtype).itemsize
            beyond += max(more, 0)
            worst = max(worst, (more, f"'{text(graph.tensors[index].name)}' {found} out of {stored}"))
    if beyond > _SWOLLEN_BYTES:
        raise SourceError(
            f"cannot read TFLite model '{name}': the shapes of its inputs make tensor {worst[1]}, "
            f"{beyond / 2**30:.1f} GiB more in all than the file says; it is damaged, copy or convert it again"
        )


def _prepared(data: bytes, inputs: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, Any, tuple[int, ...]]]:
    """Index, dtype and shape of each tensor as LiteRT finds them, before any memory for them is used.

    Where it refuses so many rows, it is asked of one, and what has one row then is given all of them.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType  # noqa: PLC0415 - optional library

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES  # others fill the memory that they reserve
    rows = max((shape[0] for shape in inputs if shape), default=1)
    for times in sorted({1, rows}):
        try:
            with quiet_start():
                interpreter = Interpreter(model_content=data, num_threads=1, experimental_op_resolver_type=plain)
                for detail, shape in zip(interpreter.get_input_details(), inputs, strict=True):
                    if times > 1 and shape:
                        interpreter.resize_tensor_input(detail["index"], (shape[0] // times, *shape[1:]))
                interpreter.allocate_tensors()
        except (RuntimeError, ValueError):  # told, with its reason, where the file is opened to be run
            continue
        for detail in interpreter.get_tensor_details():
            shape = tuple(map(int, detail["shape"]))
            yield detail["index"], detail["dtype"], (shape[0] * times, *shape[1:]) if shape else shape
        return
