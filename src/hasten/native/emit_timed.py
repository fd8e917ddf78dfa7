"""C that can be timed enters a library of its own: the counter read after every call, or one step over and over."""

from __future__ import annotations

from dataclasses import replace

from hasten.native.emit import ARGUMENTS, Emitted, Emitter, run_body, written
from hasten.native.isa import Isa
from hasten.native.plan import apart, plan
from hasten.native.program import Program

__all__ = ["emit_apart", "emit_profiled"]


def emit_profiled(program: Program, isa: Isa, *, threads: int = 1, math: str = "default") -> Emitted:
    """The program with a ``hasten_profile`` beside it, which stamps the time before and after it, or after every call.

    That of a team of ``threads`` is run by one thread, which does all the parts.
    """
    out = written(program, isa, plan(program), threads, math)
    emitted = out.text("hasten")
    return replace(emitted, source=emitted.source + _profile(out))


def emit_apart(program: Program, isa: Isa, *, math: str = "default") -> Emitted:
    """C whose ``hasten_repeat`` runs any one step any number of times: no two tensors share memory."""
    out = written(program, isa, apart(program), math=math)
    emitted = out.text("hasten")
    return replace(emitted, source=emitted.source + _repeat(out))


# A counter that runs at a constant rate; the profiler calibrates it against the clock. It is read when all before it is
# done and before anything after it begins: a processor would read it early, with much of a small step still to do.
_TICK = """
#if defined(__x86_64__)
static inline uint64_t tick(void) {
    __builtin_ia32_lfence();
    const uint64_t t = __builtin_ia32_rdtsc();
    __builtin_ia32_lfence();
    return t;
}
#elif defined(__aarch64__)
static inline uint64_t tick(void) {
    uint64_t t;
    __asm__ volatile("isb\n\tmrs %0, cntvct_el0\n\tisb" : "=r"(t) : : "memory");
    return t;
}
#else
#include <time.h>
static inline uint64_t tick(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
#endif
"""


def _profile(out: Emitter) -> str:
    """A run that writes the counter twice before the first call, then after the last, or after each one if ``all``."""
    lines = [_TICK, f"API void hasten_profile({ARGUMENTS}, uint64_t *ticks, int all);"]
    lines.append(f"void hasten_profile({ARGUMENTS}, uint64_t *ticks, int all) {{")
    body, at = run_body(out, out.calls, team=False), 0
    first = (
        next((i for i, line in enumerate(body) if line.startswith(f"    {out.names[0]}(")), len(body))
        if out.names
        else 0
    )
    lines += [*body[:first], "    ticks[0] = tick();", "    ticks[1] = tick();"]
    for line in body[first:]:
        lines.append(line)
        if at < len(out.names) and line.startswith(f"    {out.names[at]}("):
            at += 1
            stamp = f"ticks[{at + 1}] = tick();"
            lines.append(f"    {stamp}" if at == len(out.names) else f"    if (all) {stamp}")
    return "\n".join([*lines, "    (void)all;", "}", ""])


def _repeat(out: Emitter) -> str:
    cases: list[str] = []
    for step in range(len(out.program.steps)):
        calls = [c for c, owner in zip(out.calls, out.owners, strict=True) if owner == step]
        run = " ".join(f"{c.name}({', '.join((*c.arguments, *(('0', '1', '0') if c.split else ())))});" for c in calls)
        cases.append(f"        case {step}: {run} break;")
    body = run_body(out, [], team=False)
    end = len(body) - (1 if out.isa.arch == "x86_64" else 0)  # the guard's last line
    loop = ["    for (; times > 0; times--) {", "        switch (step) {", *cases, "        }"]
    loop += ['        __asm__ volatile("" ::: "memory"); /* no turn is left out */', "    }"]
    head = f"void hasten_repeat({ARGUMENTS}, int step, long times)"
    return "\n".join([f"API {head};", f"{head} {{", *body[:end], *loop, *body[end:], "}", ""])
