"""A Keras model, object or file, enters; a ``Source`` leaves: read layer by layer by an importer of our own.

``files`` opens what is on disk, ``signature`` says what the model takes, ``assemble`` writes the graph by ``convert``
and the families of converters in ``table``. What no converter knows goes whole through Keras' own export (``stock``).
"""

from __future__ import annotations

from hasten.sources.keras.source import open_keras

__all__ = ["open_keras"]
