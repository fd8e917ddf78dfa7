"""A process that has imported a framework and is forked for each candidate: ``python -m hasten.tune.zygote``.

Every candidate still has a process of its own, but does not import TensorFlow for five seconds first. Only imports
happen before the fork: no tensor, no operation, no thread of ours. The parent hands over each child's three files
through a socket and hears here how the children end, since they are not its own.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time

from hasten.tune.candidates import load_engine
from hasten.tune.worker import work

__all__ = ["main"]


def main() -> None:
    """Imports what the engine's ``preload`` imports, then forks whenever it is told to, until the socket closes."""
    location, number = sys.argv[1], int(sys.argv[2])
    channel = socket.socket(fileno=number)
    load_engine(location).preload()  # type: ignore[attr-defined]  # optional; the parent has looked
    _tell(channel, ready_ns=time.monotonic_ns())
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    while True:
        ready, _, _ = select.select([channel.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 512)
            _report_ended(channel)
        if channel.fileno() in ready:
            text, files, _, _ = socket.recv_fds(channel, 65536, 3)
            if not text:
                os._exit(0)
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for number in (channel.fileno(), woken, wake):
                    os.close(number)
                _become(json.loads(text)["job"], files)
            for number in files:
                os.close(number)
            _tell(channel, pid=pid)


def _become(job: str, files: list[int]) -> None:
    os.setsid()
    for target, number in enumerate(files):
        os.dup2(number, target)
        os.close(number)
    work(job)


def _report_ended(channel: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _tell(channel, ended=pid, code=os.waitstatus_to_exitcode(status))


def _tell(channel: socket.socket, **facts: int) -> None:
    channel.sendall(json.dumps(facts).encode() + b"\n")


if __name__ == "__main__":
    main()
