"""A program enters, C text and the packed weights leave. Pure: the same program and target give the same bytes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256

import numpy as np

from hasten.native.isa import Isa
from hasten.native.plan import ALIGNMENT, Plan, plan
from hasten.native.program import C_TYPES, Program, Tensor, View
from hasten.native.vectors import helpers, narrowed
from hasten.types import Array

__all__ = [
    "ARGUMENTS",
    "BUILT",
    "C_TYPES",
    "SPLIT_MACS",
    "Call",
    "Emitted",
    "Emitter",
    "emit",
    "inner",
    "run_body",
    "written",
]

# Two threads meet in about 0.1 µs; a step below this is over sooner than the meeting pays.
SPLIT_MACS = 24_000
# The compiler takes time out of proportion over a long function; beyond so many steps it may not make one of all.
_MOST_INLINED = 32
# What every function of the library is given first.
ARGUMENTS = "const unsigned char *weights, unsigned char *arena, const void *const *inputs, void *const *outputs"
# What symbols begin with in a library that a session opens; an exported one has its own name.
BUILT = "hasten"
# Stands for a function's own name until it is known whether one that reads the same is there already.
_OWN_NAME = "OWN_NAME"


@dataclass(frozen=True)
class Call:
    """One call in the body: ``split`` where a team shares it out."""

    name: str
    arguments: tuple[str, ...]
    split: bool


@dataclass(frozen=True)
class Emitted:
    """What the compiler is given."""

    source: str
    weights: bytes
    arena_bytes: int
    calls: tuple[str, ...]
    """The function of each step, in order."""
    splits: int
    """How many of them a team of threads shares out; 0 for one thread."""
    step_bytes: tuple[int, ...] = ()
    """Constant bytes that each call reads."""
    owners: tuple[int, ...] = ()
    """The program's step behind each call."""


