"""State that a TFLite file keeps between calls, made visible: a tree enters, the same tree with states as inputs and
outputs leaves.

Two kinds. *Resource variables* (VAR_HANDLE, READ_VARIABLE, ASSIGN_VARIABLE) are rewired in the file itself: what is
read becomes an input, what is assigned an output, and LiteRT then runs a file without state. *Variable tensors* of
operators whose whole point is their memory (SVDF and the single-step RNN and LSTM) are written in place by LiteRT's
kernels, so the file stays as it is and its caller sets and gets them by name; the imported graph has them as ports.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hasten.errors import SourceError
from hasten.sources.tflite.model import Flat, listed, shape_of, text
from hasten.types import Array, TensorSpec

__all__ = ["STEPPING", "Variable", "refuse_unset", "rewire_resources", "show_states", "stepping_states"]

STEPPING = {"SVDF": (4,), "RNN": (4,), "LSTM": (18, 19)}
"""Operators that exist to remember → input positions of their variable tensors."""
_SUFFIX = "_next"


@dataclass(frozen=True)
class Variable:
    """One state, as an input and an output of the model."""

    input: TensorSpec
    output: TensorSpec
    start: Array | None
    """Its first value where the file stores one; else zeros."""


def stepping_states(flat: Flat) -> tuple[Variable, ...]:
    """The variable tensors of the operators that exist to remember, in the order of the file."""
    found: list[Variable] = []
    for op in listed(flat.main.operators):
        for tensor in _state_tensors(flat, op):
            spec = TensorSpec(text(tensor.name), flat.dtype(tensor) or "float32", shape_of(tensor))
            found.append(Variable(spec, TensorSpec(spec.name + _SUFFIX, spec.dtype, spec.shape), None))
    return tuple(found)


def show_states(flat: Flat, subgraph: Any, op: Any) -> None:
    """Turns an operator's variable tensors into inputs of the subgraph, and their next values into outputs."""
    for tensor in _state_tensors(flat, op):
        tensor.isVariable = False
        following = _new_tensor(flat, subgraph, tensor, text(tensor.name) + _SUFFIX)
        place = next(i for i, t in enumerate(subgraph.tensors) if t is tensor)
        subgraph.inputs = [*listed(subgraph.inputs), place]
        subgraph.outputs = [*listed(subgraph.outputs), following]
        op.outputs = [*listed(op.outputs), following]


def refuse_unset(flat: Flat, name: str) -> None:
    """Weights that stayed behind when the file was converted: LiteRT then answers with whatever lies in memory.

    Raises:  SourceError: a resource variable is read and nothing in the file ever sets it
    """
    named: dict[str, None] = {}
    assigned: set[str] = set()
    for subgraph in flat.tree.subgraphs:
        names: dict[int, str] = {}
        for op in listed(subgraph.operators):
            kind = flat.op_name(op)
            if kind == "VAR_HANDLE":
                names[op.outputs[0]] = text(op.builtinOptions.sharedName)
            elif kind == "ASSIGN_VARIABLE" and op.inputs[0] not in names:
                return  # by a handle that was handed in: it may be any of them
            elif kind == "ASSIGN_VARIABLE":
                assigned.add(names[op.inputs[0]])
        named |= dict.fromkeys(names.values())
    unset = [variable for variable in named if variable not in assigned]
    if unset and "READ_VARIABLE" in flat.op_names():
        raise SourceError(
            f"cannot read TFLite model '{name}': {len(unset)} of its {len(named)} variables are never set, such as "
            f"'{unset[0]}': it was converted without its weights; convert again with TFLiteConverter.from_keras_model, "
            "or from a SavedModel"
        )


def rewire_resources(flat: Flat) -> tuple[Variable, ...]:
    """Takes resource variables out of the main subgraph: a first read becomes an input, the last assignment an output.

    A variable that is only read becomes the constant that the initialising subgraph gives it.
    """
    wiring = _Wiring()
    starts = _start_values(flat)
    kept = [op for op in listed(flat.main.operators) if not wiring.absorb(op, flat.op_name(op))]
    if not wiring.names:
        return ()
    flat.main.operators = kept
    flat.main.outputs = [wiring.alias.get(i, i) for i in flat.main.outputs]
    flat.tree.signatureDefs = []
    return tuple(v for name in wiring.first if (v := _port(flat, wiring, name, starts.get(name))) is not None)


