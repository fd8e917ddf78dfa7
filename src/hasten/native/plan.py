"""Lays every temporary of a program into one arena: tensors that live at the same time never overlap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hasten.native.program import Program, Tensor

__all__ = ["ALIGNMENT", "Plan", "plan"]

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
    tensors: dict[int, Tensor] = {}
    for view in program.inputs:
        tensors[id(view.tensor)] = view.tensor
    for position, step in enumerate(program.steps):
        for view in (*step.reads(), *step.writes()):
            if view.tensor.kind == "constant":
                continue
            tensors[id(view.tensor)] = view.tensor
            first.setdefault(id(view.tensor), position)
            last[id(view.tensor)] = position
    for view in program.outputs:
        if view.tensor.kind != "constant":
            tensors[id(view.tensor)] = view.tensor
    temporaries = [t for t in tensors.values() if t.kind == "temporary"]
    placed: list[tuple[int, int, int, int]] = []  # start, end, first, last
    offsets: dict[int, int] = {}
    for tensor in sorted(temporaries, key=lambda t: -t.nbytes):
        begin, end = first[id(tensor)], last[id(tensor)]
        size = (
            -(-(tensor.nbytes + ALIGNMENT) // ALIGNMENT) * ALIGNMENT
        )  # one spare line: vectors may be read past the end
        offset = 0
        for start, stop, born, dies in sorted(placed):
            if born <= end and begin <= dies and start < offset + size and offset < stop:
                offset = stop
        placed.append((offset, offset + size, begin, end))
        offsets[id(tensor)] = offset
    names = {key: _name(t, i) for i, (key, t) in enumerate(tensors.items())}
    return Plan(program, offsets, names, tuple(tensors.values()), max((p[1] for p in placed), default=0))


def _name(tensor: Tensor, i: int) -> str:
    return (
        f"{ {'input': 'in', 'output': 'out'}.get(tensor.kind, 't') }{tensor.index if tensor.kind != 'temporary' else i}"
    )
