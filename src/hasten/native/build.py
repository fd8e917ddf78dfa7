"""C text enters, a shared library leaves. The compiler is clang from the ``ziglang`` wheel, or ``$HASTEN_CC``."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from uuid import uuid4

import platformdirs

from hasten.errors import CompilerError
from hasten.host import host
from hasten.native.emit import Emitted
from hasten.native.isa import Isa

__all__ = ["Compiler", "compile_library", "compiler", "weights_assembly"]

# No errno and no traps from arithmetic; NaN and infinities keep their meaning. Never -ffast-math: it also links code
# that sets flush-to-zero for the whole process.
_FLAGS = ("-O3", "-std=gnu11", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fno-stack-protector",
          "-fvisibility=hidden", "-Wall", "-Wextra")  # fmt: skip


@dataclass(frozen=True)
class Compiler:
    """How to call the C compiler."""

    command: tuple[str, ...]
    is_zig: bool

    @property
    def version(self) -> str:
        """What tells this compiler from another."""
        if len(self.command) > 2 and self.is_zig:
            return f"ziglang {host().versions.get('ziglang')}"
        return _version(self.command)

    def flags(self, isa: Isa, target: str | None = None) -> tuple[str, ...]:
        """Flags for one instruction set; ``target`` is a triple for cross builds."""
        if self.is_zig:
            triple = target or ("native" if isa.portable else f"{isa.arch}-linux-gnu.2.17")
            cpu = (f"-mcpu={isa.cpu}",) if isa.cpu else ()
            # clang 20 miscompiles sums of byte products in plain C when it joins statements into vectors.
            plain = ("-fno-slp-vectorize",) if isa.name == "c" else ()
            # Without the next two zig turns on trapping UBSan, and adds more to debug by than there is code.
            own = ("-fno-sanitize=undefined", "-g0")
            return (*_FLAGS, *plain, *own, "-D__MM_MALLOC_H", "-target", triple, *cpu)
        return (*_FLAGS, *isa.compiler_flags)


@cache
def compiler() -> Compiler:
    """The compiler of this machine.

    Raises:  CompilerError: neither ``$HASTEN_CC`` nor the ``ziglang`` package is there
    """
    chosen = os.environ.get("HASTEN_CC")
    if chosen:
        command = tuple(shlex.split(chosen))
        if shutil.which(command[0]) is None:
            raise CompilerError(
                f"cannot find the C compiler '{command[0]}' named by HASTEN_CC: unset it or name another"
            )
        return Compiler(command, "zig" in command[0])
    if importlib.util.find_spec("ziglang") is not None:
        return Compiler((sys.executable, "-m", "ziglang", "cc"), True)
    found = shutil.which("clang")
    if found:
        return Compiler((found,), False)
    raise CompilerError("no C compiler: expected the ziglang package or HASTEN_CC; run pip install 'hasten[native]'")


@cache
def _version(command: tuple[str, ...]) -> str:
    said = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False).stdout
    return said.partition("\n")[0] or shlex.join(command)


def compile_library(emitted: Emitted, isa: Isa, folder: Path, extra: tuple[str, ...] = ()) -> Path:
    """``folder/model.so`` with the weights inside, beside its ``model.c``; from the cache when the same was built.

    Raises:  CompilerError: the compiler refuses the code; the message holds its first error
    """
    tool = compiler()
    flags = (*tool.flags(isa), *extra)
    name = hashlib.sha256(
        "\0".join((emitted.source, *tool.command, *flags)).encode() + hashlib.sha256(emitted.weights).digest()
    ).hexdigest()[:32]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.c").write_text(emitted.source, encoding="utf-8")
    library = folder / "model.so"
    cached = Path(platformdirs.user_cache_dir("hasten")) / "native" / f"{name}.so"
    if cached.is_file():
        shutil.copyfile(cached, library)
        return library
    with tempfile.TemporaryDirectory(prefix="hasten-") as work:
        built = _compile(tool, flags, emitted, Path(work))
        shutil.copyfile(built, library)
    _keep(library, cached)
    return library


def weights_assembly(prefix: str, file: str) -> str:
    """Assembly that puts a file's bytes into the read-only section, page-aligned, as ``<prefix>_weight_data``."""
    name = f"{prefix}_weight_data"
    return (
        f'.section .rodata,"a",%progbits\n.balign 4096\n.globl {name}\n.hidden {name}\n{name}:\n.incbin "{file}"\n'
        '.section .note.GNU-stack,"",%progbits\n'
    )


def _compile(tool: Compiler, flags: tuple[str, ...], emitted: Emitted, work: Path) -> Path:
    (work / "model.c").write_text(emitted.source, encoding="utf-8")
    (work / "weights.bin").write_bytes(emitted.weights or b"\0")
    (work / "weights.S").write_text(weights_assembly("hasten", "weights.bin"), encoding="utf-8")
    command = [*tool.command, *flags, "-shared", "-fPIC", "-nostdlib", "-o", "model.so", "model.c", "weights.S"]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
        raise CompilerError(f"the C compiler refused the emitted code: {first}")
    return work / "model.so"


def _keep(library: Path, cached: Path) -> None:
    """Adds the library to the cache; a cache that cannot be written is only slower."""
    temporary = cached.with_suffix(f".{uuid4().hex}.part")
    with suppress(OSError):
        cached.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(library, temporary)
        temporary.replace(cached)
    with suppress(OSError):  # where the disk filled up halfway
        temporary.unlink(missing_ok=True)
