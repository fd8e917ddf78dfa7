"""ONNX's own node tests for the native compiler: many programs in one C file, so that building them is quick."""

from __future__ import annotations

import ctypes
import mmap
import re
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as ir_passes
from onnx import numpy_helper

from hasten.errors import HastenError, UnsupportedOpError
from hasten.graph import shapes
from hasten.native.build import compiler, weights_assembly
from hasten.native.compile import program_of
from hasten.native.emit import ARGUMENTS, Emitted, inner, written
from hasten.native.isa import Isa
from hasten.native.kernels.typed import NARROW
from hasten.native.plan import plan
from hasten.native.program import Program
from hasten.native.vectors import helpers
from hasten.passes.fold_constants import fold_constants
from hasten.passes.fourier import fourier_as_product
from hasten.passes.opset import lower_to, redefined
from hasten.passes.spell_out import spell_out
from hasten.sources.older import newest_read

BATCH = 60
# Inputs that say what shape comes out, or hold the weights: constants to native, as exported models have them.
SHAPES = {
    "Reshape": [1], "Slice": [1, 2, 3, 4], "Pad": [1, 3], "Tile": [1], "Expand": [1],
    "Resize": [1, 2, 3], "Upsample": [1],
    "TopK": [1], "Squeeze": [1], "Unsqueeze": [1], "Split": [1], "Range": [0, 1, 2],
    "ConstantOfShape": [0], "OneHot": [1],
    "Trilu": [1], "CumSum": [1], "CumProd": [1], "CenterCropPad": [1], "Dropout": [1, 2],
    "ReduceSum": [1], "ReduceMean": [1], "ReduceMax": [1], "ReduceMin": [1], "ReduceProd": [1],
    "ReduceL1": [1], "ReduceL2": [1], "ReduceLogSum": [1], "ReduceLogSumExp": [1],
    "ReduceSumSquare": [1], "AffineGrid": [1],
    "BlackmanWindow": [0], "HannWindow": [0], "HammingWindow": [0], "MelWeightMatrix": [0, 1, 2, 3, 4], "DFT": [1, 2],
    "STFT": [1, 3], "Col2Im": [1, 2], "MaxUnpool": [2],
    "LSTM": [1, 2, 3, 7], "GRU": [1, 2, 3], "RNN": [1, 2, 3], "Conv": [1, 2],
    "ConvTranspose": [1, 2], "DeformConv": [1, 3],
    "QLinearConv": [1, 2, 3, 4, 5, 6, 7, 8], "ConvInteger": [1, 2, 3], "QLinearMatMul": [1, 2, 3, 4, 5, 6, 7],
    "MatMulInteger": [1, 2, 3], "QuantizeLinear": [1, 2], "DequantizeLinear": [1, 2],
    "CausalConvWithState": [1, 2], "Compress": [1],
}  # fmt: skip
# What sources replace by what ONNX defines it by, since ONNX Runtime lacks it, and native has no kernel for either.
SPELT = {("", "LinearAttention"), ("ai.onnx.preview", "FlexAttention")}


@dataclass(frozen=True)
class Case:
    """One node test: its program, or why there is none; and what goes in and must come out."""

    name: str
    program: Program | None
    refusal: str
    inputs: tuple[np.ndarray, ...] = ()
    outputs: tuple[np.ndarray, ...] = ()
    rtol: float = 1e-4
    atol: float = 1e-5


