"""LiteRT's C interface, as far as a profile needs it: a ``.tflite`` file enters, the events of each call leave.

The Python package's interpreter has no profiler. The library beside it has the same kernels behind a C interface that
has one, which this reaches by ctypes. A signature that another release changes would crash the process: use it in one
of its own, and hold its answers against the interpreter's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from hasten.errors import EngineError
from hasten.types import Array

__all__ = ["DELEGATED", "NODE", "Event", "Program"]

NODE, DELEGATED = 1 << 1, 1 << 3
"""Kinds of events: a node of the file's graph, or an operator inside a delegate that keeps its own times."""

_CPU = 1
_READ, _WRITE = 0, 1
# A tensor's type is its element's type and a layout: rank, eight dimensions, eight strides, four bytes each.
_ELEMENT_BYTES, _LAYOUT_BYTES = 4, 68
_Handle = ctypes.c_void_p


@dataclass(frozen=True)
class Event:
    """One operator of one call.

    Units:   micros: whole microseconds
    """

    kind: int
    tag: str
    """A node's TFLite operator; a delegate's own words for its operator."""
    micros: int
    index: int
    """Of the node in its subgraph, or of the operator in its delegate."""
    subgraph: int


class _Event(ctypes.Structure):
    _fields_ = (
        ("tag", ctypes.c_char_p),
        ("kind", ctypes.c_int),
        ("start", ctypes.c_uint64),
        ("micros", ctypes.c_uint64),
        ("memory", ctypes.c_uint64 * 6),
        ("index", ctypes.c_uint64),
        ("subgraph", ctypes.c_uint64),
        ("source", ctypes.c_int),
    )


