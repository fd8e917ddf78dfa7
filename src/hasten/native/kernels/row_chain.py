"""Steps that follow each other row by row, by a team: each part takes its own rows through all of them.

What one step makes of a row is all that the next one reads of it, so no part waits for another in between. The first
step may read whatever lies before it: keys and values of all positions, or the rows around its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hasten.native.kernels.elementwise import Elementwise
from hasten.native.kernels.matmul import Product
from hasten.native.kernels.norm import Normalise
from hasten.native.kernels.row_cuts import Cut, cuts, part_of, reads, sees
from hasten.native.kernels.rows import Softmax
from hasten.native.kernels.transpose import Transpose
from hasten.native.plan import ALIGNMENT, plan
from hasten.native.program import Program, Step, Tensor, View

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.isa import Isa

__all__ = ["RowChain", "row_chains"]

_ALONE = 2  # times the least work, of a step that is no longer chain


@dataclass(eq=False)
class RowChain(Step):
    """``pieces``: for each part the steps over its rows, a program from ``given`` to ``made``."""

    steps: tuple[Step, ...]
    rows: int
    pieces: tuple[Program, ...]
    given: tuple[View, ...]
    made: tuple[View, ...]
    scratch: View
    READS = ("given",)
    WRITES = ("made", "scratch")

    @property
    def kernel(self) -> str:
        """The family's name."""
        return "rows"

    @property
    def title(self) -> str:
        """What its steps do."""
        return "; ".join(dict.fromkeys(f"{step.kernel} {step.title}" for step in self.steps))

    @property
    def way(self) -> str:
        """How many rows."""
        return f"by a team: {self.rows} rows, each part its own through {len(self.steps)} steps"

    def macs(self) -> int:
        """Of all steps."""
        return sum(step.macs() for step in self.steps)

    def products(self) -> int:
        """Of all steps."""
        return sum(step.products() for step in self.steps)

    def emit(self, out: Emitter) -> None:
        """One function: each part its piece."""
        signature = [
            ("const unsigned char *weights", "weights"),
            ("unsigned char *scratch", out.pointer(self.scratch)),
            *((f"const void *x{i}", out.pointer(view)) for i, view in enumerate(self.given)),
            *((f"void *y{i}", out.pointer(view)) for i, view in enumerate(self.made)),
        ]
        lines = []
        for p, piece in enumerate(self.pieces):
            lines.append(f"    if (part == {p} * parts / {len(self.pieces)}) {{")
            lines += [f"        {line}" for line in self._piece(out, piece, p)]
            lines.append("    }")
        out.function(self.kernel, self.title, signature, "\n".join([*lines, "    (void)flags;"]), split=True)

    def _piece(self, out: Emitter, piece: Program, p: int) -> Iterator[str]:
        inner = out.nested(piece, f"rows{p}")
        for step in piece.steps:
            step.emit(inner)
        yield f"unsigned char *arena = scratch + {p * (self.scratch.size // len(self.pieces))};"
        for name, mark, views in (
            ("const void *const inputs", "x", self.given),
            ("void *const outputs", "y", self.made),
        ):
            yield f"{name}[] = {{{', '.join(f'{mark}{i}' for i in range(len(views))) or '0'}}};"
        yield from inner.statements()
        out.adopt(inner)


def row_chains(program: Program, isa: Isa, threads: int, least: int) -> Program:
    """The program with steps that follow each other row by row as chains, where they make up ``least`` work.

    One step alone is a chain too where that is the only way to share it out.
    """
    steps: list[Step] = []
    rest = list(program.steps)
    while rest:
        count, chain = 1, None
        for cut in cuts(rest[0]):
            found = _Run.of(rest, cut, threads)
            if found is None or found.work() < least:
                continue
            if len(found.steps) > count or (chain is None and found.is_worth_it_alone(least)):
                count, chain = len(found.steps), found
        steps += rest[:1] if chain is None else [chain.made(program, isa, threads)]
        del rest[:count]
    return replace(program, steps=steps)


def _length(view: View, axis: int, rows: int) -> int:
    """Elements from one of so many rows to the next, where rows are all that the tensor holds; 0 where they are not."""
    each, left = divmod(view.shape[axis], rows)
    others = ((n - 1) * s for d, (n, s) in enumerate(zip(view.shape, view.strides, strict=True)) if d != axis and n > 1)
    inner, stride = view.offset + sum(others), view.strides[axis]
    whole = not left and min(view.strides) >= 0 and inner < stride and view.tensor.size == stride * view.shape[axis]
    return stride * each if whole else 0


