"""Rewrites the configuration of a Keras 1 or 2 model as Keras 3 writes it; pure data in, pure data out.

Arguments that are gone are dropped where they change nothing and refused where they would; layers that stood for
TensorFlow functions (``TFOpLambda``) become the ``keras.ops`` operation of the same meaning. Initialisers, regularisers
and constraints matter to training alone and are left out.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from hasten.errors import SourceError, TrustError
from hasten.sources.keras.tensorflow_ops import operation

__all__ = ["modernise"]

_MODELS = frozenset({"Functional", "Model", "Sequential"})
_RECURRENT = frozenset({"LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "ConvLSTM2D"})
_NAMES = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
    "LSTMV2": "LSTM",
    "GRUV2": "GRU",
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution2DTranspose": "Conv2DTranspose",
    "SeparableConvolution2D": "SeparableConv2D",
}
_RENAMED = {
    ("LeakyReLU", "alpha"): "negative_slope",
    ("Dense", "output_dim"): "units",
    ("Dropout", "p"): "rate",
}
# Gone in Keras 3, with the one value that means what Keras 3 does anyway.
_WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "groups": (1,),
    "time_major": (False, None),
    "ragged": (False, None),
    "sparse": (False, None),
    "renorm": (False, None),
    "interpolation": ("nearest",),
}
_TRAINING_ONLY = ("_initializer", "_regularizer", "_constraint")


def modernise(layer: Mapping[str, Any], *, trust: bool) -> dict[str, Any]:
    """One layer or model of the old form in the new one, those inside it too.

    Raises:  TrustError: a Lambda layer; SourceError: an argument or class without a counterpart; both name the layer
    """
    name = _NAMES.get(layer["class_name"], layer["class_name"])
    config = layer.get("config", {})
    if isinstance(config, list):  # Keras 1: a Sequential is the bare list of its layers
        config = {"name": "sequential", "layers": config}
    config = dict(config)
    if name in _MODELS:
        return _model(name, config, trust=trust)
    if name == "Lambda" and not trust:
        raise TrustError(
            f"layer '{config.get('name')}' is a Lambda, which is Python code: expected a model without code; open it "
            "with trust=True (--trust) if you trust its author"
        )
    return {"module": _module(name), "class_name": name, "config": _layer(name, config, trust=trust)}


def _model(name: str, config: dict[str, Any], *, trust: bool) -> dict[str, Any]:
    layers = [dict(entry) for entry in config["layers"]]
    plain = {"name": _clean(config.get("name", "model")), "trainable": True}
    if name == "Sequential":
        return {"module": "keras", "class_name": name, "config": {**plain, "layers": _chain(layers, trust=trust)}}
    kinds = {entry.get("name") or entry["config"]["name"]: entry["class_name"] for entry in layers}
    written = [_node(entry, kinds, trust=trust) for entry in layers]
    ends = {key: _ends(config[key], kinds) for key in ("input_layers", "output_layers")}
    return {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": {**plain, "layers": written, **ends},
    }


def _chain(layers: Sequence[dict[str, Any]], *, trust: bool) -> list[dict[str, Any]]:
    """The layers of a Sequential, the input's shape as a layer of its own."""
    written = []
    for index, entry in enumerate(layers):
        config = dict(entry.get("config", {})) if isinstance(entry.get("config"), dict) else {}
        shape = config.get("batch_input_shape")
        if index == 0 and shape is not None and entry["class_name"] != "InputLayer":
            settings = {"batch_shape": list(shape), "dtype": _dtype(config.get("dtype")), "name": "input_layer"}
            written.append({"module": "keras.layers", "class_name": "InputLayer", "config": settings})
        written.append(modernise(entry, trust=trust))
    return written


def _node(entry: Mapping[str, Any], kinds: Mapping[str, str], *, trust: bool) -> dict[str, Any]:
    name = entry.get("name") or entry["config"]["name"]
    calls = [_call(call, entry["class_name"], kinds) for call in entry.get("inbound_nodes", [])]
    if entry["class_name"] in ("TFOpLambda", "SlicingOpLambda"):
        function = entry["config"]["function"]
        written, calls = operation(function, calls, _clean(name))
    else:
        written = modernise(entry, trust=trust)
    return {**written, "name": _clean(name), "inbound_nodes": calls}


