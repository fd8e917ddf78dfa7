"""Runs a compiled model: opens its library and hands the addresses to the compiled call path, or to ctypes."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from hasten.errors import EngineError
from hasten.records import Artefact
from hasten.types import Array, TensorSpec

try:
    from hasten import _call
except ImportError:  # installed without a C compiler: slower, equal answers
    _call = None

__all__ = ["NativeSession", "open_session"]

_LARGE_PAGE = 2 << 20
# Half of a common second-level cache; fewer weights fit there wherever their pages lie.
_MANY_BYTES = 512 << 10


def _specs(specs: Sequence[TensorSpec]) -> tuple[tuple[int, tuple[int, ...]], ...]:
    return tuple((np.dtype(s.dtype).num, s.static_shape) for s in specs)


class NativeSession:
    """A library's run function with its weights.

    ``adopt`` points another ``Call`` (the runtime's model) straight at the library: nothing stands between them.
    """

    thread_safe = True

    def __init__(self, artefact: Artefact) -> None:
        self.inputs, self.outputs = artefact.inputs, artefact.outputs
        path = artefact.path(".so")
        try:
            self._library = ctypes.CDLL(str(path))
            self._library.hasten_weights.restype = ctypes.c_void_p
            self._run = self._library.hasten_run
            weights = self._library.hasten_weights()
        except (OSError, AttributeError) as error:
            raise EngineError(
                f"cannot open compiled model '{path.name}': {error}; build it again on this machine"
            ) from error
        self._run.argtypes, self._run.restype = [ctypes.c_void_p] * 4, None
        address = ctypes.cast(self._run, ctypes.c_void_p).value
        details = artefact.details
        self._memory = _large_pages(weights, int(details.get("weights_bytes", 0)))
        if self._memory is not None:
            weights = _aligned(self._memory)
        threads = artefact.candidate.threads
        part = ctypes.cast(self._library.hasten_part, ctypes.c_void_p).value if threads > 1 else 0
        self._native = (address, weights, int(details["arena_bytes"]), bool(details["release_gil"]), part, threads)
        self.call: Callable[..., Any]
        if _call is None:
            self.call = _CtypesCall(self._run, weights, int(details["arena_bytes"]), self.inputs, self.outputs)
        else:
            self.call = _call.Call()
            self.adopt(self.call, partial(_once_more, self.call))

    def adopt(self, model: Any, slow: Callable[..., Any]) -> None:
        """Makes calls of ``model`` (a ``hasten._call.Call``) run this library; what does not match goes to ``slow``."""
        if _call is None:
            model._set_target(self.call, _specs(self.inputs), slow)
        else:
            kept = (self._library, self._memory)
            model._set_native(*self._native, _specs(self.inputs), _specs(self.outputs), slow, kept)

    def rows(self, inputs: tuple[Array, ...], outputs: tuple[Array, ...], count: int) -> None:
        """Runs ``count`` rows, one after the other, from stacked inputs into stacked outputs.

        Shapes:  every array: (count · dimension 0, …), C-contiguous, of the spec's dtype
        """
        if _call is not None:
            self.call._rows(inputs, outputs, count)  # type: ignore[attr-defined]
            return
        for row in range(count):
            args = (x.reshape(count, -1)[row].reshape(s.static_shape) for x, s in zip(inputs, self.inputs, strict=True))
            result = self.call(*args)
            for y, r in zip(outputs, result if isinstance(result, tuple) else (result,), strict=True):
                y.reshape(count, -1)[row] = r.reshape(-1)

    def bind(self, inputs: tuple[Array, ...], outputs: tuple[Array, ...]) -> Callable[[], None]:
        """A call without arguments that reads ``inputs`` and writes ``outputs`` in place, allocating nothing."""
        if _call is not None:
            bound: Callable[[], None] = self.call._bind(inputs, outputs)  # type: ignore[attr-defined]
            return bound
        call: _CtypesCall = self.call  # type: ignore[assignment]
        return lambda: call.into(inputs, outputs)

    def close(self) -> None:
        """Nothing to free: the library lives as long as the calls that use it."""


def _large_pages(weights: int, count: int) -> mmap.mmap | None:
    """A copy of many weights in large pages, or None where they stay in the library.

    Small pages lie anywhere in physical memory, so that some sets of a cache get more lines than they hold while others
    stay empty: the same weights are then read at 75 to 100 GB/s as luck has it, from a large page always at the best.
    """
    if count < _MANY_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    try:
        room = (-(-count // _LARGE_PAGE) + 1) * _LARGE_PAGE  # one more, to start on a boundary
        memory = mmap.mmap(-1, room, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
    except (OSError, ValueError):  # no memory to spare, or a kernel without large pages
        return None
    ctypes.memmove(_aligned(memory), weights, count)
    return memory


def _aligned(memory: mmap.mmap) -> int:
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return -(-start // _LARGE_PAGE) * _LARGE_PAGE


def _once_more(call: Callable[..., Any], *arrays: Any, **named: Any) -> Any:
    """The answer to memory maps as the plain arrays that they also are; the call takes no subclass."""
    if not named and any(isinstance(a, np.memmap) for a in arrays):
        return call(*(np.asarray(a) for a in arrays))
    raise EngineError("the arrays do not match the compiled model: expected exactly its inputs' dtypes and shapes")


class _CtypesCall:
    """The same call through ctypes, for installs without the compiled extension."""

    def __init__(
        self, run: Any, weights: int, arena_bytes: int, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> None:
        self._run, self._weights, self._bytes = run, weights, arena_bytes
        self._inputs, self._outputs = inputs, outputs

    def __call__(self, *arrays: Array) -> Any:
        made = tuple(np.empty(s.static_shape, s.dtype) for s in self._outputs)
        self.into(arrays, made)
        return made[0] if len(made) == 1 else made

    def into(self, arrays: Sequence[Array], made: Sequence[Array]) -> None:
        arena = np.zeros(self._bytes + 64, np.uint8)  # ctypes releases the GIL: an arena of its own per call
        start = (arena.ctypes.data + 63) // 64 * 64
        pointers = [(ctypes.c_void_p * len(g))(*(a.ctypes.data for a in g)) for g in (arrays, made)]
        self._run(self._weights, start, *pointers)


def open_session(artefact: Artefact) -> NativeSession:
    """The compiled model, ready to answer.

    Raises:  EngineError: the library does not open here
    """
    return NativeSession(artefact)
