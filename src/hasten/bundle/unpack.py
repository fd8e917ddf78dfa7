"""Laying an artefact's files out where an engine can open them: a folder named by their content, made once."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import tempfile
import time
from pathlib import Path

from hasten.bundle.contents import Entry, sha256_of
from hasten.bundle.read import Bundle
from hasten.errors import BundleError
from hasten.records import Artefact, digest

__all__ = ["cache_folder", "unpack"]

_KEEP_DAYS = 60


def cache_folder(kind: str) -> Path:
    """The user's folder for files that can be made again; ``kind`` is ``artefacts`` or ``rebuilt``."""
    from platformdirs import user_cache_dir  # noqa: PLC0415  (kept off the import path)

    return Path(user_cache_dir("hasten", appauthor=False)) / kind


def unpack(bundle: Bundle, entry: Entry) -> Artefact:
    """The entry's artefact with its files on disk, equal to the bundle's bytes.

    Raises:  BundleError: no folder to write to, or the bundle has changed
    """
    folder = cache_folder("artefacts") / digest(dict(entry.hashes))
    try:
        if not _holds(folder, entry, bundle):
            _forget_old(folder.parent)
            _fill(folder, bundle, entry)
        with contextlib.suppress(OSError):
            os.utime(folder)
    except OSError:
        folder = _temporary(bundle, entry)
    return dataclasses.replace(entry.artefact, folder=folder)


def _holds(folder: Path, entry: Entry, bundle: Bundle) -> bool:
    """True when every file is there and whole; files that are executed are hashed again, others by their size."""
    for name, expected in entry.hashes.items():
        start, stop = bundle.spans[f"{entry.member}/{name}"]
        file = folder / name
        if not file.is_file() or file.stat().st_size != stop - start:
            return False
        if entry.runs_code and sha256_of(file) != expected:
            return False
    return True


def _fill(folder: Path, bundle: Bundle, entry: Entry) -> None:
    """Writes beside and renames: a folder of that name is always complete, whoever else writes it now."""
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write_files(draft, bundle, entry)
        shutil.rmtree(folder, ignore_errors=True)  # only an incomplete or altered one is ever here
        with contextlib.suppress(OSError):
            draft.rename(folder)
        if not _holds(folder, entry, bundle):
            raise OSError(f"cannot complete '{folder}'")
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_files(folder: Path, bundle: Bundle, entry: Entry) -> None:
    for name in entry.artefact.files:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bundle.member(f"{entry.member}/{name}"))
        if entry.runs_code:
            file.chmod(0o700)


def _temporary(bundle: Bundle, entry: Entry) -> Path:
    import atexit  # noqa: PLC0415  (only where there is no cache)

    try:
        folder = Path(tempfile.mkdtemp(prefix="hasten-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        _write_files(folder, bundle, entry)
    except OSError as error:
        raise BundleError(
            f"cannot unpack bundle '{bundle.path}': no writable cache or temporary folder ({error.strerror or error}); "
            "set XDG_CACHE_HOME or TMPDIR to one"
        ) from error
    return folder


def _forget_old(parent: Path) -> None:
    """Removes what no load has touched for two months; an open file of it stays usable until it is closed."""
    oldest = time.time() - _KEEP_DAYS * 86400
    with contextlib.suppress(OSError):
        for folder in parent.iterdir():
            if folder.stat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)
