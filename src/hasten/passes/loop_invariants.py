"""What a Loop only hands on from turn to turn is read from outside instead.

TensorFlow's ``while`` knows nothing around its body, so that its sequences and weights are carried through every turn:
in the body, a weight is then no constant.
"""

from __future__ import annotations

import onnx_ir as ir

from hasten.graph.walk import all_nodes, unwrapped
from hasten.passes import Pass
from hasten.passes.surgery import Editor, is_op

__all__ = ["loop_invariants"]


def _apply(model: ir.Model) -> int:
    editor = Editor(model)
    for node in list(all_nodes(model.graph)):
        if is_op(node, "Loop"):
            places = [at for at in range(len(node.inputs) - 2) if _is_handed_on(node, at)]
            if places:
                _take_out(editor, node, places)
    return editor.finish()


def _is_handed_on(loop: ir.Node, at: int) -> bool:
    body = loop.attributes["body"].as_graph()
    taken = body.inputs[2 + at]
    places = [place for place, value in enumerate(body.outputs) if unwrapped(value) is taken]
    return places == [1 + at] and loop.inputs[2 + at] is not None


def _take_out(editor: Editor, loop: ir.Node, places: list[int]) -> None:
    body = loop.attributes["body"].as_graph()
    for at in places:
        outer, taken = loop.inputs[2 + at], body.inputs[2 + at]
        assert outer is not None
        for user, index in tuple(taken.uses()):
            user.replace_input_with(index, outer)
        editor.swap(loop.outputs[at], outer)
    for at in reversed(places):
        del body.inputs[2 + at], body.outputs[1 + at]
    inputs = [value for index, value in enumerate(loop.inputs) if index - 2 not in places]
    kept = [value for at, value in enumerate(loop.outputs) if at not in places]
    # Out of the old node first: what is swept takes the body that it holds along.
    made = editor.node(loop, "Loop", inputs, {"body": loop.attributes.pop("body")}, outputs=len(kept))
    for old, new in zip(kept, made.outputs, strict=True):
        editor.swap(old, new)


loop_invariants = Pass(
    "take invariants out of loops",
    _apply,
    ensures="no Loop carries what its body hands on as it came",
)
