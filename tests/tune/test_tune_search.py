from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from tune_plans import LIMITS, deliberate, make_plan

from hasten.engines import Offer
from hasten.errors import SettingsError
from hasten.records import Candidate, Trial
from hasten.tune.arrays import read_groups
from hasten.tune.builds import Builds
from hasten.tune.candidates import gather
from hasten.tune.plan import Event, Plan, record_checks
from hasten.tune.processes import WarmPool, _Forked
from hasten.tune.search import search, try_order
from hasten.tune.store import Store, raw_samples
from hasten.tune.trial import Attempt, attempt
from hasten.verify import Tolerance

# how it misbehaves → status, and what its reason must say
FATES = {
    "": ("ok", None),
    "print": ("ok", None),
    "grandchild": ("ok", None),
    "segfault": ("failed", "crashed while opening: SIGSEGV"),
    "abort": ("failed", "crashed while opening: SIGABRT"),
    "killed": ("failed", "SIGKILL"),
    "hang": ("failed", "hung while opening"),
    "hang later": ("failed", "hung while measuring"),
    "crash when timed": ("failed", "crashed while measuring: SIGSEGV"),
    "eat": ("failed", "out of memory while opening"),
    "memory error": ("failed", "out of memory: MemoryError: cannot allocate 8 EiB"),
    "exit": ("failed", "SystemExit: 5"),
    "raise": ("failed", "RuntimeError: kernel failed"),
    "open refuses": ("failed", "the file is ugly"),
    "open hangs": ("failed", "hung while opening"),
    "build crashes": ("failed", "crashed while building: SIGSEGV"),
    "build hangs": ("failed", "hung while building"),
    "build raises": ("failed", "ValueError: bad weather"),
    "build eats": ("failed", "out of memory while building"),
    "build refuses": ("failed", "the graph is ugly"),
    "build exits": ("failed", "exit code 7 while building"),
    "build unsupported": ("skipped", "no kernel for 'Frobnicate'"),
    "build lacks library": ("skipped", "install hasten[deliberate]"),
    "nan": ("wrong", "expected no NaN"),
    "inf": ("wrong", "expected no +Inf"),
    "off": ("wrong", "allowed"),
    "off on large": ("wrong", "check 'large'"),
    "dtype": ("wrong", "expected dtype float32, received float64"),
    "shape": ("wrong", "expected shape (1, 3), received (3,)"),
    "extra": ("wrong", "expected 1 outputs, received 2"),
    "none": ("wrong", "expected 1 outputs, received 0"),
    "view": ("wrong", "allowed"),
    "unstable": ("unstable", "answers changed in the course of many calls"),
}


def offspring() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


@pytest.fixture(scope="module")
def searched(tmp_path_factory) -> tuple[Plan, dict[str, Trial], list[Event]]:
    """One search over every misbehaviour."""
    plan = make_plan(tmp_path_factory.mktemp("search"), tuple(deliberate(how) for how in FATES))
    events: list[Event] = []
    trials = search(plan, events.append)
    return plan, dict(zip(FATES, trials, strict=True)), events


@pytest.mark.parametrize("how", FATES)
def test_misbehaviour_costs_its_candidate_alone(how: str, searched) -> None:
    _, trials, _ = searched
    status, reason = FATES[how]
    trial = trials[how]
    assert trial.status == status, trial.reason
    if reason is None:
        assert trial.reason is None
    else:
        assert reason in trial.reason and "\n" not in trial.reason
    if status == "failed":
        assert f"log: {trial.log}" in trial.reason and Path(trial.log).is_file()


def test_what_runs_right_is_measured_whole(searched) -> None:
    _, trials, _ = searched
    trial = trials[""]
    found = trial.measurement
    assert trial.comparison.passed and trial.comparison.checked == 9 and trial.build_ns > 0
    assert found.samples == len(raw_samples(trial)) and found.p99_ns is not None
    assert found.cold_start_ns > found.first_ns > 0
    assert found.peak_bytes >= found.resident_bytes > 1 << 20
    assert trials["off"].measurement is None
    assert 5e-4 < trials["off"].comparison.max_rel_error < 2e-3


def test_crash_log_names_the_place(searched) -> None:
    _, trials, _ = searched
    assert "Segmentation fault" in Path(trials["segfault"].log).read_text()
    assert "noise on standard output" in Path(trials["print"].log).read_text()
    assert "bad weather\nand more lines" in Path(trials["build raises"].log).read_text()


def test_no_process_outlives_the_search(searched) -> None:
    assert offspring() == []
    strays = [
        p for p in psutil.process_iter(["cmdline"]) if "import time; time.sleep(1000)" in (p.info["cmdline"] or [])
    ]
    assert strays == []


