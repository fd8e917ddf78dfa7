"""From what the user named to the files to read: folders walked, .gitignore and excludes respected."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pathspec

from hasten.doctor.check import Job
from hasten.doctor.settings import Settings
from hasten.errors import SettingsError

__all__ = ["is_test_path", "jobs"]

_ENDINGS = (".py", ".ipynb", ".pyw")
_TEST_FOLDERS = ("test", "tests", "testing")


def jobs(paths: Iterable[Path], settings: Settings, fix: str = "") -> Iterator[Job]:
    """A job for each Python file and notebook in ``paths``; a file named outright is never excluded.

    Raises:  SettingsError: a path does not exist
    """
    seen: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise SettingsError(f"cannot read '{path}': expected a file or folder, found none")
        found = [path] if path.is_file() else sorted(_walk(path, settings))
        for file in found:
            if file in seen:
                continue
            seen.add(file)
            below = file.relative_to(path) if path.is_dir() else Path(file.name)
            yield Job(file, str(file), settings.for_file(file), fix, is_test_path(below))


def is_test_path(path: Path) -> bool:
    """True for what lies in a folder of tests beneath what the user named, and for pytest's own file."""
    return path.name == "conftest.py" or any(part in _TEST_FOLDERS for part in path.parts[:-1])


def _walk(root: Path, settings: Settings) -> Iterator[Path]:
    ignored = _ignores_above(root) if settings.respect_gitignore else []
    stack = [(root, ignored)]
    while stack:
        folder, rules = stack.pop()
        if settings.respect_gitignore:
            rules = [*rules, *_ignores(folder)]
        try:
            entries = list(os.scandir(folder))
        except OSError:
            continue
        for entry in entries:
            path = Path(entry.path)
            is_folder = entry.is_dir(follow_symlinks=False)
            if not is_folder and not (entry.name.endswith(_ENDINGS) and entry.is_file()):
                continue
            if settings.excludes(path, root) or _is_ignored(path, is_folder, rules):
                continue
            if is_folder:
                stack.append((path, rules))
            else:
                yield path


_Ignores = tuple[Path, "pathspec.PathSpec[pathspec.Pattern]"]


def _ignores(folder: Path) -> list[_Ignores]:
    file = folder / ".gitignore"
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    try:
        return [(folder.absolute(), pathspec.PathSpec.from_lines("gitignore", lines))]
    except (ValueError, LookupError):
        return []


def _ignores_above(root: Path) -> list[_Ignores]:
    """The .gitignore files between the repository's top and ``root``."""
    above = list(root.absolute().parents)
    top = next((i for i, p in enumerate(above) if (p / ".git").exists()), None)
    if (root / ".git").exists() or top is None:
        return []
    return [rule for folder in reversed(above[: top + 1]) for rule in _ignores(folder)]


def _is_ignored(path: Path, is_folder: bool, rules: list[_Ignores]) -> bool:
    verdict = False
    for folder, spec in rules:
        relative = path.absolute().relative_to(folder).as_posix() + ("/" if is_folder else "")
        result = spec.check_file(relative).include
        verdict = verdict if result is None else result
    return verdict
