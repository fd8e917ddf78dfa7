"""Groups of arrays in one ``.npz`` file, any dtype that a model may have, and never a pickle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hasten.errors import InputError
from hasten.types import Array

__all__ = ["read_groups", "write_groups"]

_INDEX = "index"


def write_groups(path: Path, groups: Sequence[Sequence[Array]]) -> None:
    """One file with every array of every group, written whole or not at all.

    Raises:  InputError: an array of Python objects (strings), which only a pickle could hold
    """
    stored: dict[str, Array] = {}
    index: list[list[str]] = []
    for g, group in enumerate(groups):
        names = []
        for k, value in enumerate(group):
            array = np.asarray(value)
            if array.dtype.hasobject:
                raise InputError(f"cannot store array {k} of group {g}: expected numbers, received dtype {array.dtype}")
            names.append(array.dtype.name)
            # numpy writes extension dtypes (bfloat16, float8) as nameless bytes: keep the name beside the raw bytes
            native = array.dtype.kind in "biufc"
            stored[f"{g}_{k}"] = array if native else np.ascontiguousarray(array)[..., None].view(np.uint8)
        index.append(names)
    stored[_INDEX] = np.frombuffer(json.dumps(index).encode(), np.uint8)
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        np.savez(file, **stored)  # type: ignore[arg-type]  # numpy's stub takes the keywords for allow_pickle
    temporary.replace(path)


def read_groups(path: Path) -> list[tuple[Array, ...]]:
    """The groups that ``write_groups`` stored."""
    with np.load(path, allow_pickle=False) as file:
        index: list[list[str]] = json.loads(file[_INDEX].tobytes())
        return [tuple(_typed(file[f"{g}_{k}"], name) for k, name in enumerate(names)) for g, names in enumerate(index)]


def _typed(array: Array, name: str) -> Array:
    if array.dtype.name == name:
        return array
    import ml_dtypes  # noqa: PLC0415  (comes with onnx; only models of such dtypes need it)

    typed: Array = array.view(np.dtype(getattr(ml_dtypes, name)))[..., 0]
    return typed
