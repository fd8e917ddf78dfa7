"""What the user chose: rules, paths, limits; from ``[tool.hasten.doctor]`` and the command line."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hasten.doctor.words import words
from hasten.errors import SettingsError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["DEFAULT_EXCLUDES", "Settings", "find_settings"]

DEFAULT_EXCLUDES = words(
    ".bzr .direnv .eggs .git .git-rewrite .hg .ipynb_checkpoints .mypy_cache .nox .pants.d .pyenv .pytest_cache "
    ".pytype .ruff_cache .svn .tox .venv .vscode __pypackages__ __pycache__ _build buck-out build dist node_modules "
    "site-packages venv"
)

_KEYS = ("select", "ignore", "exclude", "extend-exclude", "per-file-ignores", "max-file-kb", "respect-gitignore")


@dataclass(frozen=True)
class Settings:
    """Which rules look at which files.

    ``select`` and ``ignore`` hold codes or their beginnings (``H1``); the longer one wins. ``root`` is the folder of
    the pyproject.toml they came from: patterns are relative to it.
    """

    select: tuple[str, ...] = ("H",)
    ignore: tuple[str, ...] = ()
    exclude: tuple[str, ...] = tuple(sorted(DEFAULT_EXCLUDES))
    per_file_ignores: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    max_file_kb: int = 1024
    respect_gitignore: bool = True
    root: Path | None = None

    def wants(self, code: str) -> bool:
        """True when the rule is selected, and not ignored by a selector as long or longer."""
        chosen = max((len(s) for s in self.select if code.startswith(s) or s == "ALL"), default=-1)
        refused = max((len(s) for s in self.ignore if code.startswith(s)), default=-1)
        return chosen >= 0 and chosen > refused

    def for_file(self, path: Path) -> Settings:
        """These settings with the ignores that ``per-file-ignores`` gives this path."""
        more = [c for pattern, codes in self.per_file_ignores.items() if self.matches(path, pattern) for c in codes]
        return replace(self, ignore=(*self.ignore, *more)) if more else self

    def matches(self, path: Path, pattern: str) -> bool:
        """True when a pattern names this path: by one of its parts, by its name, or from the root."""
        if any(fnmatch.fnmatch(part, pattern) for part in path.parts[-1:]):
            return True
        relative = _relative(path, self.root)
        if any(fnmatch.fnmatch(part, pattern) for part in relative.parts):
            return True
        text = relative.as_posix()
        return fnmatch.fnmatch(text, pattern.rstrip("/")) or fnmatch.fnmatch(text, pattern.rstrip("/") + "/*")

    def excludes(self, path: Path, below: Path) -> bool:
        """True when a folder or file found beneath ``below`` is excluded."""
        if any(fnmatch.fnmatch(part, p) for part in _relative(path, below).parts for p in self.exclude):
            return True
        return any(self.matches(path, p) for p in self.exclude if "/" in p)


def find_settings(start: Path) -> Settings:
    """The nearest ``[tool.hasten.doctor]`` at or above ``start``; the defaults where there is none.

    Raises:  SettingsError: not TOML, an unknown key, a value of the wrong type
    """
    folder = start if start.is_dir() else start.parent
    for place in (folder.resolve(), *folder.resolve().parents):
        file = place / "pyproject.toml"
        if file.is_file():
            table = _table(file)
            if table is not None:
                return _settings(table, file)
    return Settings()


def _table(file: Path) -> dict[str, Any] | None:
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SettingsError(
            f"cannot read settings '{file}': expected TOML, received: {error}; mend the file"
        ) from error
    table = data.get("tool", {}).get("hasten", {}).get("doctor")
    return table if table is None or isinstance(table, dict) else {}


def _settings(table: Mapping[str, Any], file: Path) -> Settings:
    unknown = sorted(set(table) - set(_KEYS))
    if unknown:
        raise SettingsError(
            f"unknown key '{unknown[0]}' in [tool.hasten.doctor] of '{file}': expected {', '.join(_KEYS)}"
        )
    default = Settings()
    ignores = table.get("per-file-ignores", {})
    if not isinstance(ignores, dict):
        raise SettingsError(f"'per-file-ignores' in '{file}': expected a table, received {type(ignores).__name__}")
    return Settings(
        select=_codes(table, "select", file) or default.select,
        ignore=_codes(table, "ignore", file),
        exclude=(*(_strings(table, "exclude", file) or default.exclude), *_strings(table, "extend-exclude", file)),
        per_file_ignores={p: tuple(c.upper() for c in _strings(ignores, p, file)) for p in ignores},
        max_file_kb=_number(table, file, default.max_file_kb),
        respect_gitignore=bool(table.get("respect-gitignore", True)),
        root=file.parent,
    )


def _strings(table: Mapping[str, Any], key: str, file: Path) -> tuple[str, ...]:
    value = table.get(key, ())
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence) or not all(isinstance(v, str) for v in value):
        raise SettingsError(f"'{key}' in '{file}': expected a list of strings, received {value!r}")
    return tuple(value)


def _codes(table: Mapping[str, Any], key: str, file: Path) -> tuple[str, ...]:
    return tuple(code.upper() for code in _strings(table, key, file))


def _number(table: Mapping[str, Any], file: Path, default: int) -> int:
    value = table.get("max-file-kb", default)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise SettingsError(f"'max-file-kb' in '{file}': expected a positive number, received {value!r}")
    return value


def _relative(path: Path, root: Path | None) -> Path:
    if root is None:
        return Path(path.name) if path.is_absolute() else path
    try:
        return path.resolve().relative_to(root.resolve())
    except ValueError:
        return Path(path.name)
