"""Which torch a project asks for: what an old one does to a line can't happen where only newer ones are installed."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import islice
from pathlib import Path

__all__ = ["least_torch"]

_FILES = ("pyproject.toml", "setup.py", "setup.cfg", "requirements.txt")
_DEEPEST = 8
_LONGEST = 200_000  # bytes of one file
# `torch>=2.6`, `torch==2.7.1`, `torch = "^2.6"`, `torch (>=2.6)`; torchvision and torch-geometric are others.
_FLOOR = re.compile(
    r"""(?:^|["'\s,])torch(?:\[[^\]]*\])?["']?\s*\(?\s*(?:>=|==|~=|=\s*"(?:\^|~|>=|==)?)\s*(\d+)\.(\d+)"""
)

_ASKED = re.compile(r"^Requires-Dist:(.*)$", re.MULTILINE)


def least_torch(file: Path | None) -> tuple[int, int] | None:
    """The oldest torch, as major and minor version, that the project around a file lets in; None where it says none."""
    if file is None or not file.exists():
        return None
    for folder in islice(file.absolute().parents, _DEEPEST):
        said = _said(folder)
        if said is not None:
            return min(said, default=None)
    return None


@lru_cache(maxsize=4000)
def _said(folder: Path) -> tuple[tuple[int, int], ...] | None:
    """The versions that a folder's own files name; None for a folder that is no project's."""
    found = [folder / name for name in _FILES if (folder / name).is_file()]
    unpacked = list(islice(folder.glob("*.dist-info/METADATA"), 2))  # a wheel's own; of many installed none speaks
    try:
        texts = [p.read_text(encoding="utf-8", errors="replace") for p in found if p.stat().st_size < _LONGEST]
        if not found and len(unpacked) == 1:
            found = unpacked
            texts = _ASKED.findall(unpacked[0].read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    versions = (m for text in texts for m in _FLOOR.finditer(text))
    return tuple((int(m[1]), int(m[2])) for m in versions) if found else None
