from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hasten.errors import SettingsError
from hasten.measure.sampling import Samples
from hasten.measure.session import Start, summarise
from hasten.records import Artefact, Candidate, Comparison, Trial
from hasten.tune.choose import OBJECTIVES, choose, leaders
from hasten.tune.plan import Bounds
from hasten.tune.playoff import Rounds

PASSED = Comparison(True, 9, 0.0, 0.0, 1.0, 1.0)


@pytest.fixture
def trial_of(tmp_path: Path) -> Callable[..., Trial]:
    """A trial whose latencies are lognormal about ``usual_us``, with ``tail`` of them ten times as long."""
    made = 0

    def make(engine: str, usual_us: float, *, tail: float = 0.0, n: int = 20_000, **changes: object) -> Trial:
        nonlocal made
        made += 1
        rng = np.random.default_rng(made)
        samples = rng.lognormal(np.log(usual_us * 1e3), 0.02, n)
        samples[rng.random(n) < tail] *= 10
        path = tmp_path / f"{made}.npy"
        np.save(path, samples)
        folder = tmp_path / str(made)
        folder.mkdir()
        (folder / "model.bin").write_bytes(b"x" * int(changes.pop("nbytes", 1000)))
        candidate = Candidate(
            engine,
            str(changes.pop("precision", "float32")),
            int(changes.pop("threads", 1)),
            int(changes.pop("batch", 1)),
            changes.pop("options", ()),
        )
        starts = np.concatenate([[0], np.cumsum(samples)[:-1]]).astype(np.int64)
        found = summarise(Samples(samples, starts, 0.0, True), Start(1.0, batch=candidate.batch))
        found = replace(found, raw=str(path), resident_bytes=int(changes.pop("resident", 50 << 20)))
        details = {"framework": True} if changes.pop("framework", False) else {}
        artefact = Artefact(candidate, folder, ("model.bin",), (), (), True, details=details)
        trial = Trial(candidate, "ok", artefact=artefact, measurement=found, comparison=PASSED)
        return replace(trial, **changes)

    return make


@pytest.mark.parametrize("objective", ["p50", "p99", "p99.9", "throughput"])
def test_the_clearly_fastest_wins(trial_of, objective: str) -> None:
    trials = [trial_of("onnxruntime", 5), trial_of("native", 2), trial_of("keras", 100, framework=True)]
    verdict = choose(trials, objective)
    assert verdict.winner.candidate.engine == "native" and verdict.runner_up.candidate.engine == "onnxruntime"
    assert verdict.original.candidate.engine == "keras"
    assert verdict.ratio.value == pytest.approx(2.5, rel=0.05) and verdict.gain.value == pytest.approx(50, rel=0.05)
    assert not verdict.tie and not verdict.original_stays
    assert verdict.statistic == objective and "native wins" in verdict.reason


def test_equals_tie_and_the_simpler_wins(trial_of) -> None:
    trials = [trial_of("openvino", 5), trial_of("onnxruntime", 5, threads=2), trial_of("onnxruntime", 5)]
    verdict = choose(trials, "p50")
    assert verdict.tie and verdict.winner is trials[2]
    assert "tie" in verdict.reason


def test_a_tail_decides_where_the_tail_is_asked_for(trial_of) -> None:
    jittery, steady = trial_of("native", 2, tail=0.03), trial_of("onnxruntime", 5)
    assert choose([jittery, steady], "p50").winner is jittery
    assert choose([jittery, steady], "p99").winner is steady


def test_equal_tails_are_decided_by_the_median(trial_of) -> None:
    # both tails are of the same rare pause: p99 cannot tell them apart, the median can
    slow, fast = trial_of("native", 4, tail=0.0, n=700), trial_of("onnxruntime", 2, n=700)
    noise = np.random.default_rng(0)
    for trial in (slow, fast):
        samples = np.load(trial.measurement.raw)
        samples[noise.choice(700, 12, replace=False)] = noise.uniform(50e3, 500e3, 12)
        np.save(trial.measurement.raw, samples)
    verdict = choose([slow, fast], "p99")
    assert verdict.winner is fast and not verdict.tie
    assert verdict.ratio.value == pytest.approx(2, rel=0.05) and "wins at p50" in verdict.reason


def test_the_original_stays_where_nothing_beats_it(trial_of) -> None:
    trials = [trial_of("native", 5), trial_of("keras", 5, framework=True)]
    verdict = choose(trials, "p50")
    assert verdict.original_stays and verdict.tie and "original stays" in verdict.reason
    slower = choose([trial_of("native", 9), trials[1]], "p50")
    assert slower.original_stays and slower.gain.value < 0.6
    assert slower.winner is not None  # the best that could be shipped is still named


@pytest.mark.parametrize("status", ["wrong", "unstable", "failed", "skipped"])
def test_only_verified_trials_can_win(trial_of, status: str) -> None:
    fast, right = trial_of("native", 1, status=status), trial_of("onnxruntime", 5)
    for objective in OBJECTIVES:
        assert choose([fast, right], objective).winner is right
    alone = choose([fast], "p50")
    assert alone.winner is None and not alone.original_stays and f"1 {status}" in alone.reason


