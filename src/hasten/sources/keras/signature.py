"""What a Keras model takes: flat specs in a fixed order, and how to pack flat arrays into what its ``call`` expects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hasten.errors import OpenShapeError, SourceError
from hasten.sources import SourceRequest
from hasten.sources.dims import fitting, fitting_shapes
from hasten.sources.structure import unlike
from hasten.types import TensorSpec

__all__ = ["Signature", "keyed", "signature"]

_NUMBERS = frozenset(
    {
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "bfloat16", "float32", "float64"),
    }
)
_GRANTED = (
    "the model declares no dtypes: input {} is taken for float32; a sample (sample=x, --sample x.npy) says another"
)


@dataclass(frozen=True)
class Signature:
    """Flat input specs and the structure into which flat values are packed for a call."""

    inputs: tuple[TensorSpec, ...]
    pack: Callable[[Sequence[Any]], Any]
    notes: tuple[str, ...] = ()
    """What was taken for granted of inputs that the model does not describe."""


def signature(model: Any, request: SourceRequest) -> Signature:
    """The model's inputs, every dimension but the batch a number.

    Raises:  SourceError: a dimension is free, a shape fits no input, or a subclassed model was never called and no
             sample was given
    """
    import keras  # noqa: PLC0415

    structure = _structure(model, request)
    flat = keras.tree.flatten(structure)
    names = keyed(structure) or [symbol.name for symbol in flat]
    specs = tuple(_spec(symbol, names[i], i, request) for i, symbol in enumerate(flat))
    if len({s.name for s in specs}) < len(specs):
        specs = tuple(TensorSpec(f"{s.name}_{i}", s.dtype, s.shape) for i, s in enumerate(specs))
    fitting_shapes(specs, request)
    granted = _declared(model) is None and request.sample is None and request.example is None
    notes = (_GRANTED.format(", ".join(f"'{s.name}'" for s in specs)),) if granted else ()
    return Signature(specs, lambda values: keras.tree.pack_sequence_as(structure, list(values)), notes)


def keyed(structure: Any) -> list[str] | None:
    """A name for each end of a structure that holds dicts, in Keras' order: its keys joined; None without a dict."""
    import keras  # noqa: PLC0415

    paths = [path for path, leaf in keras.tree.flatten_with_path(structure) if leaf is not None]
    if not any(isinstance(key, str) for path in paths for key in path):
        return None
    return unlike(["_".join(map(str, path)) for path in paths])


def _structure(model: Any, request: SourceRequest) -> Any:
    """The model's inputs as a structure of ``KerasTensor``s."""
    declared = _declared(model)
    return _seen(model, request) if declared is None else declared


def _declared(model: Any) -> Any:
    """The inputs of a functional or sequential model; None for one that only code describes."""
    return getattr(getattr(model, "_functional", None) or model, "_inputs_struct", None)


def _seen(model: Any, request: SourceRequest) -> Any:
    """The inputs of a model that declares none: those of its first call, or the sample's."""
    import keras  # noqa: PLC0415

    shapes = getattr(model, "_build_shapes_dict", None) or {}
    known = next(iter(shapes.values())) if len(shapes) == 1 else None
    example = request.example
    if isinstance(example, Mapping) and (isinstance(known, Mapping) or (known is None and len(example) > 1)):
        return keras.tree.map_structure(
            lambda a: keras.KerasTensor((None, *a.shape[1:]), str(a.dtype), name="input"), example
        )
    arrays = request.sample
    if known is None and arrays is None and not request.shapes:
        raise SourceError(
            f"model '{model.name}' does not say what its inputs look like: expected a functional model or one that was "
            "called; pass sample=x (one example input)"
        )
    if known is not None:
        leaves = keras.tree.map_shape_structure(lambda s: (None, *s[1:]), known)
        count = len(keras.tree.flatten(keras.tree.map_shape_structure(lambda s: 0, known)))
        kinds = [str(a.dtype) for a in arrays] if arrays and len(arrays) == count else ["float32"] * count
        names = iter(range(count))
        return keras.tree.map_shape_structure(
            lambda s: keras.KerasTensor(s, dtype=kinds[i := next(names)], name=f"input_{i}"), leaves
        )
    if arrays is not None:
        made = [keras.KerasTensor((None, *a.shape[1:]), str(a.dtype), name=f"input_{i}") for i, a in enumerate(arrays)]
    else:
        made = [keras.KerasTensor((None, *s[1:]), "float32", name=n) for n, s in request.shapes.items()]
    return made[0] if len(made) == 1 else made


def _spec(symbol: Any, name: str, index: int, request: SourceRequest) -> TensorSpec:
    import keras  # noqa: PLC0415

    dtype = keras.backend.standardize_dtype(symbol.dtype)
    if dtype not in _NUMBERS:
        raise SourceError(f"input '{name}' takes {dtype}: expected numbers; do the text processing before the model")
    dims: list[int | None] = list(symbol.shape)
    sample = request.sample or ()
    given = request.shapes.get(name) or (sample[index].shape if index < len(sample) else None)
    if given is not None and None in dims[1:]:
        if len(given) != len(dims):
            raise SourceError(f"input '{name}' has {len(dims)} dimensions {tuple(dims)}: received {tuple(given)}")
        dims = [d if d is not None or i == 0 else int(given[i]) for i, d in enumerate(dims)]
    if None in dims[1:]:
        example = ",".join("?" if d is None else str(d) for d in [1, *dims[1:]])
        raise OpenShapeError(
            f"input '{name}' has free dimensions {tuple(dims)}: expected numbers beyond the batch; give "
            f"--shape {name}={example}",
            {name: fitting([1, *dims[1:]])},
        )
    return TensorSpec(name, dtype, tuple("batch" if d is None else d for d in dims))
