"""Keeps Python's garbage collector from walking a framework's millions of objects again and again."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["rarely_collected"]

_YOUNG = 50_000
"""Objects made until the youngest are looked at. Importing a framework and reading a model of 800 layers make millions
that stay: at Python's 700, looking for garbage among them takes a tenth of the time, and at this a thirtieth."""
_ALONE = threading.Lock()
_inside = 0
_before = (0, 0, 0)


@contextmanager
def rarely_collected() -> Iterator[None]:
    """The collector of this process looks seldom inside; what the user has set comes back when the last one leaves.

    A collector that is off, or seldom looks already, stays as it is.
    """
    global _inside, _before
    with _ALONE:
        if not _inside:
            _before = gc.get_threshold()
            if 0 < _before[0] < _YOUNG:
                gc.set_threshold(_YOUNG, *_before[1:])
        _inside += 1
    try:
        yield
    finally:
        with _ALONE:
            _inside -= 1
            if not _inside and gc.get_threshold() == (_YOUNG, *_before[1:]):
                gc.set_threshold(*_before)
