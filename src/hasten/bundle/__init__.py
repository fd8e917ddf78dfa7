"""The file format: ``Contents`` enter, ``model.hasten`` lies on disk; a path enters, a checked ``Bundle`` leaves.

A stored zip: ``manifest.json``, ``graph.onnx`` (portable), artefacts, check samples with the source's own answers,
``measurements.json``. Every byte is covered by a hash that is checked at load. ``write`` makes one, ``read`` opens
one, ``unpack`` lays an artefact's files where an engine can open them, ``signing`` vouches for machine code made by
this user. Next room: ``runtime``.
"""

from hasten.bundle.contents import FORMAT, Contents, Entry
from hasten.bundle.read import Bundle, read
from hasten.bundle.write import copy, write

__all__ = ["FORMAT", "Bundle", "Contents", "Entry", "copy", "read", "write"]
