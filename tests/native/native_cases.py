"""Models for the native compiler's own tests, and ways to run what it builds."""

from __future__ import annotations

import ctypes
import itertools
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper, shape_inference

from hasten.native.build import compile_library
from hasten.native.compile import program_of
from hasten.native.emit import Emitted, emit
from hasten.native.isa import Isa, for_host, isa
from hasten.native.program import Program

F = TensorProto.FLOAT
HERE = for_host()
# What this machine can run, the widest first; plain C everywhere. Code for zen4 is that for x86-64-v4, with vectors of
# half the width where they waste less.
_NAMES = ("zen4", "x86-64-v3", "x86-64-v2", "aarch64", "c-vector", "c")
RUNNABLE = [name for name in _NAMES if isa(name).arch in (HERE.arch, "any")]
RUNNABLE = [n for n in RUNNABLE if isa(n).portable or (isa(n).lanes <= HERE.lanes and isa(n).features <= HERE.features)]


def graph(nodes, inputs: dict, outputs: dict, weights: dict, opset: int = 20) -> ir.Model:
    """A graph with inferred shapes; ``inputs`` and ``outputs``: name → shape, float32."""
    made = helper.make_graph(
        nodes, "case",
        [helper.make_tensor_value_info(n, F, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, F, s) for n, s in outputs.items()],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in weights.items()],
    )  # fmt: skip
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model)
    return ir.from_proto(shape_inference.infer_shapes(model, data_prop=True))


def mlp(sizes: Sequence[int], rows: int = 1, activation: str = "Relu", seed: int = 0) -> ir.Model:
    """Dense layers with an activation between them."""
    rng, nodes, weights, name = np.random.default_rng(seed), [], {}, "x"
    for i, (k, n) in enumerate(itertools.pairwise(sizes)):
        weights[f"w{i}"] = (rng.standard_normal((k, n)) / np.sqrt(k)).astype(np.float32)
        weights[f"b{i}"] = rng.standard_normal(n).astype(np.float32)
        nodes.append(helper.make_node("Gemm", [name, f"w{i}", f"b{i}"], [f"g{i}"]))
        name = f"g{i}"
        if i + 2 < len(sizes):
            nodes.append(helper.make_node(activation, [name], [f"a{i}"]))
            name = f"a{i}"
    nodes.append(helper.make_node("Identity", [name], ["y"]))
    return graph(nodes, {"x": (rows, sizes[0])}, {"y": (rows, sizes[-1])}, weights)


def recurrent(kind: str, steps: int, inputs: int, units: int, batch: int = 1, seed: int = 0, **attributes) -> ir.Model:
    """One recurrent node with both of its results."""
    rng = np.random.default_rng(seed)
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    weights = {
        "w": (rng.standard_normal((directions, gates * units, inputs)) / np.sqrt(inputs)).astype(np.float32),
        "r": (rng.standard_normal((directions, gates * units, units)) / np.sqrt(units)).astype(np.float32),
        "b": rng.standard_normal((directions, 2 * gates * units)).astype(np.float32),
    }
    node = helper.make_node(kind, ["x", "w", "r", "b"], ["y", "h"], hidden_size=units, **attributes)
    shapes = {"y": (steps, directions, batch, units), "h": (directions, batch, units)}
    return graph([node], {"x": (steps, batch, inputs)}, shapes, weights)


def attention(rows: int, heads: int, depth: int) -> ir.Model:
    """Rows that attend to each other: queries, keys and values are the same."""
    split = np.array([rows, heads, depth])
    nodes = [
        helper.make_node("Reshape", ["x", "split"], ["h"]),
        helper.make_node("Transpose", ["h"], ["q"], perm=[1, 0, 2]),
        helper.make_node("Transpose", ["h"], ["k"], perm=[1, 2, 0]),
        helper.make_node("MatMul", ["q", "k"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "q"], ["o"]),
        helper.make_node("Transpose", ["o"], ["t"], perm=[1, 0, 2]),
        helper.make_node("Reshape", ["t", "whole"], ["y"]),
    ]
    wide = (rows, heads * depth)
    return graph(nodes, {"x": wide}, {"y": wide}, {"split": split, "whole": np.array(wide)})


class Built:
    """A compiled program, run through its C interface with inputs and outputs of exactly their sizes."""

    def __init__(self, model: ir.Model, target: Isa, *, extra: tuple[str, ...] = (), threads: int = 1) -> None:
        self.program: Program = program_of(model, "case", target)
        self.emitted: Emitted = emit(self.program, target, threads=threads)
        with tempfile.TemporaryDirectory() as folder:
            path = compile_library(self.emitted, target, Path(folder), extra)
            copy = Path(tempfile.mkdtemp()) / "model.so"  # the loader takes equal paths for the same library
            shutil.copyfile(path, copy)
            self.library = ctypes.CDLL(str(copy))
            shutil.rmtree(copy.parent)
        self.library.hasten_weights.restype = ctypes.c_void_p
        self.library.hasten_run.argtypes = [ctypes.c_void_p] * 4

    def __call__(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        arrays = tuple(np.ascontiguousarray(a) for a in arrays)
        made = tuple(np.full(v.shape, 7, v.dtype) for v in self.program.outputs)
        arena = np.full(self.emitted.arena_bytes + 128, 0xA5, np.uint8)  # nothing may count on a clean arena
        start = (arena.ctypes.data + 63) // 64 * 64
        ins = (ctypes.c_void_p * max(1, len(arrays)))(*(a.ctypes.data for a in arrays))
        outs = (ctypes.c_void_p * len(made))(*(a.ctypes.data for a in made))
        self.library.hasten_run(self.library.hasten_weights(), start, ins, outs)
        return made