class Program:
    """The first subgraph of a ``.tflite`` file, compiled for the CPU with a profiler.

    Raises:  EngineError: the library is missing, or refuses the file or the shapes
    """

    def __init__(self, path: Path, threads: int, delegate: bool) -> None:
        self._library = _library()
        # Texts that the library is lent, and how it would free them.
        self._kept: list[Any] = []
        self._free = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None)
        self._environment = self._made("CreateEnvironment", ctypes.c_int(0), None)
        file = self._made("CreateModelFromFile", self._environment, str(path).encode())
        self._compiled = self._made("CreateCompiledModel", self._environment, file, self._options(threads, delegate))
        self._signature = self._signature_of_first_subgraph(file)
        self._tensors = {kind: self._tensors_of(kind) for kind in ("Input", "Output")}
        self._buffers: dict[str, Any] = {}
        self._profiler = self._made("CompiledModelGetProfiler", self._compiled)

    @property
    def places(self) -> tuple[list[int], list[int]]:
        """The file's tensors that go in and come out, in the program's own order."""
        ins, outs = ([self._number("GetTensorIndex", t) for t in self._tensors[k]] for k in ("Input", "Output"))
        return ins, outs

    def feed(self, arrays: Sequence[Array]) -> None:
        """What the next calls compute from; the program takes their shapes."""
        for i, array in enumerate(arrays):
            dims = (ctypes.c_int * array.ndim)(*array.shape)
            place = ctypes.c_size_t(self._signature), ctypes.c_size_t(i)
            shape = dims, ctypes.c_size_t(array.ndim)
            self._do("CompiledModelResizeInputTensorNonStrict", self._compiled, *place, *shape)
        layouts = (ctypes.c_ubyte * _LAYOUT_BYTES * len(self._tensors["Output"]))()
        self._do("GetCompiledModelOutputTensorLayouts", self._compiled, ctypes.c_size_t(self._signature),
                 ctypes.c_size_t(len(layouts)), layouts, ctypes.c_bool(True))  # fmt: skip
        ins = [self._buffer("Input", i, self._input_layout(i)) for i in range(len(self._tensors["Input"]))]
        outs = [self._buffer("Output", i, bytes(layout)) for i, layout in enumerate(layouts)]
        for buffer, array in zip(ins, arrays, strict=True):
            size = self._number("GetTensorBufferPackedSize", buffer)
            if size != array.nbytes:
                raise EngineError(f"expected {size} bytes of input, received {array.nbytes}")
            with self._locked(buffer, _WRITE) as address:
                ctypes.memmove(address, np.ascontiguousarray(array).ctypes.data, size)
        self._buffers = {"Input": (_Handle * len(ins))(*ins), "Output": (_Handle * len(outs))(*outs)}

    def call(self) -> None:
        """One call on what was fed last."""
        ins, outs = self._buffers["Input"], self._buffers["Output"]
        self._do("RunCompiledModel", self._compiled, ctypes.c_size_t(self._signature),
                 ctypes.c_size_t(len(ins)), ins, ctypes.c_size_t(len(outs)), outs)  # fmt: skip

    def outputs(self) -> tuple[bytes, ...]:
        """The last call's answers, as they lie in memory."""
        found = []
        for handle in self._buffers["Output"]:
            buffer = _Handle(handle)
            with self._locked(buffer, _READ) as address:
                found.append(ctypes.string_at(address, self._number("GetTensorBufferPackedSize", buffer)))
        return tuple(found)

    def profiled(self) -> tuple[Event, ...]:
        """The operators of one call, in the order in which they began."""
        # Threads that have just had work are still awake when the profiled call begins, as in calls in a row.
        self.call()
        self._do("StartProfiler", self._profiler)
        self.call()
        self._do("StopProfiler", self._profiler)
        count = ctypes.c_int()
        self._do("GetNumProfilerEvents", self._profiler, ctypes.byref(count))
        if count.value <= 0:
            return ()
        events = (_Event * count.value)()
        self._do("GetProfilerEvents", self._profiler, count, events)
        return tuple(
            Event(e.kind, e.tag.decode(errors="replace"), e.micros, e.index, e.subgraph)
            for e in events
            if e.kind in (NODE, DELEGATED)
        )

    def _options(self, threads: int, delegate: bool) -> Any:
        options = self._made("CreateOptions")
        self._do("SetOptionsHardwareAccelerators", options, ctypes.c_int(_CPU))
        kernels = "" if delegate else 'kernel_mode = "builtin"\n'
        for name, text in (
            (b"runtime_options_string", "enable_profiling = true\n"),
            (b"xnnpack", f"num_threads = {threads}\n{kernels}"),
        ):
            kept = ctypes.create_string_buffer(text.encode())
            self._kept.append(kept)
            opaque = self._made("CreateOpaqueOptions", name, kept, self._free)
            self._do("AddOpaqueOptions", options, opaque)
        return options

    def _signature_of_first_subgraph(self, file: Any) -> int:
        wanted = self._made("GetModelSubgraph", file, ctypes.c_size_t(0)).value
        for i in range(self._number("GetNumModelSignatures", file)):
            signature = self._made("GetModelSignature", file, ctypes.c_size_t(i))
            if self._made("GetSignatureSubgraph", signature).value == wanted:
                self._subgraph = _Handle(wanted)
                return i
        raise EngineError("no signature of the file runs its first subgraph")

    def _tensors_of(self, kind: str) -> list[Any]:
        count = self._number(f"GetNumSubgraph{kind}s", self._subgraph)
        return [self._made(f"GetSubgraph{kind}", self._subgraph, ctypes.c_size_t(i)) for i in range(count)]

    def _input_layout(self, i: int) -> bytes:
        layout = (ctypes.c_ubyte * _LAYOUT_BYTES)()
        place = ctypes.c_size_t(self._signature), ctypes.c_size_t(i)
        self._do("GetCompiledModelInputTensorLayout", self._compiled, *place, layout)
        return bytes(layout)

    def _buffer(self, kind: str, i: int, layout: bytes) -> Any:
        """A buffer for a tensor whose shape may no longer be the file's."""
        declared = (ctypes.c_ubyte * 256)()
        self._do("GetRankedTensorType", self._tensors[kind][i], declared)
        kept = ctypes.create_string_buffer(bytes(declared[:_ELEMENT_BYTES]) + layout)
        place = ctypes.c_size_t(self._signature), ctypes.c_size_t(i)
        needs = self._made(f"GetCompiledModel{kind}BufferRequirements", self._compiled, *place)
        return self._made("CreateManagedTensorBufferFromRequirements", self._environment, kept, needs)

    @contextmanager
    def _locked(self, buffer: Any, mode: int) -> Iterator[Any]:
        address = _Handle()
        self._do("LockTensorBuffer", buffer, ctypes.byref(address), ctypes.c_int(mode))
        yield address
        self._do("UnlockTensorBuffer", buffer)

    def _do(self, name: str, *arguments: Any) -> None:
        function = getattr(self._library, f"LiteRt{name}", None)
        if function is None:
            raise EngineError(f"this release of ai-edge-litert has no LiteRt{name}")
        status = function(*arguments)
        if status:
            raise EngineError(f"LiteRt{name} answers {status}")

    def _made(self, name: str, *arguments: Any) -> Any:
        handle = _Handle()
        self._do(name, *arguments, ctypes.byref(handle))
        return handle

    def _number(self, name: str, *arguments: Any) -> int:
        number = ctypes.c_size_t()
        self._do(name, *arguments, ctypes.byref(number))
        return number.value


def _library() -> ctypes.CDLL:
    spec = find_spec("ai_edge_litert")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(folder).glob("libLiteRt.*")):
            return ctypes.CDLL(str(path))
    raise EngineError("ai-edge-litert comes without its C library")
