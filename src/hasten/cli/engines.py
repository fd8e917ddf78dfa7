"""``hasten engines``: which engines are here, and what installs those that are not."""

from __future__ import annotations

from typing import Any

from hasten.cli import options as o

__all__ = ["engines"]


def engines(json: o.AsJson = False) -> None:
    """List every engine: its version if it is installed, else what installs it."""
    from hasten.engines import ENGINES  # noqa: PLC0415  (not for --help)

    found = [_facts(name) for name in ENGINES]
    if json:
        import json as json_module  # noqa: PLC0415  (the option has taken its name)

        print(json_module.dumps(found, indent=1))
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for title in ("engine", "here", "version, or what is missing"):
        table.add_column(title, overflow="fold")
    for facts in found:
        versions = ", ".join(f"{package} {version}" for package, version in facts["versions"].items())
        table.add_row(facts["engine"], "yes" if facts["available"] else "no", Text(facts["missing"] or versions))
    Console().print(table, highlight=False)


def _facts(name: str) -> dict[str, Any]:
    from hasten.engines import engine  # noqa: PLC0415
    from hasten.host import ENGINE_PACKAGES, library_versions  # noqa: PLC0415

    try:
        missing = engine(name).missing()
    except ImportError as error:
        missing = f"not part of this install ({error})"
    packages = ENGINE_PACKAGES.get(name, ())
    versions = {package: v for package, v in library_versions(name).items() if package in packages}
    return {"engine": name, "available": missing is None, "missing": missing, "versions": versions}
