"""A model as a C library for another machine: header, C, weights, static and shared library, example, self-test.

The code needs a C compiler alone (portable C: libm too). It allocates nothing: the caller hands in an arena.
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

import onnx_ir as ir

from hasten.errors import CompilerError, SettingsError
from hasten.native.build import compiler, weights_assembly
from hasten.native.compile import Numerics, program_of
from hasten.native.emit import BUILT, emit
from hasten.native.export_text import (
    Check,
    Library,
    cmake,
    example,
    header,
    selftest,
    weights_as_c,
    wrapper,
)
from hasten.native.isa import ISAS, Isa
from hasten.native.isa import isa as isa_named

__all__ = ["TARGETS", "Check", "Target", "export"]

# Target triple → instruction set by default. ``c`` is C for any processor; its libraries are built for this machine.
TARGETS: dict[str, str] = {
    "x86_64-linux-gnu": "x86-64-v3", "x86_64-linux-musl": "x86-64-v3", "aarch64-linux-gnu": "aarch64",
    "aarch64-linux-musl": "aarch64", "c": "c-vector",
}  # fmt: skip
_PLAIN = Numerics()
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
        chosen = isa_named(instruction_set or TARGETS[triple])
        if chosen.arch not in ("any", triple.split("-")[0]):
            fitting = [n for n, i in ISAS.items() if i.arch in ("any", triple.split("-")[0])]
            raise SettingsError(
                f"instruction set '{chosen.name}' does not run on '{triple}': expected one of {', '.join(fitting)}"
            )
        return Target(triple, chosen)


def export(
    model: ir.Model, name: str, target: Target, checks: Sequence[Check], folder: Path, *, numerics: Numerics = _PLAIN
) -> tuple[Path, ...]:
    """The files of the library in ``folder``, which appears whole or not at all; an older export there is replaced.

    Activations are rounded only where the target has instructions that gain by it.

    Shapes:  model: static shapes
    Raises:  UnsupportedOpError: an operator has no kernel; CompilerError: the compiler failed; SettingsError: the
             folder holds other files, or cannot be written
    """
    identifier = _identifier(name)
    _must_be_ours(folder, identifier)
    rounded = numerics.activations if "vnni" in target.isa.features else "float32"
    program = program_of(
        model, name, target.isa, precision=numerics.precision, activations=rounded, weights=numerics.weights
    )
    emitted = emit(program, target.isa, identifier, math=numerics.math)
    given = tuple(v.name or "" for v in model.graph.inputs if v.name not in model.graph.initializers)
    made = tuple(v.name or "" for v in model.graph.outputs)
    library = Library(identifier, program, emitted, target.triple, target.isa, given, made, _meanings(model.graph))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise SettingsError(
            f"cannot export to '{folder}': {error.strerror}; name a folder that can be written"
        ) from None
    try:
        work.chmod(0o755)  # a temporary folder is its maker's alone
        _write(library, checks, work)
        _build(library, work)
        if folder.exists():
            shutil.rmtree(folder)
        work.rename(folder)
    except BaseException as error:
        shutil.rmtree(work, ignore_errors=True)
        if isinstance(error, OSError):
            raise SettingsError(f"cannot export to '{folder}': {error.strerror}; name a folder with room") from None
        raise
    return tuple(sorted(folder.iterdir()))


_MOVES = ("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten")


def _meanings(graph: ir.Graph) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the integers stand for that a quantised model takes and gives: the scale and zero point at its ends."""
    given = (v for v in graph.inputs if v.name not in graph.initializers)
    return tuple(_meaning(_readers(v)) for v in given), tuple(_meaning([_maker(v)]) for v in graph.outputs)


def _readers(value: ir.Value) -> list[ir.Node]:
    """The nodes that compute with a value, beyond those that only move it."""
    found = []
    for use in value.uses():
        moved = use.node.op_type in _MOVES
        found += [node for made in use.node.outputs for node in _readers(made)] if moved else [use.node]
    return found


