"""What the other files of a package say: whether one of them sees to what a file leaves open.

A library's method is often run from another file, under `no_grad` there. Texts alone are read, nothing is resolved:
what is found here keeps a rule silent and never makes it speak.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path

__all__ = ["is_in_package", "is_named_beside"]

_MOST = 4000  # files of one package
_LONGEST = 500_000  # bytes of one file
_DEEPEST = 8
_CARES = re.compile(r"no_grad|inference_mode|grad_enabled|\.eval\(\)")


def is_in_package(file: Path | None) -> bool:
    """True for a file beside an `__init__.py`: other files may see to what it leaves open."""
    return file is not None and (file.parent / "__init__.py").exists()


def is_named_beside(file: Path, mark: re.Pattern[str], names: Sequence[re.Pattern[str]], module: str = "") -> bool:
    """True when another file of the package holds a mark, such as `no_grad`, and every one of ``names``.

    ``module``: the file that is asked, by its name without ending; empty: any.
    """
    return any(mark.search(text) and all(n.search(text) for n in names) for text in _others(file, module))


def _others(file: Path, module: str) -> Iterator[str]:
    if not file.exists():
        return  # a text that lies nowhere has none beside it
    root = _root(file)
    found = root.rglob("*.py") if (root / "__init__.py").exists() else root.glob("*.py")
    try:
        for path in islice(found, _MOST):
            said = path.stat()
            if path != file and said.st_size < _LONGEST and module in ("", path.stem):
                yield _text(path, said.st_mtime_ns)
    except OSError:
        return  # a folder that can't be read says nothing


def _root(file: Path) -> Path:
    """The outermost package that a file belongs to; the file's folder where it belongs to none."""
    folder = file.absolute().parent
    for above in islice((folder, *folder.parents), _DEEPEST):
        if not (above / "__init__.py").exists():
            break
        folder = above
    return folder


@lru_cache(maxsize=_MOST)
def _text(path: Path, _changed: int) -> str:
    """A file's text where it has to do with inference modes, else ''. ``_changed`` makes an edited file another one."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return text if _CARES.search(text) else ""
