"""The texts of an exported library: header, wrapper, example, self-test, CMake project, weights as C. All pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hasten.native.emit import C_TYPES, Emitted, inner
from hasten.native.export_names import argument_names, as_comment
from hasten.native.isa import Isa
from hasten.native.kernels.typed import NARROW
from hasten.native.program import Program
from hasten.types import Array

__all__ = ["Check", "Library", "cmake", "example", "header", "selftest", "weights_as_c", "wrapper"]


@dataclass(frozen=True)
class Check:
    """One stored answer for the self-test.

    Shapes:  inputs, outputs: one array per input and output of the model, at the exported shapes
    """

    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    absolute: float = 1e-5
    relative: float = 1e-4
    scales: tuple[float, ...] = ()
    """For each output, by what its absolute bound is multiplied; empty: by one."""


@dataclass(frozen=True)
class Library:
    """What is exported: ``name`` is the C identifier that every symbol and file begins with."""

    name: str
    program: Program
    emitted: Emitted
    triple: str
    isa: Isa
    inputs: tuple[str, ...]
    """As the source names them, in the order of the arguments."""
    outputs: tuple[str, ...]
    meanings: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    """What an integer of each input and output stands for, in words; empty words where it stands for itself."""


def _positions(library: Library) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names that clash with nothing, whatever the model's are: for all files but the header."""
    program = library.program
    return (
        tuple(f"input{i}" for i in range(len(program.inputs))),
        tuple(f"output{i}" for i in range(len(program.outputs))),
    )


def _parameters(library: Library, names: tuple[Sequence[str], Sequence[str]]) -> str:
    program = library.program
    given = [f"const {C_TYPES[v.dtype]} *{name}" for v, name in zip(program.inputs, names[0], strict=True)]
    made = [f"{C_TYPES[v.dtype]} *{name}" for v, name in zip(program.outputs, names[1], strict=True)]
    return ", ".join(["void *arena", *given, *made])


def _told(library: Library, names: tuple[Sequence[str], Sequence[str]]) -> Iterator[str]:
    """One line for each argument: what the source calls it, its type, shape and size."""
    upper, program = library.name.upper(), library.program
    for word, views, own, arguments, meanings in (
        ("input", program.inputs, library.inputs, names[0], library.meanings[0]),
        ("output", program.outputs, library.outputs, names[1], library.meanings[1]),
    ):
        for i, (view, source, argument) in enumerate(zip(views, own, arguments, strict=True)):
            called = "" if source == argument else f', "{as_comment(source)}" in the model'
            shape = "x".join(map(str, view.shape)) or "scalar"
            size = f"{upper}_{word.upper()}{i}_SIZE"
            yield f"   {argument} ({word} {i}{called}): {view.dtype}, shape {shape}, row-major, {size} elements"
            if meanings and meanings[i]:
                yield f"      {meanings[i]}"


