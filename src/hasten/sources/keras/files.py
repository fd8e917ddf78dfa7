"""Opens Keras model files: ``.keras``, whole-model ``.h5``, and ``model.json`` with its weights beside it."""

from __future__ import annotations

import json
import re
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hasten.errors import HastenError, SourceError, TrustError
from hasten.sources.keras.modernise import modernise

__all__ = ["Opened", "load", "mapped"]

_HDF5 = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class Opened:
    """A model in memory; ``path`` is a file that Keras itself opens, None where there is no such file."""

    model: Any
    path: Path | None
    notes: tuple[str, ...] = ()


def load(path: Path, *, trust: bool) -> Opened:
    """The model in a file, told by its content.

    Raises:  SourceError: not a Keras model, damaged, or of unknown classes; TrustError: it holds code
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise SourceError(f"cannot open Keras model '{path}': {error.strerror}") from error
    try:
        if start == _HDF5:
            return _hdf5(path, trust=trust)
        if start.lstrip()[:1] == b"{":
            return _json(path, trust=trust)
        if zipfile.is_zipfile(path):
            return _archive(path, trust=trust)
    except HastenError:
        raise
    except Exception as error:
        raise mapped(error, path) from error
    raise SourceError(
        f"cannot open Keras model '{path.name}': expected a .keras archive, HDF5 or a model's JSON, received "
        f"{'an empty file' if not start else 'other or cut-off data'}"
    )


def mapped(error: Exception, path: Path) -> SourceError:
    """What went wrong in one line, with what to do about it."""
    text = " ".join(str(error).split())
    if "safe_mode" in text or "enable_unsafe" in text or "lambda" in text.lower():
        return TrustError(
            f"'{path.name}' holds a Lambda layer, which is Python code: expected a model without code; "
            "open it with trust=True (--trust) if you trust its author"
        )
    found = re.search(r"(?:locate class|Unknown layer:|Unknown object|locate function) ['\"]?(\w+)", text)
    if found:
        return SourceError(
            f"'{path.name}' uses the custom class '{found[1]}' whose code is not here: register it with "
            "keras.saving.register_keras_serializable and import it first, or pass the model object, not the file"
        )
    return SourceError(f"cannot open Keras model '{path.name}': {text[:200]}; expected a whole, undamaged model")


def _archive(path: Path, *, trust: bool) -> Opened:
    import keras  # noqa: PLC0415

    with zipfile.ZipFile(path) as archive:
        if "config.json" not in archive.namelist():
            raise SourceError(f"'{path.name}' is a zip archive without config.json: expected a .keras model")
    if path.suffix == ".keras":
        return Opened(keras.saving.load_model(path, compile=False, safe_mode=not trust), path)
    with tempfile.TemporaryDirectory() as folder:
        named = Path(folder) / "model.keras"
        named.write_bytes(path.read_bytes())
        return Opened(keras.saving.load_model(named, compile=False, safe_mode=not trust), None)


def _hdf5(path: Path, *, trust: bool) -> Opened:
    import h5py  # noqa: PLC0415
    import keras  # noqa: PLC0415

    with h5py.File(path, "r") as file:
        text = file.attrs.get("model_config")
        version = _text(file.attrs.get("keras_version", b"2"))
    if text is None:
        raise SourceError(
            f"'{path.name}' holds weights alone: expected a whole model; give the model's .json beside it, or save the "
            "whole model"
        )
    config = json.loads(_text(text))
    if version.startswith("3"):
        _refuse_code(config, path, trust=trust)
        return Opened(keras.saving.load_model(path, compile=False, safe_mode=not trust), path)
    model = _from_old(config, trust=trust)
    _load_weights(model, path)
    return Opened(model, None)


def _json(path: Path, *, trust: bool) -> Opened:
    import keras  # noqa: PLC0415

    config = json.loads(path.read_text())
    if "class_name" not in config or "config" not in config:
        raise SourceError(f"'{path.name}' is JSON without a model: expected what model.to_json() writes")
    weights = _weights_beside(path)
    if "module" in config:
        model = keras.saving.deserialize_keras_object(config, safe_mode=not trust)
    else:
        model = _from_old(config, trust=trust)
    _load_weights(model, weights)
    return Opened(model, None)


def _weights_beside(path: Path) -> Path:
    """The weights of an architecture: of the same stem, else the only HDF5 file of the folder.

    Raises:  SourceError: none, or several
    """
    names = [path.stem + ending for ending in (".h5", ".weights.h5", ".hdf5", "_weights.h5")]
    found = [p for p in (path.with_name(n) for n in names) if p.is_file()]
    found = found or sorted([*path.parent.glob("*.h5"), *path.parent.glob("*.hdf5")])
    if len(found) != 1 and not (found and found[0].stem.startswith(path.stem)):
        raise SourceError(
            f"'{path.name}' is an architecture without weights: expected {names[0]} beside it, found "
            f"{', '.join(p.name for p in found) or 'no HDF5 file'}"
        )
    return found[0]


def _from_old(config: dict[str, Any], *, trust: bool) -> Any:
    import keras  # noqa: PLC0415

    return keras.saving.deserialize_keras_object(modernise(config, trust=trust), safe_mode=not trust)


def _load_weights(model: Any, path: Path) -> None:
    """Weights by order of layers (Keras 2's form) or by path (Keras 3's), whatever the file is called."""
    import h5py  # noqa: PLC0415

    with h5py.File(path, "r") as file:
        by_order = "layer_names" in file.attrs or "model_weights" in file
    with tempfile.TemporaryDirectory() as folder:
        named = Path(folder) / ("old.h5" if by_order else "new.weights.h5")
        named.symlink_to(path.resolve())
        model.load_weights(named)


def _refuse_code(config: Any, path: Path, *, trust: bool) -> None:
    if trust:
        return
    if isinstance(config, Mapping):
        if config.get("class_name") in ("Lambda", "__lambda__"):
            raise mapped(ValueError("lambda"), path)
        for value in config.values():
            _refuse_code(value, path, trust=trust)
    elif isinstance(config, list):
        for value in config:
            _refuse_code(value, path, trust=trust)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
