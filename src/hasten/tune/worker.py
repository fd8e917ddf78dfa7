"""What runs in a candidate's own process: ``python -m hasten.tune.worker job.json``.

A job file enters; files in the job's folder and one JSON line a message on standard output leave. The parent judges:
nothing here compares answers. Only what a session needs is imported before the first answer, since the time from
process start to there is reported; frameworks that print do so into the log.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hasten.errors import HastenError
from hasten.records import Artefact, Candidate, to_json
from hasten.sessions import Session, open_session
from hasten.tune.arrays import read_groups, write_groups
from hasten.types import Array, TensorSpec

__all__ = ["Channel", "build", "main", "run", "serve", "work"]

Job = Mapping[str, Any]


class Channel:
    """The pipes to the parent: messages out, commands in; the process ends when the parent has gone."""

    def __init__(self) -> None:
        self._out = os.dup(1)
        os.dup2(2, 1)  # what frameworks print goes to the log, not between the messages
        self._commands: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, event: str, **facts: Any) -> None:
        """One message to the parent."""
        os.write(self._out, json.dumps({"event": event, **facts}).encode() + b"\n")

    def stage(self, name: str) -> None:
        """Tells what begins now, which also shows that the process is alive."""
        self.send("stage", stage=name)

    def next_command(self) -> dict[str, Any]:
        """The parent's next command, blocked until it comes."""
        return self._commands.get()

    def _listen(self) -> None:
        text = b""
        while True:  # below Python's own reader, whose lock could not be released at exit
            part = os.read(0, 4096)
            if not part:
                os._exit(3)
            *lines, text = (text + part).split(b"\n")
            for line in lines:
                self._commands.put(json.loads(line))


def main() -> None:
    """The job named on the command line."""
    work(sys.argv[1])


def work(path: str) -> None:
    """Runs the job and leaves without the libraries' exit handlers, some of which crash after all is done."""
    channel, code = Channel(), 0
    try:
        job = json.loads(Path(path).read_text())
        TASKS[job["task"]](job, channel)
        channel.send("done")
    except BaseException as error:  # whatever a library raises, SystemExit included, is this candidate's failure
        traceback.print_exc()
        message = str(error).strip().splitlines() if isinstance(error, HastenError) else _first_line(error)
        channel.send("error", kind=type(error).__name__, message=" ".join(message), ours=isinstance(error, HastenError))
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _first_line(error: BaseException) -> list[str]:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return [f"{type(error).__name__}:", lines[0][:300]] if lines else [type(error).__name__]


def build(job: Job, channel: Channel) -> None:
    """Builds the artefact and writes ``artefact.json`` into its folder."""
    from hasten.engines import BuildRequest  # noqa: PLC0415  (building alone; a run must not pay for it)
    from hasten.tune.candidates import load_engine  # noqa: PLC0415

    channel.stage("building")
    folder = Path(job["folder"])
    request = BuildRequest(
        candidate=Candidate.from_json(job["candidate"]),
        graph=_path(job["graph"]),
        source=Path(job["source"]),
        framework=job["framework"],
        inputs=tuple(map(TensorSpec.from_json, job["inputs"])),
        outputs=tuple(map(TensorSpec.from_json, job["outputs"])),
        folder=folder,
        calibration=_path(job["calibration"]),
        trust=job["trust"],
        schedule=job["schedule"],
    )
    start = time.perf_counter_ns()
    artefact = load_engine(job["engine"]).build(request)
    facts = {"artefact": to_json(artefact), "build_ns": time.perf_counter_ns() - start}
    temporary = folder / "artefact.json.part"
    temporary.write_text(json.dumps(facts))
    temporary.replace(folder / "artefact.json")


def run(job: Job, channel: Channel) -> None:
    """Answers the checks, waits to be told to go on, then times itself and answers some checks again."""
    session, checks, first_ns = _open(job, channel)
    channel.stage("checking")
    _answer(session, checks, job["answers"], job["check_s"], channel)
    if job["labelled"]:
        _answer_rows(session, read_groups(Path(job["labelled"]))[0], Path(job["folder"]) / "labelled.npz", channel)
    channel.send("checked")
    if channel.next_command()["command"] != "measure":
        return
    import numpy as np  # noqa: PLC0415  (these come after the first answer, whose time must not hold them)

    from hasten.measure.sampling import Sampling  # noqa: PLC0415
    from hasten.measure.session import Start, measure  # noqa: PLC0415

    channel.stage("measuring")
    start = Start(first_ns, batch=job["batch"])
    measurement, samples = measure(session.call, checks[0], start, Sampling(**job["sampling"]))
    np.save(Path(job["folder"]) / "samples.npy", samples)
    channel.send("measured", measurement=to_json(measurement))
    channel.stage("checking again")
    _answer(session, checks, job["answers_again"], min(1.0, job["check_s"] or 1.0), channel)


