"""Every error that hasten raises on purpose, as one tree.

    HastenError
    ├── SourceError            the model file or object cannot be read
    │   ├── OpenShapeError     an input's dimensions are free; the user has to say them
    │   ├── TrustError         reading it would run code from it; needs trust=True
    │   └── NondeterministicError  the same input gave two different answers
    ├── InputError             an array handed in has the wrong count, shape, dtype or content
    ├── PassError              a graph rewrite broke the graph, or changed its answers
    ├── EngineError            an engine cannot build or run this graph
    │   ├── MissingLibraryError    the library is not installed; the message names the extra
    │   └── UnsupportedOpError     no kernel for an operator; the message names it
    ├── VerifyError            no candidate gave the source's answers
    ├── BundleError            a .hasten file is damaged, too new, or made for another machine
    ├── CompilerError          the C compiler is missing or refused the emitted code
    └── SettingsError          an option's value is not one of those allowed

Messages are one line: what failed, what was expected and received, what to do next. The command line prints the
message alone and exits with code 2. Foreign exceptions become one of these where they arise, in their own adapter.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "BundleError",
    "CompilerError",
    "EngineError",
    "HastenError",
    "InputError",
    "MissingLibraryError",
    "NondeterministicError",
    "OpenShapeError",
    "PassError",
    "SettingsError",
    "SourceError",
    "TrustError",
    "UnsupportedOpError",
    "VerifyError",
]


class HastenError(Exception):
    """Base of every error raised on purpose; ``str(error)`` is one line meant for the user."""


class SourceError(HastenError):
    """The model file or object cannot be read."""


class OpenShapeError(SourceError):
    """An input has dimensions besides the batch that only the user can put numbers to.

    Shapes:  shapes: input name → one that would do
    """

    def __init__(self, message: str, shapes: Mapping[str, tuple[int, ...]] | None = None) -> None:
        super().__init__(message)
        self.shapes = dict(shapes or {})


class TrustError(SourceError):
    """Reading the model would run code stored in it."""


class NondeterministicError(SourceError):
    """The model answered the same input in two different ways."""


class InputError(HastenError, ValueError):
    """An array handed in has the wrong count, shape, dtype or content."""


class PassError(HastenError):
    """A graph rewrite left an invalid graph or changed the answers."""


class EngineError(HastenError):
    """An engine cannot build or run the graph."""


class MissingLibraryError(EngineError):
    """An optional library is not installed."""


class UnsupportedOpError(EngineError):
    """The engine has no kernel for an operator of the graph."""


class VerifyError(HastenError):
    """No candidate reproduced the source's answers."""


class BundleError(HastenError):
    """A bundle is damaged, of a newer format, or made for another machine."""


class CompilerError(HastenError):
    """The C compiler is missing or refused the emitted code."""


class SettingsError(HastenError, ValueError):
    """An option's value is not one of those allowed."""
