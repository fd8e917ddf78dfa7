"""Exported libraries: plain compilers build them, they answer like the model, and notice when they do not."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import shutil
import subprocess
import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from native_cases import graph, mlp, recurrent
from onnx import TensorProto, helper, numpy_helper, shape_inference

from hasten.errors import SettingsError, UnsupportedOpError
from hasten.graph import reference
from hasten.native.build import compiler
from hasten.native.export import Check, Target, export
from hasten.native.export_names import argument_names

GCC = ("gcc", "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror")
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here")
needs_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="built for x86-64")


def convolutions() -> ir.Model:
    rng = np.random.default_rng(3)
    weights = {
        "w": rng.standard_normal((6, 2, 3, 3)).astype(np.float32),
        "b": rng.standard_normal(6).astype(np.float32),
        "d": rng.standard_normal((6, 1, 3, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "d"], ["e"], group=6, strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["e"], ["y"]),
    ]
    return graph(nodes, {"x": (1, 2, 9, 7)}, {"y": (1, 6, 1, 1)}, weights)


def many_dtypes() -> ir.Model:
    """int64 indices in; float, bool, int64 and float16 out."""
    made = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "i"], ["rows"]),
            helper.make_node("Exp", ["rows"], ["y"]),
            helper.make_node("Greater", ["y", "one"], ["above"]),
            helper.make_node("Add", ["i", "i"], ["twice"]),
            helper.make_node("Cast", ["y"], ["half"], to=TensorProto.FLOAT16),
        ],
        "case",
        [helper.make_tensor_value_info("i", TensorProto.INT64, (3,))],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, (3, 5)),
            helper.make_tensor_value_info("above", TensorProto.BOOL, (3, 5)),
            helper.make_tensor_value_info("twice", TensorProto.INT64, (3,)),
            helper.make_tensor_value_info("half", TensorProto.FLOAT16, (3, 5)),
        ],
        [
            numpy_helper.from_array(np.linspace(-3, 90, 20).astype(np.float32).reshape(4, 5), "table"),
            numpy_helper.from_array(np.float32(1), "one"),
        ],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return ir.from_proto(shape_inference.infer_shapes(model))


MODELS = {
    "mlp": lambda: mlp([20, 10, 2]),
    "lstm": lambda: recurrent("LSTM", 4, 3, 10),
    "conv": convolutions,
    "dtypes": many_dtypes,
}


def checks(model: ir.Model, count: int = 2) -> list[Check]:
    rng, found = np.random.default_rng(1), []
    for _ in range(count):
        arrays = []
        for value in model.graph.inputs:
            shape, kind = [int(d) for d in value.shape], value.dtype.numpy()
            made = rng.integers(0, 4, shape) if kind.kind == "i" else rng.standard_normal(shape)
            arrays.append(made.astype(kind))
        found.append(Check(tuple(arrays), tuple(reference.run(model, arrays))))
    return found


def exported(name, folder, target, instruction_set=None):
    model = MODELS[name]()
    export(model, name, Target.named(target, instruction_set), checks(model), folder)
    return folder


def run(command, folder):
    return subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, check=False)


def selftest(folder, name, *, launcher=(), build=GCC, sources=None):
    """Builds the self-test against the static library (or from the sources) and runs it."""
    parts = sources or [f"lib{name}.a"]
    built = run([*build, "selftest.c", *parts, "-lm", "-o", "selftest"], folder)
    assert built.returncode == 0, built.stderr
    return run([*launcher, "./selftest"], folder)


@needs_gcc
@needs_x86
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("instruction_set", ["x86-64-v2", "x86-64-v3"])
def test_library_for_x86(name, instruction_set, tmp_path):
    folder = exported(name, tmp_path / "lib", "x86_64-linux-gnu", instruction_set)
    done = selftest(folder, name)
    assert (done.returncode, done.stdout) == (0, "ok: 2 checks\n")


@needs_gcc
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("instruction_set", ["c-vector", "c"])
def test_portable_c_under_another_compiler(name, instruction_set, tmp_path):
    """Every file through gcc without a warning; the self-test passes from the sources and with the library."""
    folder = exported(name, tmp_path / "lib", "c", instruction_set)
    sources = [f"{name}.c", f"{name}_weights.c"]
    done = selftest(folder, name, sources=sources)
    assert (done.returncode, done.stdout) == (0, "ok: 2 checks\n")
    assert selftest(folder, name).returncode == 0
    example = run([*GCC, "main.c", *sources, "-lm", "-o", "example"], folder)
    assert example.returncode == 0, example.stderr
    assert re.search(r"^\d+\.\d+ us a call$", run(["./example"], folder).stdout, re.MULTILINE)


@pytest.mark.skipif(shutil.which("qemu-aarch64") is None, reason="no qemu-aarch64 here (Debian: qemu-user)")
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("target", ["aarch64-linux-gnu", "aarch64-linux-musl", "c"])
def test_library_for_aarch64(name, target, tmp_path):
    """The library for that processor, and the portable sources compiled for it: both give the model's answers.

    The library needs no C library, so that the emulated program is a static one in every case.
    """
    tool = compiler()
    if not tool.is_zig:
        pytest.skip("cross builds need zig")
    folder = exported(name, tmp_path / "lib", target)
    build = (*tool.command, "-target", "aarch64-linux-musl", "-O1", "-static", "-fno-sanitize=undefined")
    sources = None if target != "c" else [f"{name}.c", f"{name}_weights.c"]
    done = selftest(folder, name, launcher=["qemu-aarch64"], build=build, sources=sources)
    assert (done.returncode, done.stdout) == (0, "ok: 2 checks\n")


@needs_gcc
@pytest.mark.parametrize("target", ["c", "x86_64-linux-gnu"])
def test_selftest_notices_a_damaged_weight(target, tmp_path):
    """The control: without it a self-test that compares nothing would pass as well."""
    if target != "c" and platform.machine() != "x86_64":
        pytest.skip("built for x86-64")
    folder = exported("mlp", tmp_path / "lib", target)
    last_bias = MODELS["mlp"]().graph.initializers["b1"].const_value.numpy()[:1].tobytes()
    if target == "c":
        weights = folder / "mlp_weights.c"
        text, digits = weights.read_text(), last_bias[::-1].hex()
        assert text.count(digits) == 1
        weights.write_text(text.replace(digits, "40000000"))
        sources = ["mlp.c", weights.name]
    else:
        data = (folder / "mlp_weights.bin").read_bytes()
        assert data.count(last_bias) == 1
        (folder / "mlp_weights.bin").write_bytes(data.replace(last_bias, np.float32(2).tobytes()))
        sources = ["-march=x86-64-v3", "mlp.c", "mlp_weights.S"]
    done = selftest(folder, "mlp", sources=sources)
    assert done.returncode == 1
    assert "FAILED" in done.stdout


@pytest.mark.skipif(shutil.which("cmake") is None or shutil.which("gcc") is None, reason="no cmake or C compiler here")
@pytest.mark.parametrize(("target", "instruction_set"), [("c", None), ("c", "c"), ("x86_64-linux-gnu", None)])
def test_cmake_project_builds_and_tests_itself(target, instruction_set, tmp_path):
    if target != "c" and platform.machine() != "x86_64":
        pytest.skip("built for x86-64")
    folder = exported("lstm", tmp_path / "lib", target, instruction_set)
    for command in (["cmake", "-S", ".", "-B", "../build"], ["cmake", "--build", "../build"]):
        done = run(command, folder)
        assert done.returncode == 0, done.stdout + done.stderr
    done = run(["ctest", "--test-dir", "../build"], folder)
    assert "100% tests passed" in done.stdout, done.stdout


@pytest.mark.skipif(shutil.which("cmake") is None or shutil.which("gcc") is None, reason="no cmake or C compiler here")
@pytest.mark.parametrize("target", ["c", "x86_64-linux-gnu"])
def test_two_libraries_in_one_cmake_project(target, tmp_path):
    """Nothing of one has a name of the other's: not a target, not a symbol; a compiler of older habits reads C11."""
    if target != "c" and platform.machine() != "x86_64":
        pytest.skip("built for x86-64")
    for name in ("mlp", "lstm"):
        exported(name, tmp_path / name, target)
    (tmp_path / "both.c").write_text(
        '#include "lstm.h"\n#include "mlp.h"\n'
        "static _Alignas(64) unsigned char one[MLP_ARENA_BYTES], two[LSTM_ARENA_BYTES];\n"
        "int main(void) { mlp_init(one); lstm_init(two); return 0; }\n"
    )
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.13)\nproject(both C ASM)\nadd_subdirectory(mlp)\nadd_subdirectory(lstm)\n"
        "add_executable(both both.c)\ntarget_link_libraries(both mlp lstm)\n"
    )
    for command in (["cmake", "-S", ".", "-B", "build"], ["cmake", "--build", "build"], ["build/both"]):
        done = run(command, tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "-std=gnu11" in (tmp_path / "build" / "mlp" / "CMakeFiles" / "mlp.dir" / "flags.make").read_text()


@needs_x86
@pytest.mark.parametrize(
    ("target", "instruction_set"), [("x86_64-linux-gnu", "x86-64-v2"), ("c", "c-vector"), ("c", "c")]
)
def test_shared_library_needs_nothing(target, instruction_set, tmp_path):
    model = MODELS["mlp"]()
    folder = exported("mlp", tmp_path / "lib", target, instruction_set)
    library = ctypes.CDLL(str(folder / "libmlp.so"))
    (check,) = checks(model, 1)
    x, y = check.inputs[0], np.empty_like(check.outputs[0])
    size = int(re.search(r"MLP_ARENA_BYTES (\d+)", (folder / "mlp.h").read_text())[1])
    arena = np.zeros(size + 64, np.uint8)
    start = (arena.ctypes.data + 63) // 64 * 64
    library.mlp_init(ctypes.c_void_p(start))
    library.mlp_run(*(ctypes.c_void_p(p) for p in (start, x.ctypes.data, y.ctypes.data)))
    np.testing.assert_allclose(y, check.outputs[0], rtol=1e-5, atol=1e-6)
    if shutil.which("nm"):
        undefined = run(["nm", "-D", "--undefined-only", "libmlp.so"], folder).stdout.splitlines()
        assert not [symbol for symbol in undefined if symbol.split()[0] != "w"], "weak: the linker's own, of no library"


def test_header_names_the_arguments_as_the_model_does(tmp_path):
    """Names that C does not take, and those that frameworks make up, become positions; the header tells them."""
    nodes = [
        helper.make_node("Sub", ["arm/pose", "keras_tensor_24"], ["float"]),
        helper.make_node("Mul", ["arm/pose", "keras_tensor_24"], ["*/ #error"]),
    ]
    inputs = {"arm/pose": (1, 3), "keras_tensor_24": (1, 3)}
    model = graph(nodes, inputs, {"float": (1, 3), "*/ #error": (1, 3)}, {})
    export(model, "two", Target.named("c"), checks(model), tmp_path / "lib")
    header = (tmp_path / "lib" / "two.h").read_text()
    arguments = "const float *arm_pose, const float *input1, float *float_output, float *error"
    assert f"void two_run(void *arena, {arguments});" in header
    assert '   input1 (input 1, "keras_tensor_24" in the model): float32, shape 1x3, row-major' in header
    assert '   arm_pose (input 0, "arm/pose" in the model): float32' in header
    assert re.findall(r"^void (\w+)", header, re.MULTILINE) == ["two_init", "two_run", "two_reset"]
    if shutil.which("gcc"):
        assert selftest(tmp_path / "lib", "two").returncode == 0


def test_header_tells_how_many_bytes_the_weights_take(tmp_path):
    model = MODELS["mlp"]()
    export(model, "mlp", Target.named("c"), checks(model), tmp_path / "lib")
    size = int(re.search(r"it takes (\d+) bytes of constant weights", (tmp_path / "lib" / "mlp.h").read_text())[1])
    words = (tmp_path / "lib" / "mlp_weights.c").read_text().count("0x")
    assert words * 8 - 8 < size <= words * 8


def test_header_tells_what_quantised_values_stand_for(tmp_path):
    """An int8 model cannot be fed without its scales; an integer that is computed with as it is stands for itself."""
    weights = {name: np.float32(value) for name, value in (("s", 0.5), ("t", 0.25))}
    weights |= {"z": np.int8(3), "n": np.int8(-7), "shape": np.array([2, 2])}
    nodes = [
        helper.make_node("Reshape", ["image", "shape"], ["moved"]),
        helper.make_node("DequantizeLinear", ["moved", "s", "z"], ["real"]),
        helper.make_node("Cast", ["count"], ["plain"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["real", "plain"], ["sum"]),
        helper.make_node("QuantizeLinear", ["sum", "t", "n"], ["score"]),
        helper.make_node("Cast", ["sum"], ["whole"], to=TensorProto.INT8),
    ]
    made = helper.make_graph(
        nodes, "case",
        [helper.make_tensor_value_info(n, TensorProto.INT8, d) for n, d in (("image", (4,)), ("count", (2, 2)))],
        [helper.make_tensor_value_info(n, TensorProto.INT8, (2, 2)) for n in ("score", "whole")],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )  # fmt: skip
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    export(ir.from_proto(shape_inference.infer_shapes(model)), "q", Target.named("c"), [], tmp_path / "lib")
    lines = (tmp_path / "lib" / "q.h").read_text().splitlines()
    after = {name: lines[[line.startswith(f"   {name} (") for line in lines].index(True) + 1].strip() for name in
             ("image", "count", "score", "whole")}  # fmt: skip
    assert after["image"] == "a value stands for 0.5 * (value - 3)"
    assert after["score"] == "a value stands for 0.25 * (value + 7)"
    assert "stands for" not in after["count"] + after["whole"]


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        (["x", "x"], ["x", "x_output"], (("x", "x_input"), ("x_output", "x_output_output"))),
        (["a.b", "a/b", "a b"], ["y"], (("a_b", "a_b_input", "input2"), ("y",))),
        (["input1", "onnx::Add_3"], ["Identity:0", "output_1"], (("input0", "input1"), ("output0", "output1"))),
        (["arena", "x_t", "_3"], ["", "ü"], (("arena_input", "x_t_input", "input2"), ("output0", "output1"))),
        (["y" * 50], ["I"], (("input0",), ("I_output",))),
        (["dense/BiasAdd:0"], ["2d"], (("dense_BiasAdd",), ("output0",))),
    ],
)  # fmt: skip
def test_argument_names(inputs, outputs, expected):
    assert argument_names(inputs, outputs) == expected


