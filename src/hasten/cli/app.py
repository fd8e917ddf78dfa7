"""All commands under one name, and what becomes of an error that ends one of them."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from typing import Annotated, NoReturn

import typer

from hasten.cli.interrupts import interruptible
from hasten.cli.light import start_light
from hasten.errors import HastenError

__all__ = ["app", "run"]

# What typer raises for a misspelt command line: of click, or of typer's own copy of it in newer versions.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]

# In the order of the help page. Each module has a function of the command's name, and imports nothing heavy itself.
_COMMANDS = {
    "optimize": "Optimise and run",
    "bench": "Optimise and run",
    "predict": "Optimise and run",
    "info": "Look inside",
    "explain": "Look inside",
    "doctor": "Look inside",
    "engines": "Look inside",
    "export": "Ship elsewhere",
    "compress": "Ship elsewhere",
    "stream": "Ship elsewhere",
    "serve": "Ship elsewhere",
}


def run() -> None:
    """Runs the command that ``sys.argv`` names, and exits: with code 2 and one line where hasten refuses it."""
    debug = "--debug" in sys.argv or bool(os.environ.get("HASTEN_DEBUG"))
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    if debug:
        os.environ["HASTEN_DEBUG"] = "1"
    start_light()
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], prog_name="hasten", standalone_mode=False))
    except (HastenError, _UsageError) as error:
        if debug:
            raise
        _refuse(error)


def _refuse(error: Exception) -> NoReturn:
    """Ends with code 2 and one line on standard error; where JSON was asked for, with an object that says the same."""
    message = str(error)
    if isinstance(error, _UsageError):
        command = getattr(getattr(error, "ctx", None), "command_path", "hasten")
        message = f"{error.format_message().rstrip('.?')}; see {command} --help"  # type: ignore[attr-defined]
    message = " ".join(message.split())
    print(f"hasten: {message}", file=sys.stderr)
    if "--json" in sys.argv:
        print(json.dumps({"error": message}))
    sys.exit(2)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415  (slow, and only this option needs it)

        print(f"hasten {version('hasten')}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")] = False,
) -> None:
    """Makes a trained model answer in microseconds, and proves that it still gives the same answers.

    Start with: hasten optimize model.keras
    """


def _build() -> typer.Typer:
    found = typer.Typer(
        name="hasten",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    found.callback()(_root)
    for name, panel in _COMMANDS.items():
        module = f"hasten.cli.{name}"
        if importlib.util.find_spec(module) is not None:
            found.command(name, rich_help_panel=panel)(interruptible(getattr(importlib.import_module(module), name)))
    return found


app = _build()
