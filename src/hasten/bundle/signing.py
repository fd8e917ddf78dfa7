"""Vouching for code: a signature by a secret that only this user's account can read.

Loading a shared library runs it, and so does opening a pickle. An artefact that this user's own hasten built carries a
matching signature; any other is rebuilt from the portable graph, or needs ``trust=True``
(docs/decisions/0003-machine-code-in-bundles.md).
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
import warnings
from pathlib import Path

from hasten.bundle.contents import Entry, canonical
from hasten.errors import BundleError

__all__ = ["is_ours", "must_be_vouched", "sign"]

_BYTES = 32


def sign(entry: Entry) -> str | None:
    """The signature of an entry that runs code; None where this account can keep no secret."""
    key = _key(make=True)
    return None if key is None else hmac.new(key, canonical(entry.facts), "sha256").hexdigest()


def is_ours(entry: Entry) -> bool:
    """True when this user's own hasten signed exactly these files and details."""
    key = _key(make=False) if entry.mac else None
    if key is None or entry.mac is None:
        return False
    return hmac.compare_digest(hmac.new(key, canonical(entry.facts), "sha256").hexdigest(), entry.mac)


def must_be_vouched(entry: Entry, *, trust: bool) -> None:
    """Returns where opening the entry runs no code, or code that this user made or trusts.

    Raises:  BundleError: it runs somebody else's
    """
    if entry.runs_code and not trust and not is_ours(entry):
        raise BundleError("its code was not built by this user; trust=True (--trust) runs it all the same")


def _key_path() -> Path:
    from platformdirs import user_config_dir  # noqa: PLC0415  (only code needs it)

    return Path(user_config_dir("hasten", appauthor=False)) / "bundle.key"


def _key(*, make: bool) -> bytes | None:
    path = _key_path()
    try:
        if make and not path.exists():
            _make(path)
        if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
            warnings.warn(f"ignoring signing key '{path}': others may read it; run chmod 600 on it", stacklevel=2)
            return None
        key = path.read_bytes()
    except OSError:
        return None
    return key if len(key) == _BYTES else None


def _make(path: Path) -> None:
    """A new key, complete before it carries its name: two processes may start at once, and the first link wins."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(_BYTES))
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
