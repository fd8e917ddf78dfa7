"""A path enters; a ``Bundle`` leaves whose every byte was held against its hash."""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hasten.bundle.contents import FORMAT, GRAPH, MANIFEST, MEASUREMENTS, Entry, check_names, seal
from hasten.bundle.frame import frame_hash
from hasten.errors import BundleError
from hasten.types import Array, TensorSpec

__all__ = ["Bundle", "read"]

# No drive, no leading slash, no "..": nothing that could name a file outside the folder it is unpacked into.
_SAFE_NAME = re.compile(r"(?!.*(?:^|/)\.\.?(?:/|$))[A-Za-z0-9_.+@=-]+(?:/[A-Za-z0-9_.+@=-]+)*")


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. Members are read on demand and hashed again, so nothing large stays in memory."""

    path: Path
    manifest: Mapping[str, Any]
    spans: Mapping[str, tuple[int, int]]
    stamp: tuple[int, int, int]
    """Size, time of change and inode: a file that was replaced meanwhile must not be read by these spans."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The source's inputs, batch free where it was free."""
        return tuple(map(TensorSpec.from_json, self.manifest["inputs"]))

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The source's outputs, batch free where it was free."""
        return tuple(map(TensorSpec.from_json, self.manifest["outputs"]))

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Artefacts in order of preference."""
        return tuple(map(Entry.from_json, self.manifest["artefacts"]))

    @property
    def facts(self) -> Mapping[str, Any]:
        """Source, host, library versions, settings and verdict."""
        facts: Mapping[str, Any] = self.manifest["facts"]
        return facts

    @property
    def tolerance(self) -> Mapping[str, Any]:
        """What the answers were held against, as ``verify.Tolerance`` wrote it."""
        tolerance: Mapping[str, Any] = self.manifest["tolerance"]
        return tolerance

    def rewrites(self, batch: int) -> Sequence[Mapping[str, Any]] | None:
        """What every pass that changed the graph did to it, from the source on; None where the bundle does not say.

        Those made before hasten kept it do not.
        """
        found: Sequence[Mapping[str, Any]] | None = self.manifest.get("rewrites", {}).get(str(batch))
        return found

    def graph(self) -> bytes | None:
        """The portable ONNX graph; None where no importer could read the source."""
        return self.member(GRAPH) if GRAPH in self.spans else None

    def measurements(self) -> Mapping[str, Any]:
        """Every trial with its numbers."""
        found: Mapping[str, Any] = json.loads(self.member(MEASUREMENTS))
        return found

    def checks(self) -> list[tuple[tuple[Array, ...], tuple[Array, ...]]]:
        """Stored inputs, each with the source framework's own outputs."""
        found = []
        for index in range(self.manifest["checks"]):
            names = check_names(index, len(self.manifest["inputs"]), len(self.manifest["outputs"]))
            found.append((tuple(map(self._array, names[0])), tuple(map(self._array, names[1]))))
        return found

    def member(self, name: str) -> bytes:
        """One member's bytes.

        Raises:  BundleError: no such member, or the file has changed since it was opened
        """
        if name not in self.spans:
            raise BundleError(f"damaged bundle '{self.path}': expected a member '{name}', found none")
        start, stop = self.spans[name]
        try:
            with self.path.open("rb") as file:
                changed = _stamp(self.path) != self.stamp
                file.seek(start)
                data = file.read(stop - start)
        except OSError as error:
            raise BundleError(f"cannot read bundle '{self.path}': {error.strerror or error}") from error
        if changed or hashlib.sha256(data).hexdigest() != self.manifest["members"][name]:
            raise BundleError(f"bundle '{self.path}' was changed after it was loaded; load it again")
        return data

    def _array(self, name: str) -> Array:
        try:
            array: Array = np.load(io.BytesIO(self.member(name)), allow_pickle=False)
        except ValueError as error:
            raise BundleError(f"damaged bundle '{self.path}': member '{name}' is not a plain array") from error
        return array


def read(path: Path) -> Bundle:
    """The bundle at ``path``, every byte checked; nothing of it is run or written.

    Raises:  BundleError: missing, empty, damaged, unsafe, or of a newer format
    """
    try:
        if path.stat().st_size == 0:
            raise BundleError(f"cannot load bundle '{path}': the file is empty; make it again with hasten optimize")
        with path.open("rb") as file:
            manifest, spans = _checked(path, file)
    except OSError as error:
        raise BundleError(f"cannot load bundle '{path}': {error.strerror or error}") from error
    return Bundle(path.resolve(), manifest, spans, _stamp(path))


def _stamp(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _checked(path: Path, file: BinaryIO) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
    try:
        with zipfile.ZipFile(file) as archive:
            infos, comment = archive.infolist(), archive.comment
            manifest = json.loads(_manifest_bytes(path, archive))
    except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, EOFError) as error:
        raise BundleError(
            f"cannot load '{path}': expected a .hasten bundle, received another, damaged or cut-off file ({error})"
        ) from error
    _refuse_newer(path, manifest)
    members = manifest.get("members")
    names = {info.filename for info in infos}
    if not isinstance(members, dict) or names != {*members, MANIFEST}:
        raise BundleError(f"damaged bundle '{path}': its members are not those that its manifest lists")
    for name in names:
        if not _SAFE_NAME.fullmatch(name):
            raise BundleError(f"refused bundle '{path}': unsafe member name {name!r}")
    digest, spans = frame_hash(file, infos, members)
    if comment != seal(digest):
        raise BundleError(f"damaged bundle '{path}': it does not match its own hash; fetch or make it again")
    try:
        _check_names(path, manifest)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"damaged bundle '{path}': its manifest lacks or misnames {error}") from error
    return manifest, spans


def _manifest_bytes(path: Path, archive: zipfile.ZipFile) -> bytes:
    try:
        info = archive.getinfo(MANIFEST)
    except KeyError:
        raise BundleError(
            f"cannot load '{path}': a zip archive, but not a bundle (no {MANIFEST}); expected a file by hasten optimize"
        ) from None
    if info.compress_type != zipfile.ZIP_STORED:
        raise BundleError(f"refused bundle '{path}': {MANIFEST} is compressed, expected stored bytes")
    return archive.read(info)


def _refuse_newer(path: Path, manifest: Any) -> None:
    version = manifest.get("format") if isinstance(manifest, dict) else None
    if not isinstance(version, int) or version < 1:
        raise BundleError(f"damaged bundle '{path}': expected a format number in its manifest, received {version!r}")
    if version > FORMAT:
        raise BundleError(
            f"cannot load bundle '{path}': it is of format {version}, this hasten reads up to {FORMAT}; "
            "run pip install -U hasten"
        )


def _check_names(path: Path, manifest: Mapping[str, Any]) -> None:
    """Files that the artefacts name must be safe too, and be members: they become paths when unpacked."""
    for spec in manifest["inputs"] + manifest["outputs"]:
        TensorSpec.from_json(spec)
    for entry in manifest["artefacts"]:
        parsed = Entry.from_json(entry)
        for name in parsed.artefact.files:
            member = f"{parsed.member}/{name}"
            if not _SAFE_NAME.fullmatch(name) or manifest["members"].get(member) != parsed.hashes.get(name):
                raise BundleError(f"refused bundle '{path}': artefact file {name!r} is unsafe or not among the members")
