"""Writes TFLite files of one operator and opens them, so that LiteRT itself can be the judge of an import."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from hasten.graph.reference import run
from hasten.sources import Source, SourceRequest
from hasten.sources.samples import samples
from hasten.sources.tflite import open_tflite

TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "int8": schema.TensorType.INT8,
    "int16": schema.TensorType.INT16,
    "int32": schema.TensorType.INT32,
}


@dataclass
class FileOf:
    """A model of one subgraph, grown tensor by tensor."""

    tree: Any = field(default_factory=schema.ModelT)

    def __post_init__(self) -> None:
        self.tree.version, self.tree.buffers, self.tree.operatorCodes = 3, [schema.BufferT()], []
        graph = schema.SubGraphT()
        graph.tensors, graph.operators, graph.inputs, graph.outputs = [], [], [], []
        self.tree.subgraphs = [graph]

    @property
    def graph(self) -> Any:
        return self.tree.subgraphs[0]

    def tensor(self, shape: Sequence[int], *, dtype: str = "float32", variable: bool = False) -> int:
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer = list(shape), TYPES[dtype], 0
        tensor.name, tensor.isVariable = f"t{len(self.graph.tensors)}".encode(), variable
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(self, value: Any, *, scale: float | None = None) -> int:
        place = self.tensor(value.shape, dtype=value.dtype.name)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
        self.tree.buffers.append(buffer)
        self.graph.tensors[place].buffer = len(self.tree.buffers) - 1
        if scale is not None:
            self.quantise(place, scale)
        return place

    def quantise(self, place: int, scale: float, zero_point: int = 0) -> None:
        quantisation = schema.QuantizationParametersT()
        quantisation.scale, quantisation.zeroPoint = [scale], [zero_point]
        self.graph.tensors[place].quantization = quantisation

    def operator(
        self, name: str, inputs: Sequence[int], outputs: Sequence[int], options: tuple[str, Mapping] = ("", {})
    ):
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
        self.tree.operatorCodes.append(code)
        op = schema.OperatorT()
        op.opcodeIndex, op.inputs, op.outputs = len(self.tree.operatorCodes) - 1, list(inputs), list(outputs)
        if options[0]:
            op.builtinOptionsType = getattr(schema.BuiltinOptions, options[0])
            op.builtinOptions = getattr(schema, options[0] + "T")()
            for key, value in options[1].items():
                setattr(op.builtinOptions, key, value)
        self.graph.operators.append(op)

    def to_bytes(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        self.graph.inputs, self.graph.outputs = list(inputs), list(outputs)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.tree.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def opened(folder: Path, data: bytes, **request: Any) -> Source:
    path = folder / "model.tflite"
    path.write_bytes(data)
    return open_tflite(path, SourceRequest(work=folder / "work", **request))


def counts(source: Source) -> Counter[str]:
    assert source.model is not None, source.notes
    return Counter(node.op_type for node in source.model.graph)


def same_answers(source: Source, atol: float = 2e-6) -> None:
    assert source.model is not None, source.notes
    for arrays in samples(source, SourceRequest(), 0, 3):
        for mine, theirs in zip(run(source.model, arrays), source.reference(arrays), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=atol)