def test_the_frameworks_own_calls_cannot_be_shipped(trial_of) -> None:
    verdict = choose([trial_of("keras", 1, framework=True)], "p99")
    assert verdict.winner is None and verdict.original_stays


@pytest.mark.parametrize(
    ("candidate", "own"),
    [
        (Candidate("keras", options=(("path", "predict"),)), True),
        (Candidate("torch", options=(("fed", "numpy"), ("path", "eager"))), True),
        (Candidate("onnxruntime", options=(("call", "InferenceSession.run"),)), True),
        (Candidate("litert", options=(("form", "file"),)), True),
        (Candidate("litert", options=(("form", "file"), ("kernels", "without XNNPACK"))), True),
        (Candidate("litert"), False),
        (Candidate("onnxruntime", options=(("bound", True),)), False),
        (Candidate("native", options=(("math", "fast"),)), False),
    ],
)
def test_the_users_own_calls_are_those_of_the_framework_and_of_the_file_as_it_is(
    candidate: Candidate, own: bool
) -> None:
    assert candidate.is_own_call is own


def test_an_own_call_that_ships_is_the_baseline_too(trial_of) -> None:
    """LiteRT on the user's own file: it may win, and what wins otherwise must beat it."""
    native, own = trial_of("native", 2), trial_of("litert", 5, options=(("form", "file"),))
    faster = choose([native, own], "p99")
    assert (faster.winner, faster.original) == (native, own)
    assert not faster.original_stays and faster.gain.value > 2
    assert leaders([native, own], "p99") == (native, own)

    level = [trial_of("native", 5), own]
    assert choose(level, "p99").original_stays
    assert sorted(t.candidate.engine for t in leaders(level, "p99")) == ["litert", "native"], "none of them twice"

    slower = choose([trial_of("native", 9), own], "p99")
    assert slower.winner is slower.original is own and slower.original_stays
    assert "nothing beats 'litert file', the model's own call" in slower.reason


def test_bounds_keep_candidates_out(trial_of) -> None:
    big, slow = trial_of("native", 2, resident=900 << 20), trial_of("onnxruntime", 50)
    trials = [big, slow]
    assert choose(trials, "p50").winner is big
    assert choose(trials, "p50", Bounds(max_memory_bytes=100 << 20)).winner is slow
    assert choose(trials, "memory", Bounds(max_latency_ns=10e3)).winner is big
    none = choose(trials, "p50", Bounds(max_latency_ns=1e3, max_memory_bytes=1 << 30))
    assert none.winner is None and "latency 1 µs and memory 1024 MiB" in none.reason
    assert "the nearest, native, needs 2 times as much" in none.reason
    small = choose(trials, "p50", Bounds(max_memory_bytes=1 << 20))
    assert "the nearest, onnxruntime, needs" in small.reason, "the nearest to the bound, not the fastest"
    assert choose(trials, "p50", Bounds(max_latency_ns=10e3)).reason.endswith("passed and keeps within the bounds")


def test_memory_that_was_not_measured_is_not_within_a_bound(trial_of) -> None:
    unknown, known = trial_of("native", 1), trial_of("openvino", 5)
    unknown = replace(unknown, measurement=replace(unknown.measurement, resident_bytes=None))
    assert choose([unknown, known], "p50", Bounds(max_memory_bytes=100 << 20)).winner is known


def test_memory_and_size_are_compared_exactly(trial_of) -> None:
    trials = [trial_of("native", 9, nbytes=5000, resident=70 << 20), trial_of("openvino", 1, nbytes=9000)]
    assert choose(trials, "size").winner is trials[0]
    assert choose(trials, "memory").winner is trials[1]
    assert choose(trials, "size").ratio.value == pytest.approx(1.8)
    assert leaders(trials, "size") == ()


def test_too_few_samples_lower_the_percentile_for_all(trial_of) -> None:
    trials = [trial_of("native", 2, n=100), trial_of("onnxruntime", 5, n=20_000)]
    verdict = choose(trials, "p99")
    assert verdict.statistic == "p90" and verdict.winner is trials[0] and "too few samples for p99" in verdict.reason
    assert choose([trial_of("native", 2, n=5)], "p99.9").statistic == "p50"


def test_play_off_samples_decide_over_the_trials(trial_of) -> None:
    a, b = trial_of("native", 2), trial_of("onnxruntime", 5)
    rng = np.random.default_rng(0)
    speed = rng.lognormal(0, 0.3, 30)

    def play(usual_us: float) -> tuple[np.ndarray, ...]:
        return tuple(v * rng.normal(usual_us * 1e3, 10, 100) for v in speed)

    rounds = Rounds({a.candidate.key: play(6), b.candidate.key: play(5)})
    verdict = choose([a, b], "p50", rounds=rounds)
    assert verdict.winner is b and verdict.ratio.low > 1.15 and verdict.ratio.high < 1.25


