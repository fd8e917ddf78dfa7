"""Rewrites that onnx_ir keeps well itself, under our contract: functions, constants, names, order, dead parts."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
from onnx_ir.passes import common

from hasten.graph.walk import subgraphs
from hasten.passes import Pass
from hasten.passes.surgery import sweep

__all__ = [
    "dead_nodes",
    "inline_functions",
    "lift_constants",
    "merge_equal_nodes",
    "merge_equal_weights",
    "name_everything",
    "overridable_weights",
    "sort_nodes",
]


_IR_VERSION = 8


def _modified(make: Callable[[], ir.passes.PassBase]) -> Callable[[ir.Model], int]:
    def apply(model: ir.Model) -> int:
        return int(make()(model).modified)

    return apply


def _weights_alone(model: ir.Model) -> int:
    """Before version 4 of the format every weight had to be an input as well."""
    modified = common.RemoveInitializersFromInputsPass()(model).modified
    aged = (model.ir_version or 0) < _IR_VERSION
    model.ir_version = max(model.ir_version or 0, _IR_VERSION)
    return int(modified or aged)


def _sort(model: ir.Model) -> int:
    graphs = (model.graph, *subgraphs(model.graph))
    before = [list(graph) for graph in graphs]
    model.graph.sort()
    return int(any(old != list(graph) for old, graph in zip(before, graphs, strict=True)))


inline_functions = Pass("inline functions", _modified(common.InlinePass), ensures="the graph calls no functions")
lift_constants = Pass(
    "lift constants",
    _modified(lambda: common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)),
    ensures="constants are weights of the graph, not nodes",
)
overridable_weights = Pass(
    "fix overridable weights",
    _weights_alone,
    ensures="no weight is an input too",
)
name_everything = Pass("name nodes and values", _modified(common.NameFixPass), ensures="names are present and unique")
sort_nodes = Pass("sort nodes", _sort, ensures="every node comes after what it reads")
merge_equal_nodes = Pass(
    "merge common sub-expressions",
    _modified(common.CommonSubexpressionEliminationPass),
    ensures="no two nodes compute the same thing",
)
merge_equal_weights = Pass(
    "merge equal weights",
    _modified(common.DeduplicateHashedInitializersPass),
    ensures="no two weights hold the same numbers",
)
dead_nodes = Pass("drop dead nodes", sweep, ensures="every node and weight is needed by some output")
