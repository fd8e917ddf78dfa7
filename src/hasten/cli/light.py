"""Keras starts without the libraries that it tries for galleries and wrappers, which the command line never uses."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["BEGAN_S", "start_light"]

BEGAN_S = time.monotonic()
"""When the program began, before its imports: they are part of what its user waits for."""

# Together a third of what importing TensorFlow costs.
_UNUSED = {"matplotlib", "sklearn"}


class _Refusing(Loader):
    """Refuses the import itself: who only asks whether there is such a module, as PyTorch does, expects no error."""

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        raise ModuleNotFoundError(f"No module named '{spec.name}'", name=spec.name)


class _AbsentWhileKerasStarts:
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        keras = sys.modules.get("keras")
        if fullname in _UNUSED and keras is not None and not hasattr(keras, "__version__"):
            return ModuleSpec(fullname, _Refusing())
        return None


def start_light() -> None:
    """From now on ``import keras`` does not find them; every other import does.

    For a process that is our own: in a user's, Keras' galleries and wrappers would be missing afterwards.
    """
    sys.meta_path.insert(0, _AbsentWhileKerasStarts())
