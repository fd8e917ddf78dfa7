"""Ctrl-C and SIGKILL at many moments of a real run: one line, code 130, nothing left; and what was measured is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import psutil
import pytest
import typer

import small_onnx
from hasten.cli.interrupts import interruptible
from hasten.cli.progress import Watch
from hasten.errors import BundleError, SourceError
from hasten.tune.plan import Event

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    home = {name: str(tmp_path / name.lower()) for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TMPDIR")}
    for folder in home.values():
        Path(folder).mkdir()
    model = small_onnx.dense(tmp_path / "dense.onnx")

    def begun(*options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "hasten.cli", "optimize", str(model), "--quick", "--no-report", *options]
        command += ["--engine", "onnxruntime", "-o", str(tmp_path / "out" / "m.hasten")]
        (tmp_path / "out").mkdir(exist_ok=True)
        env = {**os.environ, **home}
        return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    return begun


def until(process: subprocess.Popen[str], word: str) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if word in line:
            return line
    pytest.fail(f"the run ended before it said {word!r}")


@pytest.mark.parametrize("stage", ["reading the model", "rewriting the graph", "asking the model itself", "["])
@pytest.mark.parametrize("after_s", [0.0, 0.3])
def test_ctrl_c_leaves_no_process_and_nothing_half_written(
    start: Start, tmp_path: Path, stage: str, after_s: float
) -> None:
    process = start("--fresh")
    until(process, stage)
    time.sleep(after_s)
    begun = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    told, code = process.communicate(timeout=120)[1], process.returncode
    assert code == 130, told
    assert "Traceback" not in told
    assert told.splitlines()[-1].startswith("hasten: interrupted")
    assert psutil.wait_procs(begun, timeout=30)[1] == []
    written = [path.name for path in (tmp_path / "out").iterdir()]
    assert written == (["m.hasten"] if "the best so far is in" in told else [])
    assert not [path.name for path in (tmp_path / "tmpdir").iterdir() if path.name.startswith("hasten")]


@pytest.mark.parametrize("after_s", [0.1, 0.6, 1.4])
def test_what_was_measured_before_a_kill_is_not_measured_again(start: Start, tmp_path: Path, after_s: float) -> None:
    first = start()
    told = until(first, "✓ [")
    time.sleep(after_s)
    begun = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    told += first.communicate()[1]
    assert psutil.wait_procs(begun, timeout=30)[1] == []
    assert not list((tmp_path / "out").glob("*.part"))
    again = start()
    resumed = again.communicate(timeout=120)[1]
    assert again.returncode == 0, resumed
    assert resumed.count("earlier run") >= told.count("✓ [") > 0
    assert (tmp_path / "out" / "m.hasten").is_file()


def test_an_error_that_ctrl_c_became_is_told_as_the_interruption(capsys: pytest.CaptureFixture[str]) -> None:
    def raising(error: Exception, *, pressed: bool) -> Callable[..., None]:
        def command() -> None:
            try:
                if pressed:
                    signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                pass
            raise error

        return interruptible(command)

    before = signal.getsignal(signal.SIGINT)
    for swallowed in (ImportError("half imported"), SourceError("cannot read it")):
        with pytest.raises(typer.Exit) as ended:
            raising(swallowed, pressed=True)()
        assert ended.value.exit_code == 130
        assert capsys.readouterr().err == "hasten: interrupted\n"
        with pytest.raises(type(swallowed)):
            raising(swallowed, pressed=False)()
    with pytest.raises(BundleError):  # the best so far could not be written: that must be said
        raising(BundleError("disk full"), pressed=True)()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("first", "ends"), [("step", True), ("stage", False)])
def test_ctrl_c_that_a_library_swallowed_ends_the_run_until_there_is_a_search(
    first: str, ends: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        watch = Watch(quiet=True)
        watch(Event(first, 0, 0))
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        watch(Event("step", 0, 0))
        print("went on")

    with pytest.raises(typer.Exit) if ends else nullcontext():
        interruptible(command)()
    assert capsys.readouterr().out == ("" if ends else "went on\n")


@pytest.mark.parametrize(
    "body",
    [
        'exec("raise KeyboardInterrupt")',  # where a dataclass is being made
        "raise KeyboardInterrupt",
        "kept = Complains(); os.kill(os.getpid(), signal.SIGINT)",
    ],
)
def test_ctrl_c_outside_any_command_ends_the_program_as_inside(tmp_path: Path, body: str) -> None:
    (tmp_path / "program.py").write_text(
        "import os, signal\n"
        "from hasten.cli.interrupts import ending_at_once\n"
        "class Complains:\n    def __del__(self): raise ValueError\n"
        f"def work():\n    {body}\n"
        "with ending_at_once():\n    work()\n"
    )
    ended = subprocess.run([sys.executable, "-m", "program"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (130, "hasten: interrupted\n")


@pytest.mark.parametrize("first", ["functools", "threading", "hasten.errors", "hasten.cli.interrupts"])
def test_ctrl_c_before_it_is_listened_for_ends_the_program_with_one_line(first: str) -> None:
    """As the installed script does it, in an interpreter that has imported nothing yet."""
    program = (
        "import builtins, sys\n"
        "plain = builtins.__import__\n"
        "def interrupted(name, *more):\n"
        f"    if name == {first!r}: raise KeyboardInterrupt\n"
        "    return plain(name, *more)\n"
        "builtins.__import__ = interrupted\n"
        "from hasten.cli import main\n"
        "sys.argv = ['hasten', 'engines']\n"
        "main()\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "hasten: interrupted\n")


@pytest.mark.parametrize("swallowed", ["pass", "raise"])
def test_ctrl_c_while_the_command_line_is_imported_ends_it_with_one_line(swallowed: str) -> None:
    program = (
        "import os, signal, sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name != 'typer': return None\n"
        "        try: os.kill(os.getpid(), signal.SIGINT)\n"
        f"        except KeyboardInterrupt:\n            {swallowed}\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from hasten.cli import main\n"
        "sys.argv = ['hasten', 'engines']\n"
        "main()\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "hasten: interrupted\n")


def test_commands_run_in_other_threads_too() -> None:
    seen: list[str] = []
    thread = threading.Thread(target=interruptible(lambda: seen.append("ran")))
    thread.start()
    thread.join()
    assert seen == ["ran"]
