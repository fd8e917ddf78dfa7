"""A Loop or Scan that steps a recurrent cell becomes one LSTM, GRU or RNN node.

Exporters write the layers they do not know as a loop over the cell's arithmetic. ``recurrent_cell`` tells which cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from hasten.errors import SourceError
from hasten.graph import reference
from hasten.graph.walk import unwrapped
from hasten.passes import Pass
from hasten.passes.extract import extract
from hasten.passes.loop_stacks import Stack, State, is_view, rows_of
from hasten.passes.recurrent_cell import Cell, Step, cell_of, emit
from hasten.passes.surgery import Editor, attribute, constant, dims, is_op, scalar, static_dims
from hasten.types import Array

__all__ = ["recognise_recurrence"]


@dataclass(frozen=True)
class _Turns:
    """A loop that carries one state or two, and reads one sequence.

    Shapes:  sequence: turns along ``axis``
    """

    loop: ir.Node
    step: Step
    sequence: ir.Value
    axis: int
    places: tuple[int, ...]
    """Where the states stand among what the loop carries."""
    initial: tuple[ir.Value, ...]
    scans: tuple[tuple[ir.Value, ir.Value, int], ...]
    """What is gathered: value in the body, output of the loop, axis of the turns."""
    backwards: bool = False
    stacks: tuple[Stack, ...] = ()
    counters: tuple[ir.Value, ...] = ()


def _apply(model: ir.Model) -> int:
    editor = Editor(model)
    for node in list(model.graph):
        turns = _of_loop(model, node) if is_op(node, "Loop") else _of_scan(node) if is_op(node, "Scan") else None
        if turns is not None and _replaceable(turns):
            cell = cell_of(model, turns.step)
            if cell is not None:
                _replace(editor, turns, cell)
    return editor.finish()


def _of_scan(scan: ir.Node) -> _Turns | None:
    body = scan.attributes["body"].as_graph()
    sequences = attribute(scan, "num_scan_inputs")
    carried = len(scan.inputs) - sequences
    gathered = len(scan.outputs) - carried
    moving = tuple(i for i in range(carried) if body.inputs[i] is not body.outputs[i])
    if sequences != 1 or len(moving) not in (1, 2) or scan.inputs[carried] is None:
        return None
    backwards = attribute(scan, "scan_input_directions", (0,))[0]
    if set(attribute(scan, "scan_output_directions", (0,) * gathered)) - {backwards}:
        return None
    sequence, initial = scan.inputs[carried], tuple(v for i in moving if (v := scan.inputs[i]) is not None)
    known = {
        body.inputs[i]: contents
        for i in range(carried)
        if i not in moving and (contents := constant(scan.inputs[i])) is not None
    }
    if sequence is None or len(dims(sequence) or ()) != 3 or len(initial) != len(moving):
        return None
    step = Step(
        body.inputs[carried],
        tuple(body.inputs[i] for i in moving),
        tuple(body.outputs[i] for i in moving),
        tuple(body),
        known,
    )
    axes = attribute(scan, "scan_output_axes", (0,) * gathered)
    return _Turns(
        scan,
        step,
        sequence,
        attribute(scan, "scan_input_axes", (0,))[0] % 3,
        moving,
        initial,
        tuple(zip(body.outputs[carried:], scan.outputs[carried:], (axis % 3 for axis in axes), strict=True)),
        bool(backwards),
    )


def _of_loop(model: ir.Model, loop: ir.Node) -> _Turns | None:
    body = loop.attributes["body"].as_graph()
    carried = len(loop.inputs) - 2
    trips, start = scalar(loop.inputs[0]), loop.inputs[1]
    if trips is None or (start is not None and scalar(start) != 1):
        return None
    known = {
        given: contents
        for given, handed, result in zip(body.inputs[2:], loop.inputs[2:], body.outputs[1:], strict=False)
        if given is result and (contents := constant(handed)) is not None
    }
    moving = [i for i in range(carried) if body.inputs[2 + i] is not body.outputs[1 + i]]
    ranks = {i: len(dims(body.inputs[2 + i]) or dims(loop.inputs[2 + i]) or ()) for i in moving}
    places = tuple(i for i in moving if ranks[i] == 2)
    stacks = tuple(Stack(body.inputs[2 + i], body.outputs[1 + i], loop.outputs[i]) for i in moving if ranks[i] > 2)
    counters = (body.inputs[0], *(body.inputs[2 + i] for i in moving if ranks[i] < 2))
    read = _read_of_sequence(body, counters)
    if read is None or len(places) not in (1, 2) or not _runs_through(model, loop, int(trips), counters, known):
        return None
    sequence, initial = read.inputs[0], tuple(v for i in places if (v := loop.inputs[2 + i]) is not None)
    if sequence is None or (dims(sequence) or (None,))[0] != int(trips) or len(dims(sequence) or ()) != 3:
        return None
    step = Step(
        read.outputs[0],
        tuple(body.inputs[2 + i] for i in places),
        tuple(body.outputs[1 + i] for i in places),
        tuple(body),
        known,
    )
    scans = tuple((b, o, 0) for b, o in zip(body.outputs[1 + carried :], loop.outputs[carried:], strict=True))
    return _Turns(loop, step, sequence, 0, places, initial, scans, stacks=stacks, counters=counters)


def _read_of_sequence(body: ir.Graph, counters: Sequence[ir.Value]) -> ir.Node | None:
    """The node that reads this turn's slice of a tensor from outside."""
    found = [
        node
        for node in body
        if is_op(node, "Gather")
        and attribute(node, "axis", 0) == 0
        and node.inputs[1] in counters
        and node.inputs[0] is not None
        and node.inputs[0].graph is not body
    ]
    return found[0] if len(found) == 1 else None


