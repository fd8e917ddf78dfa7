"""The command line: one file a command; parse, call ``api``, print. ``app`` turns errors into one line and code 2.

Standard output carries the result alone (a table, or JSON with ``--json``); progress and messages go to standard error.
"""

from __future__ import annotations

__all__ = ["main"]

# Nothing is imported here: until ``main`` runs, Ctrl-C shows Python's traceback.


def main() -> None:
    """Entry point of the ``hasten`` program: exits with 0, 1 (findings), 2 (bad input) or 130 (interrupted)."""
    try:
        _listen_and_run()
    except KeyboardInterrupt:
        import sys  # noqa: PLC0415

        print("hasten: interrupted", file=sys.stderr)
        exec("")  # as in ``ending_at_once``
        sys.exit(130)


def _listen_and_run() -> None:
    import atexit  # noqa: PLC0415
    import gc  # noqa: PLC0415

    from hasten.cli.interrupts import ending_at_once, raise_swallowed  # noqa: PLC0415

    # On its way out the interpreter looks for cycles among all objects: with TensorFlow imported, for over a second.
    atexit.register(gc.freeze)
    with ending_at_once():
        from hasten.cli.app import run  # noqa: PLC0415  (a third of a second, in which Ctrl-C may come too)

        raise_swallowed()
        run()