def header(library: Library) -> str:
    """``NAME.h``: the interface and every shape."""
    name, upper, program = library.name, library.name.upper(), library.program
    names = argument_names(library.inputs, library.outputs)
    lines = [f"/* {name}: a model compiled by hasten for {library.triple}, {library.isa.name}.", ""]
    lines += ["   The arguments of a run, in order:", "   arena: what init prepared", *_told(library, names)]
    lines += [
        "",
        f"   Give every thread an arena of {upper}_ARENA_BYTES bytes, aligned to 64. Nothing is allocated, locked or",
        "   called in the system during a run. The same inputs give the same bits. An array needs the alignment of its",
        "   type alone; an output overlaps no other argument.",
        "",
        f"   Besides arenas and code it takes {len(library.emitted.weights)} bytes of constant weights.",
        "   Built as C11 by gcc or clang: CMakeLists.txt has the flags. */",
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
        f"void {name}_run({_parameters(library, names)});",
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


def wrapper(library: Library) -> str:
    """The end of ``NAME.c``: the interface over the emitted function."""
    name, names = library.name, _positions(library)
    ins, outs = ", ".join(names[0]) or "0", ", ".join(names[1])
    api = '__attribute__((visibility("default"))) ' if not library.isa.portable else ""
    size = max(64, -(-library.emitted.arena_bytes // 64) * 64)
    return f"""
{api}void {name}_init(void *arena) {{
    unsigned char *p = arena;
    for (long i = 0; i < {size}; i++) p[i] = 0;
}}
{api}void {name}_reset(void *arena) {{ {name}_init(arena); }}
{api}void {name}_run({_parameters(library, names)}) {{
    const void *inputs[] = {{{ins}}};
    void *outputs[] = {{{outs}}};
    {inner(name)}({name}_weights(), arena, inputs, outputs);
}}
"""


def _storage(library: Library) -> list[str]:
    upper, program = library.name.upper(), library.program
    lines = [f"static _Alignas(64) unsigned char arena[{upper}_ARENA_BYTES];"]
    for word, views in (("input", program.inputs), ("output", program.outputs)):
        lines += [
            f"static {C_TYPES[v.dtype]} {word}{i}[{upper}_{word.upper()}{i}_SIZE{' + 1' if not v.size else ''}];"
            for i, v in enumerate(views)
        ]
    return lines


def _call(library: Library) -> str:
    given, made = _positions(library)
    return f"{library.name}_run({', '.join(('arena', *given, *made))});"


def example(library: Library) -> str:
    """``main.c``: how to call it, and the time of one call."""
    storage, upper, given = "\n".join(_storage(library)), library.name.upper(), ", ".join(_positions(library)[0])
    return f"""/* How to call the model: fill the inputs, run, read the outputs; then the time of one call. */
#include <stdio.h>
#include <time.h>
#include "{library.name}.h"

{storage}

int main(void) {{
    {library.name}_init(arena);
    /* put your values into {given} here; all zero for now */
    {_call(library)}
    for (int i = 0; i < {upper}_OUTPUT0_SIZE && i < 10; i++)
        printf("output0[%d] = %g\\n", i, (double)output0[i]);

    struct timespec from, to;
    const int calls = 1000;
    timespec_get(&from, TIME_UTC);
    for (int i = 0; i < calls; i++) {_call(library)}
    timespec_get(&to, TIME_UTC);
    const double ns = (double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec);
    printf("%.3f us a call\\n", ns / calls / 1e3);
    return 0;
}}
"""


def _numbers(array: Array, dtype: str) -> str:
    """The values as C literals that read back exactly; half-wide floats, and what is narrower than a byte, as bits."""
    flat = array.reshape(-1)
    if not flat.size:
        return "0"
    if dtype in ("float16", "bfloat16"):
        return ", ".join(str(int(v)) for v in flat.view(np.uint16))
    if dtype in NARROW:
        return ", ".join(str(int(v)) for v in flat.view(np.uint8))
    if dtype in ("float32", "float64"):
        digits, suffix = (9, "f") if dtype == "float32" else (17, "")
        texts = [f"{float(v):.{digits}g}" for v in flat]
        texts = [t if any(c in t for c in ".en") else f"{t}.0" for t in texts]
        return ", ".join({"nan": "NAN", "inf": "INFINITY", "-inf": "-INFINITY"}.get(t, f"{t}{suffix}") for t in texts)
    suffix = {"int64": "ll", "uint64": "ull"}.get(dtype, "")
    lowest = "(-9223372036854775807ll - 1)"  # C has no literal for it
    return ", ".join(lowest if int(v) == -(2**63) else f"{int(v)}{suffix}" for v in flat)


# How the self-test reads a value of a dtype that C has no type for.
_READ_HALF = {
    "float16": """static double float16(uint16_t h) {
    const int exponent = h >> 10 & 31, fraction = h & 1023;
    const double size = exponent == 31 ? (fraction ? NAN : INFINITY)
                                       : ldexp(exponent ? 1024 + fraction : fraction, (exponent ? exponent : 1) - 25);
    return h >> 15 ? -size : size;
}""",
    "bfloat16": """static double bfloat16(uint16_t h) {
    const uint32_t bits = (uint32_t)h << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return (double)value;
}""",
}


def selftest(library: Library, checks: Sequence[Check]) -> str:
    """A program that runs the model on the stored inputs and compares; exit code 0: all equal within the tolerance."""
    name = library.name
    lines = [
        "/* Runs the model on stored inputs and compares with the answers of the framework it came from.",
        "   Exit code 0: all equal within the tolerance. */",
        "#include <math.h>",
        "#include <stdio.h>",
        "#include <string.h>",
        f'#include "{name}.h"',
        "",
        *_storage(library),
        "",
    ]
    lines += [line for c, check in enumerate(checks) for line in _stored(library.program, c, check)]
    used = {v.dtype for v in library.program.outputs}
    lines += ["", *(text for dtype, text in _READ_HALF.items() if dtype in used)]
    lines += [
        "static int bad;",
        "static void compare(const char *what, double expected, double received, double absolute, double relative) {",
        "    if (expected == received || (isnan(expected) && isnan(received))) return;",
        "    if (fabs(expected - received) <= absolute + relative * fabs(expected)) return;",
        '    if (bad++ < 10) printf("%s: expected %.9g, received %.9g\\n", what, expected, received);',
        "}",
        "",
        "int main(void) {",
        f"    {name}_init(arena);",
    ]
    lines += [line for c, check in enumerate(checks) for line in _checked(library, c, check)]
    lines += [
        '    if (bad) printf("FAILED: %d values differ\\n", bad);',
        f'    else printf("ok: {len(checks)} checks\\n");',
        "    return bad != 0;",
        "}",
        "",
    ]
    return "\n".join(lines)


def _stored(program: Program, number: int, check: Check) -> Iterator[str]:
    """The inputs and answers of one check as arrays."""
    for word, views, arrays in (("in", program.inputs, check.inputs), ("out", program.outputs, check.outputs)):
        for i, (view, array) in enumerate(zip(views, arrays, strict=True)):
            yield f"static const {C_TYPES[view.dtype]} {word}{number}_{i}[] = {{{_numbers(array, view.dtype)}}};"


def _checked(library: Library, number: int, check: Check) -> Iterator[str]:
    """Runs the model on the inputs of one check and compares every output."""
    for i, view in enumerate(library.program.inputs):
        if view.size:
            yield f"    memcpy(input{i}, in{number}_{i}, {view.size} * sizeof *input{i});"
    yield f"    {_call(library)}"
    for i, view in enumerate(library.program.outputs):
        read = view.dtype if view.dtype in _READ_HALF else "(double)"
        values = f"{read}(out{number}_{i}[i]), {read}(output{i}[i])"
        yield f"    for (int i = 0; i < {view.size}; i++)"
        absolute = check.absolute * (check.scales[i] if check.scales else 1)
        yield f'        compare("check {number} output{i}", {values}, {absolute:g}, {check.relative:g});'


def cmake(library: Library) -> str:
    """``CMakeLists.txt``: the library; where it is built by itself, the example, and the self-test as a test."""
    name, plain = library.name, library.isa.portable
    weights = f"{name}_weights.c" if plain else f"{name}_weights.S"
    flags = " ".join(("-O3", "-ffp-contract=fast", *library.isa.compiler_flags))
    languages = "C" if plain else "C ASM"
    # clang 20 miscompiles sums of byte products in C without vectors when it joins statements into vectors.
    slp = f"\ntarget_compile_options({name} PRIVATE $<$<C_COMPILER_ID:Clang>:-fno-slp-vectorize>)"
    slp = slp if library.isa.name == "c" else ""
    return f"""cmake_minimum_required(VERSION 3.13)
project({name} {languages})
set(CMAKE_C_STANDARD 11)
add_library({name} {name}.c {weights})
target_include_directories({name} PUBLIC ${{CMAKE_CURRENT_SOURCE_DIR}})
target_compile_options({name} PRIVATE $<$<COMPILE_LANGUAGE:C>:{flags.replace(" ", "$<SEMICOLON>")}>){slp}
set_source_files_properties({weights} PROPERTIES COMPILE_OPTIONS "-I${{CMAKE_CURRENT_SOURCE_DIR}}")
target_link_libraries({name} PUBLIC m)
# A project that takes this folder by add_subdirectory gets the library alone.
if(CMAKE_SOURCE_DIR STREQUAL CMAKE_CURRENT_SOURCE_DIR)
  add_executable(example main.c)
  target_link_libraries(example {name})
  add_executable(selftest selftest.c)
  target_link_libraries(selftest {name})
  enable_testing()
  add_test(NAME selftest COMMAND selftest)
endif()
"""


def weights_as_c(name: str, weights: bytes) -> str:
    """``NAME_weights.c``: the packed weights as an array, for compilers that cannot include a file."""
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
