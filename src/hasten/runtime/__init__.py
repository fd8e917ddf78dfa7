"""A bundle enters; a ``Model`` leaves that is called like the original.

``load`` picks the artefact that runs here and opens it; ``Model`` checks what it is handed and splits rows over the
compiled batch sizes. Imports numpy, the standard library and the one engine, nothing else.
"""

from hasten.runtime.loading import load
from hasten.runtime.model import Model

__all__ = ["Model", "load"]