@dataclass
class _Run:
    """Steps one after the other, with how each is cut."""

    steps: list[Any]
    cuts: list[Cut]
    rows: int
    lengths: dict[int, int]
    """``id(tensor)`` → elements of a row, of every tensor that is made on the way; 0: its rows lie mixed."""

    @staticmethod
    def of(steps: Sequence[Any], cut: Cut, threads: int) -> _Run | None:
        """As many steps as follow each other row by row, the first one cut as given."""
        rows = steps[0].y.shape[cut.fields["y"]]
        run = _Run([], [], rows, {})
        if not run._add(steps[0], cut, threads):
            return None
        for step in steps[1:]:
            if not any(run._add(step, way, threads) for way in cuts(step)):
                break
        return run

    def _add(self, step: Any, cut: Cut, threads: int) -> bool:
        length, rows = _length(step.y, cut.fields["y"], self.rows), step.y.shape[cut.fields["y"]]
        read = {id(view.tensor) for before in (*self.steps, step) for view in before.reads()}
        fair = rows >= max(2, cut.least) * threads or (rows >= cut.least * threads and not rows % threads)
        if not fair or rows % self.rows or id(step.y.tensor) in read:
            return False
        if not length and not isinstance(step, (Product, Transpose)):
            return False
        if self.lengths.get(id(step.y.tensor), length) != length:
            return False
        if not all(self._is_own(view, at, slides=cut.slides) for view, at in reads(step, cut)):
            return False
        if cut.slides and not (
            step.y.shape[cut.fields["y"]] == self.rows
            and all(sees(step, cut, part) for part in _parts(self.rows, threads))
        ):
            return False
        self.steps.append(step)
        self.cuts.append(cut)
        self.lengths[id(step.y.tensor)] = length
        return True

    def _is_own(self, view: View, axis: int | None, *, slides: bool) -> bool:
        """True where a part has made all that it reads, or everything was there before."""
        if id(view.tensor) not in self.lengths:
            return slides or axis is None or view.shape[axis] % self.rows == 0
        length = self.lengths[id(view.tensor)]
        return length > 0 and axis is not None and not slides and _length(view, axis, self.rows) == length

    def work(self) -> int:
        """Multiply-accumulates, or what else takes as long, of all steps."""
        return sum(2 * step.macs() or 4 * view.size for step in self.steps for view in step.writes())

    def is_worth_it_alone(self, least: int) -> bool:
        """True for a step that a team shares out in no other way, and that takes far longer than to meet around it."""
        undivided = isinstance(self.steps[0], (Elementwise, Normalise, Product, Softmax, Transpose))
        return undivided and self.work() >= _ALONE * least

    def made(self, program: Program, isa: Isa, threads: int) -> RowChain:
        """The step; what no other one touches stays with the part that makes it."""
        inside = {id(step) for step in self.steps}
        others = [step for step in program.steps if id(step) not in inside]
        wanted = {id(view.tensor) for step in others for view in (*step.reads(), *step.writes())}
        wanted |= {id(view.tensor) for view in program.outputs}
        own = {key for key, length in self.lengths.items() if length and key not in wanted}
        made = {id(step.y.tensor): step.y.tensor for step in self.steps}
        read = {id(v.tensor): v.tensor for step in self.steps for v in step.reads() if v.tensor.kind != "constant"}
        kept = [tensor for key, tensor in made.items() if key not in own]
        given = [tensor for key, tensor in read.items() if key not in made]
        pieces = tuple(self._piece(given, kept, own, part, isa) for part in _parts(self.rows, threads))
        size = max(plan(piece).nbytes for piece in pieces)
        size = -(-size // (2 * ALIGNMENT)) * 2 * ALIGNMENT
        scratch = View.whole(Tensor("scratch", size * threads, "uint8"), (size * threads,))
        nodes = tuple(dict.fromkeys(name for step in self.steps for name in step.nodes))
        return RowChain(tuple(self.steps), self.rows, pieces, _whole(given), _whole(kept), scratch, nodes=nodes)

    def _piece(
        self, given: Sequence[Tensor], kept: Sequence[Tensor], own: set[int], rows: tuple[int, int], isa: Isa
    ) -> Program:
        first, last = rows
        count = last - first
        tensors = {id(t): replace(t, kind="input", index=i) for i, t in enumerate(given)}
        tensors |= {id(t): replace(t, kind="output", index=i) for i, t in enumerate(kept)}
        names = {id(step.y.tensor): step.y.tensor for step in self.steps}
        tensors |= {key: replace(names[key], size=self.lengths[key] * count) for key in own}

        def moved(view: View) -> View:
            key = id(view.tensor)
            offset = view.offset - (first * self.lengths[key] if key in own else 0)
            return view if view.tensor.kind == "constant" else replace(view, tensor=tensors[key], offset=offset)

        steps = [
            part_of(step, cut, rows, self.rows, moved).preferred(isa)
            for step, cut in zip(self.steps, self.cuts, strict=True)
        ]
        inputs, outputs = (_whole([tensors[id(t)] for t in side]) for side in (given, kept))
        return Program("piece", steps, inputs, outputs)


def _whole(tensors: Sequence[Tensor]) -> tuple[View, ...]:
    return tuple(View.whole(tensor, (tensor.size,)) for tensor in tensors)


def _parts(rows: int, threads: int) -> list[tuple[int, int]]:
    return [(rows * p // threads, rows * (p + 1) // threads) for p in range(threads)]
