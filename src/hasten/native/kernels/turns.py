"""``Scan``, and a ``Loop`` of a fixed number of turns: the body is a program of its own that one C loop runs.

States go to and fro between two places each, so that no turn writes what it reads and the last turn's lie where they
belong; slices of the sequences are read and written where they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.graph.walk import unwrapped
from hasten.native.kernels.nested import Inner
from hasten.native.plan import plan
from hasten.native.program import C_TYPES, Program, Step, View

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.lower import Lowering

__all__ = ["LOWER", "Turns"]


@dataclass(frozen=True)
class _Sequence:
    """A tensor with a slice for every turn. Shapes: view (turns, …), dense"""

    view: View
    backwards: bool = False

    def at(self, name: str, turns: int) -> str:
        """The address of this turn's slice."""
        size = self.view.size // max(turns, 1)
        return f"{name} + {f'({turns - 1} - turn)' if self.backwards else 'turn'} * {size}"


@dataclass(eq=False)
class Turns(Step):
    """``turns`` runs of ``body``, whose inputs are states, slices, what stays the same, and the turn's number."""

    body: Program
    turns: int
    initial: tuple[View, ...]
    finals: tuple[View, ...]
    spares: tuple[View, ...]
    """Where every other turn puts the states. Shapes: as finals"""
    slices: tuple[_Sequence, ...]
    captured: tuple[View, ...]
    numbered: bool
    gathered: tuple[_Sequence, ...]
    scratch: View
    FEEDS_BACK = True

    def reads(self) -> Iterator[View]:
        """Initial states, whole sequences, and what the body takes from around it."""
        yield from (*self.initial, *(s.view for s in self.slices), *self.captured)

    def writes(self) -> Iterator[View]:
        """Final states, what is gathered, and working memory."""
        yield from (*self.finals, *self.spares, *(s.view for s in self.gathered), self.scratch)

    def macs(self) -> int:
        """Those of all turns."""
        return self.turns * sum(step.macs() for step in self.body.steps)

    @property
    def title(self) -> str:
        """How many turns of how much."""
        return f"{self.turns} turns of {len(self.body.steps)} steps"

    def emit(self, out: Emitter) -> None:
        """The steps of one turn as functions, and a loop over their calls."""
        inner = out.nested(self.body)
        for step in self.body.steps:
            step.emit(inner)
        named = [
            *(("const ", f"first{i}", v) for i, v in enumerate(self.initial)),
            *(("", f"state{i}", v) for i, v in enumerate(self.finals)),
            *(("", f"spare{i}", v) for i, v in enumerate(self.spares)),
            *(("const ", f"x{i}", s.view) for i, s in enumerate(self.slices)),
            *(("const ", f"same{i}", v) for i, v in enumerate(self.captured)),
            *(("", f"y{i}", s.view) for i, s in enumerate(self.gathered)),
        ]
        signature = [("const unsigned char *weights", "weights"), ("unsigned char *arena", out.pointer(self.scratch))]
        signature += [(f"{const}{C_TYPES[v.dtype]} *{name}", out.pointer(v)) for const, name, v in named]
        lines = [
            f"    for (int turn = 0; turn < {self.turns}; turn++) {{",
            *([f"        const int odd = ({self.turns} - turn) & 1;"] if self.initial else []),
            *(["        const int64_t number = turn;"] if self.numbered else []),
            f"        const void *const inputs[] = {{{', '.join(self._inputs())}}};",
            f"        void *const outputs[] = {{{', '.join(self._outputs())}}};",
            *(f"        {line}" for line in inner.statements()),
            "    }",
        ]
        out.adopt(inner)
        out.function("turns", self.title, signature, "\n".join(lines))

    def _inputs(self) -> Iterator[str]:
        for i in range(len(self.initial)):
            yield f"turn == 0 ? first{i} : odd ? spare{i} : state{i}"
        yield from (s.at(f"x{i}", self.turns) for i, s in enumerate(self.slices))
        yield from (f"same{i}" for i in range(len(self.captured)))
        if self.numbered:
            yield "&number"

    def _outputs(self) -> Iterator[str]:
        for i in range(len(self.finals)):
            yield f"odd ? state{i} : spare{i}"
        yield from (s.at(f"y{i}", self.turns) for i, s in enumerate(self.gathered))


@dataclass(frozen=True)
class _Plan:
    """What the body's inputs and outputs are, in order."""

    node: ir.Node
    body: ir.Graph
    turns: int
    states: tuple[tuple[ir.Value, ir.Value], ...]
    """Values outside and inside."""
    results: tuple[ir.Value, ...]
    slices: tuple[tuple[ir.Value, _Sequence], ...]
    gathered: tuple[tuple[ir.Value, int, bool], ...]
    """Value inside, axis of the turns, and whether the last turn comes first."""
    number: ir.Value | None = None