def _runs_through(
    model: ir.Model, loop: ir.Node, trips: int, counters: Sequence[ir.Value], known: dict[ir.Value, Array]
) -> bool:
    """True where every counter is the number of the turn, and the condition holds before the last one."""
    body = loop.attributes["body"].as_graph()
    places = [body.inputs.index(counter) for counter in counters[1:]]
    if any(scalar(loop.inputs[place]) != 0 for place in places):
        return False
    wanted = [body.outputs[0], *(body.outputs[place - 1] for place in places)]
    part = extract(model, [value for value in wanted if value.producer() is not None], counters, known)
    if part is None:
        return False
    kept = wanted[0].producer() is not None
    for turn in sorted({0, trips // 2, max(0, trips - 2)}):
        given = [np.asarray(turn, (c.dtype or ir.DataType.INT64).numpy()) for c in counters]
        try:
            answers = reference.run(part, given)
        except SourceError:
            return False
        goes_on = bool(answers[0]) if kept else True
        if (turn < trips - 1 and not goes_on) or any(int(n) != turn + 1 for n in answers[int(kept) :]):
            return False
    return True


def _replaceable(turns: _Turns) -> bool:
    """True where nothing but the states and stacks is asked of the loop."""
    stacked = [stack.final for stack in turns.stacks]
    carried = turns.loop.outputs[: len(turns.loop.outputs) - len(turns.scans)]
    others = [value for i, value in enumerate(carried) if i not in turns.places and value not in stacked]
    return not any(_is_wanted(value) for value in others)


def _is_wanted(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()


def _replace(editor: Editor, turns: _Turns, cell: Cell) -> None:
    step, loop = turns.step, turns.loop
    hidden = State(unwrapped(step.results[cell.hidden]), (step.rows, cell.r.shape[2]), turns.counters, step.known)
    scans = [scan for scan in turns.scans if _is_wanted(scan[1])]
    stacks = [stack for stack in turns.stacks if _is_wanted(stack.final)]
    count = (dims(turns.sequence) or (None,))[turns.axis]
    rows = [rows_of(editor.model, stack, hidden, count) for stack in stacks]
    if None in rows or not all(_is_gathered(editor.model, scan, hidden) for scan in scans):
        return
    sequence = _moved(editor, loop, turns.sequence, turns.axis, 0)
    every, finals = emit(editor, loop, cell, sequence, turns.initial, "reverse" if turns.backwards else "forward")
    for inner, outer, axis in scans:
        alike = unwrapped(inner) is hidden.value
        shaped = every if alike else editor.reshaped(loop, every, (count, *(static_dims(inner) or ())))
        editor.swap(outer, _moved(editor, loop, shaped, 0, axis))
    for place, value in zip(turns.places, finals, strict=True):
        if _is_wanted(loop.outputs[place]):
            editor.swap(loop.outputs[place], value)
    for stack, filled in zip(stacks, rows, strict=True):
        kept = finals[cell.hidden] if filled == 1 else every
        editor.swap(stack.final, editor.reshaped(loop, kept, static_dims(stack.taken) or ()))


def _is_gathered(model: ir.Model, scan: tuple[ir.Value, ir.Value, int], state: State) -> bool:
    """True where the state is; in another shape only with the turns first."""
    inner, _, axis = scan
    return unwrapped(inner) is state.value or (axis == 0 and is_view(model, inner, state))


def _moved(editor: Editor, before: ir.Node, value: ir.Value, origin: int, target: int) -> ir.Value:
    """``value`` with one axis moved elsewhere."""
    if origin == target:
        return value
    order = [axis for axis in range(3) if axis != origin]
    order.insert(target, origin)
    shape = dims(value)
    moved = None if shape is None else [shape[axis] for axis in order]
    return editor.value(before, "Transpose", [value], {"perm": order}, shape=moved)


recognise_recurrence = Pass(
    "recognise recurrent layers",
    _apply,
    requires="inferred shapes, constants folded",
    ensures="a Loop or Scan over a cell with the arithmetic of LSTM, GRU or RNN is that node",
)
