"""Engines that misbehave on purpose, in the way that ``candidate.option("how")`` names. The model is y = 2x + 1."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hasten.engines import BuildRequest, Offer
from hasten.errors import EngineError, MissingLibraryError, UnsupportedOpError
from hasten.records import Artefact, Candidate

NAME = "deliberate"


class Engine:
    name = NAME

    def missing(self) -> str | None:
        return None

    def candidates(self, offer: Offer) -> Sequence[Candidate]:
        return [Candidate(NAME)]

    def build(self, request: BuildRequest) -> Artefact:
        how = request.candidate.option("how", "")
        with (request.folder / "built").open("a") as file:
            file.write("x")
        if how in BUILD:
            BUILD[how]()
        (request.folder / "model.bin").write_bytes(b"model")
        return Artefact(
            request.candidate,
            request.folder,
            ("model.bin",),
            request.inputs,
            request.outputs,
            portable=True,
            details={"framework": bool(request.candidate.option("call"))},
        )


class SharingEngine(Engine):
    def built_as(self, candidate: Candidate) -> Candidate:
        return Candidate(NAME, candidate.precision, 1, candidate.batch, (("how", "build once"),))


class MissingEngine(Engine):
    def missing(self) -> str | None:
        return "install hasten[deliberate]"


def _raise(error: BaseException):
    raise error


def _segfault() -> None:
    ctypes.string_at(0)


def _eat() -> None:
    held = []
    while True:
        held.append(np.ones(8_000_000, np.uint8))
        time.sleep(0.005)


BUILD = {
    "build crashes": _segfault,
    "build hangs": lambda: time.sleep(1000),
    "build raises": lambda: _raise(ValueError("bad weather\nand more lines")),
    "build eats": _eat,
    "build unsupported": lambda: _raise(UnsupportedOpError("no kernel for 'Frobnicate'")),
    "build lacks library": lambda: _raise(MissingLibraryError("install hasten[deliberate]")),
    "build refuses": lambda: _raise(EngineError("the graph is ugly")),
    "build exits": lambda: os._exit(7),
}


class Session:
    thread_safe = True

    def __init__(self, artefact: Artefact) -> None:
        self.inputs, self.outputs = artefact.inputs, artefact.outputs
        self.how = artefact.candidate.option("how", "")
        self.delay_s = artefact.candidate.option("delay_ms", 0) / 1000
        self.folder = artefact.path(".bin").parent
        self.calls = 0
        self.buffer = np.zeros((1, 3), np.float32)

    def call(self, x):
        self.calls += 1
        y = 2 * x + np.float32(1)
        if self.delay_s:
            time.sleep(self.delay_s)
        return CALLS[self.how](self, y) if self.how in CALLS else y

    def close(self) -> None:
        pass


def _view(session: Session, y):
    session.buffer[...] = y
    return session.buffer


def _with(y, value):
    y = y.copy()
    y[0, 1] = value
    return y


def _grandchild(session: Session, y):
    if session.calls == 1:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], close_fds=False)
    return y


def _print(session: Session, y):
    print("noise on standard output")
    os.write(1, b"{not json}\n")
    return y


def _spin(session: Session, y):
    """Threads that never rest, as those of ONNX Runtime; what they burnt since the last call is written down."""
    now = time.monotonic(), time.process_time()
    if session.calls == 1:
        threading.Thread(target=_never_rest, daemon=True).start()
    else:
        with (session.folder / "waits").open("a") as file:
            file.write(f"{now[0] - session.last[0]} {now[1] - session.last[1]}\n")
    session.last = time.monotonic(), time.process_time()
    return y


def _never_rest() -> None:
    data = bytes(4 << 20)
    while True:
        zlib.crc32(data)  # without the GIL


CALLS = {
    "spin": _spin,
    "segfault": lambda s, y: _segfault(),
    "abort": lambda s, y: os.abort(),
    "killed": lambda s, y: os.kill(os.getpid(), signal.SIGKILL),
    "hang": lambda s, y: time.sleep(1000),
    "hang later": lambda s, y: y if s.calls < 30 else time.sleep(1000),
    "eat": lambda s, y: _eat(),
    "memory error": lambda s, y: _raise(MemoryError("cannot allocate 8 EiB")),
    "exit": lambda s, y: sys.exit(5),
    "raise": lambda s, y: _raise(RuntimeError("kernel failed\nsecond line")),
    "nan": lambda s, y: _with(y, np.nan),
    "inf": lambda s, y: _with(y, np.inf),
    "off": lambda s, y: y * np.float32(1.001),
    "off on large": lambda s, y: np.minimum(y, np.float32(50)),
    "dtype": lambda s, y: y.astype(np.float64),
    "shape": lambda s, y: y[0],
    "extra": lambda s, y: (y, y),
    "none": lambda s, y: (),
    "view": _view,
    "unstable": lambda s, y: y if s.calls < 40 else y + 1,
    "crash when timed": lambda s, y: y if s.calls < 40 else _segfault(),
    "grandchild": _grandchild,
    "print": _print,
    "forked only": lambda s, y: (
        _raise(RuntimeError("not forked")) if "DELIBERATE_PRELOADED_BY" not in os.environ else y
    ),
    "dies when forked": lambda s, y: os.abort() if "DELIBERATE_PRELOADED_BY" in os.environ else y,
}


def open_session(artefact: Artefact) -> Session:
    how = artefact.candidate.option("how", "")
    if how == "open refuses":
        raise EngineError("the file is ugly")
    if how == "open hangs":
        time.sleep(1000)
    assert Path(artefact.path(".bin")).read_bytes() == b"model"
    return Session(artefact)


ENGINE = Engine()
SHARING = SharingEngine()
MISSING = MissingEngine()


class PreloadingEngine(Engine):
    """Its processes are forked from one that holds a module."""

    def preload(self) -> None:
        os.environ["DELIBERATE_PRELOADED_BY"] = str(os.getpid())


class FailingPreload(Engine):
    def preload(self) -> None:
        os._exit(9)


PRELOADING = PreloadingEngine()
FAILING_PRELOAD = FailingPreload()
