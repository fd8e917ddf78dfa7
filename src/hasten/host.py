"""This machine, as facts: CPU, features, caches, memory, library versions, and its measured peaks.

``host_key`` names what saved trials and machine code depend on. No library is imported to learn its version.

Loading a bundle asks here which machine it is on: what takes milliseconds to import (psutil, package metadata) is
imported where it is used.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache, cached_property
from pathlib import Path

import platformdirs

from hasten.records import digest, to_json

__all__ = ["ENGINE_PACKAGES", "Host", "Isa", "Peaks", "host", "host_key", "isa", "library_versions", "peaks"]

# Engine → the packages whose release may change its answers or its speed.
ENGINE_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "native": ("ziglang",),
    "onnxruntime": ("onnxruntime",),
    "litert": ("ai-edge-litert", "tensorflow", "tflite-runtime"),
    "openvino": ("openvino",),
    "keras": ("keras", "tensorflow", "jax", "torch"),
    "torch": ("torch",),
}
_PACKAGES = ("hasten", "numpy", "onnx", "onnx-ir", "onnxscript", "tf2onnx")


@dataclass(frozen=True)
class Isa:
    """The instruction set that code may be compiled for.

    ``name``: ``x86-64-v4``, ``x86-64-v3``, ``x86-64-v2``, ``aarch64`` or ``generic``.
    """

    name: str
    vnni: bool = False
    """x86: int8 dot products of AVX-512 VNNI or AVX-VNNI."""
    bf16: bool = False
    vbmi2: bool = False
    """x86: shifts of AVX-512 VBMI2, which take in another word's bits."""
    dotprod: bool = False
    """aarch64: int8 dot products."""
    halves: bool = False
    """x86-64-v4: 512 bits are computed in two halves, one after the other."""

    @property
    def whole(self) -> bool:
        """x86-64-v4 with all that native code for it uses."""
        return self.vnni and self.bf16 and self.vbmi2


@dataclass(frozen=True)
class Host:
    """The machine a number was measured on.

    Units:   caches, memory_bytes: bytes, of one core for the caches that a core owns
    """

    cpu: str
    features: tuple[str, ...]
    caches: Mapping[str, int]
    """``L1d``, ``L2``, ``L3``, those that could be read."""
    cores_physical: int
    cores_logical: int
    memory_bytes: int
    system: str
    machine: str
    governor: str | None
    """The frequency governor; None where the system does not show it (most virtual machines)."""
    python: str
    versions: Mapping[str, str]


@cache
def host() -> Host:
    """The facts of this machine, read once."""
    logical = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Host(
        cpu=_cpu_model(),
        features=_features(),
        caches=_caches(),
        cores_physical=min(_cores_physical() or logical, logical),
        cores_logical=logical,
        memory_bytes=_memory_bytes(),
        system=f"{platform.system()} {platform.release()}",
        machine=platform.machine().lower(),
        governor=_read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        python=platform.python_version(),
        versions=_Versions(),
    )


class _Versions(Mapping[str, str]):
    """``library_versions()``, read when somebody looks: searching the installed packages costs more than all else."""

    def __getitem__(self, name: str) -> str:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        return repr(self._found)

    @cached_property
    def _found(self) -> dict[str, str]:
        return library_versions()


def host_key() -> str:
    """Names the machine: equal keys may share machine code and compare timings.

    The kernel's release and the amount of memory stay out: an update of either does not make timings void.
    """
    facts = host()
    return digest([facts.cpu, facts.features, facts.cores_logical, platform.system(), facts.machine])


def isa() -> Isa:
    """What this CPU can run, by the levels of the x86-64 psABI."""
    has = set(host().features)
    machine, cpu = host().machine, host().cpu
    if machine in ("aarch64", "arm64"):
        return Isa("aarch64", bf16="bf16" in has, dotprod="asimddp" in has)
    if machine not in ("x86_64", "amd64"):
        return Isa("generic")
    level = next((name for name, needs in _LEVELS if needs <= has), "generic")
    vnni = "avx512_vnni" in has if level == "x86-64-v4" else "avx_vnni" in has
    if level != "x86-64-v4":
        return Isa(level, vnni=vnni)
    # AMD's family 25 with AVX-512 is Zen 4
    halves = "AMD" in cpu and "family 25" in cpu
    return Isa(level, vnni=vnni, bf16="avx512_bf16" in has, vbmi2="avx512_vbmi2" in has, halves=halves)