def node_cases(target: Isa, wanted: Callable[[str], bool] = lambda name: True) -> list[Case]:
    """Every node test of onnx, lowered for the target."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {}
        for test in load_model_tests(kind="node"):
            if wanted(test.name) and test.name not in found:
                found[test.name] = _lowered(test, target)
    return list(found.values())


def _lowered(test, target: Isa) -> Case:  # type: ignore[no-untyped-def]
    model = test.model or onnx.load(Path(test.model_dir) / "model.onnx")
    try:
        ins, outs = ([_array(a) for a in side] for side in test.data_sets[0])
        if not all(isinstance(a, np.ndarray) for a in (*ins, *outs)):
            raise UnsupportedOpError("sequences and optionals have no fixed shape")
        graph, kept = _static(model, ins, outs)
        try:
            program = program_of(graph, "case", target)
        except UnsupportedOpError:
            if spell_out(graph, SPELT) or not redefined(graph, newest_read()[1]):
                lower_to(graph, newest_read()[1])
                graph.ir_version = newest_read()[0]
            shapes.complete(graph)
            while sum(rewrite.apply(graph) for rewrite in (fourier_as_product, fold_constants)):
                shapes.complete(graph)  # as the passes before native do
            program = program_of(graph, "case", target)
    except HastenError as error:
        return Case(test.name, None, str(error))
    return Case(test.name, program, "", tuple(kept), tuple(outs), max(test.rtol, 1e-4), max(test.atol, 1e-5))


def _array(value: object) -> object:
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def _static(
    model: onnx.ModelProto, ins: Sequence[np.ndarray], outs: Sequence[np.ndarray]
) -> tuple[ir.Model, list[np.ndarray]]:
    """The model with the shapes of its data, inputs that fix shapes as constants; and the data of the other inputs."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    constants = {}
    for node in model.graph.node:
        for index in SHAPES.get(node.op_type, []):
            if index < len(node.input):
                constants[node.input[index]] = True
    several = len(model.graph.node) > 1
    numbers = several and all(array.size == 1 for array in ins)  # they say how long a window or a range is
    inputs, kept = list(model.graph.input), []
    del model.graph.input[:]
    for position, (value, array) in enumerate(zip(inputs, ins, strict=True)):
        small = several and position and array.dtype.kind in "iu" and array.size <= 16
        if value.name in constants or small or numbers:
            model.graph.initializer.append(numpy_helper.from_array(array, value.name))
            continue
        _fix(value, array.shape)
        model.graph.input.append(value)
        kept.append(array)
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    for value, array in zip(model.graph.output, outs, strict=True):
        _fix(value, array.shape)
    graph = ir.from_proto(model)
    ir_passes.InlinePass()(graph)
    ir_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph)
    return graph, kept


def _fix(value: onnx.ValueInfoProto, shape: Sequence[int]) -> None:
    if not value.type.HasField("tensor_type"):
        return
    dims = value.type.tensor_type.shape
    dims.ClearField("dim")
    for size in shape:
        dims.dim.add().dim_value = size


def run_all(cases: Iterable[Case], target: Isa, flags: Sequence[str] = ("-O1",)) -> dict[str, str]:
    """Name → what is wrong, for every case that does not give the expected outputs."""
    todo = [c for c in cases if c.program is not None]
    batches = [todo[i : i + BATCH] for i in range(0, len(todo), BATCH)]
    wrong: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(_build, batch, target, Path(folder) / str(i), flags) for i, batch in enumerate(batches)]
        for batch, job in zip(batches, jobs, strict=True):
            library, emitted = job.result()
            for i, (case, made) in enumerate(zip(batch, emitted, strict=True)):
                try:
                    _check(case, made, library, f"p{i}")
                except AssertionError as error:
                    wrong[case.name] = str(error)
    return wrong


def joined(programs: Sequence[Program], target: Isa, *, threads: int = 1) -> tuple[str, list[Emitted]]:
    """One C text in which program i is ``p<i>_run``, and ``p<i>_part`` for a team; and what was emitted for each."""
    needs: set[str] = set()
    bodies, emitted = [], []
    for i, program in enumerate(programs):
        out = written(program, target, plan(program), threads)
        made = out.text(f"p{i}")
        head = "\n".join(helpers(target, out.needed()))
        assert head in made.source
        body = made.source.replace(head, "", 1)
        static = re.findall(r"^static [^;{]*?\b([a-z]\w*)\(", body, re.MULTILINE)
        names = list(dict.fromkeys(static))
        entry = f"void p{i}_run({ARGUMENTS})"
        called = f"{entry};\n{entry} {{ {inner(f'p{i}')}(weights, arena, inputs, outputs); }}"
        defined = "\n".join(f"#define {n} p{i}_{n}" for n in names)
        bodies.append(f'{defined}\n{body}\n__attribute__((visibility("default"))) {called}\n')
        bodies.append("\n".join(f"#undef {n}" for n in names))
        if f"p{i}_weight_data" not in body:  # a plain C program leaves its weights to whoever exports it
            bodies.append(
                f"extern const unsigned char p{i}_weight_data[];\n"
                '__attribute__((visibility("default"))) const unsigned char *'
                f"p{i}_weights(void) {{ return p{i}_weight_data; }}"
            )
        needs |= set(out.needed())
        emitted.append(made)
    return "\n".join([*helpers(target, sorted(needs)), *bodies]), emitted


