"""A model newer than ONNX Runtime enters; one that means the same, and that ONNX Runtime reads, leaves."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes
import onnxruntime as ort
from onnx import helper

from hasten import graph
from hasten.errors import SourceError
from hasten.graph.walk import all_nodes
from hasten.passes.opset import lower_to, redefined
from hasten.passes.spell_out import OperatorId, operator_id, spell_out
from hasten.passes.surgery import opset

__all__ = ["newest_read", "opened_older"]

_Opened = TypeVar("_Opened")
_OLDEST_IR_VERSION = 8


def opened_older(
    model: ir.Model, path: Path, opened: Callable[[ir.Model], _Opened], refused: SourceError
) -> tuple[_Opened, ir.Model, tuple[str, ...]]:
    """What ``opened`` makes of an older form of ``model``, that form, and what the report is to say of it.

    ``opened`` opens a graph in ONNX Runtime, which ``refused`` ``model``, the file at ``path``, as it stands: a newer
    format or operator set is lowered, and operators that ONNX defines by others, but ONNX Runtime lacks, are spelt out.

    Raises:  SourceError: ONNX Runtime reads no form of it
    """
    try:
        older = graph.clone(model)
        spelt = _lower(older, path)
    except SourceError:
        raise
    except Exception as error:  # a damaged model: what ONNX Runtime said of it is clearer
        raise refused from error
    while True:
        try:
            return opened(older), older, _notes(model, older, spelt)
        except SourceError as error:
            lacking = _named(older, error)
            if not lacking or not _spelt(older, lacking):
                raise
            spelt |= {op for _, op in lacking - set(map(operator_id, all_nodes(older.graph)))}


@cache
def newest_read() -> tuple[int, int]:
    """The newest version of the format, and of ONNX's operator set, that the installed ONNX Runtime reads."""
    format_version = next(
        (v for v in range(onnx.IR_VERSION, _OLDEST_IR_VERSION, -1) if _reads(v, 1)), _OLDEST_IR_VERSION
    )
    newest = onnx.defs.onnx_opset_version()
    return format_version, next((v for v in range(newest, 1, -1) if _reads(format_version, v)), 1)


def _reads(format_version: int, operators: int) -> bool:
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "g",
        [value("x", onnx.TensorProto.FLOAT, [1])], [value("y", onnx.TensorProto.FLOAT, [1])],
    )  # fmt: skip
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", operators)], ir_version=format_version)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:  # onnxruntime's exceptions share no base
        return False
    return True


def _lower(model: ir.Model, path: Path) -> set[str]:
    """Lowers the format and the operator set; returns the operators that had to be spelt out for it.

    Raises:  SourceError: an operator that the older set cannot express
    """
    format_version, operators = newest_read()
    spelt: set[str] = set()
    if model.functions:
        common_passes.InlinePass()(model)
        common_passes.RemoveUnusedOpsetsPass()(model)
    while (version := opset(model)) > operators:  # one at a time: what 27 defines may be spelt out in 27 alone
        newer = redefined(model, version - 1)
        try:
            lower_to(model, version - 1)
        except Exception as error:  # whatever ONNX's converter raises
            if not spell_out(model, {("", op) for op in newer}):
                raise SourceError(
                    f"cannot open ONNX model '{path}' of opset {version}: ONNX Runtime {ort.__version__} reads opset "
                    f"{operators} and older, where {' or '.join(sorted(newer))} cannot say the same; "
                    f"export the model again with opset {operators}"
                ) from error
            spelt |= newer - redefined(model, version - 1)
    model.ir_version = min(model.ir_version or format_version, format_version)
    return spelt


def _spelt(model: ir.Model, operators: set[OperatorId]) -> int:
    try:
        return spell_out(model, operators)
    except Exception:  # the definition does not fit the node: what ONNX Runtime said of it is clearer
        return 0


def _named(model: ir.Model, error: SourceError) -> set[OperatorId]:
    """The operators of the graph that ONNX Runtime's message names."""
    return {
        operator_id(node)
        for node in all_nodes(model.graph)
        if re.search(rf"(?<![\w'/]){re.escape(node.op_type)}\b", str(error))
    }


def _notes(model: ir.Model, older: ir.Model, spelt: set[str]) -> tuple[str, ...]:
    runtime, notes = f"ONNX Runtime {ort.__version__}", []
    if opset(model) > opset(older):
        notes.append(f"opset {opset(model)} lowered to {opset(older)}, the newest that {runtime} reads")
    if spelt:
        notes.append(f"spelt out as ONNX defines it, for {runtime} lacks it: {', '.join(sorted(spelt))}")
    return tuple(notes)
