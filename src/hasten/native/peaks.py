"""What one core of this machine can do at most: multiply-adds per second, and bytes per second from each cache level.

A few lines of C built like every model: independent multiply-adds of floats and of bytes in registers, and vector loads
of arrays that fit half of a cache, in the ways that draw the most. The best of many short repeats is the peak.
"""

from __future__ import annotations

import ctypes
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from hasten.host import Peaks, host
from hasten.native.build import compile_library
from hasten.native.emit import Emitted
from hasten.native.isa import for_host
from hasten.native.kernels.byte_image import in_words
from hasten.native.vectors import helpers

__all__ = ["measure"]

_SOURCE = """
#define API __attribute__((visibility("default")))
#define CHAINS 12
API float peak_fma(long n);
float peak_fma(long n) {{
    vf a[CHAINS];
    for (int j = 0; j < CHAINS; j++) a[j] = v_set1(1.0f + j);
    const vf b = v_set1(0.999f);
    for (long i = 0; i < n; i++) {{
        for (int j = 0; j < CHAINS; j++) a[j] = a[j] * b + b;
        for (int j = 0; j < CHAINS; j++) __asm__ volatile("" : "+{register}"(a[j]));
    }}
    for (int j = 1; j < CHAINS; j++) a[0] += a[j];
    return v_sum(a[0]);
}}
API long peak_bytes(long n);
long peak_bytes(long n) {{
    vi a[CHAINS], x = v_set1i((int)n), w = v_set1i((int)n + 1);
    for (int j = 0; j < CHAINS; j++) a[j] = v_set1i(j);
    for (long i = 0; i < n; i++) {{
        __asm__ volatile("" : "+{register}"(x), "+{register}"(w)); /* or a product written out would leave the loop */
        for (int j = 0; j < CHAINS; j++) a[j] = {dot}(a[j], x, w);
        for (int j = 0; j < CHAINS; j++) __asm__ volatile("" : "+{register}"(a[j]));
    }}
    for (int j = 1; j < CHAINS; j++) a[0] += a[j];
    int first;
    __builtin_memcpy(&first, a, sizeof first);
    return first;
}}
/* sums of n floats from p on, read as one stream from either half, or as one in all that is asked for ahead */
static inline __attribute__((always_inline)) float sums(const float *p, long n, long times, int ahead) {{
    vf a[8];
    for (int j = 0; j < 8; j++) a[j] = v_set1(0.0f);
    const long apart = ahead ? 4 * VL : n / 2, hop = ahead ? 8 * VL : 4 * VL, end = ahead ? n : n / 2;
    for (long t = 0; t < times; t++) {{
        for (long i = 0; i < end; i += hop) {{
            if (ahead) for (int j = 0; j < 8 * VL; j += 16) __builtin_prefetch(p + i + 384 + j);
            for (int j = 0; j < 4; j++) a[j] += v_load(p + i + j * VL);
            for (int j = 0; j < 4; j++) a[4 + j] += v_load(p + i + apart + j * VL);
        }}
        __asm__ volatile("" ::: "memory");
    }}
    for (int j = 1; j < 8; j++) a[0] += a[j];
    return v_sum(a[0]);
}}
API float peak_read(const float *p, long n, long times, int ahead);
float peak_read(const float *p, long n, long times, int ahead) {{
    return ahead ? sums(p, n, times, 1) : sums(p, n, times, 0);
}}
"""
_SECONDS = 0.04
# For the third cache: well beyond the second, and no more than what other processors leave of it.
_SHARED_BYTES = 4 << 20


def measure() -> Peaks:
    """The peaks of one core, in about half a second.

    Raises:  CompilerError: no compiler, or it refused the code
    """
    isa = for_host()
    register = {"x86_64": "v" if isa.registers == 32 else "x", "aarch64": "w"}.get(isa.arch, "m")
    dot, taken = ("v_dot2", 2) if in_words(isa) else ("v_dot4", 4)
    needed = ("v_set1", "v_load", "v_sum", "v_set1i", dot)
    source = "\n".join(helpers(isa, needed)) + _SOURCE.format(register=register, dot=dot)
    with tempfile.TemporaryDirectory(prefix="hasten-") as folder:
        library = ctypes.CDLL(str(compile_library(Emitted(source, b"", 0, (), 0), isa, Path(folder))))
    library.peak_fma.argtypes, library.peak_fma.restype = [ctypes.c_long], ctypes.c_float
    library.peak_read.argtypes = [ctypes.c_void_p, ctypes.c_long, ctypes.c_long, ctypes.c_int]
    loops = 20_000
    library.peak_bytes.argtypes, library.peak_bytes.restype = [ctypes.c_long], ctypes.c_long
    gmacs = loops * 12 * isa.lanes / _best(lambda: library.peak_fma(loops))
    of_bytes = loops * 12 * isa.lanes * taken / _best(lambda: library.peak_bytes(loops))
    bandwidth = {}
    for level, size in _sizes(host().caches).items():
        bandwidth[level] = _bandwidth(library, size)
    method = "native code, one thread, best of many short repeats"
    return Peaks(gmacs, bandwidth["memory"], bandwidth, method, of_bytes)


def _sizes(caches: Mapping[str, int]) -> dict[str, int]:
    """Bytes of the array to read for each cache, and for the memory."""
    sizes = {level: size // 2 for level, size in caches.items()}
    if "L3" in sizes:
        sizes["L3"] = min(sizes["L3"], max(_SHARED_BYTES, 4 * caches.get("L2", 0)))
    sizes["memory"] = min(4 * max([*caches.values(), 16 << 20]), 256 << 20)
    return sizes


def _bandwidth(library: ctypes.CDLL, size: int) -> float:
    """Bytes per nanosecond (GB/s) read from an array of ``size`` bytes, again and again, in the better of two ways."""
    floats = size // 4 // 256 * 256
    memory = np.ones(floats + 16, np.float32)
    start = (memory.ctypes.data + 63) // 64 * 64
    times = max(1, (2 << 20) // size)
    ways = (partial(library.peak_read, start, floats, times, ahead) for ahead in (0, 1))
    return 4 * floats * times / min(map(_best, ways))


def _best(call: Callable[[], object]) -> float:
    """Nanoseconds of the fastest call."""
    call()
    least, end = float("inf"), time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter_ns()
        call()
        least = min(least, time.perf_counter_ns() - start)
    return least
