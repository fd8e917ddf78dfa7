"""Takes from LSTM, GRU and RNN what they need not be told, and from their outputs what is computed anyway.

A zero initial state is the default; a full sequence length too. The last step of all steps is the final state.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from hasten.graph.walk import all_nodes
from hasten.passes import Pass
from hasten.passes.surgery import Editor, attribute, constant, dims, input_of, ints, is_op
from hasten.passes.views import VIEWS, trace

__all__ = ["simplify_recurrence"]

_RECURRENT = ("LSTM", "GRU", "RNN")
_COPIES = ("Expand", "Tile", "Cast", "Identity", *VIEWS)


def _apply(model: ir.Model) -> int:
    editor = Editor(model)
    for node in list(all_nodes(model.graph)):
        if is_op(node, *_RECURRENT) and attribute(node, "layout", 0) == 0:
            _drop_defaults(editor, node)
            _use_final_state(editor, node)
    return editor.finish()


def _drop_defaults(editor: Editor, node: ir.Node) -> None:
    for index in (5, 6) if node.op_type == "LSTM" else (5,):
        if _is_zero(input_of(node, index)):
            node.replace_input_with(index, None)
            editor.changes += 1
    given = [value is not None for value in node.inputs]
    if True in given and not given[-1]:
        node.resize_inputs(len(given) - given[::-1].index(True))
    steps, lengths = (dims(node.inputs[0]) or (None,))[0], ints(input_of(node, 4))
    if lengths is not None and isinstance(steps, int) and set(lengths) == {steps}:
        node.replace_input_with(4, None)
        editor.changes += 1


def _is_zero(value: ir.Value | None) -> bool:
    """True for zeros, however they are blown up to the batch's size."""
    while value is not None:
        contents = constant(value)
        if contents is not None:
            return not np.any(contents)
        producer = value.producer()
        if producer is not None and is_op(producer, "ConstantOfShape"):
            filling = producer.attributes.get("value")
            return filling is None or not np.any(filling.as_tensor().numpy())
        if producer is None or not is_op(producer, *_COPIES):
            return False
        value = producer.inputs[0]
    return False


def _use_final_state(editor: Editor, node: ir.Node) -> None:
    """What reads only the last step of all reads the final state instead."""
    every = node.outputs[0]
    shape = dims(every)
    if shape is None or not every.uses() or input_of(node, 4) is not None:
        return
    if shape[0] == 1:
        _one_step(editor, node)
        return
    direction = attribute(node, "direction", "forward")
    if direction == "bidirectional" or not isinstance(shape[0], int) or shape[1] != 1:
        return
    last = shape[0] - 1 if direction == "forward" else 0
    for chain in _chains(every, []):
        _take_final(editor, node, chain, last)


def _one_step(editor: Editor, node: ir.Node) -> None:
    shape = dims(node.outputs[0]) or ()
    if sum(not isinstance(d, int) for d in shape) > 1 or node.outputs[0].is_graph_output():
        return
    final = _final(editor, node)
    follower = next(iter(node.outputs[0].uses()))[0] if node.outputs[0].uses() else node
    target = editor.ints([d if isinstance(d, int) else -1 for d in shape], "target")
    made = ir.node("Reshape", [final, target], name=editor.name(f"{node.name}_step"))
    made.outputs[0].name = editor.name(f"{node.name}_step_out")
    assert follower is not node and node.graph is not None
    node.graph.insert_after(node, made)
    editor.swap(node.outputs[0], made.outputs[0])


def _final(editor: Editor, node: ir.Node) -> ir.Value:
    """The final state; one that was left out gets a name and a type, which makes it exist."""
    if len(node.outputs) < 2:
        node.resize_outputs(2)
    final = node.outputs[1]
    if not final.name:
        final.name = editor.name(f"{node.name}_final")
    every = node.outputs[0]
    if every.dtype is not None:
        final.dtype = every.dtype
    if final.shape is None and every.shape is not None:
        final.shape = ir.Shape(list(every.shape)[1:])
    return final


def _chains(value: ir.Value, above: list[ir.Node]) -> list[list[ir.Node]]:
    """Chains of views that end in a node which picks from them, from ``value`` down."""
    found = []
    for user, index in value.uses():
        if index == 0 and is_op(user, "Gather", "Slice"):
            found.append([*above, user])
        elif index == 0 and is_op(user, *VIEWS):
            found += _chains(user.outputs[0], [*above, user])
    return found


def _take_final(editor: Editor, node: ir.Node, chain: list[ir.Node], last: int) -> None:
    picker, shape = chain[-1], dims(chain[-1].outputs[0])
    arrangement = trace(chain[:-1]) if len(chain) > 1 else None
    steps = (dims(node.outputs[0]) or (0,))[0]
    axis = _picked_axis(picker, last, int(steps or 0))
    if axis is None or shape is None or sum(not isinstance(d, int) for d in shape) > 1:
        return
    if len(chain) > 1:
        if arrangement is None or arrangement.current[axis] != [0]:
            return
        rest = [atom for atom in arrangement.after if atom != 0]
        if rest != [atom for atom in arrangement.before if atom != 0]:
            return
    elif axis != 0:
        return
    final = _final(editor, node)
    editor.swap(picker.outputs[0], editor.reshaped(picker, final, shape))


def _picked_axis(picker: ir.Node, last: int, steps: int) -> int | None:
    """The axis from which exactly the last step is picked, else None."""
    shape = dims(picker.inputs[0])
    if shape is None:
        return None
    if picker.op_type == "Gather":
        index = ints(picker.inputs[1])
        fits = index is not None and len(index) == 1 and index[0] % steps == last
        axis = attribute(picker, "axis", 0) % len(shape)
        return axis if fits and shape[axis] == steps else None
    starts, ends, axes = (ints(input_of(picker, place)) for place in (1, 2, 3))
    step = ints(input_of(picker, 4)) if input_of(picker, 4) is not None else (1,)
    if starts is None or ends is None or axes is None or step is None or not len(starts) == len(axes) == 1:
        return None
    axis = axes[0] % len(shape)
    picked = range(steps)[starts[0] : ends[0] : step[0]]
    return axis if shape[axis] == steps and list(picked) == [last] else None


simplify_recurrence = Pass(
    "simplify recurrent layers",
    _apply,
    requires="inferred shapes",
    ensures="no zero initial state is passed; all steps are kept only where more than the last is read",
)
