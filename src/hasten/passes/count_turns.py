"""A Loop that goes on while a counter is below a number gets its number of turns, and no condition.

TensorFlow's ``while`` is written so whatever it repeats. Engines must then ask after every turn, and none can plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir

from hasten.errors import SourceError
from hasten.graph import reference
from hasten.graph.walk import all_nodes
from hasten.passes import Pass
from hasten.passes.extract import extract
from hasten.passes.surgery import Editor, constant, is_op, scalar
from hasten.types import Array

__all__ = ["count_turns"]

# Each turn is asked for; a loop of more is nothing that a model of one answer is made of.
_MOST = 20_000


def _apply(model: ir.Model) -> int:
    editor = Editor(model)
    for node in list(all_nodes(model.graph)):
        if is_op(node, "Loop"):
            turns = _turns(model, node)
            if turns is not None:
                body = node.attributes["body"].as_graph()
                body.outputs[0] = body.inputs[1]
                node.replace_input_with(0, editor.weight(np.asarray(turns, np.int64), "turns"))
                editor.changes += 1
    return editor.finish()


def _turns(model: ir.Model, loop: ir.Node) -> int | None:
    """How often the body runs; None where that is no matter of counting, or stands there already."""
    body = loop.attributes["body"].as_graph()
    goes_on, start = body.outputs[0], loop.inputs[1]
    # Without a condition to begin with the standard has the body's ignored, and ONNX Runtime does not.
    if goes_on is body.inputs[1] or scalar(goes_on) == 1 or scalar(start) != 1:
        return None
    limit = None if loop.inputs[0] is None else scalar(loop.inputs[0])
    if loop.inputs[0] is not None and limit is None:
        return None
    counters = _counters(loop, body)
    if counters is None:
        return None
    inputs = [body.inputs[0], *(body.inputs[place] for place in counters)]
    results = [body.outputs[place - 1] for place in counters]
    known = {body.inputs[1]: np.asarray(True)}
    part = extract(model, [goes_on, *results], inputs, known)
    if part is None:
        return None
    return _counted(part, [_start(loop, place) for place in counters], _MOST if limit is None else int(limit))


def _counters(loop: ir.Node, body: ir.Graph) -> list[int] | None:
    """What the condition is computed from, as places among the loop's inputs: numbers that start as constants."""
    places: list[int] = []
    todo = [body.outputs[0]]
    for wanted in todo:
        for value in _read(body, [wanted]):
            place = body.inputs.index(value)
            if place < 2 or place in places:
                continue
            if constant(loop.inputs[place]) is None or np.size(_start(loop, place)) != 1:
                return None
            places.append(place)
            todo.append(body.outputs[place - 1])
    return places


def _read(body: ir.Graph, wanted: Iterable[ir.Value]) -> set[ir.Value]:
    """The inputs of the body that ``wanted`` are computed from."""
    found: set[ir.Value] = set()
    seen: set[ir.Value] = set()
    stack = list(wanted)
    given = set(body.inputs)
    while stack:
        value = stack.pop()
        if value in seen:
            continue
        seen.add(value)
        if value in given:
            found.add(value)
        elif (producer := value.producer()) is not None and producer.graph is body:
            stack += [v for v in producer.inputs if v is not None]
    return found


def _start(loop: ir.Node, place: int) -> Array:
    contents = constant(loop.inputs[place])
    assert contents is not None
    return contents


def _counted(part: ir.Model, state: Sequence[Array], limit: int) -> int | None:
    try:
        step = reference.runner(part)
        for turn in range(min(limit, _MOST)):
            goes_on, *state = step([np.asarray(turn, np.int64), *state])
            if not np.all(goes_on):
                return turn + 1
    except SourceError:
        return None
    return limit if limit < _MOST else None


count_turns = Pass(
    "count turns",
    _apply,
    requires="constants folded",
    ensures="a Loop whose condition only counts has its number of turns, and the condition it was given",
)
