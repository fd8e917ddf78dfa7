"""A model as a C library for another machine: header, C, weights, static and shared library, example, self-test.

The code needs nothing but a C compiler (plain C: the math library too). It allocates nothing: the caller hands in an arena.
The self-test runs on the target and compares with answers stored here, made by the model's own framework.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from hasten.errors import CompilerError, SettingsError
from hasten.native.build import compiler, weights_assembly
from hasten.native.compile import program_of
from hasten.native.emit import C_TYPES, Emitted, emit
from hasten.native.isa import ISAS, Isa, isa
from hasten.native.program import Program
from hasten.types import Array

__all__ = ["TARGETS", "Check", "Target", "export"]

# Target triple → instruction set by default. ``c`` is plain C for any compiler; its libraries are built for this machine.
TARGETS: dict[str, str] = {
    "x86_64-linux-gnu": "x86-64-v3", "x86_64-linux-musl": "x86-64-v3", "aarch64-linux-gnu": "aarch64",
    "aarch64-linux-musl": "aarch64", "c": "c-vector",
}  # fmt: skip
_GLIBC = "2.17"  # the oldest that zig's headers cover on both machines


@dataclass(frozen=True)
class Target:
    """What to build for: a triple of ``TARGETS`` and an instruction set of ``native.isa``."""

    triple: str
    isa: Isa

    @staticmethod
    def named(triple: str, instruction_set: str | None = None) -> Target:
        """The target of that name.

        Raises:  SettingsError: unknown triple, or an instruction set of another processor
        """
        if triple not in TARGETS:
            raise SettingsError(f"unknown target '{triple}': expected one of {', '.join(TARGETS)}")
        chosen = isa(instruction_set or TARGETS[triple])
        if chosen.arch not in ("any", triple.split("-")[0]):
            fitting = [n for n, i in ISAS.items() if i.arch in ("any", triple.split("-")[0])]
            raise SettingsError(
                f"instruction set '{chosen.name}' does not run on '{triple}': expected one of {', '.join(fitting)}"
            )
        return Target(triple, chosen)


@dataclass(frozen=True)
class Check:
    """One stored answer for the self-test.

    Shapes:  inputs, outputs: one array per input and output of the model, at the exported shapes
    """

    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    absolute: float = 1e-5
    relative: float = 1e-4


@dataclass(frozen=True)
class _Library:
    name: str
    program: Program
    emitted: Emitted
    target: Target


def export(model: ir.Model, name: str, target: Target, checks: Sequence[Check], folder: Path) -> tuple[Path, ...]:
    """The files of the library in ``folder``, which appears whole or not at all.

    Shapes:  model: static shapes
    Raises:  UnsupportedOpError: an operator has no kernel; CompilerError: the compiler failed; SettingsError: the folder
             holds other files
    """
    identifier = re.sub(r"\W", "_", name) or "model"
    identifier = f"m{identifier}" if identifier[0].isdigit() else identifier
    if folder.exists() and any(folder.iterdir()) and not (folder / f"{identifier}.h").exists():
        raise SettingsError(
            f"cannot export to '{folder}': expected an empty or new folder, received one with other files"
        )
    program = program_of(model, name, target.isa)
    library = _Library(identifier, program, emit(program, target.isa, identifier), target)
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write(library, checks, work)
        _build(library, work)
        if folder.exists():
            shutil.rmtree(folder)
        work.rename(folder)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return tuple(sorted(folder.iterdir()))


def _write(library: _Library, checks: Sequence[Check], work: Path) -> None:
    name = library.name
    texts = {
        f"{name}.h": _header(library),
        f"{name}.c": f'#include "{name}.h"\n' + library.emitted.source + _wrapper(library),
        "main.c": _example(library),
        "selftest.c": _selftest(library, checks),
        "CMakeLists.txt": _cmake(library),
    }
    if library.target.isa.portable:
        texts[f"{name}_weights.c"] = _weights_as_c(name, library.emitted.weights)
    else:
        (work / f"{name}_weights.bin").write_bytes(library.emitted.weights or b"\0")
        texts[f"{name}_weights.S"] = weights_assembly(name, f"{name}_weights.bin")
    for file, text in texts.items():
        (work / file).write_text(text, encoding="utf-8")


# ---- texts -----------------------------------------------------------------------------------------------------------


def _parameters(library: _Library) -> str:
    def one(word: str, i: int, const: str, dtype: str) -> str:
        return f"{const}{C_TYPES[dtype]} *{word}{i}"

    program = library.program
    given = [one("input", i, "const ", v.dtype) for i, v in enumerate(program.inputs)]
    return ", ".join(["void *arena", *given, *(one("output", i, "", v.dtype) for i, v in enumerate(program.outputs))])


def _header(library: _Library) -> str:
    name, upper, program = library.name, library.name.upper(), library.program
    lines = [f"/* {name}: a model compiled by hasten for {library.target.triple}, {library.target.isa.name}.", ""]
    for word, views in (("input", program.inputs), ("output", program.outputs)):
        lines += [
            f"   {word}{i}: {v.dtype}, shape {'x'.join(map(str, v.shape)) or 'scalar'}, row-major"
            for i, v in enumerate(views)
        ]
    lines += [
        "",
        f"   Give every thread an arena of {upper}_ARENA_BYTES bytes, aligned to 64. Nothing is allocated, locked or",
        "   called in the system during a run. The same inputs give the same bits. */",
        f"#ifndef {upper}_H",
        f"#define {upper}_H",
        "#include <stdint.h>",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        f"#define {upper}_ARENA_BYTES {max(64, -(-library.emitted.arena_bytes // 64) * 64)}",
    ]
    for word, views in (("INPUT", program.inputs), ("OUTPUT", program.outputs)):
        lines += [f"#define {upper}_{word}{i}_SIZE {v.size} /* elements */" for i, v in enumerate(views)]
    lines += [
        "",
        "/* Prepares an arena, once, before its first run. */",
        f"void {name}_init(void *arena);",
        "/* Reads the inputs, writes the outputs. */",
        f"void {name}_infer({_parameters(library)});",
        "/* Puts an arena back to how init left it; a model without memory needs it never. */",
        f"void {name}_reset(void *arena);",
        "",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "#endif",
        "",
    ]
    return "\n".join(lines)


def _wrapper(library: _Library) -> str:
    name, program = library.name, library.program
    ins = ", ".join(f"input{i}" for i in range(len(program.inputs))) or "0"
    outs = ", ".join(f"output{i}" for i in range(len(program.outputs)))
    api = '__attribute__((visibility("default"))) ' if not library.target.isa.portable else ""
    size = max(64, -(-library.emitted.arena_bytes // 64) * 64)
    return f"""
{api}void {name}_init(void *arena) {{
    unsigned char *p = arena;
    for (long i = 0; i < {size}; i++) p[i] = 0;
}}
{api}void {name}_reset(void *arena) {{ {name}_init(arena); }}
{api}void {name}_infer({_parameters(library)}) {{
    const void *inputs[] = {{{ins}}};
    void *outputs[] = {{{outs}}};
    {name}_run({name}_weights(), arena, inputs, outputs);
}}
"""


def _storage(library: _Library) -> list[str]:
    name, upper, program = library.name, library.name.upper(), library.program
    lines = [f"static _Alignas(64) unsigned char arena[{upper}_ARENA_BYTES];"]
    for word, views in (("input", program.inputs), ("output", program.outputs)):
        lines += [f"static {C_TYPES[v.dtype]} {word}{i}[{upper}_{word.upper()}{i}_SIZE];" for i, v in enumerate(views)]
    return [*lines, f"/* {name}_infer's arguments */"]


def _call(library: _Library) -> str:
    program = library.program
    names = [f"input{i}" for i in range(len(program.inputs))] + [f"output{i}" for i in range(len(program.outputs))]
    return f"{library.name}_infer(arena, {', '.join(names)});"


def _example(library: _Library) -> str:
    name, upper = library.name, library.name.upper()
    return "\n".join(
        [
            "/* How to call the model: fill the inputs, run, read the outputs; then the time of one call. */",
            "#include <stdio.h>",
            "#include <time.h>",
            f'#include "{name}.h"',
            "",
            *_storage(library)[:-1],
            "",
            "int main(void) {",
            f"    {name}_init(arena);",
            "    /* put your values into input0 here; all zero for now */",
            f"    {_call(library)}",
            f'    for (int i = 0; i < {upper}_OUTPUT0_SIZE && i < 10; i++) printf("output0[%d] = %g\\n", i, (double)output0[i]);',
            "    struct timespec from, to;",
            "    const int calls = 1000;",
            "    timespec_get(&from, TIME_UTC);",
            f"    for (int i = 0; i < calls; i++) {_call(library)}",
            "    timespec_get(&to, TIME_UTC);",
            '    printf("%.3f us a call\\n", ((double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec)) / calls / 1e3);',
            "    return 0;",
            "}",
            "",
        ]
    )


def _numbers(array: Array) -> str:
    flat = array.reshape(-1)
    if flat.dtype.kind == "f":
        texts = [f"{float(v):.9g}" for v in flat]
        texts = [t if any(c in t for c in ".en") else f"{t}.0" for t in texts]
        return ", ".join({"nan": "NAN", "inf": "INFINITY", "-inf": "-INFINITY"}.get(t, f"{t}f") for t in texts)
    return ", ".join(str(int(v)) for v in flat)


def _selftest(library: _Library, checks: Sequence[Check]) -> str:
    name, program = library.name, library.program
    lines = [
        "/* Runs the model on stored inputs and compares with the answers of the framework it came from. Exit code 0: equal. */",
        "#include <math.h>",
        "#include <stdio.h>",
        "#include <string.h>",
        f'#include "{name}.h"',
        "",
        *_storage(library)[:-1],
        "",
    ]
    for c, check in enumerate(checks):
        for word, views, arrays in (("in", program.inputs, check.inputs), ("out", program.outputs, check.outputs)):
            for i, (view, array) in enumerate(zip(views, arrays, strict=True)):
                lines.append(f"static const {C_TYPES[view.dtype]} {word}{c}_{i}[] = {{{_numbers(array)}}};")
    lines += [
        "",
        "static int bad;",
        "static void compare(const char *what, double expected, double received, double absolute, double relative) {",
        "    if (isnan(expected) ? isnan(received) : fabs(expected - received) <= absolute + relative * fabs(expected)) return;",
        '    if (bad++ < 10) printf("%s: expected %.9g, received %.9g\\n", what, expected, received);',
        "}",
        "",
        "int main(void) {",
        f"    {name}_init(arena);",
    ]
    for c, check in enumerate(checks):
        lines += [f"    memcpy(input{i}, in{c}_{i}, sizeof input{i});" for i in range(len(program.inputs))]
        lines.append(f"    {_call(library)}")
        for i, view in enumerate(program.outputs):
            lines.append(f"    for (int i = 0; i < {view.size}; i++)")
            lines.append(
                f'        compare("check {c} output{i}", (double)out{c}_{i}[i], (double)output{i}[i], '
                f"{check.absolute:g}, {check.relative:g});"
            )
    lines += [
        f'    printf(bad ? "FAILED: %d values differ\\n" : "ok: {len(checks)} checks\\n", bad);',
        "    return bad != 0;",
        "}",
        "",
    ]
    return "\n".join(lines)


def _cmake(library: _Library) -> str:
    name, plain = library.name, library.target.isa.portable
    weights = f"{name}_weights.c" if plain else f"{name}_weights.S"
    flags = "-O3 -ffp-contract=fast" + (f" -march={library.target.isa.march}" if library.target.isa.march else "")
    languages = "C" if plain else "C ASM"
    return f"""cmake_minimum_required(VERSION 3.13)
