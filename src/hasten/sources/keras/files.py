"""Opens Keras model files: ``.keras``, whole-model ``.h5``, and ``model.json`` with its weights beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hasten.errors import SourceError, TrustError

__all__ = ["Opened", "load", "mapped"]


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
    import keras  # noqa: PLC0415

    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=not trust)
    except Exception as error:
        raise mapped(error, path) from error
    return Opened(model, path)


def mapped(error: Exception, path: Path) -> SourceError:
    """What went wrong in one line, with what to do about it."""
    text = " ".join(str(error).split())
    if "safe_mode" in text or "unsafe" in text.lower() or "lambda" in text.lower():
        return TrustError(
            f"'{path.name}' holds a Lambda layer, which is Python code: expected a model without code; "
            "open it with trust=True (--trust) if you trust its author"
        )
    found = re.search(r"(?:locate class|Unknown layer:|Unknown object|locate function) ['\"]?(\w+)", text)
    if found:
        return SourceError(
            f"'{path.name}' uses the custom class '{found[1]}' whose code is not here: register it with "
            "keras.saving.register_keras_serializable and import it before, or pass the model object instead of the file"
        )
    return SourceError(f"cannot open Keras model '{path.name}': {text[:200]}")
