"""How a worker's process comes to be: spawned afresh, or forked from a zygote that has imported its framework."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from hasten.tune.candidates import load_engine

__all__ = ["Process", "Start", "WarmPool", "spawn"]


class Process(Protocol):
    """A worker's process in a session of its own.

    Units:   started_ns: of the monotonic clock; for a forked one moved back by what the zygote's imports took
    """

    pid: int
    stdin: BinaryIO
    stdout: BinaryIO
    started_ns: int
    forked: bool

    def wait(self) -> int:
        """The exit code, negative for a signal; blocks until the process has ended."""


Start = Callable[[Path, Path], Process]
"""A job file and a log file enter; the process that works on the job leaves."""


class _Spawned:
    forked = False

    def __init__(self, job: Path, log: Path) -> None:
        command = [sys.executable, "-X", "faulthandler", "-m", "hasten.tune.worker", str(job)]
        with log.open("ab") as file:
            self.started_ns = time.monotonic_ns()
            self._popen = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, start_new_session=True
            )
        assert self._popen.stdin is not None and self._popen.stdout is not None
        self.pid: int = self._popen.pid
        self.stdin: BinaryIO = self._popen.stdin  # type: ignore[assignment]
        self.stdout: BinaryIO = self._popen.stdout  # type: ignore[assignment]

    def wait(self) -> int:
        return self._popen.wait()


def spawn(job: Path, log: Path) -> Process:
    """A fresh interpreter."""
    return _Spawned(job, log)


class _Forked:
    forked = True

    def __init__(self, pid: int, pipes: tuple[int, int], started_ns: int, wait: Callable[[], int]) -> None:
        self.pid, self.started_ns = pid, started_ns
        self.stdin: BinaryIO = os.fdopen(pipes[0], "wb")
        self.stdout: BinaryIO = os.fdopen(pipes[1], "rb")
        self._wait = wait
        self._code: int | None = None

    def wait(self) -> int:
        if self._code is None:
            self._code = self._wait()  # the zygote tells it once
        return self._code


class _Zygote:
    """One framework's zygote; forks on demand."""

    def __init__(self, location: str, log: Path, timeout_s: float) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-X", "faulthandler", "-m", "hasten.tune.zygote", location, str(theirs.fileno())]
        self._begin_ns, self._timeout_s = time.monotonic_ns(), timeout_s
        with theirs, log.open("ab") as file:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                pass_fds=[theirs.fileno()],
            )
        self._socket = ours
        self._heard: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._ended: dict[int, queue.SimpleQueue[int]] = {}
        self._turn = threading.Lock()
        self._imports_ns: int | None = None
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError), self._socket.makefile("rb") as lines:
            for line in lines:
                facts = json.loads(line)
                if "ended" in facts:
                    self._ended.setdefault(facts["ended"], queue.SimpleQueue()).put(facts["code"])
                else:
                    self._heard.put(facts)
        self._heard.put({})

    def _next(self, timeout_s: float) -> dict[str, Any]:
        try:
            facts = self._heard.get(timeout=timeout_s)
        except queue.Empty:
            facts = {}
        if not facts:
            self.close()
            raise OSError("the zygote has ended or hangs")
        return facts

    def start(self, job: Path, log: Path) -> Process:
        """A fork that works on the job.

        Raises:  OSError: the zygote has ended
        """
        with self._turn:
            return self._fork(job, log, self._ready())

    def _ready(self) -> int:
        """Nanoseconds that the imports took, waited for the first time."""
        if self._imports_ns is None:
            self._imports_ns = int(self._next(self._timeout_s)["ready_ns"]) - self._begin_ns
        return self._imports_ns

    def _fork(self, job: Path, log: Path, imports_ns: int) -> Process:
        child_in, our_in = os.pipe()
        our_out, child_out = os.pipe()
        with log.open("ab") as file:
            begin = time.monotonic_ns()
            try:
                text = json.dumps({"job": str(job)}).encode()
                socket.send_fds(self._socket, [text], [child_in, child_out, file.fileno()])
                pid = int(self._next(10.0)["pid"])
            except OSError:
                os.close(our_in)
                os.close(our_out)
                raise
            finally:
                os.close(child_in)
                os.close(child_out)
        return _Forked(pid, (our_in, our_out), begin - imports_ns, lambda: self._wait(pid))

    def _wait(self, pid: int) -> int:
        try:
            return self._ended.setdefault(pid, queue.SimpleQueue()).get(timeout=5.0)
        except queue.Empty:
            return -signal.SIGKILL

    def close(self) -> None:
        """Ends the zygote; its forks end by themselves when their pipes close."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()


class WarmPool:
    """A zygote for each engine that has ``preload``; a context manager, at whose end they are gone.

    Where there is no fork (Windows), where it is unsafe beside the system's libraries (macOS), or where the imports
    fail, processes are spawned.
    """

    def __init__(self, folder: Path, timeout_s: float) -> None:
        self._folder, self._timeout_s = folder, timeout_s
        self._zygotes: dict[str, _Zygote | None] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> WarmPool:
        return self

    def __exit__(self, *_: object) -> None:
        for zygote in self._zygotes.values():
            if zygote is not None:
                zygote.close()

    def begin(self, location: str) -> None:
        """Begins to import the framework of the engine at ``location``, where that has not begun yet."""
        with self._lock:
            if location in self._zygotes:
                return
            self._zygotes[location] = None
            if sys.platform == "linux" and hasattr(load_engine(location), "preload"):
                with contextlib.suppress(OSError):
                    self._zygotes[location] = _Zygote(location, self._folder / "zygote.txt", self._timeout_s)

    def starter(self, location: str) -> Start:
        """How to start a process for the engine at ``location``; the first one waits for the framework's import."""
        self.begin(location)
        zygote = self._zygotes[location]
        if zygote is None:
            return spawn

        def start(job: Path, log: Path) -> Process:
            try:
                return zygote.start(job, log)
            except (OSError, KeyError):
                self._zygotes[location] = None
                return spawn(job, log)

        return start