def test_events_tell_the_progress(searched) -> None:
    plan, _, events = searched
    finished = [e for e in events if e.kind == "finished"]
    assert [e.done for e in finished] == list(range(1, len(plan.candidates) + 1))
    stages = [e.stage for e in events if e.candidate == deliberate() and e.kind == "stage"]
    assert list(dict.fromkeys(stages)) == ["building", "opening", "checking", "measuring", "checking again"]


def test_second_search_resumes_everything(searched) -> None:
    plan, trials, _ = searched
    events: list[Event] = []
    again = search(plan, events.append)
    assert again == tuple(trials.values())
    assert {e.kind for e in events} == {"resumed"}


def test_settings_that_matter_start_anew(searched) -> None:
    plan, _, _ = searched
    here = Store(plan).folder
    assert Store(replace(plan, limits=replace(plan.limits, budget_s=1.0))).folder == here
    for change in (
        {"fingerprint": "another"},
        {"limits": replace(plan.limits, measure_s=0.5)},
        {"computes_in": "int8"},
        {"checks": {}},
    ):
        assert Store(replace(plan, **change)).folder != here


def test_damaged_or_incomplete_trials_are_measured_again(plan_of) -> None:
    plan = plan_of(deliberate())
    (trial,) = search(plan)
    store = Store(plan)
    path = store.trial_folder(deliberate()) / "trial.json"
    whole = path.read_text()
    assert store.load(deliberate()) == trial
    path.write_text(whole[: len(whole) // 2])
    assert store.load(deliberate()) is None
    path.write_text(whole)
    Path(trial.measurement.raw).write_bytes(b"")
    assert store.load(deliberate()) is None
    assert search(plan)[0].status == "ok" and store.load(deliberate()) is not None


def test_an_interruption_keeps_what_was_finished(plan_of) -> None:
    plan = plan_of(deliberate(), deliberate(n=2), deliberate(n=3))
    events: list[Event] = []

    def stop_in_the_second(event: Event) -> None:
        events.append(event)
        if event.candidate == deliberate(n=2) and event.stage == "measuring":
            raise KeyboardInterrupt

    first, *rest = search(plan, stop_in_the_second)
    assert first.status == "ok"
    assert [t.status for t in rest] == ["skipped"] * 2 and "interrupted" in rest[0].reason
    assert events[-1].kind == "interrupted" and offspring() == []
    resumed = []
    assert [t.status for t in search(plan, resumed.append)] == ["ok"] * 3
    assert [e.candidate for e in resumed if e.kind == "resumed"] == [deliberate()]


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from tune_plans import deliberate, make_plan
from hasten.tune import store
from hasten.tune.search import search
store._code_digest = lambda: "the code stays as it is between two runs"
candidates = tuple(deliberate(n=n) for n in range(5))
plan = make_plan(Path({folder!r}), candidates, engines={{"deliberate": {engine!r}}})
print("ready", flush=True)
trials = search(plan, lambda e: print(e.kind, flush=True))
print(*[t.status for t in trials], flush=True)
"""


def start(folder: Path, engine: str = "deliberate") -> subprocess.Popen:
    code = SCRIPT.format(here=str(Path(__file__).parent), folder=str(folder), engine=engine)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(("after_s", "engine"), [(0.9, "deliberate"), (2.3, "deliberate:PRELOADING")])
def test_killed_at_a_random_moment_it_resumes(tmp_path: Path, after_s: float, engine: str) -> None:
    process = start(tmp_path, engine)
    time.sleep(after_s)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    heard = process.communicate()[0].split()
    assert psutil.wait_procs(workers, timeout=30)[1] == []  # a worker ends when its parent has gone
    again = start(tmp_path, engine)
    words = again.communicate(timeout=90)[0].split()
    assert words[-5:] == ["ok"] * 5 and again.returncode == 0
    assert words.count("resumed") >= heard.count("finished")
    assert words.count("resumed") + words.count("finished") == 5


def test_ctrl_c_in_the_terminal(tmp_path: Path) -> None:
    process = start(tmp_path)
    while process.stdout.readline() != "finished\n":
        pass
    time.sleep(0.2)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    words = process.communicate(timeout=120)[0].split()
    assert process.returncode == 0
    assert "interrupted" in words and "ok" in words[-5:] and "skipped" in words[-5:]
    assert psutil.wait_procs(workers, timeout=30)[1] == []


def test_what_does_not_fit_the_budget_is_skipped_and_tried_later(plan_of) -> None:
    candidates = [deliberate(delay_ms=20, n=n) for n in range(4)]
    plan = plan_of(*candidates, limits=replace(LIMITS, budget_s=2.0))
    trials = search(plan)
    assert trials[0].status == "ok" and trials[-1].status == "skipped"
    assert "no time left" in trials[-1].reason and "run again" in trials[-1].reason
    for _ in range(4):
        trials = search(plan)
    assert [t.status for t in trials] == ["ok"] * 4


@pytest.mark.parametrize("how", ["build hangs", "open hangs", "hang later"])
def test_what_the_end_of_the_search_cuts_short_is_not_called_hanging(plan_of, how: str) -> None:
    plan = plan_of(deliberate(how), limits=replace(LIMITS, build_s=60, open_s=60, check_s=60, over_s=1.0))
    store = Store(plan)
    with WarmPool(store.folder, 60.0) as pool, Builds(plan, pool) as builds:
        trial = attempt(plan.candidates[0], Attempt(plan, store, builds, end_s=time.monotonic()), lambda stage: None)
    assert trial.status == "skipped"
    assert trial.reason.startswith("no time left: still ") and trial.reason.endswith("; run again to continue")
    assert store.load(plan.candidates[0]) is None


def test_without_anything_to_ship_what_needs_no_conversion_is_tried_however_late(plan_of) -> None:
    late = (deliberate("hang", n=1), deliberate("hang", n=2), deliberate())
    trials = search(plan_of(*late, limits=replace(LIMITS, budget_s=0.5, check_s=1, open_s=2)))
    assert [t.status for t in trials] == ["failed", "failed", "ok"]


def test_one_build_serves_the_candidates_that_share_it(plan_of) -> None:
    plan = plan_of(deliberate(n=1), deliberate(n=2), engines={"deliberate": "deliberate:SHARING"})
    one, two = search(plan)
    assert one.artefact.folder == two.artefact.folder
    assert (one.artefact.folder / "built").read_text() == "x"
    assert (one.artefact.candidate, two.artefact.candidate) == (deliberate(n=1), deliberate(n=2))


@pytest.mark.parametrize(("asked", "status"), [(True, "ok"), (False, "wrong")])
def test_rounding_that_the_source_was_asked_for_widens_the_tolerance(plan_of, asked, status) -> None:
    checks = (plan := plan_of(deliberate("off"))).checks[1]
    inputs, answers = (dict(zip(checks.names, read_groups(p), strict=True)) for p in (checks.inputs, checks.expected))
    nearby = {name: [y * np.float32(1.001) for y in arrays] for name, arrays in answers.items()}
    plan = replace(plan, checks={1: record_checks(plan.store / "nearby", inputs, answers, nearby if asked else None)})
    (trial,) = search(plan)
    assert trial.status == status, trial.reason


def test_a_shared_build_that_fails_fails_once(plan_of, tmp_path: Path) -> None:
    plan = plan_of(deliberate("build refuses"), deliberate("build refuses", n=2))
    assert [t.status for t in search(plan)] == ["failed"] * 2


def test_a_framework_call_is_measured_even_where_it_strays(plan_of) -> None:
    (trial,) = search(plan_of(deliberate("off", call="own")))
    assert trial.status == "wrong" and trial.measurement is not None


def test_reduced_precision_needs_a_tolerance_or_labels(plan_of) -> None:
    candidate = Candidate("deliberate", "bfloat16", options=(("how", "off"),))
    (strict,) = search(plan_of(candidate))
    assert strict.status == "wrong" and "--tolerance" in strict.reason
    (loose,) = search(plan_of(candidate, tolerance=Tolerance.uniform(1e-2)))
    assert loose.status == "ok"


@pytest.mark.parametrize(("max_drop", "status"), [(1e-3, "ok"), (1e-9, "wrong")])
def test_labelled_data_bound_the_drop(plan_of, tmp_path: Path, max_drop: float, status: str) -> None:
    from hasten.tune.arrays import write_groups
    from hasten.tune.plan import Labelled

    x = np.random.default_rng(1).standard_normal((50, 3)).astype(np.float32)
    write_groups(tmp_path / "rows.npz", [(x,)])
    labelled = Labelled(tmp_path / "rows.npz", 2 * x + 1, "mse", max_drop, source_score=0.0)
    (trial,) = search(plan_of(Candidate("deliberate", "int8", options=(("how", "off"),)), labelled=labelled))
    assert trial.status == status, trial.reason
    assert 0 < trial.comparison.metric["drop"] < 1e-3


def test_labels_never_excuse_a_nan(plan_of, tmp_path: Path) -> None:
    from hasten.tune.arrays import write_groups
    from hasten.tune.plan import Labelled

    write_groups(tmp_path / "rows.npz", [(np.zeros((4, 3), np.float32),)])
    labelled = Labelled(tmp_path / "rows.npz", np.ones((4, 3)), "mse", 1e9, source_score=0.0)
    (trial,) = search(plan_of(Candidate("deliberate", "int8", options=(("how", "nan"),)), labelled=labelled))
    assert trial.status == "wrong" and "NaN" in trial.reason


def test_order_puts_each_engine_first_and_slow_ones_last() -> None:
    table = [Candidate(e, threads=t) for e in ("native", "onnxruntime", "litert", "keras") for t in (1, 2, 3)]
    order = try_order(table)
    assert [c.engine for c in order[:5]] == ["native", "keras", "onnxruntime", "native", "litert"]
    assert [c.threads for c in order[:5]] == [1, 1, 1, 2, 1]
    assert [c.engine for c in order[5:]] == ["native"] + ["onnxruntime"] * 2 + ["litert"] * 2 + ["keras"] * 2
    assert sorted(c.key for c in order) == sorted(c.key for c in table)


def test_frameworks_are_tried_from_both_ends() -> None:
    paths = [Candidate("keras", options=(("path", p),)) for p in ("predict", "batch", "call", "graph", "xla")]
    assert [c.option("path") for c in try_order(paths)] == ["predict", "xla", "batch", "graph", "call"]


def test_missing_libraries_become_skipped_trials() -> None:
    table = {"here": "deliberate", "away": "deliberate:MISSING", "unbuilt": "hasten.engines.no_such_engine"}
    sys.path.insert(0, str(Path(__file__).parent))
    try:
        found, skipped = gather(Offer("onnx", ".onnx", True), table)
    finally:
        sys.path.pop(0)
    assert [c.engine for c in found] == ["deliberate"]
    assert [(t.candidate.engine, t.status) for t in skipped] == [("away", "skipped"), ("unbuilt", "skipped")]
    assert skipped[0].reason == "install hasten[deliberate]" and "not built yet" in skipped[1].reason


def test_worker_ends_with_its_parent_even_in_a_hang(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, (deliberate("hang"),))
    store = Store(plan)
    folder = store.trial_folder(deliberate())
    from hasten.tune.isolation import Child

    job = {"task": "build", "candidate": deliberate("build hangs"), "engine": "deliberate", "graph": None}
    job |= {"source": "x", "framework": "onnx", "inputs": [], "outputs": [], "folder": folder}
    job |= {"calibration": None, "trust": False, "schedule": "kept"}
    with Child(job, folder, 1 << 30) as child:
        assert child.next_message(30)["stage"] == "building"
        pid = child._process.pid
        os.close(child._process.stdin.fileno())  # what the system does when the parent dies
        child._process.stdin = Path(os.devnull).open("wb")  # noqa: SIM115
        assert psutil.Process(pid).wait(timeout=30) is not None or not psutil.pid_exists(pid)
    assert json.loads((folder / "build.json").read_text())["task"] == "build"


def test_candidates_without_checks_or_engine_are_refused(plan_of) -> None:
    with pytest.raises(SettingsError, match="batches \\[1\\]"):
        search(plan_of(Candidate("deliberate", batch=8)))
    with pytest.raises(SettingsError, match="engines"):
        search(plan_of(Candidate("nowhere")))


def test_processes_are_forked_from_one_that_has_imported(plan_of) -> None:
    hows = ("forked only", "segfault", "nan", "")
    plan = plan_of(*(deliberate(how) for how in hows), engines={"deliberate": "deliberate:PRELOADING"})
    forked, crashed, wrong, good = search(plan)
    assert (forked.status, good.status) == ("ok", "ok")
    assert good.measurement.cold_start_ns > good.measurement.first_ns
    assert (crashed.status, wrong.status) == ("failed", "wrong") and "SIGSEGV" in crashed.reason
    assert "Segmentation fault" in Path(crashed.log).read_text()
    assert offspring() == []


def test_how_a_fork_ended_is_told_once_and_known_ever_after() -> None:
    told = iter([-signal.SIGKILL])
    process = _Forked(1, os.pipe()[::-1], 0, lambda: next(told))
    assert process.wait() == process.wait() == -signal.SIGKILL
    process.stdin.close(), process.stdout.close()


def test_what_dies_in_a_fork_gets_a_fresh_process(plan_of) -> None:
    plan = plan_of(deliberate("dies when forked"), engines={"deliberate": "deliberate:PRELOADING"})
    assert search(plan)[0].status == "ok"


def test_imports_that_fail_fall_back_to_fresh_processes(plan_of) -> None:
    plan = plan_of(deliberate(), deliberate(n=2), engines={"deliberate": "deliberate:FAILING_PRELOAD"})
    assert [t.status for t in search(plan)] == ["ok", "ok"]
