"""Contents enter; a bundle lies on disk, whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import secrets
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hasten.bundle import signing
from hasten.bundle.contents import FORMAT, GRAPH, MANIFEST, MEASUREMENTS, Contents, Entry, seal, sha256, sha256_of
from hasten.bundle.frame import frame_hash
from hasten.errors import BundleError
from hasten.records import to_json
from hasten.types import Array

__all__ = ["copy", "write"]

_EPOCH = (1980, 1, 1, 0, 0, 0)  # zip's first date: equal contents give equal bytes


def write(path: Path, contents: Contents) -> Path:
    """The bundle at ``path``; an older file there is replaced only once the new one is complete.

    Raises:  BundleError: the folder is missing, not writable or full; nothing is left behind
    """
    entries = tuple(map(_sealed, contents.entries))
    with _whole_or_not(path) as draft:
        _write_archive(draft, contents, entries)
        _seal(draft)
    return path


def copy(source: Path, target: Path) -> Path:
    """The same bundle at another path, whole or not at all.

    Raises:  BundleError: ``source`` is gone, or ``target`` cannot be written
    """
    if source.resolve() == target.resolve():
        return target
    if not source.is_file():
        raise BundleError(f"cannot save '{target}': the bundle it was loaded from, '{source}', is gone")
    with _whole_or_not(target) as draft:
        shutil.copyfile(source, draft)
        with draft.open("r+b") as file:
            os.fsync(file.fileno())
    return target


def _sealed(entry: Entry) -> Entry:
    artefact = entry.artefact
    hashes = {name: sha256_of(artefact.folder / name) for name in artefact.files}
    hashed = dataclasses.replace(entry, hashes=hashes, mac=None)
    return dataclasses.replace(hashed, mac=signing.sign(hashed)) if hashed.runs_code else hashed


def _write_archive(draft: Path, contents: Contents, entries: tuple[Entry, ...]) -> None:
    members: dict[str, str] = {}
    with zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:

        def add(name: str, data: bytes) -> None:
            members[name] = sha256(data)
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)

        if contents.graph is not None:
            add(GRAPH, contents.graph)
        for entry in entries:
            for name, digest in entry.hashes.items():
                members[f"{entry.member}/{name}"] = digest
                _add_file(archive, f"{entry.member}/{name}", entry.artefact.folder / name)
        _add_checks(add, contents)
        add(MEASUREMENTS, json.dumps(to_json(contents.measurements)).encode())
        manifest = _manifest(contents, entries) | {"members": members}
        archive.writestr(zipfile.ZipInfo(MANIFEST, _EPOCH), json.dumps(manifest, indent=1))
        archive.comment = seal("0" * 64)


def _add_file(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.file_size = path.stat().st_size
    with path.open("rb") as source, archive.open(info, "w") as target:
        shutil.copyfileobj(source, target, 1 << 20)


def _add_checks(add: Callable[[str, bytes], None], contents: Contents) -> None:
    for names, arrays in zip(
        contents.name_of_checks, zip(contents.samples, contents.expected, strict=True), strict=True
    ):
        for name, array in zip(names[0] + names[1], (*arrays[0], *arrays[1]), strict=True):
            add(name, _npy(array))


def _npy(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _manifest(contents: Contents, entries: tuple[Entry, ...]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "inputs": [spec.to_json() for spec in contents.inputs],
        "outputs": [spec.to_json() for spec in contents.outputs],
        "artefacts": [entry.to_json() for entry in entries],
        "checks": len(contents.samples),
        "tolerance": to_json(contents.tolerance),
        "facts": to_json(contents.facts),
        "rewrites": to_json(contents.rewrites),
    }


def _seal(draft: Path) -> None:
    """Replaces the placeholder in the archive's comment by the hash of the archive's frame."""
    with draft.open("r+b") as file:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
        comment = seal(frame_hash(file, infos, {})[0])
        file.seek(-len(comment), os.SEEK_END)
        file.write(comment)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _whole_or_not(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``, renamed to it at the end and removed on any failure."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        if path.is_dir():
            raise IsADirectoryError(f"'{path}' is a folder")
        yield draft
        draft.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise BundleError(
            f"cannot write bundle '{path}': {reason}; choose another place with -o, or make room there"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself durable where the system lets a folder be synced."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
