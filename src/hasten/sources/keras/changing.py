"""A Keras model and an input enter; the name of the layer that a call leaves changed leaves."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from hasten.sources import Reference
from hasten.sources.determinism import DRAWS
from hasten.types import Array

__all__ = ["changing"]


def changing(model: Any, call: Reference, arrays: Sequence[Array]) -> str | None:
    """The first layer whose variables a call changes: those that count, before those that only draw random numbers.

    A layer without a generator of its own draws from the one that Keras keeps for all.
    """
    held = list(_held(model))
    before = [np.array(variable) for variable, *_ in held]
    drew: list[str] = []
    with _told_of_draws(drew):
        call(arrays)
    changed = [
        (layer, draws)
        for (variable, layer, draws), value in zip(held, before, strict=True)
        if not np.array_equal(np.array(variable), value)
    ]
    for layer, draws in sorted(changed, key=lambda found: found[1]):
        return f"layer '{layer}'" + (f", which {DRAWS}" if draws else "")
    return f"layer '{drew[0]}', which {DRAWS}" if drew else None


@contextlib.contextmanager
def _told_of_draws(drew: list[str]) -> Iterator[None]:
    """Adds to ``drew`` the layer in whose call each number comes from the generator that Keras keeps for all."""
    import keras  # noqa: PLC0415
    from keras.src.random import seed_generator  # noqa: PLC0415

    made = seed_generator.global_seed_generator

    def watched() -> Any:
        frame = sys._getframe(1)
        while frame is not None:
            held = frame.f_locals.get("self")
            if frame.f_code.co_name == "call" and isinstance(held, keras.Layer):
                drew.append(held.name)
                break
            frame = frame.f_back  # type: ignore[assignment]  # None at the end
        return made()

    seed_generator.global_seed_generator = watched
    try:
        yield
    finally:
        seed_generator.global_seed_generator = made


def _held(model: Any) -> Iterator[tuple[Any, str, bool]]:
    """Every variable that a call may change, the layer that it is in, and whether it is a random generator's."""
    import keras  # noqa: PLC0415

    for layer in reversed(list(model._flatten_layers())):  # inner ones first: they are who changed
        for variable in [*layer.non_trainable_variables, *keras.tree.flatten(getattr(layer, "states", None) or [])]:
            yield variable, layer.name, variable.path.endswith("seed_generator_state")
