"""Lays every temporary of a program into one arena: tensors that live at the same time never overlap."""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping
from dataclasses import dataclass

from hasten.native.program import Program, Tensor

__all__ = ["ALIGNMENT", "Plan", "apart", "plan"]

ALIGNMENT = 64  # bytes: a cache line, and the widest vector


@dataclass(frozen=True)
class Plan:
    """Where each temporary lies.

    Units:   offsets, nbytes: bytes
    """

    program: Program
    offsets: Mapping[int, int]
    """``id(tensor)`` → offset; the program keeps the tensors alive."""
    names: Mapping[int, str]
    tensors: tuple[Tensor, ...]
    nbytes: int

    def name(self, tensor: Tensor) -> str:
        """The C variable that points at the tensor."""
        return self.names[id(tensor)]

    def declarations(self, c_types: Mapping[str, str]) -> list[str]:
        """C declarations of the pointers that the calls use."""
        lines = []
        for tensor in self.tensors:
            kind, name = c_types[tensor.dtype], self.names[id(tensor)]
            if tensor.kind == "input":
                lines.append(f"const {kind} *{name} = inputs[{tensor.index}];")
            elif tensor.kind == "output":
                lines.append(f"{kind} *{name} = outputs[{tensor.index}];")
            else:
                offset = self.offsets[id(tensor)]
                lines.append(f"{kind} *{name} = ({kind} *)(arena + {offset}); /* {tensor.size} */")
        return lines


def plan(program: Program) -> Plan:
    """Greedy by size: the largest tensors first, each at the lowest offset free during its whole life."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for position, step in enumerate(program.steps):
        for view in (*step.reads(), *step.writes()):
            first.setdefault(id(view.tensor), position)
            last[id(view.tensor)] = position
    tensors = _tensors(program)
    placed: list[tuple[int, int, int, int]] = []  # start, end, first, last
    offsets: dict[int, int] = {}
    for tensor in sorted((t for t in tensors if t.kind == "temporary"), key=lambda t: -t.nbytes):
        begin, end, size = first[id(tensor)], last[id(tensor)], _room(tensor)
        offset = 0
        for start, stop, born, dies in placed:
            if born <= end and begin <= dies and start < offset + size and offset < stop:
                offset = stop
        insort(placed, (offset, offset + size, begin, end))
        offsets[id(tensor)] = offset
    return _planned(program, offsets, max((p[1] for p in placed), default=0))


def apart(program: Program) -> Plan:
    """Every temporary in a place of its own, so that steps may run in any order and any number of times."""
    offsets, end = {}, 0
    for tensor in _tensors(program):
        if tensor.kind == "temporary":
            offsets[id(tensor)] = end
            end += _room(tensor)
    return _planned(program, offsets, end)


def _tensors(program: Program) -> list[Tensor]:
    """All that is no constant: inputs, what the steps use in their order, outputs."""
    views = [*program.inputs, *(v for s in program.steps for v in (*s.reads(), *s.writes())), *program.outputs]
    return list(dict.fromkeys(v.tensor for v in views if v.tensor.kind != "constant"))


def _room(tensor: Tensor) -> int:
    """Bytes of whole lines, one of them spare: vectors may be read past the end."""
    return -(-(tensor.nbytes + ALIGNMENT) // ALIGNMENT) * ALIGNMENT


def _planned(program: Program, offsets: Mapping[int, int], nbytes: int) -> Plan:
    tensors = _tensors(program)
    names = {id(t): _name(t, i) for i, t in enumerate(tensors)}
    return Plan(program, offsets, names, tuple(tensors), nbytes)


def _name(tensor: Tensor, i: int) -> str:
    return (
        f"{ {'input': 'in', 'output': 'out'}.get(tensor.kind, 't') }{tensor.index if tensor.kind != 'temporary' else i}"
    )
