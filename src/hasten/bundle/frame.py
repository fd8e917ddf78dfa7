"""Hashing an archive in one pass: each member's bytes under its own hash, every other byte under the seal."""

from __future__ import annotations

import hashlib
import os
import struct
import zipfile
from collections.abc import Mapping, Sequence
from typing import BinaryIO

from hasten.bundle.contents import MANIFEST, seal
from hasten.errors import BundleError

__all__ = ["frame_hash", "spans"]

_LOCAL_HEADER = struct.Struct("<26xHH")  # lengths of the name and the extra field, which the payload follows
_BLOCK = 1 << 20


def spans(file: BinaryIO, infos: Sequence[zipfile.ZipInfo]) -> dict[str, tuple[int, int]]:
    """Where each member's bytes lie in the file, as (start, end).

    Raises:  BundleError: members overlap, reach past the end or are compressed (as a zip bomb's would)
    """
    size, found = file.seek(0, os.SEEK_END), {}
    for info in infos:
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
            raise BundleError(
                f"refused bundle '{file.name}': member '{info.filename}': expected stored bytes, received others"
            )
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size:
            raise BundleError(f"damaged bundle '{file.name}': member '{info.filename}' starts past the end of the file")
        start = info.header_offset + _LOCAL_HEADER.size + sum(_LOCAL_HEADER.unpack(header))
        found[info.filename] = (start, start + info.file_size)
    if len(found) != len(infos):
        raise BundleError(f"damaged bundle '{file.name}': two members carry the same name")
    end = 0
    for name, (start, stop) in sorted(found.items(), key=lambda item: item[1]):
        if start < end or stop > size:
            raise BundleError(
                f"damaged bundle '{file.name}': member '{name}' overlaps another or reaches past the end of the file"
            )
        end = stop
    return found


def frame_hash(
    file: BinaryIO, infos: Sequence[zipfile.ZipInfo], expected: Mapping[str, str]
) -> tuple[str, dict[str, tuple[int, int]]]:
    """The hash of all bytes outside the members (the manifest counts as outside) and the comment; and the spans.

    Raises:  BundleError: a member's bytes differ from the hash that ``expected`` names for it
    """
    where = spans(file, infos)
    frame, at = hashlib.sha256(), 0
    for name, (start, stop) in sorted(where.items(), key=lambda item: item[1]):
        if name == MANIFEST:
            continue
        _feed(frame, file, at, start)
        if name in expected:
            member = hashlib.sha256()
            _feed(member, file, start, stop)
            if member.hexdigest() != expected[name]:
                raise BundleError(
                    f"damaged bundle '{file.name}': member '{name}' does not match its hash; "
                    "fetch or make the bundle again"
                )
        at = stop
    _feed(frame, file, at, file.seek(0, os.SEEK_END) - len(seal("0" * 64)))
    return frame.hexdigest(), where


def _feed(digest: hashlib._Hash, file: BinaryIO, start: int, stop: int) -> None:
    file.seek(start)
    while start < stop:
        block = file.read(min(_BLOCK, stop - start))
        if not block:
            raise BundleError(f"damaged bundle '{file.name}': cut short")
        digest.update(block)
        start += len(block)
