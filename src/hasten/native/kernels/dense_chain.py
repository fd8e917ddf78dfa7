"""Products of one row after another by a team, two at a time between meetings.

The first product of a pair is shared by columns of its weights. The second then by rows: a part has made those values
itself that its rows are multiplied with, and no part waits for the other's. What comes out are sums of a part of the
terms each; the next pair begins with their sum, for which each part reads those of the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import numpy as np

from hasten.native.expr import ACC, Expr, call, load, loads, substitute
from hasten.native.kernels.dense import Dense
from hasten.native.kernels.elementwise import Elementwise
from hasten.native.kernels.far_dense import FarDense
from hasten.native.kernels.rounded_dense import RoundedDense
from hasten.native.plan import ALIGNMENT, plan
from hasten.native.program import Program, Step, Tensor, View

if TYPE_CHECKING:
    from hasten.native.emit import Emitter

__all__ = ["DenseChain", "chained"]

# What a meeting costs, and a line of the cache that comes from another core, in multiply-adds of one thread.
_MEETING, _LINE = 4_000, 400
_LINE_VALUES = ALIGNMENT // 4


@dataclass(frozen=True, eq=False)
class _Stage:
    """What the parts do up to a meeting; ``pieces``: a program for each, from ``inputs`` to its sums or columns."""

    layers: int
    pieces: tuple[Program, ...]
    inputs: tuple[View, ...]
    outputs: tuple[View, ...]
    """Where the result of each piece goes."""


@dataclass(eq=False)
class DenseChain(Step):
    """Stages that the parts walk through together, and meet after each.

    Shapes:  x (1, K) · sums: for each stage (pieces, row length), in which lie the first N of every row
    """

    layers: tuple[Dense, ...]
    stages: tuple[_Stage, ...]
    scratch: View
    WRITES = ("scratch",)

    def reads(self) -> Iterator[View]:
        """What the first layer reads."""
        yield self.layers[0].x

    def writes(self) -> Iterator[View]:
        """The results of every stage, and room for what lies between."""
        yield self.scratch
        yield from (view for stage in self.stages for view in stage.outputs)

    @property
    def kernel(self) -> str:
        """Dense, as any of its layers."""
        return "dense"

    @property
    def title(self) -> str:
        """The layers' sizes and epilogues."""
        return _sizes(self.layers) + "".join(dict.fromkeys(layer._epilogue.title for layer in self.layers))

    @property
    def way(self) -> str:
        """The layers of every stage."""
        ends = [0, *accumulate(stage.layers for stage in self.stages)]
        return "by a team: " + ", meet, ".join(_sizes(self.layers[a:b]) for a, b in pairwise(ends))

    def macs(self) -> int:
        """Of all layers."""
        return sum(layer.macs() for layer in self.layers)

    def emit(self, out: Emitter) -> None:
        """One function: the pieces of a stage, each by its part, then a meeting."""
        outputs = [view for stage in self.stages for view in stage.outputs]
        names = {_place(view): f"y{i}" for i, view in enumerate(outputs)} | {_place(self.layers[0].x): "x"}
        signature = [
            ("const unsigned char *weights", "weights"),
            ("unsigned char *scratch", out.pointer(self.scratch)),
            ("const float *x", out.pointer(self.layers[0].x)),
            *((f"float *y{i}", out.pointer(view)) for i, view in enumerate(outputs)),
        ]
        lines = []
        for s, stage in enumerate(self.stages):
            lines += ["    meet(flags, part, parts);"] if s else []
            for p in range(len(stage.pieces)):
                lines += [f"    if (part == {p} * parts / {len(stage.pieces)}) {{"]
                lines += [f"        {line}" for line in self._piece(out, stage, s, p, names)]
                lines += ["    }"]
        out.function(self.kernel, self.title, signature, "\n".join([*lines, "    (void)flags;"]), split=True)

    def _piece(self, out: Emitter, stage: _Stage, s: int, p: int, names: dict[tuple[int, int], str]) -> Iterator[str]:
        program = stage.pieces[p]
        inner = out.nested(program, f"part{s + 1}{p}")
        for step in program.steps:
            step.emit(inner)
        yield f"unsigned char *arena = scratch + {p * self.scratch.size // len(stage.pieces)};"
        yield f"const void *const inputs[] = {{{', '.join(names[_place(view)] for view in stage.inputs)}}};"
        yield f"void *const outputs[] = {{{names[_place(stage.outputs[p])]}}};"
        yield from inner.statements()
        out.adopt(inner)


