"""The portable graph: ONNX, held as ``onnx_ir.Model``. Only this room touches ONNX serialisation.

A file or bytes enter, an ``onnx_ir.Model`` leaves, and back. ``shapes`` infers, ``reference`` runs a graph as it stands
(no optimisation), ``cost`` counts operations and bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeGuard

import numpy as np
import onnx
import onnx_ir as ir

from hasten.errors import SourceError
from hasten.graph.external import refuse_bad_files
from hasten.types import Array, TensorSpec

__all__ = ["clone", "parted", "read", "specs", "to_bytes", "write"]

_LIMIT_BYTES = 2_000_000_000  # protobuf refuses single messages over 2 GiB
_PARTED_BYTES = 4096
"""Smaller weights may be shapes, which ONNX Runtime reads while it opens the graph."""
_PARTED = frozenset(map(np.dtype, ("float16", "float32", "float64", "int8", "int32", "int64", "uint8")))


def read(source: Path | bytes) -> ir.Model:
    """The model of an ONNX file (external data beside it is found) or of its bytes.

    Raises:  SourceError: not an ONNX model, or cut short, itself or a file with its weights
    """
    name = "bytes" if isinstance(source, bytes) else f"'{source}'"
    try:
        if isinstance(source, bytes):
            parsed: ir.Model = ir.from_proto(onnx.load_model_from_string(source))
            return parsed
        found = ir.load(source)
        refuse_bad_files(found, source)
        return ir.external_data.load_to_model(found)
    except SourceError:
        raise
    except FileNotFoundError as error:
        raise SourceError(f"cannot read ONNX model {name}: file not found: {error.filename or error}") from error
    except Exception as error:
        if "Map types" in _cause(error):
            raise SourceError(
                f"cannot read ONNX model {name}: expected tensors, received a map, as scikit-learn's ZipMap answers; "
                "convert it again with options={'zipmap': False}"
            ) from error
        raise SourceError(
            f"cannot read ONNX model {name}: expected an ONNX protobuf, received other or cut-off data "
            f"({_cause(error)})"
        ) from error


def to_bytes(model: ir.Model) -> bytes:
    """The serialised model, weights inside.

    Raises:  SourceError: larger than protobuf's 2 GiB, or something that ONNX cannot store
    """
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    if size > _LIMIT_BYTES:
        raise SourceError(f"cannot serialise model: expected under 2 GiB of weights, received {size / 2**30:.1f} GiB")
    if any(isinstance(value.const_value, ir.ExternalTensor) for value in model.graph.initializers.values()):
        model = ir.external_data.load_to_model(clone(model))
    return _serialised(model)


def _serialised(model: ir.Model) -> bytes:
    try:
        data: bytes = ir.to_proto(model).SerializeToString()
    except Exception as error:
        raise _unserialisable(error) from error
    return data


def _unserialisable(error: Exception) -> SourceError:
    return SourceError(f"cannot serialise model: {_cause(error)}; expected a whole, undamaged model")


def parted(model: ir.Model) -> tuple[bytes, dict[str, Array]]:
    """The serialised model without its large weights, and those by name.

    Raises:  SourceError: as ``to_bytes``
    """
    if any(isinstance(value.const_value, ir.ExternalTensor) for value in model.graph.initializers.values()):
        return to_bytes(model), {}
    large = {v: v.const_value for v in model.graph.initializers.values() if _is_parted(v.const_value)}
    try:
        weights = {value.name or "": np.ascontiguousarray(weight.numpy()) for value, weight in large.items()}
        for value, weight in large.items():
            value.const_value = ir.ExternalTensor(
                "apart", 0, weight.nbytes, weight.dtype, shape=ir.Shape(weight.shape.numpy()), name=value.name or ""
            )
        return _serialised(model), weights
    except SourceError:
        raise
    except Exception as error:  # bytes that are no whole tensor
        raise _unserialisable(error) from error
    finally:
        for value, weight in large.items():
            value.const_value = weight


def _is_parted(weight: ir.TensorProtocol | None) -> TypeGuard[ir.TensorProtocol]:
    return weight is not None and weight.nbytes >= _PARTED_BYTES and weight.dtype.numpy() in _PARTED


def _cause(error: BaseException) -> str:
    """What protobuf or a tensor said: onnx_ir wraps it once for each level."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:200] or type(error).__name__


def write(model: ir.Model, path: Path) -> None:
    """The model in one file at ``path``, written whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(to_bytes(model))
    temporary.replace(path)


def clone(model: ir.Model) -> ir.Model:
    """A copy that shares weights but no nodes: rewriting it leaves ``model`` alone."""
    copy: ir.Model = model.clone()
    return copy


def specs(model: ir.Model) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs (without those that are initialisers) and outputs of the graph; a free dimension keeps its name."""
    weights = model.graph.initializers
    inputs = tuple(_spec(v) for v in model.graph.inputs if v.name not in weights)
    return inputs, tuple(_spec(v) for v in model.graph.outputs)


def _spec(value: ir.Value) -> TensorSpec:
    if value.dtype is None or value.shape is None:
        raise SourceError(
            f"tensor '{value.name}' has no known type and shape: expected both; run shape inference first"
        )
    dims = tuple(d if isinstance(d, int) else (d.value or f"{value.name}_{i}") for i, d in enumerate(value.shape))
    return TensorSpec(value.name or "", value.dtype.numpy().name, dims)
