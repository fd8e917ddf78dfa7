"""A small language for shapes of expressions in a graph, and the matching of them, backwards from a value.

``Op("Mul", "x", Op("Sigmoid", "x"))`` matches x·σ(x) with the operands of Mul in either order. A string is a variable:
the same name is the same value everywhere. A number is a scalar constant, equal within 1e-4 of itself. ``Any`` tries
alternatives in turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from hasten.passes.surgery import is_op, scalar

__all__ = ["Any", "Match", "Op", "find", "product"]

_COMMUTE = ("Add", "Mul", "Max", "Min", "Sum")
_CLOSE = 1e-4


@dataclass(frozen=True)
class Op:
    """An operator applied to patterns; further inputs of the node than those given are not looked at."""

    op: str
    inputs: tuple[Pattern, ...]
    name: str = ""
    """Binds the node's output to a variable as well."""

    def __init__(self, op: str, *inputs: Pattern, name: str = "") -> None:
        object.__setattr__(self, "op", op)
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "name", name)


@dataclass(frozen=True)
class Any:
    """Whichever of the patterns matches first."""

    patterns: tuple[Pattern, ...]

    def __init__(self, *patterns: Pattern) -> None:
        object.__setattr__(self, "patterns", patterns)


Pattern = Op | Any | str | float


@dataclass(frozen=True)
class Match:
    """Values bound to variables, and the nodes that the pattern covers (its root among them)."""

    values: Mapping[str, ir.Value] = field(default_factory=dict)
    nodes: frozenset[ir.Node] = frozenset()

    def __getitem__(self, name: str) -> ir.Value:
        return self.values[name]

    def with_value(self, name: str, value: ir.Value) -> Match:
        """This match with one more variable bound."""
        return Match({**self.values, name: value}, self.nodes)


def find(node: ir.Node, pattern: Pattern) -> Match | None:
    """The first way in which the node's first output is what the pattern says, and nothing else reads its insides."""
    for match in _match(node.outputs[0], pattern, Match()):
        if all(_inside(inner, match, node) for inner in match.nodes if inner is not node):
            return match
    return None


def _inside(inner: ir.Node, match: Match, root: ir.Node) -> bool:
    if inner.graph is not root.graph:
        return False
    return all(
        not value.is_graph_output() and all(user in match.nodes for user, _ in value.uses()) for value in inner.outputs
    )


def _match(value: ir.Value | None, pattern: Pattern, so_far: Match) -> Iterator[Match]:
    if value is None:
        return
    if isinstance(pattern, str):
        bound = so_far.values.get(pattern)
        if bound is None:
            yield so_far.with_value(pattern, value)
        elif bound is value:
            yield so_far
    elif isinstance(pattern, Any):
        for option in pattern.patterns:
            yield from _match(value, option, so_far)
    elif isinstance(pattern, Op):
        yield from _match_op(value, pattern, so_far)
    else:
        number = scalar(value)
        if number is not None and abs(number - pattern) <= _CLOSE * max(abs(pattern), 1e-12):
            yield so_far


def _match_op(value: ir.Value, pattern: Op, so_far: Match) -> Iterator[Match]:
    node = value.producer()
    if node is None or not is_op(node, pattern.op) or len(node.inputs) < len(pattern.inputs):
        return
    inside = Match(so_far.values, so_far.nodes | {node})
    if pattern.name:
        inside = inside.with_value(pattern.name, value)
    given = list(node.inputs[: len(pattern.inputs)])
    orders = [given]
    if pattern.op in _COMMUTE and len(node.inputs) == len(pattern.inputs) == 2:
        orders.append(given[::-1])
    elif pattern.op in _COMMUTE and len(node.inputs) != len(pattern.inputs):
        return
    for order in orders:
        yield from _match_all(order, pattern.inputs, inside)


def _match_all(values: list[ir.Value | None], patterns: tuple[Pattern, ...], so_far: Match) -> Iterator[Match]:
    if not values:
        yield so_far
        return
    for match in _match(values[0], patterns[0], so_far):
        yield from _match_all(values[1:], patterns[1:], match)


def product(*factors: Pattern) -> Any:
    """The factors multiplied in any grouping (of up to three)."""
    if len(factors) == 2:
        return Any(Op("Mul", *factors))
    a, b, c = factors
    return Any(*(Op("Mul", one, Op("Mul", *others)) for one, others in ((a, (b, c)), (b, (a, c)), (c, (a, b)))))