def test_same_model_same_files(tmp_path):
    """Two exports differ in nothing; the second replaces the first."""
    first = {p.name: p.read_bytes() for p in exported("conv", tmp_path / "lib", "c").iterdir()}
    again = {p.name: p.read_bytes() for p in exported("conv", tmp_path / "lib", "c").iterdir()}
    texts = [name for name in first if not name.startswith("lib")]
    assert set(first) == set(again)
    assert {n: first[n] for n in texts} == {n: again[n] for n in texts}
    assert [p.name for p in tmp_path.iterdir()] == ["lib"], "no working folder stays behind"


@pytest.mark.parametrize("name", ["main", "selftest", "8 bit/ü", "a-b.c", "hasten"])
def test_any_name_becomes_an_identifier(name, tmp_path):
    model = MODELS["mlp"]()
    files = {p.name for p in export(model, name, Target.named("c"), checks(model), tmp_path / "lib")}
    header = next(f for f in files if f.endswith(".h"))
    assert re.fullmatch(r"[A-Za-z_]\w*\.h", header, re.ASCII)
    assert len(files) == 8
    if shutil.which("gcc"):
        assert selftest(tmp_path / "lib", header[:-2]).returncode == 0


def test_refusals_leave_nothing(tmp_path):
    model = MODELS["mlp"]()
    with pytest.raises(SettingsError, match="unknown target 'z80': expected one of"):
        Target.named("z80")
    with pytest.raises(SettingsError, match="does not run on 'aarch64-linux-gnu'"):
        Target.named("aarch64-linux-gnu", "x86-64-v3")
    other = tmp_path / "project"
    other.mkdir()
    (other / "mlp.h").write_text("mine")
    (other / "notes.txt").write_text("mine")
    with pytest.raises(SettingsError, match=r"received one with 'notes\.txt' in it"):
        export(model, "mlp", Target.named("c"), checks(model), other)
    assert sorted(p.name for p in other.iterdir()) == ["mlp.h", "notes.txt"]
    with pytest.raises(SettingsError, match="received a file"):
        export(model, "mlp", Target.named("c"), checks(model), other / "notes.txt")
    nodes = [helper.make_node("NonZero", ["x"], ["i"]), helper.make_node("Cast", ["i"], ["y"], to=1)]
    odd = graph(nodes, {"x": (2, 2)}, {"y": (2, "n")}, {})
    with pytest.raises(UnsupportedOpError, match="NonZero"):
        export(odd, "odd", Target.named("c"), [], tmp_path / "odd")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["project"]


