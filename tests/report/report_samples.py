"""Reports with known content: realistic latencies, failures of every kind, hostile text, one candidate, none."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hasten.records import Candidate, Comparison, Interval, Measurement, Trial
from hasten.report import OpTime, Peaks, Report, Verdict
from hasten.types import TensorSpec

HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)>{{ 7*7 }}'


@dataclass(frozen=True)
class Way:
    """A candidate with the latency it shall show."""

    candidate: Candidate
    p50_us: float
    sigma: float = 0.05
    spike_share: float = 0.002
    spike: float = 30.0
    count: int = 4000
    error: float = 2.4e-7
    cold_s: float = 0.31


def candidate(engine: str, *words: str, precision: str = "float32", threads: int = 1) -> Candidate:
    return Candidate(engine, precision, threads, 1, tuple(("call", w) for w in words))


TODAY = candidate("keras", "predict")
HONEST = candidate("keras", "tf.function xla")
NATIVE = candidate("native")

WAYS = (
    Way(NATIVE, 0.31, 0.02, 0.0004, 12, 9000, 2.4e-7, 0.05),
    Way(candidate("litert"), 1.08, 0.04, 0.001, 40, 8000, 3e-8, 0.11),
    Way(candidate("litert", threads=2), 1.09, 0.12, 0.006, 300, 8000, 3e-8, 0.11),
    Way(candidate("onnxruntime", "bound"), 3.1, 0.05, 0.002, 25, 7000, 1.2e-7, 0.21),
    Way(candidate("onnxruntime"), 3.4, 0.05, 0.002, 25, 7000, 1.2e-7, 0.21),
    Way(candidate("onnxruntime", "spin", threads=2), 4.5, 0.2, 0.01, 900, 7000, 1.2e-7, 0.22),
    Way(candidate("openvino"), 8.1, 0.06, 0.002, 10, 7000, 0.0, 0.42),
    Way(candidate("openvino", threads=2), 10.5, 0.15, 0.004, 60, 6800, 0.0, 0.42),
    Way(HONEST, 36, 0.08, 0.003, 8, 3000, 6e-8, 4.4),
    Way(candidate("keras", "concrete function"), 84, 0.08, 0.003, 9, 3000, 0.0, 3.9),
    Way(candidate("keras", "tf.function"), 100, 0.08, 0.003, 9, 3000, 0.0, 3.9),
    Way(candidate("keras", "call tensors"), 740, 0.1, 0.004, 6, 1200, 0.0, 3.8),
    Way(candidate("keras", "predict_on_batch"), 1900, 0.1, 0.004, 6, 700, 0.0, 3.8),
    Way(TODAY, 42_400, 0.09, 0.02, 2.4, 90, 0.0, 3.9),
)


def latencies(way: Way, rng: np.random.Generator) -> np.ndarray:
    calls = way.p50_us * 1e3 * rng.lognormal(0, way.sigma, way.count)
    spikes = rng.random(way.count) < way.spike_share
    calls[spikes] *= 1 + rng.random(spikes.sum()) * way.spike
    return calls


def measured(calls: np.ndarray, way: Way) -> Measurement:
    p50, p90, p99, p999 = np.percentile(calls, [50, 90, 99, 99.9])
    n = len(calls)
    return Measurement(
        samples=n,
        p50_ns=Interval(p50, p50 * 0.995, p50 * 1.006),
        p90_ns=p90 if n >= 64 else None,
        p99_ns=Interval(p99, p99 * 0.94, p99 * 1.2) if n >= 662 else None,
        p999_ns=p999 if n >= 6636 else None,
        max_ns=calls.max(),
        mean_ns=calls.mean(),
        rate_per_s=1e9 / calls.mean(),
        inner_loop=1,
        timer_ns=18.0,
        first_ns=p50 * 40,
        cold_start_ns=way.cold_s * 1e9,
        idle_10ms_ns=p50 * 1.8,
        idle_100ms_ns=p50 * 4.1,
        drift=0.012,
        spike_share=way.spike_share,
        spike_period_ns=4e6 if way.spike > 200 else None,
        peak_bytes=int(61e6 + way.cold_s * 1e8),
        resident_bytes=int(40e6),
        raw=f"{way.candidate.key}.npy",
    )


def trial(way: Way, calls: np.ndarray) -> Trial:
    comparison = Comparison(True, 64, way.error, way.error * 3, 1 - way.error**2, 1.0)
    return Trial(way.candidate, "ok", None, None, measured(calls, way), comparison, 2.1e8, f"{way.candidate.key}.log")


def unlucky() -> tuple[Trial, ...]:
    """One of every way not to win."""
    wrong = candidate("litert", "dynamic-range", precision="int8")
    calls = latencies(Way(wrong, 0.9), np.random.default_rng(9))
    bad = Comparison(False, 64, 0.31, 4.2, 0.91, 0.72, "output 'dense_1': element (3, 0) is 0.84, expected 0.53")
    nan = Comparison(False, 64, float("nan"), float("inf"), 0.0, 0.0, "output 'dense_1': NaN where the source has none")
    return (
        Trial(wrong, "wrong", bad.reason, None, measured(calls, Way(wrong, 0.9)), bad),
        Trial(candidate("onnxruntime", precision="float16"), "wrong", nan.reason, comparison=nan),
        Trial(candidate("torch"), "skipped", "source is Keras: PyTorch cannot open it"),
        Trial(candidate("openvino", precision="int8"), "skipped", "not installed: install hasten[openvino]"),
        Trial(candidate("openvino", precision="int8", threads=2), "skipped", "not installed: install hasten[openvino]"),
        Trial(candidate("native", threads=2), "failed", "killed by SIGSEGV after 1.2 s; full log kept", log="x.log"),
    )


def full_report() -> Report:
    """Fifteen answered candidates, six that did not, and every optional part."""
    rng = np.random.default_rng(7)
    samples = {way.candidate.key: latencies(way, rng) for way in WAYS}
    trials = tuple(trial(way, samples[way.candidate.key]) for way in WAYS)
    lost = unlucky()
    return Report(
        model="model.keras",
        framework="keras",
        trials=trials + lost,
        verdict=Verdict(
            "faster",
            NATIVE,
            TODAY,
            HONEST,
            Interval(136_774, 135_100, 138_200),
            Interval(116.1, 115.2, 117.0),
            "p99 0.34 µs: lowest of 15, 3.4× below litert (interval 3.3–3.5); every output within tolerance",
        ),
        inputs=(TensorSpec("sensor", "float32", ("batch", 20)),),
        outputs=(TensorSpec("dense_1", "float32", ("batch", 2)),),
        samples=samples,
        host={
            "cpu": "AMD EPYC 9B45",
            "cores": 2,
            "features": ["avx512f", "avx512_vnni", "avx512_bf16"],
            "caches": {"L1d": "48 KiB", "L2": "1 MiB", "L3": "32 MiB"},
            "os": "Linux 6.1",
            "governor": None,
            "versions": {"python": "3.11.7", "numpy": "2.4.6", "onnxruntime": "1.31.0", "tensorflow": "2.21.0"},
        },
        settings={"objective": "p99", "precision": "float32", "threads": [1, 2], "batch": [1], "quick": False},
        tolerance={"absolute": 1e-5, "relative": 1e-4},
        rewrites=REWRITES,
        ops_before={"MatMul": 1002, "Add": 1002, "Relu": 2, "Transpose": 14, "Identity": 31, "BatchNormalization": 2},
        ops_after={"Gemm": 2, "MatMul": 1, "Relu": 2, "Softmax": 1},
        op_times=OP_TIMES,
        peaks=Peaks(129, {"L1": 517, "L2": 215, "L3": 110}),
        notes=("layer 'augment' (RandomFlip) does nothing at inference and was dropped",),
        commands=("hasten optimize model.keras --objective p99 --seed 0", "hasten bench model.keras --json"),
        logs={lost[-1].candidate.key: "lowering …\nemitting team.c\nSegmentation fault (core dumped)\n" * 8},
        created="2026-11-20T10:30:00+00:00",
        version="0.1.0",
        bundle="model.hasten",
    )


@dataclass(frozen=True)
class Rewrite:
    name: str
    changes: int
    nodes_before: int
    nodes_after: int
    detail: str = ""
    macs_saved: int = 0
    weight_bytes_saved: int = 0
    written_bytes_saved: int = 0


REWRITES = (
    Rewrite("fix shapes", 0, 2053, 2053),
    Rewrite("drop identities", 31, 2053, 2022),
    Rewrite("fold batch norm", 2, 2022, 2020, "into conv_1 and conv_2", 1200, -64, 8192),
    Rewrite("re-roll time loops", 1000, 2020, 22, "TimeDistributed(dense): 1,000 products became 1"),
    Rewrite("cancel transposes", 14, 22, 8),
    Rewrite("fuse activations", 2, 8, 6),
)

OP_TIMES = (
    OpTime("dense/MatMul", "Gemm", 141, 0.455, 200_000, 40_000, 41.2, 284.0, "gemv f32 nr=128", 62),
    OpTime("lstm", "LSTM", 96, 0.31, 100_000, 66_000, 104.0, 687.0, "lstm 4 gates v16", 78),
    OpTime("dense_1/MatMul", "Gemm", 31, 0.1, 2_000, 8_200, 6.4, 26.0, "gemv f32 nr=128", 3.2),
    OpTime("dense_1/Softmax", "Softmax", 22, 0.07, None, 16, None, 0.7, "softmax row", 1.5),
    OpTime("reshape", "Reshape", 20, 0.065, None, None, None, None, "copy", 0.4),
)


def one_candidate() -> Report:
    """Only the user's own call answered."""
    way = replace(WAYS[-1], count=40)
    calls = latencies(way, np.random.default_rng(1))
    return Report("tiny.onnx", "onnx", (trial(way, calls),), Verdict("original", TODAY, TODAY, TODAY, reason="alone"))


