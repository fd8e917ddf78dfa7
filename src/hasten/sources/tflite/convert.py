"""A TFLite object tree enters; an ONNX graph of the same arithmetic leaves, by tf2onnx and, where that lacks an
operator, by our own ``Emitter``.

Operators with an emitter are cut out before tf2onnx sees the file: each becomes a custom operator with its activations
as inputs, and its weights and options wait here. In the graph that comes back each such node is replaced.
"""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from hasten.errors import SourceError, UnsupportedOpError
from hasten.graph import shapes
from hasten.quiet import quiet_start
from hasten.sources.keras.quiet import import_quietly
from hasten.sources.tflite.means import round_means
from hasten.sources.tflite.model import Flat, listed, shape_of, text
from hasten.sources.tflite.state import STEPPING, show_states
from hasten.sources.tflite.steps import roll_steps
from hasten.types import Array

__all__ = ["Emitter", "Fused", "to_graph"]

_OPSET = 17
_PREFIX = "HastenFused"
_INTEGERS = {"int8", "uint8", "int16"}
# A kernel of theirs on bytes is a table of what the float one answers, which tf2onnx puts between two roundings.
_TABLES = {"GELU"}


@dataclass(frozen=True)
class Fused:
    """One operator that was cut out: what an emitter needs to write it in ONNX."""

    name: str
    """The TFLite operator."""
    options: Any
    constants: Mapping[int, Array]
    """Input position → its stored value, dequantised."""
    inputs: tuple[int, ...]
    """Positions of the inputs that are activations, in order; ``values`` of the emitter follow it."""
    input_shapes: Mapping[int, tuple[int, ...]]


Emitter = Callable[[Fused, Sequence[ir.Value], Any], Sequence[ir.Value]]
"""(operator, activations, tape) → outputs. The tape is an ``onnx_ir.tape.Builder``."""


def to_graph(flat: Flat, emitters: Mapping[str, Emitter], *, without: frozenset[str] = frozenset()) -> ir.Model:
    """The model's call as ONNX, inputs and outputs named as in the file; ``without`` these optimisers of tf2onnx.

    Raises:  UnsupportedOpError: an operator has neither a handler in tf2onnx nor an emitter; the message names it
             SourceError: tf2onnx is absent or fails
    """
    _refuse_wide(flat)
    surgical = Flat(copy.deepcopy(flat.tree), flat.schema)
    roll_steps(surgical)
    fused = _cut_out(surgical, emitters)
    model = _tf2onnx(surgical.to_bytes(), without)
    _put_back(model, fused, emitters)
    _refuse_unknown(model)
    _name_ports(model, surgical)
    _shape_bodies(model, surgical)
    shapes.infer(model)
    common_passes.RemoveUnusedNodesPass()(model)
    common_passes.LiftConstantsToInitializersPass(lift_all_constants=True)(model)
    if round_means(model):
        common_passes.RemoveUnusedNodesPass()(model)
        common_passes.LiftConstantsToInitializersPass(lift_all_constants=True)(model)
    return model


def _refuse_wide(flat: Flat) -> None:
    """LiteRT's kernels for 16 bits scale by factors of 16 bits and bend by tables: no arithmetic of ONNX's does."""
    for tensor in (t for subgraph in flat.tree.subgraphs for t in subgraph.tensors if not t.isVariable):
        scales = None if tensor.quantization is None else tensor.quantization.scale
        if flat.dtype(tensor) == "int16" and scales is not None and len(scales):
            raise UnsupportedOpError(
                f"quantised to 16 bits (tensor '{text(tensor.name)}'), which LiteRT rounds in its own way: a file of "
                "8 bits or floats can be imported"
            )


def _cut_out(flat: Flat, emitters: Mapping[str, Emitter]) -> dict[str, Fused]:
    found: dict[str, Fused] = {}
    for subgraph in flat.tree.subgraphs:
        for op in listed(subgraph.operators):
            name = flat.op_name(op)
            if name in emitters:
                if name in STEPPING:
                    show_states(flat, subgraph, op)
                code = f"{_PREFIX}{len(found)}"
                found[code] = _cut(flat, subgraph, op, name)
                _make_custom(flat, op, code)
    return found


def _cut(flat: Flat, subgraph: Any, op: Any, name: str) -> Fused:
    places = {i: index for i, index in enumerate(op.inputs) if index >= 0}
    tensors = {i: subgraph.tensors[index] for i, index in places.items()}
    constants = {i: value for i, index in places.items() if (value := flat.constant_at(subgraph, index)) is not None}
    activations = tuple(i for i, t in tensors.items() if i not in constants and not t.isVariable)
    outputs = [subgraph.tensors[i] for i in op.outputs]
    quantised = [text(t.name) for t in (*(tensors[i] for i in activations), *outputs) if flat.dtype(t) in _INTEGERS]
    if quantised and name not in _TABLES:
        raise UnsupportedOpError(f"{name} on integers (tensor '{quantised[0]}') has no importer")
    op.inputs = [places[i] for i in activations]
    return Fused(
        name=name,
        options=op.builtinOptions,
        constants=constants,
        inputs=activations,
        input_shapes={i: tuple(listed(t.shape)) for i, t in tensors.items()},
    )


