"""A Keras model's own answers, on flat numpy arrays: what everything else is held against."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from hasten.errors import HastenError, SourceError
from hasten.sources import Reference
from hasten.sources.keras.signature import Signature
from hasten.sources.keras.steps import steps_merged
from hasten.types import Array

__all__ = ["equal", "flat_call", "told"]

_SLOW_S, _VERY_SLOW_S = 0.3, 1.0
"""Of a model that loops over time, two slow calls, or one that no warming-up explains, are worth compiling."""
_TRACED_S = 0.01
"""Tracing a layer takes about so long; a loop's body is traced once, however many turns it takes."""
_TRACED_CALLS = 5
"""Of other models, whose every layer is called once, tracing takes as long as so many calls: counted in calls, since
both take longer alike where the machine is busy."""
_MANY_STEPS = 100
"""So many steps of a loop over time take seconds when each is called from Python."""
_STYLES = re.compile(r"\x1b\[[0-9;]*m")


def flat_call(model: Any, taken: Signature) -> Reference:
    """``model(x, training=False)`` on flat numpy arrays, flat numpy arrays out.

    A model that is slow that way (Python loops over time) runs as a compiled function once that gave the same answer;
    one of Keras' own layers over many steps at once, as in ``model.predict``.
    """
    import keras  # noqa: PLC0415

    def call(arrays: Sequence[Any]) -> tuple[Array, ...]:
        try:
            with keras.device("cpu:0"):
                result = model(taken.pack([keras.ops.convert_to_tensor(a) for a in arrays]), training=False)
        except HastenError:
            raise
        except Exception as error:
            raise SourceError(f"cannot run the Keras model: {told(error)}; check the model and the sample") from error
        return tuple(np.asarray(keras.ops.convert_to_numpy(t)) for t in keras.tree.flatten(result) if t is not None)

    layers = list(getattr(model, "_flatten_layers", lambda: [model])())
    loops = any(isinstance(layer, _looping()) for layer in layers)
    slow: list[float] = []
    tried = keras.backend.backend() != "tensorflow"
    swift: list[Reference] = [_compiled(model, taken)] if _walks_many_steps(model, taken) else []

    def reference(arrays: Sequence[Array]) -> tuple[Array, ...]:
        nonlocal tried
        if swift:
            try:
                return swift[0](arrays)
            except Exception:  # whatever TensorFlow raises; the plain call below answers, or tells what is wrong
                swift.clear()
        start = time.perf_counter()
        answer = call(arrays)
        took = time.perf_counter() - start
        if took > _SLOW_S:
            slow.append(took)
            if not tried and (_repaid(slow, len(layers)) if loops else len(slow) >= _TRACED_CALLS):
                tried, compiled = True, _compiled(model, taken)
                if equal(answer, compiled(arrays), tolerance=1e-6):
                    swift.append(compiled)
        return answer

    return reference


def _repaid(slow: Sequence[float], layers: int) -> bool:
    """Whether so many slow calls of a loop took longer than tracing that many layers takes."""
    return (len(slow) > 1 or slow[0] > _VERY_SLOW_S) and sum(slow) > layers * _TRACED_S


def _looping() -> tuple[type, ...]:
    """The classes of Keras' own layers that call others once for each step."""
    import keras  # noqa: PLC0415

    return (keras.layers.RNN, keras.layers.TimeDistributed, keras.layers.Bidirectional)


def _walks_many_steps(model: Any, taken: Signature) -> bool:
    """Whether it loops over time for long, and is made of nothing that a compiled function might answer differently.

    Code of the user's own may keep state in Python, which tracing would freeze.
    """
    import keras  # noqa: PLC0415

    layers = list(getattr(model, "_flatten_layers", lambda: [model])())
    steps = max((d for spec in taken.inputs for d in spec.shape[1:-1] if isinstance(d, int)), default=0)
    return (
        keras.backend.backend() == "tensorflow"
        and steps >= _MANY_STEPS
        and any(isinstance(layer, _looping()) for layer in layers)
        and all(type(layer).__module__.startswith("keras.src.") for layer in layers)
        and not any(isinstance(layer, keras.layers.Lambda) or getattr(layer, "stateful", False) for layer in layers)
    )


def _compiled(model: Any, taken: Signature) -> Reference:
    """The model as one graph, its optimisers off: what they do to 1,000 steps takes longer than running them."""
    import keras  # noqa: PLC0415
    import tensorflow as tf  # noqa: PLC0415

    signature = [tf.TensorSpec([d if isinstance(d, int) else None for d in s.shape], s.dtype) for s in taken.inputs]

    def traced(*flat: Any) -> Any:
        with steps_merged():
            return keras.tree.flatten(model(taken.pack(flat), training=False))

    whole = tf.function(traced, input_signature=signature, autograph=False)
    optimizer = tf.config.optimizer

    def call(arrays: Sequence[Array]) -> tuple[Array, ...]:
        before = optimizer.get_experimental_options().get("disable_meta_optimizer", False)
        optimizer.set_experimental_options({"disable_meta_optimizer": True})
        try:
            return tuple(t.numpy() for t in whole(*map(tf.convert_to_tensor, arrays)) if t is not None)
        finally:
            optimizer.set_experimental_options({"disable_meta_optimizer": before})

    return call


def told(error: Exception) -> str:
    """What a model's own code raised, in one line: Keras sets it in bold between the layer and its arguments."""
    lines = [line for line in map(str.strip, _STYLES.sub("", str(error)).splitlines()) if line]
    where = re.match(r"Exception encountered when calling (\S+?)(\.call)?\(\)", lines[0]) if lines else None
    reason = (lines[1:2] or [type(error.__cause__ or error).__name__]) if where else (lines or [type(error).__name__])
    # TensorFlow writes the place in its runtime in front.
    plain = re.sub(r"^\{\{.*?\}\} ", "", reason[0])[:300]
    return f"{where[1]}: {plain}" if where else plain


def equal(a: Sequence[Array], b: Sequence[Array], tolerance: float = 0.0) -> bool:
    """Whether the answers agree within ``tolerance``, absolute and relative."""
    return len(a) == len(b) and all(
        x.shape == y.shape and bool(np.allclose(x, y, rtol=tolerance, atol=tolerance, equal_nan=True))
        for x, y in zip(a, b, strict=True)
    )
