"""Which torch a project asks for: what an old one does to a line can't happen where only newer ones are installed.

And a name that a newer one has is no use where only older ones are.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import islice
from pathlib import Path

__all__ = ["is_of_torch", "is_torch_older", "least_torch"]

_FILES = ("pyproject.toml", "setup.py", "setup.cfg", "requirements.txt")
_DEEPEST = 8
_LONGEST = 200_000  # bytes of one file
# `torch>=2.6`, `torch==2.7.1`, `torch = "^2.6"`, `torch (>=2.6)`; torchvision and torch-geometric are others.
_FLOOR = re.compile(
    r"""(?:^|["'\s,])torch(?:\[[^\]]*\])?["']?\s*\(?\s*(?:>=|==|~=|=\s*"(?:\^|~|>=|==)?)\s*(\d+)\.(\d+)"""
)
# `torch==1.7.1`, `torch>=1.4,<1.9`, `torch = "^1.8"`, conda's `pytorch=1.7`.
_CEILING = re.compile(
    r"""(?:^|["'\s,])(?:py)?torch["']?\s*\(?(?:\s*[><=!~]+\s*[\d.*]+\s*,)*\s*"""
    r"""(==|~=|<=|<|=\s*"(?:\^|~|==|<)?|=)\s*(\d+)(?:\.(\d+))?(\.\d+)?""",
    re.MULTILINE,
)
# torchvision 0.13 goes with torch 1.12, 0.15 with 2.0, 0.22 with 2.7: one release of each at a time.
_VISION = re.compile(_CEILING.pattern.replace("(?:py)?torch[", "torchvision["), re.MULTILINE)
_CONDA = ("environment.yml", "environment.yaml", "conda.yaml")
_ANY_MINOR = _ANY_MAJOR = 99
_IS_TORCH = re.compile(r"""^(?:name\s*=\s*|Name:\s*)["']?torch["']?\s*$""", re.MULTILINE)
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
            texts = [unpacked[0].read_text(encoding="utf-8", errors="replace")]
    except OSError:
        return None
    if any(_IS_TORCH.search(text) for text in texts):
        return ((_ANY_MAJOR, 0),)  # torch's own files run with the torch they are of
    if found is unpacked:
        texts = [line for text in texts for line in _ASKED.findall(text)]
    versions = (m for text in texts for m in _FLOOR.finditer(text))
    return tuple((int(m[1]), int(m[2])) for m in versions) if found else None


def is_torch_older(file: Path | None, than: tuple[int, int]) -> bool:
    """True where the project around a file holds torch below a version: what is newer does not exist there.

    A bound on torchvision holds torch as well. A copy of torch itself is of whatever version it is: what it retired
    is its own to keep.
    """
    if file is None or not file.exists():
        return False
    if is_of_torch(file):
        return True
    for folder in islice(file.absolute().parents, _DEEPEST):
        newest = _newest(folder)
        if newest is not None:
            return newest < than
    return False


def is_of_torch(file: Path | None) -> bool:
    """True in torch itself, or a copy of it: its operators are written to be traced and exported too."""
    folders = islice(file.absolute().parents, _DEEPEST) if file is not None else ()
    return any(f.name == "torch" and (f / "nn" / "functional.py").is_file() for f in folders)


@lru_cache(maxsize=4000)
def _newest(folder: Path) -> tuple[int, int] | None:
    """The newest torch that a folder's own files let in; None where they hold it to none."""
    found: list[tuple[int, int]] = []
    by_vision: list[tuple[int, int]] = []
    for path in (folder / name for name in (*_FILES, *_CONDA)):
        try:
            text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        except OSError:
            return None
        found += [_highest(m) for m in _CEILING.finditer(text[:_LONGEST])]
        by_vision += [_torch_beside(*_highest(m)) for m in _VISION.finditer(text[:_LONGEST])]
    bounds = [max(held) for held in (found, by_vision) if held]
    return min(bounds, default=None)


def _torch_beside(major: int, minor: int) -> tuple[int, int]:
    """The torch that a torchvision goes with."""
    if major or minor >= _ANY_MINOR:
        return (_ANY_MAJOR, 0)
    return (1, minor - 1) if minor < 15 else (2, minor - 15)


def _highest(held: re.Match[str]) -> tuple[int, int]:
    """The newest version that a bound lets in, as major and minor."""
    operator, major, minor = held[1], int(held[2]), int(held[3]) if held[3] else None
    if operator.endswith("<"):
        return (major, minor - 1) if minor else (major - 1, _ANY_MINOR)
    is_open = operator.endswith("^") or (operator.endswith("~=") and held[4] is None)
    return (major, _ANY_MINOR if minor is None or is_open else minor)
