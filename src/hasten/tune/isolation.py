"""One process for one job: started, listened to, watched for time and memory, and ended with all its children.

Whatever happens in there arrives as a message or as a ``ChildFailed`` with a reason of one line. The parent blocks on
the pipe; it wakes four times a second to look at the child's memory, and does nothing else while something is timed.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from hasten.records import Status, to_json
from hasten.tune.processes import Start, spawn

__all__ = ["Child", "ChildFailed", "FellSilent"]

_LOOK_S = 0.25
_SKIPPED = ("UnsupportedOpError", "MissingLibraryError")


class ChildFailed(Exception):
    """A candidate's process did not do its job; ``str`` is the reason, one line."""

    def __init__(self, reason: str, status: Status = "failed", abrupt: bool = False) -> None:
        super().__init__(reason)
        self.status: Status = status
        self.abrupt = abrupt
        """It died or fell silent, rather than saying what was wrong."""


class FellSilent(ChildFailed):
    """It said nothing for as long as it was waited for."""

    def __init__(self, stage: str, waited_s: float) -> None:
        super().__init__(f"hung while {stage}: no answer within {waited_s:.0f} s", abrupt=True)
        self.stage, self.waited_s = stage, waited_s


class Child:
    """A worker process; a context manager, at whose end the process and its children are gone.

    Units:   memory_bytes: resident bytes that it may reach
    """

    def __init__(self, job: Mapping[str, Any], folder: Path, memory_bytes: int, start: Start = spawn) -> None:
        self._memory_bytes = memory_bytes
        self._with_children = job["task"] == "build"
        self.stage = "starting"
        name = folder / f"{job['task']}.json"
        name.write_text(json.dumps(to_json(job)))
        self._process = start(name, folder / "log.txt")
        self.started_ns, self.forked = self._process.started_ns, self._process.forked
        self._messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _read(self) -> None:
        for line in self._process.stdout:
            try:
                self._messages.put(json.loads(line))
            except ValueError:
                continue  # a library that writes to descriptor 1 behind Python's back, before it was moved
        self._messages.put(None)

    def send(self, command: str, **facts: Any) -> None:
        """A command to the worker; nothing happens where it has ended already, ``next_message`` tells why."""
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps({"command": command, **facts}).encode() + b"\n")
            self._process.stdin.flush()

    def next_message(self, timeout_s: float) -> dict[str, Any]:
        """The worker's next message.

        Raises:  ChildFailed: it reported an error, died or took too much memory; FellSilent: nothing in ``timeout_s``
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                message = self._messages.get(timeout=max(0.0, min(_LOOK_S, deadline - time.monotonic())))
            except queue.Empty:
                self._look(timeout_s, late=time.monotonic() >= deadline)
                continue
            if message is None:
                raise ChildFailed(self._death(), abrupt=True)
            if message["event"] == "error":
                raise _reported(message)
            if message["event"] == "stage":
                self.stage = message["stage"]
            return message

    def _look(self, timeout_s: float, late: bool) -> None:
        resident = self._resident_bytes()
        if resident > self._memory_bytes:
            self.end()
            held, cap = resident / 2**30, self._memory_bytes / 2**30
            raise ChildFailed(f"out of memory while {self.stage}: held {held:.2f} GiB, cap {cap:.2f} GiB")
        if late:
            self.end()
            raise FellSilent(self.stage, timeout_s)

    def _resident_bytes(self) -> int:
        try:
            process = psutil.Process(self._process.pid)
            family = [process, *process.children(recursive=True)] if self._with_children else [process]
            return sum(int(p.memory_info().rss) for p in family)
        except psutil.Error:
            return 0  # it has just ended: the pipe will say so

    def _death(self) -> str:
        code = self._process.wait()
        if code >= 0:
            return f"ended with exit code {code} while {self.stage}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        if name == "SIGKILL":
            return f"killed while {self.stage}: SIGKILL (did the system run out of memory?)"
        return f"crashed while {self.stage}: {name}"

    def pause(self) -> None:
        """Stops all of its threads where they are. Only for a process that dies with its parent: see ``serve``."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it go on after ``pause``."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        """Kills what is left of the process and of the children in its session; any thread may, at any time."""
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        else:
            with contextlib.suppress(psutil.Error):
                psutil.Process(self._process.pid).kill()

    def end(self) -> None:
        """Kills what is left and waits for its end."""
        self.kill()
        self._process.wait()
        self._reader.join(timeout=2)
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        if not self._reader.is_alive():  # a stray grandchild may still hold the pipe; closing would wait for it
            self._process.stdout.close()


def _reported(message: Mapping[str, Any]) -> ChildFailed:
    kind, text = message["kind"], message["message"]
    if kind == "MemoryError":
        return ChildFailed(f"out of memory: {text}")
    return ChildFailed(text, "skipped" if kind in _SKIPPED else "failed")
