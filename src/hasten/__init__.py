"""hasten makes a trained model answer in microseconds, and proves that it still gives the same answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from hasten.api import Settings, benchmark, compile, explain, load, optimize
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
