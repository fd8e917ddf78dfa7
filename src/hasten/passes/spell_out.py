"""Operators that ONNX itself defines by simpler ones are replaced by those, for engines that know only the simpler."""

from __future__ import annotations

from collections.abc import Collection

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from hasten.graph import shapes
from hasten.graph.walk import all_nodes
from hasten.passes.surgery import opset, sweep

__all__ = ["OperatorId", "operator_id", "spell_out"]

OperatorId = tuple[str, str]
"""Domain, empty for ONNX's own, and name."""
_DOMAIN = "hasten.spelt"


def operator_id(node: ir.Node) -> OperatorId:
    """The node's operator, whichever of its two names ONNX's own domain goes by."""
    return ("" if node.domain == "ai.onnx" else node.domain, node.op_type)


def spell_out(model: ir.Model, operators: Collection[OperatorId]) -> int:
    """Replaces the nodes of ``operators`` by what ONNX defines them by, where it does; returns how many there were.

    What a replacement is made of may hold one of ``operators`` again. Changes ``model`` in place.
    """
    if not any(operator_id(node) in operators for node in all_nodes(model.graph)):
        return 0
    shapes.infer(model)  # some definitions depend on the types of what goes in
    found = 0
    for node in [node for node in all_nodes(model.graph) if operator_id(node) in operators]:
        function = _definition(node, model)
        if function is None:
            continue
        node.domain, node.overload = _DOMAIN, str(found)
        function.domain, function.name, function.overload = node.op_identifier()
        model.functions[function.identifier()] = function
        found += 1
    if found:
        model.opset_imports[_DOMAIN] = 1
        InlinePass()(model)
        sweep(model)
        model.opset_imports.pop(_DOMAIN)
    return found


def _definition(node: ir.Node, model: ir.Model) -> ir.Function | None:
    """What ONNX defines the node by; the node is given the attributes that it left to their defaults."""
    domain, op = operator_id(node)
    version = model.opset_imports.get(domain, 1) if domain else opset(model)
    try:
        schema = onnx.defs.get_schema(op, version, domain)
    except onnx.defs.SchemaError:
        return None
    body = _body(schema, node, version)
    if not body.node:
        return None
    del body.output[len(node.outputs) :]
    made = {name for part in body.node for name in part.output}
    for name in (name for name in body.output if name not in made):
        # An output between others that the node leaves out, for which onnx_ir wants some value all the same.
        body.node.add(op_type="Identity", input=body.input[:1], output=[name])
    for name, attribute in schema.attributes.items():
        if name not in node.attributes and attribute.default_value.name:
            node.attributes.add(ir.from_proto(attribute.default_value))
    function: ir.Function = ir.from_proto(body)
    for name in [name for name, held in node.attributes.items() if held.type == ir.AttributeType.GRAPH]:
        node.attributes.pop(name)  # its nodes stand in the definition already
        function.attributes.pop(name, None)
    # ONNX gave the form that holds in the model's operator sets, whichever it names.
    function.opset_imports.update({**model.opset_imports, "": opset(model)})
    return function


def _body(schema: onnx.defs.OpSchema, node: ir.Node, version: int) -> onnx.FunctionProto:
    """Empty where ONNX has no definition by operators that mean the same in ``version`` as where it was written."""
    by_types = schema.has_context_dependent_function
    versions = schema.context_dependent_function_opset_versions if by_types else schema.function_opset_versions
    since = max((v for v in versions if v <= version), default=0)
    if not since:
        return onnx.FunctionProto()
    if by_types:
        types = [_type(value).SerializeToString() for value in node.inputs]
        written = ir.to_proto(node).SerializeToString()
        made = schema.get_context_dependent_function_with_opset_version(since, written, types)
    else:
        made = schema.get_function_with_opset_version(since)
    body = onnx.FunctionProto.FromString(made)
    own = {part.op_type for part in body.node if not part.domain}
    same = schema.domain or all(_form(op, since) == _form(op, version) for op in own)
    return body if same else onnx.FunctionProto()


def _form(op: str, version: int) -> list[tuple[str, str, bytes]]:
    """What an operator takes and gives: where only that is the same, a newer definition merely allows more types."""
    schema = onnx.defs.get_schema(op, version, "")
    ends = [(end.name, str(end.option), end.type_str.encode()) for end in (*schema.inputs, *schema.outputs)]
    return ends + [(n, str(a.type), a.default_value.SerializeToString()) for n, a in sorted(schema.attributes.items())]


def _type(value: ir.Value | None) -> onnx.TypeProto:
    if value is None or value.type is None:
        return onnx.TypeProto()
    described: onnx.TypeProto = ir.serde.serialize_value(value).type
    return described
