"""``with hasten.watch():`` counts what slows a loop down while it runs, and names the lines of the user's own code.

Retraces of ``tf.function`` and ``torch.compile``, arrays turned into tensors and back, Keras' ``predict``, garbage
collections and their pauses, memory blocks. Only frameworks already imported are watched; none is imported here.
"""

from __future__ import annotations

import functools
import gc
import sys
import sysconfig
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, TextIO

__all__ = ["Watched", "watch"]

_ADVICE = {
    "retrace": "tf.function or torch.compile traced again: pass tensors of one shape, or give an input_signature",
    "to tensor": "arrays became tensors: make them once, outside the loop",
    "from tensor": "tensors became numbers or arrays: convert once, after the loop",
    "predict": "Keras' predict prepares a pipeline at each call: call the model, or hasten.compile(model)",
}
_READ_BY_PYTHON = ("__float__", "__int__", "__bool__", "__index__", "__complex__", "__array__")
_LIBRARIES = tuple({str(Path(sysconfig.get_path(name)).resolve()) for name in ("purelib", "platlib", "stdlib")})
_OURS = str(Path(__file__).resolve())
_Change = tuple[Any, str, Callable[[Any], Any]]
"""An owner, the name of an attribute of it, and what to make of that one."""


@dataclass
class Watched:
    """What happened between entering and leaving ``watch``.

    Units:   seconds, gc_pause_s: seconds; blocks: Python's allocated memory blocks, after minus before
    """

    events: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(what, "file:line") → times. What: retrace, to tensor, from tensor, predict."""
    seconds: float = 0.0
    gc_collections: int = 0
    gc_pause_s: float = 0.0
    gc_events: Counter[str] = field(default_factory=Counter)
    """"file:line" → collections that began there: the allocation that was one too many."""
    blocks: int = 0
    allocations: list[tuple[str, int]] = field(default_factory=list)
    """("file:line", bytes) of the largest growth; only with ``allocations=True``."""

    def count(self, what: str) -> int:
        """How often something happened, over all lines."""
        return sum(n for (kind, _), n in self.events.items() if kind == what)

    def lines(self, what: str) -> list[tuple[str, int]]:
        """The lines where it happened, most frequent first."""
        found = [(place, n) for (kind, place), n in self.events.items() if kind == what]
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))

    def __str__(self) -> str:
        text = [f"watched {self.seconds:.3f} s"]
        for what, advice in _ADVICE.items():
            if self.count(what):
                text.append(f"{self.count(what):8} {what}: {advice}")
                text += [f"{n:12} at {place}" for place, n in self.lines(what)[:5]]
        if self.gc_collections:
            text.append(f"{self.gc_collections:8} garbage collections, {self.gc_pause_s * 1e3:.1f} ms of pauses")
            text += [f"{n:12} at {place}" for place, n in self.gc_events.most_common(3)]
        text.append(f"{abs(self.blocks):8} {'fewer' if self.blocks < 0 else 'more'} memory blocks than before")
        if self.blocks > 1000 and not self.allocations:
            text[-1] += ": watch(allocations=True) names the lines"
        text += [f"{size / 1024:9.1f} KiB grown at {place}" for place, size in self.allocations]
        return "\n".join(text)


@contextmanager
def watch(*, allocations: bool = False, file: TextIO | None = None) -> Iterator[Watched]:
    """Counts retraces, conversions, predictions, collections and allocations in the block, and prints them at its end.

    ``allocations`` also names the lines whose memory grew (tracemalloc: several times slower). ``file`` takes the
    summary in place of standard error. The block's own exceptions pass through; the summary is printed all the same.
    """
    seen = Watched()
    with ExitStack() as stack:
        if allocations:
            stack.enter_context(_growth(seen))  # (its snapshots set off collections of their own: they don't count)
        stack.enter_context(_WATCHING.told_to(seen))
        stack.enter_context(_collections(seen))
        blocks, start = sys.getallocatedblocks(), time.perf_counter()
        try:
            yield seen
        finally:
            seen.seconds = time.perf_counter() - start
            seen.blocks = sys.getallocatedblocks() - blocks
    print(seen, file=file or sys.stderr)


class _Depth(threading.local):
    """How many counted calls a thread is in: each thread of a server counts its own."""

    depth = 0
    tracing = 0


class _Recorder:
    """Counts events by the user's line; conversions inside a ``predict`` or a trace are its own affair.

    Frameworks are patched for all blocks that are watched at a time, of whatever thread: blocks that overlap, and end
    in the order they began, could not each put back what they found.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()  # (a look at a framework may import parts of it, which convert)
        self.told: list[Watched] = []
        self.patched: dict[tuple[int, str], ExitStack] = {}
        self.at = _Depth()

    @contextmanager
    def told_to(self, seen: Watched) -> Iterator[None]:
        """Tells ``seen`` of every event until the end of the block; the last block puts the frameworks back."""
        with self.lock:
            self.told.append(seen)
            for owner, name, change in _patches(self):  # those imported since the block before, too
                if (id(owner), name) not in self.patched:
                    patch = self.patched[id(owner), name] = ExitStack()
                    patch.enter_context(_replaced(owner, name, change))
        try:
            yield
        finally:
            with self.lock:
                self.told = [other for other in self.told if other is not seen]
                while not self.told and self.patched:
                    self.patched.popitem()[1].close()

    def note(self, what: str, place: str) -> None:
        """One more, for every block that is watched."""
        with self.lock:
            for seen in self.told:
                seen.events[what, place] += 1

    def wrap(self, what: str, function: Callable[..., Any], counts: Callable[[Any], bool] | None = None) -> Any:
        @functools.wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            at = self.at
            outermost = at.tracing == 0 if what == "retrace" else at.depth == 0
            if outermost and (counts is None or counts(args[0] if args else None)):
                self.note(what, _place())
            at.depth += 1
            at.tracing += what == "retrace"
            try:
                return function(*args, **kwargs)
            finally:
                at.depth -= 1
                at.tracing -= what == "retrace"

        return counted