def test_a_full_disk_is_told_in_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("hasten.native.export._write", full)
    model = MODELS["mlp"]()
    with pytest.raises(SettingsError, match=r"cannot export to '.*lib': No space left on device"):
        export(model, "mlp", Target.named("c"), checks(model), tmp_path / "lib")
    assert list(tmp_path.iterdir()) == []


def test_command_line(tmp_path):
    """The whole way from a file, and one line with exit code 2 for what cannot be done."""
    onnx.save(ir.to_proto(MODELS["mlp"]()), tmp_path / "policy.onnx")
    start = [sys.executable, "-c", "from hasten.cli import main; main()", "export"]
    done = run([*start, "policy.onnx", "-o", "lib", "--target", "c"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert {"lib/policy.h", "lib/policy.c", "lib/libpolicy.a"} <= set(done.stdout.split())
    if shutil.which("gcc"):
        assert selftest(tmp_path / "lib", "policy").returncode == 0
    for arguments, words in (
        (["policy.onnx", "-o", "other", "--target", "z80"], "unknown target 'z80'"),
        (["missing.onnx", "-o", "other"], "missing.onnx"),
        (["policy.onnx", "-o", "."], "expected an empty or new folder"),
        (["policy.onnx", "-o", "other", "--batch", "8"], "batch: expected none"),
        (["policy.onnx", "-o", "other", "--shape", "q=1,2"], "'q'"),
    ):
        done = run([*start, *arguments], tmp_path)
        assert done.returncode == 2
        assert words in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lib", "policy.onnx"]