_V2 = {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"}
_V3 = _V2 | {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"}
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_LEVELS = (("x86-64-v4", _V4), ("x86-64-v3", _V3), ("x86-64-v2", _V2))


def library_versions(engine: str | None = None) -> dict[str, str]:
    """Installed versions of everything that matters to one engine, or to any.

    An engine that is not in the table (one of a test, or a plug-in) depends on all of them.
    """
    from importlib import metadata  # noqa: PLC0415  (see above)

    engines = [engine] if engine in ENGINE_PACKAGES else list(ENGINE_PACKAGES)
    names = dict.fromkeys([*_PACKAGES, *(p for e in engines for p in ENGINE_PACKAGES[str(e)])])
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _sysctl(name: str) -> str | None:
    try:
        return subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _cpu_model() -> str:
    text = _read("/proc/cpuinfo") or ""
    fields = {k: re.search(rf"^{k}\s*:\s*(.+)$", text, re.M) for k in ("model name", "cpu family", "model", "CPU part")}
    found = {k: m.group(1).strip() for k, m in fields.items() if m}
    if found:
        # a cloud CPU may call itself no more than "AMD EPYC": family and model tell its generation
        numbers = [f"{k} {found[k]}" for k in ("cpu family", "model", "CPU part") if k in found]
        return " ".join([found.get("model name", platform.machine()), f"({', '.join(numbers)})" if numbers else ""])
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string") or platform.machine()
    return platform.processor() or platform.machine()


def _features() -> tuple[str, ...]:
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _read("/proc/cpuinfo") or "", re.M)
    if found:
        return tuple(sorted(set(found.group(1).split())))
    return tuple(sorted(_features_by_numpy()))


def _features_by_numpy() -> set[str]:
    """What numpy's own dispatcher saw, in Linux' words; for systems without /proc/cpuinfo."""
    try:
        seen = importlib.import_module("numpy._core._multiarray_umath").__cpu_features__
    except (ImportError, AttributeError):  # private to numpy, it may move
        return set()
    has = {name.lower() for name, present in seen.items() if present}
    found = has & {"avx", "avx2", "avx512f", "avx512cd", "f16c", "popcnt", "ssse3", "asimddp"}
    found |= {linux for linux, numpys in (("sse4_1", "sse41"), ("sse4_2", "sse42"), ("fma", "fma3")) if numpys in has}
    if "sse42" in has:
        found |= {"cx16", "lahf_lm"}  # numpy does not report them; every CPU with SSE4.2 has both
    if "avx2" in has:
        found |= {"bmi1", "bmi2", "movbe"}  # likewise, with AVX2
    if "avx512_skx" in has:
        found |= {"avx512bw", "avx512dq", "avx512vl"}
    if has & {"avx512_icl", "avx512_clx"}:
        found.add("avx512_vnni")
    if "avx512_icl" in has:
        found.add("avx512_vbmi2")
    if "avx512_spr" in has:
        found.add("avx512_bf16")
    return found


def _caches() -> dict[str, int]:
    found: dict[str, int] = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (_read(str(index / name)) for name in ("level", "type", "size"))
        if level and kind in ("Data", "Unified") and size and size[-1] in "KM":
            found[f"L{level}" + ("d" if kind == "Data" else "")] = int(size[:-1]) << (10 if size[-1] == "K" else 20)
    if not found and sys.platform == "darwin":
        names = {"L1d": "hw.l1dcachesize", "L2": "hw.l2cachesize", "L3": "hw.l3cachesize"}
        sizes = {k: _sysctl(v) for k, v in names.items()}
        found = {k: int(v) for k, v in sizes.items() if v and v.isdigit() and int(v)}
    return found


def _cores_physical() -> int | None:
    blocks = (_read("/proc/cpuinfo") or "").split("\n\n")
    places = {tuple(re.findall(r"^(?:physical id|core id)\s*:\s*(\d+)$", block, re.M)) for block in blocks}
    known = {place for place in places if len(place) == 2}
    if known:
        return len(known)
    import psutil  # noqa: PLC0415  (see above)

    return psutil.cpu_count(logical=False)


def _memory_bytes() -> int:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on Windows
        import psutil  # noqa: PLC0415  (see above)

        total = int(psutil.virtual_memory().total)
    limit = _read("/sys/fs/cgroup/memory.max") or ""
    return min(total, int(limit)) if limit.isdigit() else total


@dataclass(frozen=True)
class Peaks:
    """What one core reached when nothing else was asked of it.

    Units:   gmac_per_s: 1e9 float32 multiply-adds per second; gb_per_s: 1e9 bytes per second read from memory;
             bandwidth: the same by level (``L2``, ``L3``, ``memory``, ``L1d`` where the method can see it);
             int8_gmac_per_s: 1e9 multiply-adds of bytes per second, 0 where the method cannot tell
    """

    gmac_per_s: float
    gb_per_s: float
    bandwidth: Mapping[str, float]
    method: str
    """How they were measured; a stand-in by numpy's BLAS is a lower bound."""
    int8_gmac_per_s: float = 0.0


def peaks(measure: Callable[[], Peaks] | None = None) -> Peaks:
    """The peaks of one core, measured once for each host and method and then read from the user's cache folder.

    ``measure`` is the native compiler's own measurement; without it numpy's BLAS stands in, in a process of its own
    because a BLAS fixes its number of threads when it is loaded.
    """
    name = "numpy" if measure is None else f"{measure.__module__}.{measure.__qualname__}"
    told = [field.name for field in fields(Peaks)]
    path = platformdirs.user_cache_path("hasten") / f"peaks-{digest([host_key(), name, told, library_versions()])}.json"
    try:
        return Peaks(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        found = (measure or _peaks_by_numpy)()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.part")
        temporary.write_text(json.dumps(to_json(found)))
        temporary.replace(path)
    except OSError:
        pass  # a read-only home costs a second next time, nothing more
    return found


_SCRIPT = """
import json, sys, time
import numpy as np
def best(call, seconds=0.12):
    call(); least, end = 1e9, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter(); call(); least = min(least, time.perf_counter() - start)
    return least
n = 512
a, b, c = (np.ones((n, n), np.float32) for _ in range(3))
out = {"gmac_per_s": n**3 / best(lambda: np.matmul(a, b, out=c)) / 1e9, "bandwidth": {}}
for level, size in json.loads(sys.argv[1]).items():
    x, y = np.ones(size // 8, np.float32), np.ones(size // 8, np.float32)
    loops = max(1, 4_000_000 // size)
    def read():
        for _ in range(loops):
            np.dot(x, y)
    out["bandwidth"][level] = loops * 2 * x.nbytes / best(read) / 1e9
print(json.dumps(out))
"""


def _peaks_by_numpy() -> Peaks:
    caches = host().caches
    # half of a cache stays in it; memory is read through four times the largest; a level-1 cache is read through in
    # less time than Python needs for the call
    sizes = {level: size // 2 for level, size in caches.items() if size >= 1 << 18} | {
        "memory": 4 * max([*caches.values(), 16 << 20])
    }
    sizes["memory"] = min(sizes["memory"], 256 << 20)
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1")
    command = [sys.executable, "-c", _SCRIPT, json.dumps(sizes)]
    done = subprocess.run(command, env={**os.environ, **one}, capture_output=True, text=True, check=True, timeout=60)
    found = json.loads(done.stdout)
    return Peaks(found["gmac_per_s"], found["bandwidth"]["memory"], found["bandwidth"], "numpy BLAS, one thread")
