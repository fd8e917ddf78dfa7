"""The walk over nodes and bodies is onnx_ir's own, in the same order."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from hasten.graph.walk import all_nodes, subgraphs

_NESTED = """
<ir_version: 8, opset_import: ["" : 17]>
nested (float[2] x, bool c) => (float[2] y) {
    a = Neg(x)
    b = If (c) <
        then_branch = inner () => (float[2] t) {
            d = Abs(a)
            t = If (c) <
                then_branch = one () => (float[2] o) { o = Exp(d) },
                else_branch = two () => (float[2] w) { w = Identity(d) }
            >
        },
        else_branch = other () => (float[2] e) { e = Sqrt(a) }
    >
    y = Add(a, b)
}
"""


def test_nodes_and_bodies_in_the_order_of_onnx_ir() -> None:
    graph = ir.from_proto(onnx.parser.parse_model(_NESTED)).graph
    assert [n.op_type for n in all_nodes(graph)] == [n.op_type for n in graph.all_nodes()]
    assert [n.op_type for n in all_nodes(graph)] == ["Neg", "If", "Abs", "If", "Exp", "Identity", "Sqrt", "Add"]
    assert [g.name for g in subgraphs(graph)] == [g.name for g in graph.subgraphs()]
    assert [g.name for g in subgraphs(graph)] == ["inner", "one", "two", "other"]
