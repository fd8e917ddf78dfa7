"""The user's own PyTorch, call path by call path: the source's file enters, a copy or a compiled form of it leaves.

eager, no_grad and inference_mode are what users write; TorchScript frozen, torch.compile and AOTInductor are the best
that PyTorch itself has. None is ever shipped: ``details["framework"]`` says so.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from hasten.engines import BuildRequest, Offer
from hasten.engines.apart import Operators
from hasten.engines.torch_profile import profile
from hasten.errors import EngineError, MissingLibraryError
from hasten.records import Artefact, Candidate
from hasten.sessions.torch import flat_module, load_module
from hasten.types import Array

__all__ = ["ENGINE"]

_WRITTEN = ("eager", "no_grad", "inference_mode")
_COMPILED = ("scripted_frozen", "compile", "aot_inductor")
_COMPILERS = ("g++", "c++", "clang++")


class TorchEngine:
    """PyTorch models by every way to call them."""

    name = "torch"

    def missing(self) -> str | None:
        """None where PyTorch is installed."""
        return None if find_spec("torch") else "PyTorch is not installed: install hasten[torch]"

    def preload(self) -> None:
        """Imports PyTorch, and no more: the tuner forks a process for each call path from one that has it."""
        import torch  # noqa: F401, PLC0415 - a framework, in its own adapter

    def candidates(self, offer: Offer) -> Sequence[Candidate]:
        """One for each call path; ``--quick``: the best of what people write, and the quickest to compile."""
        if offer.framework != "torch":
            return ()
        ways: list[tuple[str, str, tuple[int, ...]]] = []
        first = offer.threads[:1]
        if offer.quick:
            ways = [("inference_mode", "numpy", first), ("scripted_frozen", "numpy", first)]
        else:
            ways += [(path, fed, first) for path in _WRITTEN for fed in ("numpy", "tensor")]
            ways += [("inference_mode", "numpy", offer.threads[1:])]
            ways += [(path, "numpy", first if path == "compile" else offer.threads) for path in _COMPILED]
        return tuple(
            Candidate("torch", "float32", count, batch, (("fed", fed), ("path", path)))
            for batch in offer.batches
            for path, fed, threads in ways
            for count in threads
        )

    def build(self, request: BuildRequest) -> Artefact:
        """A copy of the source's file, a frozen TorchScript or an AOTInductor package in ``request.folder``.

        Raises:  MissingLibraryError: no PyTorch, or no C++ compiler for Inductor; EngineError: PyTorch refuses
        """
        path = str(request.candidate.option("path"))
        if path in ("compile", "aot_inductor") and not any(map(shutil.which, _COMPILERS)):
            raise MissingLibraryError(f"torch {path}: no C++ compiler found: install g++ or clang++")
        request.folder.mkdir(parents=True, exist_ok=True)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(request.folder / "inductor")
        try:
            file = _WRITERS.get(path, _copied)(request)
        except ModuleNotFoundError as error:  # PyTorch itself, or what the model's own code imports
            raise MissingLibraryError(f"torch: '{error.name}' is not installed here, and the model needs it") from error
        except (EngineError, MemoryError):
            raise
        except Exception as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            raise EngineError(f"torch {path}: {lines[0][:300]}") from error
        return Artefact(
            candidate=request.candidate,
            folder=request.folder,
            files=(file,),
            inputs=request.inputs,
            outputs=request.outputs,
            portable=path != "aot_inductor",
            details={"framework": True, "file": file, "trust": _trusted(request)},
        )

    def operators(self, artefact: Artefact, arrays: Sequence[Array]) -> Operators:
        """Name, type and nanoseconds of each operator, by PyTorch's profiler in a process of its own.

        Raises:  EngineError: the path cannot be opened again, or the profiler slows down a call this short too much
        """
        return profile(artefact, arrays)


ENGINE = TorchEngine()


def _trusted(request: BuildRequest) -> bool:
    # Only hasten writes .cloudpickle files, of modules that the user held in memory.
    return request.trust or request.source.suffix == ".cloudpickle"


def _copied(request: BuildRequest) -> str:
    target = request.folder / f"source{request.source.suffix}"
    shutil.copyfile(request.source, target)
    return target.name


def _frozen(request: BuildRequest) -> str:
    import torch  # noqa: PLC0415 - a framework, in its own adapter

    module = load_module(request.source, trust=_trusted(request))
    with torch.no_grad():
        scripted = module
        if not isinstance(module, torch.jit.ScriptModule):
            scripted = torch.jit.trace(flat_module(module).eval(), tuple(_tensors(request)), check_trace=False)
        frozen = torch.jit.freeze(scripted.eval())
    target = request.folder / "frozen.pt"
    torch.jit.save(frozen, str(target))
    return target.name


def _packaged(request: BuildRequest) -> str:
    import torch  # noqa: PLC0415 - a framework, in its own adapter

    module = load_module(request.source, trust=_trusted(request))
    if isinstance(module, torch.jit.ScriptModule):
        raise EngineError("torch aot_inductor: TorchScript cannot be exported again: expected a module or a .pt2")
    torch.set_num_threads(request.candidate.threads)
    target = request.folder / "package.pt2"
    with torch.no_grad():
        program = torch.export.export(flat_module(module).eval(), tuple(_tensors(request)))
        torch._inductor.aoti_compile_and_package(program, package_path=str(target))
    return target.name


_WRITERS = {"scripted_frozen": _frozen, "aot_inductor": _packaged}


def _tensors(request: BuildRequest) -> list[Any]:
    """Zeros: an index that any table has, and a value that any arithmetic takes."""
    import torch  # noqa: PLC0415 - a framework, in its own adapter

    return [torch.zeros(spec.static_shape, dtype=getattr(torch, spec.dtype)) for spec in request.inputs]