def _call(call: Any, kind: str, kinds: Mapping[str, str]) -> dict[str, Any]:
    """One call of a layer: what it was given, as references to other layers' outputs or as numbers."""
    items = [call] if call and isinstance(call[0], str) else list(call)
    given = [item[2] if item[0] == "_CONSTANT_VALUE" else _tensor(item, kinds) for item in items]
    extra: Mapping[str, Any] = next((item[3] for item in items if len(item) > 3 and item[3]), {})
    named = {k: _references(v, kinds) for k, v in extra.items() if k not in ("training", "name") and v is not None}
    if kind in _RECURRENT and len(given) > 1:
        named["initial_state"], given = given[1:], given[:1]
    return {"args": given if len(given) == 1 else [given], "kwargs": named}


def _tensor(item: Sequence[Any], kinds: Mapping[str, str]) -> dict[str, Any]:
    layer, node = item[0], item[1]
    node -= 1 if kinds.get(layer) in _MODELS and node > 0 else 0  # a nested model used to count its own making
    config = {"shape": [None], "dtype": "float32", "keras_history": [_clean(layer), node, item[2]]}
    return {"class_name": "__keras_tensor__", "config": config}


def _references(value: Any, kinds: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        if len(value) >= 3 and isinstance(value[0], str) and value[0] in kinds and isinstance(value[1], int):
            return _tensor(value, kinds)
        return [_references(v, kinds) for v in value]
    return value


def _ends(value: Any, kinds: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {k: _ends(v, kinds) for k, v in value.items()}
    if value and isinstance(value[0], str):
        return _tensor(value, kinds)["config"]["keras_history"]
    return [_ends(v, kinds) for v in value]


def _layer(name: str, config: dict[str, Any], *, trust: bool) -> dict[str, Any]:
    known = _arguments(name)
    written: dict[str, Any] = {}
    for key, value in config.items():
        new = _RENAMED.get((name, key), key)
        if key.endswith(_TRAINING_ONLY) or key in ("batch_input_shape", "input_dtype", "implementation"):
            continue
        if known is not None and new not in known:
            _refuse_if_meant(name, config, key)
        else:
            written[new] = _value(new, value, trust=trust)
    if name == "InputLayer":
        written["batch_shape"] = config.get("batch_input_shape") or config.get("batch_shape")
    if "name" in written:
        written["name"] = _clean(written["name"])
    return written


def _value(key: str, value: Any, *, trust: bool) -> Any:
    if key in ("layer", "backward_layer", "cell") and isinstance(value, Mapping):
        return modernise(value, trust=trust)
    if key == "cells":
        return [modernise(cell, trust=trust) for cell in value]
    if key == "dtype":
        return _dtype(value)
    if key == "axis" and isinstance(value, list) and len(value) == 1:
        return int(value[0])
    return value


def _refuse_if_meant(name: str, config: Mapping[str, Any], key: str) -> None:
    harmless = _WITHOUT_EFFECT.get(key)
    if harmless is not None and config[key] not in harmless:
        raise SourceError(
            f"layer '{config.get('name')}' ({name}) has {key}={config[key]}, which Keras 3 no longer knows: expected "
            f"{key}={harmless[0]}; save the model again with a current Keras"
        )


def _dtype(value: Any) -> Any:
    """A dtype or policy by its name."""
    if isinstance(value, Mapping):
        return value.get("config", {}).get("name", "float32")
    return value or "float32"


def _arguments(name: str) -> set[str] | None:
    """What the layer's constructor takes; None for classes that are not Keras' own."""
    import keras  # noqa: PLC0415

    cls = getattr(keras.layers, name, None)
    if cls is None:
        return None
    own = set(inspect.signature(cls.__init__).parameters) - {"self", "kwargs", "args"}
    return own | {"name", "trainable", "dtype"}


def _module(name: str) -> str | None:
    import keras  # noqa: PLC0415

    return "keras.layers" if hasattr(keras.layers, name) else None


def _clean(name: str) -> str:
    """Keras 3 refuses slashes in names."""
    return name.replace("/", "_")
