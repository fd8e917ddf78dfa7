from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hasten import host as host_module
from hasten.host import ENGINE_PACKAGES, Peaks, host, host_key, isa, library_versions, peaks
from hasten.records import to_json

V3 = ["avx", "avx2", "bmi1", "bmi2", "cx16", "f16c", "fma", "lahf_lm", "movbe", "popcnt", "sse4_1", "sse4_2", "ssse3"]
V4 = [*V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"]


@pytest.fixture
def pretend(monkeypatch):
    """Makes this machine look like another."""

    def become(**changes: object) -> None:
        facts = replace(host(), **changes)
        monkeypatch.setattr(host_module, "host", lambda: facts)

    return become


def test_facts_are_plausible_and_json_ready() -> None:
    facts = host()
    assert 1 <= facts.cores_physical <= facts.cores_logical
    assert facts.memory_bytes > 100 << 20
    assert facts.cpu and facts.features
    assert facts.versions["numpy"] and facts.versions["hasten"]
    json.dumps(to_json(facts))


@pytest.mark.parametrize(
    ("machine", "features", "expected"),
    [
        ("x86_64", [*V4, "avx512_vnni", "avx512_bf16"], ("x86-64-v4", True, True, False)),
        ("x86_64", V4, ("x86-64-v4", False, False, False)),
        ("x86_64", [f for f in V4 if f != "avx512dq"], ("x86-64-v3", False, False, False)),
        ("amd64", [*V3, "avx_vnni"], ("x86-64-v3", True, False, False)),
        ("x86_64", [f for f in V3 if f != "fma"], ("x86-64-v2", False, False, False)),
        ("x86_64", ["sse2"], ("generic", False, False, False)),
        ("aarch64", ["asimd", "asimddp", "bf16"], ("aarch64", False, True, True)),
        ("arm64", ["asimd"], ("aarch64", False, False, False)),
        ("riscv64", [], ("generic", False, False, False)),
    ],
)
def test_isa_follows_the_psabi_levels(pretend, machine, features, expected) -> None:
    pretend(machine=machine, features=tuple(features))
    found = isa()
    assert (found.name, found.vnni, found.bf16, found.dotprod) == expected


@pytest.mark.parametrize("missing", [None, "avx512_vnni", "avx512_bf16", "avx512_vbmi2"])
def test_native_code_of_the_highest_level_needs_all_of_it(pretend, missing) -> None:
    more = ("avx512_vnni", "avx512_bf16", "avx512_vbmi2")
    pretend(machine="x86_64", features=(*V4, *(name for name in more if name != missing)))
    assert isa().whole == (missing is None)


@pytest.mark.parametrize(
    ("cpu", "features", "halves"),
    [
        ("AMD EPYC (cpu family 25, model 17)", V4, True),
        ("AMD EPYC (cpu family 25, model 1)", V3, False),
        ("AMD EPYC 9355 (cpu family 26, model 2)", V4, False),
        ("Intel(R) Xeon(R) (cpu family 6, model 143)", V4, False),
    ],
)
def test_zen4_computes_512_bits_in_halves(pretend, cpu, features, halves) -> None:
    pretend(machine="x86_64", features=tuple(features), cpu=cpu)
    assert isa().halves is halves


def test_key_depends_on_the_cpu_and_not_on_memory(pretend) -> None:
    here = host_key()
    pretend(memory_bytes=1, governor="powersave")
    assert host_key() == here
    pretend(cpu="another CPU")
    assert host_key() != here


def test_numpy_sees_the_same_level_as_the_kernel(pretend) -> None:
    expected = isa().name
    pretend(features=tuple(host_module._features_by_numpy()))
    assert isa().name == expected


def test_versions_of_an_engine_leave_the_others_out() -> None:
    versions = library_versions("onnxruntime")
    assert "onnxruntime" in versions and "numpy" in versions
    assert not {"torch", "tensorflow", "openvino"} & set(versions)
    assert set(library_versions("made up")) == set(library_versions())


def test_reading_versions_imports_no_framework() -> None:
    heavy = sorted({p.replace("-", "_") for ps in ENGINE_PACKAGES.values() for p in ps} | {"onnx"})
    code = f"import sys, hasten.host as h; h.host(); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_peaks_are_measured_once(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host_module.platformdirs, "user_cache_path", lambda name: tmp_path)
    calls = []

    def measure() -> Peaks:
        calls.append(1)
        return Peaks(129.0, 30.0, {"L2": 200.0}, "by hand")

    assert peaks(measure) == peaks(measure) == Peaks(129.0, 30.0, {"L2": 200.0}, "by hand")
    assert len(calls) == 1
    damaged = next(tmp_path.glob("peaks-*.json"))
    damaged.write_text("{")
    assert peaks(measure).gmac_per_s == 129.0 and len(calls) == 2


def test_peaks_by_numpy_are_positive(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host_module.platformdirs, "user_cache_path", lambda name: tmp_path)
    found = peaks()
    assert found.gmac_per_s > 0.5 and found.gb_per_s > 0.1
    assert all(v > 0 for v in found.bandwidth.values())
