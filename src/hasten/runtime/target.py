"""Which machine code this processor can run."""

from __future__ import annotations

from hasten import host

__all__ = ["runs_here"]

_LEVELS = ("x86-64-v2", "x86-64-v3", "x86-64-v4")  # each runs the code of those before it, and sorts after them

# Target → its level, and whether its code uses VNNI, BF16 and VBMI2 besides.
_X86 = {
    "x86-64-v2": ("x86-64-v2", False),
    "x86-64-v3": ("x86-64-v3", False),
    "x86-64-v4-base": ("x86-64-v4", False),
    "x86-64-v4": ("x86-64-v4", True),
    "zen4": ("x86-64-v4", True),
}


def runs_here(target: str, made_here: bool) -> bool:
    """True when code for ``target`` (an instruction set of ``native/isa.py``) runs on this processor.

    Newer x86-64 levels run code of older ones. Code for no level in particular names no architecture either, so it
    counts only on the machine it was made on.
    """
    here = host.isa()
    if target in _X86:
        level, needs_all = _X86[target]
        return here.name in _LEVELS and here.name >= level and (not needs_all or here.whole)
    if target in ("aarch64", "aarch64-dotprod"):
        return here.name == "aarch64" and (here.dotprod or target == "aarch64")
    return target == "any" or made_here