@dataclass
class Emitter:
    """Gathers functions, the calls in order, constants, and the vector functions that they need."""

    program: Program
    isa: Isa
    plan: Plan
    threads: int = 1
    math: str = "default"
    _functions: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    _needs: set[str] = field(default_factory=set)
    _blob: bytearray = field(default_factory=bytearray)
    _offsets: dict[tuple[str, bytes], int] = field(default_factory=dict)
    _constants: dict[int, int] = field(default_factory=dict)
    _counter: int = 0
    _named: dict[str, str] = field(default_factory=dict)
    _shared: dict[str, str] = field(default_factory=dict)
    _touched: int = 0
    step_bytes: list[int] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    _step: int = 0
    _narrow: bool = False
    names: list[str] = field(default_factory=list)
    _stem: str = ""
    stores: bool = True
    """Whether constants are packed and kept: for how the functions read they need not be."""

    @property
    def lanes(self) -> int:
        """float32 values per vector."""
        return self.isa.lanes

    def need(self, *names: str) -> None:
        """Asks for vector functions of ``c/``, by name."""
        self._needs.update(map(self._written, names))

    @contextmanager
    def vectors(self, lanes: int) -> Iterator[None]:
        """Within it ``isa`` has vectors of so many lanes, all of its own or half as many; what is emitted uses them."""
        before = self.isa, self._narrow
        if lanes != self.isa.lanes:
            assert self.isa.half is not None and self.isa.half.lanes == lanes
            self.isa, self._narrow = self.isa.half, True
        try:
            yield
        finally:
            self.isa, self._narrow = before

    def _written(self, text: str) -> str:
        return narrowed(text) if self._narrow else text

    def fresh(self, stem: str) -> str:
        """A C name not used before within the function that is being written."""
        self._counter += 1
        name = f"{stem}{self._counter}"
        self._named[name] = stem
        return name

    @staticmethod
    def number(value: float) -> str:
        """A float32 literal that reads back exactly."""
        v = np.float32(value)
        if np.isnan(v):
            return '__builtin_nanf("")'
        if np.isinf(v):
            return "__builtin_inff()" if v > 0 else "-__builtin_inff()"
        text = repr(float(v)) if float(repr(float(v))) == v else f"{v:.9g}"
        short = (
            np.format_float_positional(v, unique=True)
            if 1e-4 <= abs(v) < 1e7
            else np.format_float_scientific(v, unique=True)
        )
        text = short if np.float32(short) == v else text
        return text + ("f" if "." in text or "e" in text else ".0f")

    def constant(self, array: Array | Callable[[], Array]) -> str:
        """A C pointer expression to the packed values, 64-byte aligned; equal constants are stored once.

        A function that packs them is called only where they are stored.
        """
        if not self.stores:
            return "weights"
        data = np.ascontiguousarray(array() if callable(array) else array)
        raw = data.reshape(-1).view(np.uint8).data
        key = (data.dtype.str, sha256(raw).digest())
        self._touched += data.nbytes
        if key not in self._offsets:
            self._blob.extend(b"\0" * (-len(self._blob) % ALIGNMENT))
            self._offsets[key] = len(self._blob)
            self._blob.extend(raw)
            self._blob.extend(b"\0" * ALIGNMENT)  # vectors may be read past the end
        return f"(const {C_TYPES[data.dtype.name]} *)(weights + {self._offsets[key]})"

    def pointer(self, target: View | Tensor, *, write: bool = False) -> str:
        """A C expression for the address of the view's first element."""
        tensor, offset = (target.tensor, target.offset) if isinstance(target, View) else (target, 0)
        if tensor.kind == "constant":
            assert tensor.data is not None
            base = self.constant(tensor.data)
        else:
            base = self.plan.name(tensor)
        return f"{base} + {offset}" if offset else base

    def splits(self, macs: int) -> bool:
        """True where a step of so many multiply-accumulates is worth sharing out to the team of threads."""
        return self.threads > 1 and macs >= SPLIT_MACS

    def function(
        self, step_name: str, comment: str, signature: Sequence[tuple[str, str]], body: str, *, split: bool = False
    ) -> None:
        """A call of one static function: ``signature`` pairs each parameter's C declaration with its argument.

        Calls whose functions read the same share one. A ``split`` function is also given ``part``, ``parts`` and
        ``flags``: it does its share of the work, and may let all parts ``meet(flags, part, parts)`` in between.
        """
        declarations = [d for d, _ in signature]
        if split:
            declarations += ["const int part", "const int parts", "unsigned *flags"]
        alone = "__attribute__((noinline)) " if len(self.program.steps) > _MOST_INLINED else ""
        head = f"/* {comment} */\nstatic {alone}void {_OWN_NAME}({', '.join(declarations)})"
        name = self._define(f"{head} {{\n{body.rstrip()}\n}}\n", f"{self._stem}{step_name}_{len(self.names) + 1}")
        self.names.append(name)
        self.step_bytes.append(self._touched)
        self.owners.append(self._step)
        self._touched = 0
        self.calls.append(Call(name, tuple(a for _, a in signature), split))

    def inline(self, stem: str, text: str) -> str:
        """The name of a function that a later one calls, not a step of its own; ``text`` names it ``stem``."""
        return self._define(re.sub(rf"\b{stem}\b", _OWN_NAME, text), f"{self._stem}{stem}_{len(self._shared) + 1}")

    def _define(self, text: str, name: str) -> str:
        """Writes a function under this name, unless one that reads the same is there: then its name."""
        text = self._written(self._renumbered(text))
        if text not in self._shared:
            self._shared[text] = name
            self._functions.append(text.replace(_OWN_NAME, name))
        return self._shared[text]

    def _renumbered(self, text: str) -> str:
        """The text with the names from ``fresh`` counted from one, so that equal work reads the same."""
        counts: Counter[str] = Counter()
        found: dict[str, str] = {}

        def rename(match: re.Match[str]) -> str:
            name = match[0]
            if name in self._named and name not in found:
                stem = self._named[name]
                counts[stem] += 1
                found[name] = f"{stem}{counts[stem]}"
            return found.get(name, name)

        return re.sub(r"\b[a-z_]+\d+\b", rename, text)

    def nested(self, program: Program, stem: str = "in") -> Emitter:
        """For a program that a step of this one runs: the same file and constants, tensors and calls of its own.

        Its functions' names begin with ``stem``: of two programs in one step each needs one of its own.
        """
        stem = f"{self._stem}{stem}{len(self.names) + 1}_"
        return replace(
            self, program=program, plan=plan(program), threads=1, _stem=stem, names=[], calls=[], step_bytes=[],
            owners=[], _touched=0,
        )  # fmt: skip

    def adopt(self, inner: Emitter) -> None:
        """Counts what a nested emitter used as used by the step that is being written."""
        self._counter = inner._counter
        self._touched += sum(inner.step_bytes) + inner._touched

    def statements(self) -> list[str]:
        """C that makes the program's calls where ``weights``, ``arena``, ``inputs`` and ``outputs`` are given."""
        return [line.strip() for line in _tensors_and_calls(self, self.calls, team=False)]

    @property
    def written(self) -> str:
        """All functions so far."""
        return "\n".join(self._functions)

    def needed(self) -> list[str]:
        """The vector functions that were asked for, without those that are called nowhere in the end."""
        called = set(re.findall(r"\b[vs]8?_\w+(?=\()", self.written))
        kept = ("v_lane", "v8_lane")  # a macro
        return sorted(n for n in self._needs if not re.match("[vs]8?_", n) or n in kept or n in called)

    def text(self, prefix: str) -> Emitted:
        """The finished file."""
        if self.isa.arch == "x86_64" and self.program.is_brief:
            self.need("near_zero")
        head = "\n".join(helpers(self.isa, self.needed(), math=self.math))
        return Emitted(
            source=_file(self, prefix, head, self.written, self.calls),
            weights=bytes(self._blob),
            arena_bytes=self.plan.nbytes,
            calls=tuple(self.names),
            splits=sum(c.split for c in self.calls),
            step_bytes=tuple(self.step_bytes),
            owners=tuple(self.owners),
        )


