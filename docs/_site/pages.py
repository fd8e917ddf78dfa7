"""Build hooks of the site: folders in the navigation become their pages; commands describe themselves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page

from hasten.cli.app import app

_MARK = "<!-- commands -->"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The navigation with each ``folder/`` replaced by the pages in it, its index first; no pages, no entry."""
    docs = Path(config.docs_dir)
    nav = []
    for entry in config.nav or []:
        title, target = next(iter(entry.items())) if isinstance(entry, dict) else (None, entry)
        if isinstance(target, str) and target.endswith("/"):
            pages = sorted((docs / target).glob("*.md"), key=lambda p: (p.name != "index.md", p.name))
            if pages:
                nav.append({title: [page.relative_to(docs).as_posix() for page in pages]})
        else:
            nav.append(entry)
    config.nav = nav
    return config


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """The page with its mark replaced by what the command line says of itself."""
    return markdown.replace(_MARK, _commands()) if _MARK in markdown else markdown


def _commands() -> str:
    """Every command with its help and options, read from the program itself, so that the page cannot fall behind."""
    group = typer.main.get_command(app)
    commands = getattr(group, "commands", {})
    return "\n\n".join(_command(name, command) for name, command in commands.items() if not command.hidden)


def _command(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden and p.name != "help"]
    usage = " ".join(
        ["hasten", name, *(f"[{a.name.upper()}]" if not a.required else a.name.upper() for a in arguments)]
    )
    parts = [f"## {name}", f"```\n{usage} [OPTIONS]\n```", (command.help or "").replace("\b", "").strip()]
    if options or any(getattr(a, "help", None) for a in arguments):
        rows = [(f"`{a.name.upper()}`", getattr(a, "help", None) or "", "") for a in arguments]
        rows += [
            (", ".join(f"`{o}`" for o in [*p.opts, *p.secondary_opts]), p.help or "", _default(p)) for p in options
        ]
        lines = ["| | | default |", "|---|---|---|", *("| " + " | ".join(map(_cell, row)) + " |" for row in rows)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _default(option: Any) -> str:
    value = option.default
    if value is None or value is False or callable(value) or value in ((), [], ""):
        return ""
    return f"`{', '.join(map(str, value)) if isinstance(value, (list, tuple)) else value}`"


def _cell(text: str) -> str:
    plain = re.sub(r"\[bold\](.*?)\[/\w*\]", r"`\1`", text)
    return " ".join(plain.replace("|", "\\|").split())
