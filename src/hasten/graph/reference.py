"""Runs a graph as it stands, so that a rewrite can be held against what it rewrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import onnx
import onnx_ir as ir
import onnxruntime as ort

from hasten.errors import SourceError
from hasten.graph import clone, parted, to_bytes
from hasten.graph.walk import all_nodes
from hasten.types import Array

__all__ = ["MANY_NODES", "exact_session", "observe", "run", "runner", "with_own_zero_points"]

MANY_NODES = 1000
"""From here on ONNX Runtime is told not to plan which buffers to use again: that takes time that grows with the square
of the number of nodes, and changes no answer."""

# Their unoptimised kernels may overflow, see ``exact_session``.
_BYTE_PRODUCTS = frozenset(
    {"MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv"}
    | {"QGemm", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"}
)


# Where an operator takes a weight of bytes and its zero point.
_ZEROS = {
    "DequantizeLinear": (0, 2),
    "QLinearConv": (3, 5),
    "QLinearMatMul": (3, 5),
    "QGemm": (3, 5),
    "MatMulInteger": (1, 3),
    "ConvInteger": (1, 3),
    "DynamicQuantizeMatMul": (1, 3),
    "MatMulIntegerToFloat": (1, 5),
}


def run(model: ir.Model, arrays: Sequence[Array]) -> tuple[Array, ...]:
    """The graph's outputs on ``arrays`` by ONNX Runtime, one thread, optimised only where that makes it exact.

    Raises:  SourceError: the graph is invalid or holds an operator that ONNX Runtime lacks
    """
    return runner(model)(arrays)


def runner(model: ir.Model) -> Callable[[Sequence[Array]], tuple[Array, ...]]:
    """As ``run``, for many calls of a graph that stays as it is.

    Raises:  SourceError: as ``run``, now or when it is called
    """
    data, weights = parted(with_own_zero_points(model))
    return _runner(model, data, None, weights)


def observe(model: ir.Model, arrays: Sequence[Array], values: Sequence[ir.Value]) -> tuple[Array, ...]:
    """What ``values`` of the main graph hold when it runs on ``arrays``.

    Raises:  SourceError: as ``run``
    """
    proto = onnx.load_model_from_string(to_bytes(model))
    given = {output.name for output in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=value.name) for value in values if value.name not in given)
    return _runner(model, proto.SerializeToString(), [value.name or "" for value in values])(arrays)


def exact_session(
    model: ir.Model, data: str | bytes, options: Callable[[], ort.SessionOptions]
) -> ort.InferenceSession:
    """A session on ``data``, which holds ``model``, that adds products of bytes without overflow where it can.

    ``options`` makes new ones, with extended optimisations where products of bytes are to be exact.

    On x86 without VNNI the default adds pairs of them in 16 bits, which saturate: a convolution may be a fifth off.
    With the other way it turns signed weights into unsigned ones, and then refuses some graphs that it opens
    without: those whose activations are signed too, for which it lacks the kernel. Beside weights of four bits, the
    default rounds the float32 values that they are multiplied with to eight.

    Raises:  Exception: whatever ONNX Runtime raises where it refuses the graph both ways
    Source:  ONNX Runtime, onnxruntime_session_options_config_keys.h, session.x64quantprecision and
             session.qdq_matmulnbits_accuracy_level
    """
    weighs_bytes = any(node.op_type in _ZEROS for node in all_nodes(model.graph))
    for exact in ("1", "0") if weighs_bytes else ("1",):
        own = options()
        own.add_session_config_entry("session.x64quantprecision", exact)
        own.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
        try:
            return ort.InferenceSession(data, own, providers=["CPUExecutionProvider"])
        except Exception as error:
            refused = error
    raise refused


def with_own_zero_points(model: ir.Model) -> ir.Model:
    """The model; where weights of bytes share a zero point, a copy in which each has its own.

    On x86 without VNNI, exact sums need unsigned weights. ONNX Runtime turns them by itself, but makes the new zero
    point under one name for all weights that share it, and refuses the graph at the second.
    """
    if not any(node.op_type in _ZEROS for node in model.graph):
        return model
    apart = clone(model)
    made = 0
    taken: set[str | None] = set()
    for node in apart.graph:
        at, zero_at = _ZEROS.get(node.op_type, (0, 0))
        if not zero_at or len(node.inputs) <= zero_at:
            continue
        weight, zero = node.inputs[at], node.inputs[zero_at]
        if weight is None or weight.const_value is None or zero is None or zero.const_value is None:
            continue
        if zero.name in taken:
            made += 1
            own = ir.val(f"{zero.name} of {weight.name} {made}", const_value=ir.tensor(zero.const_value.numpy()))
            apart.graph.register_initializer(own)
            node.replace_input_with(zero_at, own)
        taken.add(zero.name)
    return apart if made else model


def _runner(
    model: ir.Model, data: bytes, wanted: list[str] | None, weights: Mapping[str, Array] = MappingProxyType({})
) -> Callable[[Sequence[Array]], tuple[Array, ...]]:
    levels = ort.GraphOptimizationLevel
    multiplies_bytes = any(node.op_type in _BYTE_PRODUCTS for node in all_nodes(model.graph))
    held = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in weights.items()}

    def options() -> ort.SessionOptions:
        made = ort.SessionOptions()
        made.graph_optimization_level = levels.ORT_ENABLE_EXTENDED if multiplies_bytes else levels.ORT_DISABLE_ALL
        made.intra_op_num_threads, made.log_severity_level = 1, 4
        made.enable_mem_reuse = model.graph.num_nodes() < MANY_NODES
        made.add_external_initializers(list(held), list(held.values()))
        return made

    try:
        session = exact_session(model, data, options)
    except Exception as error:
        raise _refused(error) from error
    names = [v.name for v in session.get_inputs() if v.name not in model.graph.initializers]

    def call(arrays: Sequence[Array], _owner: object = held) -> tuple[Array, ...]:
        try:
            return tuple(session.run(wanted, dict(zip(names, arrays, strict=True))))
        except Exception as error:
            raise _refused(error) from error

    return call


def _refused(error: Exception) -> SourceError:
    return SourceError(f"cannot run graph as a reference: {' '.join(str(error).split())[:300]}")
