"""How the program ended, as tests see it. (Not in conftest: every folder of tests may have one of that name.)"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Ran", "Run"]


@dataclass(frozen=True)
class Ran:
    """Exit code, standard output and standard error."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]