def test_batches_are_compared_by_rows_for_throughput_alone(trial_of) -> None:
    one, many = trial_of("native", 2), trial_of("native", 16, batch=32)
    assert choose([one, many], "throughput").winner is many
    latency = choose([one, many], "p99")
    assert latency.winner is one and latency.runner_up is None


def test_leaders_hold_the_near_best_the_best_median_and_the_original(trial_of) -> None:
    trials = [
        trial_of("native", 2),
        trial_of("onnxruntime", 3),
        trial_of("openvino", 50),
        trial_of("litert", 1, tail=0.05),
        trial_of("keras", 9, framework=True),
        trial_of("keras", 7, framework=True, options=(("call", "x"),)),
        trial_of("torch", 0.1, status="wrong"),
    ]
    found = leaders(trials, "p99")
    assert [t.candidate.engine for t in found] == ["native", "onnxruntime", "litert", "keras"]
    assert found[-1] is trials[5]
    assert leaders([], "p99") == ()
    far = [*trials[:4], trial_of("keras", 90, framework=True)]
    assert far[4] not in leaders(far, "p99")  # needs no pairing to be seen


def test_a_burst_in_some_rounds_is_no_tail_and_the_median_decides(trial_of) -> None:
    one, two = trial_of("native", 48), trial_of("native", 25, threads=2)
    rng = np.random.default_rng(0)

    def play(usual_us: float, tail_us: float, hit: float) -> tuple[np.ndarray, ...]:
        rounds = rng.normal(usual_us * 1e3, 300, (20, 400))
        rounds[rng.random(20) < hit, :20] = tail_us * 1e3
        return tuple(rounds)

    burst = Rounds({one.candidate.key: play(48, 48, 0), two.candidate.key: play(25, 400, 0.3)})
    verdict = choose([one, two], "p99", rounds=burst)
    assert verdict.winner is two and not verdict.tie
    assert verdict.reason.startswith("native 2t wins at p50") and "level at p99" in verdict.reason
    own = Rounds({one.candidate.key: play(48, 48, 0), two.candidate.key: play(25, 400, 1.0)})
    assert choose([one, two], "p99", rounds=own).winner is one
    assert choose([one, two], "p50", rounds=own).winner is two


@pytest.mark.parametrize(("hit", "stays"), [(0.3, False), (1.0, True)])
def test_an_original_level_in_the_tail_is_beaten_at_the_median(trial_of, hit: float, stays: bool) -> None:
    """A burst in some rounds of a short play-off leaves them level; a tail that comes in every round does not."""
    fast, own = trial_of("native", 93), trial_of("litert", 270, options=(("form", "file"),))
    rng = np.random.default_rng(0)
    rounds = [rng.normal(usual * 1e3, 900, (20, 400)) for usual in (93, 270)]
    rounds[0][rng.random(20) < hit, :20] = 3e6
    played = Rounds({t.candidate.key: tuple(r) for t, r in zip((fast, own), rounds, strict=True)})
    verdict = choose([fast, own], "p99", rounds=played)
    assert verdict.original_stays is stays
    assert verdict.winner is (own if stays else fast)
    if not stays:
        assert verdict.gain_statistic == "p50" and verdict.gain.value == pytest.approx(270 / 93, rel=0.05)


def test_a_longer_tail_in_few_rounds_is_a_tie_and_told_as_one(trial_of) -> None:
    one, two = trial_of("native", 48), trial_of("native", 48, threads=2)
    steady = np.random.default_rng(0).normal(48e3, 300, (20, 400))
    bursts = steady.copy()
    bursts[:10, :60] = 400e3  # every burst is longer by far, yet half of the rounds have none
    rounds = Rounds({one.candidate.key: tuple(steady), two.candidate.key: tuple(bursts)})
    verdict = choose([one, two], "p99", rounds=rounds)
    assert verdict.winner is one and verdict.tie
    assert "tie at p99" in verdict.reason and "wins at p50" not in verdict.reason


def test_who_did_not_play_does_not_win(trial_of) -> None:
    lucky, a, b = trial_of("openvino", 1.9), trial_of("native", 2), trial_of("onnxruntime", 3)
    quiet = np.full(100, 2500.0)
    rounds = Rounds({a.candidate.key: (quiet,) * 8, b.candidate.key: (quiet * 1.5,) * 8})
    verdict = choose([lucky, a, b], "p50", rounds=rounds)
    assert verdict.winner is a and verdict.runner_up is b


def test_unknown_objective() -> None:
    with pytest.raises(SettingsError, match="unknown objective 'p95': expected one of p50, p99"):
        choose([], "p95")


def test_a_slow_original_is_compared_at_a_percentile_that_it_has(trial_of) -> None:
    trials = [trial_of("native", 2), trial_of("keras", 50_000, n=8, framework=True)]
    verdict = choose(trials, "p99")
    assert (verdict.statistic, verdict.gain_statistic) == ("p99", "p50")
    assert verdict.gain.value == pytest.approx(25_000, rel=0.05)
    assert choose(trials[:1], "p99").gain_statistic == ""
