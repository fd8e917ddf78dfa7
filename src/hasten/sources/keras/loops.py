"""``keras.ops.while_loop``: its body and its condition as those of one ``Loop``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir

from hasten.sources.keras.build import Tensor, Unsupported
from hasten.sources.keras.scope import Call, Converter, Scope

__all__ = ["OPERATIONS"]


def _while_loop(g: Scope, call: Call) -> Any:
    import keras  # noqa: PLC0415

    loop, structure = call.layer, call.first

    def packed(tensors: Sequence[Tensor]) -> tuple[Any, ...]:
        """What Keras hands to the loop's functions: a list or tuple part by part."""
        given = keras.tree.pack_sequence_as(structure, list(tensors))
        return tuple(given) if isinstance(given, (list, tuple)) else (given,)

    entering = [g.tensor(v) for v in keras.tree.flatten(structure)]
    begins = _holds(g, loop.cond, packed(entering))
    with g.body() as inside:
        inside.input((), "int64")  # the number of the turn
        inside.input((), "bool")
        before = [inside.input(t.shape, t.dtype) for t in entering]
        after = _fitting(g, before, keras.tree.flatten(g.inline(loop.body, packed(before))))
        body = inside.finish([_holds(g, loop.cond, packed(after)), *after])
    g.mixes |= _asks_data(body, entering)
    most = None if loop.maximum_iterations is None else g.tensor(loop.maximum_iterations, "int64")
    values = g.nodes_of("Loop", [most, begins, *entering], len(entering), {"body": body})
    return keras.tree.pack_sequence_as(
        structure, [Tensor(v, t.shape, t.dtype) for v, t in zip(values, entering, strict=True)]
    )


def _holds(g: Scope, condition: Callable[..., Any], given: tuple[Any, ...]) -> Tensor:
    found = g.tensor(g.inline(condition, given), "bool")
    if any(d != 1 for d in found.shape):
        raise Unsupported(f"the condition of its loop has shape {found.shape}: expected one truth value")
    return g.reshape(found, ()) if found.rank else found


def _fitting(g: Scope, before: Sequence[Tensor], results: Sequence[Any]) -> list[Tensor]:
    """What a turn leaves, in the dtypes of what it was given."""
    after = [g.tensor(t) for t in results]
    if [t.shape for t in after] != [t.shape for t in before]:
        raise Unsupported(
            f"a turn of its loop changes shapes: expected {[t.shape for t in before]}, received "
            f"{[t.shape for t in after]}"
        )
    return [g.cast(new, old.dtype) for new, old in zip(after, before, strict=True)]


def _asks_data(body: ir.Graph, entering: Sequence[Tensor]) -> bool:
    """Whether how many turns there are depends on anything but numbers that start from constants: on all rows."""
    carried = dict(zip(body.inputs[2:], zip(body.outputs[1:], entering, strict=True), strict=True))
    stack: list[ir.Value | None] = [body.outputs[0]]
    seen: set[ir.Value] = set()
    while stack:
        value = stack.pop()
        if value is None or value in seen:
            continue
        seen.add(value)
        node = value.producer()
        if value in carried:
            result, start = carried[value]
            if start.rank or start.constant is None:
                return True
            stack.append(result)
        elif node is not None and node.graph is body:
            stack += node.inputs
        elif value.const_value is None and value not in body.inputs:
            return True
    return False


OPERATIONS: dict[str, Converter] = {"WhileLoop": _while_loop}
