"""A file of labelled rows enters; arrays that fit the model's inputs leave, with what the answers should have been."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hasten.errors import InputError
from hasten.sources import Source
from hasten.types import Array, TensorSpec
from hasten.verify import METRICS, Metric

__all__ = ["Labels", "read_labels", "scored"]


@dataclass(frozen=True)
class Labels:
    """Labelled rows.

    Shapes:  inputs: (N, …) an input, in order; labels: what the metric takes
    """

    inputs: tuple[Array, ...]
    labels: Array


def read_labels(source: Source, path: Path) -> Labels:
    """Labelled rows of an ``.npz``: arrays named like the inputs (``x`` will do for one), and ``y`` or ``labels``.

    Raises:  InputError: not such a file, an array is missing or does not fit, or the counts of rows differ
    """
    found = _arrays(path)
    label = next((name for name in ("y", "labels", "y_test") if name in found), None)
    names = [spec.name for spec in source.inputs]
    if len(names) == 1 and names[0] not in found:
        names = [next((name for name in ("x", "X", "x_test") if name in found), names[0])]
    if label is None or any(name not in found for name in names):
        raise InputError(
            f"labelled data '{path}': expected arrays {', '.join(names)} and y, received {', '.join(found) or 'none'}"
        )
    labels = found[label]
    if labels.ndim == 0:
        raise InputError(f"labelled data '{path}': expected one label per row in '{label}', received a single one")
    arrays = zip(names, source.inputs, strict=True)
    return Labels(tuple(_fitting(found[name], spec, len(labels), path) for name, spec in arrays), labels)


def scored(chosen: Metric, outputs: tuple[Array, ...], labels: Array, path: Path) -> float:
    """The metric's score of the source's own answers.

    Raises:  InputError: the labels are no numbers, or not of a shape that the metric takes
    """
    holes = labels.dtype.kind == "f" and not np.isfinite(labels).all()
    if chosen.name in METRICS and (labels.dtype.kind not in "biuf" or holes):
        received = "NaN or infinity" if holes else _seen(labels)
        raise InputError(f"labelled data '{path}': expected finite numbers for labels, received {received}")
    try:
        return chosen.score(outputs, labels)
    except (ValueError, TypeError, IndexError) as error:
        raise InputError(
            f"labelled data '{path}': metric '{chosen.name}' takes no labels of {_seen(labels)} for answers of "
            f"{_seen(outputs[0])} ({error})"
        ) from error


def _arrays(path: Path) -> Mapping[str, Array]:
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise ValueError("one array without a name")
        with file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"cannot read labelled data '{path}': expected an .npz of plain arrays ({error})") from error


def _fitting(array: Array, spec: TensorSpec, rows: int, path: Path) -> Array:
    """The rows in the input's dtype.

    Raises:  InputError: no numbers, another shape, or another count of rows
    """
    shape = (rows, *spec.shape[1:])
    real = array.dtype.kind in "biuf" or array.dtype.kind == np.dtype(spec.dtype).kind
    if not real or array.shape != shape or rows == 0:
        raise InputError(
            f"labelled data '{path}': expected {spec} with one row per label ({rows}), received {_seen(array)}"
        )
    return np.ascontiguousarray(array).astype(spec.dtype)


def _seen(array: Array) -> str:
    return f"{array.dtype}{list(array.shape)}"
