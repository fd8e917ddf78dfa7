"""Instruction sets: how wide a vector is, how many registers there are, and the compiler's flags."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

from hasten import host
from hasten.errors import SettingsError

__all__ = ["ISAS", "Isa", "for_host", "isa"]


@dataclass(frozen=True)
class Isa:
    """A target's vector unit.

    Units:   lanes: float32 values per vector; registers: architectural vector registers; passes: turns of the
             arithmetic unit that one vector takes
    """

    name: str
    lanes: int
    registers: int
    arch: str
    cpu: str
    """The value of clang's ``-mcpu`` (zig's spelling)."""
    march: str
    """The value of gcc's and clang's ``-march``."""
    features: frozenset[str] = frozenset()
    headers: tuple[str, ...] = ()
    """Files of ``c/`` with its vector functions; a later one has the better of those in both."""
    passes: int = 1
    half_headers: tuple[str, ...] = ()
    """The like for vectors of half as many lanes; none where they would gain nothing."""
    near_bytes: int = field(default=512 << 10, compare=False)
    """Weights that are read once take longer than those of 24 bits (``few_words``) beyond so many bytes.

    The size of the second cache; of the first, where shifts that take in another word's bits make these so cheap. Of
    a target that is not at hand, what many have.
    """
    second_bytes: int = field(default=1 << 20, compare=False)
    """The second cache of a core."""
    last_bytes: int = field(default=8 << 20, compare=False)
    """The last cache, which cores share; none where the second is the last."""

    @cached_property
    def half(self) -> Isa | None:
        """The same processor by vectors of half the width, in as many registers; None where that gains nothing."""
        if not self.half_headers:
            return None
        return replace(self, lanes=self.lanes // 2, headers=self.half_headers, half_headers=(), passes=1)

    def widths(self, columns: int) -> tuple[Isa, ...]:
        """The widths of vectors to choose from for rows of so many values, each as a target, the better one first.

        Half the width is among them where it takes fewer turns.
        """
        whole, half = replace(self, half_headers=()), self.half
        return (half, whole) if half and half.turns(columns) < whole.turns(columns) else (whole,)

    def turns(self, columns: int) -> int:
        """Turns of the arithmetic unit that a row of so many values takes, by the better width of vectors."""
        whole = -(-columns // self.lanes) * self.passes
        return min(whole, self.half.turns(columns)) if self.half else whole

    @property
    def compiler_flags(self) -> tuple[str, ...]:
        """What gcc and clang call this instruction set; nothing for C without any."""
        extra = self.cpu.split("+")[1:] if self.arch == "x86_64" else ()
        return (*((f"-march={self.march}",) if self.march else ()), *(f"-m{name}" for name in extra))

    @property
    def portable(self) -> bool:
        """True for C without any processor's own instructions."""
        return self.arch == "any"


# Each level has what the one below it has, by wider registers.
_V2 = ("lanes.h", "x86_64_v2.h")
_V3 = (*_V2, "x86_64_v3.h")
_V4 = (*_V3, "x86_64_v4_any.h", "x86_64_v4.h")
_V4_HALF = (*_V3, "x86_64_v4_any.h", "x86_64_v4_half.h")

ISAS: dict[str, Isa] = {
    i.name: i
    for i in (
        Isa(
            "x86-64-v4", 16, 32, "x86_64", "x86_64_v4+avx512vnni+avx512bf16+avx512vbmi2", "x86-64-v4",
            frozenset({"fma", "vnni", "bf16", "vbmi2"}), _V4, near_bytes=32 << 10,
        ),
        # the same, for a processor that computes 512 bits in two halves: half of a vector takes half as long
        Isa(
            "zen4", 16, 32, "x86_64", "x86_64_v4+avx512vnni+avx512bf16+avx512vbmi2", "x86-64-v4",
            frozenset({"fma", "vnni", "bf16", "vbmi2"}), _V4, 2, _V4_HALF, near_bytes=32 << 10,
        ),
        Isa("x86-64-v4-base", 16, 32, "x86_64", "x86_64_v4", "x86-64-v4", frozenset({"fma"}), _V4),
        Isa("x86-64-v3", 8, 16, "x86_64", "x86_64_v3", "x86-64-v3", frozenset({"fma"}), _V3),
        Isa("x86-64-v2", 4, 16, "x86_64", "x86_64_v2", "x86-64-v2", headers=_V2),
        Isa(
            "aarch64", 4, 32, "aarch64", "generic+neon", "armv8-a",
            frozenset({"fma"}), ("lanes.h", "aarch64.h"), last_bytes=0,
        ),
        Isa(
            "aarch64-dotprod", 4, 32, "aarch64", "generic+neon+dotprod", "armv8.2-a+dotprod",
            frozenset({"fma", "dotprod"}), ("lanes.h", "aarch64.h"), last_bytes=0,
        ),
        # vectors as gcc and clang write them, for any processor
        Isa("c-vector", 4, 16, "any", "", "", headers=("lanes.h", "c_vector.h")),
        Isa("c", 1, 16, "any", "", "", headers=("c.h",)),
    )
}  # fmt: skip


def isa(name: str) -> Isa:
    """The instruction set of that name.

    Raises:  SettingsError: no such instruction set
    """
    if name not in ISAS:
        raise SettingsError(f"unknown instruction set '{name}': expected one of {', '.join(ISAS)}")
    return ISAS[name]


def for_host() -> Isa:
    """The widest instruction set that this machine runs, with its caches."""
    found = _widest()
    level = "L1d" if "vbmi2" in found.features else "L2"
    caches = host.host().caches
    return replace(
        found,
        near_bytes=caches.get(level, found.near_bytes),
        second_bytes=caches.get("L2", found.second_bytes),
        last_bytes=caches.get("L3", 0) if caches else found.last_bytes,
    )


def _widest() -> Isa:
    found = host.isa()
    if found.name == "x86-64-v4":
        full = "zen4" if found.halves else "x86-64-v4"
        return ISAS[full if found.whole else "x86-64-v4-base"]
    if found.name == "aarch64":
        return ISAS["aarch64-dotprod" if found.dotprod else "aarch64"]
    return ISAS.get(found.name, ISAS["c-vector"])