def _sizes(layers: Sequence[Dense]) -> str:
    return " -> ".join(str(n) for n in (layers[0].weight.shape[0], *(layer.weight.shape[1] for layer in layers)))


def _place(view: View) -> tuple[int, int]:
    return id(view.tensor), view.offset


def chained(program: Program, threads: int, lanes: int) -> Program:
    """The program with products of one row that follow each other as chains, where that costs a team least."""
    steps: list[Step] = []
    kept = {id(view.tensor) for view in program.outputs}
    readers = Counter(id(view.tensor) for step in program.steps for view in step.reads())
    rest = list(program.steps)
    while rest:
        run = _run(rest, kept, readers)
        lengths = _lengths(run, threads, lanes, opening=bool(steps))
        steps += _chain(run[: sum(lengths)], lengths, threads) if lengths else rest[:1]
        del rest[: max(1, sum(lengths))]
    return replace(program, steps=steps)


def _run(steps: Sequence[Step], kept: set[int], readers: Counter[int]) -> list[Dense]:
    """The products of one row that follow each other from the first step on, each with the one before to itself."""
    found: list[Dense] = []
    for step in steps:
        if type(step) not in (Dense, FarDense, RoundedDense) or not isinstance(step, Dense) or step.rows != 1:
            break
        if found:
            before = found[-1].y
            alone = readers[id(before.tensor)] == 1 and id(before.tensor) not in kept
            same = before.tensor is step.x.tensor and before.is_whole and step.x.is_whole
            if not (alone and same and _is_closed(found[-1])):
                break
        found.append(step)
    return found


def _is_closed(layer: Dense) -> bool:
    """True where the epilogue reads constants alone."""
    return all(view.tensor.kind == "constant" for view in layer.operands)