@dataclass
class _Wiring:
    """Which tensor holds each variable's value, as operators are walked in order."""

    names: dict[int, str] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)
    current: dict[str, int] = field(default_factory=dict)
    assigned: set[str] = field(default_factory=set)
    alias: dict[int, int] = field(default_factory=dict)

    def absorb(self, op: Any, kind: str) -> bool:
        """Follows one operator; True when it is about a variable and no longer needed."""
        op.inputs = [self.alias.get(i, i) for i in listed(op.inputs)]
        if kind == "VAR_HANDLE":
            self.names[op.outputs[0]] = text(op.builtinOptions.sharedName) or f"variable_{op.outputs[0]}"
        elif kind == "ASSIGN_VARIABLE":
            name = self.names[op.inputs[0]]
            self.current[name] = op.inputs[1]
            self.assigned.add(name)
        elif kind == "READ_VARIABLE":
            name, place = self.names[op.inputs[0]], op.outputs[0]
            if name in self.current:
                self.alias[place] = self.current[name]
            else:
                self.current[name] = self.first[name] = place
        return kind in ("VAR_HANDLE", "ASSIGN_VARIABLE", "READ_VARIABLE", "CALL_ONCE")


def _port(flat: Flat, wiring: _Wiring, name: str, start: Array | None) -> Variable | None:
    main, place = flat.main, wiring.first[name]
    tensor = main.tensors[place]
    dtype = flat.dtype(tensor) or "float32"
    if start is not None:
        tensor.shape, tensor.shapeSignature = np.array(start.shape, np.int32), None
    if name not in wiring.assigned:
        value = np.zeros(shape_of(tensor), dtype) if start is None else start
        flat.tree.buffers.append(flat.schema.BufferT())
        flat.tree.buffers[-1].data = np.frombuffer(value.tobytes(), np.uint8)
        tensor.buffer = len(flat.tree.buffers) - 1
        return None
    written = _own_output(flat, main, wiring.current[name], name + _SUFFIX)
    tensor.name = name.encode()
    main.inputs = [*listed(main.inputs), place]
    main.outputs = [*listed(main.outputs), written]
    spec = TensorSpec(name, dtype, shape_of(tensor))
    return Variable(spec, TensorSpec(name + _SUFFIX, dtype, shape_of(tensor)), start)


def _own_output(flat: Flat, subgraph: Any, place: int, name: str) -> int:
    """A tensor of its own for an output: behind a reshape to the same shape where the value has other roles."""
    source = subgraph.tensors[place]
    copy = _new_tensor(flat, subgraph, source, name)
    op = flat.schema.OperatorT()
    op.opcodeIndex = _opcode(flat, flat.schema.BuiltinOperator.RESHAPE)
    op.inputs, op.outputs = [place], [copy]
    op.builtinOptionsType = flat.schema.BuiltinOptions.ReshapeOptions
    op.builtinOptions = flat.schema.ReshapeOptionsT()
    op.builtinOptions.newShape = list(shape_of(source))
    op.intermediates, op.mutatingVariableInputs = [], []
    subgraph.operators = [*subgraph.operators, op]
    return copy


def _opcode(flat: Flat, builtin: int) -> int:
    code = flat.schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), 1
    flat.tree.operatorCodes.append(code)
    return len(flat.tree.operatorCodes) - 1


def _new_tensor(flat: Flat, subgraph: Any, like: Any, name: str) -> int:
    tensor = flat.schema.TensorT()
    tensor.shape, tensor.type, tensor.buffer, tensor.name = like.shape, like.type, 0, name.encode()
    subgraph.tensors.append(tensor)
    return len(subgraph.tensors) - 1


def _state_tensors(flat: Flat, op: Any) -> list[Any]:
    positions = STEPPING.get(flat.op_name(op), ())
    places = [op.inputs[i] for i in positions if i < len(op.inputs) and op.inputs[i] >= 0]
    return [flat.main.tensors[i] for i in places]


def _start_values(flat: Flat) -> dict[str, Array]:
    """Variable → the constant that a CALL_ONCE subgraph assigns to it."""
    found: dict[str, Array] = {}
    for call in listed(flat.main.operators):
        if flat.op_name(call) != "CALL_ONCE":
            continue
        subgraph = flat.tree.subgraphs[call.builtinOptions.initSubgraphIndex]
        names: dict[int, str] = {}
        for op in listed(subgraph.operators):
            kind = flat.op_name(op)
            if kind == "VAR_HANDLE":
                names[op.outputs[0]] = text(op.builtinOptions.sharedName)
            elif kind == "ASSIGN_VARIABLE":
                value = flat.constant_at(subgraph, op.inputs[1])
                found |= {} if value is None else {names[op.inputs[0]]: value}
        subgraph.operators, subgraph.inputs, subgraph.outputs = [], [], []
    return found
