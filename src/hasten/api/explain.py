"""Where the time of a model goes, by its compiled program."""

from __future__ import annotations

import importlib
from typing import Any

from hasten.errors import EngineError

__all__ = ["explain"]


def explain(model: Any, sample: Any = None) -> Any:
    """Time, arithmetic and bytes by operator of the native program, against this machine's limits.

    Raises:  EngineError: the native compiler's explainer is not part of this install
    """
    try:
        module = importlib.import_module("hasten.native.explain")
    except ModuleNotFoundError as error:
        raise EngineError("cannot explain: the native compiler's explainer is not part of this install") from error
    return module.explain(model, sample)