def _make_custom(flat: Flat, op: Any, code: str) -> None:
    opcode = flat.schema.OperatorCodeT()
    opcode.builtinCode = opcode.deprecatedBuiltinCode = flat.schema.BuiltinOperator.CUSTOM
    opcode.customCode, opcode.version = code.encode(), 1
    flat.tree.operatorCodes.append(opcode)
    op.opcodeIndex = len(flat.tree.operatorCodes) - 1
    op.builtinOptions, op.builtinOptionsType = None, flat.schema.BuiltinOptions.NONE
    op.intermediates, op.mutatingVariableInputs = [], []


def _tf2onnx(data: bytes, without: frozenset[str]) -> ir.Model:
    try:
        import_quietly("tensorflow")
        import tf2onnx.optimizer  # noqa: PLC0415 - imports TensorFlow
        import tf2onnx.tfonnx  # noqa: PLC0415
    except ImportError as error:
        raise SourceError("cannot import TFLite operators: install hasten[keras] (tf2onnx)") from error
    loggers = [logging.getLogger(n) for n in ("tf2onnx", *_tf2onnx_loggers())]
    levels = [logger.level for logger in loggers]
    with tempfile.TemporaryDirectory(prefix="hasten-") as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(data)
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            with warnings.catch_warnings(), quiet_start():  # TensorFlow's own TFLite greets again
                warnings.simplefilter("ignore")
                unoptimised = tf2onnx.tfonnx.process_tf_graph(
                    None, opset=_OPSET, tflite_path=str(path), continue_on_error=True
                )
                known = tf2onnx.optimizer._get_optimizers()
                chosen = {name: make for name, make in known.items() if name not in without}
                # Catching errors, which is the default, copies the whole graph before each of a dozen rewrites.
                optimised = tf2onnx.optimizer.optimize_graph(unoptimised, catch_errors=False, optimizers=chosen)
                proto = optimised.make_model("tflite")
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise SourceError(f"tf2onnx cannot import this TFLite file: {reason}") from error
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
    found: ir.Model = ir.from_proto(proto)
    return found


def _tf2onnx_loggers() -> list[str]:
    return [name for name in logging.root.manager.loggerDict if name.startswith("tf2onnx.")]


def _put_back(model: ir.Model, fused: Mapping[str, Fused], emitters: Mapping[str, Emitter]) -> None:
    for node in list(ir.traversal.RecursiveGraphIterator(model.graph)):
        code = node.op_type.removeprefix("TFL_")
        if code not in fused:
            continue
        operator = fused[code]
        tape = ir.tape.Tape()
        outputs = emitters[operator.name](operator, [v for v in node.inputs if v is not None], tape)
        for new, old in zip(outputs, node.outputs, strict=True):
            new.type, new.shape = old.type, old.shape
        owner = node.graph
        assert owner is not None
        for value in tape.initializers:
            model.graph.register_initializer(value)
        ir.convenience.replace_nodes_and_values(owner, node, [node], list(tape.nodes), node.outputs, list(outputs))


def _refuse_unknown(model: ir.Model) -> None:
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.domain in ("", "ai.onnx") and not onnx.defs.has(node.op_type):
            raise UnsupportedOpError(f"operator {node.op_type.removeprefix('TFL_')} has no importer")


def _shape_bodies(model: ir.Model, flat: Flat) -> None:
    """Bodies of loops get the shapes of the file for what they take: tf2onnx calls a scalar what comes from an operator
    without a shape, such as the loop before it."""
    stored = {}
    for subgraph in flat.tree.subgraphs[1:]:
        for tensor in (subgraph.tensors[index] for index in listed(subgraph.inputs)):
            stored[f"{text(subgraph.name)}_{text(tensor.name)}"] = shape_of(tensor)  # as tf2onnx names it
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        bodies = [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]
        for value in (value for body in bodies for value in body.inputs):
            if not value.shape and value.name in stored:
                shapes.set_shape(value, stored[value.name])


def _name_ports(model: ir.Model, flat: Flat) -> None:
    """tf2onnx keeps the order of inputs and outputs; the names are made those of the file again."""
    main = flat.main
    for values, indices in ((model.graph.inputs, main.inputs), (model.graph.outputs, main.outputs)):
        names = [text(main.tensors[i].name) for i in indices]
        if len(values) != len(names):
            raise SourceError(f"tf2onnx kept {len(values)} of {len(names)} inputs or outputs: expected all of them")
        for value, name in zip(values, names, strict=True):
            value.name = name