project({name} {languages})
add_library({name} {name}.c {weights})
target_include_directories({name} PUBLIC ${{CMAKE_CURRENT_SOURCE_DIR}})
target_compile_options({name} PRIVATE $<$<COMPILE_LANGUAGE:C>:{flags.replace(" ", "$<SEMICOLON>")}>)
set_source_files_properties({weights} PROPERTIES COMPILE_OPTIONS "-I${{CMAKE_CURRENT_SOURCE_DIR}}")
target_link_libraries({name} PUBLIC m)
add_executable(example main.c)
target_link_libraries(example {name})
add_executable(selftest selftest.c)
target_link_libraries(selftest {name})
enable_testing()
add_test(NAME selftest COMMAND selftest)
"""


def _weights_as_c(name: str, weights: bytes) -> str:
    padded = weights + b"\0" * (-len(weights) % 8 or (8 if not weights else 0))
    words = np.frombuffer(padded, np.uint64)
    rows = [", ".join(f"0x{w:x}ull" for w in words[i : i + 8]) for i in range(0, len(words), 8)]
    body = ",\n    ".join(rows)
    return f"""/* the weights of {name}, little-endian */
#include <stdint.h>
static _Alignas(64) const uint64_t words[] = {{
    {body}
}};
const unsigned char *{name}_weights(void);
const unsigned char *{name}_weights(void) {{ return (const unsigned char *)words; }}
"""


# ---- building --------------------------------------------------------------------------------------------------------


def _build(library: _Library, work: Path) -> None:
    """Static and shared libraries beside the sources."""
    tool, target, name = compiler(), library.target, library.name
    triple = None if target.triple == "c" else target.triple
    if triple is not None and not tool.is_zig:
        raise CompilerError(
            f"cannot build for '{triple}' with {tool.command[0]}: cross builds need zig; unset HASTEN_CC"
        )
    versioned = f"{triple}.{_GLIBC}" if triple and triple.endswith("gnu") else triple
    flags = [*tool.flags(target.isa, versioned), "-fPIC"]
    weights = f"{name}_weights.c" if target.isa.portable else f"{name}_weights.S"
    for source in (f"{name}.c", weights):
        _run([*tool.command, *flags, "-c", source, "-o", f"{Path(source).stem}.o"], work)
    objects = [f"{name}.o", f"{Path(weights).stem}.o"]
    libc = ["-lm"] if target.isa.portable else ["-nostdlib"]
    _run([*tool.command, *flags, "-shared", *libc, "-o", f"lib{name}.so", *objects], work)
    archiver = [sys.executable, "-m", "ziglang", "ar"] if tool.is_zig else ["ar"]
    _run([*archiver, "rcs", f"lib{name}.a", *objects], work)
    for item in objects:
        (work / item).unlink()


def _run(command: Sequence[str], work: Path) -> None:
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
        raise CompilerError(f"the C compiler refused the exported code: {first}")