def serve(job: Job, channel: Channel) -> None:
    """Times a block of calls whenever it is told to; blocked between, or stopped where it says that it may be."""
    import numpy as np  # noqa: PLC0415  (with the measuring, after the first answer)

    from hasten.measure.clock import gc_paused, time_calls, timer_overhead_ns  # noqa: PLC0415
    from hasten.measure.sampling import warm_up  # noqa: PLC0415

    stoppable = _dies_with_parent()
    session, checks, _ = _open(job, channel)
    blocks: list[Array] = []
    usual_ns, _ = warm_up(session.call, checks[0], job["warm_up_s"])
    timer_ns = timer_overhead_ns()
    channel.send("ready", usual_ns=usual_ns, stoppable=stoppable)
    while (command := channel.next_command())["command"] == "block":
        with gc_paused():
            # the other leaders have just had the caches, and a team takes two calls to wake: no cost of the model's
            time_calls(session.call, checks[0], int(min(max(2e6 / usual_ns, 3), 30e6 / usual_ns, 500)))
            count = int(min(max(command["seconds"] * 1e9 / usual_ns, 1), 10_000))
            _, durations = time_calls(session.call, checks[0], count)
        blocks.append(np.maximum(durations - timer_ns, 1.0))
        usual_ns = float(np.median(blocks[-1]))  # warming up, it shared the processors with the other leaders
        channel.send("block")
    write_groups(Path(job["answers"]), [blocks])


def _dies_with_parent() -> bool:
    """Whether the system kills this process when its parent ends: a stopped one would not see its pipe close."""
    if sys.platform != "linux":
        return False
    import ctypes  # noqa: PLC0415  (for this alone)
    import signal  # noqa: PLC0415

    parent, set_parent_death_signal = os.getppid(), 1
    held = ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0) == 0
    return held and os.getppid() == parent != 1


TASKS: Mapping[str, Callable[[Job, Channel], None]] = {"build": build, "run": run, "serve": serve}


def _path(value: str | None) -> Path | None:
    return None if value is None else Path(value)


def _open(job: Job, channel: Channel) -> tuple[Session, list[tuple[Array, ...]], float]:
    """The open session, the checks' inputs, and the nanoseconds of the first call."""
    channel.stage("opening")
    start = time.perf_counter_ns()
    checks = read_groups(Path(job["checks"]))
    apart_ns = time.perf_counter_ns() - start
    artefact = Artefact.from_json(job["artefact"])
    session = _opener(job["session"])(artefact)
    start = time.perf_counter_ns()
    session.call(*checks[0])
    end = time.perf_counter_ns()
    # monotonic is one clock for all processes of a machine; the parent knows when it started this one
    channel.send("answered", at_ns=time.monotonic_ns(), apart_ns=apart_ns)
    return session, checks, float(end - start)


def _opener(location: str | None) -> Callable[[Artefact], Session]:
    if location is None:
        return open_session
    import importlib  # noqa: PLC0415  (engines that are not in the shipped table)

    module, _, attribute = location.partition(":")
    opener: Callable[[Artefact], Session] = getattr(importlib.import_module(module), attribute or "open_session")
    return opener


def _answer(
    session: Session, checks: list[tuple[Array, ...]], path: str, cap_s: float | None, channel: Channel
) -> None:
    """Answers to the checks in order, as many as fit into ``cap_s`` (all, where that is None), one at least.

    The arrays are kept as the session gave them until all are there: one that a later call overwrites shows as wrong.
    """
    found: list[tuple[Array, ...]] = []
    begin = told = time.monotonic()
    for arrays in checks:
        answer = session.call(*arrays)
        found.append(tuple(answer) if isinstance(answer, (tuple, list)) else (answer,))
        now = time.monotonic()
        if now - told > 0.5:
            channel.send("alive")
            told = now
        if cap_s is not None and now - begin > cap_s:
            break
    write_groups(Path(path), found)


def _answer_rows(session: Session, inputs: tuple[Array, ...], path: Path, channel: Channel) -> None:
    """Answers to labelled rows, in calls of the session's own batch; the last rows again where they do not fill one."""
    import numpy as np  # noqa: PLC0415  (see run)

    rows, told = len(inputs[0]), time.monotonic()
    size = session.inputs[0].static_shape[0]
    parts: list[tuple[Array, ...]] = []
    for start in range(0, rows, size):
        chosen = np.minimum(np.arange(start, start + size), rows - 1)
        given = [
            np.ascontiguousarray(x[chosen]).reshape(s.static_shape) for x, s in zip(inputs, session.inputs, strict=True)
        ]
        answer = session.call(*given)
        answers = tuple(answer) if isinstance(answer, (tuple, list)) else (answer,)
        parts.append(tuple(a[: rows - start] for a in answers))
        if time.monotonic() - told > 0.5:
            channel.send("alive")
            told = time.monotonic()
    write_groups(path, [tuple(np.concatenate(p) for p in zip(*parts, strict=True))])


if __name__ == "__main__":
    main()