def _file(out: Emitter, prefix: str, head: str, functions: str, calls: Sequence[Call]) -> str:
    program = out.program
    lines = [f"/* {program.name}: compiled by hasten for {out.isa.name}."]
    for word, views in (("input", program.inputs), ("output", program.outputs)):
        lines += [f"   {word} {i}: {v.dtype} {'x'.join(map(str, v.shape)) or 'scalar'}" for i, v in enumerate(views)]
    lines.append(f"   weights: {len(out._blob)} bytes; arena: {out.plan.nbytes} bytes. */")
    api = '#define API __attribute__((visibility("default")))'
    # An exported plain C library brings its weights as a C array behind the same function.
    declared = f"const unsigned char *{prefix}_weights(void);"
    weights = (
        declared
        if out.isa.portable and prefix != BUILT
        else (
            f"extern const unsigned char {prefix}_weight_data[];\nAPI const unsigned char *{prefix}_weights(void);\n"
            f"const unsigned char *{prefix}_weights(void) {{ return {prefix}_weight_data; }}"
        )
    )
    parts = [*lines, head]
    if any(c.split for c in calls):
        parts.append(_MEET)
    parts += [functions, api, weights]
    # A session looks this up by name; in an exported library another is the interface.
    run = f"void {inner(prefix)}({ARGUMENTS})"
    parts += [
        *([f"API {run};", f"{run} {{"] if prefix == BUILT else [f"static {run} {{"]),
        *run_body(out, calls, team=False),
        "}",
    ]
    if any(c.split for c in calls):
        team = f"{ARGUMENTS}, int part, int parts, unsigned *flags"
        parts += [
            "/* the same by a team: every thread calls it with its own part */",
            f"API void {prefix}_part({team});",
        ]
        parts += [f"void {prefix}_part({team}) {{", *run_body(out, calls, team=True), "}"]
    return "\n".join([*parts, ""])


# One flag a part, each on a cache line of its own; a part raises its own and waits for all others to be as high.
# Waiting long means that another part's thread was taken off its processor: then this one makes room for it.
_MEET = """\
extern int sched_yield(void);
static inline void meet(unsigned *flags, const int part, const int parts) {
    if (parts == 1) return;
    const unsigned mine = flags[part * 16] + 1;
    __atomic_store_n(&flags[part * 16], mine, __ATOMIC_RELEASE);
    for (int other = 0; other < parts; other++)
        for (int spins = 0; (int)(__atomic_load_n(&flags[other * 16], __ATOMIC_ACQUIRE) - mine) < 0; spins++) {
            if (spins < 1000)
                PAUSE();
            else
                sched_yield();
        }
}
"""


def run_body(out: Emitter, calls: Sequence[Call], *, team: bool) -> list[str]:
    """The lines of a function that makes these calls, denormals counting as zero within it."""
    lines = _tensors_and_calls(out, calls, team=team)
    if out.isa.arch != "x86_64":
        return lines
    if not out.program.is_brief:
        start = ["    const unsigned state = _mm_getcsr(); /* denormals count as zero within the call */"]
        return [*start, "    _mm_setcsr(state | 0x8040);", *lines, "    _mm_setcsr(state);"]
    return [
        f"    const int small = near_zero(inputs[0], {out.program.inputs[0].size}); /* what follows may be denormal */",
        "    const unsigned state = small ? _mm_getcsr() : 0; /* then that counts as zero within the call */",
        "    if (small) _mm_setcsr(state | 0x8040);",
        *lines,
        "    if (small) _mm_setcsr(state);",
    ]


def _tensors_and_calls(out: Emitter, calls: Sequence[Call], *, team: bool) -> list[str]:
    lines = [f"    {line}" for line in out.plan.declarations(C_TYPES)]
    used = set(re.findall(r"\w+", " ".join(a for call in calls for a in call.arguments)))
    lines += [f"    (void){name};" for name in map(out.plan.name, out.plan.tensors) if name not in used]
    used.update(re.findall(r"\w+", " ".join(lines)))
    lines += [f"    (void){name};" for name in ("weights", "arena", "inputs", "outputs") if name not in used]
    met = True
    for call in calls:
        extra = ("part", "parts", "flags") if team else ("0", "1", "0")
        text = f"{call.name}({', '.join((*call.arguments, *(extra if call.split else ())))});"
        if not team:
            lines.append(f"    {text}")
        elif call.split:
            if not met:
                lines.append("    meet(flags, part, parts);")
            lines += [f"    {text}", "    meet(flags, part, parts);"]
            met = True
        else:
            lines.append(f"    if (part == 0) {text}")
            met = False
    return lines


def inner(prefix: str) -> str:
    """The function that runs the whole program: the interface itself, or what an exported one calls."""
    return f"{prefix}_run" if prefix == BUILT else f"{prefix}_program"


def emit(program: Program, isa: Isa, prefix: str = BUILT, *, threads: int = 1, math: str = "default") -> Emitted:
    """The C source and weights of a program for an instruction set, a team of ``threads`` and a tier of mathematics."""
    return written(program, isa, plan(program), threads, math).text(prefix)


def written(program: Program, isa: Isa, where: Plan, threads: int = 1, math: str = "default") -> Emitter:
    """An emitter that every step has written to, with the tensors where the plan puts them."""
    out = Emitter(program, isa, where, threads, math)
    for out._step, step in enumerate(program.steps):
        step.emit(out)
    return out