def _place() -> str:
    """The innermost line that is not of a library; the thread, where a pool runs a library's function."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if not _is_library(frame):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return f"thread {threading.current_thread().name!r}, which runs no line of yours"


def _is_library(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    if name.startswith("<"):  # code that a library wrote, unless it was typed or piped in
        return frame.f_globals.get("__name__") != "__main__"
    return name == _OURS or name.startswith(_LIBRARIES)


def _patches(recorder: _Recorder) -> Iterator[_Change]:
    tensorflow, keras, torch = (sys.modules.get(name) for name in ("tensorflow", "keras", "torch"))
    if tensorflow is not None:
        yield from _tensorflow(recorder, tensorflow)
    if keras is not None and hasattr(keras, "Model"):
        yield keras.Model, "predict", lambda f: recorder.wrap("predict", f)
        yield keras.Model, "predict_on_batch", lambda f: recorder.wrap("predict", f)
    if torch is not None and hasattr(torch, "Tensor"):
        yield from _torch(recorder, torch)


def _tensorflow(recorder: _Recorder, tensorflow: ModuleType) -> Iterator[_Change]:
    plain = (list, tuple, int, float, complex, str, bytes)

    def is_new(value: Any) -> bool:
        """Arrays wherever they are converted; Python's own values where the user's line converts them."""
        own = isinstance(value, plain) and not _is_library(sys._getframe(2))
        array = type(value).__module__ == "numpy"
        return (own or array) and bool(tensorflow.executing_eagerly())

    for name in ("convert_to_tensor", "constant"):
        yield tensorflow, name, lambda f: recorder.wrap("to tensor", f, is_new)
    graphs = sys.modules.get("tensorflow.python.framework.func_graph")
    if graphs is not None:
        yield graphs, "func_graph_from_py_func", lambda f: recorder.wrap("retrace", f)
    ops = sys.modules.get("tensorflow.python.framework.ops")
    eager = getattr(ops, "_EagerTensorBase", None)
    if eager is not None:
        for name in ("numpy", *_READ_BY_PYTHON):
            yield eager, name, lambda f: recorder.wrap("from tensor", f)


def _torch(recorder: _Recorder, torch: ModuleType) -> Iterator[_Change]:
    is_compiling = torch.compiler.is_compiling

    def uncompiled(function: Callable[..., Any], what: str, counts: Callable[[Any], bool] | None = None) -> Any:
        """What `torch.compile` sees is the function itself: our counting would make it compile at every call."""
        counted = recorder.wrap(what, function, counts)

        @functools.wraps(function)
        def either(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs) if is_compiling() else counted(*args, **kwargs)

        return either

    for name in ("tensor", "as_tensor", "from_numpy"):
        yield torch, name, lambda f: uncompiled(f, "to tensor", lambda v: not isinstance(v, torch.Tensor))
    for name in ("item", "tolist", "numpy", "cpu", *_READ_BY_PYTHON):
        yield torch.Tensor, name, lambda f: uncompiled(f, "from tensor")
    dynamo = sys.modules.get("torch._dynamo.convert_frame")
    if dynamo is not None and hasattr(dynamo, "_compile"):
        yield dynamo, "_compile", lambda f: recorder.wrap("retrace", f)


@contextmanager
def _replaced(owner: Any, name: str, change: Callable[[Any], Any]) -> Iterator[None]:
    """An attribute changed for the time of the block; an inherited one is inherited again afterwards."""
    original = getattr(owner, name, None)
    if original is None:
        yield
        return
    own = name in vars(owner)
    setattr(owner, name, change(original))
    try:
        yield
    finally:
        if own:
            setattr(owner, name, original)
        else:
            delattr(owner, name)


_WATCHING = _Recorder()


@contextmanager
def _collections(seen: Watched) -> Iterator[None]:
    begun = 0.0

    def noted(phase: str, info: dict[str, int]) -> None:
        nonlocal begun
        if phase == "start":
            begun = time.perf_counter()
        else:
            seen.gc_collections += 1
            seen.gc_events[_place()] += 1
            seen.gc_pause_s += time.perf_counter() - begun

    gc.callbacks.append(noted)
    try:
        yield
    finally:
        gc.callbacks.remove(noted)


@contextmanager
def _growth(seen: Watched) -> Iterator[None]:
    started = not tracemalloc.is_tracing()
    if started:
        tracemalloc.start()
    before = tracemalloc.take_snapshot()
    try:
        yield
    finally:
        grown = tracemalloc.take_snapshot().compare_to(before, "lineno")
        if started:
            tracemalloc.stop()
        lines = [(f"{g.traceback[0].filename}:{g.traceback[0].lineno}", g.size_diff) for g in grown]
        mine = [(place, size) for place, size in lines if size > 0 and not place.startswith((_OURS, "<", *_LIBRARIES))]
        seen.allocations = mine[:5]
