"""Ctrl-C while a command runs ends it with one line and code 130, whatever a library made of it on the way."""

from __future__ import annotations

import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from hasten.errors import BundleError, InputError

__all__ = ["INTERRUPTED", "ending_at_once", "interruptible", "raise_swallowed"]

INTERRUPTED = 130

_heard: list[int] = []
"""Every Ctrl-C since the command at hand began."""


def raise_swallowed() -> None:
    """Raises again a Ctrl-C that came before; to be called where none that came through can have been."""
    if _heard:
        raise KeyboardInterrupt


@contextmanager
def ending_at_once() -> Iterator[None]:
    """For the whole program: Ctrl-C before there is a command ends it too, and nothing is told after its one line."""
    told = sys.unraisablehook
    # What the interruption left half made (an archive, say) may complain when it is freed.
    sys.unraisablehook = lambda unraisable: None if _heard else told(unraisable)
    with _listening():
        try:
            yield
        except KeyboardInterrupt as error:
            _tell(error)
            sys.exit(INTERRUPTED)
        finally:
            # CPython marks an interruption that crosses the text of an exec (a dataclass being made, say), caught or
            # not, and `python -m` then dies by the signal, whatever code was asked for. The next such text unmarks it.
            exec("")


def interruptible(command: Callable[..., None]) -> Callable[..., None]:
    """The command; interrupted, it says so, with what the interruption itself says, and exits with 130."""
    import typer  # noqa: PLC0415  (Ctrl-C is listened for before it is imported)

    def end(interruption: KeyboardInterrupt, cause: Exception | None = None) -> NoReturn:
        _tell(interruption)
        raise typer.Exit(INTERRUPTED) from cause or interruption

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        with _listening():
            try:
                command(*args, **options)
            except KeyboardInterrupt as error:
                end(error)
            except (typer.Exit, BundleError, InputError):
                raise
            except Exception as error:
                # While it is imported, a library may take Ctrl-C for a part of it that is missing.
                if not _heard:
                    raise
                end(KeyboardInterrupt(), error)

    return run


def _tell(interruption: KeyboardInterrupt) -> None:
    print(f"hasten: interrupted {interruption}".rstrip(), file=sys.stderr)


@contextmanager
def _listening() -> Iterator[None]:
    """Every Ctrl-C from now on is noted, and raised as ever."""

    def hear(number: int, frame: FrameType | None) -> None:
        _heard.append(number)
        signal.default_int_handler(number, frame)

    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    _heard.clear()
    signal.signal(signal.SIGINT, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
