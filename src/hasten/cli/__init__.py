"""The command line: one file a command; parse, call ``api``, print. ``app`` turns errors into one line and code 2.

Standard output carries the result alone (a table, or JSON with ``--json``); progress and messages go to standard error.
"""

from __future__ import annotations

import atexit
import gc

from hasten.cli.interrupts import ending_at_once, raise_swallowed

__all__ = ["main"]


def main() -> None:
    """Entry point of the ``hasten`` program: exits with 0, 1 (findings), 2 (bad input) or 130 (interrupted)."""
    # On its way out the interpreter looks for cycles among all objects: with TensorFlow imported, for over a second.
    atexit.register(gc.freeze)
    with ending_at_once():
        from hasten.cli.app import run  # noqa: PLC0415  (a third of a second, in which Ctrl-C may come too)

        raise_swallowed()
        run()
