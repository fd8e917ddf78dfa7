"""A file or framework object enters; a ``Source`` leaves: portable graph, the framework's own answers, its file.

One file a framework. ``open_source`` picks the adapter by what the thing *is* (content first, ending second). Next
room: ``passes``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

from hasten.types import Array, TensorSpec

__all__ = ["Reference", "Source", "SourceRequest"]

Reference = Callable[[Sequence[Array]], tuple[Array, ...]]


@dataclass(frozen=True)
class SourceRequest:
    """What the user said about the model they hand in.

    Shapes:  shapes: input name → every dimension, for models whose free dimensions are more than the batch
    """

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    trust: bool = False
    sample: tuple[Array, ...] | None = None
    """One example of every input; gives the free dimensions when ``shapes`` does not."""
    work: Path | None = None
    """A folder for files that the adapter must write (a saved copy of an object); it outlives the source."""
    example: Any = None
    """The same as the user built it, dicts and nested tuples with arrays at their ends: models that take structures."""
    copy: bool = True
    """Whether anything will open the saved copy of an object; else an adapter that needs none itself writes none."""


@dataclass(frozen=True)
class Source:
    """A model as its own framework sees it, and as a portable graph.

    ``model`` is None where the file holds an operator that no importer reads; engines that open the original file
    (LiteRT, the framework itself) then still run. ``reference`` runs the source framework itself in this process.
    Free batch dimensions are called ``"batch"`` in specs and graph alike; no other dimension is free.
    """

    framework: str
    """keras, tensorflow, tflite, torch or onnx."""
    path: Path
    """The file that the framework itself opens, here or in a candidate's process."""
    model: ir.Model | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    reference: Reference
    notes: tuple[str, ...] = ()
    """What the importer wants the report to say (fell back to a stock exporter, and why; unreadable operators)."""
    steps: int = 1
    """By which its own sets of kernels differ from one another in answers of few bits, and at least 1."""
    spread: float = 0.0
    """The same of a quantised model's float answers, as a part of their largest magnitude."""
    trusted: bool = False
    fingerprint: str = ""
    """Names the model's content: equal models, equal fingerprint. Part of the key of every saved trial."""
    sample: tuple[Array, ...] | None = None
    """The request's example, one array per input, where the adapter alone knows which is which."""
    rows_mix: bool = False
    """A row's answer depends on the rows beside it: the batch is fixed, and no other number of rows may be split."""
    held: tuple[Mapping[str, Array], ...] = ()
    """Values of inputs that obey a rule which random integers break (offsets, lengths); all of one set hold together.

    Shapes:  one row of an input with a free batch, else the whole input"""
    repeats: bool = False
    """Every part is known to answer by its inputs alone: where two answers are those of ``model`` too, all are."""
    answered: tuple[tuple[Array, ...], tuple[Array, ...]] | None = None
    """One set of inputs and what ``model`` as it stands gave for it, where it was run already."""
    changing: Callable[[Sequence[Array]], str | None] | None = None
    """Names the part of the model that another call leaves changed, where the framework lets one see."""