def none_ok() -> Report:
    """Nothing answered rightly."""
    return replace(full_report(), trials=unlucky()[1:], samples={}, verdict=Verdict("none", reason="no answers"))


def hostile() -> Report:
    """Text that tries to leave its place on the page, wherever text can come from outside."""
    evil = Candidate(HOSTILE)
    lost = Trial(evil, "failed", HOSTILE, log="evil.log")
    way = Way(Candidate("x", options=(("name", HOSTILE),)), 5.0)
    calls = latencies(way, np.random.default_rng(3))
    return replace(
        full_report(),
        model=HOSTILE,
        trials=(trial(way, calls), lost),
        samples={way.candidate.key: calls},
        notes=(HOSTILE,),
        commands=(HOSTILE,),
        logs={evil.key: HOSTILE},
        host={HOSTILE: HOSTILE},
        inputs=(TensorSpec(HOSTILE, "float32", (1,)),),
        rewrites=(Rewrite(HOSTILE, 1, 2, 1, HOSTILE),),
        ops_before={HOSTILE: 3},
        op_times=(OpTime(HOSTILE, HOSTILE, 10.0, 1.0, 5, 5, 1.0, 1.0, HOSTILE),),
        verdict=Verdict("faster", way.candidate, way.candidate, way.candidate, reason=HOSTILE),
        bundle=HOSTILE,
    )


def long_names() -> Report:
    """Candidate and model names far wider than a terminal."""
    report = full_report()
    wide = tuple(
        replace(
            t, candidate=replace(t.candidate, options=(*t.candidate.options, ("providers", "VeryLongProvider" * 6)))
        )
        for t in report.trials[:4]
    )
    return replace(report, model="m" * 180 + ".keras", trials=wide + report.trials[4:])