def _maker(value: ir.Value | None) -> ir.Node | None:
    node = None if value is None else value.producer()
    return _maker(node.inputs[0]) if node is not None and node.op_type in _MOVES else node


def _meaning(nodes: Sequence[ir.Node | None]) -> str:
    """One scale and zero point that all nodes quantise by; '' where they do not, or by several."""
    told = set()
    for node in nodes:
        if node is None or node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            return ""
        scale, zero = (v.const_value if v is not None else None for v in (*node.inputs, None)[1:3])
        if scale is None or scale.size != 1:
            return ""
        shift = 0 if zero is None else int(zero.numpy().item())
        number = f"(value {'-' if shift > 0 else '+'} {abs(shift)})" if shift else "value"
        told.add(f"a value stands for {float(scale.numpy().item()):.9g} * {number}")
    return told.pop() if len(told) == 1 else ""


def _identifier(name: str) -> str:
    """A C identifier close to ``name``, and none that a file or a CMake target of the library already has."""
    found = re.sub(r"\W", "_", name, flags=re.ASCII) or "model"
    return f"model_{found}" if found[0].isdigit() or found.lower() in _TAKEN else found


# The last: what the symbols of a library that is not exported begin with.
_TAKEN = {"all", "clean", "edit_cache", "example", "help", "install", "main", "package", "selftest", "test", BUILT}


def _must_be_ours(folder: Path, name: str) -> None:
    """Raises SettingsError unless ``folder`` is new, empty, or holds nothing but an export of this name."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise SettingsError(f"cannot export to '{folder}': expected a folder, received a file")
    written = {f"{name}{end}" for end in (".h", ".c", "_weights.c", "_weights.S", "_weights.bin")}
    written |= {"main.c", "selftest.c", "CMakeLists.txt", f"lib{name}.a", f"lib{name}.so"}
    other = sorted(p.name for p in folder.iterdir() if p.name not in written)
    if other:
        raise SettingsError(
            f"cannot export to '{folder}': expected an empty or new folder, received one with '{other[0]}' in it"
        )


def _write(library: Library, checks: Sequence[Check], work: Path) -> None:
    name = library.name
    texts = {
        f"{name}.h": header(library),
        f"{name}.c": f'#include "{name}.h"\n' + library.emitted.source + wrapper(library),
        "main.c": example(library),
        "selftest.c": selftest(library, checks),
        "CMakeLists.txt": cmake(library),
    }
    if library.isa.portable:
        texts[f"{name}_weights.c"] = weights_as_c(name, library.emitted.weights)
    else:
        (work / f"{name}_weights.bin").write_bytes(library.emitted.weights or b"\0")
        texts[f"{name}_weights.S"] = weights_assembly(name, f"{name}_weights.bin")
    for file, text in texts.items():
        (work / file).write_text(text, encoding="utf-8")


# ---- building --------------------------------------------------------------------------------------------------------


def _build(library: Library, work: Path) -> None:
    """Static and shared libraries beside the sources."""
    tool, isa, name = compiler(), library.isa, library.name
    triple = None if library.triple == "c" else library.triple
    if triple is not None and not tool.is_zig:
        raise CompilerError(
            f"cannot build for '{triple}' with {tool.command[0]}: cross builds need zig; unset HASTEN_CC"
        )
    versioned = f"{triple}.{_GLIBC}" if triple and triple.endswith("gnu") else triple
    # Portable C marks no function as the interface, for compilers that know no such mark: a library shows them all.
    shown = ["-fvisibility=default"] if isa.portable else []
    flags = [*tool.flags(isa, versioned), *shown, "-fPIC"]
    weights = f"{name}_weights.c" if isa.portable else f"{name}_weights.S"
    for source in (f"{name}.c", weights):
        _run([*tool.command, *flags, "-c", source, "-o", f"{Path(source).stem}.o"], work)
    objects = [f"{name}.o", f"{Path(weights).stem}.o"]
    libc = ["-lm"] if isa.portable else ["-nostdlib"]
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
