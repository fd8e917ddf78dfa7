"""Every value's type and shape: by ONNX's inference, and where that gives up, by running the graph and looking.

A graph enters, its values are annotated in place. ``skeleton`` is the graph without its large weights, the form in
which ONNX's own checker and inference see it (they take serialised models, and copying weights to and fro would cost
more than the inference).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from hasten.errors import PassError, SourceError
from hasten.graph import reference
from hasten.graph.carried import settle
from hasten.graph.walk import all_nodes
from hasten.types import Array

__all__ = ["complete", "fix", "free_dims", "infer", "set_shape", "skeleton"]

# Shape arithmetic needs the values of small tensors; no weight that matters to a shape is larger.
_SMALL_BYTES = 2048

_HOLD_BODIES = ("If", "Loop", "Scan", "SequenceMap")

# How much these give depends on what they are given: a size seen once is no fact.
_DATA_SIZED = ("NonZero", "Unique", "Compress", "NonMaxSuppression")


def infer(model: ir.Model, *, strict: bool = False, proto: onnx.ModelProto | None = None) -> None:
    """Types and shapes on every value of the graph and its subgraphs; a value that none can tell keeps what it had.

    ``proto`` is the ``skeleton`` of the model where the caller has it already.

    Raises:  PassError: with ``strict``, an operator contradicts the types or shapes that reach it
    """
    found = _inferred(skeleton(model) if proto is None else proto, strict)
    if found is None:
        return
    _merge(model.graph, found.graph)
    _unify(model)


def _inferred(proto: onnx.ModelProto, strict: bool) -> onnx.ModelProto | None:
    """With values of small tensors followed; without, where ONNX trips over some that are no shapes."""
    for follow in (True, False):
        try:
            return onnx.shape_inference.infer_shapes(proto, check_type=strict, strict_mode=strict, data_prop=follow)
        except Exception as error:
            if strict and not follow:
                raise PassError(f"graph is inconsistent: {_first_line(error)}") from error
    return None


def complete(model: ir.Model) -> None:
    """``infer``, what loops carry (``settle``), and what is unknown still read off two runs on unlike inputs, kept
    where both agree.

    Only for graphs without free dimensions; others are inferred alone.
    """
    infer(model)
    settle(model, infer)
    if not free_dims(model):
        _observe(model)


def free_dims(model: ir.Model) -> dict[str, tuple[tuple[str, int], ...]]:
    """Name of each free dimension of the inputs → where it occurs, as (input name, axis)."""
    found: dict[str, list[tuple[str, int]]] = {}
    for value in _true_inputs(model.graph):
        for axis, dim in enumerate(value.shape or ()):
            if not isinstance(dim, int):
                found.setdefault(dim.value or f"{value.name}_{axis}", []).append((value.name or "", axis))
    return {name: tuple(places) for name, places in found.items()}


def fix(model: ir.Model, dims: Mapping[str, int]) -> int:
    """Sets the named free dimensions everywhere and infers the rest anew; returns how many dimensions were set."""
    changed = 0
    for value in _true_inputs(model.graph):
        shape = list(value.shape or ())
        for axis, dim in enumerate(shape):
            name = None if isinstance(dim, int) else dim.value or f"{value.name}_{axis}"
            if name is not None and name in dims:
                shape[axis], changed = dims[name], changed + 1
        set_shape(value, shape)
    if not changed:
        return 0
    # What was inferred under the old dimensions may name them by symbols that nothing defines any more.
    for node in all_nodes(model.graph):
        for value in node.outputs:
            if value.shape is not None and not value.shape.is_static():
                fixed = [dims.get(d.value, d) if not isinstance(d, int) and d.value else d for d in value.shape]
                set_shape(value, fixed if value.is_graph_output() else None)
    infer(model)
    return changed


def set_shape(value: ir.Value, dims: Iterable[Any] | None) -> None:
    """Gives ``value`` a shape of its own (shapes are shared between clones and must not be changed in place)."""
    value.shape = None if dims is None else ir.Shape(list(dims))


def skeleton(model: ir.Model) -> onnx.ModelProto:
    """The graph as ONNX's tools take it: weights over 2 KB stand as inputs, inferred types are left out."""
    proto = onnx.ModelProto(ir_version=model.ir_version or 8)
    opsets = dict(model.opset_imports)
    for domain in sorted({node.domain for node in all_nodes(model.graph)} - set(opsets)):
        opsets[domain] = 1
    proto.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items())
    proto.functions.extend(ir.serde.serialize_function(function) for function in model.functions.values())
    graph = model.graph
    proto.graph.name = graph.name or "graph"
    for node in graph:
        ir.serde.serialize_node_into(proto.graph.node.add(), node)
    proto.graph.input.extend(_describe(value) for value in graph.inputs)
    proto.graph.output.extend(_describe(value) for value in graph.outputs)
    given = {value.name for value in graph.inputs}
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.nbytes <= _SMALL_BYTES:
            weight = ir.serde.serialize_tensor(tensor)
            weight.name = value.name
            proto.graph.initializer.append(weight)
        elif tensor is not None and value.name not in given:
            proto.graph.input.append(
                onnx.helper.make_tensor_value_info(value.name, int(tensor.dtype), list(tensor.shape.numpy()))
            )
    _hand_in(proto.graph, {})
    return proto