def _lengths(run: Sequence[Dense], threads: int, lanes: int, *, opening: bool) -> list[int]:
    """How many layers each stage has, 1 or 2; those behind the last stage are left to one thread.

    The least sum of meetings, lines of the cache that come from other cores, and multiply-adds of one thread, those of
    vectors that are not full too; ``opening``: the parts have to meet before the first stage.
    """
    shapes = [layer.weight.shape for layer in run]
    best: list[tuple[float, list[int]]] = [(0.0, [])]  # from each layer on
    alone = 0.0
    for i in range(len(run) - 1, -1, -1):
        depth, columns = shapes[i]
        alone += depth * _whole(columns, lanes)
        ways: list[tuple[float, list[int]]] = [(alone, [])]
        shareable = columns >= threads and _is_closed(run[i])
        own = depth * _whole(-(-columns // threads), lanes) + _MEETING
        if shareable:
            # values move where another part made them, and are waited for one after the other; if anybody reads them
            moved = 2 * _lines(columns) * (threads - 1) / threads if i + 1 < len(run) else 0
            ways.append((own + moved + best[0][0], [1, *best[0][1]]))
        if shareable and i + 1 < len(run):
            depth, columns = shapes[i + 1]  # of these all sums move
            cost = own + depth * _whole(columns, lanes) / threads + _lines(columns) * (threads - 1)
            ways.append((cost + best[1][0], [2, *best[1][1]]))
        best.insert(0, min(ways))
    return best[0][1] if alone - best[0][0] > (_MEETING if opening else 0) else []


def _whole(columns: int, lanes: int) -> int:
    return -(-columns // lanes) * lanes


def _lines(values: int) -> int:
    return _LINE * -(-values // _LINE_VALUES)


def _chain(layers: Sequence[Dense], lengths: Sequence[int], threads: int) -> list[Step]:
    """The chain, and behind it what makes the last layer's results of the sums."""
    stages: list[_Stage] = []
    before: tuple[View, ...] = (layers[0].x,)
    finish: Expr | None = None  # what makes the next stage's input of `before`
    at = 0
    for count in lengths:
        group = layers[at : at + count]
        at += count
        stages.append(_stage(group, before, finish, threads))
        before = stages[-1].outputs if count == 2 else (group[-1].y,)
        finish = group[-1].epilogue if count == 2 else None
    size = max(plan(piece).nbytes for stage in stages for piece in stage.pieces)
    size = -(-size // (2 * ALIGNMENT)) * 2 * ALIGNMENT
    scratch = View.whole(Tensor("scratch", size * threads, "uint8"), (size * threads,))
    nodes = tuple(dict.fromkeys(name for layer in layers for name in layer.nodes))
    chain = DenseChain(tuple(layers), tuple(stages), scratch, nodes=nodes)
    if finish is None:
        return [chain]
    last = layers[-1]
    return [chain, Elementwise(last.y, _with(finish, _sum(before)), nodes=last.nodes)]


def _stage(group: Sequence[Dense], before: Sequence[View], finish: Expr | None, threads: int) -> _Stage:
    first, last = group[0], group[-1]
    given = [View.whole(Tensor(f"x{i}", v.size, kind="input", index=i), (1, v.size)) for i, v in enumerate(before)]
    columns = first.weight.shape[1]
    edges = [columns * p // threads for p in range(threads + 1)]
    outputs: list[View] = []
    pieces: list[Program] = []
    for start, stop in pairwise(edges):
        steps: list[Step] = []
        x = given[0]
        if finish is not None:
            x = _new(f"x_{start}", first.weight.shape[0])
            steps.append(Elementwise(x, _with(finish, _sum(given)), nodes=()))
        own = _columns(first, x, start, stop)
        steps.append(own)
        if len(group) == 2:
            y = View.whole(Tensor("y", last.weight.shape[1], kind="output"), (1, last.weight.shape[1]))
            steps.append(_rows(last, own.y, y, start, stop))
            outputs.append(_new(f"sums_{start}", y.size))
        else:
            y = View.whole(Tensor("y", stop - start, kind="output"), (1, stop - start))
            own.y = y
            outputs.append(last.y.slice(1, start, stop - start))
        pieces.append(Program("piece", steps, tuple(given), (y,)))
    return _Stage(len(group), tuple(pieces), tuple(before), tuple(outputs))


def _new(name: str, size: int) -> View:
    return View.whole(Tensor(name, size), (1, size))


def _columns(layer: Dense, x: View, start: int, stop: int) -> Dense:
    """Only these columns; what the epilogue reads of a constant is cut too."""
    cut = {id(e): load(e.view.slice(1, start, stop - start)) for e in loads(layer.epilogue) if e.view is not None}
    weight, bias = np.ascontiguousarray(layer.weight[:, start:stop]), layer.bias[start:stop]
    y = _new(f"own_{start}", stop - start)
    return replace(layer, x=x, y=y, weight=weight, bias=bias, epilogue=substitute(layer.epilogue, cut))


def _rows(layer: Dense, x: View, y: View, start: int, stop: int) -> Dense:
    """Only these terms of every sum, and the bias with the first."""
    bias = layer.bias if start == 0 else np.zeros_like(layer.bias)
    return replace(layer, x=x, y=y, weight=layer.weight[start:stop], bias=bias, epilogue=ACC)


def _sum(views: Sequence[View]) -> Expr:
    total = load(views[0])
    for view in views[1:]:
        total = call("add", total, load(view))
    return total


def _with(finish: Expr, value: Expr) -> Expr:
    """The epilogue of ``value``."""
    found: dict[int, Expr] = {}

    def walk(e: Expr) -> None:
        if e.op == "acc":
            found[id(e)] = value
        for a in e.args:
            walk(a)

    walk(finish)
    return substitute(finish, found)
