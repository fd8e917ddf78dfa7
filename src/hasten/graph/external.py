"""A model whose weights lie in files beside it enters; an error leaves where such a file is not what the model says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir

from hasten.errors import SourceError

__all__ = ["data_files", "refuse_bad_files"]


def refuse_bad_files(model: ir.Model, path: Path) -> None:
    """Returns when each weight's bytes are there to be read; ``path`` is the model's own file.

    Raises:  SourceError: a data file is missing, a folder, too short, linked, or outside the model's folder
    """
    for tensor in _external(model):
        wrong = _wrong(tensor, path.parent)
        if wrong is not None:
            raise SourceError(f"cannot read ONNX model '{path}': its data file '{tensor.location}' {wrong}")


def data_files(path: Path) -> tuple[Path, ...]:
    """The files beside the ONNX file at ``path`` that hold its weights.

    Raises:  SourceError: it is no ONNX file
    """
    try:
        model = ir.load(path)
    except Exception as error:  # protobuf's exceptions share no base with anything
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise SourceError(f"cannot read '{path}': expected an ONNX model ({first})") from error
    return tuple({path.parent / tensor.location: None for tensor in _external(model)})


def _external(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                yield value.const_value


def _wrong(tensor: ir.ExternalTensor, folder: Path) -> str | None:
    """What is wrong with the file that the tensor lies in, and what to do."""
    file = folder / tensor.location
    if not str(tensor.location) or not _inside(folder, file):
        return (
            f"lies outside the model's folder '{folder}': expected a path inside it; "
            "save the model with its data in one folder"
        )
    if not file.exists():
        return f"is missing: expected it in '{folder}'; copy it there, beside the model"
    if not file.is_file():
        return "is a folder: expected a file with the weights; export the model again"
    if file.stat().st_nlink > 1:
        return "is linked from another place too, which is not safe to follow; copy it, so that it is a file of its own"
    return _short(tensor, file.stat().st_size)


def _inside(folder: Path, file: Path) -> bool:
    """Whether the file is in the folder, both as it is written and where its links lead."""
    written = Path(os.path.normpath(file)).is_relative_to(os.path.normpath(folder))
    return written and file.resolve().is_relative_to(folder.resolve())


def _short(tensor: ir.ExternalTensor, size: int) -> str | None:
    start = tensor.offset or 0
    weight = f"weight '{tensor.name}', {tensor.dtype.name.lower()}{tensor.shape}"
    if start < 0 or (tensor.length is not None and tensor.length < tensor.nbytes):
        return (
            f"is said to hold {tensor.length} bytes from {start} on for {weight}: "
            f"expected {tensor.nbytes} from 0 or later; the model is damaged, export it again"
        )
    if size < start + tensor.nbytes:
        return (
            f"is cut short: expected at least {start + tensor.nbytes} bytes ({weight}), received {size}; "
            "copy it again, whole, or export the model again"
        )
    return None