def _scan(low: Lowering, node: ir.Node) -> None:
    body = node.attributes["body"].as_graph()
    count = node.attributes["num_scan_inputs"].as_int()
    carried = len(node.inputs) - count
    gathered = len(node.outputs) - carried
    if len(body.inputs) != len(node.inputs):
        raise UnsupportedOpError(f"op Scan (node '{node.name}') of opset 8 has no native kernel: expected 9 or newer")
    axes, turned = (_ints(node, f"scan_input_{what}", count) for what in ("axes", "directions"))
    slices = []
    for value, inside, axis, backwards in zip(node.inputs[carried:], body.inputs[carried:], axes, turned, strict=True):
        view = low.view(value)
        moved = view.transpose([axis % view.rank, *(d for d in range(view.rank) if d != axis % view.rank)])
        slices.append((inside, _Sequence(low.contiguous(moved), bool(backwards))))
    axes, turned = (_ints(node, f"scan_output_{what}", gathered) for what in ("axes", "directions"))
    states = tuple((o, i) for o, i in zip(node.inputs[:carried], body.inputs[:carried], strict=True) if o is not None)
    ends = zip(body.outputs[carried:], axes, map(bool, turned), strict=True)
    turns = slices[0][1].view.shape[0]
    _lower(low, _Plan(node, body, turns, states, tuple(body.outputs[:carried]), tuple(slices), tuple(ends)))


def _ints(node: ir.Node, name: str, count: int) -> Sequence[int]:
    found = node.attributes.get(name)
    return (0,) * count if found is None else found.as_ints()


def _loop(low: Lowering, node: ir.Node) -> None:
    body = node.attributes["body"].as_graph()
    carried = len(node.inputs) - 2
    turns, start = (low.constant(value) if low.has(value) else None for value in node.inputs[:2])
    goes_on = unwrapped(body.outputs[0])
    kept = low.constant(goes_on)
    lasts = goes_on is body.inputs[1] or (kept is not None and bool(kept.all()))
    if turns is None or not lasts or (low.has(node.inputs[1]) and (start is None or not start.all())):
        raise UnsupportedOpError(
            f"op Loop (node '{node.name}') whose number of turns depends on what it computes has no native kernel"
        )
    states = tuple((o, i) for o, i in zip(node.inputs[2:], body.inputs[2:], strict=True) if o is not None)
    ends = tuple((value, 0, False) for value in body.outputs[1 + carried :])
    number = body.inputs[0] if body.inputs[0].uses() else None
    results = tuple(body.outputs[1 : 1 + carried])
    _lower(low, _Plan(node, body, int(turns.reshape(-1)[0]), states, results, (), ends, number))


def _lower(low: Lowering, loop: _Plan) -> None:
    if loop.turns < 1:
        raise UnsupportedOpError(f"op {loop.node.op_type} (node '{loop.node.name}') without turns has no native kernel")
    inner, outside = _inside(low, loop)
    body = inner.program(loop.body, (*loop.results, *(value for value, _, _ in loop.gathered)))
    initial = tuple(low.contiguous(low.view(outer)) for outer, _ in loop.states)
    if any(a.shape != b.shape or a.dtype != b.dtype for a, b in zip(initial, body.outputs, strict=False)):
        raise UnsupportedOpError(
            f"op {loop.node.op_type} (node '{loop.node.name}') whose states change their shape has no native kernel"
        )
    ends = body.outputs[len(initial) :]
    gathered = [low.new((loop.turns, *v.shape), v.dtype) for v in ends]
    step = Turns(
        body=body,
        turns=loop.turns,
        initial=initial,
        finals=tuple(low.new(v.shape, v.dtype) for v in initial),
        spares=tuple(low.new(v.shape, v.dtype) for v in initial),
        slices=tuple(sequence for _, sequence in loop.slices),
        captured=outside,
        numbered=loop.number is not None,
        gathered=tuple(_Sequence(v, b) for v, (_, _, b) in zip(gathered, loop.gathered, strict=True)),
        scratch=low.new((max(plan(body).nbytes, 1),), "uint8"),
    )
    low.add(step)
    for output, view in zip(loop.node.outputs, step.finals, strict=False):
        low.set(output, view)
    for output, view, (_, axis, _) in zip(loop.node.outputs[len(initial) :], gathered, loop.gathered, strict=True):
        order = list(range(1, view.rank))
        order.insert(axis % view.rank, 0)
        low.set(output, view.transpose(order))


def _inside(low: Lowering, loop: _Plan) -> tuple[Inner, tuple[View, ...]]:
    """A lowering that knows the body's inputs, and the views of what it takes from around it."""
    inner = Inner(low, "turn")
    for outer, inside in loop.states:
        inner.take(inside, low.view(outer).shape, low.view(outer).dtype)
    for inside, sequence in loop.slices:
        inner.take(inside, sequence.view.shape[1:], sequence.view.dtype)
    if loop.node.op_type == "Loop":
        inner._known[id(loop.body.inputs[1])] = np.asarray(True)
    captured = inner.capture(low, loop.body)
    if loop.number is not None:
        inner.take(loop.number, (), "int64")
    return inner, captured


LOWER: Mapping[str, Any] = {"Loop": _loop, "Scan": _scan}
