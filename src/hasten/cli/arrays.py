"""Arrays from files and into files: ``.npy``, ``.npz``, ``.csv`` and ``.json`` in, ``.npy``, ``.npz`` and JSON out."""

from __future__ import annotations

import csv
import json
import math
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hasten.errors import InputError
from hasten.types import Array, TensorSpec

__all__ = ["read", "read_loosely", "refuse_nan", "shaped", "text_of", "write"]


def read(path: Path) -> Any:
    """What the file holds: one array, or a dict of them; ``-`` is JSON on standard input.

    Raises:  InputError: missing, of another kind, damaged, or with columns of text
    """
    try:
        if str(path) == "-":
            return _json(sys.stdin.read())
        if path.suffix.lower() not in _READERS:
            raise InputError(f"cannot read '{path}': expected {', '.join(_READERS)}, received '{path.suffix}'")
        return _READERS[path.suffix.lower()](path)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"cannot read '{path}': no such file; check the path") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"cannot read '{path}': expected plain numbers, received a damaged or other file ({first})"
        ) from error


def read_loosely(path: Path) -> Any:
    """As ``read``, but numbers from text are lists: they have no dtype that could be the wrong one.

    Raises:  InputError: as ``read``
    """
    found = read(path)
    if path.suffix.lower() in (".npy", ".npz"):
        return found
    return {k: v.tolist() for k, v in found.items()} if isinstance(found, Mapping) else found.tolist()


def _npy(path: Path) -> Array:
    found: Array = np.load(path, allow_pickle=False)
    return found


def _npz(path: Path) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _csv(path: Path) -> Array:
    """Rows of numbers; a first line of column names is passed over."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        rows = [(reader.line_num, row) for row in reader if row]
    if rows and not all(map(_is_number, rows[0][1])):
        rows = rows[1:]
    for line, row in rows:
        if len(row) != len(rows[0][1]):
            raise ValueError(f"line {line} has {len(row)} columns where the first row has {len(rows[0][1])}")
        for cell in row:
            if not _is_number(cell):
                raise ValueError(f"line {line} holds '{cell}'")
    return np.array([[float(cell) for cell in row] for _, row in rows], np.float64)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _json(text: str) -> Any:
    found = json.loads(text)
    if isinstance(found, Mapping):
        return {name: _filled(value) for name, value in found.items()}
    return _filled(found)


def _filled(value: Any) -> Array:
    """JSON's null among numbers is NaN: what ``text_of`` writes for it."""
    array = np.array(value)
    if array.dtype.kind == "O" and all(v is None or isinstance(v, (int, float)) for v in array.flat):
        return array.astype(np.float64)
    return array


_READERS: dict[str, Callable[[Path], Any]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".csv": _csv,
    ".json": lambda path: _json(path.read_text("utf-8")),
}


def shaped(specs: Sequence[TensorSpec], found: Any) -> Any:
    """The file's arrays as ``Model.predict`` takes them: names dropped for one input, flat rows folded into the
    input's shape, whole floats given to integer inputs, a single record made a row.

    Raises:  InputError: an input is missing
    """
    if not isinstance(found, Mapping):
        if len(specs) != 1:
            names = _quoted(spec.name for spec in specs)
            raise InputError(f"expected a file with arrays named {names} (.npz, or a JSON object), received one array")
        return _one(specs[0], np.asarray(found))
    if len(specs) == 1 and len(found) == 1:
        return _one(specs[0], np.asarray(next(iter(found.values()))))
    missing = [spec.name for spec in specs if spec.name not in found]
    if missing:
        raise InputError(f"expected arrays named {_quoted(s.name for s in specs)}, received {_quoted(found) or 'none'}")
    return {spec.name: _one(spec, np.asarray(found[spec.name])) for spec in specs}


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _one(spec: TensorSpec, array: Array) -> Array:
    want = np.dtype(spec.dtype)
    if want.kind in "iu" and array.dtype.kind == "f" and np.array_equal(array, np.trunc(array)):
        array = array.astype(np.int64)
    record = spec.shape[1:]
    if not all(isinstance(d, int) for d in record):
        return array
    sizes = tuple(int(d) for d in record)
    if array.shape == sizes and array.ndim < len(spec.shape):
        return array[None]
    if array.ndim == 2 and len(sizes) != 1 and array.shape[1] == math.prod(sizes):
        return array.reshape(len(array), *sizes)
    return array


def refuse_nan(given: Any, answers: Sequence[Array]) -> None:
    """Holes in the rows are fine where the model fills them; where they reach its answers they are named.

    Raises:  InputError: NaN in the rows, and in what was answered
    """
    if not any(_holes(answer) for answer in answers):
        return
    for name, array in given.items() if isinstance(given, Mapping) else [("", given)]:
        if count := _holes(array):
            where = f"input '{name}'" if name else "the rows"
            first = int(np.argwhere(np.isnan(array))[0][0])
            raise InputError(
                f"cannot answer: expected numbers, received {count} NaN in {where}, the first in row {first}, and NaN "
                "is what the model makes of them; clean them first"
            )


def _holes(array: Array) -> int:
    return int(np.isnan(array).sum()) if array.dtype.kind in "fc" else 0


def text_of(names: Sequence[str], answers: Sequence[Array]) -> str:
    """The answers as one line of JSON: a list for one output, else an object; what JSON lacks becomes null."""
    lists = [_finite(_written(answer).tolist()) for answer in answers]
    return json.dumps(lists[0] if len(lists) == 1 else dict(zip(names, lists, strict=True)))


def _written(answer: Array) -> Array:
    """Float64 with no more digits than name the answer's own value: 0.1, where float32's nearest is 0.10000000149."""
    short = answer.dtype.kind == "f" and answer.dtype.itemsize < 8
    return answer.astype(np.str_).astype(np.float64) if short else answer


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write(path: Path, names: Sequence[str], answers: Sequence[Array]) -> None:
    """The answers in a ``.npy``, ``.npz`` or ``.json`` file, whole or not at all.

    Raises:  InputError: another ending, several answers for ``.npy``, or the place cannot be written
    """
    temporary = path.with_name(path.name + ".part")
    try:
        if path.suffix == ".json":
            temporary.write_text(text_of(names, answers) + "\n", "utf-8")
        elif path.suffix == ".npz":
            with temporary.open("wb") as file:
                np.savez(file, **dict(zip(names, answers, strict=True)))  # type: ignore[arg-type]  # allow_pickle's stub
        elif path.suffix == ".npy" and len(answers) == 1:
            with temporary.open("wb") as file:
                np.save(file, answers[0], allow_pickle=False)
        else:
            expected = ".npy, .npz or .json" if len(answers) == 1 else f".npz or .json for {len(answers)} outputs"
            raise InputError(f"cannot write '{path}': expected {expected}, received '{path.suffix}'")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"cannot write '{path}': {error.strerror or error}; choose another place with -o") from error