def _hand_in(graph: onnx.GraphProto, around: Mapping[str, onnx.TensorProto]) -> None:
    """Gives a body, and those in it, the constants from around it that it reads: inference sees none of them there."""
    holders = (node for node in graph.node if node.op_type in _HOLD_BODIES)
    bodies = [attribute.g for node in holders for attribute in node.attribute if attribute.HasField("g")]
    if not bodies and not around:
        return
    given = {value.name for value in graph.input}
    own = {tensor.name for tensor in graph.initializer}.union(given, *(node.output for node in graph.node))
    read = {name for node in graph.node for name in node.input}
    graph.initializer.extend(around[name] for name in sorted(read & around.keys() - own))
    seen = {name: tensor for name, tensor in around.items() if name not in own}
    seen |= {tensor.name: tensor for tensor in graph.initializer if tensor.name not in given}
    for body in bodies:
        _hand_in(body, seen)


def _describe(value: ir.Value) -> onnx.ValueInfoProto:
    if not isinstance(value.type, ir.TensorType):
        return ir.serde.serialize_value(value)
    dims = None if value.shape is None else [d if isinstance(d, int) else d.value for d in value.shape]
    return onnx.helper.make_tensor_value_info(value.name or "", int(value.type.dtype), dims)


def _true_inputs(graph: ir.Graph) -> Iterator[ir.Value]:
    return (value for value in graph.inputs if value.name not in graph.initializers)


def _merge(graph: ir.Graph, proto: onnx.GraphProto) -> None:
    known = {info.name: info.type for info in (*proto.value_info, *proto.output)}
    for node, described in zip(graph, proto.node, strict=True):
        for value in node.outputs:
            told = known.get(value.name or "")
            if told is not None and told.HasField("tensor_type"):
                _annotate(value, told.tensor_type)
        for name, attribute in node.attributes.items():
            if attribute.type == ir.AttributeType.GRAPH:
                _merge(attribute.as_graph(), next(found.g for found in described.attribute if found.name == name))


def _annotate(value: ir.Value, told: onnx.TypeProto.Tensor) -> None:
    if told.elem_type and value.dtype != told.elem_type:
        value.dtype = ir.DataType(told.elem_type)
    if not told.HasField("shape"):
        return
    dims: list[Any] = [d.dim_value if d.HasField("dim_value") else (d.dim_param or None) for d in told.shape.dim]
    if value.shape is not None and len(value.shape) == len(dims):
        if tuple(dims) == value.shape.dims:
            return
        # An older, sharper fact (measured, or told by the source) outlives a vaguer inference.
        dims = [
            old if not isinstance(new, int) and isinstance(old, int) else new
            for old, new in zip(value.shape, dims, strict=True)
        ]
    set_shape(value, dims)


def _unify(model: ir.Model) -> None:
    """Gives the free dimension that a Reshape carries on its name back; inference makes a new one at each Reshape."""
    same: dict[str, str] = {}
    for node in all_nodes(model.graph):
        if node.op_type == "Reshape" and node.inputs[0] is not None:
            before, after = (_renamed(value, same) for value in (node.inputs[0], node.outputs[0]))
            old, new = ([d for d in dims if not isinstance(d, int)] for dims in (before, after))
            sizes = [np.prod([d for d in dims if isinstance(d, int)], dtype=np.int64) for dims in (before, after)]
            if len(old) == len(new) == 1 and sizes[0] == sizes[1] and None not in (*old, *new) and old != new:
                same[new[0]] = old[0]
    if not same:
        return
    for node in all_nodes(model.graph):
        for value in node.outputs:
            if value.shape is not None and not value.shape.is_static() and not value.is_graph_output():
                set_shape(value, _renamed(value, same))


def _renamed(value: ir.Value, same: Mapping[str, str]) -> list[Any]:
    dims: list[Any] = []
    for dim in value.shape or ():
        name: Any = dim if isinstance(dim, int) else dim.value
        while name in same:
            name = same[name]
        dims.append(name)
    return dims


def _observe(model: ir.Model) -> None:
    loose = _data_sized(model.graph)
    unknown = [
        value
        for node in model.graph
        for value in node.outputs
        if value.name and (value.shape is None or not value.shape.is_static()) and node not in loose
    ]
    if not unknown or not all(value.shape is not None for value in _true_inputs(model.graph)):
        return
    try:
        first, second = (reference.observe(model, _made_up(model, seed), unknown) for seed in (0, 1))
    except SourceError:
        return
    for value, one, other in zip(unknown, first, second, strict=True):
        if isinstance(one, np.ndarray) and one.shape == other.shape:
            set_shape(value, one.shape)
            value.dtype = value.dtype or ir.DataType.from_numpy(one.dtype)


def _data_sized(graph: ir.Graph) -> set[ir.Node]:
    """The nodes whose results, or how large they are, depend on how many elements of a tensor are chosen."""
    found: set[ir.Node] = set()
    for node in graph:
        if node.op_type in _DATA_SIZED or any(v is not None and v.producer() in found for v in node.inputs):
            found.add(node)
    return found


def _made_up(model: ir.Model, seed: int) -> list[Array]:
    """Positive numbers for seed 0; for others floats of either sign, many of them zero."""
    rng = np.random.default_rng(seed)
    arrays = []
    for value in _true_inputs(model.graph):
        assert value.shape is not None and value.dtype is not None
        dtype, shape = value.dtype.numpy(), value.shape.numpy()
        sparse = seed > 0 and dtype.kind == "f"
        arrays.append((rng.integers(-1, 2, shape) if sparse else rng.uniform(0, 2, shape)).astype(dtype))
    return arrays


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else type(error).__name__
