"""hasten makes a trained model answer in microseconds, and proves that it still gives the same answers."""

from __future__ import annotations

__version__ = "0.1.0"

# For type checkers. `typing` itself would take most of the time in which the program does not hear Ctrl-C yet.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hasten.api import Settings, benchmark, compile, explain, load, optimize
    from hasten.api.exporting import export
    from hasten.errors import HastenError
    from hasten.runtime import Model
    from hasten.watching import watch

__all__ = [
    "HastenError",
    "Model",
    "Settings",
    "__version__",
    "benchmark",
    "compile",
    "explain",
    "export",
    "load",
    "optimize",
    "watch",
]

# Lazy, so that `import hasten` costs milliseconds and loading a bundle never imports the half that builds.
_HOMES = {
    "HastenError": "hasten.errors",
    "Model": "hasten.runtime",
    "load": "hasten.runtime",
    "Settings": "hasten.api",
    "benchmark": "hasten.api",
    "compile": "hasten.api",
    "explain": "hasten.api",
    "export": "hasten.api.exporting",
    "optimize": "hasten.api",
    "watch": "hasten.watching",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hasten' has no attribute '{name}'")
    import importlib  # noqa: PLC0415  (kept off the import path)

    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
