"""Keeps what C++ libraries print at start-up off the terminal: it goes to a file, told of only when something fails."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

__all__ = ["quiet_libraries"]


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """File descriptor 2 leads to a passing file; ``sys.stderr`` still leads to the terminal.

    TensorFlow and others write there directly, whatever their own settings say. ``HASTEN_DEBUG`` lets it through.
    """
    if os.environ.get("HASTEN_DEBUG") or not _is_real(sys.stderr):
        yield
        return
    ours, terminal = sys.stderr, os.dup(2)
    with tempfile.TemporaryFile() as swallowed, os.fdopen(os.dup(2), "w", buffering=1, errors="replace") as kept:
        sys.stderr.flush()
        os.dup2(swallowed.fileno(), 2)
        sys.stderr = kept
        try:
            yield
        finally:
            kept.flush()
            sys.stderr = ours
            os.dup2(terminal, 2)
            os.close(terminal)


def _is_real(stream: object) -> bool:
    """True when the stream writes to descriptor 2 itself, as it does not under a test or in a notebook."""
    try:
        return bool(stream.fileno() == 2)  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False
