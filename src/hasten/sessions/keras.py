"""A copy of the user's Keras or TensorFlow model enters; one way to call it leaves, numpy in and numpy out.

What each path includes, every time: ``predict`` and ``predict_on_batch`` all that Keras does; ``call numpy`` hands the
arrays to ``model(x)`` as they are; ``call tensor``, ``tf.function``, ``concrete``, ``xla`` and ``signature`` make a
tensor of each array first, and all bring the answer back to numpy. Compiling happens once, when the session opens or
is first called.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hasten.errors import EngineError, MissingLibraryError
from hasten.quiet import quiet_start
from hasten.records import Artefact
from hasten.types import TensorSpec

__all__ = ["open_session"]

Pack = Callable[[Sequence[Any]], Any]


@dataclass
class _KerasSession:
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    call: Callable[..., Any]
    thread_safe: bool

    def close(self) -> None:
        self.call = _closed


def open_session(artefact: Artefact) -> _KerasSession:
    """The artefact's model with its call path built, at the candidate's batch.

    Raises:  MissingLibraryError: no Keras or TensorFlow; EngineError: the framework refuses the file or the path
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    path = str(artefact.candidate.option("path"))
    try:
        with quiet_start():
            _set_threads(artefact)
            flat = _signature(artefact, path) if _is_saved_model(artefact) else _model(artefact, path)
    except ImportError as error:
        raise MissingLibraryError(f"keras: {error.name or error} is not installed: install hasten[keras]") from error
    except EngineError:
        raise
    except Exception as error:
        raise EngineError(f"keras {path}: cannot open the model: {' '.join(str(error).split())[:300]}") from error
    call = _single(flat) if len(artefact.outputs) == 1 else flat
    return _KerasSession(artefact.inputs, artefact.outputs, call, not path.startswith("predict"))


def _is_saved_model(artefact: Artefact) -> bool:
    return (artefact.folder / str(artefact.details["source"])).is_dir()


def _set_threads(artefact: Artefact) -> None:
    """Sets TensorFlow's pools, which it allows before its first operation only."""
    if artefact.details.get("own_threads", True):
        return
    import tensorflow as tf  # noqa: PLC0415 - a framework, in its own adapter

    try:
        tf.config.threading.set_intra_op_parallelism_threads(artefact.candidate.threads)
        tf.config.threading.set_inter_op_parallelism_threads(artefact.candidate.threads)
    except RuntimeError:
        return  # TensorFlow already runs in this process; its pools stay as they are


def _model(artefact: Artefact, path: str) -> Callable[..., tuple[Any, ...]]:
    import keras  # noqa: PLC0415

    file = artefact.folder / artefact.details["source"]
    model = keras.saving.load_model(file, compile=False, safe_mode=not artefact.details.get("trust", False))
    pack = _packer(model, len(artefact.inputs))
    if path == "predict":
        return lambda *xs: _arrays(model.predict(pack(xs), verbose=0))
    if path == "predict_on_batch":
        return lambda *xs: _arrays(model.predict_on_batch(pack(xs)))
    if path == "call numpy":
        return lambda *xs: _arrays(model(pack(xs), training=False))
    if path == "call tensor":
        convert = keras.ops.convert_to_tensor
        return lambda *xs: _arrays(model(pack([convert(x) for x in xs]), training=False))
    return _compiled(lambda *flat: model(pack(flat), training=False), artefact, path)


def _compiled(function: Callable[..., Any], artefact: Artefact, path: str) -> Callable[..., tuple[Any, ...]]:
    import tensorflow as tf  # noqa: PLC0415

    if path not in ("tf.function", "concrete", "xla"):
        raise EngineError(f"keras: unknown path '{path}': expected predict, call, tf.function, concrete or xla")
    traced = tf.function(function, jit_compile=True if path == "xla" else None)
    if path != "tf.function":
        specs = [tf.TensorSpec(s.static_shape, s.dtype) for s in artefact.inputs]
        traced = traced.get_concrete_function(*specs)
    tensor = tf.convert_to_tensor
    if len(artefact.inputs) == 1:
        return lambda x: _arrays(traced(tensor(x)))
    return lambda *xs: _arrays(traced(*map(tensor, xs)))


def _signature(artefact: Artefact, path: str) -> Callable[..., tuple[Any, ...]]:
    """A SavedModel's signature, its arguments by name, its answers in the order of their names."""
    import tensorflow as tf  # noqa: PLC0415

    loaded = tf.saved_model.load(str(artefact.folder / artefact.details["source"]))
    names = [s.name for s in artefact.inputs]
    signature = _chosen(loaded, names)

    def named(*flat: Any) -> Any:
        answers = signature(**dict(zip(names, flat, strict=True)))
        return [answers[k] for k in sorted(answers)]

    if path == "xla":
        call = _compiled(named, artefact, path)
    else:
        tensor = tf.convert_to_tensor

        def call(*xs: Any) -> tuple[Any, ...]:
            return _arrays(named(*map(tensor, xs)))

    call.__dict__["model"] = loaded  # the signature lives as long as its model
    return call


def _chosen(loaded: Any, names: Sequence[str]) -> Any:
    fits = {key: f for key, f in loaded.signatures.items() if set(f.structured_input_signature[1]) == set(names)}
    found = fits.get("serving_default") or next(iter(fits.values()), None)
    if found is None:
        raise EngineError(f"keras signature: none of the model's signatures takes {', '.join(names)}")
    return found


def _packer(model: Any, count: int) -> Pack:
    """Flat arrays into the structure that the model's ``call`` expects."""
    import keras  # noqa: PLC0415

    declared = getattr(getattr(model, "_functional", None) or model, "_inputs_struct", None)
    if declared is None:
        shapes = getattr(model, "_build_shapes_dict", None) or {}
        known = next(iter(shapes.values())) if len(shapes) == 1 else None
        declared = None if known is None else keras.tree.map_shape_structure(lambda s: 0, known)
    if declared is None or len(keras.tree.flatten(declared)) != count:
        return lambda values: values[0] if count == 1 else list(values)
    if not keras.tree.is_nested(declared):
        return lambda values: values[0]
    return lambda values: keras.tree.pack_sequence_as(declared, list(values))


def _arrays(answer: Any) -> tuple[Any, ...]:
    """Every tensor of the answer as an array of its own."""
    if hasattr(answer, "shape"):
        return (_array(answer),)
    if isinstance(answer, (list, tuple)) and all(hasattr(t, "shape") for t in answer):
        return tuple(map(_array, answer))
    import keras  # noqa: PLC0415

    return tuple(_array(t) for t in keras.tree.flatten(answer) if t is not None)


def _array(tensor: Any) -> Any:
    if isinstance(tensor, np.ndarray):
        return tensor
    return tensor.numpy() if hasattr(tensor, "numpy") else np.array(tensor)


def _single(flat: Callable[..., tuple[Any, ...]]) -> Callable[..., Any]:
    return lambda *xs: flat(*xs)[0]


def _closed(*_arrays: Any) -> Any:
    raise EngineError("keras: the session is closed; open the artefact again")