def _build(batch: Sequence[Case], target: Isa, folder: Path, flags: Sequence[str]) -> tuple[ctypes.CDLL, list[Emitted]]:
    folder.mkdir()
    text, emitted = joined([case.program for case in batch if case.program is not None], target)
    for i, made in enumerate(emitted):
        (folder / f"p{i}.bin").write_bytes(made.weights or b"\0")
    (folder / "all.c").write_text(text)
    (folder / "weights.S").write_text("\n".join(weights_assembly(f"p{i}", f"p{i}.bin") for i in range(len(emitted))))
    tool = compiler()
    command = [*tool.command, *tool.flags(target), *flags, "-shared", "-fPIC", "-o", "all.so", "all.c", "weights.S"]
    done = subprocess.run([*command, "-lm"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:3000]
    assert "warning" not in done.stderr, done.stderr[:3000]
    return ctypes.CDLL(str(folder / "all.so")), emitted


class Guarded:
    """An array that ends where its page ends, before a page that may not be touched: one byte past it is a crash."""

    def __init__(self, array: np.ndarray) -> None:
        size = -(-max(array.nbytes, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
        self._pages = mmap.mmap(-1, size + mmap.PAGESIZE)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._pages))
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(base + size), mmap.PAGESIZE, 0) == 0
        self.address = base + size - array.nbytes
        room = (ctypes.c_char * array.nbytes).from_buffer(self._pages, size - array.nbytes)
        self.array = np.frombuffer(room, array.dtype).reshape(array.shape)
        self.array[...] = array


def _check(case: Case, made: Emitted, library: ctypes.CDLL, prefix: str) -> None:
    assert case.program is not None
    weights = library[f"{prefix}_weights"]
    weights.restype = ctypes.c_void_p
    run = library[f"{prefix}_run"]
    run.argtypes = [ctypes.c_void_p] * 4
    for x, view in zip(case.inputs, case.program.inputs, strict=True):
        assert x.dtype.name == view.dtype, f"input is {x.dtype}, program has {view.dtype}"
    given = [Guarded(x) for x in case.inputs]
    rooms = [Guarded(np.full(o.shape, 7).astype(o.dtype)) for o in case.outputs]
    arena = np.full(made.arena_bytes + 128, 0xA5, np.uint8)
    start = (arena.ctypes.data + 63) // 64 * 64
    ins = (ctypes.c_void_p * max(1, len(given)))(*(g.address for g in given))
    results = (ctypes.c_void_p * len(rooms))(*(r.address for r in rooms))
    run(weights(), start, ins, results)
    compare(case, [room.array for room in rooms])


def compare(case: Case, found: Iterable[np.ndarray]) -> None:
    """Raises AssertionError where the results are not the expected ones."""
    assert case.program is not None
    for array, expected, view in zip(found, case.outputs, case.program.outputs, strict=True):
        assert expected.dtype.name == view.dtype, f"expected {expected.dtype}, received {view.dtype}"
        assert view.shape == expected.shape
        if expected.dtype.name in ("float16", "bfloat16"):
            close, wide = {"rtol": max(case.rtol, 2e-2), "atol": 1e-3}, np.float32
            np.testing.assert_allclose(array.astype(wide), expected.astype(wide), **close)
        elif expected.dtype.name in NARROW:
            np.testing.assert_array_equal(array.astype(np.float32), expected.astype(np.float32))
        else:
            np.testing.assert_allclose(array, expected, rtol=case.rtol, atol=case.atol)
